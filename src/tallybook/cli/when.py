"""Instants and windows as people type them."""

import re
from datetime import UTC, datetime

from tallybook.errors import CommandFailed

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def instant(text: str, now_s: int) -> int:
    """Return Unix seconds of ``7d`` (ago), a date, an RFC 3339 time or Unix seconds; without an offset it is UTC.

    Raises:
        CommandFailed: it is none of them.
    """
    if ago := _AGO.fullmatch(text):
        return now_s - int(ago[1]) * _UNIT_S[ago[2]]
    if text.isdecimal():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(
            f"{text!r} is no time; write 7d, 24h, 30m, 2026-01-31, 2026-01-31T09:00:00Z or Unix seconds"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def span(text: str) -> int:
    """Return the seconds of ``5m``.

    Raises:
        CommandFailed: it is no such span, or none at all.
    """
    found = _SPAN.fullmatch(text)
    if not found or not int(found[1]):
        raise CommandFailed(f"{text!r} is no span of time; write 30s, 5m, 1h or 1d")
    return int(found[1]) * _UNIT_S[found[2]]


def show(instant_s: int, width: str) -> str:
    """Return an instant as a table shows it, UTC: a date, or date and time for narrow buckets."""
    found = datetime.fromtimestamp(instant_s, UTC)
    if width == "1d" and instant_s % 86_400 == 0:
        return found.strftime("%Y-%m-%d")
    return found.strftime("%Y-%m-%d %H:%M")
