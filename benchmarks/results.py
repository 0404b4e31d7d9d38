"""What was measured, when and on what; kept so that parts measured later join what is there."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.table import BENCHMARKS, BY_NAME, Benchmark

PACKAGES: Final = ("tallybook", "duckdb", "pyarrow", "uvicorn", "starlette", "msgspec")
GROWTH: Final = ", growth"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One number beside its reference.

    Attributes:
        name: of the benchmark.
        events: how many the store held, to the size it was filled to; 0 if the benchmark has a store of its own.
        ours: the number.
        reference: the same of the reference, in the same run; None if there is none.
        spread: of ours; which ends it has the benchmark says.
        note: what else is worth knowing.
    """

    name: str
    ours: float
    reference: float | None = None
    events: int = 0
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def benchmark(self) -> Benchmark:
        """The line of the table."""
        return BY_NAME[self.name]

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among others."""
        return self.events, BENCHMARKS.index(self.benchmark)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Results with one date, machine and set of versions."""

    facts: dict[str, str]
    results: tuple[Result, ...] = ()


def facts() -> dict[str, str]:
    """What the numbers depend on, and nothing that says whose machine it is."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": f"{os.cpu_count()} cores ({platform.machine()})",
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def merge(runs: Sequence[Run], new: Run) -> list[Run]:
    """Return runs with new results, each in place of an older one of the same benchmark and size."""
    replaced = {result.place for result in new.results}
    kept = [
        Run(facts=run.facts, results=tuple(result for result in run.results if result.place not in replaced))
        for run in runs
    ]
    same = [result for run in kept if run.facts == new.facts for result in run.results]
    others = [run for run in kept if run.results and run.facts != new.facts]
    return [*others, Run(facts=new.facts, results=tuple(same) + new.results)]


def growth(results: Sequence[Result]) -> Iterator[Result]:
    """Set pages of the largest store beside those of the smallest; what was measured at one size has not grown."""
    for name in BY_NAME:
        found = sorted((result for result in results if result.name + GROWTH == name), key=lambda result: result.events)
        if len(found) > 1:
            least, most = found[0], found[-1]
            yield Result(
                name=name,
                ours=most.ours,
                reference=least.ours,
                events=most.events,
                spread=most.spread,
                note=f"{least.events:,} to {most.events:,} events",
            )


def load(path: Path) -> list[Run]:
    """Return the runs of a file, without results of benchmarks that are no more; none if there is no file."""
    if not path.exists():
        return []
    runs = msgspec.json.decode(path.read_bytes(), type=list[Run])
    return [
        Run(facts=run.facts, results=tuple(result for result in run.results if result.name in BY_NAME)) for run in runs
    ]


def save(path: Path, runs: Sequence[Run]) -> None:
    """Write runs to a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(runs)) + b"\n")
