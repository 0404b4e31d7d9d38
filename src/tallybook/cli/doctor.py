"""``tallybook doctor``."""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

from cyclopts import Parameter
from rich.console import Console

from tallybook import __version__
from tallybook.cli.target import Client, Target, connect
from tallybook.cli.terminal import plain, size
from tallybook.cli.when import show
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.keys import KeyStore
from tallybook.timegrid import DAY_S, floor_s

_FREE_BYTES_MIN: Final = 1 << 30
_PRICES_OLD_DAYS: Final = 90
"""Providers change list prices several times a year."""
_READ_OLD_DAYS: Final = 3
"""Beyond that corrections of a provider may have been missed."""
_NAMED_MAX: Final = 5
_STYLES: Final = {"ok": None, "warn": "yellow", "FAIL": "red"}


class Finding(NamedTuple):
    """What was looked at, how it is, and in words.

    Attributes:
        name: what was looked at.
        state: ``warn`` is for the operator to decide and leaves the exit code 0; ``FAIL`` makes it 1.
        text: what was found, with the remedy.
    """

    name: str
    state: Literal["ok", "warn", "FAIL"]
    text: str


def doctor(*, target: Annotated[Target, Parameter(name="*")] = Target()) -> None:  # noqa: B008  frozen
    """Check the store: rollups against raw events, quarantine, prices, disk, version.

    The exit code is 1 if something is wrong. Usage without a price is a warning, and leaves it 0.

    Example: tallybook doctor --data ./usage
    """
    console = Console(soft_wrap=True, highlight=False)
    healthy = True
    for name, state, text in _findings(target):
        healthy &= state != "FAIL"
        console.print(f"{state:4}  {name}: {plain(text)}", style=_STYLES[state], markup=False)
    if not healthy:
        sys.exit(1)


def _findings(target: Target) -> Iterator[Finding]:
    yield Finding("version", "ok", f"tallybook {__version__}")
    if target.url is None:
        stored = sum(file.stat().st_size for file in target.data.glob("tallybook.duckdb*"))
        yield Finding("store", "ok", f"{size(stored)} in {target.data}")
        free = shutil.disk_usage(target.data if target.data.exists() else ".").free
        yield Finding(
            "disk",
            "ok" if free >= _FREE_BYTES_MIN else "FAIL",
            f"{size(free)} free, at least {size(_FREE_BYTES_MIN)} wanted",
        )
    for number, organization in enumerate(_organizations(target)):
        with connect(replace(target, organization=organization)) as client:
            if not number:
                yield from _prices(client)
            found = client.get("usage/check")
            yield from _organization(found)
            sources = client.get("usage/sources")
            yield _repeated(found["organization_id"], sources["repeated"])
            yield from _noticed(found["organization_id"], sources["notices"])
            yield _unpriced(found["organization_id"], client.get("costs/unpriced")["data"])
            for book in client.get("reconciliation/books")["data"]:
                yield _reconciled(found["organization_id"], book)


def _organizations(target: Target) -> list[str]:
    """Those of the data directory; of a server elsewhere, the key's own."""
    if target.url or not target.data.is_dir():
        return [target.organization]
    keys = KeyStore(target.data)
    try:
        return keys.organizations() or [target.organization]
    finally:
        keys.close()


def _prices(client: Client) -> Iterator[Finding]:
    """Yield findings on the price book; one for the whole server."""
    try:
        # The server would read a changed file by itself; asked to, it says what is wrong with it.
        book = client.post("costs/prices/reload")["book"]
    except CommandFailed as refused:
        yield Finding("prices", "FAIL", str(refused))
        return
    sources = book["sources"]
    told = ", ".join(f"{source['entries']:,} of {source['name']} {source['version']}".strip() for source in sources)
    yield Finding("prices", "ok" if sources else "warn", f"{book['id']}: {told or 'no prices, so nothing is charged'}")
    for source in sources:
        fetched = re.search(r"\d{4}-\d{2}-\d{2}", source["version"])
        if source["name"] == "library" and fetched:
            days = (now_s() - int(datetime.fromisoformat(fetched[0]).replace(tzinfo=UTC).timestamp())) // DAY_S
            old = days > _PRICES_OLD_DAYS
            yield Finding(
                "prices",
                "warn" if old else "ok",
                f"list prices were fetched {days} days ago"
                + ("; fetch newer with 'tallybook prices update'" if old else ""),
            )


