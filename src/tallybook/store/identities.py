"""Which events of late are stored: a bounded memory that spares most commits the search for duplicates.

Events come in the order of their time, more or less, and are sent again soon, if at all. So the memory holds what is
stored of the latest minutes. It never says that an event is new when it is not: what it does not know for sure is
searched for in the store.
"""

from typing import Final

import numpy as np

from tallybook.columns import Integers

KNOWN_MAX: Final = 250_000
"""About 25 MB."""
_MINUTE_MS: Final = 60_000


class RecentIdentities:
    """Digests of the identities of all events stored with a timestamp from some minute on.

    Args:
        latest_ms: no event is stored that is later than this, Unix milliseconds.
        known_max: how many events are remembered at the most.
    """

    def __init__(self, latest_ms: int, known_max: int = KNOWN_MAX) -> None:
        self._since_ms = latest_ms - latest_ms % _MINUTE_MS + _MINUTE_MS
        self._known_max = known_max
        self._known: set[int] = set()
        self._minutes: dict[int, list[int]] = {}

    def are_new(self, digests: list[int], instants_ms: Integers) -> bool:
        """Whether it is certain that no event is stored already, nor occurs twice among them.

        Args:
            digests: hashes of the events' identities.
            instants_ms: their timestamps, Unix milliseconds.
        """
        if not digests:
            return True
        if instants_ms.min() < self._since_ms:
            return False
        different = set(digests)
        return len(different) == len(digests) and different.isdisjoint(self._known)

    def add(self, digests: list[int], instants_ms: Integers) -> None:
        """Remember events that are stored now."""
        if not digests:
            return
        order = np.argsort(instants_ms, kind="stable")
        minutes, starts = np.unique(instants_ms[order] // _MINUTE_MS, return_index=True)
        ordered = [digests[place] for place in order]
        for minute, first, end in zip(minutes.tolist(), starts, [*starts[1:], len(ordered)], strict=True):
            if minute * _MINUTE_MS >= self._since_ms:
                self._minutes.setdefault(minute, []).extend(ordered[first:end])
                self._known.update(ordered[first:end])
        if len(self._known) > self._known_max:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        for minute in sorted(self._minutes):
            if len(self._known) <= self._known_max // 2:
                break
            self._known.difference_update(self._minutes.pop(minute))
            self._since_ms = (minute + 1) * _MINUTE_MS
