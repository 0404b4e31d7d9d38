"""Bytes of OTLP to records: spans of model calls, and points of token metrics.

As with events of ours, all of a body is read as columns at once, and only when something is wrong one span after the
other. Knows nothing of HTTP or the store.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from tallybook.columns import Columns, read_columns
from tallybook.errors import InvalidRequest
from tallybook.event import CONTROL, Event, Fault
from tallybook.ingest.decode import COLUMNS_MIN, Decoded, Rejected, collect, records_of, too_many
from tallybook.sources.otlp import DELTA, NotOtlp, Point, points_record, read_points, read_spans, span_record
from tallybook.sources.otlp_metrics import METRICS, group_events, grouped
from tallybook.sources.otlp_spans import span_events, wanted
from tallybook.sources.record import Event as Fields
from tallybook.sources.record import FaultyRecord, Options

_EVENTS: Final = list[Event]  # type: ignore[valid-type]


class Limits(NamedTuple):
    """What a body is held to.

    Attributes:
        now_ms: time of receipt, Unix milliseconds.
        events_max: the most events it may hold.
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
        item: what it was: a span, or points that belong together.
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
        BodyTooLarge: it holds more than `events_max` events.
    """
    read: list[_Read] = []
    rejected: list[Rejected] = []
    ignored = 0
    try:
        for index, span in enumerate(read_spans(body, wanted(options), is_json=is_json)):
            try:
                events = span_events(span, options)
            except FaultyRecord as error:
                rejected.append(Rejected(index, span_record(span), error.faults))
                continue
            if events:
                read.append(_Read(index, events, span))
            else:
                ignored += 1
    except NotOtlp as error:
        raise _not_otlp("ExportTraceServiceRequest", error, is_json=is_json) from None
    return _decoded(read, rejected, ignored, limits, span_record)


def decode_metrics(body: bytes, options: Options, limits: Limits, *, is_json: bool) -> Decoded:
    """Return the events of points of token metrics, likewise; what is rejected is counted by points."""
    try:
        points = list(read_points(body, METRICS, is_json=is_json))
    except NotOtlp as error:
        raise _not_otlp("ExportMetricsServiceRequest", error, is_json=is_json) from None
    read: list[_Read] = []
    rejected: list[Rejected] = []
    ignored = 0
    for places in grouped(points):
        group = [points[place] for place in places]
        try:
            events = group_events(group, options)
        except FaultyRecord as error:
            rejected += _rejected_group(places, group, error)
            continue
        if events:
            read.append(_Read(places[0], events, group))
        else:
            ignored += 1
    return _decoded(read, rejected, ignored, limits, points_record)


def _rejected_group(places: Sequence[int], group: Sequence[Point], error: FaultyRecord) -> Iterable[Rejected]:
    """Yield each point that is rejected; what is kept of them is kept with the first."""
    is_mendable = all(point.temporality == DELTA for point in group)
    yield Rejected(places[0], points_record(group), error.faults, is_mendable)
    for place in places[1:]:
        yield Rejected(place, b"", error.faults, is_mendable=False)


def _decoded(
    read: Sequence[_Read], rejected: list[Rejected], ignored: int, limits: Limits, raw: Callable[[Any], bytes]
) -> Decoded:
    """Return what a body holds.

    Args:
        read: items that make events.
        rejected: items that do not make events, though they should.
        ignored: how many are none.
        limits: what the body is held to.
        raw: makes of an item what is kept of it, if it is no good.
    """
    events = [event for item in read for event in item.events]
    if len(events) > limits.events_max:
        raise too_many(len(events), limits.events_max)
    columns = _columns(events, limits) if len(events) >= COLUMNS_MIN else None
    if columns is not None:
        indexes = [item.place for item in read for _ in item.events]
        return Decoded([], indexes, rejected, columns, ignored)
    checked = ((each, records_of(each.events, limits.now_ms)) for each in read)
    found = (
        (each.place, raw(each.item) if isinstance(records[0], Fault) else b"", records) for each, records in checked
    )
    decoded = collect(found, limits.since_ms)
    decoded.rejected.extend(rejected)
    decoded.rejected.sort(key=lambda item: item.index)
    return decoded._replace(ignored=ignored)


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


def _not_otlp(message: str, error: NotOtlp, *, is_json: bool) -> InvalidRequest:
    encoding = "JSON" if is_json else "protobuf"
    return InvalidRequest(f"The body is no {message} in {encoding}: {error}", code="invalid_otlp")
