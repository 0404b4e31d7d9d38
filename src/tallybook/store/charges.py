"""What usage cost: cells are added up by group and rate in SQL, then each sum is multiplied with its rate's prices.

All of it is in integers, so no grouping and no order of adding can make a difference.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from tallybook.errors import InvalidRequest
from tallybook.kinds import DIMENSIONS
from tallybook.parts import PARTS, UNKNOWN_MODEL, Part, read_line_item
from tallybook.query import Query
from tallybook.rate import Rate
from tallybook.store.answer import Snapshot, Statement, bucket_of, cells_of
from tallybook.store.protocol import Line

DETAILS: Final = ("kind", *DIMENSIONS)
"""What an export tells charges apart by."""
FLOWING: Final = tuple(part for part in PARTS.values() if any(part.terms.values()))
"""The parts whose quantities are sums of measures."""
MEASURES: Final = tuple(
    dict.fromkeys(measure for part in FLOWING for terms in part.terms.values() for measure in terms)
)
"""What their quantities are sums of."""

Key = tuple[int, tuple[str | bool | None, ...], Line | None, int]
"""Start of the bucket in Unix seconds; dimensions; line item, unless all are together; rate, 0 unless told apart."""
Sum = tuple[int | None, int]
"""Quantity, None where several parts are together or a cost was reported; amount in 10^-18 dollars."""


class _Overflow(Exception):
    """A quantity has more than 64 bits."""


def quantity_of(part: Part) -> str:
    """Return SQL for the quantity of a part in a row of measures; NULL where the kind has no such part."""
    # A kind without a measure has NULL for it. The input of an embedding is not split: it is its input tokens.
    expressions = (
        " ".join(f"{'+' if sign > 0 else '-'} {measure}" for measure, sign in terms.items()).removeprefix("+ ")
        for terms in part.terms.values()
    )
    found = list(dict.fromkeys(expressions))
    return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"


def group_column(name: str) -> str:
    """Return SQL for a dimension charges are grouped by."""
    return f"coalesce(series.{name}, 'unlabeled')" if name == "api_source" else f"series.{name}"


def sums_statement(
    query: Query, names: tuple[str, ...], snapshot: Snapshot, *, wide: bool = False, unpriced: bool = False
) -> Statement:
    """Return the statement for how much of each part was used, at which rate.

    Its rows: start of the bucket in Unix seconds, dimensions, model, rate, quantities of `FLOWING`, stored amount in
    10^-18 dollars (NULL if there is none); ordered by bucket, dimensions and model.

    Args:
        query: the question.
        names: dimensions.
        snapshot: what it is asked of.
        wide: quantities may have 128 bits. Otherwise one beyond 64 is NULL; such rows are fetched four times as fast.
        unpriced: with what has no price at all.
    """
    selection, more = selection_of(query)
    dimensions = {*names, *query.filters}
    cells, values = cells_of(query, (*MEASURES, "rate_id", "amount"), dimensions, Statement(selection, more), snapshot)
    total = "sum({})" if wide else "try_cast(sum({}) AS BIGINT)"
    sums = ", ".join(total.format(quantity_of(part)) for part in FLOWING)
    groups = "".join(f", {group_column(name)}" for name in names)
    by_item = "line_item" in (*query.group_by, *query.filters) or names == DETAILS
    model = f"coalesce(series.model, '{UNKNOWN_MODEL}')" if by_item else "''"
    edge, start = bucket_of(query)
    numbers = [str(number) for number in range(2, 4 + len(names))]
    return Statement(
        f"""SELECT {start}{groups}, {model}, rate_id, {sums}, sum(amount)
