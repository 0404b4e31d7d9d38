"""``tallybook prices``: what the price book says, price files tried before they are used, newer list prices."""

import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Final

import cyclopts
from cyclopts import Parameter
from rich.table import Table

from tallybook.cli.amounts import aligned, digits
from tallybook.cli.report import Column, Json, add_column, errors, print_json_lines
from tallybook.cli.target import Target, connect
from tallybook.cli.terminal import cell, console, plain
from tallybook.cli.when import instant, show
from tallybook.clock import now_s
from tallybook.config import DEFAULT_DATA
from tallybook.errors import CommandFailed
from tallybook.kinds import KINDS
from tallybook.lock import running
from tallybook.parts import PARTS_OF
from tallybook.prices.file import Entry, FaultyPrices, read

prices = cyclopts.App(name="prices", help="Show prices, try price files, fetch newer list prices.")

_Target = Annotated[Target, Parameter(name="*")]

_PATH: Final = "costs/prices"
_CHANGES_SHOWN: Final = 50
_TOOLS: Final = frozenset(kind for kind, parts in PARTS_OF.items() if not any(part.has_model for part in parts))
"""Kinds with prices for any model."""
_SAME: Final = (
    "provider",
    "model",
    "kind",
    "counted",
    "service_tier",
    "batch",
    "above_input_tokens",
    "size",
    "quality",
    "context_level",
    "inference_geo",
    "hours",
    "unit",
)
"""What a price is for: fields in which two prices of the same thing agree."""
_Thing = tuple[object, ...]


