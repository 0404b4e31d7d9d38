"""Results as one table: on the terminal, and as a page."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Column, Table

from benchmarks.results import Result, Run, growth
from benchmarks.table import Benchmark, Goal, M

COLUMNS: Final = ("what", "ours", "reference", "ratio", "goal", "met", "spread", "note")
LEGEND: Final = """\
Every number stands beside a reference measured in the same run on the same machine. The ratio says how many
times better ours is than the reference: above 1 we are ahead, whether more or less is better. Clients, references
and server share the machine's cores. Times are as a client sees them, over HTTP on loopback.

- Bulk and filling: every event is new, priced, and acknowledged after its commit; 4 connections. The reference
  inserts the same rows, ready-made as Arrow tables, into a fresh DuckDB file, in batches of the same size, and does
  nothing else.
- Sources: the same calls of models as plain events, as spans and as records of LiteLLM, 12 KiB each, 512 a body as
  these senders have it; 4 connections. What is acknowledged must be in the next page.
- Files: `tallybook import` of a file of events or a folder of a batch's outputs, 500 lines of 2 KB each, timed from
  the command's start to its end; the reference are the same events in bodies of as many as the command sends at once.
- Pages: asked one after the other on one connection, the numbers are medians. The reference is the same question in
  SQL over the raw events, in the process that asks. A page must say exactly what that SQL says, or the run fails.
- Dashboard: a view is opened by somebody who signed in before, in a browser with an empty cache on the same cores, and
  timed from the address to the last change on screen; the reference is the page that asks for a key.
- Single posts at a pace, and mixed: requests are due at fixed instants, whether or not earlier ones are answered, and
  each is timed from the instant it was due. Mixed is 2,000 posts a second while 20 dashboards ask for pages ending
  now every second: each one of five pages (20 pages/s), or each all five at once (100 pages/s).
- PostgreSQL: what a typical gateway does, a row a request and upserts into daily tables; `gateway.py` says how. Its
  pages come from the smallest daily table that has the answer: prepared statements, rows fetched.
- Disk: the reference is a DuckDB file with the events alone, without series, rollups and charges.
- Goals that name a size of the store are judged at that size only."""


def verdict(result: Result) -> str:
    """Say whether a result meets its goal, or how many times it is off each bound it misses; nothing without a goal."""
    benchmark = result.benchmark
    goal = benchmark.goal
    if goal == Goal() or goal.at not in (None, result.events):
        return ""
    missed = []
    if goal.value is not None and (off := _off(benchmark, result.ours, goal.value)) > 1:
        missed.append(f"{_factor(off)} off" if goal.value else f"{result.ours:g} too many")
    if goal.times is not None and result.reference is not None:
        off = _off(benchmark, result.ours, goal.times * result.reference)
        missed += [f"{_factor(off)} off against the reference"] if off > 1 else []
    if goal.tail is not None and result.spread is not None:
        off = result.spread[1] / (goal.tail * result.ours)
        missed += [f"p99 {_factor(off)} off"] if off > 1 else []
    return f"missed: {', '.join(missed)}" if missed else "met"


def _off(benchmark: Benchmark, ours: float, bound: float) -> float:
    if ours == bound:
        return 1.0
    more, less = (bound, ours) if benchmark.is_more_better else (ours, bound)
    return more / less if less > 0 else float("inf") if more > 0 else 1.0


def _factor(off: float) -> str:
    return f"{off:.2f} x"


def aim(benchmark: Benchmark) -> str:
    """Return a goal in words."""
    goal, sign = benchmark.goal, ">=" if benchmark.is_more_better else "<="
    parts = []
    if goal.value is not None:
        parts.append(f"{sign} {amount(goal.value)} {benchmark.unit}")
    if goal.times is not None:
        parts.append(f"{sign} {goal.times:g} x reference")
    if goal.tail is not None:
        parts.append(f"p99 <= {goal.tail:g} x p50")
    if goal.at is not None:
        parts.append(f"at {goal.at // 1_000_000}M events")
    return ", ".join(parts)


def amount(value: float) -> str:
    """Return a number with three digits or more."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def cells(result: Result) -> tuple[str, ...]:
    """A result as text, one for each of `COLUMNS`."""
    benchmark = result.benchmark
    return (
        result.name,
        f"{amount(result.ours)} {benchmark.unit}",
        "" if result.reference is None else f"{amount(result.reference)} {benchmark.unit}",
        _ratio(result),
        aim(benchmark),
        verdict(result),
        _spread(result),
        "; ".join(filter(None, [benchmark.reference and f"beside {benchmark.reference}", result.note])),
    )


def _ratio(result: Result) -> str:
    if not result.reference or not result.ours:
        return ""
    ours_to_its = result.ours / result.reference
    return f"{ours_to_its if result.benchmark.is_more_better else 1 / ours_to_its:.2f}"


def _spread(result: Result) -> str:
    if result.spread is None or result.benchmark.spread is None:
        return ""
    return ", ".join(
        f"{name} {amount(value)}" for name, value in zip(result.benchmark.spread, result.spread, strict=True)
    )


def sections(runs: Sequence[Run]) -> dict[str, list[Result]]:
    """Return all results in the order of the table, with what follows from them, under the size of their store."""
    measured = [result for run in runs for result in run.results]
    found: dict[str, list[Result]] = {}
    for result in sorted([*measured, *growth(measured)], key=lambda result: result.place):
        title = f"A store of {result.events:,} events" if result.events else "A store of its own"
        found.setdefault(title, []).append(result)
    return found


def show(console: Console, run: Run) -> None:
    """Print the table; notes are for the page."""
    table = Table(Column(COLUMNS[0], no_wrap=True), *COLUMNS[1:-1])
    for title, results in sections([run]).items():
        table.add_section()
        table.add_row(f"[bold]{title}")
        for result in results:
            table.add_row(*cells(result)[:-1])
    console.print(table)


def markdown(runs: Sequence[Run]) -> str:
    """Return the results as a page."""
    lines = ["# Benchmark results", "", "Made by `make bench`, from `results.json`.", "", LEGEND, ""]
    lines += [f"- {', '.join(run.facts.values())}: {_parts(run)}" for run in runs]
    for title, results in sections(runs).items():
        lines += ["", f"## {title}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
        lines += [_line(cells(result)) for result in results]
    return "\n".join(lines) + "\n"


def _parts(run: Run) -> str:
    """Return which sections a run measured."""
    parts = {
        f"{result.benchmark.section} of {result.events / M:g}M" if result.events else result.benchmark.section
        for result in run.results
    }
    return ", ".join(sorted(parts))


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
