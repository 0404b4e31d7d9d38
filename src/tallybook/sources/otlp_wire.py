"""How the encodings of OTLP differ, protobuf and JSON, and what attributes and numbers are in each."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tallybook.sources.otlp_json import Attribute, DataPoint, Number, Value
from tallybook.sources.otlp_names import ID, READ, RESPONSE_ID, Names, counted, response_id
from tallybook.sources.otlp_repair import text

Plain = str | int | float | bool
"""What the attributes that matter here may be; lists and maps are passed over."""
Attributes = Mapping[str, Plain]

DELTA: Final = 1
"""The temporality of what was added since the point before."""
ERROR: Final = 2
_ENUMERATIONS: Final[Mapping[object, int]] = {
    "STATUS_CODE_ERROR": ERROR,
    "AGGREGATION_TEMPORALITY_DELTA": DELTA,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
}


class Wire(NamedTuple):
    """How the two encodings differ.

    Attributes:
        attributes: plain attributes by name that are to be read, and what others there are, see `Span`.
        identity: an id in hexadecimal.
        total: what a point comes to.
        text: a name.
    """

    attributes: Callable[[Any, Names], tuple[Attributes, Mapping[str, int | float]]]
    identity: Callable[[Any], str]
    total: Callable[[Any], Plain | None]
    text: Callable[[Any], str]


_NONE: Final[Mapping[str, int | float]] = {}


def _attributes_of_protobuf(attributes: Any, names: Names) -> tuple[dict[str, Plain], Mapping[str, int | float]]:
    found: dict[str, Plain] = {}
    others: dict[str, int | float] | None = None
    read, passed = names.read, names.passed
    for each in attributes:
        key = each.key
        if key in read:
            value = each.value
            plain = value.string_value or value.int_value  # to ask which of them it is takes longer than both
            if not plain:
                name = value.WhichOneof("value")
                if name not in _PLAIN:
                    continue
                plain = getattr(value, name)
            found[key] = plain
        elif key not in passed and (how := names.decide(key)):
            name = each.value.WhichOneof("value")
            others = _added(found, others, key, getattr(each.value, name) if name in _PLAIN else None, how)
    return found, others or _NONE


def _added(
    found: dict[str, Plain], others: dict[str, int | float] | None, key: str, plain: Plain | None, how: int
) -> dict[str, int | float] | None:
    """Put an attribute that nobody asked for to its like; return the others."""
    if plain is None:
        return others
    if how == READ:
        found[key] = plain
    elif how == ID:
        if name := response_id(plain):
            found.setdefault(RESPONSE_ID, name)
    elif (count := counted(plain, how)) is not None:
        others = {} if others is None else others
        others[key] = count
    return others


_PLAIN: Final = frozenset({"string_value", "int_value", "double_value", "bool_value"})


def _repaired_attributes(attributes: Any, names: Names) -> tuple[Attributes, Mapping[str, int | float]]:
    found, others = _attributes_of_protobuf(attributes, names)
    return {text(key): text(value) for key, value in found.items()}, others


def _attributes_of_json(
    attributes: list[Attribute] | None, names: Names
) -> tuple[Attributes, Mapping[str, int | float]]:
    found: dict[str, Plain] = {}
    others: dict[str, int | float] | None = None
    read, passed = names.read, names.passed
    for each in attributes or ():
        key = each.key
        if key in read:
            if (plain := _value_of_json(each.value)) is not None:
                found[key] = plain
        elif key not in passed and (how := names.decide(key)):
            others = _added(found, others, key, _value_of_json(each.value), how)
    return found, others or _NONE


_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_UINT64_MAX: Final = 2**64 - 1


def integer(value: Any) -> int:
    """Return a 64-bit integer however JSON has it; 0 for what is none."""
    if isinstance(value, str | float):
        value = _number(value)
    return value if isinstance(value, int) and abs(value) <= _UINT64_MAX else 0


def enumeration(value: Any) -> int:
    """Return the number of a value of an enumeration, by its number or its name; 0 for what is neither."""
    return _ENUMERATIONS.get(value) or integer(value)


def _value_of_json(value: Value | None) -> Plain | None:
    """Return what a value is; None for lists and maps, and for what is not what it says it is."""
    if value is None:
        return None
    if isinstance(value.string_value, str):
        return value.string_value
    if value.int_value is not None:
        return _number(value.int_value)
    if value.double_value is not None:
        return _number(value.double_value)
    return value.bool_value if isinstance(value.bool_value, bool) else None


def _number(value: Any) -> Number | None:
    """Return an integer that JSON has as text; anything else as it is, for whoever counts with it to refuse."""
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value) else value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _UINT64_MAX else value
    if isinstance(value, int):
        return value if abs(value) <= _UINT64_MAX else math.inf
    return None


def _total_of_protobuf(point: Any) -> Plain | None:
    if point.DESCRIPTOR.name == "NumberDataPoint":
        name = point.WhichOneof("value")
        return getattr(point, name) if name else None
    return point.sum if point.HasField("sum") else None


def _total_of_json(point: DataPoint) -> Plain | None:
    total = next((value for value in (point.as_int, point.as_double, point.sum) if value is not None), None)
    return None if total is None else _number(total)


def _identity_of_json(value: str | None) -> str:
    return (value or "").lower()


def _text_of_json(value: str | None) -> str:
    return value or ""


JSON: Final = Wire(_attributes_of_json, _identity_of_json, _total_of_json, _text_of_json)
PROTOBUF: Final = Wire(_attributes_of_protobuf, bytes.hex, _total_of_protobuf, str)
REPAIRED: Final = PROTOBUF._replace(attributes=_repaired_attributes, text=text)
