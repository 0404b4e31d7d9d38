"""Events of one kind as columns: how many of them are checked, charged and written at once.

A body of thousands of events has its fields side by side in arrays, so that each check is one operation on an array
instead of thousands of small ones. Whatever is out of the ordinary is left to `tallybook.event`, one event at a time,
which alone says what is wrong with it: both give the same records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from tallybook.event import (
    AHEAD_MAX_MS,
    ORIGINS,
    TIMESTAMP_MIN_MS,
    Record,
    exact_cost,
    shape_of,
    timestamp_to_ms,
)
from tallybook.kinds import TOKEN_MEASURES, UsageKind
from tallybook.tokens import DERIVED, complete

Integers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]
Dimensions = tuple[str | bool | None, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """Complete and normalised events of one kind.

    Attributes:
        kind: their usage kind.
        positions: the place of each in what it was sent with.
        ids: the producer's ids.
        timestamps_ms: Unix milliseconds.
        has_identity: whether the producer gave both id and timestamp.
        dimensions: values of ``kind.dimensions``, in that order, for each event.
        measures: a row of counts for each of ``kind.measures``, in that order.
        costs: the producer's own figures; None if no event has one.
    """

    kind: UsageKind
    positions: Integers
    ids: Sequence[str | None]
    timestamps_ms: Integers
    has_identity: Truths
    dimensions: Sequence[Dimensions]
    measures: Integers
    costs: Sequence[Decimal | None] | None

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self.ids)

    def record(self, place: int) -> Record:
        """Return one of the events by itself."""
        event_id, instant_ms = self.ids[place], int(self.timestamps_ms[place])
        identity = None
        if event_id is not None and self.has_identity[place]:
            identity = (self.kind.name, event_id, instant_ms)
        return Record(
            self.kind,
            event_id,
            instant_ms,
            identity,
            self.dimensions[place],
            tuple(self.measures[:, place].tolist()),
            self.costs[place] if self.costs else None,
        )

    def only(self, kept: Truths) -> "Columns":
        """Return the events that are marked."""
        places = np.flatnonzero(kept).tolist()
        return Columns(
            self.kind,
            self.positions[places],
            [self.ids[place] for place in places],
            self.timestamps_ms[places],
            self.has_identity[places],
            [self.dimensions[place] for place in places],
            self.measures[:, places],
            [self.costs[place] for place in places] if self.costs else None,
        )


def concatenated(parts: Sequence[Columns]) -> Columns:
    """Return the events of several columns of one kind, in their order."""
    has_costs = any(part.costs for part in parts)
    costs = chain.from_iterable(part.costs or [None] * len(part) for part in parts)
    return Columns(
        parts[0].kind,
        np.concatenate([part.positions for part in parts]),
        list(chain.from_iterable(part.ids for part in parts)),
        np.concatenate([part.timestamps_ms for part in parts]),
        np.concatenate([part.has_identity for part in parts]),
        list(chain.from_iterable(part.dimensions for part in parts)),
        np.concatenate([part.measures for part in parts], axis=1),
        list(costs) if has_costs else None,
    )


def columns_of(records: Sequence[Record], positions: Sequence[int]) -> Columns:
    """Return records of one kind as columns."""
    _, ids, instants_ms, identities, dimensions, measures, costs = zip(*records, strict=True)
    return Columns(
        records[0].kind,
        np.array(positions, np.int64),
        ids,
        np.array(instants_ms, np.int64),
        np.array([identity is not None for identity in identities], np.bool_),
        dimensions,
        np.ascontiguousarray(np.array(measures, np.int64).T),
        costs if costs.count(None) < len(costs) else None,
    )


def read_columns(events: Sequence[msgspec.Struct], now_ms: int) -> list[Columns]:
    """Complete and normalise decoded events, whose texts hold no control character, as `tallybook.event.record` does.

    Args:
        events: instances of the types of `tallybook.event.Event`.
        now_ms: the present, Unix milliseconds.

    Returns:
        One entry a kind that occurs.

    Raises:
        ValueError: some event is no good; `tallybook.event.record` says what is wrong with it.
    """
    places: dict[type[msgspec.Struct], list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault(type(event), []).append(place)
    return [_read(kind, [events[place] for place in found], found, now_ms) for kind, found in places.items()]


def _read(event_type: type[msgspec.Struct], events: list[msgspec.Struct], positions: list[int], now_ms: int) -> Columns:
    shape = shape_of(event_type)
    fields = list(zip(*map(msgspec.structs.astuple, events), strict=True))
    if any(None in fields[place] for place in shape.required):
        raise ValueError("a measure that every event of the kind needs is missing")
    ids, timestamps = fields[0], fields[1]
    costs = None
    if not _is_absent(fields[-1]):
        costs = [None if cost is None else exact_cost(cost.value) for cost in fields[-1]]
    return Columns(
        shape.kind,
        np.array(positions, np.int64),
        ids,
        _instants(timestamps, now_ms),
        _has_both(ids, timestamps),
        _dimensions(shape.kind, fields[2 : shape.split]),
        _measures(shape.kind, fields[shape.split : -1]),
        costs,
    )


def _is_absent(values: tuple[Any, ...]) -> bool:
    return values.count(None) == len(values)


def _has_both(ids: tuple[str | None, ...], timestamps: tuple[object, ...]) -> Truths:
    if None not in ids and None not in timestamps:
        return np.ones(len(ids), np.bool_)
    pairs = zip(ids, timestamps, strict=True)
    return np.array([one is not None and other is not None for one, other in pairs], np.bool_)


def _instants(timestamps: tuple[float | str | None, ...], now_ms: int) -> Integers:
    if {float, int}.issuperset(map(type, timestamps)):
        try:
            seconds = np.array(timestamps, np.float64)
        except OverflowError:
            raise ValueError("a timestamp is out of range") from None
        if not (seconds >= TIMESTAMP_MIN_MS / 1000).all() or not (seconds <= (now_ms + AHEAD_MAX_MS) / 1000).all():
            raise ValueError("a timestamp is out of range")
        # Through whole microseconds, see `timestamp_to_ms`.
        return np.rint(seconds * 1_000_000).astype(np.int64) // 1000
    return np.array([now_ms if value is None else timestamp_to_ms(value, now_ms) for value in timestamps], np.int64)


def _dimensions(kind: UsageKind, fields: list[tuple[Any, ...]]) -> list[Dimensions]:
    """The same as a kind's `settle`, for all events at once."""
    for place, name in enumerate(kind.dimensions):
        if name == "batch" and None in fields[place]:
            fields[place] = tuple(value or False for value in fields[place])
        elif name == "api_source" and not {*ORIGINS}.issuperset(fields[place]):
            fields[place] = tuple(value if value in ORIGINS else "unlabeled" for value in fields[place])
    return list(zip(*fields, strict=True))


