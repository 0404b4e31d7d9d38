"""The embedded engine: one DuckDB file, one writer, readers beside it."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import structlog

from tallybook.errors import NotReady, Reason, StoreUnusable, Unavailable
from tallybook.event import Fault
from tallybook.kinds import DIMENSIONS, MEASURES, UsageKind
from tallybook.query import Query
from tallybook.rate import Book, EmptyBook, Rate
from tallybook.store import level_rates, maintenance, notices, readings, retention, rollups, sources
from tallybook.store.answer import Snapshot, usage_statement
from tallybook.store.append import Appending
from tallybook.store.calls import KnownCalls, stored_calls
from tallybook.store.charges import too_many
from tallybook.store.commits import Commits
from tallybook.store.connections import Connections
from tallybook.store.costs import costs
from tallybook.store.health import Health, diagnose
from tallybook.store.identities import RecentIdentities
from tallybook.store.protocol import (
    Batch,
    Comparison,
    CostRow,
    DayChange,
    Difference,
    Keep,
    Kept,
    Notice,
    Outcome,
    Quarantined,
    Reading,
    Repeated,
    Rerating,
    SourceFacts,
    StoreFacts,
    Unpriced,
    UsageRow,
)
from tallybook.store.rates import RateIndex, Rater
from tallybook.store.reconcile import reconcile
from tallybook.store.rerate import RateOf, rerate
from tallybook.store.schema import current_version, migrate
from tallybook.store.series import SeriesIndex
from tallybook.store.unpriced import unpriced
from tallybook.timegrid import DAY_S, floor_s

FILE_NAME: Final = "tallybook.duckdb"
# Checkpoints rewrite what the log holds: rarely enough to keep ingest steady, often enough that replaying it at start
# takes well under a second.
_CHECKPOINT_BYTES: Final = 128 * 1024 * 1024
_UNCHECKED_BYTES: Final = 4 * 1024 * 1024 * 1024
"""While the main file is to stay as it is, what the log may grow to: beyond it the disk matters more."""
_ROOM_BYTES: Final = 16 * 1024 * 1024
"""With less than this free the disk is as good as full: the keys, logs and answers too large for memory need some."""
_HALVINGS_MAX: Final = 8
_RETRY_CHECKPOINT_S: Final = 60
"""How long the log is left to grow after a checkpoint has failed: each failure costs the engine its life."""
_ADOPT_WAIT_S: Final = 10
_EXPORT_ROWS: Final = 20_000
"""Rows of a batch of an export: a few MiB."""

_log = structlog.get_logger()


class DuckStore:
    """A `tallybook.store.protocol.Store` in a directory.

    Args:
        directory: where the file is; it must exist, and belong to this process alone.
        memory_bytes: the most memory the engine may use.
        book: what events are charged by, until another is to be used.

    Raises:
        StoreUnusable: the file is damaged, or was written by a newer version.
    """

    def __init__(self, directory: Path, memory_bytes: int, book: Book | None = None) -> None:
        self._path = directory / FILE_NAME
        self._health = Health()
        config = {
            "memory_limit": f"{memory_bytes}B",
            "checkpoint_threshold": f"{_CHECKPOINT_BYTES}B",
            "temp_directory": str(directory / "spill"),
            "autoinstall_known_extensions": "false",
        }
        self._log_bytes_max = _CHECKPOINT_BYTES
        self._no_checkpoint_until = 0.0
        self._is_held = False
        try:
            self._commits = Commits(self._path)
            self._connections = Connections(self._path, config, self._health)
            self._load(book or EmptyBook())
        except (duckdb.Error, OSError) as error:
            reason = diagnose(str(error)) or Reason.STORE_DAMAGED
            raise StoreUnusable(f"cannot open the store {self._path}: {error}. {reason.remedy}") from error
        self._committing = threading.Lock()
        self._folding = threading.Lock()
        """Held by whoever folds, and by whoever changes events."""
        self._next_book: tuple[Book, int] | None = None
        self._maintenance = threading.Lock()
        self._learning = threading.Lock()
        """Held by whoever takes in the calls that are stored."""
        self._reading = threading.Lock()
        """Held by whoever changes what was read of providers."""
        self._touching = threading.Lock()
        self._touched_days: set[int] | None = None
        """Days written since the last compaction, Unix seconds; None at first: any day may have been."""

    def _load(self, book: Book) -> None:
        """Take from the file what is kept of it in memory. If that cannot be done the file is left as it is."""
        try:
            self._writer = self._connections.new()
            migrate(self._writer)
            self._commits.check(self._writer)
            self._load_indexes(book)
        except BaseException:
            self._connections.abandon()
            raise

    def _load_indexes(self, book: Book) -> None:
        written = rollups.written(self._writer)
        self._written_lot = written.lot
        """The latest lot that has events."""
        self._folded_lot = 0
        """Events of lots up to this one are in the rollups; those of some later ones may be, too."""
        self._lot = self._written_lot + 1
        """The lot that is open: commits put their events into it."""
        self._calls = KnownCalls()
        recent = RecentIdentities(written.latest_ms)
        self._appending = Appending(self._writer, SeriesIndex(self._writer), recent, self._calls)
        self._kept = retention.read(self._writer)
        """What is kept; it moves before anything is deleted."""
        self._rates = RateIndex(self._connections.new())
        self._rater = Rater(book, self._rates)
        self._holders = level_rates.holders(self._writer)
        """Organizations that ever held something; for the others there is nothing to ask."""

    def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        """See `Store.append`."""
        with self._adopting() as adopted, self._committing:
            if self._health.reason:
                raise NotReady(self._health.reason)
            self._refuse_full_disk()
            try:
                self._limit_log()
                return self._append(batches, adopted)
            except (duckdb.Error, OSError) as error:
                reason = self._connections.judge(error)
                if self._health.reason:
                    raise NotReady(self._health.reason) from error
                raise _not_written(reason) from error

    @contextmanager
    def _adopting(self) -> Iterator[tuple[Book, int] | None]:
        """Yield the book that is to be used from this commit on, if there is one; forget it once it is.

        What changes timelines of prices excludes each other. If that takes long, the next commit adopts the book.
        """
        adopted = self._next_book
        if adopted is None or not self._maintenance.acquire(timeout=_ADOPT_WAIT_S):
            yield None
            return
        try:
            yield adopted
        finally:
            self._maintenance.release()
        with self._touching:
            if self._next_book is adopted:
                self._next_book = None

    def _append(self, batches: Sequence[Batch], adopted: tuple[Book, int] | None) -> list[Outcome]:
        since_ms = self._kept.events_s * 1000
        if since_ms and any(batch.first_ms < since_ms for batch in batches):
            # Those known to be too old are refused one by one before they get here.
            raise Unavailable("Events of a day have just been deleted for their age; send the request again")
        rater = self._rater
        self._writer.begin()
        try:
            if adopted:
                level_rates.adopt(self._writer, self._rates, *adopted)
                rater = Rater(adopted[0], self._rates)
            outcomes = self._appending.append(rater, batches, self._lot)
            number = self._commits.number(self._writer) if any(map(_changes, batches, outcomes)) else None
            self._writer.commit()
        except BaseException:
            self._appending.forget()
            self._roll_back()
            raise
        if number is not None:
            self._commits.acknowledge(number)
        self._appending.settle()
        if any(outcome.accepted for outcome in outcomes):
            self._written_lot = self._lot
        self._rater = rater
        self._holders |= {
            batch.organization_id
            for batch in batches
            if any(record.kind.is_level for record in batch.records)
            or any(columns.kind.is_level for columns in batch.columns)
        }
        return outcomes

    def _roll_back(self) -> None:
        with suppress(duckdb.Error):  # a failed commit has rolled back already, and a dead engine has nothing to
            self._writer.rollback()

    def use(self, book: Book, now_ms: int) -> None:
        """See `Store.use`."""
        with self._touching:
            self._next_book = (book, now_ms)

    def usage(self, kind: UsageKind, query: Query) -> list[UsageRow]:
        """See `Store.usage`."""
        with self._snapshot() as snapshot:
            rows = snapshot(*usage_statement(kind, query, snapshot))
            if len(rows) > query.rows_max:
                raise too_many(query)
            split = 1 + len(query.group_by)
            if any(None in row[split:] for row in rows):
                rows = snapshot(*usage_statement(kind, query, snapshot, wide=True))
        return [UsageRow(row[0], row[1:split], row[split:]) for row in rows]

    def costs(self, query: Query) -> list[CostRow]:
        """See `Store.costs`."""
        holds = query.organization_id in self._holders
        with self._snapshot() as snapshot:
            return costs(query, snapshot, self._rates.get, holds=holds)

    def charges(self, query: Query) -> list[CostRow]:
        """See `Store.charges`."""
        with self._snapshot() as snapshot:
            return costs(query, snapshot, self._rates.get, detailed=True)

    def rate(self, rate_id: int) -> Rate | None:
        """See `Store.rate`."""
        return self._rates.get(rate_id)

    def unpriced(self, query: Query, *, counts: bool = True) -> list[Unpriced]:
        """See `Store.unpriced`."""
        with self._snapshot() as snapshot:
            return unpriced(snapshot, self._rates, query, counts=counts)

    def rerate(self, organization_id: str, day_s: int, book: Book, now_ms: int, *, dry_run: bool) -> DayChange:
        """See `Store.rerate`."""
        query = Query(organization_id, day_s, day_s + DAY_S, DAY_S, now_ms // 1000 + 1, ("line_item",))

        def costs_of_day(connection: duckdb.DuckDBPyConnection, rate: RateOf) -> list[CostRow]:
            return costs(query, Snapshot(connection, self._written_lot, self._get_kept), rate)

        with self._answering(), self._maintenance, self._folding, self._connections.lent() as connection:
            if day_s < self._kept.events_s:
                raise retention.without_events(self._kept, "cannot be charged anew, and keeps its prices")
            change = rerate(
                connection, self._rates, organization_id, day_s, book, now_ms, costs_of_day, dry_run=dry_run
            )
        if change.events and not dry_run:
            self._touch({day_s})
        return change

    def reratings(self, organization_id: str) -> list[Rerating]:
        """See `Store.reratings`."""
        rows = self._fetch(
            """SELECT rerating_id, epoch_ms(created_at) // 1000, epoch_ms("day") // 1000, book_id, events,
                 amount_before, amount_after FROM reratings
               WHERE organization_id = $organization_id ORDER BY arrival""",
            {"organization_id": organization_id},
        )
        return [Rerating(*row) for row in rows]

    def days(self, organization_id: str, start_s: int, end_s: int) -> list[int]:
        """See `Store.days`."""
        with self._answering(), self._connections.lent() as connection:
            return maintenance.days_of(connection, start_s, end_s, organization_id)

    def events(self, organization_id: str, start_s: int, end_s: int, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Store.events`."""
        days = self.days(organization_id, floor_s(start_s, DAY_S), end_s)
        if days and days[0] < self._kept.events_s:
            raise retention.without_events(self._kept, "cannot be exported event by event")
        return self._events(organization_id, start_s, end_s, kinds, days)

    def _events(
        self, organization_id: str, start_s: int, end_s: int, kinds: Sequence[str], days: Sequence[int]
    ) -> Iterator[pa.RecordBatch]:
        columns = ", ".join((*DIMENSIONS, *MEASURES))
        # An id without a timestamp of the producer's is no identity: it must not become one elsewhere.
        sql = f"""SELECT kind, CASE WHEN has_identity THEN id END AS id, "timestamp", {columns}, cost
                  FROM facts JOIN series USING (series_id)
                  WHERE organization_id = $organization_id AND kind IN (SELECT unnest($kinds))
                    AND "timestamp" >= make_timestamp($start_s::BIGINT * 1000000)
                    AND "timestamp" < make_timestamp($end_s::BIGINT * 1000000)
                  ORDER BY "timestamp", id"""
        for day_s in days:  # a day at a time is sorted in memory
            window = {"start_s": max(start_s, day_s), "end_s": min(end_s, day_s + DAY_S)}
            values = {"organization_id": organization_id, "kinds": list(kinds), **window}
            with self._connections.stream(sql, values, _EXPORT_ROWS) as batches:
                if day_s < self._kept.events_s:
                    raise Unavailable("The rest of the export has just been deleted for its age; begin it later")
                yield from batches

    def keep_reading(self, organization_id: str, reading: Reading) -> None:
        """See `Store.keep_reading`."""
        with self._writing_readings() as connection:
            readings.keep(connection, organization_id, reading, self._commit_beside)

    def drop_readings(self, organization_id: str, provider: str) -> int:
        """See `Store.drop_readings`."""
        with self._writing_readings() as connection:
            return readings.drop(connection, organization_id, provider, self._commit_beside)

    @contextmanager
    def _writing_readings(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection to one at a time who changes what was read of providers."""
        try:
            with self._reading, self._connections.lent() as connection:
                if self._health.reason:
                    raise NotReady(self._health.reason)
                self._refuse_full_disk()
                yield connection
        except (duckdb.Error, OSError) as error:
            if self._health.reason:
                raise NotReady(self._health.reason) from error
            raise _not_written(diagnose(str(error))) from error

    def _commit_beside(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Commit a transaction that is not the writer's, as one of the commits that are counted."""
        with self._committing:
            number = self._commits.number(connection)
            connection.commit()
            self._commits.acknowledge(number)

    def days_read(self, organization_id: str, provider: str) -> dict[int, int]:
        """See `Store.days_read`."""
        rows = self._fetch(
            """SELECT epoch_ms("day") // 1000, epoch_ms(read_at) // 1000 FROM readings
               WHERE organization_id = $organization_id AND provider = $provider ORDER BY 1""",
            {"organization_id": organization_id, "provider": provider},
        )
        return dict(rows)

    def books(self) -> list[tuple[str, str]]:
        """See `Store.books`."""
        return [
            (organization_id, provider)
            for organization_id, provider in self._fetch(
                "SELECT DISTINCT organization_id, provider FROM readings ORDER BY 1, 2", {}
            )
        ]

    def reconcile(self, query: Query, provider: str) -> list[Comparison]:
        """See `Store.reconcile`."""
        holds = query.organization_id in self._holders
        with self._snapshot() as snapshot:
            return reconcile(query, provider, snapshot, self._rates.get, holds=holds)

    def quarantine(self, organization_id: str, *, after: str | None, limit: int, descending: bool) -> list[Quarantined]:
        """See `Store.quarantine`."""
        order, comparison = ("DESC", "<") if descending else ("ASC", ">")
        rows = self._fetch(
            f"""SELECT quarantine_id, epoch_ms(created_at) // 1000, event, faults, dialect FROM quarantine
                WHERE organization_id = $organization_id AND ($after IS NULL OR arrival {comparison} (
                  SELECT arrival FROM quarantine
                  WHERE organization_id = $organization_id AND quarantine_id = $after))
                ORDER BY arrival {order} LIMIT $limit""",
            {"organization_id": organization_id, "after": after, "limit": limit},
        )
        return [_quarantined(*row) for row in rows]

    def quarantined(self, organization_id: str, quarantine_id: str) -> Quarantined | None:
        """See `Store.quarantined`."""
        rows = self._fetch(
            """SELECT quarantine_id, epoch_ms(created_at) // 1000, event, faults, dialect FROM quarantine
               WHERE organization_id = $organization_id AND quarantine_id = $quarantine_id""",
            {"organization_id": organization_id, "quarantine_id": quarantine_id},
        )
        return _quarantined(*rows[0]) if rows else None

    def quarantine_count(self, organization_id: str) -> int:
        """See `Store.quarantine_count`."""
        ((count,),) = self._fetch(
            "SELECT count(*) FROM quarantine WHERE organization_id = $organization_id",
            {"organization_id": organization_id},
        )
        return int(count)

    def _learn_calls(self) -> None:
        """Take in the calls that were stored before the start; until then commits look for each call in the store."""
        with self._learning:
            calls = self._calls
            if calls.is_complete:
                return
            try:
                with self._connections.lent() as connection:
                    stored = stored_calls(connection)
            except (duckdb.Error, MemoryError):
                _log.exception("calls that are stored could not be read; each is looked for in the store")
                return
            with self._committing:
                calls.complete(stored)

    def fold(self) -> int:
        """See `Store.fold`."""
        self._learn_calls()
        with self._folding, self._connections.lent() as connection:
            with self._committing:  # what is under way belongs to the lot that closes
                closing, is_due = self._lot, self._written_lot > self._folded_lot
                self._lot += is_due
            if not is_due:
                return 0
            connection.begin()
            try:
                with _told("folding"):
                    count, days = rollups.fold(connection, closing)
                    connection.commit()
            except BaseException:
                with suppress(duckdb.Error):  # a failed commit has rolled back already
                    connection.rollback()
                raise
            self._folded_lot = closing
        self._touch(days)
        return count

    def compact(self, rows_for_cell_max: float, merges_max: int) -> int:
        """See `Store.compact`."""
        with self._maintenance:
            with self._touching:  # what is written from here on counts for the next time
                days, self._touched_days = self._touched_days, set()
            try:
                saved, left = self._compact(days, rows_for_cell_max, merges_max)
            except BaseException:
                self._touch(days)
                raise
            self._touch(left)
        if saved:  # merged rows are read faster once the file has no trace of those they replace
            self._checkpoint()
        return saved

    def _compact(self, days: set[int] | None, rows_for_cell_max: float, merges_max: int) -> tuple[int, set[int]]:
        """Return how many rows merging saved, and the days that may need it later."""
        if days is not None and not days:
            return 0, set()
        with self._connections.lent() as connection:
            found = maintenance.surplus(connection, days)
            worst = sorted(found, key=lambda place: -found[place])[:merges_max]
            merged = [place for place in worst if found[place] > rows_for_cell_max]
            with _told("compacting") if merged else nullcontext():
                saved = sum(maintenance.merge(connection, table, day_s) for table, day_s in merged)
        return saved, {place[1] for place, ratio in found.items() if ratio > 1 and place not in merged}

    def _touch(self, days: set[int] | None) -> None:
        with self._touching:
            if days is None or self._touched_days is None:
                self._touched_days = None
            else:
                self._touched_days |= days

    @property
    def kept(self) -> Kept:
        """See `Store.kept`."""
        return self._kept

    def _get_kept(self) -> Kept:
        return self._kept

    def expire(self, keep: Keep, now_s: int) -> int | None:
        """See `Store.expire`."""
        self.fold()  # what no rollup has cannot be deleted
        with self._maintenance, self._connections.lent() as connection:
            step = retention.next_step(connection, self._kept, keep, now_s)
            if step is None:
                return None
            with self._committing:  # no commit after this one takes what is from before
                self._kept = step.kept
            return retention.take(connection, step)

    def rebuild(self, start_s: int, end_s: int, organization_id: str | None) -> int:
        """See `Store.rebuild`."""
        with self._answering(), self._maintenance, self._connections.lent() as connection:
            return maintenance.rebuild(connection, start_s, end_s, organization_id, self._kept)

    def check(self, organization_id: str | None) -> list[Difference]:
        """See `Store.check`."""
        with self._answering(), self._connections.lent() as connection:
            return maintenance.check(connection, organization_id, self._get_kept)

    def facts(self, organization_id: str | None) -> StoreFacts:
        """See `Store.facts`."""
        ((events, first_s, last_s, series, quarantined),) = self._fetch(
            """SELECT count(*), epoch_ms(min("timestamp")) // 1000, epoch_ms(max("timestamp")) // 1000,
                 count(DISTINCT series_id),
                 (SELECT count(*) FROM quarantine WHERE $organization_id IS NULL OR organization_id = $organization_id)
               FROM events JOIN series USING (series_id)
               WHERE $organization_id IS NULL OR organization_id = $organization_id""",
            {"organization_id": organization_id},
        )
        with self._answering(), self._connections.lent() as connection:
            version = current_version(connection)
        return StoreFacts(version, events, series, quarantined, first_s, last_s, self._kept)

    def sources(self, organization_id: str, start_s: int, end_s: int) -> tuple[list[SourceFacts], list[Repeated]]:
        """See `Store.sources`."""
        with self._answering(), self._connections.lent() as connection:
            window = organization_id, start_s, end_s
            return sources.sources(connection, *window), sources.repeated(connection, *window)

    def note(self, organization_id: str, found: Sequence[Notice]) -> None:
        """See `Store.note`."""
        with self._writing_readings() as connection:
            connection.begin()
            try:
                notices.keep(connection, organization_id, found)
                self._commit_beside(connection)
            except BaseException:
                with suppress(duckdb.Error):  # a failed commit has rolled back already
                    connection.rollback()
                raise

    def notices(self, organization_id: str, start_s: int) -> list[Notice]:
        """See `Store.notices`."""
        with self._answering(), self._connections.lent() as connection:
            return notices.notices_of(connection, organization_id, start_s)

    @property
    def is_held(self) -> bool:
        """See `Store.is_held`."""
        return self._is_held

    def hold(self) -> None:
        """See `Store.hold`."""
        self._is_held = True
        with self._answering(), self._committing:
            self._limit_log()

    def release(self) -> None:
        """See `Store.release`."""
        self._is_held = False
        with self._committing:
            self._limit_log()

    def _limit_log(self) -> None:
        """Say how long the log may get before a commit has what it holds written to the main file."""
        wanted = self._checkpoint_bytes()
        if wanted != self._log_bytes_max:
            self._writer.execute(f"SET GLOBAL checkpoint_threshold = '{wanted}B'")
            self._log_bytes_max = wanted

    def _checkpoint_bytes(self) -> int:
        """Return how long the log may get: on a small disk only so long that what it holds fits there once more."""
        if self._is_held or time.monotonic() < self._no_checkpoint_until:
            return _UNCHECKED_BYTES
        room_bytes = self._free_bytes() - _ROOM_BYTES
        lengths = (_CHECKPOINT_BYTES >> halved for halved in range(_HALVINGS_MAX))
        return next((length for length in lengths if 2 * length <= room_bytes), _UNCHECKED_BYTES)

    def _checkpoint(self) -> None:
        """Write what the log holds to the main file. While a commit is under way that is left to a later one."""
        if self._checkpoint_bytes() < _UNCHECKED_BYTES:
            with _told("checkpoint"), suppress(duckdb.Error), self._connections.lent() as connection:
                connection.execute("CHECKPOINT")

    def _free_bytes(self) -> int:
        """Return how much is free; much if the system cannot tell, so that the engine finds out itself."""
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError:
            return sys.maxsize

    @property
    def trouble(self) -> Reason | None:
        """See `Store.trouble`."""
        return self._health.reason

    def recover(self) -> None:
        """See `Store.recover`."""
        if self._health.reason is Reason.STORE_DAMAGED:
            return
        with self._committing:
            try:
                if self._health.is_dead:
                    self._reopen()
                self._refuse_full_disk()
                self._try_to_commit()
            except (duckdb.Error, OSError) as error:
                self._health.fail(self._connections.judge(error) or Reason.STORE_FAILED, str(error))
            except StoreUnusable as error:
                self._health.fail(Reason.STORE_DAMAGED, str(error))
            except NotReady:
                pass
            else:
                self._health.recover()

    def _try_to_commit(self) -> None:
        """Write next to nothing, and not by the engine first: an error of the disk may be the end of it."""
        self._commits.force()
        self._writer.begin()
        try:
            number = self._commits.number(self._writer)
            self._writer.commit()
        except BaseException:
            self._roll_back()
            raise
        self._commits.acknowledge(number)

    def _reopen(self) -> None:
        """Open a new engine in place of a dead one. What is on disk is the truth, whatever callers were told."""
        lacks_memory = self._health.reason is Reason.OUT_OF_MEMORY
        if not lacks_memory:
            self._no_checkpoint_until = time.monotonic() + _RETRY_CHECKPOINT_S
        self._connections.reopen()
        self._load(self._rater.book)
        self._log_bytes_max = 0
        self._limit_log()
        if lacks_memory:
            self._writer.execute("CHECKPOINT")  # what the log holds is in memory, too
        self._health.revive()

    def _refuse_full_disk(self) -> None:
        """Raise `NotReady` if there is no room left for commits."""
        if self._free_bytes() < _ROOM_BYTES:
            self._health.fail(Reason.DISK_FULL, f"less than {_ROOM_BYTES} bytes are free")
            raise NotReady(Reason.DISK_FULL)

    def size_bytes(self) -> int:
        """See `Store.size_bytes`."""
        size_bytes = 0
        for file in (self._path, self._path.with_suffix(".duckdb.wal")):
            with suppress(FileNotFoundError):  # a checkpoint removes the log at any moment
                size_bytes += file.stat().st_size
        return size_bytes

    def close(self) -> None:
        """See `Store.close`."""
        with suppress(NotReady):  # who does not end in time holds nothing up: he only reads
            self._connections.recall(Reason.STOPPING)
        # What a checkpoint cannot write now is in the log, and written when the store is next opened.
        with suppress(duckdb.Error):
            self._writer.execute("CHECKPOINT")
        self._connections.close()
        self._commits.close()

    def _fetch(self, sql: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        with self._answering(), self._connections.lent() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        """Lend a way to fetch rows; all that is fetched is of one instant."""
        with self._answering(), self._connections.lent() as connection:
            written_lot = self._written_lot  # before the instant: what was acknowledged until now is in the answer
            connection.begin()
            try:
                yield Snapshot(connection, written_lot, self._get_kept)
            finally:
                with suppress(duckdb.Error):  # of a dead engine; what killed it is what is told
                    connection.rollback()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Tell a client that the engine could not answer, and the log why."""
        try:
            yield
        except duckdb.Error as error:
            reason = diagnose(str(error))
            if reason is None or reason is not self._health.reason:  # that has been logged, once
                _log.exception("question failed")
            raise _not_answered(reason) from error


def _changes(batch: Batch, outcome: Outcome) -> bool:
    """Whether a commit of a batch has anything to write."""
    return bool(outcome.accepted or batch.quarantined or batch.released)


def _not_written(reason: Reason | None) -> Unavailable:
    """What is said of a request that the engine could not write, although it works."""
    return Unavailable(
        "The store could not write the request; nothing from it was stored. Send it again, or fewer events at once",
        code=reason or "store_unavailable",
        retry_after_s=5,
    )


def _not_answered(reason: Reason | None) -> Unavailable:
    """What is said of a question that the engine could not answer."""
    if reason in (None, Reason.OUT_OF_MEMORY):
        remedy = "ask again, or for less at once: a shorter window, fewer fields to group by, a filter"
    else:
        remedy = f"{reason.problem.lower()}, ask again later"
    return Unavailable(f"The store could not answer; {remedy}", code=reason or "store_unavailable", retry_after_s=5)


@contextmanager
def _told(work: str) -> Iterator[None]:
    """Let whoever wants to know at what moment the server ended see what it was doing in the background."""
    _log.debug(f"{work} begins")
    try:
        yield
    finally:
        _log.debug(f"{work} ends")


def _quarantined(quarantine_id: str, created_at_s: int, event: bytes, faults: str, dialect: str | None) -> Quarantined:
    return Quarantined(quarantine_id, created_at_s, event, msgspec.json.decode(faults, type=list[Fault]), dialect)
