"""Time as the Usage API sees it: UTC, half-open, buckets aligned to the minute, hour or day.

Instants are Unix milliseconds or, where the wire has them so, Unix seconds; a name says which. Nothing here reads
the clock.
"""

from dataclasses import dataclass
from typing import Final

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
INSTANT_MAX_S: Final = 4_102_444_800
"""2100-01-01: what a client gives beyond it is milliseconds by mistake."""
ALL_S: Final = 2**40
"""A bucket of any window: no edge of this grid lies in one."""


@dataclass(frozen=True, slots=True)
class Width:
    """A bucket width of the wire, with how many buckets a page has by default and at most."""

    name: str
    seconds: int
    limit_default: int
    limit_max: int


WIDTHS: Final = {
    width.name: width
    for width in (
        Width("1m", MINUTE_S, 60, 1440),
        Width("1h", HOUR_S, 24, 168),
        Width("1d", DAY_S, 7, 31),
        Width("all", ALL_S, 1, 1),
    )
}
"""The reference has those of a minute, an hour and a day; one bucket for the whole window is ours."""

COST_WIDTHS: Final = {**WIDTHS, "1d": Width("1d", DAY_S, 7, 180)}
"""The same for costs, of which a page may have more days."""


def floor_s(instant_s: int, width_s: int) -> int:
    """Return the last edge of the grid at or before an instant."""
    return instant_s - instant_s % width_s


def buckets(start_s: int, end_s: int, width_s: int, limit: int) -> list[tuple[int, int]]:
    """Return the first ``limit`` buckets of a window, oldest first, as ``(start, end)`` in Unix seconds.

    The first bucket begins at ``start_s`` itself and ends at the next edge; the last ends at ``end_s``.
    """
    found: list[tuple[int, int]] = []
    while start_s < end_s and len(found) < limit:
        edge = min(floor_s(start_s, width_s) + width_s, end_s)
        found.append((start_s, edge))
        start_s = edge
    return found
