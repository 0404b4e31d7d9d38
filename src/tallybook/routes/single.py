"""Parameters of requests that are neither pages nor lists: each at most once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec

from tallybook.errors import InvalidRequest
from tallybook.event import TEXT_MAX, nearest
from tallybook.timegrid import INSTANT_MAX_S

Instant = Annotated[int, msgspec.Meta(ge=0, le=INSTANT_MAX_S)]
"""Unix seconds in a body."""


def single(parameters: Iterable[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    """Return parameters by name.

    Raises:
        InvalidRequest: one is unknown, or given twice.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in known:
            raise InvalidRequest(
                f"Unknown parameter: {name[:TEXT_MAX]!r}{nearest(name, known)}. Known are {', '.join(known)}.",
                param=name[:TEXT_MAX],
                code="unknown_parameter",
            )
        if name in given:
            raise InvalidRequest(
                f"Invalid '{name}': it is given more than once. Give it once.", param=name, code="invalid_value"
            )
        given[name] = value
    return given


def instant(given: Mapping[str, str], name: str, default_s: int) -> int:
    """Return Unix seconds.

    Raises:
        InvalidRequest: it is no such number.
    """
    text = given.get(name)
    if text is None:
        return default_s
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= INSTANT_MAX_S):
        raise InvalidRequest(
            f"Invalid '{name}': expected Unix seconds from 0 to {INSTANT_MAX_S}, but got {text[:64]!r} instead.",
            param=name,
            code="invalid_value",
        )
    return int(text)


def window(given: Mapping[str, str], now_s: int, start_s: int = 0) -> tuple[int, int]:
    """Return ``start_time`` and ``end_time``, which may be absent: from the first to now.

    Raises:
        InvalidRequest: one is no instant, or the end is not after the start.
    """
    start_s, end_s = instant(given, "start_time", start_s), instant(given, "end_time", now_s)
    if end_s <= start_s:
        raise InvalidRequest(
            f"Invalid 'end_time': {end_s} is not after start_time {start_s}. The window is start_time <= t < end_time.",
            param="end_time",
            code="invalid_value",
        )
    return start_s, end_s


def choice(given: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """Return one of several values, the first if the parameter is absent.

    Raises:
        InvalidRequest: it is none of them.
    """
    value = given.get(name, choices[0])
    if value not in choices:
        raise InvalidRequest(
            f"Invalid value: {value[:TEXT_MAX]!r}{nearest(value, choices)}. Supported values are: "
            f"{', '.join(map(repr, choices))}.",
            param=name,
            code="invalid_value",
        )
    return value
