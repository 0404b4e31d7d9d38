"""What an engine must do. Everything above the store knows only this."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tallybook.event import Fault, Record
from tallybook.query import UsageQuery


class Quarantined(NamedTuple):
    """An event that could not be kept, waiting to be mended.

    Attributes:
        quarantine_id: derived from the content, so that the same bad event is one entry however often it is sent.
        created_at_s: when it was first refused, Unix seconds.
        event: the item as it was sent.
        faults: what is wrong with it.
    """

    quarantine_id: str
    created_at_s: int
    event: bytes
    faults: list[Fault]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request wants written: all of it, in one commit, or nothing.

    Attributes:
        organization_id: whose it is.
        records: events, in the order they were sent.
        quarantined: events that are no good.
        released: ids of quarantined events that leave quarantine with this commit. With records there is one for each:
            it leaves unless its record is in conflict, and a record whose entry has left already is a duplicate.
    """

    organization_id: str
    records: Sequence[Record] = ()
    quarantined: Sequence[Quarantined] = ()
    released: Sequence[str] = ()


class Conflict(NamedTuple):
    """A record whose identity is taken by another content; the first stands."""

    position: int
    kind: str
    field: str
    stored: object
    sent: object


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        accepted: how many records were stored, by usage kind.
        duplicates: how many were stored before, with the same content, by usage kind.
        conflicts: records refused because another content has their identity.
    """

    accepted: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    conflicts: list[Conflict] = field(default_factory=list)


class UsageRow(NamedTuple):
    """One group of one bucket.

    Attributes:
        start_s: start of its bucket, Unix seconds.
        group: values of the query's ``group_by``, in that order.
        measures: counts of the kind's measures, in that order.
    """

    start_s: int
    group: tuple[str | bool | None, ...]
    measures: tuple[int, ...]


class Difference(NamedTuple):
    """A rollup cell that does not equal its raw events."""

    rollup: str
    start_s: int
    kind: str
    measure: str
    rolled_up: int
    raw: int


class StoreFacts(NamedTuple):
    """Sizes of the store, for the operator."""

    schema_version: int
    events: int
    series: int
    quarantined: int
    first_event_s: int | None
    last_event_s: int | None


class Store(Protocol):
    """An engine. Methods may be called from any thread; `append` from one at a time."""

    def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Write all batches in one transaction and return when it is on disk.

        Returns:
            One outcome a batch, in order.

        Raises:
            Exception: the engine's own; then nothing was written.
        """
        ...

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Answer a query from one snapshot, ordered by bucket and group. Everything committed is in the answer.

        Raises:
            InvalidRequest: the answer would have more rows than the query allows.
            Unavailable: the engine could not answer.
        """
        ...

    def quarantine(self, organization_id: str, *, after: str | None, limit: int, descending: bool) -> list[Quarantined]:
        """Return quarantined events in the order they arrived, those after an id first to last."""
        ...

    def quarantined(self, organization_id: str, quarantine_id: str) -> Quarantined | None:
        """Return one quarantined event, None if there is none by that id."""
        ...

    def quarantine_count(self, organization_id: str) -> int:
        """Return how many events of an organization are in quarantine."""
        ...

    def compact(self, rows_for_cell_max: float, merges_max: int) -> int:
        """Merge the rollup rows of days that have more for each cell than that, at most so many days of a rollup.

        Returns:
            How many rows that saved.
        """
        ...

    def rebuild(self, start_s: int, end_s: int, organization_id: str | None) -> int:
        """Make the rollups of all whole days that touch the window anew from raw events; return how many days."""
        ...

    def check(self, organization_id: str | None) -> list[Difference]:
        """Compare all rollup cells with the raw events, at most a few hundred differences; an empty list is good."""
        ...

    def facts(self, organization_id: str | None) -> StoreFacts:
        """Return sizes, of one organization or of all."""
        ...

    def size_bytes(self) -> int:
        """Return the size of the store on disk."""
        ...

    def close(self) -> None:
        """Stop maintenance and questions, write everything to the main file and release it."""
        ...