def _organization(found: dict[str, Any]) -> Iterator[Finding]:
    name = found["organization_id"]
    if found["version"] != __version__:
        yield Finding(name, "FAIL", f"the server is version {found['version']}, this command {__version__}")
    window = ""
    if found["first_event_s"] is not None:
        window = f", {show(found['first_event_s'], '1m')} to {show(found['last_event_s'], '1m')} UTC"
    yield Finding(
        name,
        "ok",
        f"{found['events']:,} events in {found['series']:,} series{window}; schema {found['schema_version']}",
    )
    wrong = found["differences"]
    yield Finding(
        name,
        "FAIL" if wrong else "ok",
        "rollups equal raw events"
        if not wrong
        else f"{len(wrong)} or more rollup sums differ from raw events, first {wrong[0]}; mend them with "
        f"'tallybook rebuild --since {_day(wrong[0]['start_s'])} --organization {name}'",
    )
    waiting = found["quarantined"]
    yield Finding(
        name,
        "FAIL" if waiting else "ok",
        f"{waiting:,} events in quarantine"
        + (f"; see 'tallybook quarantine list --organization {name}'" if waiting else ""),
    )


def _repeated(name: str, found: list[dict[str, Any]]) -> Finding:
    """Return the finding on calls that came in more than once.

    A warning: an id may be used again on purpose, which only those who chose it know.
    """
    if not found:
        return Finding(name, "ok", "no call of the last days came in twice")
    first = found[0]
    return Finding(
        name,
        "warn",
        f"{len(found)} or more calls of the last days came in twice and count twice, such as {first['id']} "
        f"({first['kind']}), {first['events']} times from {' and '.join(first['sources'])}. Let one source report each "
        "call",
    )


_NOTICES: Final = {
    "unread": (
        "source {source}: usage field {name} is not read, in {count:,} records. If it changes what a call costs, "
        "report it to the project, and correct the costs of these calls"
    ),
    "repeated": (
        "source {source} reported {count:,} calls that {name} had reported, such as {example}. They count once; let "
        "one of the two report each call"
    ),
    "differing": (
        "source {source} reported {count:,} calls with counts that differ from the first report ({name}), such as "
        "{example}. They count once, as first reported; find out which of the two is right and switch off the other"
    ),
    "alike": (
        "source {source}: {count:,} pairs of reports without a response id look like one call each, and count twice "
        "({name}). Switch off one of the two"
    ),
}


def _noticed(name: str, found: list[dict[str, Any]]) -> Iterator[Finding]:
    """Yield findings on what senders did recently, the most frequent of each subject first."""
    for subject, text in _NOTICES.items():
        same = sorted((each for each in found if each["subject"] == subject), key=lambda each: -each["count"])
        for each in same[:_NAMED_MAX]:
            yield Finding(name, "warn", text.format(**each))
        if len(same) > _NAMED_MAX:
            yield Finding(name, "warn", f"and {len(same) - _NAMED_MAX} more of these; GET /usage/sources lists all")


def _unpriced(name: str, missing: list[dict[str, Any]]) -> Finding:
    """Return the finding on what has no price.

    A warning: usage of own models may go without a price on purpose. Whether to charge it is the operator's to say.
    """
    if not missing:
        return Finding(name, "ok", "everything used has a price")
    models = list(dict.fromkeys(entry["model"] or entry["kind"] for entry in missing))
    others = f" and {len(models) - _NAMED_MAX} more" if len(models) > _NAMED_MAX else ""
    since = _day(min(entry["since"] for entry in missing))
    return Finding(
        name,
        "warn",
        f"unpriced: {', '.join(models[:_NAMED_MAX])}{others}, since {since}; no amount includes this usage. Give it "
        f"prices in the file that the setting 'price-file' names, 0 if it is free, then 'tallybook costs rerate --from "
        f"{since} --organization {name}'; see 'tallybook costs unpriced --organization {name}'",
    )


def _reconciled(name: str, book: dict[str, Any]) -> Finding:
    """Return the finding on how far what was recorded is from what a provider says.

    A warning: what does not go through here, such as a project of its own, may be meant to be missing.
    """
    provider = book["provider"]
    read = f"read {show(book['read_at'], '1m')} UTC"
    if now_s() - book["read_at"] > _READ_OLD_DAYS * DAY_S:
        return Finding(
            name,
            "warn",
            f"{provider} was {read}, and not since; 'tallybook sync {provider} --every 1h' goes on reading it",
        )
    if book["start_time"] is None:
        return Finding(name, "ok", f"{provider} was {read}; no day is settled yet, a day after its end it is")
    recorded, billed, apart = (float(book[side]["value"]) for side in ("recorded", "billed", "difference"))
    ratio = "" if book["ratio"] is None else f" ({float(book['ratio']):+.2%})"
    since = _day(book["start_time"])
    text = (
        f"{provider} charged {billed:,.2f} USD from {since} to {_day(book['end_time'])}, recorded is {recorded:,.2f}, "
        f"which is {apart:+,.2f}{ratio}; {read}"
    )
    if book["beyond"]:
        text += (
            f". See 'tallybook reconcile --provider {provider} --since {since} --differing --organization {name}'; the "
            "settings 'reconcile-percent-max' and 'reconcile-usd-max' say what is too much"
        )
    return Finding(name, "warn" if book["beyond"] else "ok", text)


def _day(instant_s: int) -> str:
    """Return the day of an instant, as a flag takes it."""
    return show(floor_s(instant_s, DAY_S), "1d")
