"""One commit: batches become events and quarantine in a single transaction, each event once.

Whether an event is stored already is known of the latest ones (`tallybook.store.identities`). Otherwise it is found by
a join of the commit with the stored events of its own time range. There is no index to keep and none to outgrow
memory: the store's zone maps leave only the part of the events that can match.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from tallybook.columns import Columns, Integers, Truths, columns_of, derived
from tallybook.event import Record
from tallybook.kinds import DIMENSIONS, MEASURES
from tallybook.store import level_rates
from tallybook.store.calls import KnownCalls, new_calls, split
from tallybook.store.identities import RecentIdentities
from tallybook.store.protocol import Batch, Outcome, Quarantined
from tallybook.store.rates import Charges, Rater
from tallybook.store.series import Owner, SeriesIndex
from tallybook.store.share import Share, count_repeat
from tallybook.tokens import DERIVED

_INSTANT: Final = pa.timestamp("us")
_COST: Final = pa.decimal128(38, 18)
_AMOUNT: Final = pa.decimal128(38, 0)


class Appending:
    """Writes commits to a store.

    Args:
        connection: the writer's.
        series: numbers of series.
        recent: what is known of events stored lately.
        calls: what is known of calls.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, series: SeriesIndex, recent: RecentIdentities, calls: KnownCalls
    ) -> None:
        self._connection = connection
        self._series = series
        self._recent = recent
        self._calls = calls
        self._written: list[tuple[list[int], Integers]] = []
        self._called: list[Share] = []

    def append(self, rater: Rater, batches: Sequence[Batch], lot: int) -> list[Outcome]:
        """Write batches within the connection's open transaction.

        Call `settle` after the transaction has committed, `forget` after it was rolled back.

        Args:
            rater: what events are charged by.
            batches: what to write.
            lot: the lot that is open.

        Returns:
            One outcome a batch, in order.
        """
        outcomes = [Outcome() for _ in batches]
        dialects = [batch.dialect for batch in batches]
        sent = list(_shares(self._connection, batches, outcomes))
        shares = self._new([share for share in sent if share.calls is None], outcomes)
        calls = [share for share in sent if share.calls is not None]
        self._called = new_calls(self._connection, self._calls, calls, dialects, outcomes)
        shares += self._called
        for share in shares:
            for number, count in share.per_batch():
                outcomes[number].accepted[share.columns.kind.name] += count
        if shares:
            _insert(self._connection, self._series, rater, shares, outcomes, lot, dialects)
        for batch, outcome in zip(batches, outcomes, strict=True):
            _release_quarantined(self._connection, batch, outcome)
            _keep_quarantined(self._connection, batch)
        return outcomes

    def settle(self) -> None:
        """What was written is on disk: remember it."""
        self._series.settle()
        for digests, instants_ms in self._written:
            self._recent.add(digests, instants_ms)
        for share in self._called:
            if share.calls is not None:
                self._calls.add(share.calls, share.columns.timestamps_ms)
        self._written, self._called = [], []

    def forget(self) -> None:
        """The transaction is gone."""
        self._series.forget()
        self._written, self._called = [], []

    def _new(self, shares: list[Share], outcomes: list[Outcome]) -> list[Share]:
        """Return what neither is stored nor occurs twice."""
        known = [_digests(share) for share in shares]
        digests = list(chain.from_iterable(known_here for known_here, _ in known))
        instants = [instants_ms for _, instants_ms in known]
        if not self._recent.are_new(digests, np.concatenate(instants) if instants else np.empty(0, np.int64)):
            # What is stored stands before anything that is sent: only among the rest does the first sent stand.
            shares = _without_stored(self._connection, shares, outcomes)
            shares = _without_repeats(shares, outcomes)
            known = [_digests(share) for share in shares]
        self._written = known
        return shares


def _shares(
    connection: duckdb.DuckDBPyConnection, batches: Sequence[Batch], outcomes: list[Outcome]
) -> Iterator[Share]:
    """Yield the events of batches by organization and kind."""
    waiting = _waiting(connection, batches) if any(batch.released for batch in batches) else set()
    single: dict[tuple[str, str, bool], list[tuple[int, int, Record]]] = {}
    for number, batch in enumerate(batches):
        for columns in batch.columns:
            share = Share(batch.organization_id, np.full(len(columns), number, np.int64), columns)
            yield from split(share) if batch.reports_calls else (share,)
        own = {(batch.organization_id, name) for name in batch.released} & waiting
        waiting -= own
        for position, record in enumerate(batch.records):
            if batch.released and (batch.organization_id, batch.released[position]) not in own:
                outcomes[number].duplicates[record.kind.name] += 1  # another request has replayed it meanwhile
                continue
            owner = (batch.organization_id, record.kind.name, batch.reports_calls)
            single.setdefault(owner, []).append((number, position, record))
    for (organization_id, _, reports_calls), found in single.items():
        numbers, positions, records = zip(*found, strict=True)
        share = Share(organization_id, np.array(numbers, np.int64), columns_of(records, positions))
        yield from split(share) if reports_calls else (share,)


