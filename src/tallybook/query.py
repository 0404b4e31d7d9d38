"""A question to the store, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Query:
    """What one organization used, or what it cost, in the buckets of one page.

    Attributes:
        organization_id: whose; nothing of another organization can be in the answer.
        start_s: first instant of the page, Unix seconds, inclusive; a whole minute.
        end_s: end of the page, Unix seconds, exclusive.
        width_s: bucket width. Buckets lie on its grid; the first begins at ``start_s``.
        now_s: the present. A level is averaged over the elapsed part of a bucket only.
        group_by: dimensions of the rows, in the order the rows name them.
        filters: dimension to the values it may have; a row must satisfy all.
        rows_max: the most rows an answer may have.
    """

    organization_id: str
    start_s: int
    end_s: int
    width_s: int
    now_s: int
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str | bool, ...]] = field(default_factory=dict)
    rows_max: int = 200_000
