"""What all dialects share: how a record's fields are looked up, and what is said when one is wrong."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from tallybook.event import COST_MAX, COST_SCALE, COUNT_MAX, TEXT_MAX, Fault, shorten
from tallybook.kinds import DIMENSIONS, KINDS
from tallybook.money import WIDE

Event = dict[str, Any]
"""An event as a producer of ours would send it: the fields of `tallybook.event`, nothing else."""

WHO: Final = ("project_id", "user_id", "api_key_id")


class FaultyRecord(ValueError):
    """A record that no event can be made of, with what is wrong with it."""

    def __init__(self, field: str | None, value: object, message: str) -> None:
        super().__init__(message)
        self.faults = [Fault(field, shorten(value), message)]


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator says of sources.

    Attributes:
        takes_costs: a source's own figure of what a call cost is taken, instead of the price book's.
        attributes: where OpenTelemetry says who used something: names of attributes for each of `WHO`; the first that
            is there counts.
        unread: counts by name the fields of usage that are not zero, not known to be irrelevant, and not read: what
            reads records adds to it, and whoever asked for them reports it.
    """

    takes_costs: bool = False
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter, compare=False)

    def of_request(self) -> "Options":
        """Return the same with nothing counted."""
        return replace(self, unread=Counter())


@dataclass(frozen=True, slots=True)
class Source:
    """One dialect.

    Attributes:
        name: as addresses, quarantine and metrics have it.
        events: turns one record into events; none if nothing was used. Raises `FaultyRecord`.
        heeds_429: whether its senders send again what was refused with 429, and not only what was with 503.
        reports_calls: its events are calls of models whose id is that of the provider's response, or one that nothing
            else has: wherever and whenever it comes in again, it is the same call.
    """

    name: str
    events: Callable[[Any, Options], list[Event]]
    heeds_429: bool = True
    reports_calls: bool = False


NO_OPTIONS: Final = Options()


_WEAK_ID: Final = re.compile(r"(chatcmpl|cmpl)-\d{0,3}")


def is_unique_id(text: str) -> bool:
    """Return whether a response's id tells it from every other one: some servers have a thousand of them, or one."""
    return _WEAK_ID.fullmatch(text) is None


class Fields:
    """The fields of a record. One that has the wrong type is a fault that names its path."""

    __slots__ = ("path", "values")

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values = values
        self.path = path

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def any(self, *names: str) -> Any:
        """Return the first of several fields that has a value, None if none has."""
        return next((value for name in names if (value := self.values.get(name)) is not None), None)

    def count(self, *names: str) -> int | None:
        """Return the first of several fields that has a value; it must be a whole number from 0 on."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, float | Decimal) and -COUNT_MAX <= value <= COUNT_MAX and value == int(value):
                value = int(value)  # as languages without integers write them
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
                raise self.wrong(name, f"must be an integer from 0 to {COUNT_MAX}")
            return value
        return None

    def text(self, *names: str) -> str | None:
        """Return the first of several fields that has a value; it must be text, and no longer than an event's."""
        for name in names:
            value = self.values.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str) or len(value) > TEXT_MAX:
                raise self.wrong(name, f"must be a string of at most {TEXT_MAX} characters")
            return value
        return None

    def fields(self, name: str) -> "Fields":
        """Return the fields of an object inside; none if it is absent."""
        value = self.values.get(name)
        if value is None:
            return Fields({}, self._path(name))
        if not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return Fields(value, self._path(name))

    def each(self, name: str) -> "Iterator[Fields]":
        """Yield the objects of a list inside; none if it is absent, and nothing for what is no object."""
        value = self.values.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.wrong(name, "must be an array")
        for position, item in enumerate(value):
            if isinstance(item, dict):
                yield Fields(item, f"{self._path(name)}[{position}]")

    def wrong(self, name: str, expectation: str) -> FaultyRecord:
        """Return what is wrong with a field."""
        return FaultyRecord(self._path(name), self.values.get(name), f"{self._path(name)} {expectation}")

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def made(kind: str, common: Mapping[str, Any], **fields: Any) -> Event:
    """Return an event of what is known; what is None is left out, and so is a dimension the kind does not have."""
    allowed = KINDS[kind].dimensions
    event: Event = {"kind": kind}
    for name, value in (*common.items(), *fields.items()):
        if value is not None and (name not in DIMENSIONS or name in allowed):
            event[name] = value
    return event


def cost(value: object) -> Event | None:
    """Return a source's own figure, US dollars, as events have it, rounded to their scale; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return None
    if not amount.is_finite() or not 0 <= amount <= COST_MAX:
        return None
    # Whoever adds up binary fractions sends more digits than there are in the sum.
    return {"value": amount.quantize(Decimal(1).scaleb(-COST_SCALE), context=WIDE), "currency": "usd"}
