"""``tallybook reconcile``: what was recorded here beside what providers say, by day and line item."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.table import Table

from tallybook.cli.amounts import aligned, shown
from tallybook.cli.report import Column, Json, Row, Where, add_column, errors, print_csv, print_json, rows_of
from tallybook.cli.target import Client, Target, connect
from tallybook.cli.terminal import cell, console
from tallybook.cli.unpriced import tell_unpriced, unpriced
from tallybook.cli.when import instant, show
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.money import WIDE, difference, share
from tallybook.timegrid import COST_WIDTHS

_FIELDS: Final = ("line_item", "model", "project_id")
_SIDES: Final = ("recorded", "billed", "difference")


def reconcile(
    *,
    provider: str | None = None,
    since: str = "7d",
    until: str | None = None,
    group_by: Annotated[str, Parameter(alias="-g")] = "line_item",
    where: Where = None,
    differing: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, Parameter(name="--csv", negative="")] = False,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Show what was recorded beside what a provider says, by day (UTC), with difference and ratio.

    What only one side has is shown. Days that were never read are no difference: read them with `tallybook sync`.
    Amounts are exact in CSV and JSON; a table rounds them.

    Example: tallybook reconcile --since 30d

    Example: tallybook reconcile --provider openai --group-by project_id --differing

    Args:
        provider: Whose book. Default: each one that was read.
        since: Start: 7d, 30d ago, a date, or Unix seconds; widened to the whole day.
        until: End, in the same forms. Default: now.
        group_by: Fields to group by, of line_item, model and project_id, separated by commas; empty for whole days.
        where: project_id=VALUE that usage must have; repeat it for any of several.
        differing: Leave out what is the same in both.
        as_json: Print the buckets as JSON, as the API has them.
        as_csv: Print CSV.
    """
    now = now_s()
    parameters: dict[str, Any] = {"start_time": instant(since, now), "limit": COST_WIDTHS["1d"].limit_max}
    if until:
        parameters["end_time"] = instant(until, now)
    if group_by:
        parameters["group_by"] = group_by
    if where:
        parameters["project_ids"] = _projects(where)
    with connect(target, exact=True) as client:
        found = {
            name: list(client.pages("reconciliation", provider=name, **parameters))
            for name in ([provider] if provider else _read(client))
        }
        missing = [entry for name, buckets in found.items() for entry in _missing(client, name, buckets, parameters)]
    if differing:
        for bucket in (bucket for buckets in found.values() for bucket in buckets):
            bucket["results"] = [result for result in bucket["results"] if _differs(result)]
            bucket["result"] = bucket["results"]
    if as_json:
        print_json([bucket | {"provider": name} for name, buckets in found.items() for bucket in buckets])
    elif as_csv:
        _print_csv(found)
    else:
        for name, buckets in found.items():
            _print_table(name, buckets, [field for field in group_by.split(",") if field])
    tell_unpriced(missing, min((entry["since"] for entry in missing), default=0))


