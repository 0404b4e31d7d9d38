"""Charging a day anew: its events get the rates of another book, its rollups follow, a record is left. All or nothing.

What is sent meanwhile is neither read nor changed here: it has a rate of the book in force, and adds up with the rest.
"""

import secrets
from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from tallybook.kinds import DIMENSIONS, KINDS
from tallybook.rate import REPORTED, UNPRICED, Book, Rate, Rule
from tallybook.store import maintenance
from tallybook.store.level_rates import LEVEL, during, keep, timeline
from tallybook.store.protocol import CostRow, DayChange, Line, LineChange
from tallybook.store.rates import RateIndex, same_prices
from tallybook.timegrid import DAY_S

_DAY: Final = (
    '"timestamp" >= make_timestamp($day_s::BIGINT * 1000000) '
    'AND "timestamp" < make_timestamp(($day_s::BIGINT + 86400) * 1000000)'
)
_ENDLESS: Final = 2**63 - 1
_TOKENS_A_REQUEST: Final = """CASE WHEN num_model_requests > 0
    THEN (coalesce(input_tokens, 0) + num_model_requests - 1) // num_model_requests ELSE 0 END"""
"""As `tallybook.store.rates` has it: an event may stand for several requests."""

Schedule = list[tuple[int, Rate | None]]
"""Since when, Unix milliseconds, which rate."""
RateOf = Callable[[int], Rate | None]
Costs = Callable[[duckdb.DuckDBPyConnection, RateOf], list[CostRow]]
"""What the day costs by line item, as a connection sees it, with a way to look up rates by number."""


def rerate(
    connection: duckdb.DuckDBPyConnection,
    rates: RateIndex,
    organization_id: str,
    day_s: int,
    book: Book,
    now_ms: int,
    costs: Costs,
    *,
    dry_run: bool,
) -> DayChange:
    """Charge one day of one organization by a book; see `Store.rerate`.

    Args:
        connection: lent for this, outside a transaction.
        rates: numbers of rates.
        organization_id: whose.
        day_s: start of the day, Unix seconds.
        book: where prices are from.
        now_ms: the present.
        costs: tells the day's costs.
        dry_run: leave everything as it is.
    """
    change = DayChange(day_s, 0, 0, 0, [])
    connection.begin()
    try:
        numbers = _Numbers(rates, is_lasting=not dry_run)
        changes = _event_changes(connection, numbers, organization_id, day_s, book)
        schedule = _level_changes(connection, numbers, organization_id, day_s, book)
        before = costs(connection, numbers.get) if changes or schedule else []
        changed = _apply(connection, numbers, changes, day_s) if changes else 0
        changed += _reschedule(connection, numbers, organization_id, day_s, schedule) if schedule else 0
        if changed:
            maintenance.make_day_anew(connection, day_s, organization_id)
            change = _difference(day_s, changed, before, costs(connection, numbers.get))
            if change.lines:
                _keep_record(connection, organization_id, change, book.book_id, now_ms)
    except BaseException:
        connection.rollback()
        raise
    if dry_run or not changed:
        connection.rollback()
    else:
        connection.commit()
    return change


class _Numbers:
    """Numbers of rates. Unless they shall last, new ones are negative and known only here."""

    def __init__(self, rates: RateIndex, *, is_lasting: bool) -> None:
        self._rates = rates
        self._is_lasting = is_lasting
        self._fleeting: dict[int, Rate] = {}

    def of(self, wanted: list[Rate | None]) -> dict[Rate | None, int]:
        if self._is_lasting:
            return self._rates.numbers(wanted)
        found: dict[Rate | None, int] = {rate: number for number, rate in self._fleeting.items()}
        for rate in dict.fromkeys(wanted):
            if rate is None:
                found[rate] = UNPRICED
            elif rate not in found:
                found[rate] = -1 - len(self._fleeting)
                self._fleeting[found[rate]] = rate
        return found

    def get(self, number: int) -> Rate | None:
        """Return a rate by its number, None for those without prices of their own."""
        return self._fleeting[number] if number < 0 else self._rates.get(number)

    def charges_as(self, number: int, rate: Rate | None) -> bool:
        """Whether a number stands for the same prices as a rate."""
        return number != REPORTED and same_prices(self.get(number), rate)


class _Change(NamedTuple):
    """Which events get another rate: those of a series and rate, between instants and between input tokens."""

    series_id: int
    rate_id: int
    since_ms: int
    until_ms: int
    above: int
    up_to: int
    rate: Rate | None
    is_reported: bool


def _event_changes(
    connection: duckdb.DuckDBPyConnection, numbers: _Numbers, organization_id: str, day_s: int, book: Book
) -> list[_Change]:
    """Return which events of a day a book charges something else."""
    found = connection.execute(
        f"""SELECT DISTINCT series_id, rate_id, kind, cost IS NOT NULL, {", ".join(DIMENSIONS)}
            FROM facts AS events JOIN series USING (series_id) WHERE {_DAY} AND organization_id = $organization_id""",
        {"day_s": day_s, "organization_id": organization_id},
    ).fetchall()
    changes: list[_Change] = []
    for series_id, rate_id, kind_name, has_cost, *dimensions in found:
        kind = KINDS[kind_name]
        if has_cost:
            if rate_id != REPORTED:  # recorded before there were prices
                changes.append(_Change(series_id, rate_id, 0, _ENDLESS, -1, _ENDLESS, None, is_reported=True))
        elif not kind.is_level:
            named = dict(zip(DIMENSIONS, dimensions, strict=True))
            rules = book.rules(kind, tuple(named[name] for name in kind.dimensions), day_s)
            changes += (
                _Change(series_id, rate_id, *bounds, rule.rate, is_reported=False)
                for rule, bounds in _bounded(rules)
                if not numbers.charges_as(rate_id, rule.rate)
            )
    return changes


