"""What all providers share: reports in pages of buckets, and the costs they tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tallybook.money import CURRENCY, DIGITS_MAX, WHOLE_DIGITS_MAX, is_plain
from tallybook.parts import LINE_ITEM_MAX
from tallybook.sources.record import Fields
from tallybook.timegrid import WIDTHS


class Cost(NamedTuple):
    """A cost of a day.

    Attributes:
        line_item: what was charged, as the provider or, where that has no name, as we call it; None if it does not say.
        project_id: whose.
        quantity: how much, in the unit of our part; None if the provider does not say.
        amount: US dollars.
    """

    line_item: str | None
    project_id: str | None
    quantity: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Report:
    """One report of a provider.

    Attributes:
        path: where it is.
        group_by: what its results are told apart by in a book.
        finest: all they can be told apart by, for events.
        read: turns one result into events without a timestamp, or into costs.
        is_optional: older servers do not have it.
    """

    path: str
    group_by: tuple[str, ...]
    finest: tuple[str, ...]
    read: Callable[[Fields], list[Any]]
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """Where a provider's reports are, and how they are asked for.

    Attributes:
        name: of the provider.
        address: where it is, None if that has to be told.
        key_variable: the environment variable that has its admin key.
        headers: of a request with a key.
        window: parameters that ask for instants, Unix seconds, half-open.
        start: when a bucket begins, Unix seconds.
        usage: reports of usage.
        costs: report of costs, by day.
    """

    name: str
    address: str | None
    key_variable: str
    headers: Callable[[str], Mapping[str, str]]
    window: Callable[[int, int], Mapping[str, Any]]
    start: Callable[[Fields], int]
    usage: tuple[Report, ...]
    costs: Report


BUCKETS_MAX: Final = {name: width.limit_max for name, width in WIDTHS.items()}
"""How many buckets a page has at most, whichever the report."""


def amount(result: Fields, name: str) -> Decimal:
    """Return a number that came as a number or as text, with all its digits."""
    value = decimal(result, name)
    if value is None:
        raise result.wrong(name, "is missing")
    return value


def decimal(result: Fields, name: str) -> Decimal | None:
    """Return the same, None if it is absent."""
    value = result.values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise result.wrong(name, "must be a number")
    try:
        found = Decimal(str(value))
    except ArithmeticError:
        raise result.wrong(name, "must be a number") from None
    if not is_plain(found):
        raise result.wrong(
            name, f"must be a number of at most {WHOLE_DIGITS_MAX} digits before the point and {DIGITS_MAX} after it"
        )
    return found or Decimal(0)


def name(result: Fields, *fields: str) -> str | None:
    """Return the first of several fields that names a line item."""
    for field in fields:
        value = result.values.get(field)
        if value is None or value == "":
            continue
        if not isinstance(value, str) or len(value) > LINE_ITEM_MAX:
            raise result.wrong(field, f"must be a string of at most {LINE_ITEM_MAX} characters")
        return value
    return None


def refuse_other_currency(result: Fields) -> None:
    """Refuse a cost that is not in dollars: amounts are compared, and nobody knows at which rate."""
    currency = result.text("currency")
    if currency is not None and currency.lower() != CURRENCY:
        raise result.wrong("currency", f"must be {CURRENCY}; amounts in others cannot be compared")
