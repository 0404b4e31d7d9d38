"""``tallybook sync``: reads what a provider says was used and cost, and keeps it as a second book beside our own."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from types import FrameType
from typing import Annotated, Any, Final, NoReturn

import msgspec
from cyclopts import Parameter
from rich.table import Table

from tallybook.cli.amounts import shown
from tallybook.cli.provider import Bucket, Reader, Refused, TooFarBack, reading
from tallybook.cli.report import errors
from tallybook.cli.target import Client, Target, connect
from tallybook.cli.terminal import console, plain
from tallybook.cli.when import instant, show, span
from tallybook.clock import now_s
from tallybook.errors import CommandFailed, Unavailable
from tallybook.money import WIDE
from tallybook.money import plain as digits
from tallybook.providers.record import BUCKETS_MAX, Cost, Provider
from tallybook.providers.table import PROVIDERS
from tallybook.timegrid import DAY_S, HOUR_S, floor_s

_CHANGE_S: Final = 3 * DAY_S
"""How long after its end a provider may still correct a day."""
_GROWING_S: Final = HOUR_S
"""How long after its end more may be told of an hour; until then it makes no event, which nothing could correct."""
_LINES_AT_ONCE: Final = 5_000
_FAULTS_SHOWN: Final = 10
_OUTCOMES: Final = ("accepted", "duplicates", "conflicts", "rejected")
_OWN_SOURCE: Final = "sync"

_ENCODER: Final = msgspec.json.Encoder()


@dataclass(slots=True)
class _Day:
    """What a provider says of a day: rows of usage, and costs."""

    usage: list[dict[str, Any]] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    @property
    def amount(self) -> Decimal:
        """What it cost, US dollars."""
        total = Decimal(0)
        for cost in self.costs:
            total = WIDE.add(total, cost.amount)
        return total


@dataclass(frozen=True, slots=True)
class _Window:
    """What is to be read, as it was typed."""

    since: str
    until: str | None

    def instants(self, now: int) -> tuple[int, int]:
        """Return start and end, Unix seconds; nothing after the present."""
        start_s, end_s = instant(self.since, now), instant(self.until, now) if self.until else now
        if end_s <= start_s:
            raise CommandFailed(
                f"--until {self.until or 'now'} is not after --since {self.since}; the end is exclusive"
            )
        return start_s, min(end_s, now)


def sync(
    provider: Annotated[str, Parameter(choices=tuple(PROVIDERS))],
    /,
    *,
    since: str = "30d",
    until: str | None = None,
    every: str | None = None,
    from_url: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_events: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    forget: Annotated[bool, Parameter(negative="")] = False,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Read what a provider says was used and cost, and keep it beside what was recorded, for `tallybook reconcile`.

    Whole days (UTC). What was read of a day before is replaced, so late corrections come in. Nothing of it is usage,
    and no question but a reconciliation sees it, unless --as-events makes events of it. The provider's admin key is
    taken from OPENAI_ADMIN_KEY, ANTHROPIC_ADMIN_KEY or, for another Tallybook, TALLYBOOK_SOURCE_KEY.

    Example: tallybook sync openai --since 90d

    Example: tallybook sync anthropic --since 30d --every 1h

    Args:
        provider: Whose usage and costs.
        since: Start: 90d ago, a date, a time (UTC), or Unix seconds; widened to the whole day.
        until: End, exclusive, in the same forms. Default: now.
        every: Go on until stopped, and so often read the days that may still change, and those never read: 5m, 1h.
        from_url: Address of the provider. Default: its own; another Tallybook has none.
        dry_run: Only show what would be kept.
        as_events: Import its usage as events of ours, by the hour: history from before there was a Tallybook.
        force: With --as-events, also where events were recorded already: they count twice.
        forget: Delete all that was read of this provider.
    """
    window = _Window(since, until)
    interval_s = span(every) if every else None
    if as_events and (interval_s or forget):
        raise CommandFailed("--as-events imports history once; leave out --every and --forget")
    if force and not as_events:
        raise CommandFailed("--force belongs to --as-events")
    signal.signal(signal.SIGTERM, _stop)
    if forget:
        _forget(provider, target)
        return
    described = PROVIDERS[provider]
    address, key = _address(described, from_url), _key(described)
    with reading(described, address, key) as reader:
        if as_events:
            _import(described, reader, window, target, dry_run=dry_run, force=force)
        elif interval_s is None:
            _sync(described, reader, window, target, dry_run=dry_run, only_changing=False)
        else:
            _sync_on(described, reader, window, target, interval_s, dry_run=dry_run)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End in order: what is under way is kept whole or not at all, a server beside is stopped, a key given back."""
    sys.exit(0)


def _address(provider: Provider, given: str | None) -> str:
    address = given or provider.address
    if address is None:
        raise CommandFailed(
            f"say where the other Tallybook is: --from-url http://..., its key in {provider.key_variable}"
        )
    return address


def _key(provider: Provider) -> str:
    key = os.environ.get(provider.key_variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CommandFailed(f"set {provider.key_variable} to an admin key of {provider.name}")
    return key


def _forget(provider: str, target: Target) -> None:
    with connect(target) as client:
        days = client.delete(f"reconciliation/books/{provider}")["deleted"]
    errors().print(f"Forgot {days:,} days of {provider}.")


def _sync_on(
    provider: Provider, reader: Reader, window: _Window, target: Target, interval_s: int, *, dry_run: bool
) -> None:
    """Read now and then, until the process is stopped; what fails is tried again the next time."""
    is_first = True
    while True:
        try:
            _sync(provider, reader, window, target, dry_run=dry_run, only_changing=True)
        except (CommandFailed, Unavailable) as error:
            # A wrong key does not get right by itself; one that was right may have been exchanged just now.
            if is_first and isinstance(error, Refused):
                raise
            errors().print(f"{provider.name}: {plain(str(error))}; trying again in {interval_s} s", markup=False)
        is_first = False
        time.sleep(interval_s)


def _sync(
    provider: Provider, reader: Reader, window: _Window, target: Target, *, dry_run: bool, only_changing: bool
) -> None:
    """Read a window's days and keep them, those of a page at a time, the oldest first."""
    now = now_s()
    start_s, end_s = window.instants(now)
    days = list(range(floor_s(start_s, DAY_S), end_s, DAY_S))
    if dry_run:
        _show(dict(_read(provider, reader, days)))
        return
    kept: dict[int, _Day] = {}
    with connect(target, may_found=True, exact=True) as client:
        if only_changing:
            read_at = {day["start_time"]: day["read_at"] for day in _days_read(client, provider)}
            days = [day_s for day_s in days if read_at.get(day_s, 0) < day_s + DAY_S + _CHANGE_S]
        try:
            for day_s, day in _read(provider, reader, days):
                client.put(f"reconciliation/books/{provider.name}", _body(day_s, day, now))
                kept[day_s] = day
        finally:
            if kept:  # whatever comes between: what is kept is told
                _tell(provider, kept)
    if not kept and not only_changing:
        errors().print(f"{provider.name} tells nothing of these days.")


