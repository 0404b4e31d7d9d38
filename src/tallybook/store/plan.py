"""Which cells answer a window: the coarsest that fit, so that a month is read from days and not from events."""

from collections.abc import Sequence
from typing import NamedTuple

from tallybook.store.protocol import Kept
from tallybook.store.retention import since_s
from tallybook.store.rollups import Rollup
from tallybook.timegrid import floor_s


class Segment(NamedTuple):
    """A part of a window and the table that answers it, half-open, Unix seconds."""

    table: str
    start_s: int
    end_s: int


def cover(start_s: int, end_s: int, rollups: Sequence[Rollup], kept: Kept) -> list[Segment]:
    """Return segments that cover a window once, without gap or overlap, in no particular order.

    Args:
        start_s: first instant.
        end_s: end, exclusive.
        rollups: those that can answer, of longer cells first. What they cannot cover is read from events.
        kept: since when rollups are whole. Before, what they cannot cover is not there to be read at all.
    """
    if start_s >= end_s:
        return []
    if not rollups:
        return [Segment("facts", start_s, end_s)]
    rollup, *finer = rollups
    first = -floor_s(-max(start_s, since_s(kept, rollup)), rollup.cell_s)
    last = floor_s(end_s, rollup.cell_s)
    if first >= last:
        return cover(start_s, end_s, finer, kept)
    middle = Segment(rollup.table, first, last)
    return [*cover(start_s, first, finer, kept), middle, *cover(last, end_s, finer, kept)]
