"""Rollups kept small and true: compaction, rebuilding from raw events, and the comparison of both.

Each works a day at a time in a transaction of its own, beside the writer. Snapshots make that safe: what the writer
adds meanwhile is neither read nor deleted here, so its rows stay and add up.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import duckdb

from tallybook.kinds import FLOWS, KINDS
from tallybook.store.protocol import Difference
from tallybook.timegrid import DAY_S, floor_s

_SUMS: Final = ", ".join(f"sum({name}) AS {name}" for name in FLOWS)
_ROLLUPS: Final = (("usage_hours", "hour"), ("usage_days", "day"))
_LEVEL_KINDS: Final = tuple(kind.name for kind in KINDS.values() if kind.is_level)
_MINE: Final = (
    "series_id IN (SELECT series_id FROM series WHERE $organization_id IS NULL OR organization_id = $organization_id)"
)
_DAY: Final = (
    "{instant} >= make_timestamp($day_s::BIGINT * 1000000) "
    "AND {instant} < make_timestamp(($day_s::BIGINT + 86400) * 1000000)"
)


def compact(connection: duckdb.DuckDBPyConnection, rows_min: int) -> int:
    """Merge the rollup rows of each day that has at least `rows_min` more of them than cells.

    Returns:
        How many rows that saved.
    """
    saved = 0
    for table, _ in _ROLLUPS:
        rows = connection.execute(
            f"""SELECT epoch_ms(date_trunc('day', start)) // 1000, count(*) - count(DISTINCT (start, series_id))
                FROM {table} GROUP BY 1 ORDER BY 1"""
        ).fetchall()
        for day_s, surplus in rows:
            if surplus >= rows_min:
                _in_transaction(connection, partial(_merge, connection, table, day_s))
                saved += surplus
    return saved


def _merge(connection: duckdb.DuckDBPyConnection, table: str, day_s: int) -> None:
    day = _DAY.format(instant="start")
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE merged AS
            SELECT start, series_id, {_SUMS} FROM {table} WHERE {day} GROUP BY 1, 2 ORDER BY 1, 2""",
        {"day_s": day_s},
    )
    connection.execute(f"DELETE FROM {table} WHERE {day}", {"day_s": day_s})
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM merged")
    connection.execute("DROP TABLE merged")


def rebuild(connection: duckdb.DuckDBPyConnection, start_s: int, end_s: int, organization_id: str | None) -> int:
    """Make the rollups of every whole day that touches the window anew; one transaction a day.

    Returns:
        How many days have raw events or rollups, and were made anew.
    """
    days = connection.execute(
        f"""SELECT DISTINCT epoch_ms(date_trunc('day', instant)) // 1000 FROM (
              SELECT "timestamp" AS instant FROM events WHERE {_MINE}
              UNION ALL SELECT start FROM usage_hours WHERE {_MINE}
              UNION ALL SELECT start FROM usage_days WHERE {_MINE}
              UNION ALL SELECT "timestamp" FROM levels WHERE {_MINE})
            WHERE instant >= make_timestamp($start_s::BIGINT * 1000000)
              AND instant < make_timestamp($end_s::BIGINT * 1000000)
            ORDER BY 1""",
        {
            "organization_id": organization_id,
            "start_s": floor_s(start_s, DAY_S),
            "end_s": -floor_s(-end_s, DAY_S),
        },
    ).fetchall()
    for (day_s,) in days:
        _in_transaction(connection, partial(_rebuild_day, connection, day_s, organization_id))
    return len(days)


def _rebuild_day(connection: duckdb.DuckDBPyConnection, day_s: int, organization_id: str | None) -> None:
    values = {"day_s": day_s, "organization_id": organization_id}
    raw_day = _DAY.format(instant='"timestamp"')
    levels = f"series_id IN (SELECT series_id FROM series WHERE kind IN {_in(_LEVEL_KINDS)})"
    for table, cell in _ROLLUPS:
        connection.execute(f"DELETE FROM {table} WHERE {_DAY.format(instant='start')} AND {_MINE}", values)
        connection.execute(
            f"""INSERT INTO {table} BY NAME
                SELECT date_trunc('{cell}', "timestamp") AS start, series_id, {_SUMS} FROM events
                WHERE {raw_day} AND {_MINE} AND NOT {levels} GROUP BY 1, 2 ORDER BY 1, 2""",
            values,
        )
    connection.execute(f"DELETE FROM levels WHERE {raw_day} AND {_MINE}", values)
    connection.execute(
        f"""INSERT INTO levels SELECT "timestamp", series_id, usage_bytes FROM events
            WHERE {raw_day} AND {_MINE} AND {levels}""",
        values,
    )


def check(connection: duckdb.DuckDBPyConnection, organization_id: str | None) -> list[Difference]:
    """Compare every rollup with the raw events by day, kind and measure, in one snapshot.

    Returns:
        What differs, oldest first; an empty list is good.
    """
    differences: list[Difference] = []

    def compare() -> None:
        raw = _totals(connection, "events", '"timestamp"', FLOWS, organization_id)
        for table, _ in _ROLLUPS:
            rolled_up = _totals(connection, table, "start", FLOWS, organization_id)
            differences.extend(_differences(table, rolled_up, raw))
        raw_levels = _totals(connection, "events", '"timestamp"', ("usage_bytes",), organization_id)
        levels = _totals(connection, "levels", '"timestamp"', ("usage_bytes",), organization_id)
        differences.extend(_differences("levels", levels, raw_levels))

    _in_transaction(connection, compare)
    return sorted(differences, key=lambda difference: (difference.start_s, difference.rollup, difference.kind))


def _totals(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    instant: str,
    measures: tuple[str, ...],
    organization_id: str | None,
) -> dict[tuple[int, str, str], int]:
    rows = connection.execute(
        f"""SELECT epoch_ms(date_trunc('day', {instant})) // 1000, kind,
              {", ".join(f"sum({name})" for name in measures)}
            FROM {table} JOIN series USING (series_id)
            WHERE $organization_id IS NULL OR organization_id = $organization_id GROUP BY 1, 2""",
        {"organization_id": organization_id},
    ).fetchall()
    return {
        (day_s, kind, name): total
        for day_s, kind, *totals in rows
        for name, total in zip(measures, totals, strict=True)
        if total is not None
    }


def _differences(
    rollup: str, rolled_up: dict[tuple[int, str, str], int], raw: dict[tuple[int, str, str], int]
) -> list[Difference]:
    return [
        Difference(rollup, *key, rolled_up.get(key, 0), raw.get(key, 0))
        for key in rolled_up.keys() | raw.keys()
        if rolled_up.get(key, 0) != raw.get(key, 0)
    ]


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