FROM (
{cells}
) AS cells JOIN series USING (series_id)
WHERE {"" if unpriced else "rate_id <> 0 AND "}{selection}
GROUP BY {", ".join([edge, *numbers])}
ORDER BY 1, {", ".join(f"{number} NULLS LAST" for number in numbers)}
LIMIT {sums_max(query) + 1}""",
        values | more,
    )


def charges(
    query: Query,
    names: tuple[str, ...],
    snapshot: Snapshot,
    rates: Callable[[int], Rate | None],
    *,
    by_rate: bool = False,
) -> dict[Key, Sum]:
    """Return what flowed, and what it cost, in the order of buckets.

    Args:
        query: the question.
        names: the dimensions of the groups.
        snapshot: what it is asked of.
        rates: a rate by its number.
        by_rate: tell charges of different rates apart.
    """
    rows = snapshot(*sums_statement(query, names, snapshot))
    if len(rows) > sums_max(query):
        raise too_many(query)
    try:
        return _charged(query, names, rows, rates, by_rate=by_rate)
    except _Overflow:
        return _charged(
            query, names, snapshot(*sums_statement(query, names, snapshot, wide=True)), rates, by_rate=by_rate
        )


def sums_max(query: Query) -> int:
    """Return how many sums may be fetched for an answer: more than one of them, of several rates, may make a row."""
    return 2 * query.rows_max


def too_many(query: Query) -> InvalidRequest:
    """Return the error of an answer that would be too large."""
    return InvalidRequest(
        f"The page would have more than {query.rows_max} results; lower limit, group by fewer fields, or add a filter",
        param="group_by",
        code="too_many_results",
    )


def _charged(
    query: Query,
    names: tuple[str, ...],
    rows: list[tuple[Any, ...]],
    rates: Callable[[int], Rate | None],
    *,
    by_rate: bool,
) -> dict[Key, Sum]:
    is_split = by_rate or "line_item" in query.group_by
    only = set(wanted_lines(query)) if "line_item" in query.filters else None
    split = 1 + len(names)
    charged: dict[tuple[int, str], list[tuple[int, Line, int | None]]] = {}
    sums: dict[Key, Sum] = {}
    for row in rows:
        model, rate_id = row[split : split + 2]
        if (rate_id, model) not in charged:
            lines = _lines(rates(rate_id), model, split + 2)
            charged[rate_id, model] = [line for line in lines if only is None or line[1] in only]
        start_s, group, number = row[0], row[1:split], rate_id if by_rate else 0
        for place, line, each in charged[rate_id, model]:
            quantity = row[place]
            if quantity is None:
                # A part that has a price has measures; and a reported cost has an amount.
                raise _Overflow
            if not quantity and place != _AMOUNT:
                continue
            amount = row[_AMOUNT] if each is None else quantity * each
            counted = quantity if is_split and place != _AMOUNT else None
            key = (start_s, group, line if is_split else None, number)
            if before := sums.get(key):
                counted = None if counted is None or before[0] is None else counted + before[0]
                amount += before[1]
            sums[key] = (counted, amount)
    return sums


_AMOUNT: Final = -1
"""Where in a row the stored amount is; for a reported cost it is all there is."""


def _lines(rate: Rate | None, model: str, first: int) -> Iterable[tuple[int, Line, int | None]]:
    """Yield where in a row each part with a price stands, its line item, and the price of one; None if stored."""
    if rate is None:
        yield _AMOUNT, Line("reported", model), None
        return
    priced = {price.part: price.each for price in rate.prices}
    for place, part in enumerate(FLOWING, start=first):
        if part.name in priced:
            yield place, Line(part.name, model if part.has_model else ""), priced[part.name]


def selection_of(query: Query) -> tuple[str, dict[str, object]]:
    """Return the condition on series: of this organization, and what the filters on dimensions ask."""
    conditions = ["series.organization_id = $organization_id"]
    values: dict[str, object] = {"organization_id": query.organization_id}
    for name, allowed in query.filters.items():
        if name != "line_item":
            conditions.append(f"series.{DIMENSIONS[name].name} IN (SELECT unnest($only_{name}))")
            values[f"only_{name}"] = list(allowed)
    return " AND ".join(conditions), values


def wanted_lines(query: Query) -> list[Line]:
    """Return the line items a query filters on; names no line item can have are none."""
    found = (read_line_item(str(name)) for name in query.filters.get("line_item", ()))
    return [Line(*line) for line in found if line]