def _missing(
    client: Client, provider: str, buckets: list[dict[str, Any]], asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return unpriced usage of the line items that are in a provider's book of what was recorded."""
    if not buckets:
        return []
    projects = {name: value for name, value in asked.items() if name == "project_ids"}
    found = unpriced(client, buckets[0]["start_time"], buckets[-1]["end_time"], projects)
    if not found:
        return []
    pages = client.pages("reconciliation", provider=provider, **{**asked, "group_by": "line_item"})
    recorded = {
        result["line_item"] for row in pages for result in row["results"] if result["recorded"]["quantity"] is not None
    }
    return [entry for entry in found if entry["line_item"].removeprefix(f"{provider}/") in recorded]


def _projects(where: Sequence[str]) -> list[str]:
    projects = []
    for condition in where:
        field, equals, value = condition.partition("=")
        if field != "project_id" or not equals:
            raise CommandFailed(f"--where {condition!r}: write project_id=VALUE")
        projects.append(value)
    return projects


def _read(client: Client) -> list[str]:
    """Return the providers of which something was read."""
    names = [book["provider"] for book in client.get("reconciliation/books")["data"]]
    if not names:
        raise CommandFailed("no provider was read yet; 'tallybook sync openai --since 30d' reads one")
    return names


def _differs(result: dict[str, Any]) -> bool:
    return bool(result["difference"]["quantity"] or _amount(result, "difference"))


def _amount(result: dict[str, Any], side: str) -> Decimal | None:
    amount = result[side]["amount"]
    return None if amount is None else Decimal(amount["value"])


def _print_csv(found: dict[str, list[dict[str, Any]]]) -> None:
    header = ["start_time", "end_time", "read_at", "complete", "provider", *_FIELDS, "quantity_unit"]
    header += [f"{side}_{what}" for side in _SIDES for what in ("quantity", "amount")]
    rows = (
        [bucket["start_time"], bucket["end_time"], bucket["read_at"], bucket["complete"], name]
        + [result[field] for field in (*_FIELDS, "quantity_unit")]
        + [value for side in _SIDES for value in (result[side]["quantity"], _amount(result, side))]
        + [result["difference"]["ratio"]]
        for name, buckets in found.items()
        for bucket in buckets
        for result in bucket["results"]
    )
    print_csv([*header, "ratio"], rows)


def _print_table(provider: str, buckets: list[dict[str, Any]], grouped: Sequence[str]) -> None:
    rows = rows_of(buckets)
    if rows:
        _print_rows(provider, rows, {bucket["start_time"]: bucket for bucket in buckets}, grouped)
    else:
        console().print(f"{provider}: nothing in this window.", markup=False)
    unread = sum(bucket["read_at"] is None for bucket in buckets)
    if unread:
        errors().print(
            f"{unread} of {len(buckets)} days were never read of {provider}, and are compared with nothing; "
            f"'tallybook sync {provider} --since {show(buckets[0]['start_time'], '1d')}' reads them.",
            markup=False,
        )


def _print_rows(provider: str, rows: Sequence[Row], buckets: dict[int, dict[str, Any]], grouped: Sequence[str]) -> None:
    columns = []
    if "line_item" in grouped:
        columns += [
            Column(side, [_count(row.result[side]["quantity"]) for row in rows]) for side in ("recorded", "billed")
        ]
        columns.append(Column("unit", [row.result["quantity_unit"] or "-" for row in rows], is_number=False))
    # Of days that were never read there is one side only: it is no part of the totals.
    compared = [row for row in rows if buckets[row.start_s]["read_at"] is not None]
    totals = {side: _total(compared, side) for side in ("recorded", "billed")}
    apart = difference(totals["recorded"], totals["billed"])
    for side, total in (*totals.items(), ("difference", apart)):
        texts = [_shown(_amount(row.result, side), signed=side == "difference") for row in rows]
        *cells, footer = aligned([*texts, _shown(total, signed=side == "difference")])
        columns.append(Column(f"{side} (USD)", cells, footer))
    ratios = [_percent(row.result["difference"]["ratio"]) for row in rows]
    columns.append(Column("ratio", ratios, _percent(share(apart, totals["billed"]))))
    table = Table("day (UTC)", *grouped, title=provider, title_justify="left", show_footer=True, footer_style="bold")
    table.columns[0].footer = "total"
    for column in columns:
        add_column(table, column)
    for number, row in enumerate(rows):
        is_complete = buckets[row.start_s]["complete"]
        table.add_row(
            show(row.start_s, "1d") + ("" if is_complete else "*"),
            *(cell(row.result[name]) for name in grouped),
            *(cell(column.cells[number]) for column in columns),
        )
    console().print(table)
    if any(not buckets[row.start_s]["complete"] for row in rows):
        errors().print("* read before the day was over, or not at all")


def _total(rows: Sequence[Row], side: str) -> Decimal | None:
    amounts = [amount for row in rows if (amount := _amount(row.result, side)) is not None]
    total = Decimal(0)
    for amount in amounts:
        total = WIDE.add(total, amount)
    return total if amounts else None


def _count(quantity: Decimal | int | None) -> str:
    if quantity is None:
        return "-"
    return shown(quantity) if isinstance(quantity, Decimal) else f"{quantity:,}"


def _shown(amount: Decimal | None, *, signed: bool = False) -> str:
    return "-" if amount is None else shown(amount, signed=signed)


def _percent(ratio: Decimal | int | None) -> str:
    return "-" if ratio is None else f"{Decimal(ratio) * 100:+.2f}%"
