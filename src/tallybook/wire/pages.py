"""Rows to the bytes of a page, as clients of the Usage and Costs APIs read them."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast

import msgspec

from tallybook.kinds import UsageKind
from tallybook.money import CURRENCY, difference, plain, share, text
from tallybook.parts import PARTS, line_item
from tallybook.store.protocol import Comparison, Line, Side
from tallybook.wire.params import COSTS, RECONCILIATION, PageRequest

_ENCODER: Final = msgspec.json.Encoder()

Results = Iterable[tuple[int, object]]
"""Start of the bucket in Unix seconds, and a result of it, in the order in which they shall stand in a bucket."""
Group = tuple[str | bool | tuple[str, str] | None, ...]
"""Values of the dimensions grouped by; a line item is its part and model."""


def render_usage(kind: UsageKind, request: PageRequest, rows: Iterable[tuple[int, Group, tuple[int, ...]]]) -> bytes:
    """Return the body of a page of usage.

    Args:
        kind: what was asked for.
        request: what was asked.
        rows: start of the bucket in Unix seconds, group, measures of the kind, for all its buckets.
    """
    names = ("object", *kind.measures, *kind.group_by)
    places = _places(kind.group_by, request)

    def results() -> Iterator[tuple[int, dict[str, object]]]:
        for start_s, group, measures in rows:
            dimensions = (None if place is None else group[place] for place in places)
            yield start_s, dict(zip(names, (kind.object, *measures, *dimensions), strict=True))

    return _page(request, results())


def render_costs(
    request: PageRequest, rows: Iterable[tuple[int, Group, Decimal | int | None, int, int]], *, fields: bool = False
) -> bytes:
    """Return the body of a page of costs.

    Args:
        request: what was asked.
        rows: start of the bucket in Unix seconds, group, quantity, amount in 10^-18 dollars, rate, for all its buckets.
        fields: line items are named in the words of the Usage API's fields.
    """
    places = _places(COSTS.group_by, request)
    line_place = request.query.group_by.index("line_item") if "line_item" in request.query.group_by else None
    end = (request.query.organization_id,)

    def results() -> Iterator[tuple[int, object]]:
        unit = None
        for start_s, group, quantity, amount, _ in rows:
            dimensions = [None if place is None else group[place] for place in places]
            if line_place is not None:
                part_name, model = cast("tuple[str, str]", group[line_place])
                part = PARTS[part_name]
                unit = part.quantity_unit
                dimensions[_LINE_PLACE] = line_item(part, model, fields=fields)
            value = _Amount(msgspec.Raw(text(amount).encode()))
            counted = number(quantity) if isinstance(quantity, Decimal) else quantity
            yield start_s, _Cost("organization.costs.result", value, counted, unit, *dimensions, *end)

    return _page(request, results())


def render_reconciliation(
    request: PageRequest,
    provider: str,
    rows: Iterable[Comparison],
    days_read: Mapping[int, int],
    *,
    fields: bool = False,
) -> bytes:
    """Return the body of a page of both books.

    Args:
        request: what was asked.
        provider: whose book.
        rows: both sides of each group, for all its buckets.
        days_read: the days that were read of it, and since when that is, Unix seconds.
        fields: line items are named in the words of the Usage API's fields.
    """
    places = _places(RECONCILIATION.group_by, request)

    def results() -> Iterator[tuple[int, object]]:
        for row in rows:
            values = (None if place is None else row.group[place] for place in places)
            named = dict(zip(RECONCILIATION.group_by, values, strict=True))
            line, unit = named["line_item"], None
            if isinstance(line, Line):
                part = PARTS[line.part]
                named["line_item"], unit = line_item(part, line.model, fields=fields), part.quantity_unit
            yield (
                row.start_s,
                {
                    "object": "organization.reconciliation.result",
                    "provider": provider,
                    **named,
                    "quantity_unit": unit,
                    "recorded": _side(row.recorded),
                    "billed": _side(row.billed),
                    "difference": _difference(row, is_read=row.start_s in days_read),
                },
            )

    facts: dict[int, dict[str, object]] = {
        start_s: {
            "read_at": days_read.get(start_s),
            "complete": days_read.get(start_s, 0) >= end_s,
        }
        for start_s, end_s in request.buckets
    }
    return _page(request, results(), facts)


def _side(side: Side) -> dict[str, object]:
    return {"quantity": _optional(side.quantity), "amount": amount(side.amount)}


def _difference(row: Comparison, *, is_read: bool) -> dict[str, object]:
    """Return what was recorded less what was billed; of a day that was never read nothing is known."""
    quantity = amount_ = ratio = None
    if is_read:
        quantity = difference(_decimal(row.recorded.quantity), _decimal(row.billed.quantity))
        amount_ = difference(row.recorded.amount, row.billed.amount)
        ratio = share(amount_, row.billed.amount)
    return {"quantity": _optional(quantity), "amount": amount(amount_), "ratio": _optional(ratio)}


def _decimal(value: Decimal | int | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _optional(value: Decimal | int | None) -> msgspec.Raw | int | None:
    return number(value) if isinstance(value, Decimal) else value


def amount(value: Decimal | None) -> object:
    """Return dollars as costs have them, None for none."""
    return None if value is None else _Amount(number(value))


class _Amount(msgspec.Struct, gc=False):
    value: msgspec.Raw
    currency: str = CURRENCY


_Cost: Final = msgspec.defstruct(
    "_Cost",
    [(name, Any) for name in ("object", "amount", "quantity", "quantity_unit", *COSTS.group_by, "organization_id")],
    gc=False,
)
_LINE_PLACE: Final = COSTS.group_by.index("line_item")


def number(value: Decimal) -> msgspec.Raw:
    """Return a decimal as a JSON number with all its digits."""
    return msgspec.Raw(plain(value).encode())


def _places(names: tuple[str, ...], request: PageRequest) -> list[int | None]:
    """Return where in a row's group each dimension stands, None where it is not grouped by."""
    grouped = request.query.group_by
    return [grouped.index(name) if name in grouped else None for name in names]


def _page(request: PageRequest, results: Results, facts: Mapping[int, dict[str, object]] | None = None) -> bytes:
    """Return a page; facts are what is told of a bucket besides its results, by its start."""
    facts = facts or {}
    found: dict[int, list[object]] = {}
    for start_s, result in results:
        found.setdefault(start_s, []).append(result)
    return _ENCODER.encode(
        {
            "object": "page",
            "data": [
                _bucket(start_s, end_s, found.get(start_s, [])) | facts.get(start_s, {})
                for start_s, end_s in request.buckets
            ],
            "has_more": request.next_page is not None,
            "next_page": request.next_page,
        }
    )


def _bucket(start_s: int, end_s: int, results: list[object]) -> dict[str, object]:
    # The live service and its clients call the list `results`, the published reference `result`: both are there,
    # encoded once.
    encoded = msgspec.Raw(_ENCODER.encode(results))
    return {
        "object": "bucket",
        "start_time": start_s,
        "end_time": end_s,
        "results": encoded,
        "result": encoded,
    }
