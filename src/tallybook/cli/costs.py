"""``tallybook costs``: what usage cost, what nothing has a price for, and charging anew by other prices."""

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
from cyclopts import Parameter
from rich.progress import track
from rich.table import Table

from tallybook.cli.amounts import aligned, shown, total
from tallybook.cli.prices import read_prices
from tallybook.cli.report import (
    Column,
    Json,
    Question,
    Row,
    add_column,
    errors,
    print_csv,
    print_json,
    print_json_lines,
    print_plot,
    print_table,
    rows_of,
)
from tallybook.cli.target import Target, connect
from tallybook.cli.terminal import cell, console
from tallybook.cli.unpriced import tell_unpriced, unpriced
from tallybook.cli.when import instant, show
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.timegrid import COST_WIDTHS, DAY_S, floor_s

costs = cyclopts.App(name="costs")

_Target = Annotated[Target, Parameter(name="*")]

_DIMENSIONS: Final = (
    "line_item",
    "project_id",
    "user_id",
    "api_key_id",
    "api_source",
    "model",
    "service_tier",
    "batch",
)
_FILTERS: Final = {
    "line_item": "line_items",
    "project_id": "project_ids",
    "user_id": "user_ids",
    "api_key_id": "api_key_ids",
    "model": "models",
    "service_tier": "service_tier",
    "batch": "batch",
}


