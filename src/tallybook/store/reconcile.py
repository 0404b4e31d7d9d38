"""Both books side by side: what was recorded here, and what a provider says, by UTC day and line item.

Quantities are compared with quantities and amounts with amounts: what was used here is counted whether it has a price
or not, and of a provider the usage it reports counts, and only where it reports none the quantity it charged.

What of all that was recorded is a provider's is told by its price; what has no price of anybody's is the provider's
whose book names its model. The rest is not compared.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple

from tallybook.money import WIDE, to_decimal
from tallybook.parts import PARTS, PARTS_OF, UNKNOWN_MODEL
from tallybook.query import Query
from tallybook.rate import REPORTED, Rate
from tallybook.spelling import aliases, read_name, same, undated
from tallybook.store.answer import Snapshot, Statement
from tallybook.store.charges import FLOWING, quantity_of, sums_max, sums_statement, too_many
from tallybook.store.protocol import EVERYTHING, Comparison, Line, Side
from tallybook.store.storage import held

_WINDOW: Final = """organization_id = $organization_id AND provider = $provider
  AND "day" >= make_timestamp($start_s::BIGINT * 1000000) AND "day" < make_timestamp($end_s::BIGINT * 1000000)
  AND ($projects IS NULL OR project_id IN (SELECT unnest($projects)))"""


class _Item(NamedTuple):
    """What is compared: of which day and project, and which line item.

    Attributes:
        day_s: start of the day.
        project_id: None as well where projects are not told apart.
        part: name of the part; empty for a line item that is none of ours, whose name then stands for the model.
        model: as `same` has it.
    """

    day_s: int
    project_id: str | None
    part: str
    model: str


@dataclass(slots=True)
class _Book:
    """One side: quantities and amounts of its line items, and how it spells its models."""

    quantities: dict[_Item, Decimal] = field(default_factory=dict)
    amounts: dict[_Item, Decimal] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)

    def item(self, day_s: int, project_id: str | None, part: str, model: str) -> _Item:
        """Return the item of a line, and note how its model is spelled."""
        name = same(model) if part else model
        self.spelled.setdefault(name, model)
        return _Item(day_s, project_id, part, name)

    def models(self) -> dict[int, set[str]]:
        """Return the models it names on each day."""
        found: dict[int, set[str]] = {}
        for item in (*self.quantities, *self.amounts):
            if item.part and item.model:
                found.setdefault(item.day_s, set()).add(item.model)
        return found


def reconcile(
    query: Query, provider: str, snapshot: Snapshot, rates: Callable[[int], Rate | None], *, holds: bool
) -> list[Comparison]:
    """Return both books by day and group, ordered; see `Store.reconcile`.

    Args:
        query: the question.
        provider: whose book.
        snapshot: what it is asked of.
        rates: a rate by its number.
        holds: whether the organization ever held anything.
    """
    names = ("project_id",) if "project_id" in query.group_by else ()
    by_items = replace(query, group_by=(*names, "line_item"))
    with localcontext(WIDE):
        billed = _billed(by_items, provider, names, snapshot)
        recorded = _recorded(by_items, provider, names, snapshot, rates, holds=holds)
        rows = _compared(query, recorded, billed)
    if len(rows) > query.rows_max:
        raise too_many(query)
    return rows


class _Mine:
    """Tells what of all that was recorded is a provider's."""

    def __init__(self, query: Query, provider: str, snapshot: Snapshot) -> None:
        self._provider = provider
        self._models: set[str] = set()
        self._parts: set[str] = set()
        if provider == EVERYTHING:
            return
        owner: dict[str, object] = {"organization_id": query.organization_id, "provider": provider}
        where = "WHERE organization_id = $organization_id AND provider = $provider"
        for kind, model in snapshot(f"SELECT DISTINCT kind, model FROM billed_usage {where}", owner):
            self._parts |= {part.name for part in PARTS_OF[kind] if not part.has_model}
            self._models.add(undated(same(model or "")))
        for (line_item,) in snapshot(f"SELECT DISTINCT line_item FROM billed_costs {where}", owner):
            part, model = read_name(line_item or "") or ("", "")
            self._parts.add(part)
            self._models.add(undated(same(model)))
        self._models.discard("")

    def __call__(self, part: str, model: str, owner: str | None) -> bool:
        """Whether a line is the provider's.

        Args:
            part: name of its part.
            model: as it was recorded; empty where the part has none.
            owner: whose price it has.
        """
        if self._provider == EVERYTHING or owner:
            return self._provider in (owner, EVERYTHING)
        if not model:
            return part in self._parts
        return undated(same(model)) in self._models


