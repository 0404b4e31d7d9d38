"""Which number a rate has, and which rate an event."""

import threading
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

import duckdb
import numpy as np

from tallybook.columns import Columns, Dimensions, Integers, Truths
from tallybook.kinds import UsageKind
from tallybook.money import half_up, plain, to_units
from tallybook.parts import PARTS_OF, Part
from tallybook.rate import REPORTED, UNPRICED, Book, Price, Rate, Rule
from tallybook.store.series import GRAINS
from tallybook.timegrid import DAY_S

_DAY_MS: Final = DAY_S * 1000
_KNOWN_MAX: Final = 200_000
"""Series, about 20 MB. Beyond it the memory starts anew: what is needed again is asked of the book."""
_WHO: Final = GRAINS["organization_series_id"]
"""Dimensions no price depends on."""


Terms = tuple[tuple[int, int], ...]
"""A part's quantity: where among a kind's measures, and whether they count for or against it."""


class NumberedRule(NamedTuple):
    """A `Rule` by the number of its rate.

    Attributes:
        since_ms: from this instant on.
        above: for events with more input tokens than this.
        number: of the rate.
        fraction: of the price, if amounts are rounded and kept with the event.
        missing: parts that have no price.
    """

    since_ms: int
    above: int
    number: int
    fraction: tuple[int, int] | None
    missing: tuple[Terms, ...]


class Charges(NamedTuple):
    """What events are charged by, in their order.

    Attributes:
        rate_ids: numbers of rates.
        amounts: 10^-18 dollars where that does not follow from the rate; None if it always does.
        is_unpriced: whether something of it has no price.
    """

    rate_ids: Integers
    amounts: list[int | None] | None
    is_unpriced: Truths