@costs.default
def costs_(
    *,
    question: Annotated[Question, Parameter(name="*")] = Question(),  # noqa: B008  frozen
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Show what usage cost, as a table in the terminal. Amounts are exact in CSV and JSON; a table rounds them.

    The first bucket is whole: it begins at its own edge. What has no price is told at the end.

    Example: tallybook costs --group-by line_item,model --since 7d

    Example: tallybook costs --where model=gpt-4o-2024-08-06 --width 1h --since 24h --plot
    """
    parameters = question.parameters(_FILTERS, COST_WIDTHS[question.width].limit_max)
    filters = {name: value for name, value in parameters.items() if name in _FILTERS.values()}
    with connect(target, exact=True) as client:
        buckets = list(client.pages("costs", **parameters))
        missing = unpriced(client, buckets[0]["start_time"], buckets[-1]["end_time"], filters) if buckets else []
    if question.as_json:
        print_json(buckets)
    elif question.as_csv:
        _print_csv(rows_of(buckets))
    elif question.plot:
        print_plot(question, buckets, "amount (USD)", _amount, shown)
    else:
        _print_table(question, rows_of(buckets), are_unpriced=bool(missing))
    if missing:
        tell_unpriced(missing, buckets[0]["start_time"])


@costs.command(name="unpriced")
def list_unpriced(
    *,
    since: str | None = None,
    until: str | None = None,
    as_json: Json = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """List usage that nothing has a price for: it is counted, and in no amount.

    Example: tallybook costs unpriced --since 30d

    Args:
        since: Start: 7d, 24h, 30m ago, a date, a time (UTC), or Unix seconds. Default: the first event.
        until: End, in the same forms. Default: now.
        as_json: Print them whole, one JSON object a line.
    """
    now = now_s()
    window = {name: instant(text, now) for name, text in (("start_time", since), ("end_time", until)) if text}
    with connect(target, exact=True) as client:
        found = client.get("costs/unpriced", **window)["data"]
    if as_json:
        print_json_lines(found)
        return
    if not found:
        console().print("Nothing is unpriced.")
        return
    fields = ("line_item", "kind", "service_tier", "batch")
    table = Table("line item", "kind", "tier", "batch", "first (UTC)", "last (UTC)")
    columns = [
        Column("quantity", [_quantity(entry["quantity"]) for entry in found]),
        Column("unit", [entry["quantity_unit"] or "-" for entry in found], is_number=False),
        Column("events", ["-" if entry["events"] is None else f"{entry['events']:,}" for entry in found]),
    ]
    for column in columns:
        add_column(table, column)
    for number, entry in enumerate(found):
        table.add_row(
            *(cell(entry[field]) for field in fields),
            show(entry["since"], "1m"),
            show(entry["until"], "1m"),
            *(cell(column.cells[number]) for column in columns),
        )
    console().print(table)
    day = show(floor_s(min(entry["since"] for entry in found), DAY_S), "1d")
    errors().print(
        "To charge it: give it prices in the file that the setting 'price-file' names, try the file with "
        f"'tallybook prices check FILE', then 'tallybook costs rerate --from {day} --dry-run'."
    )


@costs.command
def rerate(
    *,
    since: Annotated[str, Parameter(name="--from")],
    until: Annotated[str | None, Parameter(name="--to")] = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    book: Path | None = None,
    as_json: Json = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Charge usage anew by the price book as it is now, and show by day and line item what changes.

    Whole days (UTC), each in one transaction. Doing it twice changes nothing more. With --dry-run and --book it
    answers what usage would have cost by other prices.

    Example: tallybook costs rerate --from 2026-01-01 --to 2026-02-01 --dry-run

    Example: tallybook costs rerate --from 2026-01-01 --to 2026-02-01 --dry-run --book other-prices.csv

    Args:
        since: Start: a date, a time (UTC), 7d ago, or Unix seconds; widened to the whole day.
        until: End, exclusive, in the same forms. Default: now.
        dry_run: Only show what would change.
        book: Price file that stands in for the operator's.
        as_json: Print the result as JSON, with every digit.
    """
    now = now_s()
    start_s, end_s = instant(since, now), instant(until, now) if until else now + 1
    if end_s <= start_s:
        raise CommandFailed(f"--to {until or 'now'} is not after --from {since}; the end is exclusive")
    days = range(floor_s(start_s, DAY_S), end_s, DAY_S)
    prices = read_prices(book)[0] if book else None
    answers: list[dict[str, Any]] = []
    with connect(target, exact=True) as client:
        if prices is None:
            # A file just changed may not have been noticed yet; the first days would be charged by what it was.
            client.post("costs/prices/reload")
        try:
            for day_s in _tracked(days, "Trying" if dry_run else "Charging"):
                asked = {"start_time": day_s, "end_time": day_s + DAY_S, "dry_run": dry_run, "prices": prices}
                answers.append(client.post("costs/rerate", json.dumps(asked).encode()))
        finally:
            # Whatever comes between, an error or Ctrl-C: what was done is told.
            if answers:
                _report(answers, as_json=as_json)
            if len(answers) < len(days):
                _tell_stopped(days, len(answers), dry_run=dry_run)
            if len({answer["book_id"] for answer in answers}) > 1:
                errors().print("The prices changed meanwhile. The same command charges all days by the new ones.")


@costs.command
def reratings(
    *,
    limit: int = 50,
    as_json: Json = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """List the days that were charged anew, the latest first: when, by which book, and the difference.

    Example: tallybook costs reratings

    Args:
        limit: The most to list.
        as_json: Print them whole, one JSON object a line.
    """
    with connect(target, exact=True) as client:
        found = list(client.entries("costs/reratings", limit, order="desc"))
    if as_json:
        print_json_lines(found)
        return
    if not found:
        console().print("Nothing was charged anew yet.")
        return
    table = Table("done (UTC)", "day (UTC)", "book")
    columns = [Column("events", [f"{entry['events']:,}" for entry in found]), *_changes(found)]
    for column in columns:
        add_column(table, column)
    for number, entry in enumerate(found):
        table.add_row(
            show(entry["created_at"], "1m"),
            show(entry["start_time"], "1d"),
            cell(entry["book_id"]),
            *(cell(column.cells[number]) for column in columns),
        )
    console().print(table)


def _amount(result: dict[str, Any]) -> Decimal:
    return Decimal(result["amount"]["value"])


def _quantity(quantity: Decimal | int | None) -> str:
    if quantity is None:
        return "-"
    return shown(quantity) if isinstance(quantity, Decimal) else f"{quantity:,}"


def _print_csv(rows: list[Row]) -> None:
    header = ["start_time", "end_time", "amount_value", "amount_currency"]
    fields = ["quantity", "quantity_unit", *_DIMENSIONS, "organization_id"]
    values = (
        [row.start_s, row.end_s, _amount(row.result), row.result["amount"]["currency"]]
        + [row.result[field] for field in fields]
        for row in rows
    )
    print_csv([*header, *fields], values)


def _print_table(question: Question, rows: list[Row], *, are_unpriced: bool) -> None:
    if not rows:
        console().print("Nothing in this window has a price." if are_unpriced else "No costs in this window.")
        return
    amounts = [_amount(row.result) for row in rows]
    *cells, footer = aligned(map(shown, [*amounts, total(amounts)]))
    columns = [Column("amount (USD)", cells, footer)]
    if any(row.result["quantity"] is not None for row in rows):
        columns = [*_quantities(row.result for row in rows), *columns]
    print_table(question, rows, columns)


def _quantities(found: Iterable[dict[str, Any]]) -> list[Column]:
    items = list(found)
    return [
        Column("quantity", [_quantity(item["quantity"]) for item in items]),
        Column("unit", [item["quantity_unit"] or "-" for item in items], is_number=False),
    ]


def _changes(found: Sequence[dict[str, Any]], *, dry_run: bool = False) -> list[Column]:
    """Return columns of what something cost before and after, and by how much that differs; with their totals."""
    before, after = ([item[name] for item in found] for name in ("before", "after"))
    change = [total([item["after"] or 0, -(item["before"] or 0)]) for item in found]
    columns = []
    for heading, amounts, signed in (
        ("now" if dry_run else "before", before, False),
        ("would be" if dry_run else "after", after, False),
        ("change", change, True),
    ):
        whole = [*amounts, total(amount or 0 for amount in amounts)]
        *cells, footer = aligned("-" if amount is None else shown(amount, signed=signed) for amount in whole)
        columns.append(Column(f"{heading} (USD)", cells, footer))
    return columns


def _tracked(days: range, doing: str) -> Iterable[int]:
    """Yield the days with a bar that moves on a terminal."""
    terminal = errors()
    return track(days, doing, console=terminal, transient=True, disable=not terminal.is_terminal)


def _report(answers: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print what changed, or would change: by day and line item, by line item over all days, and in all."""
    whole = answers[-1] | {"days": [day for answer in answers for day in answer["days"]]}
    if as_json:
        print_json(whole)
        return
    dry_run = whole["dry_run"]
    items = [(day["start_time"], item) for day in whole["days"] for item in day["line_items"]]
    if not items:
        console().print("Nothing would change." if dry_run else "Nothing changed.")
        return
    days = [show(start_s, "1d") for start_s, _ in items]
    _print_items([item for _, item in items], days, dry_run=dry_run)
    if len(set(days)) > 1:
        _print_items(_summed(item for _, item in items), None, dry_run=dry_run)
    events = sum(day["events"] for day in whole["days"])
    changed = [day for day in whole["days"] if day["line_items"]]
    before, after = (shown(total(day[name] for day in changed)) for name in ("before", "after"))
    would = "would change: these days would cost" if dry_run else "changed: these days cost"
    left = " Nothing was changed." if dry_run else ""
    console().print(f"{events:,} events {would} {after} USD in all, not {before}.{left}")


def _print_items(items: list[dict[str, Any]], days: list[str] | None, *, dry_run: bool) -> None:
    table = Table(*(["day (UTC)"] if days else []), "line item", show_footer=True, footer_style="bold")
    table.columns[0].footer = "total"
    columns = [*_quantities(items), *_changes(items, dry_run=dry_run)]
    for column in columns:
        add_column(table, column)
    for number, item in enumerate(items):
        when = [days[number]] if days else []
        table.add_row(*when, cell(item["line_item"]), *(cell(column.cells[number]) for column in columns))
    console().print(table)


def _summed(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one item for each line item, with the sums of all days."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        found.setdefault(item["line_item"], []).append(item)
    return [
        same[0] | {name: total(item[name] or 0 for item in same) for name in ("before", "after")} | _sum_quantity(same)
        for _, same in sorted(found.items())
    ]


def _sum_quantity(items: list[dict[str, Any]]) -> dict[str, Any]:
    quantities = [item["quantity"] for item in items if item["quantity"] is not None]
    return {"quantity": sum(quantities) if quantities else None}


def _tell_stopped(days: range, done: int, *, dry_run: bool) -> None:
    first, next_ = show(days[0], "1d"), show(days[done], "1d")
    if dry_run:
        errors().print(f"Stopped: {next_} and later days were not tried. Nothing was changed.")
        return
    told = f"{first} to {show(days[done - 1], '1d')} are charged anew" if done else "no day is known to be charged anew"
    errors().print(
        f"Stopped: {told}; {next_} was under way and is charged anew whole or not at all, later days are not. "
        f"The same command with --from {next_} goes on."
    )
