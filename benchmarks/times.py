"""How long each of many took."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Times:
    """Durations in milliseconds."""

    ms: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Time what happens inside."""
        started = time.perf_counter()
        yield
        self.ms.append((time.perf_counter() - started) * 1000)

    @property
    def p50(self) -> float:
        """The median."""
        return median(self.ms)

    @property
    def p99(self) -> float:
        """What 99 of 100 stay at or below."""
        return sorted(self.ms)[math.ceil(len(self.ms) * 0.99) - 1]


@dataclass(frozen=True, slots=True)
class Turns:
    """The same measured several times."""

    values: Sequence[float]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most."""
        return min(self.values), max(self.values)
