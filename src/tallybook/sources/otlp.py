"""OTLP as it comes in, protobuf or JSON: read into spans, log records, and points of token metrics.

Of a span or a log record only the attributes that are asked for are read (`tallybook.sources.otlp_names`), and never a
body, so that prompts and answers are never looked at and never kept. What is read can be written as OTLP/JSON again,
to be kept by itself.

Source: opentelemetry-proto 1.x, and "JSON Protobuf Encoding" of the OTLP specification: hexadecimal ids, 64-bit
integers as numbers or as decimal text, enumerations as numbers, unknown fields passed over. Enumerations by name, which
other writers of JSON make of protobuf, are read as well.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData as LogsMessage
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData as MetricsMessage
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData as TracesMessage

from tallybook.sources.otlp_json import LOGS, METRICS, TRACES, LogsData, MetricsData, Structure, TracesData
from tallybook.sources.otlp_names import OBJECTS, READ, Names, usage_only
from tallybook.sources.otlp_repair import repaired_json, tolerant
from tallybook.sources.otlp_wire import ERROR, JSON, PROTOBUF, REPAIRED, Attributes, Plain, Wire, enumeration, integer

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


def read_spans(body: bytes, names: Names, *, is_json: bool) -> Iterator[Span]:
    """Return the spans of a body, in its order.

    Args:
        body: an ``ExportTraceServiceRequest``, whose fields are those of ``TracesData``.
        names: how attributes are read.
        is_json: it is JSON, and not protobuf.

    Raises:
        NotOtlp: it is no such thing.
    """
    data, wire = _of_json(TRACES, body) if is_json else _of_protobuf(TracesMessage, body)
    return _spans(data, names, wire)


def read_logs(body: bytes, names: Names, *, is_json: bool) -> Iterator[Log]:
    """Return the log records of a body, an ``ExportLogsServiceRequest``, as `read_spans` does."""
    data, wire = _of_json(LOGS, body) if is_json else _of_protobuf(LogsMessage, body)
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
    data, wire = _of_json(METRICS, body) if is_json else _of_protobuf(MetricsMessage, body)
    return _points(data, is_read, wire)


def spans_of(record: Any, names: Names) -> Iterator[Span]:
    """Return the spans of a decoded JSON value; raises `NotOtlp`."""
    return _spans(_converted(record, TracesData), names, JSON)


def logs_of(record: Any, names: Names) -> Iterator[Log]:
    """Return the log records of a decoded JSON value; raises `NotOtlp`."""
    return _logs(_converted(record, LogsData), names, JSON)


def points_of(record: Any, is_read: Callable[[str], bool]) -> Iterator[Point]:
    """Return the points of some metrics of a decoded JSON value; raises `NotOtlp`."""
    return _points(_converted(record, MetricsData), is_read, JSON)


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
        content["status"] = {"code": ERROR}
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


def _of_json(decoder: msgspec.json.Decoder[Any], body: bytes) -> tuple[Any, Wire]:
    try:
        return decoder.decode(body), JSON
    except msgspec.ValidationError as error:
        raise NotOtlp(str(error)) from None
    except (ValueError, RecursionError) as error:
        problem = str(error)
    try:
        return decoder.decode(repaired_json(body)), JSON
    except (ValueError, RecursionError):
        raise NotOtlp(problem) from None


def _of_protobuf(message: type[Message], body: bytes) -> tuple[Any, Wire]:
    try:
        return message.FromString(body), PROTOBUF
    except DecodeError as error:
        problem = str(error)
    try:
        return tolerant(message).FromString(body), REPAIRED
    except DecodeError:
        raise NotOtlp(problem) from None


def _converted(record: Any, structure: type[Structure]) -> Any:
    try:
        return msgspec.convert(record, structure)
    except msgspec.ValidationError as error:
        raise NotOtlp(str(error)) from None


def _spans(data: Any, names: Names, wire: Wire) -> Iterator[Span]:
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
                    integer(span.end_time_unix_nano),
                    span.status is not None and enumeration(span.status.code) == ERROR,
                    attributes,
                    resource,
                    others,
                    scope,
                )


_EVENT: Final = "event.name"
"""Where the name of an event was before log records had a field for it."""


def _logs(data: Any, names: Names, wire: Wire) -> Iterator[Log]:
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
                    integer(log.time_unix_nano),
                    integer(log.observed_time_unix_nano),
                    attributes,
                    resource,
                    others,
                    scope,
                )


def _points(data: Any, is_read: Callable[[str], bool], wire: Wire) -> Iterator[Point]:
    for resource_metrics in data.resource_metrics or ():
        resource = _resource(resource_metrics.resource, _ALL, wire)
        whose = digest(resource)
        for scope_metrics in resource_metrics.scope_metrics or ():
            scope = wire.text(scope_metrics.scope and scope_metrics.scope.name)
            sender = digest(whose, scope)
            for metric in scope_metrics.metrics or ():
                if is_read(wire.text(metric.name)):
                    yield from _points_of_metric(metric, scope, resource, sender, wire)


def _points_of_metric(metric: Any, scope: str, resource: Attributes, sender: bytes, wire: Wire) -> Iterator[Point]:
    """Yield what can be added up; points of gauges and summaries cannot."""
    for name in ("sum", "histogram", "exponential_histogram"):
        data = getattr(metric, name)
        for point in (data and data.data_points) or ():
            if integer(point.flags) & _NO_VALUE:
                continue
            yield Point(
                metric.name,
                enumeration(data.aggregation_temporality),
                integer(point.start_time_unix_nano),
                integer(point.time_unix_nano),
                wire.total(point),
                None if name == "sum" else integer(point.count),
                wire.attributes(point.attributes, _ALL)[0],
                scope,
                resource,
                sender,
            )


def _resource(resource: Any, names: Names, wire: Wire) -> Attributes:
    return {} if resource is None else wire.attributes(resource.attributes, names)[0]


_ALL: Final = Names((), lambda _: READ)
"""All attributes are read."""


def _written(attributes: Attributes) -> list[dict[str, object]]:
    """Return attributes as OTLP/JSON has them; of objects as JSON only what was used."""
    return [
        {"key": key, "value": _written_value(usage_only(value) if key in OBJECTS else value)}
        for key, value in attributes.items()
    ]


def _written_value(value: Plain) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"stringValue": value} if isinstance(value, str) else {"doubleValue": value}
