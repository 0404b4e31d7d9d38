"""What an engine must do. Everything above the store knows only this."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from tallybook.columns import Columns
from tallybook.errors import Reason
from tallybook.event import Fault, Record
from tallybook.kinds import UsageKind
from tallybook.parts import Part
from tallybook.query import Query
from tallybook.rate import Book, Rate


class Quarantined(NamedTuple):
    """An event that could not be kept, waiting to be mended.

    Attributes:
        quarantine_id: derived from the content, so that the same bad event is one entry however often it is sent.
        created_at_s: when it was first refused, Unix seconds.
        event: the item as it was sent.
        faults: what is wrong with it.
        dialect: what it is in, see `tallybook.sources`; None for an event of ours.
    """

    quarantine_id: str
    created_at_s: int
    event: bytes
    faults: list[Fault]
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request wants written: all of it, in one commit, or nothing.

    Attributes:
        organization_id: whose it is.
        records: events, in the order they were sent.
        quarantined: events that are no good.
        released: ids of quarantined events that leave quarantine with this commit. With records the first of them are
            theirs, one for each: it leaves unless a record of it is in conflict, and a record whose entry has left
            already is a duplicate.
        columns: events of a large body, instead of records.
        dialect: what the events came in, see `tallybook.sources`; None for events of ours.
        reports_calls: they are calls, each of which counts once, whatever source reports it and when.
    """

    organization_id: str
    records: Sequence[Record] = ()
    quarantined: Sequence[Quarantined] = ()
    released: Sequence[str] = ()
    columns: Sequence[Columns] = ()
    dialect: str | None = None
    reports_calls: bool = False

    @property
    def events(self) -> int:
        """How many events it holds."""
        return len(self.records) + sum(map(len, self.columns))

    @property
    def first_ms(self) -> float:
        """The earliest timestamp of its events, Unix milliseconds; infinite if there are none."""
        earliest = [record.timestamp_ms for record in self.records]
        earliest += (int(columns.timestamps_ms.min()) for columns in self.columns)
        return min(earliest, default=math.inf)


class Conflict(NamedTuple):
    """A record whose identity is taken by another content; the first stands.

    Attributes:
        position: of the record in its batch.
        kind: usage kind.
        field: the first that differs.
        stored: its value in what stands.
        sent: its value in the record.
        is_call: the record is one more report of a call, which is counted.
    """

    position: int
    kind: str
    field: str
    stored: object
    sent: object
    is_call: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        accepted: how many records were stored, by usage kind.
        duplicates: how many were stored before, with the same content, by usage kind.
        conflicts: records refused because another content has their identity.
        unpriced: how many of the accepted have something without a price, by usage kind.
        repeats: how many were reports of calls that stood already, by their source, by that of the report that stands,
            and by the count that they say otherwise, empty if none. They are among duplicates or conflicts as well.
        repeated_id: id of one of these calls.
    """

    accepted: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    conflicts: list[Conflict] = field(default_factory=list)
    unpriced: Counter[str] = field(default_factory=Counter)
    repeats: Counter[tuple[str | None, str | None, str]] = field(default_factory=Counter)
    repeated_id: str | None = None

    def add(self, other: "Outcome", places: Sequence[int]) -> None:
        """Add what became of some of the records; their places are given."""
        self.accepted += other.accepted
        self.duplicates += other.duplicates
        self.unpriced += other.unpriced
        self.repeats += other.repeats
        self.repeated_id = other.repeated_id or self.repeated_id
        self.conflicts += (conflict._replace(position=places[conflict.position]) for conflict in other.conflicts)


EVERYTHING: Final = "tallybook"
"""The provider whose book is another Tallybook's: all that is recorded may be in it."""


class Line(NamedTuple):
    """A line item: what is charged, and of which model, empty where that has none."""

    part: str
    model: str


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