class RateIndex:
    """Numbers for rates; safe to use from several threads.

    A rate is written in a transaction of its own before anything is charged by it. One that nothing is charged by in
    the end does no harm.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._changing = threading.Lock()
        self._rates: dict[int, Rate] = _read(connection)
        self._numbers = {rate: number for number, rate in self._rates.items()}
        self._last = max((REPORTED, *self._rates))

    def get(self, number: int) -> Rate | None:
        """Return a rate by its number, None for those without prices of their own."""
        return self._rates.get(number)

    def items(self) -> list[tuple[int, Rate]]:
        """Return all rates with their numbers."""
        return list(self._rates.items())

    def numbers(self, rates: Iterable[Rate | None]) -> dict[Rate | None, int]:
        """Return the number of each rate; new ones are written first. None, for no price at all, has one too."""
        wanted = dict.fromkeys(rates)
        with self._changing:
            new = [rate for rate in wanted if rate is not None and rate not in self._numbers]
            if new:
                self._write(dict(enumerate(new, start=self._last + 1)))
                for rate in new:
                    self._last += 1
                    self._rates[self._last] = rate
                    self._numbers[rate] = self._last
            return {rate: UNPRICED if rate is None else self._numbers[rate] for rate in wanted}

    def _write(self, rates: dict[int, Rate]) -> None:
        self._connection.begin()
        try:
            self._connection.executemany(
                "INSERT INTO rates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        number,
                        rate.kind,
                        price.part,
                        plain(price.value),
                        price.unit,
                        price.provider,
                        plain(price.free),
                        price.above,
                        rate.book_id,
                    )
                    for number, rate in rates.items()
                    for price in rate.prices
                ],
            )
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()


def _read(connection: duckdb.DuckDBPyConnection) -> dict[int, Rate]:
    rows = connection.execute(
        """SELECT rate_id, kind, book_id, list((part, price, unit, provider, free, above) ORDER BY rowid)
            FROM rates GROUP BY 1, 2, 3"""
    ).fetchall()
    return {
        number: Rate(
            kind,
            tuple(
                Price(part, Decimal(price), unit, provider, Decimal(free), above)
                for part, price, unit, provider, free, above in prices
            ),
            book_id,
        )
        for number, kind, book_id, prices in rows
    }


class Rater:
    """Finds the rate of each event of a commit.

    Args:
        book: where prices are from.
        index: the numbers of rates.
    """

    def __init__(self, book: Book, index: RateIndex) -> None:
        self.book = book
        self.index = index
        self._classes: dict[int, int] = {}
        """Series to class, see `_class`."""
        self._class_of: dict[tuple[object, ...], int] = {}
        self._known: dict[int, tuple[NumberedRule, ...]] = {}
        """By class and UTC day, as one number."""
        self._numbered: dict[int, tuple[tuple[Rule, ...], tuple[NumberedRule, ...]]] = {}

    def charge(self, columns: Columns, series: Integers) -> Charges:
        """Return what events of one kind are charged by.

        Args:
            columns: the events.
            series: the number of each one's series.
        """
        if columns.kind.is_level:  # what is held is charged by the time it is held, see `tallybook.store.storage`
            none = np.zeros(len(columns), np.int64)
            return _with_own_costs(columns, Charges(none + UNPRICED, None, none.astype(np.bool_)))
        rules, places = self._rules(columns, series)
        chosen = np.zeros(len(columns), np.int64)
        choices: list[NumberedRule] = []
        input_tokens = _tokens_a_request(columns)
        for place, ordered in enumerate(rules):
            mine = places == place
            for rule in ordered:  # the last rule an event satisfies is its own
                if len(ordered) > 1:
                    mine = (places == place) & (columns.timestamps_ms >= rule.since_ms) & (input_tokens > rule.above)
                chosen[mine] = len(choices)
                choices.append(rule)
        numbers = np.array([rule.number for rule in choices], np.int64)
        gaps = _gaps(columns, choices)
        is_unpriced = np.zeros(len(columns), np.bool_)
        for place, rule in enumerate(choices):
            for terms in rule.missing:
                if terms in gaps:
                    is_unpriced |= (chosen == place) & gaps[terms]
        charges = Charges(numbers[chosen], _rounded(columns, choices, chosen), is_unpriced)
        return _with_own_costs(columns, charges)

    def _rules(self, columns: Columns, series: Integers) -> tuple[list[tuple[NumberedRule, ...]], Integers]:
        """Return the rules that occur, and for each event which of them are its own."""
        if len(self._classes) + len(columns) > _KNOWN_MAX:
            self._classes.clear()
            self._class_of.clear()
            self._known.clear()
            self._numbered.clear()
        _, first, which = np.unique(series, return_index=True, return_inverse=True)
        classes = np.array([self._class(columns, series, event) for event in first.tolist()], np.int64)
        days = classes[which] << _DAY_BITS | columns.timestamps_ms // _DAY_MS
        days, first, which = np.unique(days, return_index=True, return_inverse=True)
        found: dict[int, int] = {}
        rules: list[tuple[NumberedRule, ...]] = []
        places = np.empty(len(days), np.int64)
        for place, (day, event) in enumerate(zip(days.tolist(), first.tolist(), strict=True)):
            known = self._known.get(day)
            if known is None:
                day_s = int(columns.timestamps_ms[event]) // _DAY_MS * DAY_S
                known = self._known[day] = self._learn(columns.kind, columns.dimensions[event], day_s)
            if id(known) not in found:
                found[id(known)] = len(rules)
                rules.append(known)
            places[place] = found[id(known)]
        return rules, places[which]

    def _class(self, columns: Columns, series: Integers, event: int) -> int:
        """Return a number that all series share whose prices are the same: those that differ by who used it only."""
        number = int(series[event])
        found = self._classes.get(number)
        if found is None:
            names = zip(columns.kind.dimensions, columns.dimensions[event], strict=True)
            what = (columns.kind.name, *(value for name, value in names if name not in _WHO))
            found = self._classes[number] = self._class_of.setdefault(what, len(self._class_of))
        return found

    def _learn(self, kind: UsageKind, dimensions: Dimensions, day_s: int) -> tuple[NumberedRule, ...]:
        rules = self.book.rules(kind, dimensions, day_s)
        # Most series share their rules with others. Looking them up by what they are, not by what they say, spares
        # comparing all their prices each time.
        found = self._numbered.get(id(rules))
        if found is None:
            found = self._numbered[id(rules)] = (rules, self._number(kind, rules))
        return found[1]

    def _number(self, kind: UsageKind, rules: tuple[Rule, ...]) -> tuple[NumberedRule, ...]:
        numbers = self.index.numbers(rule.rate for rule in rules)
        return tuple(
            NumberedRule(
                rule.since_ms,
                rule.above,
                numbers[rule.rate],
                rule.rate.fraction if rule.rate else None,
                _terms(kind, missing_parts(kind.name, rule.rate)),
            )
            for rule in rules
        )


def missing_parts(kind: str, rate: Rate | None) -> tuple[Part, ...]:
    """Return the parts of a kind that a rate has no price for."""
    priced = {price.part for price in rate.prices} if rate else set()
    return tuple(part for part in PARTS_OF[kind] if part.name not in priced and not part.is_optional)


def _terms(kind: UsageKind, parts: tuple[Part, ...]) -> tuple[Terms, ...]:
    return tuple(
        tuple((kind.measures.index(measure), sign) for measure, sign in part.terms[kind.name].items()) for part in parts
    )


_DAY_BITS: Final = 20
"""Enough for the days of two thousand years."""


def _gaps(columns: Columns, choices: list[NumberedRule]) -> dict[Terms, Truths]:
    """Return of parts without a price which events have any; those no event has are left out."""
    found: dict[Terms, Truths] = {}
    for terms in dict.fromkeys(terms for rule in choices for terms in rule.missing):
        quantity = sum((sign * columns.measures[place] for place, sign in terms), np.zeros(len(columns), np.int64))
        if quantity.any():
            found[terms] = quantity != 0
    return found


def _rounded(columns: Columns, choices: list[NumberedRule], chosen: Integers) -> list[int | None] | None:
    """Return the amounts of events whose prices are rounded for each; None if there are no such events."""
    if not any(rule.fraction for rule in choices):
        return None
    fractions = [rule.fraction for rule in choices]
    quantities = columns.measures[0].tolist()
    return [
        half_up(quantity * fraction[0], fraction[1]) if (fraction := fractions[place]) else None
        for quantity, place in zip(quantities, chosen.tolist(), strict=True)
    ]


def _with_own_costs(columns: Columns, charges: Charges) -> Charges:
    """Return charges in which a producer's own figure stands before anything else."""
    if not columns.costs:
        return charges
    amounts = charges.amounts or [None] * len(columns)
    own = np.array([cost is not None for cost in columns.costs], np.bool_)
    return Charges(
        np.where(own, REPORTED, charges.rate_ids),
        [amount if cost is None else to_units(cost) for cost, amount in zip(columns.costs, amounts, strict=True)],
        charges.is_unpriced & ~own,
    )


def _tokens_a_request(columns: Columns) -> Integers:
    """Return the input tokens of an event's request, of their mean where it stands for several, rounded up.

    An event that stands for an unknown number, 0, is not taken for one long request.
    """
    measures = columns.kind.measures
    if "input_tokens" not in measures:
        return np.zeros(len(columns), np.int64)
    tokens, requests = (columns.measures[measures.index(name)] for name in ("input_tokens", "num_model_requests"))
    mean: Integers = np.where(requests > 0, -(-tokens // np.maximum(requests, 1)), 0)
    return mean


def same_prices(one: Rate | None, other: Rate | None) -> bool:
    """Whether two rates charge the same, whichever book they are from."""
    return (one and (one.kind, one.prices)) == (other and (other.kind, other.prices))
