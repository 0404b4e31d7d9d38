"""Money as whole numbers of 10^-18 US dollars, so that sums are exact and the same in every order."""

from decimal import Context, Decimal, localcontext
from typing import Final

SCALE: Final = 18
"""Decimals of a dollar that are kept. A price of $0.01 for a million tokens is 10^10 of the smallest unit a token."""
UNIT: Final = 10**SCALE
CURRENCY: Final = "usd"

WIDE: Final = Context(prec=200)
"""More digits than any amount has: nothing is rounded by accident."""
DIGITS_MAX: Final = 60
"""Decimals that amounts of others may have; 35 have been seen."""
WHOLE_DIGITS_MAX: Final = 18
"""Digits before the point, likewise."""
_MILLIONTH: Final = Decimal("0.000001")


def to_units(value: Decimal) -> int:
    """Return an amount in dollars as a whole number of 10^-18 dollars.

    Raises:
        ValueError: it has more than 18 decimals.
    """
    with localcontext(WIDE):
        scaled = value.scaleb(SCALE)
        if scaled != scaled.to_integral_value():
            raise ValueError(f"{value} has more than {SCALE} decimals")
        return int(scaled)


def to_decimal(units: int) -> Decimal:
    """Return dollars of a whole number of 10^-18 dollars."""
    with localcontext(WIDE):
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


def is_plain(value: Decimal) -> bool:
    """Whether a decimal of somebody else's is a number that can be kept exactly, and added to others of its like."""
    if not value.is_finite() or not value:
        return value.is_finite()
    if len(value.as_tuple().digits) > WIDE.prec or not -DIGITS_MAX <= value.adjusted() < WHOLE_DIGITS_MAX:
        return False
    return int(value.normalize(WIDE).as_tuple().exponent) >= -DIGITS_MAX


def difference(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """Return the first less the second, exactly; what is absent counts nothing, and None is told where both are."""
    return None if one is None and other is None else WIDE.subtract(one or Decimal(0), other or Decimal(0))


def share(part: Decimal | None, whole: Decimal | None) -> Decimal | None:
    """Return how large a part is of the whole, to six decimals; None where there is no whole."""
    return WIDE.divide(part, whole).quantize(_MILLIONTH, context=WIDE) if part is not None and whole else None
