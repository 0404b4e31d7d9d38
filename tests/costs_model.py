"""What the right costs are, in plain loops and fractions: events and a price file in, pages out.

It shares no code with the server, and knows its rules from the documentation only. Every bucket looks at every
charge. What it refuses: factors and likenesses, prices of a list, and files in which two rows claim the same event
with the same right (the generator of price files makes none).
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from tests.model import SPANS_S, Event, Row, buckets, half_up, normalise

ATTO = 10**18
GIB = 2**30
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

DIMENSIONS = ("project_id", "user_id", "api_key_id", "api_source", "model", "service_tier", "batch")
GROUP_BY = (*DIMENSIONS, "line_item")
FILTERS = {
    "project_ids": "project_id",
    "user_ids": "user_id",
    "api_key_ids": "api_key_id",
    "line_items": "line_item",
    "models": "model",
    "service_tier": "service_tier",
    "batch": "batch",
}
LIMITS_MAX = {"1m": 1_440, "1h": 168, "1d": 180, "all": 1}
LIMITS_DEFAULT = {"1m": 60, "1h": 24, "1d": 7, "all": 1}

TOKEN_LABELS = {
    "input": "input",
    "image_input": "image input",
    "audio_input": "audio input",
    "cached_input": "cached input",
    "cached_image_input": "cached image input",
    "cached_audio_input": "cached audio input",
    "cache_write_30m": "cache write 30m",
    "cache_write_12h": "cache write 12h",
    "output": "output",
    "image_output": "image output",
    "audio_output": "audio output",
}
LABELS = TOKEN_LABELS | {"requests": "requests", "images": "images", "characters": "characters", "seconds": "seconds"}
TOOLS = {
    "code_interpreter_sessions": "code interpreter sessions",
    "file_search_calls": "file search tool calls",
    "web_search_calls": "web search tool calls",
}
QUANTITY_UNITS = dict.fromkeys(TOKEN_LABELS, "tokens") | {
    "images": "images",
    "characters": "characters",
    "seconds": "duration_seconds",
}
STORAGE, FREE, STORAGE_UNIT = "vector store storage", "vector store storage, free", "gibibyte_hours"

# A part without a price of its own takes the price of the first of these that has one.
STAND_INS = {
    "image_input": ("input",),
    "audio_input": ("input",),
    "cached_input": ("input",),
    "cached_image_input": ("cached_input", "image_input", "input"),
    "cached_audio_input": ("cached_input", "audio_input", "input"),
    "cache_write_30m": ("input",),
    "cache_write_12h": ("cache_write_30m", "input"),
    "image_output": ("output",),
    "audio_output": ("output",),
}
UNITS = {
    "token": 1,
    "1K tokens": 1_000,
    "1M tokens": 1_000_000,
    "image": 1,
    "character": 1,
    "1K characters": 1_000,
    "1M characters": 1_000_000,
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "request": 1,
    "1K requests": 1_000,
    "session": 1,
    "call": 1,
    "1K calls": 1_000,
    "GiB-hour": GIB * HOUR_MS,
    "GiB-day": GIB * DAY_MS,
}
"""How many of what is counted a unit holds; storage counts bytes times milliseconds."""
CONDITIONS = ("service_tier", "batch", "size", "quality", "context_level", "inference_geo")
UNKNOWN_TO_USAGE = ("quality", "inference_geo")
"""Dimensions that prices depend on and the usage API does not have."""


@dataclass(frozen=True)
class Price:
    """A row of a price file."""

    models: tuple[str, ...]
    kind: str | None
    counted: str
    conditions: Mapping[str, Any]
    above: int | None
    per_one: Fraction
    free: Decimal
    since_ms: int
    until_ms: int | None

    def matches(self, facts: Row) -> bool:
        model = (facts["model"] or "").lower()
        named = not self.models or any(
            model.startswith(name[:-1]) if name.endswith("*") else model == name for name in self.models
        )
        asked = all(facts[name] == value for name, value in self.conditions.items())
        return named and asked and self.kind in {None, facts["kind"]}

    def holds(self, ms: int) -> bool:
        return self.since_ms <= ms and (self.until_ms is None or ms < self.until_ms)


def read_prices(text: str) -> list[Price]:
    """The rows of a price file without faults."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    cells = [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]
    return [read_price(row, cells) for row in cells]