class CostRow(NamedTuple):
    """What one group of one bucket cost.

    Attributes:
        start_s: start of its bucket, Unix seconds.
        group: values of the query's ``group_by``, in that order; a line item is its part and model.
        quantity: how much; None where the group is not of one part, or the part has no quantity.
        amount: 10^-18 US dollars.
        rate_id: by which rate; 0 unless the question was for details.
    """

    start_s: int
    group: tuple[str | bool | Line | None, ...]
    quantity: Decimal | int | None
    amount: int
    rate_id: int = 0


TOLD_APART: Final = ("kind", "model", "service_tier", "batch", "line_item")
"""What unpriced usage is always told apart by, grouped or not: a price depends on it."""


class Unpriced(NamedTuple):
    """Usage without a price.

    Attributes:
        since_s: the first event of it, Unix seconds; where that is no longer kept, the start of its hour or day.
        until_s: the last, likewise.
        quantity: how much, in the part's unit.
        events: how many events; None where not all are kept.
        bucket_s: start of its bucket, Unix seconds.
        group: the dimensions that were asked for, in that order, but for `TOLD_APART`.
    """

    kind: str
    model: str | None
    service_tier: str | None
    batch: bool | None
    part: Part
    since_s: int
    until_s: int
    quantity: Decimal | int
    events: int | None
    bucket_s: int
    group: tuple[str | bool | None, ...]


class LineChange(NamedTuple):
    """What re-rating a day does to a line item; amounts in 10^-18 US dollars, None where it has no price."""

    line: Line
    quantity_before: Decimal | int | None
    quantity_after: Decimal | int | None
    before: int | None
    after: int | None


class DayChange(NamedTuple):
    """What re-rating does to a day.

    Attributes:
        day_s: start of the day, Unix seconds.
        events: how many events, or changes of a price for what is held, it concerns.
        before: what the day cost, 10^-18 US dollars.
        after: what it costs then.
        lines: the line items that change.
    """

    day_s: int
    events: int
    before: int
    after: int
    lines: list[LineChange]


class Rerating(NamedTuple):
    """The record of a day that was rated again; amounts in 10^-18 US dollars."""

    rerating_id: str
    created_at_s: int
    day_s: int
    book_id: str
    events: int
    before: int
    after: int


