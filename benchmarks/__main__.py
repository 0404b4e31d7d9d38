"""Runs every benchmark at every size and prints one table; see `benchmarks/RESULTS.md`."""

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import cyclopts
from rich.console import Console

from benchmarks import costs, pages
from benchmarks.events import bodies
from benchmarks.ingest import CONNECTIONS, EVENTS_PATH, Client, RawStore, count_rows, fill
from benchmarks.load import Load, Result, run
from benchmarks.report import Row, Times, environment, markdown, show
from tallybook.clock import now_s
from tallybook.store.duckdb import FILE_NAME
from tests.support import Server

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
EVENTS_IN_BODY: Final = 10_000
SINGLE_CONNECTIONS: Final = 64
SETTLE_STILL_S: Final = 90
"""Longer than the minute between two compactions."""
SETTLE_S_MAX: Final = 900

console = Console()


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    singles_s: float
    raw_singles: int
    repeats: int
    settle: bool
    rated: int
    turns: int


FULL: Final = Effort(singles_s=10, raw_singles=2_000, repeats=50, settle=True, rated=500_000, turns=3)
QUICK: Final = Effort(singles_s=2, raw_singles=200, repeats=5, settle=False, rated=20_000, turns=1)


def main(
    *,
    quick: bool = False,
    events: str = "1000000,10000000",
    directory: Annotated[Path | None, cyclopts.Parameter(name="--dir")] = None,
) -> None:
    """Measure ingest and pages, each beside DuckDB's own.

    Args:
        quick: A few seconds with 50,000 events, to see that the benchmarks work; its numbers mean nothing.
        events: Sizes of the store, separated by commas.
        directory: Where to put the stores meanwhile. Default: the system's temporary directory.
    """
    sizes = [50_000] if quick else [int(size) for size in events.split(",")]
    if bad := [size for size in sizes if size < EVENTS_IN_BODY]:
        raise SystemExit(f"--events {bad[0]} is less than one body of {EVENTS_IN_BODY} events; give more")
    facts = environment()
    sections: dict[str, list[Row]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="tallybook-bench-", dir=directory) as place:
            sections[f"{size:,} events"] = measure(Path(place), size, QUICK if quick else FULL)
    show(console, sections)
    if not quick:
        RESULTS.write_text(markdown(facts, sections))


def measure(place: Path, size: int, effort: Effort) -> list[Row]:
    """Return every number at one size of the store."""
    end_s = now_s()
    store = place / "data" / FILE_NAME
    with running(place / "data") as server:
        console.log(f"{size:,} events: bulk")
        made = bodies(size, EVENTS_IN_BODY, (end_s - pages.HISTORY_S) * 1000, end_s * 1000)
        bulk = fill(server, made)
        client = Client(server)
        console.log(f"{bulk:,.0f} events/s; pages")
        fresh, _ = pages.ask(client, pages.QUESTIONS[0], end_s, effort.repeats)
        if effort.settle:
            settle(client)
        asked = [pages.ask(client, question, end_s, effort.repeats) for question in pages.QUESTIONS]
        charged = [costs.ask(client, question, end_s, effort.repeats) for question in costs.QUESTIONS]
        console.log("single posts")
        host, port = server.url.removeprefix("http://").split(":")
        load = Load(host, int(port), EVENTS_PATH, server.admin_key, SINGLE_CONNECTIONS, effort.singles_s)
        singles = run(load)
        health = run(Load(host, int(port), "/healthz", None, SINGLE_CONNECTIONS, effort.singles_s))
        client.close()
    console.log("references")
    return [
        *ingest_rows(place / "raw.duckdb", store, bulk, singles, health, effort),
        rating_row(place, end_s, effort),
        *page_rows(store, end_s, fresh, asked, effort),
        *cost_rows(store, end_s, charged, effort),
    ]


