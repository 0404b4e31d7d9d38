"""Which number a rate has, and which rate an event."""

import threading
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import duckdb

from tallybook.event import Record
from tallybook.kinds import UsageKind
from tallybook.money import half_up, plain, to_units
from tallybook.parts import PARTS_OF, Part
from tallybook.rate import REPORTED, UNPRICED, Book, Price, Rate, Rule
from tallybook.timegrid import DAY_S

_DAY_MS: Final = DAY_S * 1000
_KNOWN_MAX: Final = 200_000
"""Series times days, about 40 MB. Beyond it the memory starts anew: what is needed again is asked of the book."""


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


class Charge(NamedTuple):
    """What an event is charged by.

    Attributes:
        rate_id: number of its rate.
        amount: 10^-18 dollars, if that does not follow from the rate.
        is_unpriced: something of it has no price.
    """

    rate_id: int
    amount: int | None = None
    is_unpriced: bool = False


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

    def close(self) -> None:
        """Give up the connection."""
        self._connection.close()

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
        self._known: dict[tuple[int, int], tuple[NumberedRule, ...]] = {}
        self._numbered: dict[int, tuple[tuple[Rule, ...], tuple[NumberedRule, ...]]] = {}

    def charge(self, records: Sequence[Record], series: Sequence[int]) -> list[Charge]:
        """Return what each record is charged by.

        Args:
            records: events of one kind.
            series: the number of each one's series.
        """
        if records[0].kind.is_level:  # what is held is charged by the time it is held, see `tallybook.store.storage`
            return [_BY_TIME if record.cost is None else _reported(record.cost) for record in records]
        days = [(number, record.timestamp_ms // _DAY_MS) for record, number in zip(records, series, strict=True)]
        known = self._known
        if len(known) + len(days) > _KNOWN_MAX:
            known.clear()
            self._numbered.clear()
        missing = {
            day: record for day, record in zip(days, records, strict=True) if day not in known and record.cost is None
        }
        if missing:
            self._learn(missing)
        usual: dict[int, Charge] = {}
        charged: list[Charge] = []
        for record, day in zip(records, days, strict=True):
            if record.cost is not None:
                charged.append(_reported(record.cost))
                continue
            rules = known[day]
            _, _, number, fraction, gaps = rules[0] if len(rules) == 1 else _applicable(rules, record)
            if fraction:
                charged.append(Charge(number, half_up(record.measures[0] * fraction[0], fraction[1])))
            elif gaps and _has_any(gaps, record.measures):
                charged.append(Charge(number, is_unpriced=True))
            else:
                charged.append(usual.get(number) or usual.setdefault(number, Charge(number)))
        return charged

    def _learn(self, missing: dict[tuple[int, int], Record]) -> None:
        for day, record in missing.items():
            rules = self.book.rules(record.kind, record.dimensions, day[1] * DAY_S)
            # Most series share their rules with others. Looking them up by what they are, not by what they say, spares
            # comparing all their prices each time.
            found = self._numbered.get(id(rules))
            if found is None:
                found = self._numbered[id(rules)] = (rules, self._number(record.kind, rules))
            self._known[day] = found[1]

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


def _has_any(missing: tuple[Terms, ...], measures: tuple[int, ...]) -> bool:
    for terms in missing:
        quantity = 0
        for place, sign in terms:
            quantity += sign * measures[place]
        if quantity:
            return True
    return False


_BY_TIME: Final = Charge(UNPRICED)


def _reported(cost: Decimal) -> Charge:
    return Charge(REPORTED, to_units(cost))


def _applicable(rules: tuple[NumberedRule, ...], record: Record) -> NumberedRule:
    """Return the last rule an event satisfies."""
    input_tokens = _input_tokens(record.kind, record.measures)
    since_ms = max(rule.since_ms for rule in rules if rule.since_ms <= record.timestamp_ms)
    return next(rule for rule in reversed(rules) if rule.since_ms == since_ms and rule.above < input_tokens)


def _input_tokens(kind: UsageKind, measures: tuple[int, ...]) -> int:
    return measures[kind.measures.index("input_tokens")] if "input_tokens" in kind.measures else 0


def same_prices(one: Rate | None, other: Rate | None) -> bool:
    """Whether two rates charge the same, whichever book they are from."""
    return (one and (one.kind, one.prices)) == (other and (other.kind, other.prices))