class BilledCost(NamedTuple):
    """What a provider says that something cost on a day.

    Attributes:
        day_s: start of the day, Unix seconds.
        line_item: as the provider spells it; None if it names none.
        project_id: whose.
        quantity: how much, in the unit of our part; None if the provider does not say.
        amount: US dollars, with all its digits.
    """

    day_s: int
    line_item: str | None
    project_id: str | None
    quantity: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a provider's book: whole UTC days, which it says all about.

    Attributes:
        provider: whose book.
        start_s: start of the first day, Unix seconds.
        end_s: end of the last, exclusive.
        read_at_s: when reading began; what came later is not in it.
        usage: what was used, an event for each day, kind, model and project.
        costs: what it cost.
    """

    provider: str
    start_s: int
    end_s: int
    read_at_s: int
    usage: Sequence[Record]
    costs: Sequence[BilledCost]


class Side(NamedTuple):
    """What one book says of a group; None where it says nothing, which is not 0.

    Attributes:
        quantity: how much was used; None as well where the group is not of one line item.
        amount: US dollars.
    """

    quantity: Decimal | int | None
    amount: Decimal | None


class Comparison(NamedTuple):
    """One group of a day in both books.

    Attributes:
        start_s: start of the day, Unix seconds.
        group: values of the query's ``group_by``, in that order; a line item is its part and model, and one of the
            provider's that is none of ours is a text.
        recorded: what was recorded here.
        billed: what the provider says.
    """

    start_s: int
    group: tuple[str | Line | None, ...]
    recorded: Side
    billed: Side


class Difference(NamedTuple):
    """A rollup cell that does not equal its raw events."""

    rollup: str
    start_s: int
    kind: str
    measure: str
    rolled_up: int
    raw: int


class SourceFacts(NamedTuple):
    """What one source sent of one usage kind.

    Attributes:
        source: ``events``, or the dialect its records are in.
        kind: usage kind.
        events: how many.
        first_s: the earliest timestamp, Unix seconds.
        last_s: the latest.
    """

    source: str
    kind: str
    events: int
    first_s: int
    last_s: int


class Notice(NamedTuple):
    """Something that a sender does and its operator should know of.

    Attributes:
        subject: what it is, see `tallybook.ingest.notices`.
        source: ``events``, or the dialect of the records.
        name: which field or other source it is about.
        times: how many times it was noticed.
        last_s: when it was last noticed, Unix seconds.
        example: id of a call it concerns, where there is one.
    """

    subject: str
    source: str
    name: str
    times: int
    last_s: int
    example: str | None = None


class Repeated(NamedTuple):
    """An id that other software reported more than once, at different instants.

    Attributes:
        kind: usage kind.
        id: of the call.
        events: how many events have it.
        sources: whose they are.
    """

    kind: str
    id: str
    events: int
    sources: list[str]


class Keep(NamedTuple):
    """How many days what is kept, besides the present one; 0: for ever."""

    events: int = 0
    minutes: int = 0
    hours: int = 0


class Kept(NamedTuple):
    """Since when what is kept, Unix seconds; 0: since ever.

    Attributes:
        events_s: single events.
        minutes_s: sums by minute.
        hours_s: sums by hour.
    """

    events_s: int = 0
    minutes_s: int = 0
    hours_s: int = 0


class StoreFacts(NamedTuple):
    """Sizes of the store, for the operator."""

    schema_version: int
    events: int
    series: int
    quarantined: int
    first_event_s: int | None
    last_event_s: int | None
    kept: Kept


class Store(Protocol):
    """An engine. Methods may be called from any thread; `append` from one at a time."""

    def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Write all batches in one transaction and return when it is on disk.

        Returns:
            One outcome a batch, in order.

        Raises:
            NotReady: the engine takes no commits now, see `trouble`.
            Unavailable: it could not take this one. In both cases nothing was written.
        """
        ...

    @property
    def trouble(self) -> Reason | None:
        """Why nothing can be committed now; None if it can."""
        ...

    def recover(self) -> None:
        """Find out whether commits are possible; from the thread that appends, now and then while there is trouble."""
        ...

    def use(self, book: Book, now_ms: int) -> None:
        """Charge by a book from the next commit on. What is held costs by it from now on, not before."""
        ...

    def usage(self, kind: UsageKind, query: Query) -> list[UsageRow]:
        """Answer a query from one snapshot, ordered by bucket and group. Everything committed is in the answer.

        Raises:
            InvalidRequest: the answer would have more rows than the query allows, or need what is no longer kept.
            Unavailable: the engine could not answer.
        """
        ...

    def costs(self, query: Query) -> list[CostRow]:
        """Return what usage cost, ordered by bucket and group; groups nothing of which has a price are not there.

        Raises:
            InvalidRequest: the answer would have more rows than the query allows, or need what is no longer kept.
            Unavailable: the engine could not answer.
        """
        ...

    def charges(self, query: Query) -> list[CostRow]:
        """Return what usage cost, each bucket by `DETAILS`, line item and rate."""
        ...

    def rate(self, rate_id: int) -> Rate | None:
        """Return a rate by its number, None for those without prices of their own."""
        ...

    def unpriced(self, query: Query, *, counts: bool = True) -> list[Unpriced]:
        """Return usage without a price, by bucket, the most frequent first; what is held counts until now.

        Args:
            query: the question, as it is asked of costs. Kind, model, tier, batch and part are always told apart.
            counts: count events, and tell the first and last to the second. It takes reading each of them; otherwise
                what flowed is as where events are no longer kept.

        Raises:
            InvalidRequest: the window begins or ends where that can no longer be told; or there would be more rows
                than the query allows.
        """
        ...

    def rerate(self, organization_id: str, day_s: int, book: Book, now_ms: int, *, dry_run: bool) -> DayChange:
        """Charge a whole UTC day anew by a book, in one transaction; own costs stay. Leaves a record if it changes it.

        Args:
            organization_id: whose.
            day_s: start of the day, Unix seconds.
            book: where the prices are from.
            now_ms: the present.
            dry_run: only tell what would change.

        Raises:
            InvalidRequest: its events are no longer kept.
        """
        ...

    def reratings(self, organization_id: str) -> list[Rerating]:
        """Return the days rated again, in the order that was done."""
        ...

    def days(self, organization_id: str, start_s: int, end_s: int) -> list[int]:
        """Return the days of a window, in Unix seconds, that an organization has used something in, oldest first."""
        ...

    def events(self, organization_id: str, start_s: int, end_s: int, kinds: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield stored events of a window in the order of their time, with all fields of events as columns.

        Raises:
            InvalidRequest: some of them are no longer kept.
        """
        ...

    def keep_reading(self, organization_id: str, reading: Reading) -> None:
        """Put what was read of a provider in the place of what was read of those days before, in one transaction.

        Raises:
            NotReady: the engine takes no commits now.
            Unavailable: it could not take this one. In both cases all is as it was.
        """
        ...

    def drop_readings(self, organization_id: str, provider: str) -> int:
        """Forget what was read of a provider, in one transaction; return how many days."""
        ...

    def days_read(self, organization_id: str, provider: str) -> dict[int, int]:
        """Return the days that were read of a provider, and since when that is: Unix seconds, oldest first."""
        ...

    def books(self) -> list[tuple[str, str]]:
        """Return organizations and providers of which something was read."""
        ...

    def reconcile(self, query: Query, provider: str) -> list[Comparison]:
        """Return what was recorded of a provider's beside what it says itself, ordered by day and group.

        Args:
            query: by days, grouped by any of ``line_item``, ``model`` and ``project_id``, filtered by ``project_id``.
            provider: whose book; with `EVERYTHING` all that was recorded is compared, not only what is the provider's.

        Raises:
            InvalidRequest: there would be more rows than the query allows, or what is no longer kept would be needed.
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

    def fold(self) -> int:
        """Add what was committed since the last time to the rollups; no answer changes. Return how many events."""
        ...

    def compact(self, rows_for_cell_max: float, merges_max: int) -> int:
        """Merge the rollup rows of days that have more for each cell than that, at most so many days of a rollup.

        Returns:
            How many rows that saved.
        """
        ...

    @property
    def kept(self) -> Kept:
        """What is kept. Events from before are refused by `append`: nobody could tell whether they are new."""
        ...

    def expire(self, keep: Keep, now_s: int) -> int | None:
        """Delete what is beyond its age, at most a day of it; no answer that can still be given changes.

        Returns:
            How many rows; None if there was nothing to delete.
        """
        ...

    def rebuild(self, start_s: int, end_s: int, organization_id: str | None) -> int:
        """Make the rollups of all whole days that touch the window anew from raw events; return how many days.

        Raises:
            InvalidRequest: some of those events are no longer kept.
        """
        ...

    def check(self, organization_id: str | None) -> list[Difference]:
        """Compare all rollup cells with the raw events, at most a few hundred differences; an empty list is good."""
        ...

    def facts(self, organization_id: str | None) -> StoreFacts:
        """Return sizes, of one organization or of all."""
        ...

    def sources(self, organization_id: str, start_s: int, end_s: int) -> tuple[list[SourceFacts], list[Repeated]]:
        """Return which sources sent events of a window, Unix seconds, half-open, and calls that came more than once."""
        ...

    def note(self, organization_id: str, notices: Sequence[Notice]) -> None:
        """Add to an organization's notices; counts of the same name add up.

        Raises:
            Unavailable: the store could not write them.
        """
        ...

    def notices(self, organization_id: str, start_s: int) -> list[Notice]:
        """Return an organization's notices of since an instant, Unix seconds, the latest first."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether the main file stays as it is."""
        ...

    def hold(self) -> None:
        """Leave the main file as it is until it is released, so that it can be copied; commits go on beside it."""
        ...

    def release(self) -> None:
        """Let the main file be written again."""
        ...

    def size_bytes(self) -> int:
        """Return the size of the store on disk."""
        ...

    def close(self) -> None:
        """Stop maintenance and questions, write everything to the main file and release it."""
        ...
