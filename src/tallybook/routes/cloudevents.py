"""CloudEvents over HTTP: which of its three modes a request is in, and its body as CloudEvents in JSON.

Source: CloudEvents HTTP protocol binding 1.0.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.datastructures import Headers

from tallybook.errors import InvalidRequest, UnsupportedMediaType
from tallybook.ingest.decode import Decoded, decode_records
from tallybook.routes.context import Context
from tallybook.sources.table import SOURCES

DIALECT: Final = "cloudevents"
_BATCH: Final = "application/cloudevents-batch"
_STRUCTURED: Final = "application/cloudevents"
_PREFIX: Final = "ce-"
_REQUIRED: Final = ("ce-specversion", "ce-id", "ce-source", "ce-type")
_ESCAPED: Final = re.compile(r"\\(.)")


def reader(headers: Headers) -> Callable[[Context, bytes, int], Decoded] | None:
    """Return what makes events of the body of a request; None if it is no CloudEvent.

    Raises:
        InvalidRequest: a header is not what it must be.
        UnsupportedMediaType: the CloudEvents are not in JSON.
    """
    sent = headers.get("content-type", "")
    name = sent.partition(";")[0].strip().lower()
    if name.startswith(_STRUCTURED):
        is_batch = name.startswith(_BATCH)
        if name != f"{_BATCH if is_batch else _STRUCTURED}+json":
            raise UnsupportedMediaType(
                f"Content-Type {sent[:64]!r} is not supported; send CloudEvents in JSON: {_STRUCTURED}+json or "
                f"{_BATCH}+json",
                param="Content-Type",
                code="unsupported_content_type",
            )
        return lambda app, body, received_ms: _decoded(app, _checked(body, is_batch=is_batch), received_ms)
    if not any(header in headers for header in _REQUIRED):
        return None
    attributes = {
        header.removeprefix(_PREFIX): _text(header, value)
        for header, value in headers.items()
        if header.startswith(_PREFIX)
    }
    return lambda app, body, received_ms: _decoded(app, _structured(attributes, sent, body), received_ms)


def _decoded(app: Context, body: bytes, received_ms: int) -> Decoded:
    since_ms = app.store.kept.events_s * 1000
    return decode_records(SOURCES[DIALECT], app.options, body, received_ms, app.settings.events_max, since_ms)


def _checked(body: bytes, *, is_batch: bool) -> bytes:
    """Return the body of a request, which is one CloudEvent, or an array of them; raises `InvalidRequest`.

    Only how it begins is looked at. Whether it is JSON is for each event to say: one that is not spoils no other.
    """
    if body.lstrip().startswith(b"[") != is_batch:
        expected = "an array of CloudEvents" if is_batch else "one CloudEvent"
        raise InvalidRequest(f"The body is not {expected}, as its Content-Type says", code="invalid_json")
    return body


def _structured(attributes: dict[str, str], content_type: str, body: bytes) -> bytes:
    """Return a CloudEvent in binary mode as one in JSON; a body that is not JSON is in it as base64."""
    content: dict[str, object] = dict(attributes)
    if content_type:
        content["datacontenttype"] = content_type
    try:
        msgspec.json.decode(body)
        content["data"] = msgspec.Raw(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content["data_base64"] = b64encode(body).decode()
    return msgspec.json.encode(content)


def _text(header: str, value: str) -> str:
    """Return the value of a header without quotes, and without one round of percent-encoding."""
    value = value.strip()
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = _ESCAPED.sub(r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{header} is not UTF-8 in percent-encoding; encode what is beyond printable ASCII",
            param=header,
            code="invalid_value",
        ) from None