def _bounded(rules: tuple[Rule, ...]) -> list[tuple[Rule, tuple[int, int, int, int]]]:
    """Return each rule with where it holds: instants, half-open; input tokens, above the first and up to the second."""
    starts = sorted({rule.since_ms for rule in rules})
    ends = dict(zip(starts, [*starts[1:], _ENDLESS], strict=True))
    bounded = []
    for rule, following in zip(rules, (*rules[1:], None), strict=True):
        up_to = following.above if following and following.since_ms == rule.since_ms else _ENDLESS
        bounded.append((rule, (rule.since_ms, ends[rule.since_ms], rule.above, up_to)))
    return bounded


def _apply(connection: duckdb.DuckDBPyConnection, numbers: _Numbers, changes: list[_Change], day_s: int) -> int:
    """Give events their new rates; return how many."""
    new = numbers.of([change.rate for change in changes])
    fractions = [(change.rate.fraction if change.rate else None) or (None, None) for change in changes]
    table = pa.table(
        {
            name: pa.array([getattr(change, name) for change in changes], pa.int64())
            for name in ("series_id", "rate_id", "since_ms", "until_ms", "above", "up_to")
        }
        | {
            "new_rate_id": pa.array(
                [REPORTED if change.is_reported else new[change.rate] for change in changes], pa.int32()
            ),
            "is_reported": pa.array([change.is_reported for change in changes], pa.bool_()),
            "numerator": pa.array([numerator for numerator, _ in fractions], pa.decimal128(38, 0)),
            "denominator": pa.array([denominator for _, denominator in fractions], pa.int64()),
        }
    )
    connection.register("changes", table)
    # Only seconds have prices that are rounded. A cost has 18 decimals: without the point it is in units of money.
    (changed,) = connection.execute(
        f"""UPDATE events SET rate_id = changes.new_rate_id, amount = CASE
              WHEN is_reported THEN replace(cost::VARCHAR, '.', '')::HUGEINT
              WHEN denominator IS NOT NULL
                THEN (2 * seconds::HUGEINT * numerator::HUGEINT + denominator) // (2 * denominator)::HUGEINT
            END
            FROM changes
            WHERE {_DAY} AND events.series_id = changes.series_id AND events.rate_id = changes.rate_id
              AND (cost IS NOT NULL) = is_reported
              AND epoch_ms("timestamp") >= since_ms AND epoch_ms("timestamp") < until_ms
              AND {_TOKENS_A_REQUEST} > above AND {_TOKENS_A_REQUEST} <= up_to""",
        {"day_s": day_s},
    ).fetchall()
    connection.unregister("changes")
    return int(changed[0])


def _level_changes(
    connection: duckdb.DuckDBPyConnection, numbers: _Numbers, organization_id: str, day_s: int, book: Book
) -> Schedule:
    """Return the rates of a book for what is held on a day, if they charge something else."""
    rows = timeline(connection, organization_id)
    if not rows:
        return []
    wanted = during(book.schedule(LEVEL), day_s * 1000, (day_s + DAY_S) * 1000)
    present = during(rows, day_s * 1000, (day_s + DAY_S) * 1000)
    is_same = len(wanted) == len(present) and all(
        since == was_since and numbers.charges_as(number, rate)
        for (since, rate), (was_since, number) in zip(wanted, present, strict=True)
    )
    return [] if is_same else wanted


def _reschedule(
    connection: duckdb.DuckDBPyConnection, numbers: _Numbers, organization_id: str, day_s: int, schedule: Schedule
) -> int:
    """Put the rates of a day into the timeline; what holds after it goes on. Return how many there are."""
    start_ms, end_ms = day_s * 1000, (day_s + DAY_S) * 1000
    after = during(timeline(connection, organization_id), end_ms, end_ms + 1)
    new = numbers.of([rate for _, rate in schedule])
    connection.execute(
        "DELETE FROM level_rates WHERE organization_id = ? AND epoch_ms(since) >= ? AND epoch_ms(since) <= ?",
        [organization_id, start_ms, end_ms],
    )
    keep(connection, organization_id, [*((since, new[rate]) for since, rate in schedule), *after])
    return len(schedule)


def _difference(day_s: int, changed: int, before: list[CostRow], after: list[CostRow]) -> DayChange:
    was, becomes = _by_line(before), _by_line(after)
    lines = []
    for line in sorted({*was, *becomes}):
        one, other = was.get(line, _NOTHING), becomes.get(line, _NOTHING)
        if one != other:
            lines.append(LineChange(line, one[0], other[0], one[1], other[1]))
    return DayChange(
        day_s, changed, sum(amount for _, amount in was.values()), sum(amount for _, amount in becomes.values()), lines
    )


_NOTHING: Final[tuple[Decimal | int | None, None]] = (None, None)


def _by_line(rows: list[CostRow]) -> dict[Line, tuple[Decimal | int | None, int]]:
    found = {}
    for row in rows:
        (line,) = row.group
        assert isinstance(line, Line)
        found[line] = (row.quantity, row.amount)
    return found


def _keep_record(
    connection: duckdb.DuckDBPyConnection, organization_id: str, change: DayChange, book_id: str, now_ms: int
) -> None:
    connection.execute(
        """INSERT INTO reratings
           SELECT coalesce(max(arrival), 0) + 1, ?, ?, make_timestamp(?::BIGINT * 1000),
             make_timestamp(?::BIGINT * 1000000), ?, ?, ?::HUGEINT, ?::HUGEINT FROM reratings""",
        [
            f"rerate_{secrets.token_hex(12)}",
            organization_id,
            now_ms,
            change.day_s,
            book_id,
            change.events,
            str(change.before),
            str(change.after),
        ],
    )
