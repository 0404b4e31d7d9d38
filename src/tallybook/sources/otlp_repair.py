"""Bodies of OTLP with a fault in a text, which as a rule is a prompt or an answer that nobody here reads.

Instrumentations cut long texts to a number of units, and that may be in the middle of a character. In JSON half of a
character becomes a question mark; in protobuf it comes as bytes. And lists and maps, which are passed over, may be
nested deeper in protobuf than its library follows.
"""

import json
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


def repaired_json(body: bytes) -> bytes:
    """Return JSON whose texts all are text; raises `ValueError` or `RecursionError` for what is no JSON."""
    content = json.loads(body.decode(errors="replace"))
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="replace")


def tolerant(message: type[Message]) -> type[Message]:
    """Return a message of OTLP as a class that takes bytes which are no text, and gives them back as bytes."""
    return GetMessageClass(_POOL.FindMessageTypeByName(message.DESCRIPTOR.full_name))


def text(value: Any) -> Any:
    """Return bytes as the text they should have been, and anything else as it is."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2, metrics_pb2, logs_pb2):
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        file.syntax = "proto2"  # which does not look at what a text is made of
        for message in file.message_type:
            _loosen(message)
        pool.Add(file)
    return pool


def _loosen(message: DescriptorProto) -> None:
    for field in message.field:
        if field.proto3_optional:  # all fields are, in proto2, and need no oneof each to say so
            field.ClearField("proto3_optional")
            field.ClearField("oneof_index")
    del message.oneof_decl[sum(not group.name.startswith("_") for group in message.oneof_decl) :]
    if message.name == "AnyValue":
        plain = [field for field in message.field if not field.type_name]
        del message.field[:]
        message.field.extend(plain)


_POOL: Final = _pool()
