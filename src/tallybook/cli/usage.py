"""``tallybook usage``."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import plotext
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tallybook.cli.target import Client, Target, connect
from tallybook.cli.when import instant, show
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.kinds import KINDS, UsageKind
from tallybook.timegrid import WIDTHS

Kind = Literal[tuple(KINDS)]  # type: ignore[valid-type]  # one name a row of the table
Width = Literal[tuple(WIDTHS)]  # type: ignore[valid-type]


@dataclass(frozen=True, slots=True)
class _Row:
    start_s: int
    end_s: int
    result: dict[str, Any]


def usage(
    kind: Kind,
    /,
    *,
    group_by: Annotated[str, Parameter(alias="-g")] = "",
    where: Annotated[list[str] | None, Parameter(negative="")] = None,
    since: str = "7d",
    until: str | None = None,
    width: Width = "1d",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    as_csv: Annotated[bool, Parameter(name="--csv", negative="")] = False,
    plot: Annotated[bool, Parameter(negative="")] = False,
    measure: str | None = None,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Show what was used, as a table in the terminal.

    Example: tallybook usage completions --group-by model --since 7d
    Example: tallybook usage completions --where model=gpt-4o-2024-08-06 --width 1h --since 24h --plot

    Args:
        kind: Usage kind.
        group_by: Fields to group by, separated by commas.
        where: FIELD=VALUE that usage must have; repeat a field for any of several values.
        since: Start: 7d, 24h, 30m ago, a date, a time (UTC), or Unix seconds.
        until: End, likewise. Default: now.
        width: Width of a bucket.
        as_json: Print the buckets as JSON, as the API has them.
        as_csv: Print CSV with all fields.
        plot: Draw bars.
        measure: What the bars measure. Default: the first measure of the kind.
    """
    described = KINDS[kind]
    if measure is not None and measure not in described.measures:
        raise CommandFailed(f"{kind} has no measure {measure!r}; it has {', '.join(described.measures)}")
    parameters = _parameters(described, group_by, where or [], since, until, width)
    with connect(target) as client:
        buckets = list(_buckets(client, described, parameters))
    if as_json:
        print(json.dumps(buckets, indent=2))
        return
    grouped = [name for name in group_by.split(",") if name]
    rows = [
        _Row(bucket["start_time"], bucket["end_time"], result) for bucket in buckets for result in bucket["results"]
    ]
    if as_csv:
        _print_csv(described, rows)
    elif plot:
        _print_plot(buckets, grouped, measure or described.measures[0], width)
    else:
        _print_table(described, grouped, rows, width)


def _parameters(
    kind: UsageKind, group_by: str, where: list[str], since: str, until: str | None, width: str
) -> dict[str, Any]:
    now = now_s()
    parameters: dict[str, Any] = {
        "start_time": instant(since, now),
        "bucket_width": width,
        "limit": WIDTHS[width].limit_max,
    }
    if until:
        parameters["end_time"] = instant(until, now)
    if group_by:
        parameters["group_by"] = group_by
    names = {dimension.name: name for name, dimension in kind.filters.items()}
    for condition in where:
        field, equals, value = condition.partition("=")
        if not equals or field not in names:
            raise CommandFailed(f"--where {condition!r}: write FIELD=VALUE with one of {', '.join(names)}")
        parameters.setdefault(names[field], []).append(value)
    return parameters


def _buckets(client: Client, kind: UsageKind, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    page = client.get(f"usage/{kind.name}", **parameters)
    yield from page["data"]
    while page["has_more"]:
        page = client.get(f"usage/{kind.name}", **parameters, page=page["next_page"])
        yield from page["data"]


def _print_csv(kind: UsageKind, rows: list[_Row]) -> None:
    writer = csv.writer(sys.stdout)
    names = [*kind.group_by, *kind.measures]
    writer.writerow(["start_time", "end_time", *names])
    for row in rows:
        writer.writerow([row.start_s, row.end_s, *(row.result[name] for name in names)])


def _print_table(kind: UsageKind, grouped: list[str], rows: list[_Row], width: str) -> None:
    # A measure that is 0 throughout says nothing here; --csv and --json have them all.
    measures = [name for name in kind.measures if any(row.result[name] for row in rows)]
    if not measures:
        Console().print(f"No {kind.name} usage in this window.")
        return
    table = Table("start (UTC)", *grouped, show_footer=not kind.is_level, footer_style="bold")
    for name in measures:
        total = sum(row.result[name] for row in rows)
        table.add_column(name.replace("_", " "), footer="" if kind.is_level else f"{total:,}", justify="right")
    table.columns[0].footer = "" if kind.is_level else "total"
    for row in rows:
        table.add_row(
            show(row.start_s, width),
            *(_text(row.result[name]) for name in grouped),
            *(f"{row.result[name]:,}" for name in measures),
        )
    Console().print(table)


def _print_plot(buckets: list[dict[str, Any]], grouped: list[str], measure: str, width: str) -> None:
    sums: dict[str, list[int]] = {}
    for position, bucket in enumerate(buckets):
        for result in bucket["results"]:
            name = " / ".join(_text(result[field]) for field in grouped) or measure
            sums.setdefault(name, [0] * len(buckets))[position] += result[measure]
    if not sums:
        Console().print("No usage in this window.")
        return
    groups = sorted(sums, key=lambda name: -sum(sums[name]))
    plotext.clear_figure()
    plotext.theme("clear" if not sys.stdout.isatty() else "pro")
    plotext.plotsize(None, 24)
    plotext.stacked_bar(
        [show(bucket["start_time"], width) for bucket in buckets],
        [sums[name] for name in groups],
        labels=groups,
    )
    plotext.title(measure.replace("_", " "))
    plotext.show()


def _text(value: object) -> str:
    return "-" if value is None else str(value)
