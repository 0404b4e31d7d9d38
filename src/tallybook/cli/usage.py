"""``tallybook usage``."""

from decimal import Decimal
from typing import Annotated, Any, Final

from cyclopts import Parameter

from tallybook.cli.report import Column, Question, Row, print_csv, print_json, print_plot, print_table, rows_of
from tallybook.cli.target import Target, connect
from tallybook.cli.terminal import console
from tallybook.errors import CommandFailed
from tallybook.kinds import KINDS, UsageKind
from tallybook.timegrid import WIDTHS

Kind = Annotated[str, Parameter(choices=tuple(KINDS))]

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


def usage(
    kind: Kind,
    /,
    *,
    question: Annotated[Question, Parameter(name="*")] = Question(),  # noqa: B008  frozen
    measure: str | None = None,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Show what was used, as a table in the terminal.

    Example: tallybook usage completions --group-by model --since 7d

    Example: tallybook usage completions --where model=gpt-4o-2024-08-06 --width 1h --since 24h --plot

    Args:
        kind: Usage kind.
        measure: What the bars measure. Default: the first measure of the kind.
    """
    described = KINDS[kind]
    if measure is not None and measure not in described.measures:
        raise CommandFailed(f"{kind} has no measure {measure!r}; it has {', '.join(described.measures)}")
    filters = {dimension.name: name for name, dimension in described.filters.items()}
    parameters = question.parameters(filters, WIDTHS[question.width].limit_max)
    with connect(target) as client:
        buckets = list(client.pages(f"usage/{kind}", **parameters))
    if question.as_json:
        print_json(buckets)
    elif question.as_csv:
        names = [*described.group_by, *described.measures]
        rows = ([row.start_s, row.end_s, *(row.result[name] for name in names)] for row in rows_of(buckets))
        print_csv(["start_time", "end_time", *names], rows)
    elif question.plot:
        _print_plot(question, buckets, measure or described.measures[0])
    else:
        _print_table(described, question, rows_of(buckets))


def _print_plot(question: Question, buckets: list[dict[str, Any]], measure: str) -> None:
    print_plot(
        question, buckets, measure.replace("_", " "), lambda result: Decimal(result[measure]), lambda sum_: f"{sum_:,}"
    )


def _print_table(kind: UsageKind, question: Question, rows: list[Row]) -> None:
    # Here is what a person looks for: not what is 0 throughout, nor what follows from its neighbours.
    measures = [name for name in kind.measures if name not in _FOLLOWING and any(row.result[name] for row in rows)]
    if not measures:
        console().print(f"No {kind.name} usage in this window.")
        return
    columns = [
        Column(
            name.replace("_", " "),
            [f"{row.result[name]:,}" for row in rows],
            "" if kind.is_level else f"{sum(row.result[name] for row in rows):,}",
        )
        for name in measures
    ]
    print_table(question, rows, columns)
