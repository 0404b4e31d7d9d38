"""Rows to the bytes of a page, as clients of the Usage API read them."""

from collections.abc import Iterable
from typing import Final

import msgspec

from tallybook.wire.params import PageRequest

_ENCODER: Final = msgspec.json.Encoder()

Row = tuple[int, tuple[str | bool | None, ...], tuple[int, ...]]
"""Start of the bucket in Unix seconds, values of the dimensions grouped by, values of the kind's measures."""


def render(request: PageRequest, rows: Iterable[Row]) -> bytes:
    """Return the body of a page.

    Args:
        request: what was asked.
        rows: the groups of all its buckets, in the order in which they shall stand in a bucket.
    """
    query = request.query
    names = ("object", *query.kind.measures, *query.kind.group_by)
    places = [query.group_by.index(name) if name in query.group_by else None for name in query.kind.group_by]
    results: dict[int, list[dict[str, object]]] = {}
    for start_s, group, measures in rows:
        dimensions = (None if place is None else group[place] for place in places)
        values = (query.kind.object, *measures, *dimensions)
        results.setdefault(start_s, []).append(dict(zip(names, values, strict=True)))
    data = [_bucket(start_s, end_s, results.get(start_s, [])) for start_s, end_s in request.buckets]
    return _ENCODER.encode(
        {
            "object": "page",
            "data": data,
            "has_more": request.next_page is not None,
            "next_page": request.next_page,
        }
    )


def _bucket(start_s: int, end_s: int, results: list[dict[str, object]]) -> dict[str, object]:
    # The live service and its clients call the list `results`, the published reference `result`: both are there,
    # encoded once.
    encoded = msgspec.Raw(_ENCODER.encode(results))
    return {
        "object": "bucket",
        "start_time": start_s,
        "end_time": end_s,
        "results": encoded,
        "result": encoded,
    }
