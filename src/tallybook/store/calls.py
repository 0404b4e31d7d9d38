"""Calls: what other software reports, each counted once, whoever reports it, in whatever order, and when.

A call is named by the id of the provider's response, within its organization and usage kind. The instant is not part
of that: a client, a gateway and a framework each look at their own clock. So the stretch of time a commit is of does
not say where the call may be stored, and every commit has to know of all calls that are.

`KnownCalls` does: it holds a number for each, 64 bits of a digest, which nearly always says that a call is new. Only a
number that is known is searched for in the store, and there the id itself is compared. What is deleted for its age
leaves its number behind for a while (`past_calls`), so that a late report of it does not count again.

Of the reports in one request the richest stands, completed by what only the others say of who made the call. Of reports
in several requests the first stands, and what a later one says otherwise is counted (`Outcome.repeats`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, repeat, starmap
from typing import Final, NamedTuple

import duckdb
import numpy as np

from tallybook.columns import Columns, Integers, Truths, columns_of, concatenated
from tallybook.event import Record
from tallybook.kinds import KINDS, MEASURES
from tallybook.sources.record import is_unique_id, turn_of
from tallybook.store.protocol import Conflict, Outcome
from tallybook.store.share import Digests, Share
from tallybook.tokens import DERIVED

RECENT_MAX: Final = 250_000
"""Calls of which the instant is known as well, so that they are found at once: about 25 MB."""
_READ_ROWS: Final = 1_000_000
_RUNS_RATIO: Final = 4
"""A run of numbers is merged into the one before it unless that is so many times as long: few runs to look at, and each
number is sorted a few times in its life."""


def digests(organization_id: str, kind: str, ids: Iterable[str | None]) -> Digests:
    """Return a number for each call: what SQL has as ``md5_number_lower(organization_id || chr(0) || kind ...)``."""
    begun = hashlib.md5(f"{organization_id}\0{kind}\0".encode(), usedforsecurity=False)
    parts = []
    for name in ids:
        whole = begun.copy()
        whole.update((name or "").encode(errors="surrogatepass"))
        parts.append(whole.digest())
    return np.frombuffer(b"".join(parts), "<u8")[1::2].astype(np.uint64)


def split(share: Share) -> Iterator[Share]:
    """Yield the calls among the events of a source that reports calls, and the other events as they are."""
    columns = share.columns
    are_calls = np.zeros(len(columns), np.bool_)
    if not columns.kind.reuses_ids:
        are_calls = np.fromiter(starmap(_is_call, zip(columns.ids, _models(columns), strict=True)), np.bool_)
    if not are_calls.all():
        yield share.only(~are_calls)
    if are_calls.any():
        called = share.only(are_calls)
        columns = replace(called.columns, has_identity=np.ones(len(called.columns), np.bool_))
        calls = digests(share.organization_id, columns.kind.name, map(_call_of, columns.ids))
        yield Share(share.organization_id, called.batches, columns, calls)


def _is_call(name: str | None, model: object) -> bool:
    return name is not None and is_unique_id(name, model)


def _models(columns: Columns) -> Iterable[object]:
    if "model" not in columns.kind.dimensions:
        return repeat(None, len(columns))
    place = columns.kind.dimensions.index("model")
    return (dimensions[place] for dimensions in columns.dimensions)


class KnownCalls:
    """Numbers of all calls that are stored. Memory: 8 bytes a call, and 25 MB."""

    def __init__(self, recent_max: int = RECENT_MAX) -> None:
        self.is_complete = False
        """Whether those stored before this one was made are among them; until then any call may be stored."""
        self._recent_max = recent_max
        self._recent: dict[int, int] = {}
        """The latest, in order, with the timestamp of each, Unix milliseconds."""
        self._runs: list[Digests] = []
        """The others, sorted, the longest first."""

    def complete(self, stored: Digests) -> None:
        """Take in what was stored before this one was made. Sort it first: that takes long."""
        self._runs.insert(0, stored)
        self._merge()
        self.is_complete = True

    def known(self, calls: Digests) -> Truths:
        """Return which calls may be stored: for certain none of the others is."""
        if not self.is_complete:
            return np.ones(len(calls), np.bool_)
        found = np.zeros(len(calls), np.bool_)
        names = calls.tolist()
        if not self._recent.keys().isdisjoint(names):
            found |= np.fromiter((name in self._recent for name in names), np.bool_, len(calls))
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, calls), len(run) - 1)
            found |= run[places] == calls
        return found

    def instants_ms(self, calls: Digests) -> list[int | None]:
        """Return the timestamps of calls that were stored lately, None for the others."""
        return [self._recent.get(name) for name in calls.tolist()]

    def add(self, calls: Digests, instants_ms: Integers) -> None:
        """Remember calls that are stored now."""
        self._recent.update(zip(calls.tolist(), instants_ms.tolist(), strict=True))
        if len(self._recent) > self._recent_max:
            older = list(self._recent)[: len(self._recent) - self._recent_max // 2]
            for name in older:
                del self._recent[name]
            self._runs.append(np.sort(np.array(older, np.uint64)))
            self._merge()

    def _merge(self) -> None:
        self._runs = [run for run in self._runs if len(run)]
        while len(self._runs) > 1 and len(self._runs[-2]) < _RUNS_RATIO * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]))


_Name = tuple[str, str, str]
"""What names a call: organization, kind and id."""


class _Stands(NamedTuple):
    """What stands of a call.

    Attributes:
        measures: its counts, None where it is deleted for its age.
        dialect: the source that reported it.
        is_turn: the event is the first of several turns, and not the whole call.
    """

    measures: tuple[int, ...] | None
    dialect: str | None
    is_turn: bool = False


def stored_calls(connection: duckdb.DuckDBPyConnection) -> Digests:
    """Return the numbers of all calls that are stored, and of those deleted of late, sorted."""
    found = connection.sql("SELECT call FROM events WHERE call IS NOT NULL UNION ALL SELECT call FROM past_calls")
    batches = [batch.column(0).to_numpy() for batch in found.to_arrow_reader(_READ_ROWS)]
    calls = np.concatenate(batches) if batches else np.empty(0, np.uint64)
    calls.sort()
    return calls


def new_calls(
    connection: duckdb.DuckDBPyConnection,
    known: KnownCalls,
    shares: Sequence[Share],
    dialects: Sequence[str | None],
    outcomes: Sequence[Outcome],
) -> list[Share]:
    """Return the calls that are not stored, each once; count the other reports.

    Args:
        connection: the writer's.
        known: numbers of what is stored.
        shares: reports of calls.
        dialects: what each batch came in.
        outcomes: of each batch.
    """
    if not shares:
        return []
    calls = np.concatenate([_calls(share) for share in shares])
    suspects = known.known(calls)
    if not suspects.any() and len(np.unique(calls)) == len(calls):
        return list(shares)
    stored = _find(connection, known, np.unique(calls[suspects]))
    return [_settled(share, stored, dialects, outcomes) for share in _joined(shares)]


def _calls(share: Share) -> Digests:
    assert share.calls is not None
    return share.calls


def _joined(shares: Sequence[Share]) -> Iterable[Share]:
    """Yield shares of one owner as one, so that reports of a call are side by side."""
    by_owner: dict[object, list[Share]] = {}
    for share in shares:
        by_owner.setdefault(share.owner, []).append(share)
    for found in by_owner.values():
        yield found[0] if len(found) == 1 else _concatenated(found)


def _concatenated(shares: Sequence[Share]) -> Share:
    return Share(
        shares[0].organization_id,
        np.concatenate([share.batches for share in shares]),
        concatenated([share.columns for share in shares]),
        np.concatenate([_calls(share) for share in shares]),
    )


def _settled(
    share: Share,
    stored: Mapping[_Name, _Stands],
    dialects: Sequence[str | None],
    outcomes: Sequence[Outcome],
) -> Share:
    """Return what is new of one owner."""
    columns = share.columns
    kind = columns.kind.name
    kept = np.ones(len(columns), np.bool_)
    changed: dict[int, Record] = {}
    standing = {name: stands for (*owner, name), stands in stored.items() if tuple(owner) == share.owner}
    numbers, positions, measures = share.batches.tolist(), columns.positions.tolist(), columns.measures.T.tolist()
    for name, rows in _repeated_rows(share, standing):
        stands = standing.get(name)
        for number, group in groupby(rows, numbers.__getitem__):
            same = list(group)
            row, record = same[0], None
            if len(same) > 1:
                row, record = _richest([(each, columns.record(each)) for each in same])
                kept[same] = False
                outcomes[number].duplicates[kind] += len(same) - 1
            kept[row] = stands is None
            counts = tuple(measures[row])
            if stands is not None:
                _count_report(outcomes[number], columns, (row, positions[row]), counts, stands, dialects[number])
                continue
            if record is not None:
                changed[row] = record
            stands = standing[name] = _Stands(counts, dialects[number], bool(turn_of(str(columns.ids[row]))))
    _drop_turns(share, kept, standing, outcomes)
    if changed:
        share = _with_records(share, changed)
    return share.only(kept)


def _drop_turns(share: Share, kept: Truths, standing: Mapping[str, _Stands], outcomes: Sequence[Outcome]) -> None:
    """Drop the later turns of calls that stand whole, since those have them all."""
    columns = share.columns
    for row, name in enumerate(columns.ids):
        turn = turn_of(name) if kept[row] and name and "#" in name else None
        stands = standing.get(turn[0]) if turn and turn[1] > 1 else None
        if stands is not None and not stands.is_turn:
            kept[row] = False
            outcomes[int(share.batches[row])].duplicates[columns.kind.name] += 1


def _repeated_rows(share: Share, standing: Mapping[str, _Stands]) -> Iterable[tuple[str, list[int]]]:
    """Yield the rows of each call that is stored or occurs more than once, in the order they were sent."""
    columns = share.columns
    order = np.lexsort((columns.positions, share.batches))
    rows_of: dict[str, list[int]] = {}
    for row in order.tolist():
        rows_of.setdefault(_call_of(columns.ids[row]), []).append(row)
    for name, rows in rows_of.items():
        if len(rows) > 1 or name in standing:
            yield name, rows


def _call_of(name: str | None) -> str:
    """Return what names the call of an event: the first of several turns names the whole, other ids themselves."""
    name = name or ""
    turn = turn_of(name) if "#" in name else None
    return turn[0] if turn and turn[1] == 1 else name


def _richest(reports: Sequence[tuple[int, Record]]) -> tuple[int, Record]:
    """Return which report of a call stands, and the event: who made the call may be known to another one only."""
    row, best = max(reports, key=lambda report: _richness(report[1]))
    dimensions = list(best.dimensions)
    for _, record in reports:
        for place, value in enumerate(record.dimensions):
            if dimensions[place] is None:
                dimensions[place] = value
    cost = next((record.cost for record in (best, *(each for _, each in reports)) if record.cost is not None), None)
    return row, best._replace(dimensions=tuple(dimensions), cost=cost)


def _richness(record: Record) -> tuple[int, int]:
    """Return by what reports are compared: how many parts they name, then how much there is of all."""
    given = [
        count
        for name, count in zip(record.kind.measures, record.measures, strict=True)
        if count and name not in DERIVED
    ]
    return len(given), sum(given)


def _count_report(
    outcome: Outcome,
    columns: Columns,
    place: tuple[int, int],
    counts: tuple[int, ...],
    stands: _Stands,
    dialect: str | None,
) -> None:
    """Count a report of a call that stands already.

    Who made the call, and under which name of the model, reports say each in their own way: only counts are a conflict.
    """
    row, position = place
    kind = columns.kind
    field = ""
    if stands.measures and stands.measures != counts:
        pairs = zip(kind.measures, stands.measures, counts, strict=True)
        differing = next(pair for pair in pairs if pair[1] != pair[2])
        field = differing[0]
        outcome.conflicts.append(Conflict(position, kind.name, *differing, is_call=True))
    else:
        outcome.duplicates[kind.name] += 1
    if stands.measures:
        outcome.repeats[dialect, stands.dialect, field] += 1
        outcome.repeated_id = columns.ids[row]


def _with_records(share: Share, changed: Mapping[int, Record]) -> Share:
    columns = share.columns
    rows = range(len(columns))
    records = [changed.get(row) or columns.record(row) for row in rows]
    return Share(share.organization_id, share.batches, columns_of(records, columns.positions.tolist()), share.calls)


def _find(connection: duckdb.DuckDBPyConnection, known: KnownCalls, calls: Digests) -> dict[_Name, _Stands]:
    """Return what stands of calls: those of late are looked for in their stretch of time, others everywhere."""
    if not len(calls):
        return {}
    instants = known.instants_ms(calls)
    near = [instant_ms for instant_ms in instants if instant_ms is not None]
    is_near = np.fromiter((instant_ms is not None for instant_ms in instants), np.bool_, len(calls))
    found: dict[_Name, _Stands] = {}
    if near:
        window = 'AND "timestamp" BETWEEN make_timestamp($first::BIGINT) AND make_timestamp($last::BIGINT)'
        bounds = {"first": min(near) * 1000, "last": max(near) * 1000}
        found |= _search(connection, calls[is_near], window, bounds)
    if not is_near.all():
        found |= _search(connection, calls[~is_near], "", {})
    if len(found) < len(calls):
        past = connection.execute(
            "SELECT organization_id, kind, id FROM past_calls WHERE call IN (SELECT unnest($calls))",
            {"calls": calls.tolist()},
        ).fetchall()
        found = {(owner, kind, _call_of(name)): _Stands(None, None) for owner, kind, name in past} | found
    return found


def _search(
    connection: duckdb.DuckDBPyConnection, calls: Digests, window: str, bounds: Mapping[str, int]
) -> dict[_Name, _Stands]:
    rows = connection.execute(
        f"""SELECT organization_id, kind, id, dialect, {", ".join(MEASURES)}
            FROM (SELECT * FROM facts WHERE call IN (SELECT unnest($calls)) {window}) AS facts
            JOIN series USING (series_id) ORDER BY lot DESC""",
        {"calls": calls.tolist(), **bounds},
    ).fetchall()  # of calls that were stored twice before they were known to be one, the first is the last here
    found = {}
    for owner, kind, name, dialect, *counts in rows:
        of_all = dict(zip(MEASURES, counts, strict=True))
        measures = tuple(of_all[measure] for measure in KINDS[kind].measures)
        call = _call_of(name)
        found[owner, kind, call] = _Stands(measures, dialect, call != name)
    return found
