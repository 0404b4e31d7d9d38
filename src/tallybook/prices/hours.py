"""Hours of the week that a price is for, by the clocks of one time zone.

Windows are half-open: 09:00-12:00 begins at nine and is over at noon. Where clocks are put back an hour comes twice,
and counts twice; where they are put forward it does not come.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_DAY_MINUTES: Final = 24 * 60
_DAY_MS: Final = 86_400_000
_QUARTER_MS: Final = 900_000
"""Clocks are put forward and back at a full quarter of an hour."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_MS: Final = 366 * _DAY_MS
_SOME_DAY_MS: Final = 1_767_225_600_000
"""2026-01-01, for windows without dates."""
_ALL_DAY: Final = ((0, _DAY_MINUTES),)


@dataclass(frozen=True, slots=True)
class Hours:
    """Windows that come back every week.

    Attributes:
        spans: minutes after midnight, half-open.
        weekdays: on which days, Monday is 0.
        zone: name of the time zone.
    """

    spans: tuple[tuple[int, int], ...]
    weekdays: tuple[int, ...]
    zone: str

    def __str__(self) -> str:
        days = [] if len(self.weekdays) == len(_DAYS) else [" ".join(_DAYS[day] for day in self.weekdays)]
        spans = (
            [] if self.spans == _ALL_DAY else [" ".join(f"{_clock(start)}-{_clock(end)}" for start, end in self.spans)]
        )
        return " ".join((*days, *spans, self.zone))

    def holds(self, instant_ms: int) -> bool:
        """Whether an instant, Unix milliseconds, lies in one of the windows."""
        local = (_EPOCH + timedelta(milliseconds=instant_ms)).astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        return local.weekday() in self.weekdays and any(start <= minute < end for start, end in self.spans)

    def changes_ms(self, day_ms: int) -> set[int]:
        """Return when within a UTC day, Unix milliseconds, windows may open or close."""
        zone = ZoneInfo(self.zone)
        start = (_EPOCH + timedelta(milliseconds=day_ms)).astimezone(zone)
        end = (_EPOCH + timedelta(milliseconds=day_ms + _DAY_MS)).astimezone(zone)
        if start.utcoffset() != end.utcoffset():
            return set(range(day_ms + _QUARTER_MS, day_ms + _DAY_MS, _QUARTER_MS)) | self._edges_ms(
                start.date(), day_ms
            )
        return self._edges_ms(start.date(), day_ms)

    def _edges_ms(self, first: date, day_ms: int) -> set[int]:
        zone = ZoneInfo(self.zone)
        minutes = {0, *(minute for span in self.spans for minute in span)}
        found = set()
        for days in range(2):
            midnight = datetime.combine(first + timedelta(days=days), time.min)
            for minute in minutes:
                for fold in (0, 1):
                    local = (midnight + timedelta(minutes=minute)).replace(tzinfo=zone, fold=fold)
                    found.add((local - _EPOCH) // timedelta(milliseconds=1))
        return {instant_ms for instant_ms in found if day_ms < instant_ms < day_ms + _DAY_MS}


def first_common_ms(one: Hours, other: Hours, since_ms: int | None, until_ms: int | None) -> int | None:
    """Return an instant, Unix milliseconds, that lies in windows of both, None if there is none.

    Clocks of two zones are further apart in some months than in others, so the first year is looked through.

    Args:
        one: windows.
        other: windows, perhaps of another zone.
        since_ms: start of the time that is looked at; None for any.
        until_ms: its end, exclusive; None for any.
    """
    if one.zone == other.zone and not _cross(one, other):
        return None
    start_ms = since_ms if since_ms is not None else min(_SOME_DAY_MS, (until_ms or _SOME_DAY_MS) - _YEAR_MS)
    end_ms = min(start_ms + _YEAR_MS, until_ms if until_ms is not None else start_ms + _YEAR_MS)
    for day_ms in range(start_ms - start_ms % _DAY_MS, end_ms, _DAY_MS):
        edges_ms = {max(day_ms, start_ms), *one.changes_ms(day_ms), *other.changes_ms(day_ms)}
        for at_ms in sorted(edges_ms):
            if start_ms <= at_ms < end_ms and one.holds(at_ms) and other.holds(at_ms):
                return at_ms
    return None


def _cross(one: Hours, other: Hours) -> bool:
    """Return whether windows of one zone have a minute of the week in common."""
    return not set(one.weekdays).isdisjoint(other.weekdays) and any(
        start < until and since < end for start, end in one.spans for since, until in other.spans
    )


def read_hours(hours: str, weekdays: str, zone: str) -> Hours | None:
    """Return the windows that three cells of a price file describe, None if all are empty.

    Raises:
        ValueError: a cell is none of its kind; its arguments are the column and what would be right.
    """
    if not (hours or weekdays or zone):
        return None
    if not (hours or weekdays):
        raise ValueError("timezone", "a time zone is for hours or weekdays; give one of them, or leave it empty")
    spans = [_span(text) for text in hours.split()]
    days: set[int] = set()
    for text in weekdays.lower().split():
        days |= _days(text)
    try:
        ZoneInfo(zone or "UTC")
    except (ValueError, OSError, LookupError):
        raise ValueError("timezone", f"{zone!r} is not a time zone; write it like UTC or Asia/Shanghai") from None
    return Hours(tuple(sorted(spans)) or _ALL_DAY, tuple(sorted(days or range(len(_DAYS)))), zone or "UTC")


def _span(text: str) -> tuple[int, int]:
    found = _SPAN.fullmatch(text)
    start, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if not 0 <= start < end <= _DAY_MINUTES:
        message = f"{text!r} is not a window of a day; write it like 09:00-12:00, and two windows around midnight"
        raise ValueError("hours", message)
    return start, end


def _days(text: str) -> set[int]:
    first, _, last = text.partition("-")
    if first not in _DAYS or (last or first) not in _DAYS:
        raise ValueError("weekdays", f"{text!r} is not a day of the week; days are {', '.join(_DAYS)}, or mon-fri")
    start, end = _DAYS.index(first), _DAYS.index(last or first)
    if end < start:
        raise ValueError("weekdays", f"{text!r} ends before it begins; write the days apart, such as sat sun mon")
    return set(range(start, end + 1))


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