def _recorded(
    query: Query,
    provider: str,
    names: tuple[str, ...],
    snapshot: Snapshot,
    rates: Callable[[int], Rate | None],
    *,
    holds: bool,
) -> _Book:
    book = _Book()
    mine = _Mine(query, provider, snapshot)
    rows = snapshot(*sums_statement(query, (*names, "kind"), snapshot, wide=True, unpriced=True))
    if len(rows) > sums_max(query):
        raise too_many(query)
    for day_s, *group, kind, model, rate_id, stored in (
        (*row[: 4 + len(names)], row[4 + len(names) :]) for row in rows
    ):
        named = model.removeprefix(f"{provider}/")  # as gateways call it
        for part, owner, quantity, amount in _parts(kind, rates(rate_id), rate_id, stored):
            its_model = named if PARTS[part].has_model else ""
            # Whose a tool is may be told by the model that used it, where its line item names none.
            if mine(part, named, owner) or (not its_model and mine(part, "", owner)):
                _add(book, book.item(day_s, group[0] if group else None, part, its_model), quantity, amount)
    for level in held(query, names, snapshot, rates) if holds else []:
        rate = rates(level.rate_id)
        if mine(level.part, "", rate.prices[0].provider if rate else None):
            item = book.item(level.start_s, str(level.group[0]) if names and level.group[0] else None, level.part, "")
            _add(book, item, to_decimal(level.quantity), to_decimal(level.amount) if level.rate_id else None)
    return book


def _parts(
    kind: str, rate: Rate | None, rate_id: int, sums: tuple[Any, ...]
) -> Iterator[tuple[str, str | None, Decimal | None, Decimal | None]]:
    """Yield part, owner of its price, quantity and amount of a row of sums: quantities of `FLOWING`, stored amount."""
    *quantities, stored = sums
    prices = {price.part: price for price in rate.prices} if rate else {}
    for part, quantity in zip(FLOWING, quantities, strict=True):
        if quantity and kind in part.terms:
            price = prices.get(part.name)
            amount = None
            if price:
                amount = to_decimal(int(stored) if price.each is None else int(quantity) * price.each)
            yield part.name, price.provider if price else None, Decimal(int(quantity)), amount
    if rate_id == REPORTED:
        yield "reported", None, None, to_decimal(int(stored))


def _add(book: _Book, item: _Item, quantity: Decimal | None, amount: Decimal | None) -> None:
    if quantity is not None:
        book.quantities[item] = book.quantities.get(item, Decimal(0)) + quantity
    if amount is not None:
        book.amounts[item] = book.amounts.get(item, Decimal(0)) + amount


def _billed(query: Query, provider: str, names: tuple[str, ...], snapshot: Snapshot) -> _Book:
    values = {
        "organization_id": query.organization_id,
        "provider": provider,
        "start_s": query.start_s,
        "end_s": query.end_s,
        "projects": list(query.filters["project_id"]) if "project_id" in query.filters else None,
    }
    costs = _Book()
    for day_s, project_id, line_item, quantity, amount in _fetched(query, snapshot, _costs_statement(names, values)):
        part, model = read_name(line_item) or ("", line_item)
        item = costs.item(day_s, project_id, part, model)
        _add(costs, item, None if quantity is None else Decimal(quantity), Decimal(amount))
    usage = _Book(spelled=costs.spelled)
    for day_s, project_id, kind, model, *quantities in _fetched(query, snapshot, _usage_statement(names, values)):
        for flowing, used in zip(FLOWING, quantities, strict=True):
            if used and kind in flowing.terms:
                item = usage.item(day_s, project_id, flowing.name, model if flowing.has_model else "")
                _add(usage, item, Decimal(int(used)), None)
    return _Book(costs.quantities | usage.quantities, costs.amounts, costs.spelled)


