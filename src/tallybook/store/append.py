"""One commit: batches become events, rollups and quarantine in a single transaction, each event once.

Identity is found by a join of the batch with the stored events of its own time range. There is no index to keep and
none to outgrow memory: the store's zone maps leave only the part of the events that can match.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import count, repeat
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tallybook.event import Record
from tallybook.kinds import DIMENSIONS, FLOWS, KINDS, MEASURES
from tallybook.store import level_rates
from tallybook.store.protocol import Batch, Conflict, Outcome, Quarantined
from tallybook.store.rates import Charge, Rater
from tallybook.store.series import SeriesIndex

_INSTANT: Final = pa.timestamp("us")
_SUM_MAX: Final = 2**63 - 1
_COST: Final = pa.decimal128(38, 18)
_AMOUNT: Final = pa.decimal128(38, 0)


Item = tuple[int, int, str, Record]
"""A record on its way in: number of its batch, its position there, whose it is, the record."""


def append(
    connection: duckdb.DuckDBPyConnection, series: SeriesIndex, rater: Rater, batches: Sequence[Batch]
) -> list[Outcome]:
    """Write batches within the connection's open transaction.

    Returns:
        One outcome a batch, in order.
    """
    outcomes = [Outcome() for _ in batches]
    items: list[Item] = []
    for number, batch in enumerate(batches):
        items += zip(repeat(number), count(), repeat(batch.organization_id), batch.records)
    if any(batch.released for batch in batches):
        items = _without_released(connection, items, batches, outcomes)
    # What is stored stands before anything that is sent: only among the rest does the first sent stand.
    fresh = _without_stored(connection, items, outcomes)
    fresh = _without_repeats(fresh, outcomes)
    accepted = Counter((number, record.kind.name) for number, _, _, record in fresh)
    for (number, kind_name), events in accepted.items():
        outcomes[number].accepted[kind_name] = events
    if fresh:
        _insert(connection, series, rater, fresh, outcomes)
    for batch, outcome in zip(batches, outcomes, strict=True):
        _release_quarantined(connection, batch, outcome)
        _keep_quarantined(connection, batch)
    return outcomes


def _without_released(
    connection: duckdb.DuckDBPyConnection, items: list[Item], batches: Sequence[Batch], outcomes: list[Outcome]
) -> list[Item]:
    """Drop records of quarantined events that another request has replayed meanwhile."""
    names = [name for batch in batches for name in batch.released]
    rows = connection.execute(
        "SELECT organization_id, quarantine_id FROM quarantine WHERE quarantine_id IN (SELECT unnest(?))", [names]
    ).fetchall()
    waiting = set(rows)
    kept = []
    for item in items:
        number, position, organization_id, record = item
        if batches[number].released:
            entry = (organization_id, batches[number].released[position])
            if entry not in waiting:
                outcomes[number].duplicates[record.kind.name] += 1
                continue
            waiting.remove(entry)
        kept.append(item)
    return kept


def _without_repeats(items: list[Item], outcomes: list[Outcome]) -> list[Item]:
    """Drop what occurs twice among the items themselves; the first stands."""
    identities = [(item[2], item[3].identity) for item in items if item[3].identity]
    if len(set(identities)) == len(identities):
        return items
    first: dict[tuple[str, object], Record] = {}
    kept = []
    for item in items:
        _, _, organization_id, record = item
        if record.identity:
            stands = first.setdefault((organization_id, record.identity), record)
            if stands is not record:
                _count_repeat(outcomes, item, stands)
                continue
        kept.append(item)
    return kept


def _without_stored(connection: duckdb.DuckDBPyConnection, items: list[Item], outcomes: list[Outcome]) -> list[Item]:
    """Drop what the store has already."""
    numbers = [number for number, item in enumerate(items) if item[3].identity]
    if not numbers:
        return items
    records = [items[number][3] for number in numbers]
    instants = [record.timestamp_ms for record in records]
    connection.register(
        "incoming",
        pa.table(
            {
                "number": pa.array(numbers, pa.int32()),
                "id": pa.array([record.id for record in records], pa.string()),
                "timestamp": _instants(instants),
            }
        ),
    )
    match = """incoming
        JOIN (SELECT * FROM events WHERE "timestamp" BETWEEN make_timestamp(?) AND make_timestamp(?)) AS events
          ON events.id = incoming.id AND events."timestamp" = incoming."timestamp" AND events.has_identity"""
    window = [min(instants) * 1000, max(instants) * 1000]
    stored = []
    # Nearly always nothing matches, and asking for one column is planned in half the time of asking for all.
    if connection.execute(f"SELECT number FROM {match} LIMIT 1", window).fetchone():
        stored = connection.execute(
            f"""SELECT number, organization_id, kind, {", ".join(DIMENSIONS)}, {", ".join(MEASURES)}, cost
                FROM {match} JOIN series ON series.series_id = events.series_id""",
            window,
        ).fetchall()
    connection.unregister("incoming")
    taken = set()
    for number, organization_id, kind_name, *values in stored:
        item = items[number]
        if number in taken or (organization_id, kind_name) != (item[2], item[3].kind.name):
            continue
        taken.add(number)
        _count_repeat(outcomes, item, _stored_record(item[3], values))
    return [item for number, item in enumerate(items) if number not in taken] if taken else items


def _stored_record(like: Record, values: list[Any]) -> Record:
    dimensions = dict(zip(DIMENSIONS, values, strict=False))
    measures = dict(zip(MEASURES, values[len(DIMENSIONS) :], strict=False))
    return like._replace(
        dimensions=tuple(dimensions[name] for name in like.kind.dimensions),
        measures=tuple(measures[name] for name in like.kind.measures),
        cost=values[-1],
    )


def _count_repeat(outcomes: list[Outcome], item: Item, stands: Record) -> None:
    number, position, _, sent = item
    kind = sent.kind
    if stands.dimensions == sent.dimensions and stands.measures == sent.measures and stands.cost == sent.cost:
        outcomes[number].duplicates[kind.name] += 1
        return
    fields = (*kind.dimensions, *kind.measures, "cost")
    pairs = zip(
        fields,
        (*stands.dimensions, *stands.measures, stands.cost),
        (*sent.dimensions, *sent.measures, sent.cost),
        strict=True,
    )
    field, stored, value = next(pair for pair in pairs if pair[1] != pair[2])
    outcomes[number].conflicts.append(Conflict(position, kind.name, field, stored, value))


def _insert(
    connection: duckdb.DuckDBPyConnection,
    series: SeriesIndex,
    rater: Rater,
    items: list[Item],
    outcomes: list[Outcome],
) -> None:
    keys = [(organization_id, record.kind.name, record.dimensions) for _, _, organization_id, record in items]
    numbers = series.numbers(connection, keys)
    by_kind: dict[str, list[tuple[Item, int]]] = {}
    for item, key in zip(items, keys, strict=True):
        by_kind.setdefault(key[1], []).append((item, numbers[key]))
    flows: list[pa.Table] = []
    levels: list[pa.Table] = []
    for name, rows in by_kind.items():
        records, series_ids = [item[3] for item, _ in rows], [number for _, number in rows]
        charges = rater.charge(records, series_ids)
        for (item, _), charge in zip(rows, charges, strict=True):
            if charge.is_unpriced:
                outcomes[item[0]].unpriced[name] += 1
        (levels if KINDS[name].is_level else flows).append(_table(records, series_ids, charges))
    if levels:
        level_rates.begin(connection, rater.index, rater.book, {item[2] for item in items if item[3].kind.is_level})
    for tables, roll_up in ((flows, _roll_up), (levels, _keep_levels)):
        if tables:
            fresh = pa.concat_tables(tables, promote_options="default")
            connection.register("fresh", fresh)
            connection.execute("INSERT INTO events BY NAME SELECT * FROM fresh")
            roll_up(connection, fresh)
            connection.unregister("fresh")


def _table(records: list[Record], series_ids: list[int], charges: list[Charge]) -> pa.Table:
    """The records of one kind as columns, only those the kind has."""
    columns = {
        "id": pa.array([record.id for record in records], pa.string()),
        "timestamp": _instants([record.timestamp_ms for record in records]),
        "has_identity": pa.array([record.identity is not None for record in records], pa.bool_()),
        "series_id": pa.array(series_ids, pa.int32()),
        "rate_id": pa.array([charge.rate_id for charge in charges], pa.int32()),
    }
    counts = zip(*(record.measures for record in records), strict=True)
    for name, column in zip(records[0].kind.measures, counts, strict=True):
        columns[name] = pa.array(column, pa.int64())
    if any(record.cost is not None for record in records):
        columns["cost"] = pa.array([record.cost for record in records], _COST)
    if any(charge.amount is not None for charge in charges):
        columns["amount"] = pa.array([charge.amount for charge in charges], _AMOUNT)
    return pa.table(columns)


def _instants(instants_ms: list[int]) -> "pa.Array[Any]":
    return pa.array(instants_ms, pa.timestamp("ms")).cast(_INSTANT)


def _roll_up(connection: duckdb.DuckDBPyConnection, fresh: pa.Table, condition: str = "") -> None:
    measures = [name for name in fresh.column_names if name in FLOWS]
    # Rows of one cell add up, so events whose sums might pass 64 bits are simply left in rows of their own.
    fits = all((pc.max(fresh[name]).as_py() or 0) * fresh.num_rows <= _SUM_MAX for name in measures)
    summed = [name for name in fresh.column_names if name in FLOWS or name == "amount"]
    sums = ", ".join(f"sum({name}) AS {name}" if fits else name for name in summed)
    group = "GROUP BY 1, 2, 3" if fits else ""
    for table, cell in (("usage_hours", "hour"), ("usage_days", "day")):
        connection.execute(
            f"""INSERT INTO {table} BY NAME
                SELECT date_trunc('{cell}', "timestamp") AS start, series_id, rate_id, {sums} FROM fresh
                {condition} {group}"""
        )


def _keep_levels(connection: duckdb.DuckDBPyConnection, fresh: pa.Table) -> None:
    amount = "amount" if "amount" in fresh.column_names else "NULL AS amount"
    connection.execute(
        f"""INSERT INTO levels BY NAME SELECT "timestamp", series_id, usage_bytes, {amount} FROM fresh"""
    )
    if "amount" in fresh.column_names:  # what a producer says a report cost is a flow like any other
        _roll_up(connection, fresh, "WHERE amount IS NOT NULL")


def _release_quarantined(connection: duckdb.DuckDBPyConnection, batch: Batch, outcome: Outcome) -> None:
    staying = {conflict.position for conflict in outcome.conflicts}
    leaving = [name for position, name in enumerate(batch.released) if position not in staying]
    if leaving:
        connection.execute(
            "DELETE FROM quarantine WHERE organization_id = ? AND quarantine_id IN (SELECT unnest(?))",
            [batch.organization_id, leaving],
        )


def _keep_quarantined(connection: duckdb.DuckDBPyConnection, batch: Batch) -> None:
    if batch.quarantined:
        connection.register("bad", _quarantine_table(batch.organization_id, batch.quarantined))
        connection.execute(
            """INSERT INTO quarantine BY NAME
               SELECT * REPLACE (arrival + (SELECT coalesce(max(arrival), 0) FROM quarantine) AS arrival) FROM bad
               WHERE NOT EXISTS (SELECT 1 FROM quarantine AS known
                 WHERE known.organization_id = bad.organization_id AND known.quarantine_id = bad.quarantine_id)"""
        )
        connection.unregister("bad")


def _quarantine_table(organization_id: str, entries: Sequence[Quarantined]) -> pa.Table:
    unique = {entry.quarantine_id: entry for entry in entries}.values()
    return pa.table(
        {
            "arrival": pa.array(range(1, len(unique) + 1), pa.int64()),
            "quarantine_id": pa.array([entry.quarantine_id for entry in unique], pa.string()),
            "organization_id": pa.array([organization_id] * len(unique), pa.string()),
            "created_at": _instants([entry.created_at_s * 1000 for entry in unique]),
            "event": pa.array([entry.event for entry in unique], pa.binary()),
            "faults": pa.array([msgspec.json.encode(entry.faults).decode() for entry in unique], pa.string()),
        }
    )
