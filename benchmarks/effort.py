"""How long to measure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything.

    Attributes:
        sizes: events of the stores that are filled, unless others are asked for.
        body_sizes: events in a bulk body.
        bulk_events: events sent at once to a new store.
        source_records: records sent to a new store in each dialect.
        file_records: calls in files, imported into a new store in each form.
        turns: how often what has no natural repetition is done.
        load_s: how long a load lasts.
        posts_per_s: single posts at a pace.
        dashboards: that poll every second.
        repeats: how often a page is asked.
        query_s_max: how long the same question in SQL may take in all; it is asked once at the least.
        raw_singles: rows inserted one by one.
        views: how often each view of the dashboard is opened.
        starts: how often a server is started.
        pressure_s: how long a server is filled before it is killed, from the shortest to the longest.
        compared_events: events that go into PostgreSQL.
        settles: background work is waited for.
    """

    sizes: tuple[int, ...]
    body_sizes: tuple[int, ...]
    bulk_events: int
    source_records: int
    file_records: int
    turns: int
    load_s: float
    posts_per_s: int
    dashboards: int
    repeats: int
    query_s_max: float
    raw_singles: int
    views: int
    starts: int
    pressure_s: tuple[float, float]
    compared_events: int
    settles: bool


FULL: Final = Effort(
    sizes=(1_000_000, 10_000_000),
    body_sizes=(5_000, 10_000, 20_000),
    bulk_events=1_000_000,
    source_records=102_400,
    file_records=500_000,
    turns=3,
    load_s=20,
    posts_per_s=2_000,  # half of what one server shall take
    dashboards=20,
    repeats=100,
    query_s_max=20,
    raw_singles=2_000,
    views=20,
    starts=5,
    pressure_s=(2, 5),
    compared_events=1_000_000,
    settles=True,
)
QUICK: Final = Effort(
    sizes=(20_000,),
    body_sizes=(5_000,),
    bulk_events=10_000,
    source_records=2_048,
    file_records=10_000,
    turns=1,
    load_s=2,
    posts_per_s=100,
    dashboards=2,
    repeats=3,
    query_s_max=1,
    raw_singles=100,
    views=1,
    starts=1,
    pressure_s=(0.2, 0.4),
    compared_events=20_000,
    settles=False,
)
"""To see that the benchmarks work; its numbers mean nothing."""
