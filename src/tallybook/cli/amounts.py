"""Amounts of money as people read them, and JSON in which no digit of them is lost."""

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from tallybook.money import to_decimal, to_units

_CENTS: Final = 2
_SIGNIFICANT: Final = 3
"""Digits that are shown of an amount below a dollar: a price of a few tokens is no 0.00."""


def total(amounts: Iterable[Decimal | int]) -> Decimal:
    """Return an exact sum."""
    return to_decimal(sum(to_units(Decimal(amount)) for amount in amounts))


def shown(amount: Decimal | int, *, signed: bool = False) -> str:
    """Return an amount as a table shows it: rounded to cents, below a dollar to three digits that mean something.

    Args:
        amount: in dollars.
        signed: what is above zero gets a plus.
    """
    amount = Decimal(amount)
    decimals = _CENTS
    if amount and abs(amount) < 1:
        decimals = max(_CENTS, _SIGNIFICANT - 1 - amount.adjusted())
    whole, _, fraction = f"{amount:,.{decimals}f}".partition(".")
    sign = "+" if signed and amount > 0 else ""
    return f"{sign}{whole}.{fraction[:_CENTS]}{fraction[_CENTS:].rstrip('0')}"


def digits(number: Decimal | int) -> str:
    """Return a number with every digit and without an exponent."""
    return f"{Decimal(number):f}"


def aligned(texts: Iterable[str]) -> list[str]:
    """Return numbers as a column has them, one point below the other: the longest is not the largest."""
    parts = [text.partition(".") for text in texts]
    before = max((len(whole) for whole, _, _ in parts), default=0)
    after = max((len(fraction) for _, _, fraction in parts), default=0)
    return [
        f"{whole:>{before}}{point or (' ' if after else '')}{fraction:<{after}}" for whole, point, fraction in parts
    ]


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON with the digits the API sent, and without characters that steer a terminal."""
    encoded = msgspec.json.encode(_spelled(value))
    if indent is not None:
        encoded = msgspec.json.format(encoded, indent=indent)
    return re.sub(r"[^\x00-\x7e]+", lambda found: json.dumps(found[0])[1:-1], encoded.decode())


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _spelled(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return msgspec.Raw(digits(value).encode()) if isinstance(value, Decimal) else value
