"""Events of one kind and organization on their way in, and what is counted of those that were sent before."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tallybook.columns import Columns, Integers, Truths
from tallybook.event import Record
from tallybook.store.protocol import Conflict, Outcome
from tallybook.store.series import Owner

Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Share:
    """Events of one kind and organization on their way in.

    Attributes:
        organization_id: whose they are.
        batches: the number of each one's batch.
        columns: the events; positions are those in their batches.
        calls: what identifies each as a call, see `tallybook.store.calls`; None for events that are not calls.
    """

    organization_id: str
    batches: Integers
    columns: Columns
    calls: Digests | None = None

    @property
    def owner(self) -> Owner:
        """What their series belong to."""
        return self.organization_id, self.columns.kind.name

    def only(self, kept: Truths) -> "Share":
        """Return the events that are marked."""
        if kept.all():
            return self
        calls = None if self.calls is None else self.calls[kept]
        return Share(self.organization_id, self.batches[kept], self.columns.only(kept), calls)

    def per_batch(self, marked: Truths | None = None) -> Iterable[tuple[int, int]]:
        """Return for each batch how many events it has here, or how many that are marked."""
        numbers, counts = np.unique(self.batches if marked is None else self.batches[marked], return_counts=True)
        return zip(numbers.tolist(), counts.tolist(), strict=True)


def count_repeat(outcome: Outcome, position: int, sent: Record, stands: Record) -> None:
    """Count an event whose identity is taken, as a duplicate or a conflict."""
    kind = sent.kind
    if stands.dimensions == sent.dimensions and stands.measures == sent.measures and stands.cost == sent.cost:
        outcome.duplicates[kind.name] += 1
        return
    fields = (*kind.dimensions, *kind.measures, "cost")
    pairs = zip(
        fields,
        (*stands.dimensions, *stands.measures, stands.cost),
        (*sent.dimensions, *sent.measures, sent.cost),
        strict=True,
    )
    field, stored, value = next(pair for pair in pairs if pair[1] != pair[2])
    outcome.conflicts.append(Conflict(position, kind.name, field, stored, value))
