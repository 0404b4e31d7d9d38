"""OTLP as it comes in, protobuf or JSON: read into spans, log records, and points of token metrics.

Of a span or a log record only the attributes that are asked for are read (`tallybook.sources.otlp_names`), and never a
body, so that prompts and answers are never looked at and never kept. What is read can be written as OTLP/JSON again,
to be kept by itself.

Source: opentelemetry-proto 1.x, and "JSON Protobuf Encoding" of the OTLP specification: hexadecimal ids, 64-bit
integers as numbers or as decimal text, enumerations as numbers, unknown fields passed over. Enumerations by name, which
other writers of JSON make of protobuf, are read as well.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData as LogsMessage
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData as MetricsMessage
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData as TracesMessage

from tallybook.sources.otlp_names import ID, READ, RESPONSE_ID, Names, counted, response_id
from tallybook.sources.otlp_repair import repaired_json, text, tolerant

Plain = str | int | float | bool
"""What the attributes that matter here may be; lists and maps are passed over."""
Attributes = Mapping[str, Plain]

DELTA: Final = 1
"""The temporality of what was added since the point before."""
_ERROR: Final = 2
_ENUMERATIONS: Final[Mapping[object, int]] = {
    "STATUS_CODE_ERROR": _ERROR,
    "AGGREGATION_TEMPORALITY_DELTA": DELTA,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
}
_NO_VALUE: Final = 1
"""The flag of a point that only says that there is nothing to say any more."""


class NotOtlp(ValueError):
    """Bytes or JSON that are not of OTLP."""


class Span(NamedTuple):
    """A span.

    Attributes:
        name: of the operation; low in variety.
        trace_id: hexadecimal, lower case.
        span_id: likewise.
        parent_id: of the span it is part of; empty if there is none.
        end_ns: when it ended, Unix nanoseconds; 0 where that is not said.
        is_error: it ended with an error.
        attributes: those that were asked for.
        resource: attributes of whoever sent it, likewise.
        others: numbers under names of tokens that were not asked for, and True for a name of a model likewise.
        scope: name of the instrumentation.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    end_ns: int
    is_error: bool
    attributes: Attributes
    resource: Attributes
    others: Mapping[str, int | float] = {}
    scope: str = ""


class Log(NamedTuple):
    """A log record.

    Attributes:
        name: of the event; empty if it is none.
        trace_id: hexadecimal, lower case; empty outside of spans.
        span_id: likewise.
        time_ns: when it happened, Unix nanoseconds; 0 where that is not said.
        observed_ns: when it was first seen, likewise.
        attributes: those that were asked for.
        resource: attributes of whoever sent it, likewise.
        others: as a span has them.
        scope: name of the instrumentation.
    """

    name: str
    trace_id: str
    span_id: str
    time_ns: int
    observed_ns: int
    attributes: Attributes
    resource: Attributes
    others: Mapping[str, int | float]
    scope: str


class Point(NamedTuple):
    """A point of a metric: what was counted in a stretch of time.

    Attributes:
        metric: its name.
        temporality: `DELTA`, or another, in which it counts from the start of a process.
        start_ns: since when it counts, Unix nanoseconds.
        time_ns: until when.
        total: what it comes to; None where a histogram does not say.
        measured: of a histogram, how many measurements; None for a sum.
        attributes: all of them.
        scope: name of the instrumentation.
        resource: all attributes of whoever sent it.
        sender: a digest of these two.
    """

    metric: str
    temporality: int
    start_ns: int
    time_ns: int
    total: Plain | None
    measured: int | None
    attributes: Attributes
    scope: str
    resource: Attributes
    sender: bytes


Number = int | float | str


class _Structure(msgspec.Struct, rename="camel", gc=False):
    """A message in JSON, with the field names of protobuf. What is null is absent."""


class _Value(_Structure):
    """Not even the types are looked at: most values are of attributes that nobody reads."""

    string_value: Any = None
    int_value: Any = None
    double_value: Any = None
    bool_value: Any = None


