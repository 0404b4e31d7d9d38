"""Query parameters to a question. Everything a client can get wrong is answered with parameter, value and remedy.

Arrays arrive as ``k=a&k=b``, ``k[]=a&k[]=b`` and, for ``group_by`` alone, ``a,b``: its values hold no comma, those of
other lists (line items, models) may.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from tallybook.errors import InvalidRequest
from tallybook.event import TEXT_MAX, nearest
from tallybook.kinds import DIMENSIONS, KINDS, Dimension
from tallybook.parts import LINE_ITEM_MAX
from tallybook.query import Query
from tallybook.timegrid import ALL_S, COST_WIDTHS, DAY_S, INSTANT_MAX_S, MINUTE_S, WIDTHS, Width, buckets, floor_s
from tallybook.wire.cursor import Cursor, read_cursor, write_cursor

_INTEGER: Final = re.compile(r"-?\d{1,64}", re.ASCII)
_VALUES_MAX: Final = 1_000
_FIXED: Final = ("start_time", "end_time", "bucket_width", "group_by", "limit", "page")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What can be asked of an endpoint.

    Attributes:
        name: what it tells of.
        group_by: fields that can be grouped by.
        filters: filter parameter to what it selects by.
        widths: bucket widths by name.
        is_aligned: the first bucket begins at the edge of the grid before the window's start, not at its minute.
        is_whole: the last bucket is whole as well, whenever the window ends.
        fixed: its other parameters.
    """

    name: str
    group_by: tuple[str, ...]
    filters: Mapping[str, Dimension]
    widths: Mapping[str, Width]
    is_aligned: bool = False
    is_whole: bool = False
    fixed: tuple[str, ...] = _FIXED


USAGE: Final = {
    kind.name: Endpoint(f"{kind.name} usage", kind.group_by, kind.filters, WIDTHS) for kind in KINDS.values()
}
"""The endpoint of each usage kind."""

_LINE_ITEM: Final = Dimension("line_item", "line_items", "line item, by its whole name")
COSTS: Final = Endpoint(
    "costs",
    ("project_id", "user_id", "api_key_id", "line_item", "api_source", "model", "service_tier", "batch"),
    {
        "project_ids": DIMENSIONS["project_id"],
        "user_ids": DIMENSIONS["user_id"],
        "api_key_ids": DIMENSIONS["api_key_id"],
        "line_items": _LINE_ITEM,
        "models": DIMENSIONS["model"],
        "service_tier": DIMENSIONS["service_tier"],
        "batch": DIMENSIONS["batch"],
    },
    COST_WIDTHS,
    is_aligned=True,
)
"""The reference has the first five to group by, and filters on projects, keys and line items; the rest is ours."""

UNPRICED: Final = Endpoint(
    "costs/unpriced",
    COSTS.group_by,
    COSTS.filters,
    COST_WIDTHS,
    is_aligned=True,
    fixed=("start_time", "end_time", "bucket_width", "group_by", "count_events"),
)
"""What the amounts of a question about costs leave out is asked for with the same parameters."""
_BUCKETS_MAX: Final = 10_000
"""Buckets of an answer that has no pages: a week by the minute, a year by the hour, 27 years by the day."""

RECONCILIATION: Final = Endpoint(
    "reconciliation",
    ("line_item", "model", "project_id"),
    {"provider": Dimension("provider", "provider", "whose book"), "project_ids": DIMENSIONS["project_id"]},
    {"1d": COST_WIDTHS["1d"]},
    is_aligned=True,
    is_whole=True,
)
"""Both books side by side, by whole days: a provider's has no parts of days."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page of the answer to a question.

    Attributes:
        query: the part of the question this page answers.
        buckets: its buckets, ``(start, end)`` in Unix seconds, oldest first; each is in the answer.
        next_page: cursor of the page after, None on the last.
    """

    query: Query
    buckets: list[tuple[int, int]]
    next_page: str | None


