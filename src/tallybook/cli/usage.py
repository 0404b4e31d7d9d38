"""``tallybook usage``."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from tallybook.cli.target import Client, Target, connect
from tallybook.cli.terminal import cell, console
from tallybook.cli.when import instant, show
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.kinds import KINDS, UsageKind
from tallybook.timegrid import WIDTHS

Kind = Annotated[str, Parameter(choices=tuple(KINDS))]
Width = Annotated[str, Parameter(choices=tuple(WIDTHS))]


_COLORS: Final = ("blue", "green", "yellow", "magenta", "cyan", "red", "bright_blue", "bright_green")
_FOLLOWING: Final = frozenset(
    {
        "input_uncached_tokens",
        "input_text_tokens",
        "input_cached_text_tokens",
        "input_cache_write_30m_tokens",
        "input_cache_write_12h_tokens",
        "output_text_tokens",
    }
)


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
        as_csv: Print CSV with all measures; the table leaves out what follows from the others.
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
    # Here is what a person looks for: not what is 0 throughout, nor what follows from its neighbours.
    measures = [name for name in kind.measures if name not in _FOLLOWING and any(row.result[name] for row in rows)]
    if not measures:
        console().print(f"No {kind.name} usage in this window.")
        return
    table = Table("start (UTC)", *grouped, show_footer=not kind.is_level, footer_style="bold")
    for name in measures:
        total = sum(row.result[name] for row in rows)
        widest = max(f"{total:,}", *(f"{row.result[name]:,}" for row in rows), key=len)
        footer = "" if kind.is_level else f"{total:,}"
        table.add_column(name.replace("_", " "), footer=footer, justify="right", min_width=len(widest))
    table.columns[0].no_wrap = True
    table.columns[0].footer = "" if kind.is_level else "total"
    for row in rows:
        table.add_row(
            show(row.start_s, width),
            *(cell(row.result[name]) for name in grouped),
            *(f"{row.result[name]:,}" for name in measures),
        )
    console().print(table)


def _print_plot(buckets: list[dict[str, Any]], grouped: list[str], measure: str, width: str) -> None:
    """Draw a bar a bucket, stacked by group; beyond so many groups the rest is one of its own."""
    sums: Counter[str] = Counter()
    bars: list[tuple[str, Counter[str]]] = []
    for bucket in buckets:
        parts: Counter[str] = Counter()
        for result in bucket["results"]:
            parts[" / ".join(cell(result[field]).plain for field in grouped) or measure] += result[measure]
        sums += parts
        bars.append((show(bucket["start_time"], width), parts))
    longest = max((parts.total() for _, parts in bars), default=0)
    terminal = console()
    if not longest:
        terminal.print("No usage in this window.")
        return
    top = [name for name, _ in sums.most_common(len(_COLORS))]
    room = max(10, terminal.width - len(bars[0][0]) - len(f"{longest:,}") - 4)
    table = Table(box=None, show_header=False, pad_edge=False, title=measure.replace("_", " "), title_justify="left")
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify)
    for label, parts in bars:
        bar = Text()
        drawn = reached = 0
        for name, color in [*zip(top, _COLORS, strict=False), (None, "white")]:
            reached += parts[name] if name else parts.total() - reached
            end = round(room * reached / longest)
            bar.append("█" * (end - drawn), color)
            drawn = end
        table.add_row(label, bar, f"{parts.total():,}" if parts else "")
    terminal.print(table)
    legend = [Text.assemble(("█ ", color), name) for name, color in zip(top, _COLORS, strict=False)]
    if len(sums) > len(top):
        legend.append(Text.assemble(("█ ", "white"), f"{len(sums) - len(top)} others"))
    terminal.print(Columns(legend, padding=(0, 3)))
