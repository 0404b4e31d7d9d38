"""Charges: what a row of a cost export is made of."""

from decimal import Context, Decimal
from typing import Final, NamedTuple

SCALE: Final = 18
"""Decimals of every amount, price and quantity of an export."""
WIDE: Final = Context(prec=100)
"""More digits than any product of two of them has: nothing is rounded by accident."""


class Charge(NamedTuple):
    """One priced piece of usage in one period; what a FOCUS row is made of.

    Attributes:
        start_s: beginning of the charge period, Unix seconds, inclusive.
        end_s: its end, exclusive.
        organization_id: whose usage it is.
        kind: usage kind.
        part: what of it is charged: `input`, `cached_input`, `seconds`, ...; `reported` for an event's own cost,
            `free_storage` for what the book takes off for free storage.
        line_item: as Costs results name it.
        project_id: and the following up to `api_source`: as of the usage, None where it named none.
        quantity: as Costs results have it, None for reported cost.
        quantity_unit: as Costs results have it.
        amount: US dollars, exact, at most 18 decimals; negative for `free_storage`.
        price: US dollars for one `unit`, as the price book has it; None for reported cost.
        unit: what the price is for, as price files name it (`1M tokens`, `hour`); None for reported cost.
        provider: whose price it is: a provider's id, `own`, or None if nobody's.
        book_id: the price book it was rated with.
        rate_id: the store's number of the rate.
        terms: what else the price depends on, besides tier and batch, in a fixed order: (`size`, `1024x1024`),
            (`above_input_tokens`, `272000`), ... They tell prices of one meter apart.
    """

    start_s: int
    end_s: int
    organization_id: str
    kind: str
    part: str
    line_item: str
    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    model: str | None
    service_tier: str | None
    batch: bool | None
    api_source: str | None
    quantity: Decimal | None
    quantity_unit: str | None
    amount: Decimal
    price: Decimal | None
    unit: str | None
    provider: str | None
    book_id: str | None
    rate_id: int
    terms: tuple[tuple[str, str], ...] = ()
