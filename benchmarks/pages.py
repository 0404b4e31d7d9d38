"""Pages over HTTP, and the same questions in plain SQL over raw events; both must say the same."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb

from benchmarks.effort import Effort
from benchmarks.load import Page
from benchmarks.results import Result
from benchmarks.server import Client, connected, running
from benchmarks.stores import Store
from benchmarks.times import Times

WARM_UPS: Final = 3
FACTS: Final = "facts"
"""Where raw events are read from."""

Answer = Mapping[tuple[object, ...], Any]
"""Start of the bucket and group, to what is asked for."""


class Question(Protocol):
    """Something asked of a store whose history ends at an instant, in both ways."""

    @property
    def title(self) -> str:
        """What the benchmark is called."""
        ...

    def page(self) -> Page:
        """How a client asks for the buckets up to now."""
        ...

    def path(self, end_s: int) -> str:
        """What a client gets."""
        ...

    def read(self, body: bytes) -> Answer:
        """Return what a page says."""
        ...

    def sql(self, end_s: int) -> tuple[str, list[object]]:
        """Return a statement that asks the raw events, and its values."""
        ...

    def add_up(self, connection: duckdb.DuckDBPyConnection, rows: list[Any]) -> Answer:
        """Return what the statement's rows say; not timed."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """How long the first answer took, how long others, and what they said."""

    first_ms: float
    times: Times
    answer: Answer


def measure(questions: Sequence[Question], store: Store, effort: Effort) -> Iterator[Result]:
    """Ask a server, then the store's raw events.

    Raises:
        RuntimeError: a page is not what the raw events say.
    """
    end_s = store.filled.end_s
    with running(store.data) as server, connected(server) as client:
        pages = [ask(client, question, end_s, effort.repeats) for question in questions]
    for question, ours in zip(questions, pages, strict=True):
        reference = query(store.file, question, end_s, effort)
        if ours.answer != reference.answer:
            raise RuntimeError(f"{question.title}: the page is not what the raw events say")
        yield Result(
            name=question.title,
            ours=ours.times.p50,
            reference=reference.times.p50,
            events=store.filled.events,
            spread=(ours.times.p50, ours.times.p99),
            note=f"{len(ours.answer):,} results; first {ours.first_ms:.1f} ms",
        )


def ask(client: Client, question: Question, end_s: int, repeats: int) -> Asked:
    """Ask over HTTP, again and again."""
    path = question.path(end_s)
    first, times = Times(), Times()
    with first.one():
        client.ask("GET", path)
    for _ in range(WARM_UPS):
        client.ask("GET", path)
    for _ in range(repeats):
        with times.one():
            body = client.ask("GET", path)
    return Asked(first.ms[0], times, question.read(body))


def query(store: Path, question: Question, end_s: int, effort: Effort) -> Asked:
    """Ask the events of a store no server uses, as one would without Tallybook: one table, its dimensions joined."""
    sql, values = question.sql(end_s)
    first, times = Times(), Times()
    deadline = time.monotonic() + effort.query_s_max
    with duckdb.connect(str(store), read_only=True) as connection:
        with first.one():
            connection.execute(sql, values).fetchall()
        while not times.ms or (len(times.ms) < effort.repeats and time.monotonic() < deadline):
            with times.one():
                rows = connection.execute(sql, values).fetchall()
        return Asked(first.ms[0], times, question.add_up(connection, rows))
