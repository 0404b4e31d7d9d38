"""The tables of the embedded store, and how an older store becomes a current one.

    series       one row for each combination of dimensions that occurred: who, what, how
    events       one row an event: id, timestamp, series, measures
    usage_hours  sums by series and hour; several rows of one cell add up (see `maintenance.compact`)
    usage_days   the same by day
    levels       reports of a level (vector stores): they hold until the next, so they do not add up
    rates        what events are charged by: one row for each part that has a price; never changed
    level_rates  which rate holds for levels from an instant on, by organization
    reratings    days whose charges were changed afterwards: when, by which book, by how much
    quarantine   events that could not be kept, as they were sent

A dimension is kept once, in its series, and not in every event and cell: that makes a commit three times faster and a
grouping a sum over integers. So is a price: events and cells name their rate, and cost quantity times price. `amount`
holds, in 10^-18 dollars, only what does not follow from that: a producer's own cost, or a rounded one.
"""

from typing import Final

import duckdb

from tallybook.clock import now_s
from tallybook.errors import StoreUnusable
from tallybook.kinds import DIMENSIONS, FLOWS, MEASURES
from tallybook.rate import REPORTED, UNPRICED

_ADDED: Final = ("quality",)
"""Dimensions that came with later versions."""
_DIMENSION_COLUMNS: Final = ", ".join(
    f"{name} {'BOOLEAN' if name == 'batch' else 'VARCHAR'}" for name in DIMENSIONS if name not in _ADDED
)
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
    (
        "ALTER TABLE series ADD COLUMN quality VARCHAR",
        *(
            f"ALTER TABLE {table} ADD COLUMN {column}"
            for table in ("events", "usage_hours", "usage_days")
            for column in ("rate_id INTEGER DEFAULT 0", "amount HUGEINT")
        ),
        "ALTER TABLE levels ADD COLUMN amount HUGEINT",
        # A cost of its own is one from the first: its events and their cells get it. 18 decimals without the point.
        f"""UPDATE events SET rate_id = {REPORTED}, amount = replace(cost::VARCHAR, '.', '')::HUGEINT
            WHERE cost IS NOT NULL""",
        """UPDATE levels SET amount = reported.amount FROM events AS reported
           WHERE reported.amount IS NOT NULL AND reported.usage_bytes = levels.usage_bytes
             AND reported.series_id = levels.series_id AND reported."timestamp" = levels."timestamp" """,
        *(
            statement
            for table, cell in (("usage_hours", "hour"), ("usage_days", "day"))
            for statement in (
                f"""DELETE FROM {table} WHERE (start, series_id) IN (
                      SELECT date_trunc('{cell}', "timestamp"), series_id FROM events WHERE cost IS NOT NULL)""",
                f"""INSERT INTO {table} BY NAME
                    SELECT date_trunc('{cell}', "timestamp") AS start, series_id, rate_id, sum(amount) AS amount,
                      {", ".join(f"sum({name}) AS {name}" for name in FLOWS)}
                    FROM events WHERE (date_trunc('{cell}', "timestamp"), series_id) IN (
                      SELECT date_trunc('{cell}', "timestamp"), series_id FROM events WHERE cost IS NOT NULL)
                      AND (usage_bytes IS NULL OR cost IS NOT NULL)
                    GROUP BY 1, 2, 3""",
            )
        ),
        """CREATE TABLE rates (rate_id INTEGER NOT NULL, kind VARCHAR NOT NULL, part VARCHAR NOT NULL, price VARCHAR,
            unit VARCHAR, provider VARCHAR, free VARCHAR, above BIGINT, book_id VARCHAR)""",
        """CREATE TABLE level_rates (organization_id VARCHAR NOT NULL, since TIMESTAMP NOT NULL,
            rate_id INTEGER NOT NULL)""",
        # What was held before there were prices has none, until it is rated again.
        f"""INSERT INTO level_rates SELECT DISTINCT organization_id, make_timestamp(0), {UNPRICED}
            FROM levels JOIN series USING (series_id)""",
        """CREATE TABLE reratings (arrival BIGINT NOT NULL, rerating_id VARCHAR NOT NULL,
            organization_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, "day" TIMESTAMP NOT NULL,
            book_id VARCHAR NOT NULL, events BIGINT NOT NULL, amount_before HUGEINT NOT NULL,
            amount_after HUGEINT NOT NULL)""",
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