class _Attribute(_Structure):
    key: str = ""
    value: _Value | None = None


class _Resource(_Structure):
    attributes: list[_Attribute] | None = None


class _Scope(_Structure):
    name: str | None = None


class _Status(_Structure):
    code: Number | None = None


class _Span(_Structure):
    name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    end_time_unix_nano: Number | None = None
    status: _Status | None = None
    attributes: list[_Attribute] | None = None


class _ScopeSpans(_Structure):
    scope: _Scope | None = None
    spans: list[_Span] | None = None


class _ResourceSpans(_Structure):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class TracesData(_Structure):
    """A body of traces."""

    resource_spans: list[_ResourceSpans] | None = None


class _LogRecord(_Structure):
    event_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    time_unix_nano: Number | None = None
    observed_time_unix_nano: Number | None = None
    attributes: list[_Attribute] | None = None


class _ScopeLogs(_Structure):
    scope: _Scope | None = None
    log_records: list[_LogRecord] | None = None


class _ResourceLogs(_Structure):
    resource: _Resource | None = None
    scope_logs: list[_ScopeLogs] | None = None


class LogsData(_Structure):
    """A body of logs."""

    resource_logs: list[_ResourceLogs] | None = None


class _DataPoint(_Structure):
    attributes: list[_Attribute] | None = None
    start_time_unix_nano: Number | None = None
    time_unix_nano: Number | None = None
    as_int: Number | None = None
    as_double: Number | None = None
    count: Number | None = None
    sum: Number | None = None
    flags: Number | None = None


class _Data(_Structure):
    data_points: list[_DataPoint] | None = None
    aggregation_temporality: Number | None = None


class _Metric(_Structure):
    name: str | None = None
    sum: _Data | None = None
    histogram: _Data | None = None
    exponential_histogram: _Data | None = None


class _ScopeMetrics(_Structure):
    scope: _Scope | None = None
    metrics: list[_Metric] | None = None


class _ResourceMetrics(_Structure):
    resource: _Resource | None = None
    scope_metrics: list[_ScopeMetrics] | None = None


class MetricsData(_Structure):
    """A body of metrics."""

    resource_metrics: list[_ResourceMetrics] | None = None


_TRACES: Final = msgspec.json.Decoder(TracesData)
_METRICS: Final = msgspec.json.Decoder(MetricsData)
_LOGS: Final = msgspec.json.Decoder(LogsData)


class _Wire(NamedTuple):
    """How the two encodings differ.

    Attributes:
        attributes: plain attributes by name that are to be read, and what others there are, see `Span`.
        identity: an id in hexadecimal.
        total: what a point comes to.
        text: a name.
    """

    attributes: Callable[[Any, Names], tuple[Attributes, Mapping[str, int | float]]]
    identity: Callable[[Any], str]
    total: Callable[[Any], Plain | None]
    text: Callable[[Any], str]


def read_spans(body: bytes, names: Names, *, is_json: bool) -> Iterator[Span]:
    """Return the spans of a body, in its order.

    Args:
        body: an ``ExportTraceServiceRequest``, whose fields are those of ``TracesData``.
        names: how attributes are read.
        is_json: it is JSON, and not protobuf.

    Raises:
        NotOtlp: it is no such thing.
    """
    data, wire = _of_json(_TRACES, body) if is_json else _of_protobuf(TracesMessage, body)
    return _spans(data, names, wire)


def read_logs(body: bytes, names: Names, *, is_json: bool) -> Iterator[Log]:
    """Return the log records of a body, an ``ExportLogsServiceRequest``, as `read_spans` does."""
    data, wire = _of_json(_LOGS, body) if is_json else _of_protobuf(LogsMessage, body)
    return _logs(data, names, wire)


def read_points(body: bytes, is_read: Callable[[str], bool], *, is_json: bool) -> Iterator[Point]:
    """Return the points of some metrics of a body, in its order.

    Args:
        body: an ``ExportMetricsServiceRequest``.
        is_read: whether the metric of a name is read.
        is_json: it is JSON, and not protobuf.

    Raises:
        NotOtlp: it is no such thing.
    """
    data, wire = _of_json(_METRICS, body) if is_json else _of_protobuf(MetricsMessage, body)
    return _points(data, is_read, wire)


