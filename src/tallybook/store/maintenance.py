"""Rollups kept small and true: compaction, rebuilding from raw events, and the comparison of both.

Each works a day at a time in a transaction of its own, beside the writer. Snapshots make that safe: what the writer
adds meanwhile is neither read nor deleted here, so its rows stay and add up.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import duckdb

from tallybook.store.protocol import Difference, Kept
from tallybook.store.retention import since_s, without_events
from tallybook.store.rollups import IS_FLOW, LEVEL_KINDS, ROLLUPS, SUMMED, Rollup, sums
from tallybook.timegrid import DAY_S, INSTANT_MAX_S, floor_s

_MERGED: Final = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)


def _in(names: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in names) + ")"


_MINE: Final = (
    "series_id IN (SELECT series_id FROM series WHERE $organization_id IS NULL OR organization_id = $organization_id)"
)
_IS_LEVEL: Final = f"series_id IN (SELECT series_id FROM series WHERE kind IN {_in(LEVEL_KINDS)})"
_DAY: Final = (
    "{instant} >= make_timestamp($day_s::BIGINT * 1000000) "
    "AND {instant} < make_timestamp(($day_s::BIGINT + 86400) * 1000000)"
)


def surplus(connection: duckdb.DuckDBPyConnection, days: Collection[int] | None) -> dict[tuple[str, int], float]:
    """Return for each rollup and day how many rows it has for each of its cells.

    Args:
        days: starts of the days to look at, Unix seconds; None: all.
    """
    found: dict[tuple[str, int], float] = {}
    for rollup in ROLLUPS:
        rows = connection.execute(
            f"""SELECT epoch_ms(day) // 1000, count(*) / count(DISTINCT (start, series_id, rate_id))
                FROM (SELECT date_trunc('day', start) AS day, start, series_id, rate_id FROM {rollup.table})
                WHERE $days IS NULL OR epoch_ms(day) // 1000 IN (SELECT unnest($days))
                GROUP BY 1 ORDER BY 1""",
            {"days": None if days is None else list(days)},
        ).fetchall()
        found |= {(rollup.table, day_s): ratio for day_s, ratio in rows}
    return found


def merge(connection: duckdb.DuckDBPyConnection, table: str, day_s: int) -> int:
    """Leave one row of a rollup for each cell of a day, ordered; return how many rows that saved."""
    day = _DAY.format(instant="start")
    values = {"day_s": day_s}
    saved = 0

    def work() -> None:
        nonlocal saved
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE merged AS
                SELECT start, series_id, rate_id, {_MERGED} FROM {table} WHERE {day}
                GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
            values,
        )
        (before,) = connection.execute(f"DELETE FROM {table} WHERE {day}", values).fetchall()
        (after,) = connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM merged").fetchall()
        connection.execute("DROP TABLE merged")
        saved = before[0] - after[0]

    # Sums that pass 64 bits do not fit a row; such a day stays in several rows, which add up all the same.
    with suppress(duckdb.ConversionException):
        _in_transaction(connection, work)
    return saved


def rebuild(
    connection: duckdb.DuckDBPyConnection, start_s: int, end_s: int, organization_id: str | None, kept: Kept
) -> int:
    """Make the rollups of every whole day that touches the window anew; one transaction a day.

    Returns:
        How many days have raw events or rollups, and were made anew.

    Raises:
        InvalidRequest: the raw events of a day are no longer kept; nothing was made anew.
    """
    days = days_of(connection, floor_s(start_s, DAY_S), -floor_s(-end_s, DAY_S), organization_id)
    if days and days[0] < kept.events_s:
        raise without_events(kept, "cannot be made anew, and stays as it is")
    for day_s in days:
        _in_transaction(connection, partial(make_day_anew, connection, day_s, organization_id))
    return len(days)


def days_of(connection: duckdb.DuckDBPyConnection, start_s: int, end_s: int, organization_id: str | None) -> list[int]:
    """Return the days of a window that have events or rollups, oldest first, as Unix seconds."""
    rows = connection.execute(
        f"""SELECT DISTINCT epoch_ms(date_trunc('day', instant)) // 1000 FROM (
              SELECT "timestamp" AS instant FROM events WHERE {_MINE}
              UNION ALL SELECT start FROM usage_days WHERE {_MINE}
              UNION ALL SELECT "timestamp" FROM levels WHERE {_MINE})
            WHERE instant >= make_timestamp($start_s::BIGINT * 1000000)
              AND instant < make_timestamp($end_s::BIGINT * 1000000)
            ORDER BY 1""",
        {"organization_id": organization_id, "start_s": start_s, "end_s": end_s},
    ).fetchall()
    return [day_s for (day_s,) in rows]


def make_day_anew(connection: duckdb.DuckDBPyConnection, day_s: int, organization_id: str | None) -> None:
    """Make the rollups of one day anew from raw events, within the connection's open transaction."""
    values = {"day_s": day_s, "organization_id": organization_id}
    raw_day = _DAY.format(instant='"timestamp"')
    folded_up = "lot <= (SELECT lot FROM rolled_up)"
    for rollup in ROLLUPS:
        connection.execute(f"DELETE FROM {rollup.table} WHERE {_DAY.format(instant='start')} AND {_MINE}", values)
        connection.execute(
            f"INSERT INTO {rollup.table} BY NAME {sums(rollup, f'{raw_day} AND {_MINE} AND {folded_up}')}", values
        )
    connection.execute(f"DELETE FROM levels WHERE {raw_day} AND {_MINE}", values)
    connection.execute(
        f"""INSERT INTO levels BY NAME SELECT "timestamp", series_id, usage_bytes, amount FROM events
            WHERE {raw_day} AND {_MINE} AND {_IS_LEVEL}""",
        values,
    )