def _days_read(client: Client, provider: Provider) -> list[dict[str, Any]]:
    days: list[dict[str, Any]] = client.get(f"reconciliation/books/{provider.name}")["data"]
    return days


def _read(provider: Provider, reader: Reader, days: Sequence[int]) -> Iterator[tuple[int, _Day]]:
    """Yield what a provider says of each day, as many at a time as a page of its has."""
    for run in _runs(days):
        try:
            yield from _read_run(provider, reader, run)
        except TooFarBack as error:
            since_s = error.since_s
            if since_s is None or since_s <= run[0]:
                raise
            errors().print(f"{plain(str(error))} Earlier days are left out.", markup=False)
            yield from _read_run(provider, reader, [day_s for day_s in run if day_s >= since_s])


def _read_run(provider: Provider, reader: Reader, run: Sequence[int]) -> Iterator[tuple[int, _Day]]:
    if not run:
        return
    found = {day_s: _Day() for day_s in run}
    start_s, end_s = run[0], run[-1] + DAY_S
    for bucket in reader.buckets(provider.costs, start_s, end_s, "1d", provider.costs.group_by):
        found[floor_s(bucket.start_s, DAY_S)].costs += reader.read(provider.costs, bucket)
    for report in provider.usage:
        for bucket in reader.buckets(report, start_s, end_s, "1d", report.group_by):
            day_s = floor_s(bucket.start_s, DAY_S)
            found[day_s].usage += ({**event, "timestamp": day_s} for event in reader.read(report, bucket))
    yield from found.items()


def _runs(days: Iterable[int]) -> Iterator[list[int]]:
    """Yield days that follow each other, as many together as a page has."""
    run: list[int] = []
    for day_s in days:
        if run and (day_s != run[-1] + DAY_S or len(run) == BUCKETS_MAX["1d"]):
            yield run
            run = []
        run.append(day_s)
    if run:
        yield run


def _body(day_s: int, day: _Day, read_at_s: int) -> bytes:
    return _ENCODER.encode(
        {
            "start_time": day_s,
            "end_time": day_s + DAY_S,
            "read_at": read_at_s,
            "usage": day.usage,
            "costs": [
                {
                    "start_time": day_s,
                    "line_item": cost.line_item,
                    "project_id": cost.project_id,
                    "quantity": None if cost.quantity is None else digits(cost.quantity),
                    "amount": {"value": digits(cost.amount), "currency": "usd"},
                }
                for cost in day.costs
            ],
        }
    )