def spans_of(record: Any, names: Names) -> Iterator[Span]:
    """Return the spans of a decoded JSON value; raises `NotOtlp`."""
    return _spans(_converted(record, TracesData), names, _JSON)


def logs_of(record: Any, names: Names) -> Iterator[Log]:
    """Return the log records of a decoded JSON value; raises `NotOtlp`."""
    return _logs(_converted(record, LogsData), names, _JSON)


def points_of(record: Any, is_read: Callable[[str], bool]) -> Iterator[Point]:
    """Return the points of some metrics of a decoded JSON value; raises `NotOtlp`."""
    return _points(_converted(record, MetricsData), is_read, _JSON)


def span_record(span: Span) -> bytes:
    """Return a span, as far as it was read, as OTLP/JSON by itself."""
    content: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _written({**span.attributes, **span.others}),
    }
    if span.is_error:
        content["status"] = {"code": _ERROR}
    scope_spans = [{"scope": {"name": span.scope}, "spans": [content]}]
    return msgspec.json.encode(
        {"resourceSpans": [{"resource": {"attributes": _written(span.resource)}, "scopeSpans": scope_spans}]}
    )


def log_record(log: Log) -> bytes:
    """Return a log record, as far as it was read, as OTLP/JSON by itself."""
    content: dict[str, object] = {
        "eventName": log.name,
        "traceId": log.trace_id,
        "spanId": log.span_id,
        "timeUnixNano": str(log.time_ns),
        "observedTimeUnixNano": str(log.observed_ns),
        "attributes": _written({**log.attributes, **log.others}),
    }
    scope_logs = [{"scope": {"name": log.scope}, "logRecords": [content]}]
    return msgspec.json.encode(
        {"resourceLogs": [{"resource": {"attributes": _written(log.resource)}, "scopeLogs": scope_logs}]}
    )


def points_record(points: Iterable[Point]) -> bytes:
    """Return points of one sender and instrumentation as OTLP/JSON by themselves."""
    metrics = []
    for point in points:
        found: dict[str, object] = {
            "attributes": _written(point.attributes),
            "startTimeUnixNano": str(point.start_ns),
            "timeUnixNano": str(point.time_ns),
        }
        if point.measured is None:
            found["asDouble" if isinstance(point.total, float) else "asInt"] = point.total
        else:
            found |= {"count": str(point.measured), "sum": point.total}
        data = {"aggregationTemporality": point.temporality, "dataPoints": [found]}
        metrics.append({"name": point.metric, "sum" if point.measured is None else "histogram": data})
    scope_metrics = [{"scope": {"name": point.scope}, "metrics": metrics}]
    resource = {"attributes": _written(point.resource)}
    return msgspec.json.encode({"resourceMetrics": [{"resource": resource, "scopeMetrics": scope_metrics}]})


def digest(*parts: object) -> bytes:
    """Return what is the same for the same JSON."""
    return hashlib.blake2b(msgspec.json.encode(parts, order="deterministic"), digest_size=16).digest()


def _of_json(decoder: msgspec.json.Decoder[Any], body: bytes) -> tuple[Any, _Wire]:
    try:
        return decoder.decode(body), _JSON
    except msgspec.ValidationError as error:
        raise NotOtlp(str(error)) from None
    except (ValueError, RecursionError) as error:
        problem = str(error)
    try:
        return decoder.decode(repaired_json(body)), _JSON
    except (ValueError, RecursionError):
        raise NotOtlp(problem) from None


def _of_protobuf(message: type[Message], body: bytes) -> tuple[Any, _Wire]:
    try:
        return message.FromString(body), _PROTOBUF
    except DecodeError as error:
        problem = str(error)
    try:
        return tolerant(message).FromString(body), _REPAIRED
    except DecodeError:
        raise NotOtlp(problem) from None


