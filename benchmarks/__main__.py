"""Measures everything, or parts of it, and keeps the results; see `benchmarks/RESULTS.md`."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import cyclopts
from rich.console import Console

from benchmarks import (
    costs,
    dashboard,
    files,
    filling,
    gateway,
    ingest,
    mixed,
    pages,
    postgres,
    posts,
    sources,
    start,
    usage,
)
from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.report import markdown, show
from benchmarks.results import Result, Run, facts, load, merge, save
from benchmarks.stores import Store
from benchmarks.table import SECTIONS
from tallybook.clock import now_s
from tallybook.timegrid import DAY_S

RESULTS: Final = Path(__file__).with_name("results.json")
PAGE: Final = Path(__file__).with_name("RESULTS.md")

NEW_STORES: Final[Mapping[str, Callable[[Path, Effort], Iterator[Result]]]] = {
    "bulk": ingest.measure,
    "rated": ingest.measure_rated,
    "sources": sources.measure,
    "files": files.measure,
    "compared": gateway.measure,
}
"""Sections with stores of their own."""
FILLED_STORES: Final[Mapping[str, Callable[[Store, Effort], Iterator[Result]]]] = {
    "fill": filling.measure_fill,
    "disk": filling.measure_disk,
    "pages": lambda store, effort: pages.measure(usage.QUESTIONS, store, effort),
    "costs": lambda store, effort: pages.measure(costs.QUESTIONS, store, effort),
    "dashboard": dashboard.measure,
    "posts": posts.measure,
    "mixed": mixed.measure,
    "start": start.measure,
}
"""Sections that are measured at every size."""

console = Console() if Console().is_terminal else Console(width=200)


def main(
    *,
    quick: bool = False,
    only: str = ",".join(SECTIONS),
    events: str | None = None,
    keep: Path | None = None,
    directory: Annotated[Path | None, cyclopts.Parameter(name="--dir")] = None,
) -> None:
    """Measure Tallybook, each number beside a reference; results join those of earlier runs.

    Args:
        quick: Less than a minute, to see that the benchmarks work; its numbers mean nothing and are not kept.
        only: Sections, separated by commas: bulk, rated, sources, files, compared, fill, disk, pages, costs,
            dashboard, posts, mixed, start.
        events: Sizes of the stores that are filled, separated by commas. Default: 1000000,10000000.
        keep: Where filled stores stay. One that is there already is used and left as it is.
        directory: Where to put everything else meanwhile. Default: the system's temporary directory.
    """
    effort = QUICK if quick else FULL
    sizes = [int(size) for size in events.split(",")] if events else effort.sizes
    chosen = only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS]:
        raise SystemExit(f"there is no section {unknown[0]}; choose among {', '.join(SECTIONS)}")
    if odd := [size for size in sizes if size < 1 or size % ingest.EVENTS_IN_BODY]:
        raise SystemExit(f"--events {odd[0]} is no multiple of {ingest.EVENTS_IN_BODY}, which one body holds")
    if os.getloadavg()[0] > 0.5:
        console.log("other work is under way on this machine; numbers will be worse for it")
    found: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="tallybook-bench-", dir=directory) as name:
        for results in measure(chosen, sizes, keep, Path(name), effort):
            found += results
            if not quick:
                _keep(results)
    show(console, Run(facts=facts(), results=tuple(found)))


def measure(
    chosen: Iterable[str], sizes: Iterable[int], keep: Path | None, place: Path, effort: Effort
) -> Iterator[list[Result]]:
    """Yield the results of each section as it is done."""
    chosen = [name for name in SECTIONS if name in chosen]
    for name in chosen:
        if name == "compared" and not postgres.is_installed():
            console.log(f"compared: left out, no PostgreSQL in {postgres.BINARIES}")
        elif name in NEW_STORES:
            console.log(name)
            with tempfile.TemporaryDirectory(dir=place) as own:
                yield list(NEW_STORES[name](Path(own), effort))
    if not any(name in FILLED_STORES for name in chosen):
        return
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=place) as own:
            console.log(f"{size:,} events: filling")
            store = filling.ready(size, keep, Path(own), effort)
            if "mixed" in chosen and now_s() - store.filled.end_s > DAY_S:
                console.log("this store was filled more than a day ago: dashboards, which look at now, see less of it")
            for name in chosen:
                if name in FILLED_STORES:
                    console.log(f"{size:,} events: {name}")
                    yield list(FILLED_STORES[name](store, effort))


def _keep(results: Iterable[Result]) -> None:
    runs = merge(load(RESULTS), Run(facts=facts(), results=tuple(results)))
    save(RESULTS, runs)
    PAGE.write_text(markdown(runs))


if __name__ == "__main__":
    cyclopts.run(main)
