"""Measurements, and the one table they end in."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

COLUMNS: Final = ("what", "ours", "reference", "ratio", "note")
PACKAGES: Final = ("tallybook", "duckdb", "pyarrow", "uvicorn", "starlette", "msgspec")
LEGEND: Final = """\
Every number stands beside a reference measured in the same run on the same machine. The ratio says how many
times better ours is than the reference: above 1 we are ahead, whether more or less is better. Times are medians
as a client sees them, over HTTP on loopback; the client shares the machine's cores with the server. References:
for bulk, DuckDB's own insert of the same rows into a fresh file, in batches of the same size; for single posts,
the same row by row, and the same client on `/healthz`; for the size, the events alone, without series and
rollups; for rating, the same server without prices; for pages, the same question in SQL over the raw events, in
the process that asks. A page must say exactly what that SQL says, or the run fails."""


@dataclass
class Times:
    """How long each of many took."""

    ms: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Time what happens inside."""
        started = time.perf_counter()
        yield
        self.ms.append((time.perf_counter() - started) * 1000)

    @property
    def p50(self) -> float:
        """The median."""
        return self._quantile(0.50)

    @property
    def p99(self) -> float:
        """What 99 of 100 stay at or below."""
        return self._quantile(0.99)

    def _quantile(self, share: float) -> float:
        return sorted(self.ms)[min(len(self.ms) - 1, int(len(self.ms) * share))]


class Row(NamedTuple):
    """One number beside its reference. Of rates more is better, of anything else less."""

    what: str
    unit: str
    ours: float
    reference: float
    note: str

    def cells(self) -> tuple[str, ...]:
        """The row as text, one for each of `COLUMNS`."""
        ratio = self.ours / self.reference if self.unit.endswith("/s") else self.reference / self.ours
        return self.what, self._show(self.ours), self._show(self.reference), f"{ratio:.2f}", self.note

    def _show(self, value: float) -> str:
        return f"{value:,.0f} {self.unit}" if value >= 1000 else f"{value:.1f} {self.unit}"


Sections = Mapping[str, Sequence[Row]]


def environment() -> dict[str, str]:
    """What the numbers depend on, and nothing that says whose machine it is."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": f"{os.cpu_count()} ({platform.machine()}), load average before the run {os.getloadavg()[0]:.1f}",
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def show(console: Console, sections: Sections) -> None:
    """Print the table."""
    table = Table(*COLUMNS)
    for title, rows in sections.items():
        table.add_section()
        table.add_row(f"[bold]{title}")
        for row in rows:
            table.add_row(*row.cells())
    console.print(table)


def markdown(facts: Mapping[str, str], sections: Sections) -> str:
    """Return the results as a page."""
    lines = ["# Benchmark results", "", "Made by `make bench`.", "", LEGEND, ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
        lines += [_line(row.cells()) for row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
