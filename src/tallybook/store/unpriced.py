"""Usage without a price: the parts of it that no rate speaks of, in raw events, or in sums where those are gone."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tallybook.kinds import KINDS
from tallybook.money import UNIT, half_up, to_decimal
from tallybook.parts import PARTS, UNKNOWN_MODEL
from tallybook.query import Query
from tallybook.rate import BYTE_MS, REPORTED, UNPRICED
from tallybook.store.answer import Snapshot, Statement, bucket_of, cells_of
from tallybook.store.charges import (
    FLOWING,
    MEASURES,
    group_column,
    quantity_of,
    selection_of,
    too_many,
    wanted_lines,
)
from tallybook.store.protocol import TOLD_APART, Line, Unpriced
from tallybook.store.rates import RateIndex, missing_parts
from tallybook.store.storage import unpriced_storage

_KINDS: Final = tuple(kind.name for kind in KINDS.values() if not kind.is_level)
_STORAGE: Final = ("vector_stores", None, None, None, PARTS["storage"])
_PARTS: Final = sorted(FLOWING, key=lambda part: part.name)
_BITS: Final = {part.name: 1 << place for place, part in enumerate(_PARTS)}
"""A number for each part, in the order of names."""
_USED: Final = " | ".join(f"CASE WHEN {quantity_of(part)} > 0 THEN {_BITS[part.name]} ELSE 0 END" for part in _PARTS)
"""Which parts something used. What used the same parts can be added up before parts are told apart."""
_CASES: Final = " ".join(f"WHEN {_BITS[part.name]} THEN {quantity_of(part)}" for part in _PARTS)
_SUMS: Final = ", ".join(f"sum({measure}) AS {measure}" for measure in MEASURES)


def unpriced(snapshot: Snapshot, rates: RateIndex, query: Query, *, counts: bool) -> list[Unpriced]:
    """Return what was used without a price for it, by bucket, the most used first. See `Store.unpriced`."""
    names = tuple(name for name in query.group_by if name not in TOLD_APART)
    events_s = min(max(query.start_s, snapshot.kept.events_s), query.end_s) if counts else query.end_s
    rows = snapshot(*_statement(list(_gaps(rates)), query, names, snapshot, events_s))
    found = [
        Unpriced(
            kind, model, tier, batch, _PARTS[bit.bit_length() - 1], since_s, until_s, quantity, events, at, (*group,)
        )
        for at, kind, model, tier, batch, bit, since_s, until_s, quantity, events, *group in rows
    ]
    is_over = min(query.end_s, query.now_s) <= query.start_s
    for at, since_s, until_s, byte_ms, reports, *group in [] if is_over else snapshot(*unpriced_storage(query, names)):
        if byte_ms:
            gib_hours = to_decimal(half_up(byte_ms * UNIT, BYTE_MS))
            found.append(Unpriced(*_STORAGE, since_s, until_s, gib_hours, reports, at, tuple(group)))
    if len(found) > query.rows_max:
        raise too_many(query)
    if "line_item" in query.filters:
        wanted = set(wanted_lines(query))
        found = [row for row in found if _line(row) in wanted]
    return sorted(found, key=lambda row: row.bucket_s)


def _line(row: Unpriced) -> Line:
    return Line(row.part.name, (row.model or UNKNOWN_MODEL) if row.part.has_model else "")


def _gaps(rates: RateIndex) -> Iterable[tuple[int, str, str]]:
    """Yield each rate, kind and part without a price."""
    for kind in _KINDS:
        yield from ((UNPRICED, kind, part.name) for part in missing_parts(kind, None))
    for number, rate in rates.items():
        if rate.kind in _KINDS:
            yield from ((number, rate.kind, part.name) for part in missing_parts(rate.kind, rate))


def _statement(
    gaps: list[tuple[int, str, str]], query: Query, names: tuple[str, ...], snapshot: Snapshot, events_s: int
) -> Statement:
    """Return the statement: what comes before an instant is read of sums, the rest event by event."""
    assert all(rate_id != REPORTED for rate_id, _, _ in gaps)
    columns = ", ".join((*MEASURES, "rate_id"))
    selection, values = selection_of(query)
    found = f"""SELECT "timestamp" AS instant, series_id, {columns}, 1 AS events FROM facts
  WHERE "timestamp" >= make_timestamp($events_s::BIGINT * 1000000)
    AND "timestamp" < make_timestamp($end_s::BIGINT * 1000000)"""
    if query.start_s < events_s:
        dimensions = {*TOLD_APART, *names, *query.filters}
        before = replace(query, end_s=events_s)
        cells, window = cells_of(before, (*MEASURES, "rate_id"), dimensions, Statement(selection, values), snapshot)
        values |= window
        found += f"\n  UNION ALL SELECT instant, series_id, {columns}, NULL FROM (\n{cells}\n)"
    edge, start = bucket_of(query)
    groups = "".join(f", {group_column(name)} AS by_{name}" for name in names)
    grouped = "".join(f", by_{name}" for name in names)
    return Statement(
        f"""WITH gaps AS (
  SELECT unnest($rates) AS rate_id, unnest($kinds) AS kind, unnest($parts) AS part
), found AS (
  {found}
), alike AS (
  SELECT {start} AS bucket_s, series_id, rate_id, {_USED} AS used, min(instant) AS since, max(instant) AS until,
    {_SUMS}, count(events) AS events, count(*) AS cells
  FROM found JOIN series USING (series_id) WHERE rate_id IN (SELECT unnest($rates)) AND {selection}
  GROUP BY {edge}, 2, 3, 4
), apart AS (
  SELECT bucket_s, series.kind, series.model, series.service_tier, series.batch, part, since, until, events, cells,
    CASE part {_CASES} END AS quantity{groups}
  FROM alike JOIN series USING (series_id)
  JOIN gaps ON gaps.rate_id = alike.rate_id AND gaps.kind = series.kind AND used & part <> 0
)
SELECT bucket_s, kind, model, service_tier, batch, part, epoch_ms(min(since)) // 1000, epoch_ms(max(until)) // 1000,
  sum(quantity), CASE WHEN sum(events) = sum(cells) THEN sum(events)::BIGINT END{grouped}
FROM apart GROUP BY ALL ORDER BY 1, sum(cells) DESC, 2, 3, 4, 5, 6
LIMIT {query.rows_max + 1}""",
        values
        | {
            "rates": [rate_id for rate_id, _, _ in gaps],
            "kinds": [kind for _, kind, _ in gaps],
            "parts": [_BITS[part] for _, _, part in gaps],
            "events_s": events_s,
            "end_s": query.end_s,
            "window_s": query.start_s,
        },
    )
