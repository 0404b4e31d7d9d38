"""OTLP as instrumentations send it, put together from attributes; in JSON, and the same in protobuf."""

from base64 import b64encode
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

TRACE_ID = "5b8efff798038103d269b633813fc60c"
SPAN_ID = "eee19b7ec3c1b174"
END_NS = 1_763_800_000_250_999_999
SPAN_END = 1_763_800_000.25
SERVICE = {"service.name": "search", "telemetry.sdk.name": "opentelemetry"}
Json = dict[str, Any]


def attributes(values: Json) -> list[Json]:
    """Attributes as JSON has them."""
    return [{"key": name, "value": value(of)} for name, of in values.items()]


def value(of: Any) -> Json:
    match of:
        case bool():
            return {"boolValue": of}
        case int():
            return {"intValue": str(of)}
        case float():
            return {"doubleValue": of}
        case list():
            return {"arrayValue": {"values": [value(each) for each in of]}}
        case _:
            return {"stringValue": of}


def span(values: Json, **fields: Any) -> Json:
    return {
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "name": "chat gpt-4o",
        "kind": 3,
        "startTimeUnixNano": str(END_NS - 10**9),
        "endTimeUnixNano": str(END_NS),
        "attributes": attributes(values),
        **fields,
    }


def log(values: Json, **fields: Any) -> Json:
    return {"timeUnixNano": str(END_NS), "body": {"stringValue": "secret"}, "attributes": attributes(values), **fields}


def logs(*records: Json, resource: Json | None = None, scope: str = "test") -> Json:
    """A body of logs of one service."""
    scope_logs = [{"scope": {"name": scope}, "logRecords": list(records)}]
    sender = {"attributes": attributes(SERVICE if resource is None else resource)}
    return {"resourceLogs": [{"resource": sender, "scopeLogs": scope_logs}]}


def traces(*spans: Json, resource: Json | None = None, scope: str = "test") -> Json:
    """A body of traces of one service."""
    scope_spans = [{"scope": {"name": scope}, "spans": list(spans)}]
    sender = {"attributes": attributes(SERVICE if resource is None else resource)}
    return {"resourceSpans": [{"resource": sender, "scopeSpans": scope_spans}]}


def metrics(*measured: Json, resource: Json | None = None, scope: str = "test") -> Json:
    """A body of metrics of one service."""
    scope_metrics = [{"scope": {"name": scope}, "metrics": list(measured)}]
    sender = {"attributes": attributes(SERVICE if resource is None else resource)}
    return {"resourceMetrics": [{"resource": sender, "scopeMetrics": scope_metrics}]}


def histogram(name: str, *points: Json, temporality: int = 1) -> Json:
    return {"name": name, "histogram": {"aggregationTemporality": temporality, "dataPoints": list(points)}}


def counter(name: str, *points: Json, temporality: int = 1) -> Json:
    data = {"aggregationTemporality": temporality, "isMonotonic": True, "dataPoints": list(points)}
    return {"name": name, "sum": data}


def point(values: Json, *, since_ns: int = END_NS - 10**9, until_ns: int = END_NS, **fields: Any) -> Json:
    times = {"startTimeUnixNano": str(since_ns), "timeUnixNano": str(until_ns)}
    return {"attributes": attributes(values), **times, **fields}


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf that has a length."""
    length, left = b"", len(content)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + content


def in_protobuf(body: Json) -> bytes:
    """The same body in protobuf, whose JSON has ids in base64, other than OTLP's."""
    if "resourceMetrics" in body:
        return ParseDict(body, MetricsData(), ignore_unknown_fields=True).SerializeToString()
    if "resourceLogs" in body:
        return ParseDict(_in_base64(body), LogsData(), ignore_unknown_fields=True).SerializeToString()
    return ParseDict(_in_base64(body), TracesData(), ignore_unknown_fields=True).SerializeToString()


def _in_base64(found: Any) -> Any:
    if isinstance(found, dict):
        return {
            name: b64encode(bytes.fromhex(of)).decode()
            if name in ("traceId", "spanId", "parentSpanId")
            else _in_base64(of)
            for name, of in found.items()
        }
    return [_in_base64(each) for each in found] if isinstance(found, list) else found
