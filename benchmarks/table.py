"""Every benchmark: what it measures, beside what, and what it must come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

M: Final = 1_000_000

SECTIONS: Final = {
    "bulk": "bulk bodies into a new store, beside DuckDB's own insert",
    "rated": "bulk bodies with and without prices",
    "sources": "the same calls as spans and as a gateway's records, beside plain events",
    "files": "the same calls imported from files, beside plain events",
    "compared": "the same events into PostgreSQL as gateways do it, and its pages",
    "fill": "the store of each size is filled; done anyway if there is none yet, then not reported",
    "disk": "bytes an event",
    "pages": "pages of usage, checked against SQL over the raw events",
    "costs": "pages of costs, checked likewise",
    "dashboard": "views of the dashboard in a browser, until nothing is on its way",
    "posts": "single posts: the most there can be, and the wait at half the goal",
    "mixed": "single posts and dashboards at once: wait, errors, queue, memory",
    "start": "from `serve` to ready, after a stop and after a kill",
}
"""What `--only` takes, in the order in which it runs: what writes to a store comes last."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a number must come to: at least, where more is better, else at most. Each bound may be absent.

    Attributes:
        value: the number itself.
        times: so many times the reference.
        tail: the upper end of the spread is at most so many times the number.
        at: events in store for which it is meant; None if for any.
    """

    value: float | None = None
    times: float | None = None
    tail: float | None = None
    at: int | None = None


NONE: Final = Goal()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One line of the table.

    Attributes:
        name: what is measured.
        section: where it is measured, see `SECTIONS`.
        unit: of both numbers. Where it ends in ``/s`` more is better, else less.
        spread: what its two ends are; None if it has none.
        reference: what stands beside it.
        goal: what it must come to.
    """

    name: str
    section: str
    unit: str
    spread: tuple[str, str] | None
    reference: str
    goal: Goal = NONE

    @property
    def is_more_better(self) -> bool:
        """It is a rate."""
        return self.unit.endswith("/s")


TURNS: Final = ("least", "most")
WAITS: Final = ("p50", "p99")
LATER: Final = ("in the end", "most")
RAW: Final = "DuckDB inserts the same rows"
PLAIN: Final = "plain events"
SQL: Final = "SQL over the raw events"

PAGE_GOALS: Final[Mapping[str, Goal]] = {
    "31 days by model": Goal(10, tail=3, at=10 * M),
    "31 days by project and model": Goal(25, tail=3, at=10 * M),
    "31 days ungrouped": NONE,
    "7 days by hour by model": Goal(20, tail=3, at=10 * M),
    "a day by minute": Goal(20, tail=3, at=10 * M),
}

BENCHMARKS: Final = (
    *(
        Benchmark(f"bulk, {size} events a body", "bulk", "events/s", TURNS, RAW, Goal(100_000, times=0.4))
        for size in ("5,000", "10,000", "20,000")
    ),
    Benchmark("bulk, rated", "rated", "events/s", TURNS, "no prices"),
    *(
        Benchmark(f"sources, {dialect}", "sources", f"{items}/s", TURNS, PLAIN, goal)
        for dialect, items, goal in (
            ("OTLP in protobuf", "spans", Goal(20_000)),
            ("OTLP in JSON", "spans", Goal(20_000)),
            ("LiteLLM", "records", NONE),
        )
    ),
    *(Benchmark(f"files, {form}", "files", "calls/s", TURNS, PLAIN) for form in ("NDJSON", "Parquet", "batch outputs")),
    *(
        Benchmark(f"bulk, beside PostgreSQL: {way}", "compared", "events/s", TURNS, "PostgreSQL", goal)
        for way, goal in (
            ("1,000 rows a commit, 4 connections", Goal(times=10)),
            ("1,000 rows a commit, 16 connections", NONE),
            ("100 rows a commit, 4 connections", Goal(times=10)),
        )
    ),
    Benchmark("disk, beside PostgreSQL", "compared", "bytes/event", None, "PostgreSQL"),
    *(
        Benchmark(f"{page}, beside PostgreSQL", "compared", "ms", WAITS, "its daily table", Goal(times=1))
        for page in ("31 days ungrouped", "31 days by model", "31 days by project and model")
    ),
    Benchmark("filling the store", "fill", "events/s", None, RAW, Goal(100_000, times=0.4)),
    Benchmark("31 days by model, right after filling", "fill", "ms", WAITS, "when background work is done"),
    Benchmark("disk", "disk", "bytes/event", None, "the events alone", Goal(40, at=10 * M)),
    *(Benchmark(page, "pages", "ms", WAITS, SQL, goal) for page, goal in PAGE_GOALS.items()),
    *(
        Benchmark(f"{page}, growth", "pages", "ms", WAITS, "the smallest store", Goal(times=1.5, at=100 * M))
        for page in PAGE_GOALS
    ),
    Benchmark("costs of 31 days by line item", "costs", "ms", WAITS, SQL),
    Benchmark("costs of 31 days by model", "costs", "ms", WAITS, SQL),
    Benchmark("costs of 31 days by project and line item", "costs", "ms", WAITS, SQL),
    Benchmark("costs of 31 days ungrouped", "costs", "ms", WAITS, SQL),
    *(
        Benchmark(f"dashboard, {view}", "dashboard", "ms", WAITS, "signing in", goal)
        for view, goal in (
            ("overview", Goal(1_000, at=10 * M)),
            ("explore", Goal(1_000, at=10 * M)),
            ("live", NONE),
            ("manage", NONE),
        )
    ),
    Benchmark("single posts", "posts", "posts/s", TURNS, "`/healthz`", Goal(4_000)),
    Benchmark("single posts, beside inserts", "posts", "posts/s", TURNS, "DuckDB inserts row by row"),
    Benchmark("single posts at 2,000/s: p99", "posts", "ms", WAITS, "`/healthz` at 2,000/s", Goal(50)),
    Benchmark("mixed, 20 pages/s: page p99", "mixed", "ms", WAITS, "without posts", Goal(100)),
    Benchmark("mixed, 20 pages/s: post p99", "mixed", "ms", WAITS, "without pages"),
    Benchmark("mixed, 20 pages/s: errors", "mixed", "errors", None, "", Goal(0)),
    Benchmark("mixed, 20 pages/s: queue growth", "mixed", "KiB", TURNS, "", Goal(64)),
    Benchmark(
        "mixed, 20 pages/s: memory", "mixed", "MiB", ("in the end", "most"), "an empty store", Goal(1024, at=100 * M)
    ),
    Benchmark("mixed, 100 pages/s: page p99", "mixed", "ms", WAITS, "without posts", Goal(100)),
    Benchmark("mixed, 100 pages/s: post p99", "mixed", "ms", WAITS, "without pages"),
    Benchmark("mixed, 100 pages/s: errors", "mixed", "errors", None, "", Goal(0)),
    Benchmark("start after a stop", "start", "s", TURNS, "an empty store", Goal(1.5, at=100 * M)),
    Benchmark("start after a kill under load", "start", "s", TURNS, "an empty store"),
)
BY_NAME: Final = {benchmark.name: benchmark for benchmark in BENCHMARKS}
