"""Rollups kept small and true: compaction, rebuilding from raw events, and the comparison of both.

Each works a day at a time in a transaction of its own, beside the writer. Snapshots make that safe: what the writer
adds meanwhile is neither read nor deleted here, so its rows stay and add up.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Final

import duckdb

from tallybook.kinds import FLOWS, KINDS
from tallybook.store.protocol import Difference
from tallybook.timegrid import DAY_S, INSTANT_MAX_S, floor_s

_SUMMED: Final = (*FLOWS, "amount")
_SUMS: Final = ", ".join(f"sum({name}) AS {name}" for name in _SUMMED)
_COUNTS: Final = ", ".join(_SUMMED)
_SUM_MAX: Final = 2**63 - 1
_ROLLUPS: Final = (("usage_hours", "hour"), ("usage_days", "day"))
_LEVEL_KINDS: Final = tuple(kind.name for kind in KINDS.values() if kind.is_level)
_MINE: Final = (
    "series_id IN (SELECT series_id FROM series WHERE $organization_id IS NULL OR organization_id = $organization_id)"
)
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
    for table, _ in _ROLLUPS:
        rows = connection.execute(
            f"""SELECT epoch_ms(day) // 1000, count(*) / count(DISTINCT (start, series_id, rate_id))
                FROM (SELECT date_trunc('day', start) AS day, start, series_id, rate_id FROM {table})
                WHERE $days IS NULL OR epoch_ms(day) // 1000 IN (SELECT unnest($days))
                GROUP BY 1 ORDER BY 1""",
            {"days": None if days is None else list(days)},
        ).fetchall()
        found |= {(table, day_s): ratio for day_s, ratio in rows}
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
                SELECT start, series_id, rate_id, {_SUMS} FROM {table} WHERE {day} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
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


def rebuild(connection: duckdb.DuckDBPyConnection, start_s: int, end_s: int, organization_id: str | None) -> int:
    """Make the rollups of every whole day that touches the window anew; one transaction a day.

    Returns:
        How many days have raw events or rollups, and were made anew.
    """
    days = days_of(connection, floor_s(start_s, DAY_S), -floor_s(-end_s, DAY_S), organization_id)
    for day_s in days:
        _in_transaction(connection, partial(make_day_anew, connection, day_s, organization_id))
    return len(days)


def days_of(connection: duckdb.DuckDBPyConnection, start_s: int, end_s: int, organization_id: str | None) -> list[int]:
    """Return the days of a window that have events or rollups, oldest first, as Unix seconds."""
    rows = connection.execute(
        f"""SELECT DISTINCT epoch_ms(date_trunc('day', instant)) // 1000 FROM (
              SELECT "timestamp" AS instant FROM events WHERE {_MINE}
              UNION ALL SELECT start FROM usage_hours WHERE {_MINE}
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
    levels = f"series_id IN (SELECT series_id FROM series WHERE kind IN {_in(_LEVEL_KINDS)})"
    fits = connection.execute(
        f"""SELECT coalesce(max(greatest({", ".join(FLOWS)})), 0) <= {_SUM_MAX} FROM (
              SELECT {_SUMS} FROM events WHERE {raw_day} AND {_MINE} GROUP BY series_id, rate_id)""",
        values,
    ).fetchall()
    # Sums that pass 64 bits do not fit a row; such a day stays in several rows, which add up all the same.
    counts, group = (_SUMS, "GROUP BY 1, 2, 3") if fits[0][0] else (_COUNTS, "")
    for table, cell in _ROLLUPS:
        connection.execute(f"DELETE FROM {table} WHERE {_DAY.format(instant='start')} AND {_MINE}", values)
        connection.execute(
            f"""INSERT INTO {table} BY NAME
                SELECT date_trunc('{cell}', "timestamp") AS start, series_id, rate_id, {counts} FROM events
                WHERE {raw_day} AND {_MINE} AND (NOT {levels} OR amount IS NOT NULL) {group} ORDER BY 1, 2, 3""",
            values,
        )
    connection.execute(f"DELETE FROM levels WHERE {raw_day} AND {_MINE}", values)
    connection.execute(
        f"""INSERT INTO levels BY NAME SELECT "timestamp", series_id, usage_bytes, amount FROM events
            WHERE {raw_day} AND {_MINE} AND {levels}""",
        values,
    )


def check(connection: duckdb.DuckDBPyConnection, organization_id: str | None) -> list[Difference]:
    """Compare every cell of every rollup with the raw events, a day at a time, each in one snapshot.

    Returns:
        What differs, oldest first, about `_DIFFERENCES_MAX` at the most; an empty list is good.
    """
    values = {"organization_id": organization_id}
    differences: list[Difference] = []
    for day_s in days_of(connection, 0, INSTANT_MAX_S, organization_id):
        for rollup, instant, measures, cell in (
            ("usage_hours", "start", _SUMMED, "date_trunc('hour', \"timestamp\")"),
            ("usage_days", "start", _SUMMED, "date_trunc('day', \"timestamp\")"),
            ("levels", '"timestamp"', ("usage_bytes", "amount"), '"timestamp"'),
        ):
            rows = connection.execute(
                _comparison(rollup, instant, measures, cell), values | {"day_s": day_s}
            ).fetchall()
            differences += (Difference(rollup, *row) for row in rows)
        if len(differences) >= _DIFFERENCES_MAX:
            break
    return differences


_DIFFERENCES_MAX: Final = 100


def _comparison(rollup: str, instant: str, measures: tuple[str, ...], cell: str) -> str:
    """SQL for the cells of a day whose sums differ: start, kind, measure, sum of the rollup, sum of the events."""
    parts = "series_id" if rollup == "levels" else "series_id, rate_id"
    sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in measures)
    pairs = ", ".join(
        f"{{name: '{name}', rolled_up: coalesce(rolled.{name}, 0), raw: coalesce(raw.{name}, 0)}}" for name in measures
    )
    of_kind = f"series_id IN (SELECT series_id FROM series WHERE kind IN {_in(_LEVEL_KINDS)})"
    kept = of_kind if rollup == "levels" else f"(NOT {of_kind} OR amount IS NOT NULL)"
    return f"""
        SELECT epoch_ms(cell) // 1000, kind, pair.name, pair.rolled_up, pair.raw FROM (
          SELECT cell, kind, unnest([{pairs}]) AS pair FROM (
            SELECT {instant} AS cell, {parts}, {sums} FROM {rollup}
            WHERE {_DAY.format(instant=instant)} AND {_MINE} GROUP BY ALL) AS rolled
          FULL JOIN (
            SELECT {cell} AS cell, {parts}, {sums} FROM events
            WHERE {_DAY.format(instant='"timestamp"')} AND {_MINE} AND {kept} GROUP BY ALL) AS raw
          USING (cell, {parts})
          JOIN series USING (series_id))
        WHERE pair.rolled_up <> pair.raw ORDER BY 1, 2, 3 LIMIT {_DIFFERENCES_MAX}"""


def _in_transaction(connection: duckdb.DuckDBPyConnection, work: Callable[[], object]) -> None:
    connection.begin()
    try:
        work()
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _in(names: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in names) + ")"
