"""Which sources sent events, and whether two of them report the same call."""

from typing import Any, Final

import duckdb

from tallybook.sources.record import is_unique_id
from tallybook.store.protocol import Repeated, SourceFacts

_OURS: Final = "events"
"""What events of ours are called among sources."""
_NAMED_MAX: Final = 10
_READ_MAX: Final = 2_000
"""Twice as many as there are ids of the servers that use theirs again, which are left out."""
_WITHOUT_OWN_INSTANT: Final = "('code_interpreter_sessions', 'vector_stores')"
"""Kinds whose ids name a thing that is used again and again."""
_FOUND: Final = f"""
    SELECT coalesce(dialect, '{_OURS}') AS source, kind, id, "timestamp", has_identity
    FROM events JOIN series USING (series_id)
    WHERE organization_id = $organization_id
      AND "timestamp" >= make_timestamp($start_s::BIGINT * 1000000)
      AND "timestamp" < make_timestamp($end_s::BIGINT * 1000000)"""


def sources(connection: duckdb.DuckDBPyConnection, organization_id: str, start_s: int, end_s: int) -> list[SourceFacts]:
    """Return what each source sent of a window, by source and kind.

    Args:
        connection: any.
        organization_id: whose.
        start_s: Unix seconds, inclusive.
        end_s: Unix seconds, exclusive.
    """
    rows = connection.execute(
        f"""SELECT source, kind, count(*), epoch_ms(min("timestamp")) // 1000, epoch_ms(max("timestamp")) // 1000
            FROM ({_FOUND}) GROUP BY ALL ORDER BY ALL""",
        _values(organization_id, start_s, end_s),
    ).fetchall()
    return [SourceFacts(*row) for row in rows]


def repeated(connection: duckdb.DuckDBPyConnection, organization_id: str, start_s: int, end_s: int) -> list[Repeated]:
    """Return ids that are stored more than once of one kind, at different instants, and not only as events of ours.

    Events of ours may use an id as often as they like. That of a response is there once, unless it came as an event of
    ours as well, or before calls were known by their ids. The first few are returned.
    """
    rows = connection.execute(
        f"""SELECT kind, id, count(*), list(DISTINCT source ORDER BY source)
            FROM ({_FOUND} AND has_identity AND kind NOT IN {_WITHOUT_OWN_INSTANT}) GROUP BY kind, id
            HAVING count(*) > 1 AND bool_or(source <> '{_OURS}') ORDER BY min("timestamp"), id LIMIT {_READ_MAX}""",
        _values(organization_id, start_s, end_s),
    ).fetchall()
    return [found for row in rows if is_unique_id((found := Repeated(*row)).id)][:_NAMED_MAX]


def _values(organization_id: str, start_s: int, end_s: int) -> dict[str, Any]:
    return {"organization_id": organization_id, "start_s": start_s, "end_s": end_s}
