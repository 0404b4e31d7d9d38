"""Single posts: one event a request, from as many connections as a busy gateway has."""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.effort import Effort
from benchmarks.ingest import RawStore
from benchmarks.load import Answers, Load, Page, run_well
from benchmarks.results import Result
from benchmarks.server import running
from benchmarks.stores import Store
from benchmarks.times import Times, Turns
from tallybook.store.duckdb import FILE_NAME
from tests.support import Server

CONNECTIONS: Final = 64
HEALTH: Final = (Page("/healthz", "/healthz"),)


def measure(store: Store, effort: Effort) -> Iterator[Result]:
    """Post at half the goal, then as fast as it goes; the same client on the cheapest answer there is, likewise."""
    found: dict[tuple[bool, bool], list[Answers]] = {}
    with store.to_write() as data:
        for _ in range(effort.turns):
            # A server of its own for each turn: one that has just been pressed hard would still be tidying up.
            with running(data) as server:
                for is_paced in (True, False):
                    for is_health in (True, False):
                        answers = run_well(_load(server, effort, is_paced=is_paced, is_health=is_health))
                        found.setdefault((is_paced, is_health), []).append(answers)
        raw = RawStore(store.place / "raw.duckdb", data / FILE_NAME)
        singly = raw.insert_singly(effort.raw_singles)
        raw.close()
    most, health_most = (Turns([answers.per_s for answers in found[False, is_health]]) for is_health in (False, True))
    waits, health_waits = (_together(found[True, is_health]) for is_health in (False, True))
    under_pressure = _together(found[False, False])
    for name, reference, note in (
        ("single posts", health_most.middle, f"p50 {under_pressure.p50:.1f} ms, p99 {under_pressure.p99:.1f} ms"),
        ("single posts, beside inserts", singly, "reference: one connection, a transaction each"),
    ):
        yield Result(
            name=name,
            ours=most.middle,
            reference=reference,
            events=store.filled.events,
            spread=most.spread,
            note=f"{CONNECTIONS} connections; {note}",
        )
    yield Result(
        name="single posts at 2,000/s: p99",
        ours=waits.p99,
        reference=health_waits.p99,
        events=store.filled.events,
        spread=(waits.p50, waits.p99),
        note=f"longest {max(waits.ms):.1f} ms; {CONNECTIONS} connections",
    )


def _load(server: Server, effort: Effort, *, is_paced: bool, is_health: bool) -> Load:
    return Load(
        url=server.url,
        key=server.admin_key,
        connections=CONNECTIONS,
        seconds=effort.load_s / 2,
        pages=HEALTH if is_health else (),
        every_s=1 / effort.posts_per_s if is_paced else None,
    )


def _together(answers: Sequence[Answers]) -> Times:
    return Times([ms for turn in answers for ms in turn.times.ms])
