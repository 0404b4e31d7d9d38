"""Single posts and dashboards at once: how long both wait, what fails, what piles up, what memory it takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from statistics import median
from typing import Final

from benchmarks import costs, posts, usage
from benchmarks.effort import Effort
from benchmarks.load import Answers, Load, run
from benchmarks.load import running as loading
from benchmarks.results import Result
from benchmarks.server import connected, resident_mib, running
from benchmarks.stores import Store
from tests.support import Server

PAGES: Final = (
    *(question.page() for question in usage.QUESTIONS if question.group_by or question.width == "1m"),
    costs.QUESTIONS[0].page(),
)
"""What dashboards show; each window ends now."""
LOOK_EVERY_S: Final = 0.5
KIB: Final = 1024


def measure(store: Store, effort: Effort) -> Iterator[Result]:
    """Poll alone, post alone, then both; first each dashboard shows one page, then all of them."""
    with running(store.place / "empty") as server:
        empty_mib, _ = resident_mib(server)
    events = store.filled.events
    with store.to_write() as data, running(data) as server:
        for load, shown in (("20 pages/s", 1), ("100 pages/s", len(PAGES))):
            half_s = effort.load_s / 2
            alone = run(_polls(server, half_s, effort, shown)), run(_posts(server, half_s, effort))
            with (
                watched(server) as queue,
                loading(_posts(server, effort.load_s, effort)) as posting,
                loading(_polls(server, effort.load_s, effort, shown)) as polling,
            ):
                both = polling.answers(), posting.answers()
            yield from _waits(f"mixed, {load}", events, alone, both)
            if shown == 1:
                yield _queue(f"mixed, {load}", events, queue)
                resident = resident_mib(server)
                yield Result(
                    name=f"mixed, {load}: memory",
                    ours=resident[1],
                    reference=empty_mib,
                    events=events,
                    spread=resident,
                )


def _waits(name: str, events: int, alone: tuple[Answers, Answers], both: tuple[Answers, Answers]) -> Iterator[Result]:
    polled, posted = both
    notes = f"p99 of each: {_each(polled)}", f"longest {max(posted.times.ms):.1f} ms"
    for what, ours, reference, note in zip(("page", "post"), both, alone, notes, strict=True):
        yield Result(
            name=f"{name}: {what} p99",
            ours=ours.times.p99,
            reference=reference.times.p99,
            events=events,
            spread=(ours.times.p50, ours.times.p99),
            note=note,
        )
    answered = f"of {len(posted.times.ms):,} posts and {len(polled.times.ms):,} pages"
    yield Result(
        name=f"{name}: errors",
        ours=polled.failed + posted.failed,
        events=events,
        note="; ".join([answered, *polled.failures[:1], *posted.failures[:1]]).replace("|", "/"),
    )


def _each(polled: Answers) -> str:
    return ", ".join(f"{name} {_p99(polled, name):.0f} ms" for name in polled.ms)


def _p99(polled: Answers, name: str) -> float:
    return Answers(ms={name: polled.ms[name]}, elapsed_s=polled.elapsed_s).times.p99


def _queue(name: str, events: int, waiting: list[float]) -> Result:
    """Set what waited in the last third of the load beside the first: noise has no direction, growth has."""
    third = max(len(waiting) // 3, 1)
    return Result(
        name=f"{name}: queue growth",
        ours=max((median(waiting[-third:]) - median(waiting[:third])) / KIB, 0.0),
        events=events,
        spread=(min(waiting) / KIB, max(waiting) / KIB),
        note=f"looked at {len(waiting)} times",
    )


@contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """The bytes in the server's queue, looked at again and again meanwhile."""
    waiting: list[float] = []
    done = threading.Event()

    def look() -> None:
        with connected(server) as client:
            while True:
                waiting.append(client.metric("tallybook_queue_bytes"))
                if done.wait(LOOK_EVERY_S):
                    return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield waiting
    finally:
        done.set()
        thread.join()


def _posts(server: Server, seconds: float, effort: Effort) -> Load:
    return Load(
        url=server.url,
        key=server.admin_key,
        connections=posts.CONNECTIONS,
        seconds=seconds,
        every_s=1 / effort.posts_per_s,
    )


def _polls(server: Server, seconds: float, effort: Effort, shown: int) -> Load:
    """Each dashboard has its own moment of the second, and then asks for all it shows at once."""
    random = Random(1)
    moments = sorted(random.random() for _ in range(effort.dashboards))
    return Load(
        url=server.url,
        key=server.admin_key,
        connections=effort.dashboards * shown,
        seconds=seconds,
        pages=PAGES,
        every_s=1.0,
        offsets_s=tuple(moment for moment in moments for _ in range(shown)),
    )
