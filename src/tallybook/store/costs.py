"""What an organization's usage cost: what flowed and what was held, put together."""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from tallybook.money import to_decimal
from tallybook.parts import PARTS
from tallybook.query import Query
from tallybook.rate import Rate
from tallybook.store.answer import Snapshot
from tallybook.store.charges import DETAILS, Key, charges, too_many
from tallybook.store.protocol import CostRow, Line
from tallybook.store.storage import held


def costs(
    query: Query,
    snapshot: Snapshot,
    rates: Callable[[int], Rate | None],
    *,
    holds: bool = True,
    detailed: bool = False,
) -> list[CostRow]:
    """Return what usage cost, ordered by bucket and group.

    Args:
        query: the question.
        snapshot: what it is asked of.
        rates: a rate by its number.
        holds: whether the organization ever held anything.
        detailed: tell apart by everything: groups are `DETAILS` and line item, and each row names its rate.

    Raises:
        InvalidRequest: there would be more rows than the query allows.
    """
    group_by = (*DETAILS, "line_item") if detailed else query.group_by
    names = tuple(name for name in group_by if name != "line_item")
    place = group_by.index("line_item") if "line_item" in group_by else None
    sums: dict[Key, tuple[Decimal | int | None, int]] = {**charges(query, names, snapshot, rates, by_rate=detailed)}
    stored = [row for row in held(query, names, snapshot, rates) if row.rate_id] if holds else []
    for row in stored:
        line = None if place is None else Line(row.part, "")
        key = (row.start_s, row.group, line, row.rate_id if detailed else 0)
        quantity, amount = None if line is None else to_decimal(row.quantity), row.amount
        if before := sums.get(key):
            quantity = None if quantity is None or before[0] is None else quantity + before[0]
            amount += before[1]
        sums[key] = (quantity, amount)
    if len(sums) > query.rows_max:
        raise too_many(query)
    rows = [
        CostRow(start_s, group if place is None else (*group[:place], line, *group[place:]), quantity, amount, rate_id)
        for (start_s, group, line, rate_id), (quantity, amount) in sums.items()
    ]
    return sorted(rows, key=_order)


def _order(row: CostRow) -> tuple[object, ...]:
    """By bucket and group; line items by model, and parts as the table of parts has them."""
    return row.start_s, [(value is None, _rank(value)) for value in row.group], row.rate_id


def _rank(value: str | bool | Line | None) -> object:
    return (value.model, _PARTS[value.part]) if isinstance(value, Line) else value


_PARTS: Final = {name: place for place, name in enumerate(PARTS)}
