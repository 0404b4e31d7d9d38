"""Events: what a producer may send, and what is kept of it.

From the table of kinds this derives one typed structure a kind for msgspec to decode into, and turns what was decoded
into a `Record`: complete, normalised, ready to be stored. What is wrong comes back as `Fault`, never as a default.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Annotated, Any, Final, Literal, NamedTuple, Union

import msgspec
from rapidfuzz import process

from tallybook.kinds import DIMENSIONS, KINDS, TOKEN_MEASURES, UsageKind
from tallybook.tokens import Contradiction, complete

TEXT_MAX: Final = 256
COUNT_MAX: Final = 2**53 - 1
"""The largest integer every JSON reader holds exactly (RFC 7493)."""
TIMESTAMP_MIN_MS: Final = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp() * 1000)
AHEAD_MAX_MS: Final = int(timedelta(hours=1).total_seconds() * 1000)
COST_MAX: Final = Decimal(10) ** 12
COST_SCALE: Final = 18
_EXACT: Final = Context(prec=40, traps=[Inexact, InvalidOperation])
"""Wide enough for any cost that is accepted; what it would have to round is refused."""
FAULTS_MAX: Final = 20
"""The most faults told of one event."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=COUNT_MAX)]


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The producer's own figure."""

    value: Decimal
    currency: Literal["usd"]


class Fault(NamedTuple):
    """What is wrong with an event: which field, the value it has, and what would be right."""

    field: str | None
    value: object
    message: str


class Record(NamedTuple):
    """An event as it is kept.

    Attributes:
        kind: its usage kind.
        id: the producer's id.
        timestamp_ms: Unix milliseconds.
        identity: what tells it from every other event of its organization: kind, id and timestamp. None where the
            producer did not give both id and timestamp: such an event cannot be recognised when it is sent again.
        dimensions: values of ``kind.dimensions``, in that order.
        measures: counts of ``kind.measures``, in that order.
        cost: the producer's own figure in US dollars.
    """

    kind: UsageKind
    id: str | None
    timestamp_ms: int
    identity: tuple[str, str, int] | None
    dimensions: tuple[str | bool | None, ...]
    measures: tuple[int, ...]
    cost: Decimal | None


class FaultyEvent(ValueError):
    """An event that cannot be kept, with everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


def _structure(kind: UsageKind) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = [
        ("id", Text | None, None),
        ("timestamp", int | float | str | None, None),
    ]
    fields += [(name, _dimension_type(name) | None, _DEFAULTS.get(name)) for name in kind.dimensions]
    fields += [(name, (Seconds if name == "seconds" else Count) | None, None) for name in kind.measures]
    fields.append(("cost", Cost | None, None))
    return msgspec.defstruct(
        f"{kind.name}_event", fields, tag_field="kind", tag=kind.name, forbid_unknown_fields=True, gc=False
    )


_DEFAULTS: Final = {"batch": False, "api_source": "unlabeled"}
ORIGINS: Final = ("agents_api", "unlabeled")


def _dimension_type(name: str) -> Any:
    if name == "batch":
        return bool
    values = DIMENSIONS[name].values
    # Any origin is accepted: those the wire has no name for are counted as unlabeled.
    return Literal[values] if values and name != "api_source" else Text


Values = tuple[Any, ...]


class Shape(NamedTuple):
    """How the fields of one kind's structure lie: id, timestamp, dimensions, measures, cost."""

    kind: UsageKind
    split: int
    required: tuple[int, ...]
    settle: Callable[[Values], Values]
    complete: Callable[[Values], tuple[int, ...]]


def _shape(kind: UsageKind) -> Shape:
    order = ("id", "timestamp", *kind.dimensions, *kind.measures)
    return Shape(
        kind,
        2 + len(kind.dimensions),
        tuple(order.index(name) for name in kind.required),
        _settler(kind),
        _completer(kind),
    )


def _settler(kind: UsageKind) -> Callable[[Values], Values]:
    """What a kind does to its dimensions: an absent batch is false, an unknown origin is unlabeled."""
    batch = kind.dimensions.index("batch") if "batch" in kind.dimensions else None
    origin = kind.dimensions.index("api_source") if "api_source" in kind.dimensions else None

    def settle(values: Values) -> Values:
        if batch is not None and values[batch] is None:
            values = (*values[:batch], False, *values[batch + 1 :])
        if origin is not None and values[origin] not in ORIGINS:
            values = (*values[:origin], "unlabeled", *values[origin + 1 :])
        return values

    return settle


def _completer(kind: UsageKind) -> Callable[[Values], tuple[int, ...]]:
    """How a kind fills in the measures an event does not give."""
    if kind.measures[: len(TOKEN_MEASURES)] == TOKEN_MEASURES:
        return lambda given: (*complete(given[:-1]), 1 if given[-1] is None else given[-1])
    absent = tuple(1 if name in kind.counts else 0 for name in kind.measures)
    return lambda given: tuple(
        default if count is None else round_half_up(count) for default, count in zip(absent, given, strict=True)
    )