def _fetched(query: Query, snapshot: Snapshot, statement: Statement) -> list[tuple[Any, ...]]:
    limit = sums_max(query)
    rows = snapshot(f"{statement.sql}\nLIMIT {limit + 1}", statement.values)
    if len(rows) > limit:
        raise too_many(query)
    return rows


def _costs_statement(names: tuple[str, ...], values: dict[str, object]) -> Statement:
    project = "project_id" if names else "NULL"
    return Statement(
        f"""SELECT epoch_ms("day") // 1000, {project}, coalesce(line_item, ''), quantity, amount
FROM billed_costs WHERE {_WINDOW} ORDER BY ALL""",
        values,
    )


def _usage_statement(names: tuple[str, ...], values: dict[str, object]) -> Statement:
    project = "project_id" if names else "NULL"
    sums = ", ".join(f"sum({quantity_of(part)})" for part in FLOWING)
    return Statement(
        f"""SELECT epoch_ms("day") // 1000, {project}, kind, coalesce(model, '{UNKNOWN_MODEL}'), {sums}
FROM billed_usage WHERE {_WINDOW} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""",
        values,
    )


def _compared(query: Query, recorded: _Book, billed: _Book) -> list[Comparison]:
    """Return the two sides of every group."""
    by_day = {"recorded": recorded.models(), "billed": billed.models()}
    renamed = {
        day_s: aliases(by_day["recorded"].get(day_s, ()), by_day["billed"].get(day_s, ()))
        for day_s in {*by_day["recorded"], *by_day["billed"]}
    }
    spelled = billed.spelled | recorded.spelled
    items = {item for book in (recorded, billed) for item in (*book.quantities, *book.amounts)}
    groups: dict[tuple[int, tuple[str | Line | None, ...]], list[_Item]] = {}
    for item in items:
        if item.part and PARTS[item.part].is_optional and not (item in recorded.amounts or item in billed.amounts):
            continue  # nobody charges for it
        model = renamed.get(item.day_s, {}).get(item.model, item.model)
        group = _group(query.group_by, item, spelled.get(model, model))
        groups.setdefault((item.day_s, group), []).append(item)
    by_item = "line_item" in query.group_by
    found = [
        Comparison(day_s, group, *(_side(book, members, by_item=by_item) for book in (recorded, billed)))
        for (day_s, group), members in groups.items()
    ]
    # What is known by its quantity only says nothing where line items are not told apart.
    return sorted(
        (row for row in found if any(value is not None for value in (*row.recorded, *row.billed))), key=_order
    )


def _group(group_by: tuple[str, ...], item: _Item, model: str) -> tuple[str | Line | None, ...]:
    values: dict[str, str | Line | None] = {
        "project_id": item.project_id,
        "model": (model or None) if item.part else None,
        "line_item": Line(item.part, model) if item.part else item.model or None,
    }
    return tuple(values[name] for name in group_by)


def _side(book: _Book, items: Iterable[_Item], *, by_item: bool) -> Side:
    quantities = [book.quantities[item] for item in items if item in book.quantities] if by_item else []
    amounts = [book.amounts[item] for item in items if item in book.amounts]
    return Side(
        sum(quantities, Decimal(0)) if quantities else None,
        sum(amounts, Decimal(0)) if amounts else None,
    )


_PARTS: Final = {name: place for place, name in enumerate(PARTS)}


def _order(row: Comparison) -> tuple[object, ...]:
    """By day and group; line items by model, and parts as the table of parts has them; what is none comes last."""
    return row.start_s, [_rank(value) for value in row.group]


def _rank(value: str | Line | None) -> tuple[int, str, int]:
    if isinstance(value, Line):
        return (0, value.model, _PARTS[value.part])
    return (2, "", 0) if value is None else (1, value, 0)