def parse(
    endpoint: Endpoint,
    parameters: Iterable[tuple[str, str]],
    organization_id: str,
    now_s: int,
    rows_max: int,
) -> PageRequest:
    """Return the page a request asks for.

    Args:
        endpoint: what is asked.
        parameters: decoded names and values, in the order they were sent.
        organization_id: whose usage is asked for.
        now_s: the present, Unix seconds; end of a window that names none.
        rows_max: the most results a page may have.

    Raises:
        InvalidRequest: naming the parameter.
    """
    given = _gather(endpoint, parameters)
    width = _width(given, endpoint)
    start_s = _start(given, now_s)
    end_s = _end(given, start_s)
    group_by = _group_by(given, endpoint)
    filters = _filters(given, endpoint)
    limit = _limit(given, width)
    question = msgspec.json.encode(
        [organization_id, endpoint.name, start_s, end_s, width.name, group_by, sorted(filters.items())]
    )
    first_s = floor_s(start_s, min(width.seconds, DAY_S) if endpoint.is_aligned else MINUTE_S)
    last_s = now_s if end_s is None else end_s
    cursor = Cursor(first_s, -floor_s(-last_s, width.seconds) if endpoint.is_whole else last_s)
    if page := _one(given, "page"):
        cursor = read_cursor(page, question)
    page_buckets = buckets(cursor.next_s, cursor.end_s, width.seconds, limit)
    reached_s = page_buckets[-1][1]
    return PageRequest(
        Query(
            organization_id,
            cursor.next_s,
            reached_s,
            width.seconds,
            now_s,
            group_by,
            filters,
            rows_max,
        ),
        page_buckets,
        write_cursor(Cursor(reached_s, cursor.end_s), question) if reached_s < cursor.end_s else None,
    )


class UnpricedRequest(NamedTuple):
    """A question about usage without a price.

    Attributes:
        query: the question.
        has_buckets: whether a width was asked for; otherwise the window is one bucket, to the second.
        counts: whether events are to be counted.
    """

    query: Query
    has_buckets: bool
    counts: bool