def check(
    connection: duckdb.DuckDBPyConnection, organization_id: str | None, kept: Callable[[], Kept]
) -> list[Difference]:
    """Compare every cell of every rollup with the raw events, a day at a time, each in one snapshot.

    Days that events or cells are no longer kept of have nothing to compare.

    Returns:
        What differs, oldest first, about `_DIFFERENCES_MAX` at the most; an empty list is good.
    """
    values = {"organization_id": organization_id}
    differences: list[Difference] = []
    for day_s in days_of(connection, kept().events_s, INSTANT_MAX_S, organization_id):
        for comparison in _COMPARISONS:
            rows = connection.execute(comparison.sql, values | {"day_s": day_s}).fetchall()
            if day_s >= comparison.since_s(kept()):  # not asked before: meanwhile more may have been deleted
                differences += (Difference(comparison.table, *row) for row in rows)
        if len(differences) >= _DIFFERENCES_MAX:
            break
    return differences


_DIFFERENCES_MAX: Final = 100


class _Comparison(NamedTuple):
    rollup: Rollup | None
    sql: str

    @property
    def table(self) -> str:
        return self.rollup.table if self.rollup else "levels"

    def since_s(self, kept: Kept) -> int:
        """Since when there is something to compare."""
        return max(kept.events_s, since_s(kept, self.rollup) if self.rollup else 0)


def _comparison(rollup: Rollup | None) -> _Comparison:
    """SQL for the cells of a day whose sums differ: start, kind, measure, sum of the rollup, sum of the events.

    Args:
        rollup: None for the reports of levels.
    """
    if rollup:
        table, instant, measures, parts = rollup.table, "start", SUMMED, "series_id, rate_id"
        cell, grain = f"date_trunc('{rollup.unit}', \"timestamp\")", rollup.grain
        kept = f"{IS_FLOW} AND lot <= (SELECT lot FROM rolled_up)"
    else:
        table, instant, measures, parts = "levels", '"timestamp"', ("usage_bytes", "amount"), "series_id"
        cell, grain, kept = '"timestamp"', "series_id", _IS_LEVEL
    totals = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in measures)
    pairs = ", ".join(
        f"{{name: '{name}', rolled_up: coalesce(rolled.{name}, 0), raw: coalesce(raw.{name}, 0)}}" for name in measures
    )
    return _Comparison(
        rollup,
        f"""
        SELECT epoch_ms(cell) // 1000, kind, pair.name, pair.rolled_up, pair.raw FROM (
          SELECT cell, kind, unnest([{pairs}]) AS pair FROM (
            SELECT {instant} AS cell, {parts}, {totals} FROM {table}
            WHERE {_DAY.format(instant=instant)} AND {_MINE} GROUP BY ALL) AS rolled
          FULL JOIN (
            SELECT {cell} AS cell, series.{grain} AS {parts}, {totals} FROM facts JOIN series USING (series_id)
            WHERE {_DAY.format(instant='"timestamp"')} AND {_MINE} AND {kept} GROUP BY ALL) AS raw
          USING (cell, {parts})
          JOIN series USING (series_id))
        WHERE pair.rolled_up <> pair.raw ORDER BY 1, 2, 3 LIMIT {_DIFFERENCES_MAX}""",
    )


_COMPARISONS: Final = tuple(_comparison(rollup) for rollup in (*ROLLUPS, None))


def _in_transaction(connection: duckdb.DuckDBPyConnection, work: Callable[[], object]) -> None:
    connection.begin()
    try:
        work()
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
