"""Which cells answer a window: the coarsest that fit, so that a month is read from days and not from events."""

from typing import NamedTuple

from tallybook.timegrid import DAY_S, HOUR_S, floor_s


class Segment(NamedTuple):
    """A part of a window and the table that answers it, half-open, Unix seconds."""

    table: str
    start_s: int
    end_s: int


_ROLLUPS = (("usage_days", DAY_S), ("usage_hours", HOUR_S))


def cover(start_s: int, end_s: int, width_s: int) -> list[Segment]:
    """Return segments that cover a window once, without gap or overlap, in no particular order.

    Args:
        start_s: first instant.
        end_s: end, exclusive.
        width_s: bucket width; a cell may not be wider than a bucket.
    """
    rollups = [rollup for rollup in _ROLLUPS if rollup[1] <= width_s]
    return _cover(start_s, end_s, rollups)


def _cover(start_s: int, end_s: int, rollups: list[tuple[str, int]]) -> list[Segment]:
    if start_s >= end_s:
        return []
    if not rollups:
        return [Segment("events", start_s, end_s)]
    (table, cell_s), *finer = rollups
    first, last = -floor_s(-start_s, cell_s), floor_s(end_s, cell_s)
    if first >= last:
        return _cover(start_s, end_s, finer)
    return [*_cover(start_s, first, finer), Segment(table, first, last), *_cover(last, end_s, finer)]