def _tell(provider: Provider, days: dict[int, _Day]) -> None:
    first, last = show(min(days), "1d"), show(max(days), "1d")
    usage, costs = (sum(len(getattr(day, name)) for day in days.values()) for name in ("usage", "costs"))
    errors().print(
        f"Read {len(days):,} days of {provider.name}, {first} to {last}: {usage:,} rows of usage, {costs:,} of costs, "
        f"{shown(_total(days))} USD. Compare with 'tallybook reconcile --provider {provider.name} --since {first}'."
    )


def _total(days: dict[int, _Day]) -> Decimal:
    total = Decimal(0)
    for day in days.values():
        total = WIDE.add(total, day.amount)
    return total


def _show(days: dict[int, _Day]) -> None:
    table = Table("day (UTC)", "rows of usage", "rows of costs", "amount (USD)", show_footer=True)
    table.columns[0].footer = "total"
    table.columns[3].footer = shown(_total(days))
    for column in table.columns[1:]:
        column.justify = "right"
    for day_s, day in days.items():
        table.add_row(show(day_s, "1d"), f"{len(day.usage):,}", f"{len(day.costs):,}", shown(day.amount))
    console().print(table)
    errors().print("Nothing was kept.")


def _import(provider: Provider, reader: Reader, window: _Window, target: Target, *, dry_run: bool, force: bool) -> None:
    """Make an event of all that a group used in an hour; what is there already is recognised."""
    now = now_s()
    start_s, end_s = window.instants(now)
    start_s, end_s = floor_s(start_s, HOUR_S), floor_s(min(end_s, now - _GROWING_S), HOUR_S)
    if dry_run:
        count = sum(1 for _ in _events(provider, reader, start_s, end_s))
        errors().print(f"{provider.name} tells of {count:,} events from {show(start_s, '1h')} to {show(end_s, '1h')}.")
        return
    totals = dict.fromkeys(_OUTCOMES, 0)
    faults: list[str] = []
    with connect(target, may_found=True, exact=True) as client:
        if not force:
            _refuse_recorded(client, start_s, end_s)
        events = _events(provider, reader, start_s, end_s)
        try:
            while lines := [_ENCODER.encode(event) for event in islice(events, _LINES_AT_ONCE)]:
                receipt = client.post_events(f"usage/events/{_OWN_SOURCE}", b"\n".join(lines))
                for outcome in _OUTCOMES:
                    totals[outcome] += receipt[outcome]
                faults += (fault["message"] for fault in receipt["faults"])
        finally:
            _report(totals, faults)
    if totals["conflicts"] or totals["rejected"]:
        sys.exit(1)


def _refuse_recorded(client: Client, start_s: int, end_s: int) -> None:
    """Refuse to count what was recorded here a second time."""
    found = client.get("usage/sources", start_time=start_s, end_time=end_s)["sources"] if end_s > start_s else []
    others = [each for each in found if each["source"] != _OWN_SOURCE]
    if others:
        first_s = min(each["first_event_at"] for each in others)
        until = show(floor_s(first_s, HOUR_S), "1h").replace(" ", "T")
        names = ", ".join(sorted({each["source"] for each in others}))
        raise CommandFailed(
            f"events were recorded here from {show(first_s, '1h')} on ({names}); what a provider tells of that time "
            f"would count twice. End before, with --until {until}, or, if the events are of other usage, use --force"
        )


def _events(provider: Provider, reader: Reader, start_s: int, end_s: int) -> Iterator[dict[str, Any]]:
    """Yield an event for each group of each hour, the oldest hours first."""
    step_s = BUCKETS_MAX["1h"] * HOUR_S
    for from_s in range(start_s, end_s, step_s):
        for report in provider.usage:
            for bucket in reader.buckets(report, from_s, min(from_s + step_s, end_s), "1h", report.finest):
                for event in _merged(reader.read(report, bucket)):
                    yield _identified(provider, bucket, event)


def _merged(events: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return events of which no two are of one group: what an hour tells twice of a group is added up."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in events:
        counts = {name: value for name, value in event.items() if _is_count(value)}
        group = tuple(sorted((name, str(value)) for name, value in event.items() if name not in counts))
        if same := found.get(group):
            for name, value in counts.items():
                same[name] = same.get(name, 0) + value
        else:
            found[group] = event
    return found.values()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _identified(provider: Provider, bucket: Bucket, event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with what makes it the same whenever it is read: provider, bucket and group."""
    group = sorted((name, str(value)) for name, value in event.items() if not _is_count(value))
    digest = hashlib.blake2b(_ENCODER.encode([bucket.start_s, group]), digest_size=12).hexdigest()
    return {**event, "id": f"{provider.name}-{digest}", "timestamp": bucket.start_s}


def _report(totals: dict[str, int], faults: list[str]) -> None:
    table = Table(*_OUTCOMES)
    table.add_row(*(f"{totals[outcome]:,}" for outcome in _OUTCOMES))
    console().print(table)
    for message in faults[:_FAULTS_SHOWN]:
        errors().print(plain(message), markup=False)
    if totals["conflicts"]:
        errors().print("Of hours in conflict the provider says something else than when they were imported.")
