"""The embedded engine: one DuckDB file, one writer, readers beside it."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec

from tallybook.errors import InvalidRequest, StoreUnusable
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
        days = {floor_s(record.timestamp_ms // 1000, DAY_S) for batch in batches for record in batch.records}
        with self._touching:
            if self._touched_days is not None:
                self._touched_days |= days
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

    def quarantine_count(self) -> int:
        """See `Store.quarantine_count`."""
        row = self._reader().execute("SELECT count(*) FROM quarantine").fetchone()
        assert row is not None  # an aggregate without groups always has one row
        return int(row[0])

    def compact(self, rows_for_cell_max: float, merges_max: int) -> int:
        """See `Store.compact`."""
        with self._maintenance:
            return self._compact(rows_for_cell_max, merges_max)

    def _compact(self, rows_for_cell_max: float, merges_max: int) -> int:
        with self._touching:  # what is written from here on counts for the next time
            days, self._touched_days = self._touched_days, set()
        if days is not None and not days:
            return 0
        connection = self._reader()
        found = maintenance.surplus(connection, days)
        worst = sorted(found, key=lambda place: -found[place])[:merges_max]
        merged = [place for place in worst if found[place] > rows_for_cell_max]
        saved = sum(maintenance.merge(connection, table, day_s) for table, day_s in merged)
        with self._touching:
            self._touched_days |= {place[1] for place, ratio in found.items() if ratio > 1 and place not in merged}
        if saved:
            # Merged rows are read faster once the file has no trace of those they replace. If a commit is under way
            # this is refused, and left to the next checkpoint.
            with suppress(duckdb.Error):
                connection.execute("CHECKPOINT")
        return saved

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
        return StoreFacts(
            current_version(self._reader()), events, series, quarantined, self.size_bytes(), first_s, last_s
        )

    def size_bytes(self) -> int:
        """Return the size of the file and its log on disk."""
        files = (self._path, self._path.with_suffix(".duckdb.wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """See `Store.close`."""
        self._connection.execute("CHECKPOINT")
        self._connection.close()

    def _fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self._reader().execute(statement.sql, statement.values).fetchall()

    def _reader(self) -> duckdb.DuckDBPyConnection:
        """A connection for the calling thread; each sees the last commit when its statement begins."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connection.cursor()
        connection: duckdb.DuckDBPyConnection = self._local.connection
        return connection


def _quarantined(quarantine_id: str, created_at_s: int, event: bytes, faults: str) -> Quarantined:
    return Quarantined(quarantine_id, created_at_s, event, msgspec.json.decode(faults, type=list[Fault]))