def _waiting(connection: duckdb.DuckDBPyConnection, batches: Sequence[Batch]) -> set[tuple[str, str]]:
    """Return organization and id of the entries to be released that are in quarantine."""
    names = [name for batch in batches for name in batch.released]
    rows = connection.execute(
        "SELECT organization_id, quarantine_id FROM quarantine WHERE quarantine_id IN (SELECT unnest(?))", [names]
    ).fetchall()
    return set(rows)


def _digests(share: Share) -> tuple[list[int], Integers]:
    """Return digests and timestamps of the events that have an identity."""
    columns = share.columns
    instants_ms = columns.timestamps_ms
    identities = zip(repeat(share.organization_id), repeat(columns.kind.name), columns.ids, instants_ms.tolist())
    digests = list(map(hash, identities))
    if columns.has_identity.all():
        return digests, instants_ms
    places = np.flatnonzero(columns.has_identity)
    return [digests[place] for place in places], instants_ms[places]


def _without_repeats(shares: list[Share], outcomes: list[Outcome]) -> list[Share]:
    """Drop what occurs twice among the events themselves; the first sent stands."""
    kept = [np.ones(len(share.columns), np.bool_) for share in shares]
    first: dict[tuple[str, object], Record] = {}
    items = (
        (number, position, place, row)
        for place, share in enumerate(shares)
        for row, (number, position) in enumerate(
            zip(share.batches.tolist(), share.columns.positions.tolist(), strict=True)
        )
    )
    for number, position, place, row in sorted(items):
        record = shares[place].columns.record(row)
        if record.identity:
            stands = first.setdefault((shares[place].organization_id, record.identity), record)
            if stands is not record:
                count_repeat(outcomes[number], position, record, stands)
                kept[place][row] = False
    return [share.only(here) for share, here in zip(shares, kept, strict=True) if here.any()]


def _without_stored(connection: duckdb.DuckDBPyConnection, shares: list[Share], outcomes: list[Outcome]) -> list[Share]:
    """Drop what the store has already."""
    sent = pa.concat_tables([_identities(place, share) for place, share in enumerate(shares)])
    if not sent.num_rows:
        return shares
    connection.register("incoming", sent)
    match = """incoming
        JOIN (SELECT * FROM {table} WHERE "timestamp" BETWEEN make_timestamp(?) AND make_timestamp(?)) AS events
          ON events.id = incoming.id AND events."timestamp" = incoming."timestamp" AND events.has_identity"""
    instants = np.concatenate([share.columns.timestamps_ms[share.columns.has_identity] for share in shares])
    window = [int(instants.min()) * 1000, int(instants.max()) * 1000]
    stored = []
    # Nearly always nothing matches, and asking for one column is planned in half the time of asking for all.
    if connection.execute(f"SELECT row FROM {match.format(table='events')} LIMIT 1", window).fetchone():
        stored = connection.execute(
            f"""SELECT share, row, organization_id, kind, {", ".join(DIMENSIONS)}, {", ".join(MEASURES)}, cost
                FROM {match.format(table="facts")} JOIN series ON series.series_id = events.series_id""",
            window,
        ).fetchall()
    connection.unregister("incoming")
    kept = [np.ones(len(share.columns), np.bool_) for share in shares]
    for place, row, organization_id, kind_name, *values in stored:
        share = shares[place]
        if kept[place][row] and share.owner == (organization_id, kind_name):
            kept[place][row] = False
            record = share.columns.record(row)
            number, position = int(share.batches[row]), int(share.columns.positions[row])
            count_repeat(outcomes[number], position, record, _stored_record(record, values))
    return [share.only(here) for share, here in zip(shares, kept, strict=True) if here.any()]


def _identities(place: int, share: Share) -> pa.Table:
    rows = np.flatnonzero(share.columns.has_identity).tolist()
    return pa.table(
        {
            "share": pa.array(np.full(len(rows), place), pa.int32()),
            "row": pa.array(rows, pa.int32()),
            "id": pa.array([share.columns.ids[row] for row in rows], pa.string()),
            "timestamp": _instants(share.columns.timestamps_ms[rows]),
        }
    )


def _stored_record(like: Record, values: list[Any]) -> Record:
    dimensions = dict(zip(DIMENSIONS, values, strict=False))
    measures = dict(zip(MEASURES, values[len(DIMENSIONS) :], strict=False))
    return like._replace(
        dimensions=tuple(dimensions[name] for name in like.kind.dimensions),
        measures=tuple(measures[name] for name in like.kind.measures),
        cost=values[-1],
    )


