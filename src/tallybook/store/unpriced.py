"""What has no price: the parts of usage that no rate speaks of, found in the raw events."""

from collections.abc import Iterable
from typing import Final

from tallybook.kinds import KINDS
from tallybook.money import UNIT, half_up, to_decimal
from tallybook.parts import PARTS
from tallybook.rate import BYTE_MS, REPORTED, UNPRICED
from tallybook.store.answer import Snapshot, Statement
from tallybook.store.charges import FLOWING, quantity_of
from tallybook.store.protocol import Unpriced
from tallybook.store.rates import RateIndex, missing_parts
from tallybook.store.storage import unpriced_storage

_KINDS: Final = tuple(kind.name for kind in KINDS.values() if not kind.is_level)
_CASES: Final = " ".join(f"WHEN '{part.name}' THEN {quantity_of(part)}" for part in FLOWING)


def unpriced(
    snapshot: Snapshot,
    rates: RateIndex,
    organization_id: str,
    start_s: int,
    end_s: int,
    now_s: int,
) -> list[Unpriced]:
    """Return what an organization used in a window without a price for it, the most used first."""
    gaps = list(_gaps(rates))
    rows = snapshot(*_statement(gaps, organization_id, start_s, end_s))
    found = [
        Unpriced(kind, model, tier, batch, PARTS[part], since_s, until_s, quantity, events)
        for kind, model, tier, batch, part, since_s, until_s, quantity, events in rows
    ]
    held_until_s = min(end_s, now_s)
    held = snapshot(*unpriced_storage(organization_id, start_s, held_until_s)) if held_until_s > start_s else []
    for since_s, until_s, byte_ms, reports in held:
        if byte_ms:
            gib_hours = to_decimal(half_up(byte_ms * UNIT, BYTE_MS))
            found.append(
                Unpriced("vector_stores", None, None, None, PARTS["storage"], since_s, until_s, gib_hours, reports)
            )
    return found


def _gaps(rates: RateIndex) -> Iterable[tuple[int, str, str]]:
    """Yield each rate, kind and part without a price."""
    for kind in _KINDS:
        yield from ((UNPRICED, kind, part.name) for part in missing_parts(kind, None))
    for number, rate in rates.items():
        if rate.kind in _KINDS:
            yield from ((number, rate.kind, part.name) for part in missing_parts(rate.kind, rate))


def _statement(gaps: list[tuple[int, str, str]], organization_id: str, start_s: int, end_s: int) -> Statement:
    assert all(rate_id != REPORTED for rate_id, _, _ in gaps)
    return Statement(
        f"""WITH gaps AS (
  SELECT unnest($rates) AS rate_id, unnest($kinds) AS kind, unnest($parts) AS part
), used AS (
  SELECT series.kind, series.model, series.service_tier, series.batch, part, "timestamp",
    CASE part {_CASES} END AS quantity
  FROM facts JOIN series USING (series_id) JOIN gaps ON gaps.rate_id = facts.rate_id AND gaps.kind = series.kind
  WHERE organization_id = $organization_id AND "timestamp" >= make_timestamp($start_s::BIGINT * 1000000)
    AND "timestamp" < make_timestamp($end_s::BIGINT * 1000000)
)
SELECT kind, model, service_tier, batch, part, epoch_ms(min("timestamp")) // 1000, epoch_ms(max("timestamp")) // 1000,
  sum(quantity), count(*)
FROM used WHERE quantity > 0 GROUP BY ALL ORDER BY count(*) DESC, 1, 2, 3, 4, 5""",
        {
            "rates": [rate_id for rate_id, _, _ in gaps],
            "kinds": [kind for _, kind, _ in gaps],
            "parts": [part for _, _, part in gaps],
            "organization_id": organization_id,
            "start_s": start_s,
            "end_s": end_s,
        },
    )
