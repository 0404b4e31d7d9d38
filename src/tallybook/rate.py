"""Rates: what an event is charged by. The store keeps them beside the events; the price book makes them.

A rate holds a price for each part of a usage kind that has one. It never changes: another price is another rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from tallybook.kinds import UsageKind
from tallybook.money import UNIT, to_units

UNITS: Final[Mapping[str, tuple[str, int]]] = {
    "token": ("token", 1),
    "1K tokens": ("token", 1_000),
    "1M tokens": ("token", 1_000_000),
    "image": ("image", 1),
    "character": ("character", 1),
    "1K characters": ("character", 1_000),
    "1M characters": ("character", 1_000_000),
    "second": ("second", 1),
    "minute": ("second", 60),
    "hour": ("second", 3_600),
    "request": ("request", 1),
    "1K requests": ("request", 1_000),
    "session": ("session", 1),
    "call": ("call", 1),
    "1K calls": ("call", 1_000),
    "GiB-hour": ("GiB-hour", 1),
    "GiB-day": ("GiB-hour", 24),
}
"""Units a price may be for: what is measured, and how many of it."""

BYTE_MS: Final = 2**30 * 3_600_000
"""Bytes times milliseconds in a GiB-hour."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one part.

    Attributes:
        part: name of the part.
        value: US dollars for one `unit`.
        unit: a name of `UNITS`.
        provider: whose price it is, None if nobody's.
        free: GiB that every organization has for nothing; storage only.
        above: it is the price of requests with more input tokens than this; -1 if of all, or of those below.
        source: where it stands; as all that follows for the reader only, and not kept with charges.
        checked: when somebody looked.
        since_ms: first instant it is said to hold, Unix milliseconds.
        until_ms: end, exclusive.
    """

    part: str
    value: Decimal
    unit: str
    provider: str | None = None
    free: Decimal = Decimal(0)
    above: int = -1
    source: str = field(default="", compare=False)
    checked: str | None = field(default=None, compare=False)
    since_ms: int | None = field(default=None, compare=False)
    until_ms: int | None = field(default=None, compare=False)

    @property
    def fraction(self) -> tuple[int, int]:
        """10^-18 dollars for one of what is measured, as numerator and denominator."""
        return to_units(self.value), UNITS[self.unit][1]

    @property
    def each(self) -> int | None:
        """10^-18 dollars for one of what is measured, None where that is no whole number."""
        numerator, denominator = self.fraction
        return None if numerator % denominator else numerator // denominator


@dataclass(frozen=True, slots=True)
class Rate:
    """Prices of the parts of one usage kind; parts without a price are not in it.

    Attributes:
        kind: name of the usage kind.
        prices: at most one a part.
        book_id: the book they are from.
    """

    kind: str
    prices: tuple[Price, ...]
    book_id: str

    @property
    def fraction(self) -> tuple[int, int] | None:
        """The price's fraction if amounts are rounded and kept with each event; None if they follow from quantities.

        They are kept where a price has no finite decimal for one of what is measured, such as $0.111 an hour. Only
        kinds of one part have such prices; their quantity is their first measure.
        """
        if len(self.prices) != 1 or self.prices[0].each is not None:
            return None
        return self.prices[0].fraction


class Rule(NamedTuple):
    """When a rate holds.

    Attributes:
        since_ms: from this instant on, Unix milliseconds, inclusive.
        above: for events with more input tokens than this; -1 for all.
        rate: None where nothing has a price.
    """

    since_ms: int
    above: int
    rate: Rate | None


class Book(Protocol):
    """What the store must know of a price book."""

    @property
    def book_id(self) -> str:
        """Digest of everything that makes its prices."""
        ...

    def rules(self, kind: UsageKind, dimensions: tuple[str | bool | None, ...], day_s: int, /) -> tuple[Rule, ...]:
        """Return what holds for events of a kind and dimensions on one UTC day; it is the same whoever used it.

        Returns:
            Ordered by instant, then threshold; the last rule an event satisfies is its own. The first holds from the
            day's start for every event. A day has as many rules as its prices change, times thresholds.
        """
        ...

    def schedule(self, kind: UsageKind, /) -> tuple[tuple[int, Rate | None], ...]:
        """Return the rates of a kind whose prices depend on nothing but time, each with its first instant.

        Returns:
            Unix milliseconds and rate, oldest first; the first from 0 on.
        """
        ...


class EmptyBook:
    """A book without prices: everything is unpriced."""

    book_id: Final = "book_empty"

    def rules(self, _kind: UsageKind, _dimensions: tuple[str | bool | None, ...], day_s: int, /) -> tuple[Rule, ...]:
        """See `Book.rules`."""
        return (Rule(day_s * 1000, -1, None),)

    def schedule(self, _kind: UsageKind, /) -> tuple[tuple[int, Rate | None], ...]:
        """See `Book.schedule`."""
        return ((0, None),)


UNPRICED: Final = 0
"""The rate id of events nothing has a price for, and of those recorded before there were prices."""
REPORTED: Final = 1
"""The rate id of events with a cost of their own."""
assert UNIT % 10**6 == 0  # so that a price of six decimals for a million tokens is whole for one
