"""Bulk bodies over HTTP, and DuckDB's own insert of the same rows."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import pyarrow as pa

from benchmarks.effort import Effort
from benchmarks.events import bodies
from benchmarks.load import POSTS_PATH
from benchmarks.results import Result
from benchmarks.server import Client, connected, running
from benchmarks.times import Turns
from tallybook.clock import now_s
from tallybook.store.duckdb import FILE_NAME
from tallybook.store.rollups import ROLLUPS
from tallybook.timegrid import DAY_S
from tests.support import Server

CONNECTIONS: Final = 4
EVENTS_IN_BODY: Final = 10_000
HISTORY_S: Final = 30 * DAY_S
"""How far events go back. With the day in progress these are 31 days."""
ROWS_READ: Final = 1_000_000
RAW_ROWS_MAX: Final = 10_000_000
"""The reference needs no more to show its pace."""


def measure(place: Path, effort: Effort) -> Iterator[Result]:
    """Send bodies of several sizes to new stores, and insert each store's rows once more without Tallybook."""
    for size in effort.body_sizes:
        made = _bodies(effort.bulk_events, size)
        ours, reference, rolled_up = [], [], []
        for turn in range(effort.turns):
            data = place / f"bulk-{size}-{turn}"
            with running(data) as server:
                ours.append(fill_warm(server, iter(made)))
            rolled_up.append(share_rolled_up(data / FILE_NAME))
            reference.append(insert_again(data / FILE_NAME, place / "raw.duckdb", size).per_s)
        yield Result(
            name=f"bulk, {size:,} events a body",
            ours=Turns(ours).middle,
            reference=Turns(reference).middle,
            spread=Turns(ours).spread,
            note=f"medians of {effort.turns}, {effort.bulk_events:,} events each; "
            f"{min(rolled_up):.0%} or more rolled up by then",
        )


def measure_rated(place: Path, effort: Effort) -> Iterator[Result]:
    """Send the same events to a server that has prices and to one that has none, by turns."""
    made = _bodies(effort.bulk_events, effort.body_sizes[0])
    rates: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * effort.turns):
        has_prices = turn % 2 == 0
        with running(place / f"rated-{turn}", [] if has_prices else ["--no-list-prices"]) as server:
            rates[has_prices].append(fill_warm(server, iter(made)))
    ours, reference = Turns(rates[True]), Turns(rates[False])
    note = f"medians of {effort.turns}, {effort.bulk_events:,} events each"
    yield Result(name="bulk, rated", ours=ours.middle, reference=reference.middle, spread=ours.spread, note=note)


def _bodies(events: int, events_in_body: int) -> Sequence[bytes]:
    """Bodies made before anything is timed."""
    end_s = now_s()
    return list(bodies(events, events_in_body, (end_s - HISTORY_S) * 1000, end_s * 1000))


Post = Callable[[Client, bytes], int]
"""Sends a body and returns how many events were accepted, which must be all."""


def post_events(client: Client, body: bytes) -> int:
    """Send events as NDJSON."""
    receipt = msgspec.json.decode(client.ask("POST", POSTS_PATH, body))
    if receipt["accepted"] != body.count(b"\n") + 1:
        raise RuntimeError(f"not every event was accepted: {receipt}")
    return int(receipt["accepted"])


def fill_warm(server: Server, bodies: Iterator[bytes], post: Post = post_events) -> float:
    """Send the first body beforehand: no server that has run for a while still has to read the price list."""
    fill(server, islice(bodies, 1), post)
    return fill(server, bodies, post)


def fill(server: Server, bodies: Iterator[bytes], post: Post = post_events) -> float:
    """Send bodies over several connections, every event new; return events acknowledged in a second."""
    turn = threading.Lock()

    def send() -> int:
        accepted = 0
        with connected(server) as client:
            while True:
                with turn:
                    body = next(bodies, None)
                if body is None:
                    return accepted
                accepted += post(client, body)

    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        accepted = sum(future.result() for future in [pool.submit(send) for _ in range(CONNECTIONS)])
    return accepted / (time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Inserted:
    """How a store's events went into a plain file."""

    per_s: float
    rows: int
    bytes_per_row: float


def insert_again(store: Path, path: Path, rows_in_batch: int) -> Inserted:
    """Insert the events of a store that no server uses into a file of its own; the file is removed afterwards."""
    try:
        raw = RawStore(path, store)
        rows, per_s = raw.insert(rows_in_batch)
        return Inserted(per_s, rows, raw.close() / rows)
    finally:
        path.unlink(missing_ok=True)


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

    def insert(self, rows_in_batch: int) -> tuple[int, float]:
        """Insert rows as Arrow batches, a transaction each; return how many, and rows a second without reading them."""
        rows, elapsed_s = 0, 0.0
        while rows < RAW_ROWS_MAX and (chunk := self._read(rows, ROWS_READ)).num_rows:
            started = time.perf_counter()
            for at in range(0, chunk.num_rows, rows_in_batch):
                self._insert(chunk.slice(at, rows_in_batch))
            elapsed_s += time.perf_counter() - started
            rows += chunk.num_rows
        ((stored,),) = self._connection.execute("SELECT count(*) FROM events").fetchall()
        assert stored == rows, "a reference that left rows out is none"
        return rows, rows / elapsed_s

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


def share_rolled_up(store: Path) -> float:
    """Return which share of its events a store had in its rollups when its server ended."""
    with duckdb.connect(str(store), read_only=True) as connection:
        sql = "SELECT avg(CASE WHEN lot <= (SELECT lot FROM rolled_up) THEN 1.0 ELSE 0.0 END) FROM events"
        ((share,),) = connection.execute(sql).fetchall()
        return float(share)


def count_rows(store: Path) -> dict[str, int]:
    """Return how many rows the large tables of a store hold that no server uses."""
    tables = ("events", "series", *(rollup.table for rollup in ROLLUPS))
    with duckdb.connect(str(store), read_only=True) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables]
    return dict(zip(tables, counts, strict=True))