def read_price(row: Mapping[str, str], every: Sequence[Mapping[str, str]]) -> Price:
    since_ms = instant_ms(row.get("from", "0001-01-01"))
    until_ms = instant_ms(row["until"]) if "until" in row else None
    if until_ms is None:  # until the next row of the same thing, or open
        same = [instant_ms(other["from"]) for other in every if thing(other) == thing(row) and "from" in other]
        until_ms = min((ms for ms in same if ms > since_ms), default=None)
    conditions: dict[str, Any] = {name: row[name] for name in CONDITIONS if name in row}
    if "batch" in conditions:
        conditions["batch"] = conditions["batch"] == "true"
    return Price(
        tuple(row.get("model", "").lower().split()),
        row.get("kind"),
        row["counted"],
        conditions,
        int(row["above_input_tokens"]) if "above_input_tokens" in row else None,
        Fraction(row["price"]) / UNITS[row["unit"]],
        Decimal(row.get("free", 0)),
        since_ms,
        until_ms,
    )


def thing(row: Mapping[str, str]) -> dict[str, str]:
    """What a row prices: rows of the same thing follow each other in time."""
    aside = {"unit", "price", "free", "from", "until", "source", "checked", "currency"}
    return {name: value for name, value in row.items() if name not in aside}


def instant_ms(text: str) -> int:
    instant = datetime.fromisoformat(text)
    since = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


class PriceList:
    """What a part of an event costs."""

    def __init__(self, prices: Sequence[Price]) -> None:
        self.prices = prices

    def per_one(self, facts: Row, part: str) -> Fraction | None:
        """Dollars for one of what is counted; None when it has no price."""
        for counted in (part, *STAND_INS.get(part, ())):
            price = self.row(facts, counted, facts["ms"])
            if price is not None:
                return price.per_one
        return None

    def row(self, facts: Row, counted: str, ms: int) -> Price | None:
        found = [p for p in self.prices if p.counted == counted and p.holds(ms) and p.matches(facts)]
        # A row without a condition holds for what no row with the condition covers.
        most = max((len(price.conditions) for price in found), default=0)
        found = [price for price in found if len(price.conditions) == most]
        # An event may stand for several requests: their mean counts, and none where their number is not known.
        requests = facts.get("num_model_requests", 1)
        length = Fraction(facts.get("input_tokens", 0), requests) if requests else 0
        found = [price for price in found if price.above is None or length > price.above]
        return max(found, key=lambda price: -1 if price.above is None else price.above, default=None)

    def storage(self, ms: int) -> Price | None:
        facts = {"kind": "vector_stores", "model": None, "ms": ms}
        return self.row(facts, "storage", ms)

    def storage_changes_ms(self) -> set[int]:
        rows = [price for price in self.prices if price.counted == "storage"]
        return {price.since_ms for price in rows} | {price.until_ms for price in rows if price.until_ms is not None}


COUNTED = {
    "embeddings": ("input", "input_tokens"),
    "moderations": ("input", "input_tokens"),
    "images": ("images", "images"),
    "audio_speeches": ("characters", "characters"),
    "audio_transcriptions": ("seconds", "seconds"),
    "code_interpreter_sessions": ("sessions", "num_sessions"),
    "file_search_calls": ("searches", "num_requests"),
    "web_search_calls": ("searches", "num_requests"),
}


def parts(facts: Row) -> dict[str, int]:
    """The disjoint parts of an event, each with its quantity."""
    if facts["kind"] in COUNTED:
        part, measure = COUNTED[facts["kind"]]
        return {part: facts[measure]}
    cached_audio, cached_image = facts["input_cached_audio_tokens"], facts["input_cached_image_tokens"]
    audio, image = facts["input_audio_tokens"] - cached_audio, facts["input_image_tokens"]
    audio_output, image_output = facts["output_audio_tokens"], facts["output_image_tokens"]
    return {
        "input": facts["input_uncached_tokens"] - image - audio,
        "image_input": image,
        "audio_input": audio,
        "cached_input": facts["input_cached_tokens"] - cached_audio - cached_image,
        "cached_image_input": cached_image,
        "cached_audio_input": cached_audio,
        "cache_write_30m": facts["input_cache_write_30m_tokens"],
        "cache_write_12h": facts["input_cache_write_12h_tokens"],
        "output": facts["output_tokens"] - audio_output - image_output,
        "image_output": image_output,
        "audio_output": audio_output,
        "requests": facts["num_model_requests"],
    }


@dataclass(frozen=True)
class Charge:
    """An amount and what it is for; `quantity` is None where an event gave its own cost."""

    ms: int
    dimensions: Mapping[str, Any]
    line_item: str
    atto: int
    quantity: Fraction | None
    unit: str | None


