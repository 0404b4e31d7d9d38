"""Money as whole numbers of 10^-18 US dollars, so that sums are exact and the same in every order."""

from decimal import Context, Decimal, localcontext
from typing import Final

SCALE: Final = 18
"""Decimals of a dollar that are kept. A price of $0.01 for a million tokens is 10^10 of the smallest unit a token."""
UNIT: Final = 10**SCALE
CURRENCY: Final = "usd"

_WIDE: Final = Context(prec=200)
"""More digits than any amount has: nothing is rounded by accident."""


def to_units(value: Decimal) -> int:
    """Return an amount in dollars as a whole number of 10^-18 dollars.

    Raises:
        ValueError: it has more than 18 decimals.
    """
    with localcontext(_WIDE):
        scaled = value.scaleb(SCALE)
        if scaled != scaled.to_integral_value():
            raise ValueError(f"{value} has more than {SCALE} decimals")
        return int(scaled)


def to_decimal(units: int) -> Decimal:
    """Return dollars of a whole number of 10^-18 dollars."""
    with localcontext(_WIDE):
        return Decimal(units).scaleb(-SCALE)


def text(units: int) -> str:
    """Return a whole number of 10^-18 dollars as a decimal of dollars, all its digits and no zeros at the end."""
    whole, rest = divmod(abs(units), UNIT)
    sign = "-" if units < 0 else ""
    return f"{sign}{whole}.{rest:018d}".rstrip("0") if rest else f"{sign}{whole}"


def half_up(numerator: int, denominator: int) -> int:
    """Return the nearest integer to a fraction of non-negative numbers, halves upwards."""
    return (2 * numerator + denominator) // (2 * denominator)


def plain(value: Decimal) -> str:
    """Return a decimal with all its digits, without an exponent and without zeros at the end: a JSON number."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