_SHAPES: Final[Mapping[type[msgspec.Struct], Shape]] = {_structure(kind): _shape(kind) for kind in KINDS.values()}


def shape_of(event_type: type[msgspec.Struct]) -> Shape:
    """Return how the fields of one of the types of `Event` lie."""
    return _SHAPES[event_type]


Event = Union[tuple(_SHAPES)]  # type: ignore[valid-type]  # noqa: UP007  one type a row of the table

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""A character that no text of an event may hold."""


def record(event: msgspec.Struct, now_ms: int, *, received_ms: int | None = None, check_text: bool = True) -> Record:
    """Complete and normalise one decoded event.

    Args:
        event: an instance of one of the types of `Event`.
        now_ms: the present, Unix milliseconds; a timestamp may lie an hour ahead of it.
        received_ms: when it was received, if not now: the timestamp of an event that has none.
        check_text: look for control characters. False only where the raw bytes cannot hold any.

    Raises:
        FaultyEvent: with everything that is wrong beyond what the types already say.
    """
    shape = _SHAPES[type(event)]
    values = msgspec.structs.astuple(event)
    kind, split, required, settle, fill_in = shape
    event_id, timestamp, cost = values[0], values[1], values[-1]
    for position in required:
        if values[position] is None:
            raise FaultyEvent(_faults(event, shape, values, now_ms))
    try:
        if timestamp is None:
            instant_ms = now_ms if received_ms is None else received_ms
        else:
            instant_ms = timestamp_to_ms(timestamp, now_ms)
        measures = fill_in(values[split:-1])
        amount = None if cost is None else exact_cost(cost.value)
    except ValueError:
        raise FaultyEvent(_faults(event, shape, values, now_ms)) from None
    if check_text and (faults := _text_faults(event)):
        raise FaultyEvent(faults)
    identity = None if event_id is None or timestamp is None else (kind.name, event_id, instant_ms)
    dimensions = settle(values[2:split])
    return Record(kind, event_id, instant_ms, identity, dimensions, measures, amount)


def _faults(event: msgspec.Struct, shape: Shape, values: Values, now_ms: int) -> list[Fault]:
    """Everything that is wrong with an event whose fields have the right types."""
    faults = _text_faults(event)
    if values[1] is not None:
        try:
            timestamp_to_ms(values[1], now_ms)
        except ValueError as error:
            faults.append(Fault("timestamp", shorten(values[1]), str(error)))
    names = event.__struct_fields__
    faults += (
        Fault(names[position], None, f"{names[position]} is missing; every {shape.kind.name} event needs it")
        for position in shape.required
        if values[position] is None
    )
    try:
        shape.complete(values[shape.split : -1])
    except Contradiction as error:
        faults.append(Fault(error.field, error.value, str(error)))
    if values[-1] is not None:
        try:
            exact_cost(values[-1].value)
        except ValueError as error:
            faults.append(Fault("cost.value", str(values[-1].value)[:64], str(error)))
    return faults


def round_half_up(value: float) -> int:
    """Return the nearest integer to a non-negative number, halves upwards, as providers bill seconds."""
    whole = math.floor(value)
    return whole + (value - whole >= 0.5)


def timestamp_to_ms(value: float | str, now_ms: int) -> int:
    """Return Unix milliseconds of a timestamp as producers send it.

    Args:
        value: Unix seconds, integer or fraction, or RFC 3339. Finer than a millisecond is cut off.
        now_ms: the present; the limits of what is accepted count from it.

    Raises:
        ValueError: with the value, the limits and the remedy.
    """
    if isinstance(value, str):
        instant_ms = rfc3339_to_ms(value)
    elif isinstance(value, int):
        instant_ms = value * 1000
    elif abs(value) <= COUNT_MAX:
        # Through whole microseconds: a binary fraction such as 1.123 lies a hair below the decimal it was sent as.
        instant_ms = round(value * 1_000_000) // 1000
    else:
        raise ValueError("timestamp is no instant; give Unix seconds or RFC 3339")
    if TIMESTAMP_MIN_MS <= instant_ms <= now_ms + AHEAD_MAX_MS:
        return instant_ms
    if isinstance(value, int | float) and TIMESTAMP_MIN_MS <= value <= now_ms + AHEAD_MAX_MS:
        raise ValueError(f"timestamp {value} looks like milliseconds; give seconds: {value / 1000}")
    raise ValueError(
        f"timestamp {shorten(value)} is out of range: accepted are 2015-01-01T00:00:00Z to one hour ahead of the "
        f"server, {rfc3339(now_ms + AHEAD_MAX_MS)}; check the producer's clock and unit (seconds)"
    )


_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def rfc3339_to_ms(text: str) -> int:
    """Return Unix milliseconds of an instant in RFC 3339 with an offset; raises ValueError."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(
            f"timestamp {text[:64]!r} is not RFC 3339 with an offset; write it like 2026-01-31T09:30:00.250Z"
        )
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"timestamp {text[:64]!r} is no instant: {error}") from None
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def rfc3339(instant_ms: int) -> str:
    """Return an instant in words, to the second, UTC."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def exact_cost(value: Decimal) -> Decimal:
    """Return a cost with exactly `COST_SCALE` decimals.

    Raises:
        ValueError: it is out of bounds, or has digits that would be lost.
    """
    if not value.is_finite() or not 0 <= value <= COST_MAX:
        raise ValueError(f"cost.value must be a decimal from 0 to {COST_MAX} US dollars")
    try:
        return value.quantize(Decimal(1).scaleb(-COST_SCALE), context=_EXACT)
    except (Inexact, InvalidOperation):
        raise ValueError(
            f"cost.value has more than {COST_SCALE} decimals; that many are kept exactly, round it yourself"
        ) from None


def _text_faults(event: msgspec.Struct) -> list[Fault]:
    return [
        Fault(name, value, f"{name} holds a control character ({_control_name(value)}); remove it")
        for name in event.__struct_fields__
        if isinstance(value := getattr(event, name), str) and CONTROL.search(value)
    ]


def _control_name(value: str) -> str:
    found = CONTROL.search(value)
    return f"U+{ord(found.group()):04X}" if found else "none"


def explain(item: object, problem: str) -> list[Fault]:
    """Say everything that is wrong with an item that would not decode.

    Args:
        item: the item, decoded without types.
        problem: what the typed decoder said; used when nothing else is found.

    Returns:
        At least one fault.
    """
    if not isinstance(item, dict):
        return [Fault(None, shorten(item), "an event is a JSON object with at least a kind")]
    name = item.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        known = ", ".join(KINDS)
        if "kind" not in item:
            return [Fault("kind", None, f"kind is missing; it is one of {known}")]
        return [Fault("kind", shorten(name), f"unknown kind{nearest(name, KINDS)}; it is one of {known}")]
    allowed = ("kind", "id", "timestamp", *kind.dimensions, *kind.measures, "cost")
    faults: list[Fault] = []
    for field, value in item.items():
        if len(faults) >= FAULTS_MAX:
            break
        if field not in allowed:
            shown = encodable(field[:TEXT_MAX])
            message = f"{kind.name} events have no {shown}{nearest(field, allowed)}; leave it out"
            faults.append(Fault(shown, shorten(value), message))
        elif problem_here := _field_problem(field, value, kind):
            faults.append(Fault(field, shorten(value), f"{field} {problem_here}"))
    return faults or [Fault(None, None, problem)]


def _field_problem(field: str, value: object, kind: UsageKind) -> str | None:
    if value is None or field == "kind":
        return None
    if isinstance(value, str) and encodable(value) != value:
        return "holds half of a surrogate pair, which is no character; remove it"
    try:
        msgspec.convert(value, type=_FIELD_TYPES[field])
    except msgspec.ValidationError:
        return _expectation(field, kind)
    return None


def _field_types() -> dict[str, Any]:
    types: dict[str, Any] = {"id": Text, "timestamp": int | float | str, "cost": Cost}
    for kind in KINDS.values():
        types.update({name: _dimension_type(name) for name in kind.dimensions})
        types.update({name: Seconds if name == "seconds" else Count for name in kind.measures})
    return types


_FIELD_TYPES: Final = _field_types()


def _expectation(field: str, kind: UsageKind) -> str:
    values = DIMENSIONS[field].values if field in DIMENSIONS else None
    if field in kind.measures and field != "seconds":
        return f"must be an integer from 0 to {COUNT_MAX}"
    if values and field not in ("api_source", "batch"):
        return f"must be one of {', '.join(values)}"
    return _EXPECTATIONS.get(field, f"must be a string of 1 to {TEXT_MAX} characters; leave it out where there is none")


_EXPECTATIONS: Final = {
    "timestamp": "must be Unix seconds or an RFC 3339 string",
    "cost": 'must be {"value": decimal, "currency": "usd"}',
    "seconds": f"must be a number from 0 to {COUNT_MAX}",
    "batch": "must be true or false",
}


def nearest(name: object, known: Iterable[str]) -> str:
    """Return `` (did you mean x?)`` for the known name closest to a wrong one, or nothing."""
    found = nearest_of(str(name), known)
    return f" (did you mean {found}?)" if found else ""


def nearest_of(name: str, known: Iterable[str]) -> str:
    """Return the known name closest to a wrong one, "" if none is like it."""
    found = process.extractOne(name[:_NAME_LENGTH_MAX], list(known), score_cutoff=_LIKENESS_MIN)
    return str(found[0]) if found else ""


_NAME_LENGTH_MAX: Final = 64
_LIKENESS_MIN: Final = 70


def encodable(text: str) -> str:
    """Text as it can be stored: a lone surrogate, which JSON can spell but UTF-8 cannot, becomes a question mark."""
    return text.encode(errors="replace").decode()


def shorten(value: object) -> object:
    """Return a value fit for an answer: what is long or deep is cut to its beginning."""
    if isinstance(value, Decimal):
        value = str(value)
    if isinstance(value, int | bool | float) or value is None:
        return value if not isinstance(value, int) or abs(value) <= COUNT_MAX else str(value)[:64]
    text = encodable(value) if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
    return text if len(text) <= 64 else text[:64] + "…"
