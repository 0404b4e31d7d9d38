"""Which rate holds for what is held, by time.

A report of a level says how much is held, not what that costs: a price may change while one report still holds. So
every organization that reports levels has a timeline of rates. What is past stays as it is, unless it is rated again.
"""

from collections.abc import Collection, Sequence
from typing import Final, TypeVar

import duckdb

from tallybook.kinds import KINDS
from tallybook.rate import Book
from tallybook.store.rates import RateIndex, same_prices

_T = TypeVar("_T")
_LEVELS: Final = [kind for kind in KINDS.values() if kind.is_level]
(LEVEL,) = _LEVELS
"""The usage kind that is a level; one timeline of prices serves it."""

Timeline = list[tuple[int, int]]
"""Since when, Unix milliseconds, which number of a rate; oldest first."""


def holders(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the organizations that ever reported a level."""
    return {name for (name,) in connection.execute("SELECT DISTINCT organization_id FROM level_rates").fetchall()}


def timeline(connection: duckdb.DuckDBPyConnection, organization_id: str) -> Timeline:
    """Return the rates of an organization; none if it never reported a level."""
    return connection.execute(
        "SELECT epoch_ms(since), rate_id FROM level_rates WHERE organization_id = ? ORDER BY since", [organization_id]
    ).fetchall()


def during(schedule: Sequence[tuple[int, _T]], start_ms: int, end_ms: int) -> list[tuple[int, _T]]:
    """Return what of a schedule, which begins at 0, holds in a window; the first from its start on."""
    first = next(what for since_ms, what in reversed(schedule) if since_ms <= start_ms)
    return [(start_ms, first), *((since_ms, what) for since_ms, what in schedule if start_ms < since_ms < end_ms)]


def keep(connection: duckdb.DuckDBPyConnection, organization_id: str, rates: Timeline) -> None:
    """Insert rates into an organization's timeline."""
    connection.executemany(
        "INSERT INTO level_rates VALUES (?, make_timestamp(?::BIGINT * 1000), ?)",
        [(organization_id, since_ms, number) for since_ms, number in rates],
    )


def begin(
    connection: duckdb.DuckDBPyConnection, rates: RateIndex, book: Book, organization_ids: Collection[str]
) -> None:
    """Give organizations that report a level for the first time the prices of a book, for all time."""
    for organization_id in sorted({*organization_ids} - holders(connection)):
        schedule = book.schedule(LEVEL)
        numbers = rates.numbers(rate for _, rate in schedule)
        keep(connection, organization_id, [(since_ms, numbers[rate]) for since_ms, rate in schedule])


def adopt(connection: duckdb.DuckDBPyConnection, rates: RateIndex, book: Book, now_ms: int) -> None:
    """Let a book hold from now on for everyone who holds something; what was before stays."""
    schedule = during(book.schedule(LEVEL), now_ms, 2**62)
    for organization_id in sorted(holders(connection)):
        present = during(timeline(connection, organization_id), now_ms, 2**62)
        if [since for since, _ in present] == [since for since, _ in schedule] and all(
            same_prices(rates.get(number), rate) for (_, number), (_, rate) in zip(present, schedule, strict=True)
        ):
            continue
        numbers = rates.numbers(rate for _, rate in schedule)
        connection.execute(
            "DELETE FROM level_rates WHERE organization_id = ? AND epoch_ms(since) >= ?", [organization_id, now_ms]
        )
        keep(connection, organization_id, [(since_ms, numbers[rate]) for since_ms, rate in schedule])
