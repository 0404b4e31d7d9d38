"""The embedded engine: one DuckDB file, one writer, readers beside it."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import structlog

from tallybook.errors import InvalidRequest, StoreUnusable, Unavailable
from tallybook.event import Fault
from tallybook.query import UsageQuery
from tallybook.store import maintenance
from tallybook.store.answer import Statement, usage_statement
from tallybook.store.append import append
from tallybook.store.protocol import Batch, Difference, Outcome, Quarantined, StoreFacts, UsageRow
from tallybook.store.schema import current_version, migrate
from tallybook.store.series import SeriesIndex
from tallybook.timegrid import DAY_S, floor_s

FILE_NAME: Final = "tallybook.duckdb"
# Checkpoints rewrite what the log holds: rarely enough to keep ingest steady, often enough that replaying it at start
# takes well under a second.
_CHECKPOINT_BYTES: Final = 128 * 1024 * 1024

_log = structlog.get_logger()


class DuckStore:
    """A `tallybook.store.protocol.Store` in a directory.

    Args:
        directory: where the file is; it must exist, and belong to this process alone.
        memory_bytes: the most memory the engine may use.

    Raises:
        StoreUnusable: the file is damaged, or was written by a newer version.
    """

    def __init__(self, directory: Path, memory_bytes: int) -> None:
        self._path = directory / FILE_NAME
        try:
            self._connection = duckdb.connect(
                str(self._path),
                config={
                    "memory_limit": f"{memory_bytes}B",
                    "checkpoint_threshold": f"{_CHECKPOINT_BYTES}B",
                    "temp_directory": str(directory / "spill"),
                    "autoinstall_known_extensions": "false",
                },
            )
            migrate(self._connection)
        except duckdb.Error as error:
            raise StoreUnusable(f"cannot open the store {self._path}: {error}") from error
        self._writer = self._connection.cursor()
        self._series = SeriesIndex(self._writer)
        self._local = threading.local()
        self._reading = threading.Lock()
        self._readers: list[duckdb.DuckDBPyConnection] = []
        self._closing = False
        self._maintenance = threading.Lock()
        self._touching = threading.Lock()
        self._touched_days: set[int] | None = None
        """Days written since the last compaction, Unix seconds; None at first: any day may have been."""

    def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        """See `Store.append`."""
        self._writer.begin()
        try:
            outcomes = append(self._writer, self._series, batches)
            self._writer.commit()
        except BaseException:
            self._series.forget()
            self._roll_back()
            raise
        self._series.settle()
        self._touch({floor_s(record.timestamp_ms // 1000, DAY_S) for batch in batches for record in batch.records})
        return outcomes

    def _roll_back(self) -> None:
        with suppress(duckdb.TransactionException):  # a failed commit has rolled back already
            self._writer.rollback()

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """See `Store.usage`."""
        rows = self._fetch(usage_statement(query))
        if len(rows) > query.rows_max:
            raise InvalidRequest(
                f"The page would have more than {query.rows_max} results; lower limit, group by fewer fields, or add "
                "a filter",
                param="group_by",
                code="too_many_results",
            )
        split = 1 + len(query.group_by)
        if any(None in row[split:] for row in rows):
            rows = self._fetch(usage_statement(query, wide=True))
        return [UsageRow(row[0], row[1:split], row[split:]) for row in rows]

    def quarantine(self, organization_id: str, *, after: str | None, limit: int, descending: bool) -> list[Quarantined]:
        """See `Store.quarantine`."""
        order, comparison = ("DESC", "<") if descending else ("ASC", ">")
        rows = (
            self._reader()
            .execute(
                f"""SELECT quarantine_id, epoch_ms(created_at) // 1000, event, faults FROM quarantine
                WHERE organization_id = $organization_id AND ($after IS NULL OR arrival {comparison} (
                  SELECT arrival FROM quarantine
                  WHERE organization_id = $organization_id AND quarantine_id = $after))
                ORDER BY arrival {order} LIMIT $limit""",
                {"organization_id": organization_id, "after": after, "limit": limit},
            )
            .fetchall()
        )
        return [_quarantined(*row) for row in rows]

    def quarantined(self, organization_id: str, quarantine_id: str) -> Quarantined | None:
        """See `Store.quarantined`."""
        row = (
            self._reader()
            .execute(
                """SELECT quarantine_id, epoch_ms(created_at) // 1000, event, faults FROM quarantine
               WHERE organization_id = ? AND quarantine_id = ?""",
                [organization_id, quarantine_id],
            )
            .fetchone()
        )
        return _quarantined(*row) if row else None

    def quarantine_count(self, organization_id: str) -> int:
        """See `Store.quarantine_count`."""
        statement = "SELECT count(*) FROM quarantine WHERE organization_id = ?"
        row = self._reader().execute(statement, [organization_id]).fetchone()
        assert row is not None  # an aggregate without groups always has one row
        return int(row[0])

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
        if saved:
            # Merged rows are read faster once the file has no trace of those they replace. If a commit is under way
            # this is refused, and left to the next checkpoint.
            with suppress(duckdb.Error):
                self._reader().execute("CHECKPOINT")
        return saved

    def _compact(self, days: set[int] | None, rows_for_cell_max: float, merges_max: int) -> tuple[int, set[int]]:
        """Return how many rows merging saved, and the days that may need it later."""
        if days is not None and not days:
            return 0, set()
        connection = self._reader()
        found = maintenance.surplus(connection, days)
        worst = sorted(found, key=lambda place: -found[place])[:merges_max]
        merged = [place for place in worst if found[place] > rows_for_cell_max]
        saved = sum(maintenance.merge(connection, table, day_s) for table, day_s in merged)
        return saved, {place[1] for place, ratio in found.items() if ratio > 1 and place not in merged}

    def _touch(self, days: set[int] | None) -> None:
        with self._touching:
            if days is None or self._touched_days is None:
                self._touched_days = None
            else:
                self._touched_days |= days

    def rebuild(self, start_s: int, end_s: int, organization_id: str | None) -> int:
        """See `Store.rebuild`."""
        with self._maintenance:
            return maintenance.rebuild(self._reader(), start_s, end_s, organization_id)

    def check(self, organization_id: str | None) -> list[Difference]:
        """See `Store.check`."""
        return maintenance.check(self._reader(), organization_id)

    def facts(self, organization_id: str | None) -> StoreFacts:
        """See `Store.facts`."""
        row = (
            self._reader()
            .execute(
                """SELECT count(*), epoch_ms(min("timestamp")) // 1000, epoch_ms(max("timestamp")) // 1000,
                 (SELECT count(*) FROM series WHERE $organization_id IS NULL OR organization_id = $organization_id),
                 (SELECT count(*) FROM quarantine WHERE $organization_id IS NULL OR organization_id = $organization_id)
               FROM events JOIN series USING (series_id)
               WHERE $organization_id IS NULL OR organization_id = $organization_id""",
                {"organization_id": organization_id},
            )
            .fetchone()
        )
        assert row is not None  # an aggregate without groups always has one row
        events, first_s, last_s, series, quarantined = row
        return StoreFacts(current_version(self._reader()), events, series, quarantined, first_s, last_s)

    def size_bytes(self) -> int:
        """See `Store.size_bytes`."""
        size_bytes = 0
        for file in (self._path, self._path.with_suffix(".duckdb.wal")):
            with suppress(FileNotFoundError):  # a checkpoint removes the log at any moment
                size_bytes += file.stat().st_size
        return size_bytes

    def close(self) -> None:
        """See `Store.close`."""
        with self._reading:
            self._closing = True
            for reader in self._readers:
                reader.interrupt()
        with self._maintenance:
            # What a checkpoint cannot write now is in the log, and written when the store is next opened.
            with suppress(duckdb.Error):
                self._writer.execute("CHECKPOINT")
            self._writer.close()
            with suppress(duckdb.Error):
                self._connection.close()

    def _fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        try:
            return self._reader().execute(statement.sql, statement.values).fetchall()
        except duckdb.Error as error:
            _log.exception("question failed")
            raise Unavailable(
                "The store could not answer; ask again, or for less at once: a shorter window, fewer fields to group "
                "by, a filter",
                code="store_unavailable",
                retry_after_s=5,
            ) from error

    def _reader(self) -> duckdb.DuckDBPyConnection:
        """A connection for the calling thread; each sees the last commit when its statement begins."""
        if not hasattr(self._local, "connection"):
            with self._reading:
                if self._closing:
                    raise Unavailable("The server is stopping; send the request again", retry_after_s=5)
                self._local.connection = self._connection.cursor()
                self._readers.append(self._local.connection)
        connection: duckdb.DuckDBPyConnection = self._local.connection
        return connection


def _quarantined(quarantine_id: str, created_at_s: int, event: bytes, faults: str) -> Quarantined:
    return Quarantined(quarantine_id, created_at_s, event, msgspec.json.decode(faults, type=list[Fault]))
