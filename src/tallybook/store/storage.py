"""What holding something cost: bytes times how long, by the rates in force meanwhile.

A report holds until the store's next one, or until now. Its price is by time and not by report: one that holds over a
change of price is charged by both. Amounts are added up from the start of each UTC day and rounded there, half up, to
10^-18 dollars: a bucket costs what the day has come to at its end less what it had come to at its start. So minutes and
hours add up to the day exactly, although a price for a byte and a millisecond has no finite decimal.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from tallybook.money import UNIT, half_up
from tallybook.query import Query
from tallybook.rate import BYTE_MS, Price, Rate
from tallybook.store.answer import Snapshot, Statement
from tallybook.store.charges import group_column, selection_of, sums_max, too_many, wanted_lines
from tallybook.timegrid import ALL_S, DAY_S, buckets, floor_s

_ASKED: Final = ("project_id", "user_id", "api_key_id")
"""The dimensions that stores have; all others are NULL for them."""
_AT_ONCE: Final = 100_000
"""How many rows, of a store in a bucket each, are fetched at a time to be added up: some 30 MB."""
_Sums = defaultdict[tuple[int, tuple[Any, ...]], defaultdict[tuple[str, int], list[int]]]
"""Quantity and amount, by start of the bucket and dimensions, then by part and rate."""


class Held(NamedTuple):
    """What was held in a bucket, by whom and at which rate.

    Attributes:
        start_s: start of the bucket.
        group: dimensions.
        part: ``storage``, or ``free_storage`` for what of it was free.
        rate_id: by what it is charged; 0 if nothing has a price.
        quantity: GiB-hours in units of 10^-18.
        amount: 10^-18 dollars, negative for what was free.
    """

    start_s: int
    group: tuple[str | bool | None, ...]
    part: str
    rate_id: int
    quantity: int
    amount: int


def held(query: Query, names: tuple[str, ...], snapshot: Snapshot, rates: Callable[[int], Rate | None]) -> list[Held]:
    """Return what an organization's stores held in the buckets of a query, and what that cost.

    Args:
        query: the question.
        names: the dimensions of the groups.
        snapshot: what it is asked of.
        rates: a rate by its number.

    Raises:
        InvalidRequest: there would be more rows than the query allows.
    """
    end_s = min(query.end_s, query.now_s)
    lines = None if "line_item" not in query.filters else {line.part for line in wanted_lines(query)}
    foreign = query.filters.keys() - {*_ASKED, "line_item"}
    if end_s <= query.start_s or foreign or lines == set():
        return []
    used = [number for (number,) in snapshot(*_rates(query))]
    sums: _Sums = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    day_s = floor_s(query.start_s, DAY_S)
    width_s = min(query.width_s, DAY_S)  # what is rounded by the day is added up by the day
    edges = buckets(query.start_s, end_s, width_s, limit=2 + (end_s - query.start_s) // width_s)
    if day_s < query.start_s:
        edges = [(day_s, query.start_s), *edges]
    if lines is None or "storage" in lines:
        for rows in _read(query, names, edges, snapshot):
            _add(sums, query, rows, "storage", rates)
            if len(sums) > sums_max(query):
                raise too_many(query)
    if not query.filters.keys() - {"line_item"} and (lines is None or "free_storage" in lines):
        nobody = (None,) * len(names)
        rows = [
            (start_s, *nobody, "", rate_id, -byte_ms)
            for rate_id, free_bytes in _free(used, rates)
            for start_s, byte_ms in snapshot(*_least(query, edges, rate_id, free_bytes))
        ]
        _add(sums, query, sorted(rows, key=lambda row: row[0]), "free_storage", rates)
    return [
        Held(start_s, group, part, rate_id, quantity, amount)
        for (start_s, group), by_rate in sums.items()
        for (part, rate_id), (quantity, amount) in by_rate.items()
    ]


def _price(rates: Callable[[int], Rate | None], number: int) -> Price:
    rate = rates(number)
    assert rate is not None  # a timeline names rates that are written, or 0
    return rate.prices[0]


def _add(
    sums: _Sums, query: Query, rows: Iterable[tuple[Any, ...]], part: str, rates: Callable[[int], Rate | None]
) -> None:
    """Charge rows of start, dimensions, store, rate, byte-milliseconds: of whole days, in order of time.

    What a store has come to since the day's start is rounded, whatever its prices were: so a bucket is what its parts
    are, also where the price changes within it.
    """
    reached: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    weights: dict[int, int] = {}
    for start_s, *group, store, rate_id, byte_ms in rows:
        if rate_id not in weights:
            weights[rate_id] = _weight(_price(rates, rate_id)) if rate_id else 0
        so_far = reached[(start_s // DAY_S, *group, store)]
        if start_s < query.start_s:
            total = [0, 0]  # of the day before the window only what it has come to is of interest
        else:
            bucket_s = query.start_s if query.width_s == ALL_S else start_s
            total = sums[bucket_s, tuple(group)][part, rate_id]
        for place, (added, unit, whole) in enumerate(
            ((byte_ms, UNIT, BYTE_MS), (byte_ms * weights[rate_id], 1, _HOURS * BYTE_MS))
        ):
            before = so_far[place]
            so_far[place] += added
            total[place] += _rounded(so_far[place] * unit, whole) - _rounded(before * unit, whole)


_HOURS: Final = 24
"""Prices are for hours or for days: as fractions they all have this denominator, besides that of a GiB-hour."""


def _weight(price: Price) -> int:
    """Return a price as 10^-18 dollars for a GiB and `_HOURS` hours."""
    numerator, hours = price.fraction
    assert _HOURS % hours == 0
    return numerator * (_HOURS // hours)


def _rounded(numerator: int, denominator: int) -> int:
    """Half up; what is free is the negative of what it would cost."""
    rounded = half_up(abs(numerator), denominator)
    return rounded if numerator >= 0 else -rounded


_REPORTS: Final = """reports AS (
  SELECT epoch_ms("timestamp") AS from_ms, usage_bytes, amount, series.*
  FROM levels JOIN series USING (series_id)
  WHERE organization_id = $organization_id AND "timestamp" < make_timestamp($until_s::BIGINT * 1000000)
  QUALIFY row_number() OVER (
    PARTITION BY vector_store_id, "timestamp" ORDER BY usage_bytes DESC, project_id, amount, series_id) = 1
), held AS (
  SELECT *, lead(from_ms, 1, $until_s::BIGINT * 1000) OVER (PARTITION BY vector_store_id ORDER BY from_ms) AS to_ms
  FROM reports
), rated AS (
  SELECT epoch_ms(since) AS since_ms, rate_id,
    lead(epoch_ms(since), 1, $until_s::BIGINT * 1000) OVER (ORDER BY since) AS upto_ms
  FROM level_rates WHERE organization_id = $organization_id AND since < make_timestamp($until_s::BIGINT * 1000000)
), buckets AS (
  SELECT unnest($starts::BIGINT[]) AS start_s, unnest($ends::BIGINT[]) AS end_s
), priced AS (
  SELECT start_s, rate_id, greatest(start_s * 1000, since_ms) AS start_ms, least(end_s * 1000, upto_ms) AS end_ms
  FROM buckets JOIN rated ON since_ms < end_s * 1000 AND upto_ms > start_s * 1000
)"""
"""Who held what from when to when; and the buckets, cut where the price changes. A report with a cost of its own has no
price until the next."""


def _values(query: Query, edges: list[tuple[int, int]]) -> dict[str, object]:
    return {
        "organization_id": query.organization_id,
        "starts": [start for start, _ in edges],
        "ends": [end for _, end in edges],
        "until_s": edges[-1][1],
    }


def _read(
    query: Query, names: tuple[str, ...], edges: list[tuple[int, int]], snapshot: Snapshot
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of what stores held, in order of time: all at once, or some days if all days are added up.

    Many days of many stores may come to few sums; a store's rows of a day are never parted.
    """
    if query.width_s != ALL_S:
        rows = snapshot(*_stores(query, names, edges, sums_max(query) + 1))
        if len(rows) > sums_max(query):
            raise too_many(query)
        yield rows
        return
    ((stores, first_s),) = snapshot(*_reporting(query, edges[-1][1]))
    edges = [(start_s, end_s) for start_s, end_s in edges if stores and end_s > first_s]
    # The first day may be in two: before the window and within it.
    at_once = max(2, _AT_ONCE // max(stores, 1))
    for first in range(0, len(edges), at_once):
        yield snapshot(*_stores(query, names, edges[first : first + at_once]))


def _reporting(query: Query, until_s: int) -> Statement:
    """Return the statement for how many stores ever reported before an instant, and when the first did."""
    selection, values = selection_of(query)
    return Statement(
        f"""SELECT count(DISTINCT series_id), epoch_ms(min("timestamp")) // 1000
FROM levels JOIN series USING (series_id)
WHERE "timestamp" < make_timestamp($until_s::BIGINT * 1000000) AND {selection}""",
        values | {"until_s": until_s},
    )


def _stores(query: Query, names: tuple[str, ...], edges: list[tuple[int, int]], limit: int | None = None) -> Statement:
    selection, values = selection_of(query)
    columns = "".join(f", {group_column(name)} AS by_{name}" for name in names)
    groups = "".join(f", by_{name}" for name in names)
    return Statement(
        f"""WITH {_REPORTS}, stores AS (
  SELECT start_s{columns}, vector_store_id || chr(0) || series_id AS store, rate_id,
    usage_bytes::HUGEINT * (least(to_ms, end_ms) - greatest(from_ms, start_ms)) AS byte_ms
  FROM held AS series JOIN priced ON from_ms < end_ms AND to_ms > start_ms
  WHERE usage_bytes > 0 AND amount IS NULL AND {selection}
)
SELECT start_s{groups}, store, rate_id, sum(byte_ms) FROM stores GROUP BY ALL ORDER BY start_s
LIMIT $limit""",
        values | _values(query, edges) | {"limit": limit},
    )


def _rates(query: Query) -> Statement:
    return Statement(
        "SELECT DISTINCT rate_id FROM level_rates WHERE organization_id = $organization_id",
        {"organization_id": query.organization_id},
    )


def _free(numbers: Iterable[int], rates: Callable[[int], Rate | None]) -> Iterable[tuple[int, int]]:
    """Yield each rate that has something free, and how many bytes."""
    for number in numbers:
        if number and (free := _price(rates, number).free):
            yield number, int(free * 2**30)


def _least(query: Query, edges: list[tuple[int, int]], rate_id: int, free_bytes: int) -> Statement:
    """The byte-milliseconds that were free in each bucket: of all the organization holds, at most so many bytes."""
    return Statement(
        f"""WITH {_REPORTS}, changes AS (
  SELECT from_ms AS at_ms, usage_bytes::HUGEINT AS change FROM held WHERE amount IS NULL
  UNION ALL SELECT to_ms, -usage_bytes::HUGEINT FROM held WHERE amount IS NULL
), steps AS (
  SELECT at_ms, sum(change) AS change FROM changes GROUP BY 1
), totals AS (
  SELECT at_ms AS from_ms, sum(change) OVER (ORDER BY at_ms) AS total,
    lead(at_ms, 1, $until_s::BIGINT * 1000) OVER (ORDER BY at_ms) AS to_ms
  FROM steps
)
SELECT start_s, sum(least(total, $free_bytes::BIGINT) * (least(to_ms, end_ms) - greatest(from_ms, start_ms)))
FROM totals JOIN priced ON from_ms < end_ms AND to_ms > start_ms
WHERE total > 0 AND rate_id = $rate_id
GROUP BY 1 ORDER BY 1""",
        _values(query, edges) | {"free_bytes": free_bytes, "rate_id": rate_id},
    )


def unpriced_storage(query: Query, names: tuple[str, ...]) -> Statement:
    """Return the statement for what was held without a price, up to now.

    Its rows: start of the bucket in Unix seconds, first and last report, byte-milliseconds, reports, dimensions.
    """
    selection, values = selection_of(query)
    end_s = min(query.end_s, query.now_s)
    edges = buckets(query.start_s, end_s, query.width_s, limit=2 + (end_s - query.start_s) // query.width_s)
    groups = "".join(f", {group_column(name)}" for name in names)
    return Statement(
        f"""WITH {_REPORTS}
SELECT start_s, min(from_ms) // 1000, max(from_ms) // 1000,
  sum(usage_bytes::HUGEINT * (least(to_ms, end_ms) - greatest(from_ms, start_ms))),
  count(DISTINCT (vector_store_id, from_ms)){groups}
FROM held AS series JOIN priced ON from_ms < end_ms AND to_ms > start_ms
WHERE usage_bytes > 0 AND amount IS NULL AND rate_id = 0 AND {selection}
GROUP BY ALL ORDER BY ALL
LIMIT {query.rows_max + 1}""",
        values | _values(query, edges),
    )