class Unpriced(NamedTuple):
    """Quantity without a price."""

    ms: int
    kind: str
    model: str | None
    service_tier: str | None
    batch: bool | None
    line_item: str
    counted: str
    quantity: int
    unit: str | None
    dimensions: Mapping[str, Any]


@dataclass(frozen=True)
class CostQuestion:
    """One question to `GET /v1/organization/costs`; `filters` maps parameter names to their values."""

    start: int
    end: int
    width: str = "1d"
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Sequence[Any]] = field(default_factory=dict)


Result = tuple[tuple[tuple[str, Any], ...], int, Fraction | None, str | None]
"""Dimensions and line item, the amount in 10^-18 dollars, the quantity, its unit."""
Bucket = tuple[int, int, list[Result]]


class CostBook:
    """What one organization has posted, and what it cost by one price file."""

    def __init__(self, text: str) -> None:
        self.prices = PriceList(read_prices(text))
        self.charges: list[Charge] = []
        self.unpriced: list[Unpriced] = []
        self.reports: list[Row] = []
        self.stored: list[Row] = []
        self._first: dict[tuple[Any, ...], Row] = {}

    def post(self, event: Event) -> str:
        """Take one event; what the receipt must count it as: accepted, duplicates, conflicts or rejected."""
        facts = normalise({name: value for name, value in event.items() if name not in UNKNOWN_TO_USAGE})
        if facts is None:
            return "rejected"
        cost = event.get("cost")
        facts |= {name: event.get(name) for name in UNKNOWN_TO_USAGE}
        facts["cost"] = None if cost is None else Decimal(str(cost["value"]))
        if facts["id"] is not None:
            first = self._first.setdefault((facts["kind"], facts["id"], facts["ms"]), facts)
            if first is not facts:
                return "duplicates" if first == facts else "conflicts"
        self.stored.append(facts)
        self.rate(facts)
        return "accepted"

    def rate(self, facts: Row) -> None:
        if facts["cost"] is not None:
            name = f"{facts['model'] or 'unknown model'}, reported cost"
            self.charges.append(Charge(facts["ms"], dimensions(facts), name, int(facts["cost"] * ATTO), None, None))
        if facts["kind"] == "vector_stores":
            self.reports.append(facts)
        elif facts["cost"] is None:
            for part, quantity in parts(facts).items():
                if quantity:
                    self.rate_part(facts, part, quantity)

    def rate_part(self, facts: Row, part: str, quantity: int) -> None:
        price, unit = self.prices.per_one(facts, part), QUANTITY_UNITS.get(part)
        name = TOOLS.get(facts["kind"]) or f"{facts['model'] or 'unknown model'}, {LABELS[part]}"
        if price is not None:
            atto = half_up(quantity * price * ATTO)
            self.charges.append(Charge(facts["ms"], dimensions(facts), name, atto, Fraction(quantity), unit))
        elif part != "requests":  # a model is priced by the request only where the book says so
            run = (facts["model"], facts["service_tier"], batch(facts))
            self.unpriced.append(
                Unpriced(facts["ms"], facts["kind"], *run, name, part, quantity, unit, dimensions(facts))
            )

    def answer(self, question: CostQuestion, now_s: float) -> list[Bucket]:
        """The buckets of all pages together; nothing is held in a store after `now_s`."""
        width_s = SPANS_S[question.width]
        low = question.start - question.start % min(width_s, 86_400)
        data = []
        while low < question.end:
            high = min(low + width_s, question.end)
            within = [charge for charge in self.charges if low * 1000 <= charge.ms < high * 1000]
            for start, end in buckets(low, high, min(width_s, 86_400)):  # rounded by the day
                within += storage(self.reports, self.prices, start * 1000, min(end * 1000, int(now_s * 1000)))
            data.append((low, high, grouped(within, question)))
            low = high
        return data


BATCHES = {"completions", "decisions", "embeddings", "moderations", "images", "web_search_calls"}
BATCHES |= {"audio_speeches", "audio_transcriptions"}
"""The kinds that run a model. What never does is neither a batch job nor none: it has no `batch`."""


def dimensions(facts: Row) -> Row:
    """A charge's dimensions. What names no origin came from an unlabeled one."""
    return {name: facts[name] for name in DIMENSIONS} | {"batch": batch(facts)}


def batch(facts: Row) -> bool | None:
    return bool(facts["batch"]) if facts["kind"] in BATCHES else None


