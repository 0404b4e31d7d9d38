"""Connections to the engine: as many as are needed at once, and all given up when it has to be opened anew."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from tallybook.errors import NotReady, Reason
from tallybook.store.health import Health

_RETURN_S_MAX: Final = 5
"""How long a statement may take to notice that it is interrupted."""


class Connections:
    """Opens the engine's file, and lends connections to it.

    Args:
        path: of the file.
        config: of the engine.
        health: is told of what goes wrong on connections that are lent.

    Raises:
        duckdb.Error: the file cannot be opened.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], health: Health) -> None:
        self._path = path
        self._config = dict(config)
        self._health = health
        self._changed = threading.Condition()
        self._refusal: Reason | None = None
        self._root = self._open()
        self._made: list[duckdb.DuckDBPyConnection] = []
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._lent: list[duckdb.DuckDBPyConnection] = []
        self._streams: list[_Stream] = []

    def new(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one who keeps it, until the engine is opened anew."""
        self._made.append(self._root.cursor())
        return self._made[-1]

    @contextmanager
    def lent(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection, which sees the last commit when its statement or transaction begins.

        Raises:
            NotReady: the engine is being closed, or opened anew.
        """
        with self._changed:
            if self._refusal or self._health.is_dead:
                raise NotReady(self._refusal or self._health.reason or Reason.STORE_FAILED)
            connection = self._idle.pop() if self._idle else self.new()
            self._lent.append(connection)
        try:
            yield connection
        except duckdb.Error as error:
            self.judge(error)
            raise
        finally:
            with self._changed:
                if connection in self._lent:  # otherwise it was taken back
                    self._lent.remove(connection)
                    self._idle.append(connection)
                    self._changed.notify_all()

    def judge(self, error: Exception) -> Reason | None:
        """Find out what an error says of the engine, see `Health.judge`; nothing goes on in one that is dead."""
        reason = self._health.judge(error)
        if self._health.is_dead:
            self._interrupt()
        return reason

    @contextmanager
    def stream(self, sql: str, values: dict[str, object], rows: int) -> Iterator[Iterator[pa.RecordBatch]]:
        """Lend the rows of a statement, so many at a time; who takes them may be slow.

        Raises:
            NotReady: the engine had to be opened anew meanwhile.
        """
        with self.lent() as connection:
            stream = _Stream(connection, connection.sql(sql, params=values).to_arrow_reader(rows))
            self._streams.append(stream)
            try:
                yield stream
            finally:
                self._streams.remove(stream)
                stream.close()

    def reopen(self) -> None:
        """Give up the engine and open it anew; statements that are under way fail.

        Raises:
            NotReady: one of them does not end; the engine of old is still there.
            duckdb.Error: the file cannot be opened.
        """
        self.recall(self._health.reason or Reason.STORE_FAILED)
        self.close()
        self._root = self._open()
        with self._changed:
            self._refusal = None

    def recall(self, reason: Reason) -> None:
        """Take back what is lent, and lend nothing any more; statements that are under way fail.

        Args:
            reason: what is told to those who ask for a connection from now on.

        Raises:
            NotReady: a statement does not end.
        """
        with self._changed:
            self._refusal = reason
        self._interrupt()
        for stream in list(self._streams):
            stream.close()
        with self._changed:
            slow = {id(stream.connection) for stream in self._streams}
            self._lent = [connection for connection in self._lent if id(connection) not in slow]
            # The engine lives as long as anything of it is in use, and would be found again instead of a new one.
            if not self._changed.wait_for(lambda: not self._lent, _RETURN_S_MAX):
                raise NotReady(reason)

    def _interrupt(self) -> None:
        with self._changed:
            for connection in self._lent:
                connection.interrupt()

    def close(self) -> None:
        """Close all connections, after `recall`, and so the engine."""
        for connection in (*self._made, self._root):
            with suppress(duckdb.Error):
                connection.close()
        self._made, self._idle = [], []

    def abandon(self) -> None:
        """Close all connections at once; what the log holds is not written to the file."""
        with suppress(duckdb.Error):
            self._root.execute("PRAGMA disable_checkpoint_on_shutdown")
        with self._changed:
            self._refusal = self._health.reason or Reason.STORE_DAMAGED
        self.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(self._path), config=self._config)


class _Stream:
    """Batches of a result, until it is closed, which any thread may do."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader) -> None:
        self.connection = connection
        self._reader = reader
        self._taking = threading.Lock()
        self._is_closed = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        with self._taking:
            if self._is_closed:
                raise NotReady(Reason.STORE_FAILED)
            return self._reader.read_next_batch()

    def close(self) -> None:
        """Give up what is left of the result."""
        with self._taking:
            if not self._is_closed:
                self._is_closed = True
                self._reader.close()
