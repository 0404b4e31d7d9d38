"""The tables of the embedded store, and how an older store becomes a current one.

    series       one row for each combination of dimensions that occurred: who, what, how
    events       one row an event: id, timestamp, series, measures
    usage_hours  sums by series and hour; several rows of one cell add up (see `maintenance.compact`)
    usage_days   the same by day
    levels       reports of a level (vector stores): they hold until the next, so they do not add up
    quarantine   events that could not be kept, as they were sent

A dimension is kept once, in its series, and not in every event and cell: that makes a commit three times faster and a
grouping a sum over integers.
"""

from typing import Final

import duckdb

from tallybook.clock import now_s
from tallybook.errors import StoreUnusable
from tallybook.kinds import DIMENSIONS, FLOWS, MEASURES

_DIMENSION_COLUMNS: Final = ", ".join(f"{name} {'BOOLEAN' if name == 'batch' else 'VARCHAR'}" for name in DIMENSIONS)
# 64 bits: reading wider sums takes half as long again. What does not fit stays in several rows, which add up.
_FLOW_COLUMNS: Final = ", ".join(f"{name} BIGINT" for name in FLOWS)
_MEASURE_COLUMNS: Final = ", ".join(f"{name} BIGINT" for name in MEASURES)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"""CREATE TABLE series (series_id INTEGER NOT NULL, organization_id VARCHAR NOT NULL,
            kind VARCHAR NOT NULL, {_DIMENSION_COLUMNS})""",
        f"""CREATE TABLE events (id VARCHAR, "timestamp" TIMESTAMP NOT NULL, has_identity BOOLEAN NOT NULL,
            series_id INTEGER NOT NULL, {_MEASURE_COLUMNS}, cost DECIMAL(38, 18))""",
        f"CREATE TABLE usage_hours (start TIMESTAMP NOT NULL, series_id INTEGER NOT NULL, {_FLOW_COLUMNS})",
        f"CREATE TABLE usage_days (start TIMESTAMP NOT NULL, series_id INTEGER NOT NULL, {_FLOW_COLUMNS})",
        """CREATE TABLE levels ("timestamp" TIMESTAMP NOT NULL, series_id INTEGER NOT NULL,
            usage_bytes BIGINT NOT NULL)""",
        """CREATE TABLE quarantine (arrival BIGINT NOT NULL, quarantine_id VARCHAR NOT NULL,
            organization_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, event BLOB NOT NULL,
            faults VARCHAR NOT NULL)""",
    ),
)
"""Statements that lead from each version to the next; the first makes version 1. Only ever appended to."""

VERSION: Final = len(MIGRATIONS)


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring a store to the current version, one transaction a version.

    Raises:
        StoreUnusable: the store is newer than this program.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL, applied_at_s BIGINT NOT NULL)"
    )
    version = current_version(connection)
    if version > VERSION:
        raise StoreUnusable(
            f"the store has schema version {version}, this program knows up to {VERSION}; use a newer tallybook"
        )
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.begin()
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version VALUES (?, ?)", [number, now_s()])
        connection.commit()


def current_version(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the version a store has, 0 if it is empty."""
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    assert row is not None  # an aggregate without groups always has one row
    return int(row[0])
