"""Ingest: bulk bodies over HTTP, and DuckDB's own insert of the same rows."""

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import pyarrow as pa

from tests.support import Server

EVENTS_PATH: Final = "/v1/organization/usage/events"
CONNECTIONS: Final = 4
ROWS_READ: Final = 1_000_000
TIMEOUT_S: Final = 120


class Client:
    """A connection to the server, kept open; leaner than a full client, whose own time would be in the numbers."""

    def __init__(self, server: Server) -> None:
        self._http = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=TIMEOUT_S)
        self._headers = {"authorization": f"Bearer {server.admin_key}"}

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of an answer that must be 200."""
        self._http.request(method, path, body, self._headers)
        response = self._http.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {path} answered {response.status}: {answer[:1000]!r}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def fill(server: Server, bodies: Iterator[bytes]) -> float:
    """Send bodies over several connections, every event new; return events acknowledged in a second."""
    turn = threading.Lock()

    def send() -> int:
        client = Client(server)
        accepted = 0
        while True:
            with turn:
                body = next(bodies, None)
            if body is None:
                break
            receipt = msgspec.json.decode(client.ask("POST", EVENTS_PATH, body))
            if receipt["accepted"] != body.count(b"\n") + 1:
                raise RuntimeError(f"not every event was accepted: {receipt}")
            accepted += receipt["accepted"]
        client.close()
        return accepted

    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        accepted = sum(future.result() for future in [pool.submit(send) for _ in range(CONNECTIONS)])
    return accepted / (time.perf_counter() - started)


class RawStore:
    """A plain DuckDB file with the store's own table of events, and nothing else.

    Args:
        path: where the file is to be.
        like: the store whose events are inserted again.
    """

    def __init__(self, path: Path, like: Path) -> None:
        self._path = path
        self._source = duckdb.connect(str(like), read_only=True)
        # Checkpoints as rare as the store's: the reference shall not be slower for want of a setting.
        self._connection = duckdb.connect(str(path), config={"checkpoint_threshold": "128MB"})
        ((definition,),) = self._source.execute(
            "SELECT sql FROM duckdb_tables() WHERE table_name = 'events'"
        ).fetchall()
        self._connection.execute(definition)

    def insert(self, rows_in_batch: int) -> float:
        """Insert all rows as Arrow batches, a transaction each; return rows a second, reading them not counted."""
        rows, elapsed_s = 0, 0.0
        while (chunk := self._read(rows, ROWS_READ)).num_rows:
            started = time.perf_counter()
            for at in range(0, chunk.num_rows, rows_in_batch):
                self._insert(chunk.slice(at, rows_in_batch))
            elapsed_s += time.perf_counter() - started
            rows += chunk.num_rows
        ((stored,),) = self._connection.execute("SELECT count(*) FROM events").fetchall()
        assert stored == rows, "a reference that left rows out is none"
        return rows / elapsed_s

    def insert_singly(self, rows: int) -> float:
        """Insert so many rows, a transaction each; return rows a second."""
        chunk = self._read(0, rows)
        started = time.perf_counter()
        for at in range(chunk.num_rows):
            self._insert(chunk.slice(at, 1))
        return chunk.num_rows / (time.perf_counter() - started)

    def close(self) -> int:
        """Write everything to the file; return its size in bytes."""
        self._source.close()
        self._connection.execute("CHECKPOINT")
        self._connection.close()
        return self._path.stat().st_size

    def _read(self, first: int, count: int) -> pa.Table:
        selection = f"SELECT * FROM events WHERE rowid >= {first} AND rowid < {first + count}"
        rows: pa.Table = self._source.sql(selection).to_arrow_table()
        return rows

    def _insert(self, rows: pa.Table) -> None:
        self._connection.register("batch", rows)
        self._connection.begin()
        self._connection.execute("INSERT INTO events SELECT * FROM batch")
        self._connection.commit()
        self._connection.unregister("batch")


def count_rows(store: Path, tables: Sequence[str]) -> dict[str, int]:
    """Return how many rows tables of a store hold that no server uses."""
    with duckdb.connect(str(store), read_only=True) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables]
    return dict(zip(tables, counts, strict=True))