def _converted(record: Any, structure: type[_Structure]) -> Any:
    try:
        return msgspec.convert(record, structure)
    except msgspec.ValidationError as error:
        raise NotOtlp(str(error)) from None


def _spans(data: Any, names: Names, wire: _Wire) -> Iterator[Span]:
    for resource_spans in data.resource_spans or ():
        resource = _resource(resource_spans.resource, names, wire)
        for scope_spans in resource_spans.scope_spans or ():
            scope = wire.text(scope_spans.scope and scope_spans.scope.name)
            for span in scope_spans.spans or ():
                attributes, others = wire.attributes(span.attributes, names)
                yield Span(
                    wire.text(span.name),
                    wire.identity(span.trace_id),
                    wire.identity(span.span_id),
                    wire.identity(span.parent_span_id),
                    _integer(span.end_time_unix_nano),
                    span.status is not None and _enumeration(span.status.code) == _ERROR,
                    attributes,
                    resource,
                    others,
                    scope,
                )


_EVENT: Final = "event.name"
"""Where the name of an event was before log records had a field for it."""


def _logs(data: Any, names: Names, wire: _Wire) -> Iterator[Log]:
    for resource_logs in data.resource_logs or ():
        resource = _resource(resource_logs.resource, names, wire)
        for scope_logs in resource_logs.scope_logs or ():
            scope = wire.text(scope_logs.scope and scope_logs.scope.name)
            for log in scope_logs.log_records or ():
                attributes, others = wire.attributes(log.attributes, names)
                yield Log(
                    wire.text(log.event_name) or str(attributes.get(_EVENT, "")),
                    wire.identity(log.trace_id),
                    wire.identity(log.span_id),
                    _integer(log.time_unix_nano),
                    _integer(log.observed_time_unix_nano),
                    attributes,
                    resource,
                    others,
                    scope,
                )


def _points(data: Any, is_read: Callable[[str], bool], wire: _Wire) -> Iterator[Point]:
    for resource_metrics in data.resource_metrics or ():
        resource = _resource(resource_metrics.resource, _ALL, wire)
        whose = digest(resource)
        for scope_metrics in resource_metrics.scope_metrics or ():
            scope = wire.text(scope_metrics.scope and scope_metrics.scope.name)
            sender = digest(whose, scope)
            for metric in scope_metrics.metrics or ():
                if is_read(wire.text(metric.name)):
                    yield from _points_of_metric(metric, scope, resource, sender, wire)


def _points_of_metric(metric: Any, scope: str, resource: Attributes, sender: bytes, wire: _Wire) -> Iterator[Point]:
    """Yield what can be added up; points of gauges and summaries cannot."""
    for name in ("sum", "histogram", "exponential_histogram"):
        data = getattr(metric, name)
        for point in (data and data.data_points) or ():
            if _integer(point.flags) & _NO_VALUE:
                continue
            yield Point(
                metric.name,
                _enumeration(data.aggregation_temporality),
                _integer(point.start_time_unix_nano),
                _integer(point.time_unix_nano),
                wire.total(point),
                None if name == "sum" else _integer(point.count),
                wire.attributes(point.attributes, _ALL)[0],
                scope,
                resource,
                sender,
            )


def _resource(resource: Any, names: Names, wire: _Wire) -> Attributes:
    return {} if resource is None else wire.attributes(resource.attributes, names)[0]


_ALL: Final = Names((), lambda _: READ)
"""All attributes are read."""
_NONE: Final[Mapping[str, int | float]] = {}


def _attributes_of_protobuf(attributes: Any, names: Names) -> tuple[dict[str, Plain], Mapping[str, int | float]]:
    found: dict[str, Plain] = {}
    others: dict[str, int | float] | None = None
    read, passed = names.read, names.passed
    for each in attributes:
        key = each.key
        if key in read:
            value = each.value
            plain = value.string_value or value.int_value  # to ask which of them it is takes longer than both
            if not plain:
                name = value.WhichOneof("value")
                if name not in _PLAIN:
                    continue
                plain = getattr(value, name)
            found[key] = plain
        elif key not in passed and (how := names.decide(key)):
            name = each.value.WhichOneof("value")
            others = _added(found, others, key, getattr(each.value, name) if name in _PLAIN else None, how)
    return found, others or _NONE