def rating_row(place: Path, end_s: int, effort: Effort) -> Row:
    """Send the same events to a server that has prices and to one that has none, by turns."""
    made = list(bodies(effort.rated, EVENTS_IN_BODY, (end_s - pages.HISTORY_S) * 1000, end_s * 1000))
    rates: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * effort.turns):
        has_prices = turn % 2 == 0
        with running(place / f"rated-{turn}", [] if has_prices else ["--no-list-prices"]) as server:
            rates[has_prices].append(fill(server, iter(made)))
    ours, reference = (sorted(found)[len(found) // 2] for found in (rates[True], rates[False]))
    note = f"{effort.rated:,} events; medians of {effort.turns}; reference: no prices"
    return Row("bulk, rated", "events/s", ours, reference, note)


def cost_rows(store: Path, end_s: int, asked: Sequence[tuple[Times, costs.Answer]], effort: Effort) -> Iterator[Row]:
    """Ask the store's events the same questions in SQL; the amounts must be the same to the last digit."""
    for question, (ours, answer) in zip(costs.QUESTIONS, asked, strict=True):
        reference, expected = costs.query(store, question, end_s, effort.repeats)
        if answer != expected:
            raise RuntimeError(f"{question.title}: the page is not what the raw events say")
        note = f"p99 {ours.p99:.1f} ms, reference {reference.p99:.1f} ms; {len(answer):,} results"
        yield Row(question.title, "ms", ours.p50, reference.p50, note)


def ingest_rows(raw_path: Path, store: Path, bulk: float, singles: Result, health: Result, effort: Effort) -> list[Row]:
    """Insert the store's events once more, without Tallybook, and set both side by side."""
    raw = RawStore(raw_path, store)
    raw_bulk = raw.insert(EVENTS_IN_BODY)
    raw_singles = raw.insert_singly(effort.raw_singles)
    raw_bytes = raw.close()
    counts = count_rows(store, ("events", "series", "usage_hours", "usage_days"))
    sizes = store.stat().st_size / counts["events"], raw_bytes / (counts["events"] + effort.raw_singles)
    held = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    waits = f"p50 {singles.p50_ms:.1f} ms, p99 {singles.p99_ms:.1f} ms, {SINGLE_CONNECTIONS} connections"
    waits_health = f"reference p50 {health.p50_ms:.1f} ms, p99 {health.p99_ms:.1f} ms"
    return [
        Row("bulk", "events/s", bulk, raw_bulk, f"{EVENTS_IN_BODY:,} events a body, {CONNECTIONS} connections"),
        Row("single posts, reference: insert", "posts/s", singles.per_s, raw_singles, waits),
        Row("single posts, reference: /healthz", "posts/s", singles.per_s, health.per_s, waits_health),
        Row("size on disk", "bytes/event", *sizes, held),
    ]


def page_rows(
    store: Path, end_s: int, fresh: Times, asked: Sequence[tuple[Times, pages.Answer]], effort: Effort
) -> list[Row]:
    """Ask the store's events the same questions in SQL; the answers must be the same."""
    rows = []
    for question, (ours, answer) in zip(pages.QUESTIONS, asked, strict=True):
        reference, expected = pages.query(store, question, end_s, effort.repeats)
        if answer != expected:
            raise RuntimeError(f"{question.title}: the page is not what the raw events say")
        note = f"p99 {ours.p99:.1f} ms, reference {reference.p99:.1f} ms; {len(answer):,} results"
        rows.append(Row(question.title, "ms", ours.p50, reference.p50, note))
        if question is pages.QUESTIONS[0]:
            note = f"p99 {fresh.p99:.1f} ms; compaction not waited for"
            rows.append(Row(f"{question.title}, right after ingest", "ms", fresh.p50, reference.p50, note))
    return rows


@contextmanager
def running(data: Path, args: Sequence[str] = ()) -> Iterator[Server]:
    """A server with default settings but those given, stopped in the end, whatever happens."""
    server = Server.start(data, args=args)
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    if code := server.stop():
        raise RuntimeError(f"the server ended with {code}")


def settle(client: Client) -> None:
    """Wait until compaction has found nothing to do, as in a server that has run for a while."""
    console.log("waiting for compaction to come to rest")
    still_since, seen = time.monotonic(), b""
    deadline = still_since + SETTLE_S_MAX
    while time.monotonic() < min(deadline, still_since + SETTLE_STILL_S):
        found = re.search(rb"tallybook_compacted_rows_total (\S+)", client.ask("GET", "/metrics"))
        assert found is not None
        if found[1] != seen:
            still_since, seen = time.monotonic(), found[1]
        time.sleep(1)


if __name__ == "__main__":
    cyclopts.run(main)
