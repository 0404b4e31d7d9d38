"""Stores of a given size, filled over HTTP with real events; kept, if wanted, for later runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import pages, usage
from benchmarks.effort import Effort
from benchmarks.events import bodies
from benchmarks.ingest import EVENTS_IN_BODY, HISTORY_S, count_rows, fill_warm
from benchmarks.results import Result
from benchmarks.server import connected, running, settle
from benchmarks.stores import Filled, Store
from tallybook.clock import now_s

FILLED: Final = "filled.json"
QUESTION: Final = usage.QUESTIONS[0]


def ready(size: int, keep: Path | None, place: Path, effort: Effort) -> Store:
    """Return a store of a size: the one that is kept, or else a new one.

    Args:
        size: how many events.
        keep: where stores stay; None if they need not.
        place: an empty directory for everything that goes afterwards.
        effort: how long to measure.
    """
    data = (keep or place) / f"{size}-events"
    if not (data / FILLED).exists():
        if data.exists():
            raise SystemExit(f"{data} holds a store that was never filled to its end; remove it")
        filled = _fill(data, size, effort)
        (data / FILLED).write_bytes(msgspec.json.encode(filled))
    return Store(data, msgspec.json.decode((data / FILLED).read_bytes(), type=Filled), place, keep is not None)


def _fill(data: Path, size: int, effort: Effort) -> Filled:
    end_s = now_s()
    made = bodies(size, min(size, EVENTS_IN_BODY), (end_s - HISTORY_S) * 1000, end_s * 1000)
    with running(data) as server, connected(server) as client:
        per_s = fill_warm(server, made)
        fresh = pages.ask(client, QUESTION, end_s, effort.repeats).times
        if effort.settles:
            settle(client)
        settled = pages.ask(client, QUESTION, end_s, effort.repeats).times
    return Filled(size, end_s, per_s, (fresh.p50, fresh.p99), settled.p50)


def measure_fill(store: Store, _: Effort) -> Iterator[Result]:
    """Tell how the store was filled, and what a page took right afterwards."""
    filled, reference = store.filled, store.inserted_again
    yield Result(
        name="filling the store",
        ours=filled.per_s,
        reference=reference.per_s,
        events=filled.events,
        note=f"{EVENTS_IN_BODY:,} events a body; reference: {reference.rows:,} rows",
    )
    yield Result(
        name=f"{QUESTION.title}, right after filling",
        ours=filled.fresh_ms[0],
        reference=filled.settled_ms,
        events=filled.events,
        spread=filled.fresh_ms,
    )


def measure_disk(store: Store, _: Effort) -> Iterator[Result]:
    """Set the file's size beside that of a file with the same events and nothing else."""
    counts = count_rows(store.file)
    yield Result(
        name="disk",
        ours=store.file.stat().st_size / counts["events"],
        reference=store.inserted_again.bytes_per_row,
        events=store.filled.events,
        note=", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items()),
    )