def _added(
    found: dict[str, Plain], others: dict[str, int | float] | None, key: str, plain: Plain | None, how: int
) -> dict[str, int | float] | None:
    """Put an attribute that nobody asked for to its like; return the others."""
    if plain is None:
        return others
    if how == READ:
        found[key] = plain
    elif how == ID:
        if name := response_id(plain):
            found.setdefault(RESPONSE_ID, name)
    elif (count := counted(plain, how)) is not None:
        others = {} if others is None else others
        others[key] = count
    return others


_PLAIN: Final = frozenset({"string_value", "int_value", "double_value", "bool_value"})


def _repaired_attributes(attributes: Any, names: Names) -> tuple[Attributes, Mapping[str, int | float]]:
    found, others = _attributes_of_protobuf(attributes, names)
    return {text(key): text(value) for key, value in found.items()}, others


def _attributes_of_json(
    attributes: list[_Attribute] | None, names: Names
) -> tuple[Attributes, Mapping[str, int | float]]:
    found: dict[str, Plain] = {}
    others: dict[str, int | float] | None = None
    read, passed = names.read, names.passed
    for each in attributes or ():
        key = each.key
        if key in read:
            if (plain := _value_of_json(each.value)) is not None:
                found[key] = plain
        elif key not in passed and (how := names.decide(key)):
            others = _added(found, others, key, _value_of_json(each.value), how)
    return found, others or _NONE


_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_UINT64_MAX: Final = 2**64 - 1


def _integer(value: Any) -> int:
    """Return a 64-bit integer however JSON has it; 0 for what is none."""
    if isinstance(value, str | float):
        value = _number(value)
    return value if isinstance(value, int) and abs(value) <= _UINT64_MAX else 0


def _enumeration(value: Any) -> int:
    return _ENUMERATIONS.get(value) or _integer(value)


def _value_of_json(value: _Value | None) -> Plain | None:
    """Return what a value is; None for lists and maps, and for what is not what it says it is."""
    if value is None:
        return None
    if isinstance(value.string_value, str):
        return value.string_value
    if value.int_value is not None:
        return _number(value.int_value)
    if value.double_value is not None:
        return _number(value.double_value)
    return value.bool_value if isinstance(value.bool_value, bool) else None


def _number(value: Any) -> Number | None:
    """Return an integer that JSON has as text; anything else as it is, for whoever counts with it to refuse."""
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value) else value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _UINT64_MAX else value
    if isinstance(value, int):
        return value if abs(value) <= _UINT64_MAX else math.inf
    return None


def _total_of_protobuf(point: Any) -> Plain | None:
    if point.DESCRIPTOR.name == "NumberDataPoint":
        name = point.WhichOneof("value")
        return getattr(point, name) if name else None
    return point.sum if point.HasField("sum") else None


def _total_of_json(point: _DataPoint) -> Plain | None:
    total = next((value for value in (point.as_int, point.as_double, point.sum) if value is not None), None)
    return None if total is None else _number(total)


def _identity_of_json(value: str | None) -> str:
    return (value or "").lower()


def _text_of_json(value: str | None) -> str:
    return value or ""


_JSON: Final = _Wire(_attributes_of_json, _identity_of_json, _total_of_json, _text_of_json)
_PROTOBUF: Final = _Wire(_attributes_of_protobuf, bytes.hex, _total_of_protobuf, str)
_REPAIRED: Final = _PROTOBUF._replace(attributes=_repaired_attributes, text=text)


def _written(attributes: Attributes) -> list[dict[str, object]]:
    return [{"key": key, "value": _written_value(value)} for key, value in attributes.items()]


def _written_value(value: Plain) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"stringValue": value} if isinstance(value, str) else {"doubleValue": value}