def parse_unpriced(
    parameters: Iterable[tuple[str, str]], organization_id: str, now_s: int, rows_max: int
) -> UnpricedRequest:
    """Return what a request for unpriced usage asks; see `parse`. All buckets are in one answer.

    Raises:
        InvalidRequest: naming the parameter.
    """
    given = _gather(UNPRICED, parameters)
    counts = _one(given, "count_events") or "true"
    if counts not in ("true", "false"):
        raise _unsupported("count_events", counts, ("true", "false"))
    start_s = _instant(given, "start_time") or 0
    end_s = _end(given, start_s)
    if end_s is None:
        end_s = now_s
        if start_s >= now_s:
            raise _invalid("end_time", f"it is absent, and now ({now_s}) is not after start_time {start_s}.")
    has_buckets = "bucket_width" in given
    width_s = _width(given, UNPRICED).seconds if has_buckets else ALL_S
    if has_buckets:
        start_s = floor_s(start_s, min(width_s, DAY_S))
    if (count := -((start_s - end_s) // width_s)) > _BUCKETS_MAX:
        raise _invalid(
            "bucket_width",
            f"{given['bucket_width'][0]!r} makes {count} buckets of this window, above the maximum of {_BUCKETS_MAX}. "
            "Give a wider one, or a later start_time.",
        )
    group_by, filters = _group_by(given, UNPRICED), _filters(given, UNPRICED)
    query = Query(organization_id, start_s, end_s, width_s, now_s, group_by, filters, rows_max)
    return UnpricedRequest(query, has_buckets, counts == "true")


def _filters(given: dict[str, list[str]], endpoint: Endpoint) -> dict[str, tuple[str | bool, ...]]:
    return {
        dimension.name: _filter(given[name], name, dimension)
        for name, dimension in endpoint.filters.items()
        if name in given
    }


def _gather(endpoint: Endpoint, parameters: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    known = (*endpoint.fixed, *endpoint.filters)
    given: dict[str, list[str]] = {}
    for sent, value in parameters:
        name = sent.removesuffix("[]")
        if name not in known:
            raise _unknown(name, endpoint, known)
        given.setdefault(name, []).append(value)
        if len(given[name]) > _VALUES_MAX:
            raise _invalid(name, f"more than {_VALUES_MAX} values. Ask in several requests.")
    return given


def _unknown(name: str, endpoint: Endpoint, known: tuple[str, ...]) -> InvalidRequest:
    name = name[:TEXT_MAX]
    return InvalidRequest(
        f"Unknown parameter: {name!r}{nearest(name, known)}. {endpoint.name} takes {', '.join(known)}.",
        param=name,
        code="unknown_parameter",
    )


def _one(given: dict[str, list[str]], name: str) -> str | None:
    values = given.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise _invalid(name, f"it is given {len(values)} times. Give it once.")
    return values[0]


def _integer(given: dict[str, list[str]], name: str) -> int | None:
    text = _one(given, name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise _invalid(name, f"expected an integer, but got {text[:64]!r} instead.", "invalid_type")
    return int(text)


def _instant(given: dict[str, list[str]], name: str) -> int | None:
    instant_s = _integer(given, name)
    if instant_s is None:
        return None
    if instant_s < 0:
        raise _below(name, instant_s, 0)
    if instant_s > INSTANT_MAX_S:
        hint = " It looks like milliseconds; give seconds." if instant_s < INSTANT_MAX_S * 1000 else ""
        raise _above(name, instant_s, INSTANT_MAX_S, hint)
    return instant_s


def _start(given: dict[str, list[str]], now_s: int) -> int:
    start_s = _instant(given, "start_time")
    if start_s is None:
        raise InvalidRequest(
            "Missing required parameter: 'start_time'. Give the start of the window in Unix seconds.",
            param="start_time",
            code="missing_required_parameter",
        )
    if start_s >= now_s and "end_time" not in given:
        raise _invalid("start_time", f"{start_s} lies in the future (now is {now_s}). Give an end_time as well.")
    return start_s


def _end(given: dict[str, list[str]], start_s: int) -> int | None:
    end_s = _instant(given, "end_time")
    if end_s is not None and end_s <= start_s:
        raise _invalid(
            "end_time",
            f"{end_s} is not after start_time {start_s}. The window is start_time <= t < end_time.",
        )
    return end_s


def _width(given: dict[str, list[str]], endpoint: Endpoint) -> Width:
    name = _one(given, "bucket_width")
    if name is None:
        return endpoint.widths["1d"]
    if name not in endpoint.widths:
        raise _unsupported("bucket_width", name, tuple(endpoint.widths))
    return endpoint.widths[name]


def _limit(given: dict[str, list[str]], width: Width) -> int:
    limit = _integer(given, "limit")
    if limit is None:
        return width.limit_default
    if limit < 1:
        raise _below("limit", limit, 1)
    if limit > width.limit_max:
        raise _above("limit", limit, width.limit_max, f" That is the most for bucket_width {width.name}.")
    return limit


def _group_by(given: dict[str, list[str]], endpoint: Endpoint) -> tuple[str, ...]:
    names = [name for value in given.get("group_by", ()) for name in value.split(",")]
    for name in names:
        if name not in endpoint.group_by:
            raise _unsupported("group_by", name, endpoint.group_by)
    return tuple(dict.fromkeys(names))


def _filter(values: Sequence[str], name: str, dimension: Dimension) -> tuple[str | bool, ...]:
    if dimension is DIMENSIONS["batch"]:
        values = [value.lower() for value in values]  # Python's str(True) is "True"
    longest = LINE_ITEM_MAX if dimension is _LINE_ITEM else TEXT_MAX
    for value in values:
        if not 1 <= len(value) <= longest:
            raise _invalid(name, f"a value has 1 to {longest} characters, but got {value[:64]!r} instead.")
        if dimension.values and value not in dimension.values:
            raise _unsupported(name, value, dimension.values)
    if dimension is DIMENSIONS["batch"]:
        return (_one({name: list(values)}, name) == "true",)
    return tuple(sorted(set(values)))


def _unsupported(name: str, value: str, supported: Sequence[str]) -> InvalidRequest:
    *most, last = (repr(item) for item in supported)
    listed = f"{', '.join(most)}, and {last}" if len(most) > 1 else " and ".join([*most, last])
    return InvalidRequest(
        f"Invalid value: {value[:TEXT_MAX]!r}{nearest(value, supported)}. Supported values are: {listed}.",
        param=name,
        code="invalid_value",
    )


def _above(name: str, value: int, limit: int, hint: str = "") -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': integer above maximum value. Expected a value <= {limit}, but got {value} instead.{hint}",
        param=name,
        code="integer_above_max_value",
    )


def _below(name: str, value: int, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': integer below minimum value. Expected a value >= {limit}, but got {value} instead.",
        param=name,
        code="integer_below_min_value",
    )


def _invalid(name: str, problem: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': {problem}", param=name, code=code)
