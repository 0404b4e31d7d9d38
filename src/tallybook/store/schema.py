"""The tables of the embedded store, and how an older store becomes a current one.

    series       one row for each combination of dimensions that occurred: who, what, how
    events       one row an event: id, timestamp, series, measures
    facts        a view of events with all measures: what follows from others is not stored
    usage_hours  sums by series and hour; several rows of one cell add up (see `maintenance.compact`)
    usage_days   the same by day
    project_hours, project_days   the same without users, keys and vector stores
    organization_minutes          the same by minute, without projects as well
    rolled_up    how far rollups go: events of later lots are not in them yet (see `tallybook.store.rollups`)
    kept         since when single events, and sums by minute and hour, are kept (see `tallybook.store.retention`)
    levels       reports of a level (vector stores): they hold until the next, so they do not add up
    rates        what events are charged by: one row for each part that has a price; never changed
    level_rates  which rate holds for levels from an instant on, by organization
    reratings    days whose charges were changed afterwards: when, by which book, by how much
    past_calls   calls that were deleted for their age, for as long as a late report of one is to be recognised
    quarantine   events that could not be kept, as they were sent
    notices      what senders do that their operator should know of (see `tallybook.store.notices`)
    readings     days that were read of a provider's book, and when (see `tallybook.store.readings`)
    billed_usage   what a provider says was used, by day, kind, project and model
    billed_costs   what it says that cost, by day, project and line item; amounts as text, with all their digits

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
from tallybook.store.rollups import ROLLUPS, sums
from tallybook.store.series import GRAINS
from tallybook.tokens import DERIVED

_ADDED: Final = ("quality", "inference_geo")
"""Dimensions that came with later versions."""
_ADDED_SINCE_GRAINS: Final = ("inference_geo",)
"""Those of them that came after coarser series were made of the finer ones."""
_DIMENSION_COLUMNS: Final = ", ".join(
    f"{name} {'BOOLEAN' if name == 'batch' else 'VARCHAR'}" for name in DIMENSIONS if name not in _ADDED
)
# 64 bits: reading wider sums takes half as long again. What does not fit stays in several rows, which add up.
_FLOW_COLUMNS: Final = ", ".join(f"{name} BIGINT" for name in FLOWS)
_MEASURE_COLUMNS: Final = ", ".join(f"{name} BIGINT" for name in MEASURES)

_PARTS: Final = {
    name: " ".join(f"{'+' if sign > 0 else '-'} {other}" for other, sign in terms.items()).removeprefix("+ ")
    for name, terms in DERIVED.items()
}
_FACTS: Final = ", ".join(f"coalesce({name}, {terms}) AS {name}" for name, terms in _PARTS.items())


def _coarser(grain: str) -> tuple[str, ...]:
    """Statements that make the series of a coarser grain, and let each series name its own."""
    lacking = GRAINS[grain]
    kept = [name for name in DIMENSIONS if name not in lacking and name not in _ADDED_SINCE_GRAINS]
    same = " AND ".join(f"coarse.{name} IS NOT DISTINCT FROM fine.{name}" for name in kept)
    none = " AND ".join(f"coarse.{name} IS NULL" for name in sorted(lacking))
    is_it = f"coarse.organization_id = fine.organization_id AND coarse.kind = fine.kind AND {same} AND {none}"
    return (
        f"""INSERT INTO series BY NAME
            SELECT (SELECT max(series_id) FROM series) + row_number() OVER () AS series_id, *
            FROM (SELECT DISTINCT organization_id, kind, {", ".join(kept)} FROM series) AS fine
            WHERE NOT EXISTS (SELECT 1 FROM series AS coarse WHERE {is_it})""",
        f"""UPDATE series SET {grain} = coarse.series_id FROM series AS fine, series AS coarse
            WHERE series.series_id = fine.series_id AND {is_it}""",
    )


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
        # Made anew from the events: of two reports that say the same at one instant, only one may have a cost.
        "DELETE FROM levels",
        """INSERT INTO levels BY NAME
           SELECT "timestamp", series_id, usage_bytes, amount FROM events WHERE usage_bytes IS NOT NULL""",
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
    (
        "ALTER TABLE events ADD COLUMN lot INTEGER DEFAULT 0",
        f"CREATE VIEW facts AS SELECT * REPLACE ({_FACTS}), rowid AS row_number FROM events",
        *(f"ALTER TABLE series ADD COLUMN {grain} INTEGER" for grain in GRAINS if grain != "series_id"),
        *(statement for grain in GRAINS if grain != "series_id" for statement in _coarser(grain)),
        *(
            f"""CREATE TABLE {rollup.table} (start TIMESTAMP NOT NULL, series_id INTEGER NOT NULL, {_FLOW_COLUMNS},
                rate_id INTEGER, amount HUGEINT)"""
            for rollup in ROLLUPS
            if rollup.grain != "series_id"
        ),
        *(
            f"INSERT INTO {rollup.table} BY NAME {sums(rollup, 'true')}"
            for rollup in ROLLUPS
            if rollup.grain != "series_id"
        ),
        """CREATE TABLE rolled_up AS
           SELECT 0::INTEGER AS lot, coalesce(max("timestamp"), make_timestamp(0)) AS latest FROM events""",
    ),
    (
        """CREATE TABLE kept AS
           SELECT make_timestamp(0) AS events, make_timestamp(0) AS minutes, make_timestamp(0) AS hours""",
    ),
    (
        "ALTER TABLE quarantine ADD COLUMN dialect VARCHAR",
        "ALTER TABLE events ADD COLUMN dialect VARCHAR",
        "DROP VIEW facts",
        f"CREATE VIEW facts AS SELECT * REPLACE ({_FACTS}), rowid AS row_number FROM events",
        """CREATE TABLE readings (organization_id VARCHAR NOT NULL, provider VARCHAR NOT NULL, "day" TIMESTAMP NOT NULL,
            read_at TIMESTAMP NOT NULL)""",
        f"""CREATE TABLE billed_usage (organization_id VARCHAR NOT NULL, provider VARCHAR NOT NULL,
            "day" TIMESTAMP NOT NULL, kind VARCHAR NOT NULL, project_id VARCHAR, model VARCHAR, {_FLOW_COLUMNS})""",
        """CREATE TABLE billed_costs (organization_id VARCHAR NOT NULL, provider VARCHAR NOT NULL,
            "day" TIMESTAMP NOT NULL, project_id VARCHAR, line_item VARCHAR, quantity VARCHAR,
            amount VARCHAR NOT NULL)""",
    ),
    (
        "ALTER TABLE events ADD COLUMN call UBIGINT",
        # The sources that report calls as of this version, and ids that are none's own. See `tallybook.store.calls`.
        """UPDATE events SET call = md5_number_lower(organization_id || chr(0) || kind || chr(0) || id)
           FROM series WHERE series.series_id = events.series_id AND id IS NOT NULL
             AND dialect IN ('litellm', 'openai', 'anthropic', 'otlp')
             AND kind NOT IN ('vector_stores', 'code_interpreter_sessions')
             AND NOT regexp_full_match(id, '(chatcmpl-|cmpl-|resp_)(0|[1-9][0-9]{0,2})?')""",
        "DROP VIEW facts",
        f"CREATE VIEW facts AS SELECT * REPLACE ({_FACTS}), rowid AS row_number FROM events",
        """CREATE TABLE past_calls (organization_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, id VARCHAR NOT NULL,
            call UBIGINT NOT NULL, "timestamp" TIMESTAMP NOT NULL)""",
        """CREATE TABLE notices (organization_id VARCHAR NOT NULL, subject VARCHAR NOT NULL, source VARCHAR NOT NULL,
            name VARCHAR NOT NULL, count BIGINT NOT NULL, last_at TIMESTAMP NOT NULL, example VARCHAR)""",
        "ALTER TABLE series ADD COLUMN inference_geo VARCHAR",
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
