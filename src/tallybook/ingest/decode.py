"""Bytes to records: one object, a JSON array or NDJSON, told apart by the body itself.

A body without a fault is decoded by one typed decoder at native speed. Only when that refuses are the items looked at
one by one, so that the good ones are kept and each bad one is explained. Knows nothing of HTTP or the store.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

import msgspec

from tallybook.columns import Columns, read_columns
from tallybook.errors import BodyTooLarge, InvalidRequest
from tallybook.event import (
    Event,
    Fault,
    FaultyEvent,
    Record,
    encodable,
    explain,
    record,
    rfc3339,
    shorten,
)
from tallybook.sources.record import FaultyRecord, Options, Source

_NESTED: Final = Fault(None, None, "the item is nested too deeply")
COLUMNS_MIN: Final = 64
"""Events from which on reading them as columns is quicker than one by one."""

_ONE: Final = msgspec.json.Decoder(Event)
_MANY: Final = msgspec.json.Decoder(list[Event])  # type: ignore[valid-type]
_RAW_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: Final = msgspec.json.Decoder()
_UTF8_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that is no good event.

    Attributes:
        index: its place in the body, from 0.
        raw: the item as it was sent.
        faults: all that is wrong with it.
        is_mendable: whether it may be good once it is mended.
    """

    index: int
    raw: bytes
    faults: list[Fault]
    is_mendable: bool = True


class Decoded(NamedTuple):
    """What a body holds.

    Attributes:
        records: the good events, in the order of the body.
        indexes: the place of each good event in the body.
        rejected: the rest.
        columns: the good events of a large body, instead of records.
        ignored: how many items are good and no event: calls that used nothing.
        unread: names of fields of usage that are not zero and not read, and how many records have them.
        alike: pairs of scopes of records without ids that look like one call, and how many there are.
    """

    records: list[Record]
    indexes: Sequence[int]
    rejected: list[Rejected]
    columns: Sequence[Columns] = ()
    ignored: int = 0
    unread: Mapping[str, int] = {}
    alike: Mapping[str, int] = {}


