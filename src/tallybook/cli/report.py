"""What `usage` and `costs` have in common: how they are asked, and how buckets are shown."""

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple

from cyclopts import Parameter
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tallybook.cli.amounts import as_json as exact_json
from tallybook.cli.amounts import digits
from tallybook.cli.terminal import cell, console
from tallybook.cli.when import instant, show
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.export.formulas import defuse
from tallybook.timegrid import WIDTHS

Width = Annotated[str, Parameter(choices=tuple(WIDTHS))]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Where = Annotated[list[str] | None, Parameter(negative="")]

_COLORS: Final = ("blue", "green", "yellow", "magenta", "cyan", "red", "bright_blue", "bright_green")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of buckets, and how they are shown."""

    group_by: Annotated[str, Parameter(alias="-g")] = ""
    """Fields to group by, separated by commas."""
    where: Where = None
    """FIELD=VALUE that it must have; repeat a field for any of several values."""
    since: str = "7d"
    """Start: 7d, 24h, 30m ago, a date, a time (UTC), or Unix seconds."""
    until: str | None = None
    """End, in the same forms. Default: now."""
    width: Width = "1d"
    """Width of a bucket."""
    as_json: Json = False
    """Print the buckets as JSON, as the API has them."""
    as_csv: Annotated[bool, Parameter(name="--csv", negative="")] = False
    """Print CSV with all fields; the table leaves out what follows from the others."""
    plot: Annotated[bool, Parameter(negative="")] = False
    """Draw bars."""

    @property
    def grouped(self) -> list[str]:
        """Fields it is grouped by."""
        return [name for name in self.group_by.split(",") if name]

    def conditions(self, fields: Iterable[str]) -> dict[str, list[str]]:
        """Return the values each field may have.

        Raises:
            CommandFailed: a condition is none, or of another field than these.
        """
        fields = tuple(fields)
        found: dict[str, list[str]] = {}
        for condition in self.where or ():
            field, equals, value = condition.partition("=")
            if not equals or field not in fields:
                raise CommandFailed(f"--where {condition!r}: write FIELD=VALUE with one of {', '.join(fields)}")
            found.setdefault(field, []).append(value)
        return found

    def parameters(self, filters: Mapping[str, str], limit: int) -> dict[str, Any]:
        """Return the question as parameters of the API.

        Args:
            filters: field of a condition to the parameter that selects by it.
            limit: buckets in a page.
        """
        now = now_s()
        parameters: dict[str, Any] = {
            "start_time": instant(self.since, now),
            "bucket_width": self.width,
            "limit": limit,
        }
        if self.until:
            parameters["end_time"] = instant(self.until, now)
        if self.group_by:
            parameters["group_by"] = self.group_by
        return parameters | {filters[field]: values for field, values in self.conditions(filters).items()}


def errors() -> Console:
    """Return standard error, for what is said beside an answer."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


class Row(NamedTuple):
    """A result and the bucket it is in, Unix seconds."""

    start_s: int
    end_s: int
    result: dict[str, Any]


class Column(NamedTuple):
    """A column of a table, its texts as they shall stand there."""

    heading: str
    cells: Sequence[str]
    footer: str = ""
    is_number: bool = True


def rows_of(buckets: Iterable[dict[str, Any]]) -> list[Row]:
    """Return the results of buckets, one a row."""
    return [Row(bucket["start_time"], bucket["end_time"], result) for bucket in buckets for result in bucket["results"]]


def print_json(value: Any) -> None:
    """Print JSON for people and programs, over several lines."""
    print(exact_json(value, indent=2))


def print_json_lines(values: Iterable[Any]) -> None:
    """Print one JSON object a line."""
    for value in values:
        print(exact_json(value))


def print_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print CSV."""
    writer = csv.writer(sys.stdout)
    writer.writerow(header)
    writer.writerows(map(_field, row) for row in rows)


def _field(value: object) -> object:
    """Return a value as CSV has it: every digit of a number, truth as the API spells it, and no text a formula."""
    if isinstance(value, Decimal):
        return digits(value)
    if isinstance(value, str):
        return defuse(value)
    return str(value).lower() if isinstance(value, bool) else value


def print_table(question: Question, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Print a row a result: when, the groups, the columns; with a footer if a column has one."""
    summed = any(column.footer for column in columns)
    table = Table("start (UTC)", *question.grouped, show_footer=summed, footer_style="bold")
    table.columns[0].no_wrap = True
    table.columns[0].footer = "total" if summed else ""
    for column in columns:
        add_column(table, column)
    for number, row in enumerate(rows):
        table.add_row(
            show(row.start_s, question.width),
            *(cell(row.result[name]) for name in question.grouped),
            *(cell(column.cells[number]) for column in columns),
        )
    console().print(table)


def add_column(table: Table, column: Column) -> None:
    """Add a column to a table; numbers are never cut."""
    if not column.is_number:
        table.add_column(column.heading)
        return
    # To the right Rich strips the spaces that put points one below the other; then all are as wide as each other.
    is_aligned = any(text.endswith(" ") for text in column.cells)
    table.add_column(
        Text(column.heading, justify="right"),
        footer=column.footer,
        justify="left" if is_aligned else "right",
        min_width=max(map(len, [column.footer, *column.cells]), default=0),
    )


def print_plot(
    question: Question,
    buckets: Iterable[dict[str, Any]],
    title: str,
    value: Callable[[dict[str, Any]], Decimal],
    text: Callable[[Decimal], str],
) -> None:
    """Draw a bar a bucket, stacked by group; beyond so many groups the rest is one of its own.

    Args:
        question: what was asked.
        buckets: the answer.
        title: what the bars measure.
        value: what a result adds to its bar. What is below zero is in the bar's number only: it cannot be drawn.
        text: how a bar's number is written.
    """
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    bars: list[tuple[str, dict[str, Decimal], str]] = []
    for bucket in buckets:
        parts: defaultdict[str, Decimal] = defaultdict(Decimal)
        for result in bucket["results"]:
            parts[" / ".join(cell(result[field]).plain for field in question.grouped) or title] += value(result)
        label = text(sum(parts.values(), Decimal())) if parts else ""
        drawn = {name: amount for name, amount in parts.items() if amount > 0}
        for name, amount in drawn.items():
            sums[name] += amount
        bars.append((show(bucket["start_time"], question.width), drawn, label))
    longest = max((sum(parts.values()) for _, parts, _ in bars), default=0)
    terminal = console()
    if not longest:
        terminal.print("Nothing in this window is above zero.")
        return
    top = sorted(sums, key=lambda name: sums[name], reverse=True)[: len(_COLORS)]
    room = max(10, terminal.width - len(bars[0][0]) - max(len(label) for _, _, label in bars) - 4)
    table = Table(box=None, show_header=False, pad_edge=False, title=title, title_justify="left")
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify)
    for when, drawn, label in bars:
        bar = Text()
        end, reached, whole = 0, Decimal(), sum(drawn.values(), Decimal())
        for name, color in [*zip(top, _COLORS, strict=False), ("", "white")]:
            reached = reached + drawn.get(name, 0) if name else whole
            start, end = end, round(room * reached / longest)
            bar.append("█" * (end - start), color)
        table.add_row(when, bar, label)
    terminal.print(table)
    legend = [Text.assemble(("█ ", color), name) for name, color in zip(top, _COLORS, strict=False)]
    if len(sums) > len(top):
        legend.append(Text.assemble(("█ ", "white"), f"{len(sums) - len(top)} others"))
    terminal.print(Columns(legend, padding=(0, 3)))
