"""The second book: what a provider says was used and cost, by whole UTC days, beside what was recorded here.

A day that is read again is replaced whole: late corrections come in, and what is no longer said of it goes. Nothing of
it is usage; no question but a reconciliation looks at it.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import duckdb
import pyarrow as pa

from tallybook.kinds import FLOWS
from tallybook.money import plain
from tallybook.store.protocol import Reading
from tallybook.timegrid import DAY_S

_TABLES: Final = ("readings", "billed_usage", "billed_costs")
_MINE: Final = "organization_id = $organization_id AND provider = $provider"
_DAYS: Final = (
    '"day" >= make_timestamp($start_s::BIGINT * 1000000) AND "day" < make_timestamp($end_s::BIGINT * 1000000)'
)
_OWNER: Final[dict[str, pa.DataType]] = {
    "organization_id": pa.string(),
    "provider": pa.string(),
    "day": pa.timestamp("us"),
}
_SCHEMAS: Final = {
    "readings": pa.schema(_OWNER | {"read_at": pa.timestamp("us")}),
    "billed_usage": pa.schema(
        _OWNER | dict.fromkeys(("kind", "project_id", "model"), pa.string()) | dict.fromkeys(FLOWS, pa.int64())
    ),
    "billed_costs": pa.schema(_OWNER | dict.fromkeys(("project_id", "line_item", "quantity", "amount"), pa.string())),
}

Row = dict[str, object]
Commit = Callable[[duckdb.DuckDBPyConnection], None]
"""Makes an open transaction last."""


def keep(connection: duckdb.DuckDBPyConnection, organization_id: str, reading: Reading, commit: Commit) -> None:
    """Replace what a provider says of some days.

    Args:
        connection: lent for this, outside a transaction.
        organization_id: whose second book.
        reading: what was read.
        commit: ends the transaction.
    """
    rows = _rows(reading)
    owner: Row = {"organization_id": organization_id, "provider": reading.provider}
    window: Row = {"start_s": reading.start_s, "end_s": reading.end_s}
    connection.begin()
    try:
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table} WHERE {_MINE} AND {_DAYS}", owner | window)
            if rows[table]:
                read = pa.Table.from_pylist([owner | row for row in rows[table]], schema=_SCHEMAS[table])
                connection.register("read", read)
                connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read")
                connection.unregister("read")
        commit(connection)
    except BaseException:
        _roll_back(connection)
        raise


def _rows(reading: Reading) -> dict[str, list[Row]]:
    """Return what each table gets, without whose it is."""
    read_at = _instant(reading.read_at_s)
    days = range(reading.start_s, reading.end_s, DAY_S)
    usage: list[Row] = []
    for record in reading.usage:
        row: Row = {"day": _instant(record.timestamp_ms // 1000), "kind": record.kind.name}
        row |= zip(record.kind.dimensions, record.dimensions, strict=True)
        row |= zip(record.kind.measures, record.measures, strict=True)
        usage.append(row)
    return {
        "readings": [{"day": _instant(day_s), "read_at": read_at} for day_s in days],
        "billed_usage": usage,
        "billed_costs": [
            {
                "day": _instant(cost.day_s),
                "project_id": cost.project_id,
                "line_item": cost.line_item,
                "quantity": None if cost.quantity is None else plain(cost.quantity),
                "amount": plain(cost.amount),
            }
            for cost in reading.costs
        ],
    }


def drop(connection: duckdb.DuckDBPyConnection, organization_id: str, provider: str, commit: Commit) -> int:
    """Delete all that was read of a provider; return how many days that was."""
    owner: Row = {"organization_id": organization_id, "provider": provider}
    connection.begin()
    try:
        days, *_ = [
            connection.execute(f"DELETE FROM {table} WHERE {_MINE}", owner).fetchall()[0][0] for table in _TABLES
        ]
        commit(connection)
    except BaseException:
        _roll_back(connection)
        raise
    return int(days)


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # a failed commit has rolled back already, and a dead engine has nothing to
        connection.rollback()


def _instant(instant_s: int) -> datetime:
    return datetime.fromtimestamp(instant_s, UTC).replace(tzinfo=None)