@prices.command(name="list")
def list_(
    pattern: str | None = None,
    /,
    *,
    at: str | None = None,
    as_json: Json = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """List the prices in force: of the operator's file, the built-in one, and list prices of the standard tier.

    Example: tallybook prices list 'gpt-4o*' --at 2026-01-31

    Args:
        pattern: Only models (providers, kinds) with such a name: with * for anything, otherwise any that contain it.
        at: When: a date, a time (UTC), 7d ago, or Unix seconds. Default: now.
        as_json: Print them whole, one JSON object a line.
    """
    at_s = instant(at, now_s()) if at else now_s()
    answer = _ask(target, at_s)
    held = _in_force(answer["data"], at_s).values()
    found = [entry for entry in held if pattern is None or _fits(entry, pattern.lower())]
    if as_json:
        print_json_lines(found)
        return
    if not found:
        raise CommandFailed(f"no price is for {pattern!r}; see 'tallybook prices list'" if pattern else "no prices")
    _print(found)
    errors().print(_book(answer["book"]))


@prices.command(name="show")
def show_(
    model: str,
    /,
    *,
    at: str | None = None,
    as_json: Json = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Show everything that prices a model: each tier, batch jobs, context thresholds, sizes.

    The exit code is 1 if it has no price of its own; searches cost the same whatever the model.

    Example: tallybook prices show gpt-4o-2024-08-06 --at 2026-01-31

    Args:
        model: Name of the model, as events give it.
        at: When: a date, a time (UTC), 7d ago, or Unix seconds. Default: now.
        as_json: Print them whole, one JSON object a line.
    """
    answer = _ask(target, instant(at, now_s()) if at else now_s(), model=model)
    found = [entry for entry in answer["data"] if "model" in KINDS[entry["kind"]].dimensions]
    if all(entry["kind"] in _TOOLS for entry in found):
        raise CommandFailed(
            f"{plain(model)} has no price of its own {f'at {at}' if at else 'now'}: what it is used for is unpriced; "
            "give it prices in the file that the setting 'price-file' names"
        )
    if as_json:
        print_json_lines(found)
        return
    _print(found, "source", "checked")
    errors().print(_book(answer["book"]))


@prices.command
def check(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
) -> None:
    """Try a price file without using it: every fault is told with its line. The exit code is 1 if there is one.

    Needs no server. A server refuses a file with a fault as a whole and goes on with the prices it has.

    Example: tallybook prices check prices.csv

    Args:
        file: Price file; - for standard input.
    """
    name = "standard input" if str(file) == "-" else file
    try:
        _, entries = read_prices(file)
    except FaultyPrices as faulty:
        for fault in faulty.faults:
            errors().print(plain(f"{name}: {fault}"), markup=False)
        errors().print(f"{len(faulty.faults)} faults; the file would be refused whole.", style="red")
        sys.exit(1)
    models = {entry.model for entry in entries if entry.model}
    lines = {entry.line for entry in entries}
    print(f"{name}: {len(lines):,} entries for {len(models):,} models, no fault.")


@prices.command
def update(
    *,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    data: Annotated[Path, Parameter(env_var="TALLYBOOK_DATA")] = DEFAULT_DATA,
) -> None:
    """Fetch newer list prices into the data directory. A server that runs there takes them at once.

    What is charged already stays as it is; see `costs rerate`.

    Example: tallybook prices update

    Args:
        source: File or address to take them from. Default: where the library publishes them.
        data: Data directory.
    """
    if not data.is_dir():
        raise CommandFailed(f"there is no data directory {data}; name one with --data")
    target = Target(data=data)
    is_running = running(data) is not None
    now = now_s()
    before = _in_force(_ask(target, now)["data"], now) if is_running else {}
    update_library: Callable[[Path, str | None], Any] = resolve_name("tallybook.prices.library:update")  # slow to load
    fetched = update_library(data, source)
    print(f"List prices of {fetched.models:,} models, {fetched.version}, are in {data}.")
    if is_running:
        with connect(target, exact=True) as client:
            client.post(f"{_PATH}/reload")
            after = _in_force(client.get(_PATH, at=now)["data"], now)
        _print_differences(before, after)


@prices.command
def reload(*, target: _Target = Target()) -> None:  # noqa: B008  frozen
    """Make the server read its price files again, now. It does so by itself within 10 seconds of a change.

    A file with a fault is refused: the prices that are in force stay.

    Example: tallybook prices reload
    """
    with connect(target, exact=True) as client:
        answer = client.post(f"{_PATH}/reload")
    changed = "Other prices are in force now." if answer["changed"] else "They are as the server read them last."
    print(f"{changed} {_book(answer['book'])}")


def read_prices(path: Path) -> tuple[str, list[Entry]]:
    """Return the text and the entries of a price file; - is standard input.

    Raises:
        FaultyPrices: it has a fault.
        CommandFailed: it cannot be read.
    """
    try:
        text = (sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()).decode()
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"cannot read {path}: it is not UTF-8 ({error}); save it as UTF-8") from error
    return text, read(text, str(path))


def _ask(target: Target, at_s: int, **parameters: str) -> dict[str, Any]:
    with connect(target, exact=True) as client:
        return client.get(_PATH, at=at_s, **parameters)


def _in_force(entries: list[dict[str, Any]], at_s: int) -> dict[_Thing, dict[str, Any]]:
    """Return the prices that hold at an instant, by what they are for: of the same thing the one that began last."""
    found: dict[_Thing, dict[str, Any]] = {}
    for entry in entries:
        since_s, until_s = entry["from"] or 0, entry["until"]
        thing = tuple(entry[field] for field in _SAME)
        other = found.get(thing)
        if since_s <= at_s and (until_s is None or at_s < until_s) and not (other and (other["from"] or 0) >= since_s):
            found[thing] = entry
    return found


def _fits(entry: dict[str, Any], pattern: str) -> bool:
    names = [*(entry["model"] or "").split(), entry["provider"] or "", entry["kind"] or ""]
    wanted = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    return any(fnmatchcase(name.lower(), wanted) for name in names)


def _book(book: dict[str, Any]) -> str:
    sources = (f"{source['name']} {source['version']} ({source['entries']:,})" for source in book["sources"])
    return f"{book['id']}: {', '.join(' '.join(source.split()) for source in sources) or 'no prices'}"


def _print(found: list[dict[str, Any]], *more: str) -> None:
    """Print prices; further fields only if some price has them."""
    more = tuple(field for field in more if any(entry[field] for entry in found))
    table = Table("model", "kind", "counted", "only for")
    # Never rounded: a price is what is written in a file, not a sum.
    price = Column("price (USD)", aligned(digits(entry["price"]) for entry in found))
    add_column(table, price)
    for heading in ("per", "from", "until", *more):
        table.add_column(heading, overflow="fold")
    for number, entry in enumerate(found):
        table.add_row(
            cell(entry["model"]),
            cell(entry["kind"]),
            cell(entry["counted"]),
            cell(", ".join(_conditions(entry)) or None),
            cell(price.cells[number]),
            cell(entry["unit"]),
            _date(entry["from"]),
            _date(entry["until"]),
            *(cell(entry[field] or None) for field in more),
        )
    console().print(table)


def _conditions(entry: dict[str, Any]) -> Iterator[str]:
    """Yield in words what a price is only for."""
    if entry["service_tier"]:
        yield f"tier {entry['service_tier']}"
    if entry["batch"] is not None:
        yield "batch" if entry["batch"] else "no batch"
    if entry["above_input_tokens"] is not None:
        yield f"above {entry['above_input_tokens']:,} input tokens"
    for name in ("size", "quality"):
        if entry[name]:
            yield f"{name} {entry[name]}"
    if entry["context_level"]:
        yield f"{entry['context_level']} context"
    if entry["inference_geo"]:
        yield f"run in {entry['inference_geo']}"
    if entry["hours"]:
        yield str(entry["hours"])
    if entry["free"]:
        yield f"beyond {digits(entry['free'])} GiB"


def _date(instant_s: int | None) -> str:
    return "-" if instant_s is None else show(instant_s, "1d")


def _print_differences(old: dict[_Thing, dict[str, Any]], new: dict[_Thing, dict[str, Any]]) -> None:
    """Print which prices are new, gone or other than before."""
    added, gone = new.keys() - old.keys(), old.keys() - new.keys()
    changed = [(old[key], entry) for key, entry in new.items() if key in old and old[key]["price"] != entry["price"]]
    print(f"The server has them: {len(added):,} prices are new, {len(gone):,} gone, {len(changed):,} changed.")
    for was, entry in changed[:_CHANGES_SHOWN]:
        only = "".join(f", {condition}" for condition in _conditions(entry))
        price = f"{digits(was['price'])} to {digits(entry['price'])} USD per {entry['unit']}"
        console().print(cell(f"{entry['model']}, {entry['counted']}{only}: {price}"))
    if len(changed) > _CHANGES_SHOWN:
        print(f"and {len(changed) - _CHANGES_SHOWN:,} more; see 'tallybook prices list'")