_TOTAL, _CACHED, _OUTPUT = (
    TOKEN_MEASURES.index(name) for name in ("input_tokens", "input_cached_tokens", "output_tokens")
)
_GIVEN_BY_MOST: Final = (_TOTAL, _CACHED, _OUTPUT)


def _measures(kind: UsageKind, fields: list[tuple[Any, ...]]) -> Integers:
    if kind.measures[: len(TOKEN_MEASURES)] == TOKEN_MEASURES:
        return np.stack([*_tokens(fields[:-1]), _counts(fields[-1], absent=1)])
    return np.stack(
        [
            _counts(field, absent=1 if name in kind.counts else 0)
            for name, field in zip(kind.measures, fields, strict=True)
        ]
    )


def _tokens(fields: list[tuple[int | None, ...]]) -> Iterable[Integers]:
    """The same as `tallybook.tokens.complete`, for all events at once."""
    parts = (field for place, field in enumerate(fields) if place not in _GIVEN_BY_MOST)
    if None in fields[_TOTAL] or not all(map(_is_absent, parts)):
        return np.array([complete(given) for given in zip(*fields, strict=True)], np.int64).T
    given = {TOKEN_MEASURES[place]: _counts(fields[place], absent=0) for place in _GIVEN_BY_MOST}
    if (given["input_cached_tokens"] > given["input_tokens"]).any():
        raise ValueError("a part is above its whole")
    none = np.zeros_like(given["input_tokens"])
    return [derived(given, name, none) if name in DERIVED else given.get(name, none) for name in TOKEN_MEASURES]


def derived(counts: dict[str, Integers], name: str, none: Integers) -> Integers:
    """Return the tokens of a part that follows from others, as `DERIVED` has it.

    Args:
        counts: tokens of other parts.
        name: of the part.
        none: what a part that is not among them counts.
    """
    total = none
    for other, sign in DERIVED[name].items():
        total = total + counts.get(other, none) if sign > 0 else total - counts.get(other, none)
    return total


def _counts(field: tuple[float | None, ...], *, absent: int) -> Integers:
    """Whole counts; a fraction, which only seconds have, is rounded half up as `round_half_up` does."""
    given = [absent if count is None else count for count in field] if None in field else field
    if float not in map(type, given):
        return np.array(given, np.int64)
    counts = np.array(given, np.float64)
    whole = np.floor(counts)
    rounded: Integers = (whole + (counts - whole >= 0.5)).astype(np.int64)
    return rounded
