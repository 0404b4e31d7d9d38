"""Notices: what senders do that their operator should know of, counted by organization, subject, source and name."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from tallybook.store.protocol import Notice

NAMES_MAX: Final = 1_000
"""Different names an organization may have; what comes beyond is counted together."""
OTHERS: Final = "(others)"
_DAYS: Final = 90
"""How long a notice is kept after it was last due."""
_COLUMNS: Final[dict[str, pa.DataType]] = {
    **dict.fromkeys(("organization_id", "subject", "source", "name", "example"), pa.string()),
    "count": pa.int64(),
    "last_at": pa.timestamp("us"),
}
_KEY: Final = "organization_id, subject, source, name"


def keep(connection: duckdb.DuckDBPyConnection, organization_id: str, notices: Sequence[Notice]) -> None:
    """Add notices of an organization to those that are kept, within the connection's open transaction."""
    known = {
        row[:3]
        for row in connection.execute(
            "SELECT subject, source, name FROM notices WHERE organization_id = ?", [organization_id]
        ).fetchall()
    }
    rows: list[dict[str, Any]] = []
    for notice in notices:
        row: dict[str, Any] = {"subject": notice.subject, "source": notice.source, "example": notice.example}
        row |= {"name": notice.name, "count": notice.times}
        name = (notice.subject, notice.source, notice.name)
        if name not in known and len(known) >= NAMES_MAX:
            row["name"] = OTHERS
        known.add((notice.subject, notice.source, row["name"]))
        last_at = datetime.fromtimestamp(notice.last_s, UTC).replace(tzinfo=None)
        rows.append(row | {"organization_id": organization_id, "last_at": last_at})
    connection.register("fresh_notices", pa.Table.from_pylist(rows, schema=pa.schema(_COLUMNS)))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE merged_notices AS
            SELECT {_KEY}, sum(count)::BIGINT AS count, max(last_at) AS last_at, arg_max(example, last_at) AS example
            FROM (SELECT * FROM notices WHERE organization_id = $organization_id UNION ALL BY NAME
                  SELECT * FROM fresh_notices)
            GROUP BY ALL HAVING max(last_at) > $since""",
        {"organization_id": organization_id, "since": _since(notices)},
    )
    connection.unregister("fresh_notices")
    connection.execute("DELETE FROM notices WHERE organization_id = ?", [organization_id])
    connection.execute("INSERT INTO notices BY NAME SELECT * FROM merged_notices")
    connection.execute("DROP TABLE merged_notices")


def _since(notices: Sequence[Notice]) -> datetime:
    latest_s = max(notice.last_s for notice in notices)
    return datetime.fromtimestamp(max(0, latest_s - _DAYS * 86_400), UTC).replace(tzinfo=None)


def notices_of(connection: duckdb.DuckDBPyConnection, organization_id: str, start_s: int) -> list[Notice]:
    """Return an organization's notices that were due since an instant, the latest first."""
    rows = connection.execute(
        """SELECT subject, source, name, count, epoch_ms(last_at) // 1000, example FROM notices
           WHERE organization_id = ? AND last_at >= make_timestamp(?::BIGINT)
           ORDER BY last_at DESC, subject, source, name""",
        [organization_id, start_s * 1_000_000],
    ).fetchall()
    return [Notice(*row) for row in rows]