def decode(body: bytes, now_ms: int, events_max: int, since_ms: int = 0) -> Decoded:
    """Return the events of a body.

    Args:
        body: unpacked bytes.
        now_ms: time of receipt, Unix milliseconds.
        events_max: the most events a body may hold.
        since_ms: since when events are kept, Unix milliseconds; earlier ones are refused.

    Returns:
        Nothing at all for an empty body or array.

    Raises:
        InvalidRequest: the body is not JSON at all.
        BodyTooLarge: it holds more than `events_max` events.
    """
    body = body.removeprefix(_UTF8_BOM).strip()
    if not body:
        return Decoded([], [], [])
    # In JSON a control character is an escape, DEL, or one that UTF-8 begins with C2: most bodies have none of these,
    # and their texts need not be searched.
    check_text = b"\\" in body or b"\x7f" in body or b"\xc2" in body
    try:
        events = _decode_well_formed(body)
        if len(events) > events_max:
            raise too_many(len(events), events_max)
        if len(events) >= COLUMNS_MIN and not check_text:
            columns = read_columns(events, now_ms)
            if all((part.timestamps_ms >= since_ms).all() for part in columns):
                return Decoded([], range(len(events)), [], columns)
        else:
            records = [record(event, now_ms, check_text=check_text) for event in events]
            if all(found.timestamp_ms >= since_ms for found in records):
                return Decoded(records, range(len(records)), [])
        items = list(split(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):  # a FaultyEvent is a ValueError
        items = list(split(body))
    if len(items) > events_max:
        raise too_many(len(items), events_max)
    return _decode_each(items, now_ms, since_ms)


def _decode_well_formed(body: bytes) -> list[msgspec.Struct]:
    if body.startswith(b"["):
        many: list[msgspec.Struct] = _MANY.decode(body)
        return many
    if b"\n" not in body:
        return [_ONE.decode(body)]
    try:
        events: list[msgspec.Struct] = _ONE.decode_lines(body)
        if len(events) == body.count(b"\n") + 1:  # one a line, and no line is blank
            return events
        return [_ONE.decode(line) for line in body.splitlines() if line.strip()]
    except msgspec.DecodeError:
        return [_ONE.decode(body)]  # one event, over several lines


def split(body: bytes) -> Iterator[bytes]:
    """Yield the items of a body as they were sent; a line that is not JSON is an item as well."""
    if body.startswith(b"["):
        yield from _split_array(body)
        return
    if (whole := _generic(body)) is not _BROKEN:
        if not isinstance(whole, dict):
            raise _not_json("it is neither an object nor an array")
        yield body
        return
    lines = [line for line in body.splitlines() if line.strip()]
    if not any(isinstance(_generic(line), dict) for line in lines):
        is_stream = lines[0].startswith((b"data:", b"event:")) if lines else False
        raise _not_json(_STREAM if is_stream else _problem(body))
    yield from lines


_STREAM: Final = "it is the text of a stream; of that, the JSON after `data:` counts, of the chunk that has the usage"


def _split_array(body: bytes) -> list[bytes]:
    try:
        return [bytes(item) for item in _RAW_ITEMS.decode(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        problem = str(error)
    # Some items are JSON by its grammar although no value can be made of them, such as a lone surrogate: the standard
    # library finds where they end.
    items = []
    try:
        text = body.decode()
        position = _skip(text, 1)
        while True:
            _, end = _LENIENT.raw_decode(text, position)
            items.append(text[position:end].encode())
            position = _skip(text, end)
            if text[position] != ",":
                break
            position = _skip(text, position + 1)
    except (ValueError, IndexError, RecursionError):
        raise _not_json(problem) from None
    if text[position] != "]" or position != len(text) - 1:
        raise _not_json(problem)
    return items


def _skip(text: str, position: int) -> int:
    """Return the place of the next character that is no white space."""
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_LENIENT: Final = json.JSONDecoder(parse_constant=_no_constant)
_BROKEN: Final = object()


def _generic(item: bytes) -> object:
    try:
        return _ANY.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _LENIENT.decode(item.decode())
    except (ValueError, RecursionError):
        return _BROKEN


def _problem(item: bytes) -> str:
    try:
        _ANY.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return "it is no event"


def _decode_each(items: Iterable[bytes], now_ms: int, since_ms: int) -> Decoded:
    records, indexes, rejected = [], [], []
    for index, item in enumerate(items):
        found = decode_one(item, now_ms)
        if not isinstance(found, Record):
            rejected.append(Rejected(index, item, found))
        elif found.timestamp_ms < since_ms:
            rejected.append(Rejected(index, item, [too_old(found, since_ms)], is_mendable=False))
        else:
            records.append(found)
            indexes.append(index)
    return Decoded(records, indexes, rejected)


def decode_records(
    source: Source, options: Options, body: bytes, now_ms: int, records_max: int, since_ms: int = 0
) -> Decoded:
    """Return the events of a body of a source's records: one, an array, or one a line.

    Args:
        source: whose records they are.
        options: what the operator says of sources.
        body: unpacked bytes.
        now_ms: time of receipt, Unix milliseconds.
        records_max: the most records a body may hold.
        since_ms: since when events are kept, Unix milliseconds; records with earlier ones are refused.

    Raises:
        InvalidRequest: it is no JSON.
        BodyTooLarge: it holds too many records.
    """
    items = list(split(body.removeprefix(_UTF8_BOM).strip()))
    if len(items) > records_max:
        raise too_many(len(items), records_max)
    own = options.of_request()
    read = ((index, item, read_record(source, own, item, now_ms)) for index, item in enumerate(items))
    return collect(read, since_ms)._replace(unread=own.unread)


def read_record(
    source: Source, options: Options, item: bytes, now_ms: int, received_ms: int | None = None
) -> list[Record] | list[Fault]:
    """Return the events that one record of a source makes, or all that is wrong with it; never raises."""
    try:
        value = _ANY.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _generic(item)
        if value is _BROKEN:
            return _explain(item, "")
        try:
            value = _storable(value)
        except RecursionError:
            return [_NESTED._replace(value=shorten(item.decode()))]
    try:
        events = source.events(value, options)
    except FaultyRecord as error:
        return error.faults
    except RecursionError:
        return [_NESTED._replace(value=shorten(item[:64].decode(errors="replace")))]
    return records_of(events, now_ms, received_ms)


def _storable(value: object) -> object:
    """Return a value whose texts can be stored: other software cuts texts in the middle of a character."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return value


def records_of(
    events: Iterable[Mapping[str, object]], now_ms: int, received_ms: int | None = None
) -> list[Record] | list[Fault]:
    """Return the events a record of a source was read as, checked, or all that is wrong with the first bad one.

    One that is wrong spoils those beside it: a record is counted whole, or mended and sent again.
    """
    found = []
    for event in events:
        try:
            found.append(record(msgspec.convert(event, Event), now_ms, received_ms=received_ms))
        except FaultyEvent as error:
            return error.faults
        except msgspec.ValidationError as error:
            return explain(event, str(error))
    return found


def collect(read: Iterable[tuple[int, bytes, list[Record] | list[Fault]]], since_ms: int) -> Decoded:
    """Put together what the records of a body came to.

    Args:
        read: place, raw bytes, and events or faults of each.
        since_ms: since when events are kept, Unix milliseconds.
    """
    decoded = Decoded([], [], [])
    indexes: list[int] = []
    ignored = 0
    for index, raw, found in read:
        if not found:
            ignored += 1
            continue
        if isinstance(found[0], Fault):
            decoded.rejected.append(Rejected(index, raw, found))
            continue
        records = found
        if old := next((each for each in records if each.timestamp_ms < since_ms), None):
            decoded.rejected.append(Rejected(index, raw, [too_old(old, since_ms)], is_mendable=False))
            continue
        decoded.records.extend(records)
        indexes.extend([index] * len(records))
    return decoded._replace(indexes=indexes, ignored=ignored)


def too_old(found: Record, since_ms: int) -> Fault:
    """Return what is wrong with an event from before events are kept."""
    return Fault(
        "timestamp",
        found.timestamp_ms / 1000,
        f"events from before {rfc3339(since_ms)} are deleted for their age, so whether this one was counted already "
        "cannot be told; it is refused. Send events in time, or keep them longer (keep-events-days)",
    )


def decode_one(item: bytes, now_ms: int, received_ms: int | None = None) -> Record | list[Fault]:
    """Return the event an item is, or all that is wrong with it; never raises.

    Args:
        item: one JSON object.
        now_ms: the present, Unix milliseconds.
        received_ms: when it was received, if not now.
    """
    try:
        return record(_ONE.decode(item), now_ms, received_ms=received_ms)
    except FaultyEvent as error:
        return error.faults
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _explain(item, str(error))


def _explain(item: bytes, problem: str) -> list[Fault]:
    value = _generic(item)
    if value is _BROKEN:
        text = item[:64].decode(errors="replace")
        return [Fault(None, text, f"the item is not JSON: {_problem(item)}")]
    return explain(value, problem)


def _not_json(problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"The body is not JSON: {problem}; send one event, an array of events, or one event a line",
        code="invalid_json",
    )


def too_many(count: int, events_max: int) -> BodyTooLarge:
    """Return the error of a body with more events than there may be."""
    return BodyTooLarge(
        f"The body holds {count} events, above the limit of {events_max}; send it in several requests",
        code="too_many_events",
    )
