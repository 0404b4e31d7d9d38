"""Messages of OTLP as JSON has them: the fields that are read, the others are passed over."""

from typing import Any, Final

import msgspec

Number = int | float | str
"""However JSON has a number: 64-bit integers may be text."""


class Structure(msgspec.Struct, rename="camel", gc=False):
    """A message in JSON, with the field names of protobuf. What is null is absent."""


class Value(Structure):
    """Not even the types are looked at: most values are of attributes that nobody reads."""

    string_value: Any = None
    int_value: Any = None
    double_value: Any = None
    bool_value: Any = None


class Attribute(Structure):
    """An attribute."""

    key: str = ""
    value: Value | None = None


class Resource(Structure):
    """Who sends."""

    attributes: list[Attribute] | None = None


class Scope(Structure):
    """The instrumentation."""

    name: str | None = None


class Status(Structure):
    """How a span ended."""

    code: Number | None = None


class Span(Structure):
    """A span."""

    name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    end_time_unix_nano: Number | None = None
    status: Status | None = None
    attributes: list[Attribute] | None = None


class ScopeSpans(Structure):
    """Spans of one instrumentation."""

    scope: Scope | None = None
    spans: list[Span] | None = None


class ResourceSpans(Structure):
    """Spans of one sender."""

    resource: Resource | None = None
    scope_spans: list[ScopeSpans] | None = None


class TracesData(Structure):
    """A body of traces."""

    resource_spans: list[ResourceSpans] | None = None


class LogRecord(Structure):
    """A log record; its body is not read."""

    event_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    time_unix_nano: Number | None = None
    observed_time_unix_nano: Number | None = None
    attributes: list[Attribute] | None = None


class ScopeLogs(Structure):
    """Log records of one instrumentation."""

    scope: Scope | None = None
    log_records: list[LogRecord] | None = None


class ResourceLogs(Structure):
    """Log records of one sender."""

    resource: Resource | None = None
    scope_logs: list[ScopeLogs] | None = None


class LogsData(Structure):
    """A body of logs."""

    resource_logs: list[ResourceLogs] | None = None


class DataPoint(Structure):
    """A point of a sum or a histogram."""

    attributes: list[Attribute] | None = None
    start_time_unix_nano: Number | None = None
    time_unix_nano: Number | None = None
    as_int: Number | None = None
    as_double: Number | None = None
    count: Number | None = None
    sum: Number | None = None
    flags: Number | None = None


class Data(Structure):
    """The points of a metric."""

    data_points: list[DataPoint] | None = None
    aggregation_temporality: Number | None = None


class Metric(Structure):
    """A metric."""

    name: str | None = None
    sum: Data | None = None
    histogram: Data | None = None
    exponential_histogram: Data | None = None


class ScopeMetrics(Structure):
    """Metrics of one instrumentation."""

    scope: Scope | None = None
    metrics: list[Metric] | None = None


class ResourceMetrics(Structure):
    """Metrics of one sender."""

    resource: Resource | None = None
    scope_metrics: list[ScopeMetrics] | None = None


class MetricsData(Structure):
    """A body of metrics."""

    resource_metrics: list[ResourceMetrics] | None = None


TRACES: Final = msgspec.json.Decoder(TracesData)
METRICS: Final = msgspec.json.Decoder(MetricsData)
LOGS: Final = msgspec.json.Decoder(LogsData)