def grouped(charges: Iterable[Charge], question: CostQuestion) -> list[Result]:
    sums: dict[tuple[tuple[str, Any], ...], list[Charge]] = {}
    for charge in charges:
        values = {**charge.dimensions, "line_item": charge.line_item}
        if all(values[FILTERS[name]] in allowed for name, allowed in question.filters.items()):
            key = tuple((name, values[name] if name in question.group_by else None) for name in GROUP_BY)
            sums.setdefault(key, []).append(charge)
    results = []
    for key, members in sums.items():
        quantity, unit = None, None
        if "line_item" in question.group_by:
            unit = members[0].unit
            quantities = [charge.quantity for charge in members if charge.quantity is not None]
            quantity = sum(quantities, Fraction(0)) if quantities else None
        results.append((key, sum(charge.atto for charge in members), quantity, unit))
    return sorted(results, key=repr)


# -------------------------------------------------------------------------------------------- vector stores


class Piece(NamedTuple):
    """Bytes that a store held for a time, at a price that stood still."""

    store: str
    facts: Row
    start_ms: int
    end_ms: int
    price: Price


def pieces(reports: Sequence[Row], prices: PriceList, start_ms: int, end_ms: int) -> Iterator[Piece]:
    """What was held and priced in a window, cut wherever anything changes."""
    histories: dict[str, list[Row]] = {}
    for report in sorted(reports, key=lambda report: (report["ms"], report["usage_bytes"])):
        histories.setdefault(report["vector_store_id"], []).append(report)
    marks_ms = sorted({start_ms, end_ms, *prices.storage_changes_ms(), *(report["ms"] for report in reports)})
    marks_ms = [ms for ms in marks_ms if start_ms <= ms <= end_ms]
    for low_ms, high_ms in pairwise(marks_ms):
        price = prices.storage(low_ms)
        for store, history in histories.items():
            known = [report for report in history if report["ms"] <= low_ms]
            if price and known and known[-1]["usage_bytes"] and known[-1]["cost"] is None:
                yield Piece(store, known[-1], low_ms, high_ms, price)


def storage(reports: Sequence[Row], prices: PriceList, low_ms: int, high_ms: int) -> Iterator[Charge]:
    """What the stores cost in a bucket: rounded since the day's start, so that hours and minutes are their day."""
    if not reports or low_ms >= high_ms:
        return
    day_ms = low_ms - low_ms % DAY_MS
    before = accumulated(pieces(reports, prices, day_ms, low_ms))
    until = accumulated([*pieces(reports, prices, day_ms, low_ms), *pieces(reports, prices, low_ms, high_ms)])
    here = accumulated(pieces(reports, prices, low_ms, high_ms))
    for place, (_, held) in here.items():
        facts = place[1]
        atto = half_up(until[place][0]) - half_up(before.get(place, (Fraction(0), Fraction(0)))[0])
        yield Charge(low_ms, dict(facts), STORAGE, atto, held / (GIB * HOUR_MS), STORAGE_UNIT)
    if any(piece.price.free for piece in pieces(reports, prices, low_ms, high_ms)):
        free = [allowance(pieces(reports, prices, day_ms, ms)) for ms in (low_ms, high_ms)]
        held = free[1][1] - free[0][1]
        atto = half_up(free[1][0]) - half_up(free[0][0])
        yield Charge(low_ms, dict.fromkeys(DIMENSIONS), FREE, -atto, -held / (GIB * HOUR_MS), STORAGE_UNIT)


Place = tuple[str, tuple[tuple[str, Any], ...]]


def accumulated(found: Iterable[Piece]) -> dict[Place, tuple[Fraction, Fraction]]:
    """For each store and whose it was: the unrounded amount in 10^-18 dollars, and bytes times milliseconds."""
    sums: dict[Place, tuple[Fraction, Fraction]] = {}
    for piece in found:
        place = piece.store, tuple(dimensions(piece.facts).items())
        atto, held = sums.get(place, (Fraction(0), Fraction(0)))
        more = Fraction(piece.facts["usage_bytes"] * (piece.end_ms - piece.start_ms))
        sums[place] = atto + more * piece.price.per_one * ATTO, held + more
    return sums


def allowance(found: Iterable[Piece]) -> tuple[Fraction, Fraction]:
    """What of the organization's storage is free: unrounded, and bytes times milliseconds."""
    totals: dict[tuple[int, int], int] = {}
    prices: dict[tuple[int, int], Price] = {}
    for piece in found:
        span = piece.start_ms, piece.end_ms
        totals[span] = totals.get(span, 0) + int(piece.facts["usage_bytes"])
        prices[span] = piece.price
    atto = held = Fraction(0)
    for span, total in totals.items():
        free = min(Fraction(total), Fraction(prices[span].free) * GIB) * (span[1] - span[0])
        held += free
        atto += free * prices[span].per_one * ATTO
    return atto, held
