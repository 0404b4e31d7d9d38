"""A query as SQL. Values are always bound; names come from the table of kinds only."""

from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

import duckdb

from tallybook.kinds import DIMENSIONS, UsageKind
from tallybook.query import Query
from tallybook.store.plan import Segment, cover
from tallybook.store.protocol import Kept
from tallybook.store.retention import too_fine
from tallybook.store.rollups import able, folded
from tallybook.timegrid import ALL_S, DAY_S, HOUR_S, MINUTE_S, buckets, floor_s


class Statement(NamedTuple):
    """SQL text and the values of its parameters."""

    sql: str
    values: dict[str, object]


class Snapshot:
    """Runs statements; all see the store as it was at one instant.

    Args:
        connection: within a transaction.
        written_lot: no event that an answer has to know of is of a later lot.
        kept: tells what is kept; nothing is deleted before it does.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, written_lot: int, kept: Callable[[], Kept] = Kept
    ) -> None:
        self._connection = connection
        self.folded = folded(connection)
        self.kept = kept()  # now that the instant is fixed: whatever is missing as of that is known here
        self.has_rest = written_lot > self.folded.lot
        """Whether there may be events that are in no rollup yet."""

    def __call__(self, sql: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return self._connection.execute(sql, values).fetchall()


def usage_statement(kind: UsageKind, query: Query, snapshot: Snapshot, *, wide: bool = False) -> Statement:
    """Return the statement that answers a query.

    Its rows: start of the bucket in Unix seconds, the query's dimensions, the kind's measures; ordered by bucket and
    dimensions; at most one more than the query allows, so that too large an answer is seen.

    Args:
        kind: which kind of usage.
        query: the question.
        snapshot: what it is asked of.
        wide: sums may have 128 bits. Otherwise a sum beyond 64 is NULL; such rows are fetched four times as fast.

    Raises:
        InvalidRequest: it would need what is no longer kept.
    """
    total = "sum({})" if wide else "try_cast(sum({}) AS BIGINT)"
    return _levels(kind, query, total) if kind.is_level else _flows(kind, query, snapshot, total)


def _flows(kind: UsageKind, query: Query, snapshot: Snapshot, total: str) -> Statement:
    selection, values = _selection(kind, query)
    measures = kind.measures
    cells, window = cells_of(query, measures, {*query.group_by, *query.filters}, Statement(selection, values), snapshot)
    values |= window
    edge, start = bucket_of(query)
    columns = [f"{start} AS start_s"]
    columns += [f"series.{name}" for name in query.group_by]
    columns += [f"{total.format(name)} AS {name}" for name in measures]
    return Statement(
        f"SELECT {', '.join(columns)}\n"
        f"FROM (\n{cells}\n) AS cells JOIN series USING (series_id)\n"
        f"WHERE {selection}\n"
        f"GROUP BY {', '.join([edge, *_numbers(2, len(query.group_by))])}\n"
        f"ORDER BY {_order(1 + len(query.group_by))}\n"
        f"LIMIT {query.rows_max + 1}",
        values,
    )


_UNITS: Final = {MINUTE_S: "minute", HOUR_S: "hour", DAY_S: "day"}


def bucket_of(query: Query) -> tuple[str, str]:
    """Return SQL for the edge of the grid before an instant, to group by, and for the start of its bucket in seconds.

    The start must be the first column.

    Grouping by the edge itself spares the arithmetic for every row.
    """
    if query.width_s == ALL_S:
        return "1", "$window_s::BIGINT"  # the first column
    edge = f"date_trunc('{_UNITS[query.width_s]}', instant)"
    return edge, f"greatest(epoch_ms({edge}) // 1000, $window_s)"


def cells_of(
    query: Query, columns: tuple[str, ...], dimensions: Collection[str], selection: Statement, snapshot: Snapshot
) -> tuple[str, dict[str, object]]:
    """Return SQL for the cells of a query's window, with ``instant``, ``series_id`` and columns, and its values.

    Args:
        query: the question.
        columns: what is wanted of each cell.
        dimensions: what cells must be told apart by.
        selection: the condition on series that are asked for.
        snapshot: what it is asked of.

    Raises:
        InvalidRequest: something was used that would have to be read from events no longer kept.
    """
    end_s = query.end_s
    if end_s * 1000 > snapshot.folded.latest_ms:  # all there is comes before it: the last cell may be read whole
        end_s = -floor_s(-end_s, min(query.width_s, DAY_S))
    segments = [
        _still_there(_within(segment, query), selection, snapshot)
        for segment in cover(query.start_s, end_s, able(dimensions, query.width_s), snapshot.kept)
    ]
    values: dict[str, object] = {"window_s": query.start_s}
    cells = [_cells(segment, number, columns, values) for number, segment in enumerate(segments)]
    rolled_up = [segment for segment in segments if segment.table != "facts"]
    if rolled_up and snapshot.has_rest:
        start_s = min(segment.start_s for segment in rolled_up)
        end_s = min(query.end_s, max(segment.end_s for segment in rolled_up))
        rest = _cells(Segment("facts", start_s, end_s), len(cells), columns, values)
        cells.append(f"{rest} AND lot > $folded_lot")
        values["folded_lot"] = snapshot.folded.lot
    return "\nUNION ALL\n".join(cells), values


def _within(segment: Segment, query: Query) -> Segment:
    """Return a segment without what follows the window: among events there may be some that are in no rollup yet."""
    return segment._replace(end_s=min(segment.end_s, query.end_s)) if segment.table == "facts" else segment


def _still_there(segment: Segment, selection: Statement, snapshot: Snapshot) -> Segment:
    """Return what of a segment is kept, where nothing was used in the rest: sums by day tell that for all time."""
    lost_s = min(segment.end_s, snapshot.kept.events_s)
    if segment.table != "facts" or segment.start_s >= lost_s:
        return segment
    used = snapshot(
        f"""SELECT 1 FROM (
  SELECT start AS instant, series_id FROM usage_days UNION ALL SELECT "timestamp" AS instant, series_id FROM events
) AS used JOIN series USING (series_id)
WHERE {selection.sql} AND instant >= date_trunc('day', make_timestamp($from_s::BIGINT * 1000000))
  AND instant < make_timestamp($lost_s::BIGINT * 1000000) LIMIT 1""",
        selection.values | {"from_s": segment.start_s, "lost_s": lost_s},
    )
    if used:
        raise too_fine(snapshot.kept)
    return segment._replace(start_s=lost_s)


def _cells(segment: Segment, number: int, measures: tuple[str, ...], values: dict[str, object]) -> str:
    instant = '"timestamp"' if segment.table == "facts" else "start"
    values |= {f"from_{number}": segment.start_s, f"to_{number}": segment.end_s}
    return (
        f"SELECT {instant} AS instant, series_id, {', '.join(measures)} FROM {segment.table} "
        f"WHERE {instant} >= make_timestamp($from_{number}::BIGINT * 1000000) "
        f"AND {instant} < make_timestamp($to_{number}::BIGINT * 1000000)"
    )


def _levels(kind: UsageKind, query: Query, total: str) -> Statement:
    """A level holds from its report to the store's next one; a bucket has its mean over the elapsed part.

    The mean is rounded for each store before stores are added up, so that the groups of any grouping add up to the
    total exactly. Of two reports at the same instant the larger holds.
    """
    selection, values = _selection(kind, query)
    end_s = min(query.end_s, query.now_s)
    edges = buckets(query.start_s, end_s, query.width_s, limit=2 + (end_s - query.start_s) // query.width_s)
    values |= {
        "starts": [start for start, _ in edges],
        "ends": [end for _, end in edges],
        "organization_id": query.organization_id,
        "until_s": edges[-1][1] if edges else query.start_s,
    }
    groups = "".join(f", {name}" for name in query.group_by)
    return Statement(
        f"""WITH reports AS (
  SELECT epoch_ms("timestamp") AS from_ms, usage_bytes, organization_id, kind, project_id, vector_store_id
  FROM levels JOIN series USING (series_id)
  WHERE organization_id = $organization_id AND "timestamp" < make_timestamp($until_s::BIGINT * 1000000)
  QUALIFY row_number() OVER (PARTITION BY vector_store_id, "timestamp" ORDER BY usage_bytes DESC, project_id) = 1
), held AS (
  SELECT *, lead(from_ms, 1, $until_s::BIGINT * 1000) OVER (PARTITION BY vector_store_id ORDER BY from_ms) AS to_ms
  FROM reports
), buckets AS (
  SELECT unnest($starts::BIGINT[]) AS start_s, unnest($ends::BIGINT[]) AS end_s
), stores AS (
  SELECT start_s, vector_store_id, project_id{groups.replace(", project_id", "")},
    sum(usage_bytes::HUGEINT * (least(to_ms, end_s * 1000) - greatest(from_ms, start_s * 1000))) AS byte_ms,
    any_value(end_s - start_s)::HUGEINT * 1000 AS length_ms
  FROM held AS series JOIN buckets ON from_ms < end_s * 1000 AND to_ms > start_s * 1000
  WHERE usage_bytes > 0 AND {selection}
  GROUP BY ALL
)
SELECT start_s{groups}, {total.format("(2 * byte_ms + length_ms) // (2 * length_ms)")} AS usage_bytes
FROM stores
GROUP BY {", ".join(_numbers(1, 1 + len(query.group_by)))}
ORDER BY {_order(1 + len(query.group_by))}
LIMIT {query.rows_max + 1}""",
        values,
    )


def _selection(kind: UsageKind, query: Query) -> tuple[str, dict[str, object]]:
    """The condition on series: of this organization and kind, and what the filters ask."""
    conditions = ["series.organization_id = $organization_id", "series.kind = $kind"]
    values: dict[str, object] = {"organization_id": query.organization_id, "kind": kind.name}
    for name, allowed in query.filters.items():
        conditions.append(f"series.{DIMENSIONS[name].name} IN (SELECT unnest($only_{name}))")
        values[f"only_{name}"] = list(allowed)
    return " AND ".join(conditions), values


def _numbers(first: int, count: int) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def _order(count: int) -> str:
    return ", ".join(f"{number} NULLS LAST" for number in range(1, count + 1))
