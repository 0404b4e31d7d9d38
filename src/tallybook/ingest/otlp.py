"""Bytes of OTLP to records: spans and log records of model calls, and points of token metrics.

As with events of ours, all of a body is read as columns at once, and only when something is wrong one span after the
other. Knows nothing of HTTP or the store.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from tallybook.columns import Columns, read_columns
from tallybook.errors import BodyTooLarge, InvalidRequest
from tallybook.event import CONTROL, Event, Fault
from tallybook.ingest.decode import COLUMNS_MIN, Decoded, Rejected, collect, records_of, split
from tallybook.sources import otlp_logs, otlp_spans
from tallybook.sources.otlp import (
    NotOtlp,
    Span,
    log_record,
    points_record,
    read_logs,
    read_points,
    read_spans,
    span_record,
)
from tallybook.sources.otlp_lines import (
    SpanKey,
    carry_up,
    counted_before,
    key_of,
    note_above,
    note_alike,
    repeated,
    settled,
)
from tallybook.sources.otlp_metrics import group_events, grouped, is_read
from tallybook.sources.otlp_wire import DELTA
from tallybook.sources.record import Elsewhere, FaultyRecord, Options, Source, Unsure
from tallybook.sources.record import Event as Fields

_EVENTS: Final = list[Event]  # type: ignore[valid-type]
_KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
"""What is written of rejected items, all of a body: each repeats what they share, such as attributes of the sender."""


class Limits(NamedTuple):
    """What a body is held to.

    Attributes:
        now_ms: time of receipt, Unix milliseconds.
        events_max: the most events it may hold, with what is rejected.
        since_ms: since when events are kept, Unix milliseconds.
    """

    now_ms: int
    events_max: int
    since_ms: int = 0


class _Read(NamedTuple):
    """What one item of a body was read as.

    Attributes:
        place: where it is in the body.
        events: at least one.
        item: what it was: a span, a log record, or points that belong together.
    """

    place: int
    events: list[Fields]
    item: Any


def decode_traces(body: bytes, options: Options, limits: Limits, *, is_json: bool) -> Decoded:
    """Return the events of spans.

    Args:
        body: unpacked bytes of an ``ExportTraceServiceRequest``.
        options: what the operator says of sources.
        limits: what it is held to.
        is_json: it is JSON, and not protobuf.

    Raises:
        InvalidRequest: it is no such thing.
        BodyTooLarge: it holds more than `events_max` events, or ten times as many spans.
    """
    return _decode_whole(_TRACES, body, options, limits, is_json=is_json)


def decode_metrics(body: bytes, options: Options, limits: Limits, *, is_json: bool) -> Decoded:
    """Return the events of points of token metrics, likewise; there may be no more than `events_max` points."""
    return _decode_whole(_METRICS, body, options, limits, is_json=is_json)


def decode_logs(body: bytes, options: Options, limits: Limits, *, is_json: bool) -> Decoded:
    """Return the events of log records, likewise; there may be ten times as many log records as `events_max`."""
    return _decode_whole(_LOGS, body, options, limits, is_json=is_json)


def decode_lines(
    source: Source, options: Options, body: bytes, now_ms: int, events_max: int, since_ms: int = 0
) -> Decoded:
    """Return the events of a collector's file, each of whose lines is a body in JSON.

    Places are those of spans, log records or points in all of the lines. Nothing is kept of a line that is no OTLP.

    Args:
        source: what the lines hold, by its name.
        options: what the operator says of sources.
        body: unpacked bytes: one, an array, or one a line.
        now_ms: time of receipt, Unix milliseconds.
        events_max: the most events they may hold.
        since_ms: since when events are kept, Unix milliseconds.

    Raises:
        InvalidRequest: they are no JSON.
        BodyTooLarge: they hold too much.
    """
    signal = _SIGNALS[source.name]
    found = _Found(signal, options, Limits(now_ms, events_max, since_ms))
    for line in split(body.removeprefix(b"\xef\xbb\xbf").strip()):
        before = found.count
        try:
            signal.add(found, line, True)
        except NotOtlp as error:
            fault = Fault(None, None, f"a line is an {signal.message} in JSON, as a collector writes it: {error}")
            found.reject(found.next_place(), None, [fault], is_mendable=False)
        if found.count == before:
            found.ignored += 1
    return found.decoded()


def _decode_whole(signal: "_Signal", body: bytes, options: Options, limits: Limits, *, is_json: bool) -> Decoded:
    found = _Found(signal, options, limits)
    try:
        signal.add(found, body, is_json)
    except NotOtlp as error:
        encoding = "JSON" if is_json else "protobuf"
        raise InvalidRequest(f"The body is no {signal.message} in {encoding}: {error}", code="invalid_otlp") from None
    return found.decoded()


class _Signal(NamedTuple):
    """What differs between spans, log records and points.

    Attributes:
        message: what a body is.
        items: what it holds.
        items_per_event: so many times as many items may come as events.
        add: reads a body, in JSON or not; raises `NotOtlp`.
        record: makes of an item what is kept of it, if it is no good.
    """

    message: str
    items: str
    items_per_event: int
    add: Callable[["_Found", bytes, bool], None]
    record: Callable[[Any], bytes]


class _Found:
    """What the items of a body were read as, and which are rejected; within limits also while it is filled.

    Attributes:
        options: what the operator says of sources.
        count: how many items there are.
        read: those that make events.
        ignored: how many make none, and are good.
    """

    def __init__(self, signal: _Signal, options: Options, limits: Limits) -> None:
        self.options = options.of_request()
        self.count = 0
        self.read: list[_Read] = []
        self.ignored = 0
        self._signal = signal
        self._limits = limits
        self._rejected: list[Rejected] = []
        self._kept_bytes = 0

    def next_place(self, waiting: int = 0) -> int:
        """Return the place of one more item, while so many wait to be decided; raises `BodyTooLarge`."""
        events_max = self._limits.events_max
        if self.count >= events_max * self._signal.items_per_event:
            raise _too_many(events_max * self._signal.items_per_event, self._signal.items)
        if len(self.read) + len(self._rejected) + waiting > events_max:
            raise _too_many(events_max, "events")
        self.count += 1
        return self.count - 1

    def reject(self, place: int, item: Any, faults: list[Fault], *, is_mendable: bool = True) -> None:
        """Note an item that is no good, and what may be kept of it."""
        is_mendable = is_mendable and self._kept_bytes <= _KEPT_BYTES_MAX
        raw = self._signal.record(item) if is_mendable else b""
        self._kept_bytes += len(raw)
        self._rejected.append(Rejected(place, raw, faults, is_mendable))

    def decoded(self) -> Decoded:
        """Return what it all comes to; raises `BodyTooLarge`."""
        events = [event for item in self.read for event in item.events]
        if len(events) + len(self._rejected) > self._limits.events_max:
            raise _too_many(self._limits.events_max, "events")
        columns = _columns(events, self._limits) if len(events) >= COLUMNS_MIN else None
        if columns is not None:
            indexes = [item.place for item in self.read for _ in item.events]
            return self._noted(Decoded([], indexes, self._rejected, columns, self.ignored))
        checked = []
        for place, made, item in self.read:
            records = records_of(made, self._limits.now_ms)
            if isinstance(records[0], Fault):
                self.reject(place, item, [each for each in records if isinstance(each, Fault)])
            else:
                checked.append((place, b"", records))
        decoded = collect(checked, self._limits.since_ms)
        rejected = sorted([*decoded.rejected, *self._rejected], key=lambda each: each.index)
        return self._noted(decoded._replace(rejected=rejected, ignored=self.ignored))

    def _noted(self, decoded: Decoded) -> Decoded:
        return decoded._replace(unread=self.options.unread, alike=self.options.alike)


def _too_many(most: int, items: str) -> BodyTooLarge:
    return BodyTooLarge(f"The body holds more than {most} {items}; send it in several requests", code="too_many_events")


def _add_spans(found: _Found, body: bytes, is_json: bool) -> None:
    before = len(found.read)
    parents: dict[SpanKey, str] = {}
    roots: set[SpanKey] = set()
    unsure: list[tuple[int, Span, Unsure]] = []
    for span in read_spans(body, otlp_spans.names(found.options), is_json=is_json):
        place = found.next_place(len(unsure))
        if span.parent_id:
            parents[span.trace_id, span.span_id] = span.parent_id
        else:
            roots.add((span.trace_id, span.span_id))
        try:
            events = otlp_spans.span_events(span, found.options)
        except Unsure as doubt:
            unsure.append((place, span, doubt))
            continue
        except FaultyRecord as error:
            found.reject(place, span, error.faults, is_mendable=not isinstance(error, Elsewhere))
            continue
        if events:
            found.read.append(_Read(place, events, span))
        else:
            found.ignored += 1
    calls = [(each.item, each.events[0]) for each in found.read[before:]]
    carry_up(parents, found.options)
    verdicts = settled(calls, [(span, doubt) for _, span, doubt in unsure], parents, found.options)
    for (place, span, problem), verdict in zip(unsure, verdicts, strict=True):
        if verdict is None:
            found.reject(place, span, problem.faults)
        elif verdict:
            found.read.append(_Read(place, problem.events, span))
        else:
            found.ignored += 1
    if twice := repeated(calls, parents) | counted_before(calls, parents, found.options):
        kept = [each for each in found.read[before:] if key_of(each.item) not in twice]
        found.ignored += len(found.read) - before - len(kept)
        found.read[before:] = kept
        calls = [call for call in calls if key_of(call[0]) not in twice]
    note_alike(calls, found.options)
    note_above(calls, parents, roots, found.options)


def _add_logs(found: _Found, body: bytes, is_json: bool) -> None:
    for log in read_logs(body, otlp_logs.names(found.options), is_json=is_json):
        place = found.next_place()
        try:
            events = otlp_logs.log_events(log, found.options)
        except FaultyRecord as error:
            found.reject(place, log, error.faults)
            continue
        if events:
            found.read.append(_Read(place, events, log))
        else:
            found.ignored += 1


def _add_points(found: _Found, body: bytes, is_json: bool) -> None:
    first = found.count
    points = []
    for point in read_points(body, is_read, is_json=is_json):
        found.next_place()
        points.append(point)
    for places in grouped(points):
        group = [points[place] for place in places]
        try:
            events = group_events(group, found.options)
        except FaultyRecord as error:
            # What is kept of them all is kept with the first.
            is_mendable = all(point.temporality == DELTA for point in group) and not isinstance(error, Elsewhere)
            found.reject(first + places[0], group, error.faults, is_mendable=is_mendable)
            for place in places[1:]:
                found.reject(first + place, None, error.faults, is_mendable=False)
            continue
        if events:
            found.read.append(_Read(first + places[0], events, group))
        else:
            found.ignored += 1


_TRACES: Final = _Signal("ExportTraceServiceRequest", "spans", 10, _add_spans, span_record)
_METRICS: Final = _Signal("ExportMetricsServiceRequest", "data points", 1, _add_points, points_record)
_LOGS: Final = _Signal("ExportLogsServiceRequest", "log records", 10, _add_logs, log_record)
_SIGNALS: Final[Mapping[str, _Signal]] = {"otlp": _TRACES, "otlp-metrics": _METRICS, "otlp-logs": _LOGS}


def _columns(events: Sequence[Fields], limits: Limits) -> Sequence[Columns] | None:
    """Return events as columns; None if anything is wrong with any of them."""
    texts = "".join([value for event in events for value in event.values() if type(value) is str])
    if CONTROL.search(texts):
        return None
    try:
        columns = read_columns(msgspec.convert(events, _EVENTS), limits.now_ms)
    except (msgspec.ValidationError, ValueError):
        return None
    return columns if all((part.timestamps_ms >= limits.since_ms).all() for part in columns) else None