def _insert(
    connection: duckdb.DuckDBPyConnection,
    series: SeriesIndex,
    rater: Rater,
    shares: list[Share],
    outcomes: list[Outcome],
    lot: int,
    dialects: Sequence[str | None],
) -> None:
    wanted: dict[Owner, list[Any]] = {}
    for share in shares:
        wanted.setdefault(share.owner, []).extend(share.columns.dimensions)
    found = {owner: iter(numbers) for owner, numbers in series.numbers(connection, wanted).items()}
    charged: list[_Charged] = []
    for share in shares:
        columns = share.columns
        numbers = np.fromiter(found[share.owner], np.int64, len(columns))
        charges = rater.charge(columns, numbers)
        if charges.is_unpriced.any():
            for number, count in share.per_batch(charges.is_unpriced):
                outcomes[number].unpriced[columns.kind.name] += count
        charged.append(_Charged(columns, numbers, charges))
    # The engine finds it by its name. Registering it takes as long again as inserting a handful of events.
    fresh = _table(charged)
    if any(dialects):
        spoken = chain.from_iterable(share.batches.tolist() for share in shares)
        fresh = fresh.append_column("dialect", pa.array([dialects[number] for number in spoken], pa.string()))
    if any(share.calls is not None for share in shares):
        fresh = fresh.append_column("call", pa.concat_arrays([_call_column(share) for share in shares]))
    connection.execute(f"INSERT INTO events BY NAME SELECT *, {lot} AS lot FROM fresh")
    if levels := [each for each in charged if each.columns.kind.is_level]:
        holders = {share.organization_id for share in shares if share.columns.kind.is_level}
        level_rates.begin(connection, rater.index, rater.book, holders)
        fresh = _table(levels)
        amount = "amount" if "amount" in fresh.column_names else "NULL AS amount"
        connection.execute(
            f"""INSERT INTO levels BY NAME SELECT "timestamp", series_id, usage_bytes, {amount} FROM fresh"""
        )


def _call_column(share: Share) -> "pa.Array[Any]":
    return pa.nulls(len(share.columns), pa.uint64()) if share.calls is None else pa.array(share.calls, pa.uint64())


class _Charged(NamedTuple):
    """Events of one kind, the numbers of their series, and what they are charged by."""

    columns: Columns
    series: Integers
    charges: Charges


def _table(charged: list[_Charged]) -> pa.Table:
    """Events of several kinds as a table, with only the columns that any of them has."""
    all_columns = [columns for columns, _, _ in charged]
    table: dict[str, pa.Array[Any]] = {
        "id": pa.array(list(chain.from_iterable(columns.ids for columns in all_columns)), pa.string()),
        "timestamp": _instants(np.concatenate([columns.timestamps_ms for columns in all_columns])),
        "has_identity": pa.array(np.concatenate([columns.has_identity for columns in all_columns])),
        "series_id": pa.array(np.concatenate([series for _, series, _ in charged]), pa.int32()),
        "rate_id": pa.array(np.concatenate([charges.rate_ids for _, _, charges in charged]), pa.int32()),
    }
    for name in dict.fromkeys(chain.from_iterable(columns.kind.measures for columns in all_columns)):
        counts, absent = zip(*(_stored(columns, name) for columns in all_columns), strict=True)
        missing = np.concatenate(absent)
        if not missing.all():
            table[name] = pa.array(np.concatenate(counts), pa.int64(), mask=missing)
    if any(columns.costs for columns in all_columns):
        costs = (columns.costs or [None] * len(columns) for columns in all_columns)
        table["cost"] = pa.array(list(chain.from_iterable(costs)), _COST)
    if any(charges.amounts for _, _, charges in charged):
        amounts = (charges.amounts or [None] * len(columns) for columns, _, charges in charged)
        table["amount"] = pa.array(list(chain.from_iterable(amounts)), _AMOUNT)
    return pa.table(table)


def _stored(columns: Columns, name: str) -> tuple[Integers, Truths]:
    """The counts of a measure, and where there is nothing to store: the kind has none, or it follows from others."""
    measures = columns.kind.measures
    none = np.zeros(len(columns), np.int64)
    if name not in measures:
        return none, np.ones(len(columns), np.bool_)
    counts = columns.measures[measures.index(name)]
    if name not in DERIVED:
        return counts, none.astype(np.bool_)
    return counts, counts == derived(dict(zip(measures, columns.measures, strict=True)), name, none)


def _instants(instants_ms: Integers) -> "pa.Array[Any]":
    return pa.array(instants_ms * 1000, pa.int64()).view(_INSTANT)


def _release_quarantined(connection: duckdb.DuckDBPyConnection, batch: Batch, outcome: Outcome) -> None:
    # A call that stands already is counted, whatever its entry says of it: nothing is left to mend.
    conflicts = [conflict for conflict in outcome.conflicts if not conflict.is_call]
    staying = {batch.released[conflict.position] for conflict in conflicts} if batch.released else set()
    leaving = list(dict.fromkeys(name for name in batch.released if name not in staying))
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
            "created_at": _instants(np.array([entry.created_at_s * 1000 for entry in unique], np.int64)),
            "event": pa.array([entry.event for entry in unique], pa.binary()),
            "faults": pa.array([msgspec.json.encode(entry.faults).decode() for entry in unique], pa.string()),
            "dialect": pa.array([entry.dialect for entry in unique], pa.string()),
        }
    )
