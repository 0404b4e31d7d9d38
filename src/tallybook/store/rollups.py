"""Rollups: sums of events by cell of time and series, coarse and fine, and how events come into them.

A commit writes events only; they belong to the lot that is open. Folding closes the lot, adds its events to all rollups
and moves the mark behind it, in one transaction. So a cell of a rollup holds the events of all lots up to the mark, and
a question adds those of later lots to it, which are few. Rollups and events cannot drift: nothing is in a rollup
without the mark saying so.
"""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

import duckdb

from tallybook.kinds import FLOWS, KINDS
from tallybook.store.series import GRAINS
from tallybook.timegrid import DAY_S, HOUR_S, MINUTE_S


class Rollup(NamedTuple):
    """A table of sums.

    Attributes:
        table: its name; it also says of what its cells are.
        cell_s: length of a cell in seconds.
        grain: the column of the series table that names a cell's series.
    """

    table: str
    cell_s: int
    grain: str

    @property
    def unit(self) -> str:
        """The length of a cell as SQL calls it."""
        return _UNITS[self.cell_s]


_UNITS: Final = {DAY_S: "day", HOUR_S: "hour", MINUTE_S: "minute"}

ROLLUPS: Final = (
    Rollup("project_days", DAY_S, "project_series_id"),
    Rollup("usage_days", DAY_S, "series_id"),
    Rollup("project_hours", HOUR_S, "project_series_id"),
    Rollup("usage_hours", HOUR_S, "series_id"),
    Rollup("organization_minutes", MINUTE_S, "organization_series_id"),
)
"""Those of longer cells first; of the same cells, those of coarser series."""

SUMMED: Final = (*FLOWS, "amount")
LEVEL_KINDS: Final = tuple(kind.name for kind in KINDS.values() if kind.is_level)
IS_FLOW: Final = f"(kind NOT IN ({', '.join(repr(name) for name in LEVEL_KINDS)}) OR amount IS NOT NULL)"
"""What rollups hold: what a producer says the report of a level cost is a flow like any other."""
_SUM_SAFE: Final = 2**40
"""Events with a count above this have rows of their own, so that a sum stays within 64 bits. Rows of a cell add up."""


class Mark(NamedTuple):
    """How far something goes.

    Attributes:
        lot: the last lot it has events of.
        latest_ms: none of its events is later than this, Unix milliseconds.
    """

    lot: int
    latest_ms: int


def able(dimensions: Collection[str], width_s: int) -> list[Rollup]:
    """Return the rollups that can answer for some dimensions and a bucket width: the coarsest of each length."""
    found: dict[int, Rollup] = {}
    for rollup in ROLLUPS:
        if rollup.cell_s <= width_s and GRAINS[rollup.grain].isdisjoint(dimensions):
            found.setdefault(rollup.cell_s, rollup)
    return list(found.values())


def folded(connection: duckdb.DuckDBPyConnection) -> Mark:
    """Return how far the rollups go, as a connection sees it."""
    ((lot, latest_ms),) = connection.execute("SELECT lot, epoch_ms(latest) FROM rolled_up").fetchall()
    return Mark(lot, latest_ms)


def written(connection: duckdb.DuckDBPyConnection) -> Mark:
    """Return how far the events go, in rollups or not, as a connection sees it."""
    mark = folded(connection)
    # With a number, not a join, only the last of the events are read.
    ((lot, latest_ms),) = connection.execute(
        'SELECT max(lot), epoch_ms(max("timestamp")) FROM events WHERE lot > ?', [mark.lot]
    ).fetchall()
    return mark if lot is None else Mark(lot, max(latest_ms, mark.latest_ms))


def fold(connection: duckdb.DuckDBPyConnection, lot: int) -> tuple[int, set[int]]:
    """Add events of lots up to one to the rollups, within the connection's open transaction.

    Returns:
        How many events, and the days they are of, Unix seconds.
    """
    new = "lot > $mark AND lot <= $lot"
    before = folded(connection)
    values = {"mark": before.lot, "lot": lot}
    add(connection, new, values)
    rows = connection.execute(
        f"""SELECT count(*), epoch_ms(date_trunc('day', "timestamp")) // 1000, max("timestamp")
            FROM events WHERE {new} GROUP BY 2""",
        values,
    ).fetchall()
    latest = max((instant for _, _, instant in rows), default=None)
    # Not an update: while anybody reads what was before one, the engine cannot write its main file, and its log grows.
    connection.execute("DELETE FROM rolled_up")
    connection.execute(
        "INSERT INTO rolled_up SELECT ?, greatest(make_timestamp(?::BIGINT), ?::TIMESTAMP)",
        [lot, before.latest_ms * 1000, latest],
    )
    return sum(count for count, _, _ in rows), {day_s for _, day_s, _ in rows}


def add(connection: duckdb.DuckDBPyConnection, condition: str, values: dict[str, Any]) -> None:
    """Add the events a condition selects to all rollups, within the connection's open transaction."""
    for rollup in ROLLUPS:
        connection.execute(f"INSERT INTO {rollup.table} BY NAME {sums(rollup, condition)}", values)


def sums(rollup: Rollup, condition: str) -> str:
    """Return SQL for the rows of a rollup that the events a condition selects make, in order."""
    columns = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
    return f"""SELECT date_trunc('{rollup.unit}', "timestamp") AS start, series.{rollup.grain} AS series_id, rate_id,
  {columns}
FROM facts JOIN series USING (series_id)
WHERE {condition} AND {IS_FLOW}
GROUP BY 1, 2, 3, CASE WHEN greatest({", ".join(FLOWS)}) > {_SUM_SAFE} THEN row_number END
ORDER BY 1, 2, 3"""
