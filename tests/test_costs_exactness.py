"""Costs against a brute-force model: whatever the price file says, whatever is posted, however it is asked.

Every example has an organization and a price file of its own; the server reads the file before the events come.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import currently_in_test_context, given, note
from hypothesis import strategies as st

from tests.costs_model import (
    ATTO,
    FILTERS,
    FREE,
    GROUP_BY,
    LIMITS_MAX,
    STORAGE,
    STORAGE_UNIT,
    TOKEN_LABELS,
    Bucket,
    CostBook,
    CostQuestion,
    Result,
    Unpriced,
)
from tests.model import KINDS, SPANS_S, WIDTHS_S, Event, Row, milliseconds
from tests.support import Server
from tests.test_exactness import RUN_KINDS, exact, fresh, texts_of, token_counts

pytestmark = pytest.mark.timeout(600)  # a failing example is made small before it is told

DAY_S = 86_400
EVENTS = "/v1/organization/usage/events"
COSTS = "/v1/organization/costs"
NOW_S = int(time.time()) // 60 * 60
TODAY_S = NOW_S // DAY_S * DAY_S
PAGES_MAX = 400

CHANGES = ("2024-02-29", "2025-06-10", "2025-06-10T12:00:00Z", "2026-01-01T00:00:01.500Z")
"""When prices change: at the edge of a day, of an hour, and at no edge."""
DAYS_S = [
    *(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) // DAY_S * DAY_S for text in CHANGES),
    int(datetime(2024, 2, 28, tzinfo=UTC).timestamp()),
    TODAY_S - DAY_S,
]
MODELS = ("gpt-a", "gpt-b-2026-01-01", "Llama/70B,chat")
TIERS = ("flex", "priority")
THRESHOLDS = (1_000, 200_000)
PRICES = ("0", "0", "2.50", "1.25", "15", "0.111", "0.006", "0.0001", "1000")
NAMES = {"project_id": ("p", "q, r"), "user_id": ("u", "ü"), "api_key_id": ("key_1", "key_2")}
REPORTED = ("0", "0.000000000000000001", "1.5", "12.345678901234567891", "1e3")

TOKEN_UNITS = ("token", "1K tokens", "1M tokens")
UNITS_OF = dict.fromkeys(TOKEN_LABELS, TOKEN_UNITS) | {
    "requests": ("request", "1K requests"),
    "images": ("image",),
    "characters": ("character", "1K characters", "1M characters"),
    "seconds": ("second", "minute", "hour"),
    "sessions": ("session",),
    "searches": ("call", "1K calls"),
    "storage": ("GiB-hour", "GiB-day"),
}
COLUMNS = (
    "model",
    "kind",
    "counted",
    "service_tier",
    "batch",
    "above_input_tokens",
    "size",
    "quality",
    "context_level",
    "inference_geo",
    "unit",
    "price",
    "free",
    "from",
    "until",
)
MODEL_KINDS = {"images": "images", "audio_speeches": "characters", "audio_transcriptions": "seconds"}
TOOL_KINDS = {
    "code_interpreter_sessions": "sessions",
    "file_search_calls": "searches",
    "web_search_calls": "searches",
}
GIB_HOURS_NEAR = Fraction(1, 10**6)
NUMBERS = msgspec.json.Encoder(decimal_format="number")


# --------------------------------------------------------------------------------------------- price files


def price_file(rows: Sequence[Mapping[str, str]]) -> str:
    """The text of a price file; every other row has a comment or nothing before it."""
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    lines = [",".join(f'"{row.get(name, "")}"' for name in names) for row in rows]
    return "\n".join(["# prices of a test", ",".join(names), "", *lines]) + "\n"


@st.composite
def price_files(draw: st.DrawFn, *, storage: bool | None = None) -> str:
    """An operator's price file for some of what can be used; whether for storage may be told."""
    rows: list[Mapping[str, str]] = []
    for model in MODELS:
        name = draw(st.sampled_from([model, model.upper(), f"{model[:5]}*", f"other-{model} {model}"]))
        kinds: list[str | None] = draw(st.sampled_from([[None], [None], ["completions"], ["decisions", "embeddings"]]))
        some = draw(st.lists(st.sampled_from(sorted(TOKEN_LABELS)), max_size=4, unique=True))
        for kind in kinds:
            parts = {"input"} if kind == "embeddings" else {*some, *draw(st.sampled_from([(), ("input", "output")]))}
            for part in sorted(parts):
                rows += draw(rows_of({"model": name, "counted": part} | ({"kind": kind} if kind else {}), kind))
        if draw(st.integers(0, 2)) == 0:
            rows += draw(rows_of({"model": name, "kind": "completions", "counted": "requests"}, "completions"))
        for kind in draw(st.lists(st.sampled_from(sorted(MODEL_KINDS)), max_size=2, unique=True)):
            told = {"kind": kind} if draw(st.booleans()) else {}  # images are images of the kind images
            rows += draw(rows_of({"model": name, "counted": MODEL_KINDS[kind], **told}, kind))
    for kind in draw(st.lists(st.sampled_from(sorted(TOOL_KINDS)), max_size=3, unique=True)):
        rows += draw(rows_of({"kind": kind, "counted": TOOL_KINDS[kind]}, kind))
    if draw(st.booleans()) if storage is None else storage:
        rows += draw(rows_of({"kind": "vector_stores", "counted": "storage"}, "vector_stores"))
    return price_file(rows or [{"kind": "file_search_calls", "counted": "searches", "unit": "call", "price": "1"}])


@st.composite
def rows_of(draw: st.DrawFn, base: Mapping[str, str], kind: str | None) -> list[dict[str, str]]:
    """All rows of one thing: by condition, by length of the request, by time."""
    counted = base["counted"]
    asked = draw(conditions(kind))
    rows = []
    for condition in asked:
        above = [{}, *({"above_input_tokens": str(more)} for more in sorted(draw(thresholds(counted))))]
        for period in draw(periods(limited=asked == [{}])):
            for length in above:
                price = {"unit": draw(st.sampled_from(UNITS_OF[counted])), "price": draw(st.sampled_from(PRICES))}
                free = {"free": draw(st.sampled_from(["", "1", "0.5"]))} if counted == "storage" else {}
                rows.append({**base, **condition, **period, **length, **price, **free})
    return rows


def thresholds(counted: str) -> st.SearchStrategy[set[int]]:
    return st.sets(st.sampled_from(THRESHOLDS)) if counted in TOKEN_LABELS else st.just(set())


@st.composite
def conditions(draw: st.DrawFn, kind: str | None) -> list[dict[str, str]]:
    """What the rows of one thing ask of an event."""
    columns: dict[str, Sequence[str]] = {}
    if kind is None or kind in RUN_KINDS:
        columns = {"service_tier": TIERS, "batch": ("true", "false")}
    if kind in {"completions", "decisions"}:
        columns["inference_geo"] = ("us", "eu")
    if kind == "images":
        columns |= {"size": ("1024x1024", "auto"), "quality": ("hd",)}
    if kind == "web_search_calls":
        columns["context_level"] = ("low", "high")
    asked = draw(st.lists(st.sampled_from(sorted(columns)), max_size=2, unique=True)) if columns else []
    cells = st.tuples(*(st.sampled_from([None, *columns[name]]) for name in asked))
    found = closed(set(draw(st.lists(cells, min_size=1, max_size=3, unique=True))))
    return [{name: value for name, value in zip(asked, cell, strict=True) if value is not None} for cell in found]


Cell = tuple[str | None, ...]


def closed(found: set[Cell]) -> list[Cell]:
    """With a row for every two that could claim the same event, so that one row always has the better right."""
    known = found
    for _ in range(10):
        joined = {joint for pair in combinations(known, 2) if (joint := joining(*pair)) is not None}
        if joined <= known:
            return sorted(known, key=repr)
        known = known | joined
    raise AssertionError("conditions do not close")


def joining(one: Cell, two: Cell) -> Cell | None:
    pairs = list(zip(one, two, strict=True))
    if any(a is not None and b is not None and a != b for a, b in pairs):
        return None
    return tuple(b if a is None else a for a, b in pairs)


@st.composite
def periods(draw: st.DrawFn, *, limited: bool) -> list[dict[str, str]]:
    """Stretches of time one after the other, without a gap; an end is written down or follows from the next.

    `limited`: there may be no price before the first and after the last.
    """
    starts = ["", *sorted(draw(st.sets(st.sampled_from(CHANGES), max_size=2)), key=CHANGES.index)]
    ends = [*starts[1:], ""]
    found = [
        {"from": start} | ({"until": end} if end and draw(st.booleans()) else {})
        for start, end in zip(starts, ends, strict=True)
    ]
    if limited and len(found) > 1 and draw(st.booleans()):
        found = found[1:]
    if limited and len(found) > 1 and draw(st.booleans()):
        last = found[-2] | {"until": found[-1]["from"]}
        found = [*found[:-2], last]
    return found


# ---------------------------------------------------------------------------------------------- what is posted


@st.composite
def moments_s(draw: st.DrawFn) -> float:
    """Around the changes of prices, around the edges of hours and days, and anywhere."""
    if draw(st.booleans()):
        change = datetime.fromisoformat(draw(st.sampled_from(CHANGES))).replace(tzinfo=UTC)
        ms = int(change.timestamp() * 1000)
    else:
        within_s = draw(st.sampled_from([0, 60, 3_600, 86_340]) | st.integers(0, DAY_S - 1))
        ms = (draw(st.sampled_from(DAYS_S)) + within_s) * 1000
    return (ms + draw(st.sampled_from([0, 0, -1, 1, 500]))) / 1000


@st.composite
def long_requests(draw: st.DrawFn) -> Event:
    """Token counts around the thresholds, split over every part there is."""
    around = [whole + beside for whole in THRESHOLDS for beside in (-1, 0, 1)]
    whole = draw(st.sampled_from([0, 10, *around, 1_000_003, 2**40]))
    weights = draw(st.lists(st.sampled_from([0, 0, 1, 3]), min_size=7, max_size=7))
    shares = [whole * weight // (sum(weights) + 1) for weight in weights]
    image, audio, cached_text, cached_audio, cached_image, write_30m, write_12h = shares
    cached = cached_text + cached_audio + cached_image
    output = draw(st.sampled_from([0, 1, 7, 1_000, 65_536]))
    event: Event = {"input_tokens": whole, "output_tokens": output, "input_cached_tokens": cached}
    if draw(st.booleans()):
        event |= {"input_image_tokens": image, "input_audio_tokens": audio + cached_audio}
        event |= {"input_cached_audio_tokens": cached_audio, "input_cached_image_tokens": cached_image}
        event |= {"output_audio_tokens": output // 3, "output_image_tokens": output // 2}
    if draw(st.booleans()):
        event |= {"input_cache_write_30m_tokens": write_30m, "input_cache_write_12h_tokens": write_12h}
    return event


@st.composite
def charged_events(draw: st.DrawFn, kinds: Sequence[str]) -> Event:
    kind = draw(st.sampled_from(kinds))
    texts = {name: values for name, values in texts_of(kind).items() if name not in NAMES}
    names = {name: st.sampled_from(values) for name, values in NAMES.items()}
    event: Event = {"kind": kind, "timestamp": draw(moments_s())}
    event |= draw(st.fixed_dictionaries({}, optional=texts | names))
    if kind in RUN_KINDS:
        event |= draw(st.fixed_dictionaries({}, optional={"batch": st.booleans()}))
        event.pop("model", None)
        if draw(st.integers(0, 9)):
            event["model"] = draw(st.sampled_from(MODELS))
        if draw(st.booleans()):
            event["service_tier"] = draw(st.sampled_from([*TIERS, "scale"]))
    if kind == "images":
        event |= draw(st.fixed_dictionaries({}, optional={"quality": st.sampled_from(["hd", "standard"])}))
    if kind in {"completions", "decisions"}:
        event |= draw(st.fixed_dictionaries({}, optional={"inference_geo": st.sampled_from(["us", "eu", "jp"])}))
    counts = st.sampled_from([0, 1, 3, 1_000_003])
    match kind:
        case "completions" | "decisions":
            event |= draw(long_requests() | long_requests() | token_counts())
            event |= draw(st.fixed_dictionaries({}, optional={"num_model_requests": st.sampled_from([0, 1, 1, 5])}))
        case "embeddings" | "moderations":
            event["input_tokens"] = draw(counts)
        case "audio_transcriptions":
            event["seconds"] = draw(st.sampled_from([0, 0.499, 0.5, 1.5, 61, 3_600, 59.9, 7.0]))
        case "vector_stores":
            event["vector_store_id"] = draw(st.sampled_from(["vs_1", "vs_2", "vs_3"]))
            event["usage_bytes"] = draw(st.sampled_from([0, 1, 2**30 // 3, 2**30, 5 * 2**30 + 1, 2**45]))
        case _:
            event[KINDS[kind].measures[0]] = draw(counts)
    if draw(st.integers(0, 7)) == 0:
        event["cost"] = {"value": Decimal(draw(st.sampled_from(REPORTED))), "currency": "usd"}
    return event


@st.composite
def histories(draw: st.DrawFn, kinds: Sequence[str] = tuple(KINDS)) -> list[Event]:
    """What one organization sends; at no instant are there two reports of one store."""
    few = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4, unique=True))
    found = [draw(charged_events(few)) for _ in range(draw(st.integers(1, 30)))]
    alone = {(event.get("vector_store_id"), event["timestamp"]): event for event in found}
    flows = [event for event in found if event["kind"] != "vector_stores"]
    found = flows + [event for event in alone.values() if event["kind"] == "vector_stores"]
    return [event | {"id": f"id-{number}"} for number, event in enumerate(found)]


# ---------------------------------------------------------------------------------------------- what is asked


@st.composite
def cost_questions(draw: st.DrawFn, book: CostBook) -> CostQuestion:
    """Around a moment at which something was used, and cut anywhere; it ends before now, where all stands still."""
    facts = draw(st.sampled_from(book.stored))
    width = draw(st.sampled_from(sorted(SPANS_S)))
    grid_s = draw(st.sampled_from([1, 60, 3_600, DAY_S]))
    before_s = draw(st.sampled_from([0, 0, -1, 1, 60, 3_600, DAY_S, 7 * DAY_S, 40 * DAY_S]))
    start = min(facts["ms"] // 1000 // grid_s * grid_s - before_s, NOW_S - 60)
    length_s = draw(st.sampled_from([1, 60, 61, 3_599, 3_600, DAY_S, 3 * DAY_S, 45 * DAY_S]))
    end = start + max(60, min(before_s + length_s, 200 * SPANS_S[width]))
    group_by = tuple(draw(st.lists(st.sampled_from(GROUP_BY), unique=True)))
    filtered = draw(st.lists(st.sampled_from(sorted(FILTERS)), max_size=draw(st.integers(0, 2)), unique=True))
    filters = {name: draw(filter_values(name, book)) for name in filtered}
    return CostQuestion(start, max(start + 1, min(end, NOW_S)), width, group_by, filters)


def filter_values(name: str, book: CostBook) -> st.SearchStrategy[list[Any]]:
    if name == "batch":
        return st.sampled_from([[True], [False]])
    known = {
        "line_items": sorted({charge.line_item for charge in book.charges} | {STORAGE, FREE, "no such, input"}),
        "models": [*MODELS, "nobody"],
        "service_tier": [*TIERS, "scale"],
    }
    values = known.get(name) or NAMES[name.removesuffix("s")]
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


def parameters(question: CostQuestion) -> list[tuple[str, Any]]:
    """Lists are spelled as clients spell them, each way depending on the question."""
    plain = question.start % 120 < 60
    found: list[tuple[str, Any]] = [("start_time", question.start), ("end_time", question.end)]
    found.append(("bucket_width", question.width))
    if question.group_by and len(question.group_by) % 3 == 0:
        found.append(("group_by", ",".join(question.group_by)))
    else:
        found += [("group_by" if plain else "group_by[]", name) for name in question.group_by]
    for name, values in question.filters.items():
        if name == "batch":
            found.append((name, "true" if values[0] else "false"))
        else:
            found += [(name if plain else f"{name}[]", value) for value in values]
    return found


def ask_costs(api: httpx.Client, question: CostQuestion, limit: int | None = None) -> list[Bucket]:
    """All buckets of a question, from pages of `limit` buckets (as many as allowed when None)."""
    asked = [*parameters(question), ("limit", limit or LIMITS_MAX[question.width])]
    data: list[Row] = []
    page: list[tuple[str, Any]] = []
    for _ in range(PAGES_MAX):
        answer = api.get(COSTS, params=[*asked, *page])
        assert answer.status_code == 200, f"{answer.request.url}\n{answer.text}"
        body = exactly(answer)
        assert body["object"] == "page"
        assert body["has_more"] is (body["next_page"] is not None)
        assert not body["has_more"] or len(body["data"]) == (limit or LIMITS_MAX[question.width])
        data += body["data"]
        if not body["has_more"]:
            return [bucket_of(bucket, question.group_by) for bucket in data]
        page = [("page", body["next_page"])]
    raise AssertionError(f"more than {PAGES_MAX} pages: {question}")


def exactly(answer: httpx.Response) -> Any:
    """The body with every digit of its numbers."""
    return json.loads(answer.text, parse_float=Decimal)


def bucket_of(bucket: Row, group_by: Sequence[str]) -> Bucket:
    """A bucket in the model's form, after its shape was looked at."""
    assert set(bucket) == {"object", "start_time", "end_time", "results", "result"}
    assert bucket["object"] == "bucket"
    assert bucket["result"] == bucket["results"], bucket
    results = [result_of(row, group_by) for row in bucket["results"]]
    assert len({key for key, *_ in results}) == len(results), f"a group in two rows: {bucket}"
    return bucket["start_time"], bucket["end_time"], sorted(results, key=repr)


FIELDS = {"object", "amount", "quantity", "quantity_unit", "organization_id", *GROUP_BY}


def result_of(row: Row, group_by: Sequence[str]) -> Result:
    assert set(row) == FIELDS
    assert row["object"] == "organization.costs.result"
    assert isinstance(row["organization_id"], str)
    assert set(row["amount"]) == {"value", "currency"}
    assert row["amount"]["currency"] == "usd"
    assert isinstance(row["amount"]["value"], int | Decimal), "an amount is a number"
    assert all(row[name] is None for name in GROUP_BY if name not in group_by)
    if "line_item" not in group_by:
        assert row["quantity"] is row["quantity_unit"] is None
    atto = Fraction(row["amount"]["value"]) * ATTO
    assert atto.denominator == 1, f"more than 18 decimals: {row}"
    quantity = None if row["quantity"] is None else Fraction(row["quantity"])
    return tuple((name, row[name]) for name in GROUP_BY), int(atto), quantity, row["quantity_unit"]


def assert_same_costs(question: CostQuestion, found: Sequence[Bucket], expected: Sequence[Bucket]) -> None:
    """Fail with the question and the first bucket that differs."""
    url = httpx.URL(COSTS, params=parameters(question))
    edges = [(low, high) for low, high, _ in found]
    assert edges == [(low, high) for low, high, _ in expected], f"other buckets: {url}"
    for (low, high, ours), (_, _, theirs) in zip(found, expected, strict=True):
        if not same_results(ours, theirs):
            lines = [f"GET {url}", f"bucket {low}-{high}"]
            lines += [f"  server: {result}" for result in ours if result not in theirs]
            lines += [f"  model:  {result}" for result in theirs if result not in ours]
            pytest.fail("\n".join(lines), pytrace=False)


def same_results(ours: Sequence[Result], theirs: Sequence[Result]) -> bool:
    """To the last digit; only GiB-hours, which have no finite decimal, may be rounded."""
    if len(ours) != len(theirs):
        return False
    for one, two in zip(ours, theirs, strict=True):
        if (one[0], one[1], one[3]) != (two[0], two[1], two[3]):
            return False
        near = GIB_HOURS_NEAR if one[3] == STORAGE_UNIT else Fraction(0)
        if (one[2] is None) != (two[2] is None) or abs((one[2] or Fraction(0)) - (two[2] or Fraction(0))) > near:
            return False
    return True


def amounts(found: Sequence[Bucket]) -> list[int]:
    """What every bucket costs, its rows together."""
    return [sum(atto for _, atto, _, _ in results) for _, _, results in found]


# --------------------------------------------------------------------------------------------------- together


@dataclass(frozen=True)
class Priced:
    """A server and the price file it reads."""

    server: Server
    file: Path

    def read(self, text: str) -> None:
        """Let the server charge by these prices from now on."""
        if currently_in_test_context():
            note(text)
        self.file.write_text(text)
        with self.server.http() as api:
            answer = api.post(f"{COSTS}/prices/reload")
            assert answer.status_code == 200, f"{answer.text}\n{text}"


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Priced]:
    directory = tmp_path_factory.mktemp("priced")
    file = directory / "prices.csv"
    file.write_text("kind,counted,unit,price\nfile_search_calls,searches,call,1\n")
    running = Server.start(directory / "data", args=["--price-file", str(file), "--no-list-prices"])
    yield Priced(running, file)
    assert running.stop() == 0


def send(api: httpx.Client, events: Sequence[Event]) -> httpx.Response:
    """Post events with every digit of their costs."""
    return api.post(EVENTS, content=NUMBERS.encode(events), headers={"content-type": "application/json"})


def post_all(api: httpx.Client, book: CostBook, events: Sequence[Event], at_once: int = 20) -> None:
    """Post everything, and hold every receipt against the model."""
    if currently_in_test_context():
        note("\n".join(map(str, events)))
    for first in range(0, len(events), at_once):
        some = events[first : first + at_once]
        outcomes = [book.post(event) for event in some]
        receipt = send(api, some).json()
        counted = {name: receipt[name] for name in ("accepted", "duplicates", "conflicts", "rejected")}
        assert counted == {name: outcomes.count(name) for name in counted}, f"{some}\n{receipt}"


def check(api: httpx.Client, book: CostBook, question: CostQuestion) -> list[Bucket]:
    """Ask the server and the model; they must agree."""
    found = ask_costs(api, question)
    assert_same_costs(question, found, book.answer(question, time.time()))
    return found


def drawn(data: st.DataObject, book: CostBook, least: int, most: int) -> list[CostQuestion]:
    return data.draw(st.lists(cost_questions(book), min_size=least, max_size=most)) if book.stored else []


@exact(30)
@given(data=st.data(), prices=price_files(), events=histories())
def test_every_answer_is_the_models(priced: Priced, data: st.DataObject, prices: str, events: list[Event]) -> None:
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        for question in drawn(data, book, 3, 6):
            check(api, book, question)


@exact(15)
@given(data=st.data(), prices=price_files(storage=True), events=histories(kinds=["vector_stores"]))
def test_storage_is_the_models(priced: Priced, data: st.DataObject, prices: str, events: list[Event]) -> None:
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        for question in drawn(data, book, 2, 4):
            check(api, book, question)


@exact(8)
@given(data=st.data(), prices=price_files(), events=histories())
def test_groups_add_up_to_the_ungrouped_total(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        for question in drawn(data, book, 1, 1):
            total = amounts(ask_costs(api, replace(question, group_by=())))
            for group_by in (question.group_by, GROUP_BY, (data.draw(st.sampled_from(GROUP_BY)),)):
                found = ask_costs(api, replace(question, group_by=group_by))
                assert amounts(found) == total, f"{question} by {group_by}"


@exact(8)
@given(data=st.data(), prices=price_files(), events=histories())
def test_a_day_is_its_hours_and_its_minutes(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        for asked in drawn(data, book, 1, 1):
            day_s = min(asked.start - asked.start % DAY_S, TODAY_S - DAY_S)
            question = replace(asked, start=day_s, end=day_s + DAY_S, width="1d")
            (day,) = by_group(ask_costs(api, question))
            for width, parts in (("1h", 24), ("1m", 1_440)):
                found = by_group(ask_costs(api, replace(question, width=width)))
                assert len(found) == parts
                assert +sum(found, Counter()) == +day, f"{question} in {width}"


def by_group(found: Sequence[Bucket]) -> list[Counter[Any]]:
    """For every bucket: group -> amount, and group -> quantity where it is exact."""
    buckets = []
    for _, _, results in found:
        sums: Counter[Any] = Counter()
        for key, atto, quantity, unit in results:
            sums[key, "amount"] += atto
            if quantity is not None and unit != STORAGE_UNIT:
                sums[key, unit] += int(quantity)
        buckets.append(sums)
    return buckets


MEASURES = {
    "input_tokens": ("completions", "decisions", "embeddings", "moderations"),
    "output_tokens": ("completions", "decisions"),
    "images": ("images",),
    "characters": ("audio_speeches",),
    "seconds": ("audio_transcriptions",),
    "num_sessions": ("code_interpreter_sessions",),
    "num_requests": ("file_search_calls", "web_search_calls"),
}


@exact(10)
@given(prices=price_files(), events=histories(kinds=sorted(set(KINDS) - {"vector_stores"})))
def test_priced_and_unpriced_quantities_are_the_usage(priced: Priced, prices: str, events: list[Event]) -> None:
    """Nothing is charged twice and nothing is forgotten: the parts are the totals that usage tells."""
    priced.read(prices)
    with fresh(priced.server) as api:
        told = [{name: value for name, value in event.items() if name != "cost"} for event in events]
        post_all(api, CostBook(prices), told)
        known = {event["kind"] for event in told}
        for day_s in sorted({milliseconds(event["timestamp"]) // 1000 // DAY_S * DAY_S for event in told})[-3:]:
            window = {"start_time": day_s, "end_time": day_s + DAY_S}
            used = {
                name: sum(usage(api, kind, name, window) for kind in kinds if kind in known)
                for name, kinds in MEASURES.items()
            }
            ((_, _, results),) = ask_costs(api, CostQuestion(day_s, day_s + DAY_S, "1d", ("line_item",)))
            counted = Counter[str]()
            for key, _, quantity, _ in results:
                counted[measure_of(dict(key)["line_item"])] += int(quantity or 0)
            for row in api.get(f"{COSTS}/unpriced", params=window).json()["data"]:
                counted[measure_of(row["line_item"])] += row["quantity"]
            counted.pop("requests", None)
            assert +counted == +Counter(used)


def usage(api: httpx.Client, kind: str, measure: str, window: Mapping[str, int]) -> int:
    data = api.get(f"/v1/organization/usage/{kind}", params=window).json()["data"]
    return sum(row[measure] for bucket in data for row in bucket["results"])


def measure_of(line_item: str) -> str:
    """What of usage a line item is a part of."""
    tools = {"code interpreter sessions": "num_sessions"}
    tools |= dict.fromkeys(("file search tool calls", "web search tool calls"), "num_requests")
    if line_item in tools:
        return tools[line_item]
    label = line_item.rpartition(", ")[2]
    if label.endswith("output"):
        return "output_tokens"
    return label if label in {"images", "characters", "seconds", "requests"} else "input_tokens"


@exact(10)
@given(data=st.data(), prices=price_files(), events=histories())
def test_what_has_no_price_is_listed_and_nothing_else(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        assert unpriced(api) == listed(book.unpriced)
        for question in drawn(data, book, 1, 3):
            low, high = question.start, question.end
            within = [use for use in book.unpriced if low * 1000 <= use.ms < high * 1000]
            assert unpriced(api, start_time=low, end_time=high) == listed(within), f"{low}-{high}"
            sums = unpriced(api, start_time=low, end_time=high, count_events="false")
            assert uncounted(sums) == uncounted(listed(within)), f"{low}-{high}"
            assert all(row["events"] is None for row in sums)


@exact(20)
@given(data=st.data(), prices=price_files(), events=histories(kinds=sorted(set(KINDS) - {"vector_stores"})))
def test_unpriced_usage_can_be_asked_for_as_costs_are(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    """What is below an amount is about its window, its filters, its groups and its buckets."""
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        for question in drawn(data, book, 2, 4):
            width_s = SPANS_S[question.width]
            low = question.start - question.start % min(width_s, DAY_S)
            high = min(question.end, low + 3_000 * width_s)  # it has no pages
            expected: list[Row] = []
            for start, end in edges(low, high, width_s):
                names = [name for name in question.group_by if name in ("project_id", "user_id", "api_key_id")]
                names += ["api_source"] if "api_source" in question.group_by else []
                groups: dict[tuple[Any, ...], list[Unpriced]] = {}
                for use in book.unpriced:
                    values = {**use.dimensions, "line_item": use.line_item}
                    is_asked = all(values[FILTERS[name]] in found for name, found in question.filters.items())
                    if is_asked and start * 1000 <= use.ms < end * 1000:
                        groups.setdefault(tuple(values[name] for name in names), []).append(use)
                for group, uses in groups.items():
                    more = {**dict(zip(names, group, strict=True)), "start_time": start, "end_time": end}
                    expected += [row | more for row in listed(uses)]
            asked: dict[str, Any] = {"end_time": high, "bucket_width": question.width, **question.filters}
            asked |= {"start_time": question.start, "group_by": list(question.group_by)}
            assert sorted(map(repr_of, unpriced(api, **asked))) == sorted(map(repr_of, expected)), question
            sums = unpriced(api, count_events="false", **asked)
            assert sorted(map(repr_of, uncounted(sums))) == sorted(map(repr_of, uncounted(expected))), question


def test_unpriced_storage_is_listed_by_who_holds_it(priced: Priced) -> None:
    priced.read("model,counted,unit,price\n")
    with fresh(priced.server) as api:
        day_s = TODAY_S - 3 * DAY_S
        for user, size in (("u", 2**30), ("v", 2 * 2**30)):
            event = {"kind": "vector_stores", "vector_store_id": user, "user_id": user, "usage_bytes": size}
            api.post(EVENTS, json={**event, "timestamp": day_s + DAY_S // 2}).raise_for_status()
        asked: dict[str, Any] = {"start_time": day_s, "end_time": day_s + 2 * DAY_S, "bucket_width": "1d"}

        def told(**more: str) -> list[tuple[str | None, int, float]]:
            data = api.get(f"{COSTS}/unpriced", params={**asked, **more}).json()["data"]
            return [(row.get("user_id"), row["start_time"] - day_s, row["quantity"]) for row in data]

        assert told() == [(None, 0, 36), (None, DAY_S, 72)]
        assert told(group_by="user_id") == [("u", 0, 12), ("v", 0, 24), ("u", DAY_S, 24), ("v", DAY_S, 48)]
        assert told(user_ids="v") == [(None, 0, 24), (None, DAY_S, 48)]
        assert told(models="m") == []
        assert told(line_items="vector store storage", bucket_width="all") == [(None, 0, 108)]


def repr_of(row: Row) -> str:
    return repr(sorted(row.items()))


def edges(start: int, end: int, width_s: int) -> list[tuple[int, int]]:
    found = []
    while start < end:
        edge = min(start - start % width_s + width_s, end)
        found.append((start, edge))
        start = edge
    return found


def uncounted(found: list[Row]) -> list[Row]:
    return sorted(({**row, "since": None, "until": None, "events": None} for row in found), key=repr)


def unpriced(api: httpx.Client, **window: Any) -> list[Row]:
    body = api.get(f"{COSTS}/unpriced", params=window).json()
    assert (body["object"], body["has_more"]) == ("list", False)
    assert {row["object"] for row in body["data"]} <= {"organization.costs.unpriced"}
    # How much was held in stores is not counted in whole numbers: it has a test of its own.
    return sorted((row for row in body["data"] if row["kind"] != "vector_stores"), key=repr)


def listed(uses: Sequence[Unpriced]) -> list[Row]:
    sums: dict[tuple[Any, ...], Row] = {}
    for use in sorted(uses, key=lambda use: use.ms):
        row = sums.setdefault(
            (use.kind, use.model, use.service_tier, use.batch, use.line_item),
            {
                "object": "organization.costs.unpriced",
                "kind": use.kind,
                "model": use.model,
                "service_tier": use.service_tier,
                "batch": use.batch,
                "line_item": use.line_item,
                "counted": use.counted,
                "since": use.ms // 1000,
                "until": use.ms // 1000,
                "quantity": 0,
                "quantity_unit": use.unit,
                "events": 0,
            },
        )
        row |= {"until": use.ms // 1000, "quantity": row["quantity"] + use.quantity, "events": row["events"] + 1}
    return sorted(sums.values(), key=repr)


@exact(6)
@given(data=st.data(), prices=price_files(), events=histories())
def test_pages_of_any_size_are_one_answer(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        for asked in drawn(data, book, 1, 2):
            limit = data.draw(st.integers(1, min(30, LIMITS_MAX[asked.width])))
            end = min(asked.end, asked.start + 8 * limit * SPANS_S[asked.width])
            question = replace(asked, end=max(end, asked.start + 1))
            note(f"{question} in pages of {limit}")
            assert_same_costs(question, ask_costs(api, question, limit), ask_costs(api, question))


@exact(6)
@given(data=st.data(), prices=price_files(), events=histories())
def test_a_filter_and_its_complement_are_everything(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    """What has no value passes no filter, and is the third part of the total."""
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        name = data.draw(st.sampled_from(sorted(FILTERS)))
        dimension = FILTERS[name]
        for asked in drawn(data, book, 1, 1):
            question = replace(asked, group_by=(dimension,), filters={})
            found = ask_costs(api, question)
            values = sorted({dict(key)[dimension] for _, _, rows in found for key, *_ in rows} - {None})
            for value in values:
                chosen = ask_costs(api, replace(question, filters={name: [value]}))
                expected = [(low, high, with_value(rows, dimension, {value})) for low, high, rows in found]
                assert_same_costs(question, chosen, expected)
            if values and name != "batch":
                chosen = ask_costs(api, replace(question, filters={name: values}))
                expected = [(low, high, with_value(rows, dimension, set(values))) for low, high, rows in found]
                assert_same_costs(question, chosen, expected)


def with_value(rows: Sequence[Result], dimension: str, values: set[Any]) -> list[Result]:
    return [row for row in rows if dict(row[0])[dimension] in values]


@exact(6)
@given(data=st.data(), prices=price_files(), events=histories())
def test_rollups_rebuilt_from_raw_events_cost_the_same(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    """Also when the prices have changed since: what rated an event stays with it."""
    priced.read(prices)
    book = CostBook(prices)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        asked = drawn(data, book, 2, 4)
        priced.read(prices.replace('"2.50"', '"7"').replace('"15"', '"0.3"'))
        for question in asked:
            check(api, book, question)
        body = {"start_time": min(DAYS_S) - DAY_S, "end_time": NOW_S}
        assert api.post("/v1/organization/usage/rebuild", json=body).status_code == 200
        verdict = api.get("/v1/organization/usage/check").json()
        assert verdict["ok"] is True, verdict
        for question in asked:
            check(api, book, question)


@exact(6)
@given(data=st.data(), old=price_files(), new=price_files(), events=histories(sorted(set(KINDS) - {"vector_stores"})))
def test_rerated_costs_are_those_of_the_new_prices(
    priced: Priced, data: st.DataObject, old: str, new: str, events: list[Event]
) -> None:
    """As if they had been in force when the events came, to the last digit; own costs stay."""
    priced.read(old)
    book = CostBook(new)
    with fresh(priced.server) as api:
        post_all(api, book, events)
        priced.read(new)
        for day_s in {facts["ms"] // 1000 for facts in book.stored}:
            body = {"start_time": day_s, "end_time": day_s + 1, "dry_run": False}
            assert api.post(f"{COSTS}/rerate", json=body).status_code == 200
        for question in drawn(data, book, 2, 4):
            check(api, book, question)
        assert unpriced(api) == listed(book.unpriced)
        verdict = api.get("/v1/organization/usage/check").json()
        assert verdict["ok"] is True, verdict


@exact(6)
@given(data=st.data(), prices=price_files(), events=histories())
def test_order_and_split_and_resending_cost_nothing_more(
    priced: Priced, data: st.DataObject, prices: str, events: list[Event]
) -> None:
    priced.read(prices)
    book = CostBook(prices)
    shuffled = data.draw(st.permutations(events))
    at_once = data.draw(st.sampled_from([1, 3, 100]))
    with fresh(priced.server) as one, fresh(priced.server) as two:
        post_all(one, book, events)
        post_all(two, CostBook(prices), shuffled, at_once)
        post_all(one, book, shuffled, at_once)
        for question in drawn(data, book, 2, 3):
            check(one, book, question)
            check(two, book, question)


# ------------------------------------------------------------------------------------------------ named edges

EDGE_S = int(datetime(2025, 6, 10, tzinfo=UTC).timestamp())
EDGES = """\
model,counted,service_tier,batch,above_input_tokens,unit,price,from
m,input,,,,1M tokens,1,
m,input,,,1000,1M tokens,2,
m,input,,,200000,1M tokens,3,
m,input,,,,1M tokens,10,2025-06-10
m,input,,,1000,1M tokens,20,2025-06-10
m,input,,,200000,1M tokens,30,2025-06-10
m,input,flex,,,1M tokens,100,
m,input,flex,,200000,1M tokens,300,
m,input,flex,true,,1M tokens,1000,
m,input,,true,,1M tokens,10000,
m,input,,true,1000,1M tokens,20000,2025-06-10
"""


def millionths(tokens: int, tier: str | None, *, batch: bool, late: bool) -> int:
    """The price of a million tokens in `EDGES`, read by a person."""
    if tier == "flex" and batch:
        return 1_000
    if batch:
        return 20_000 if late and tokens > 1_000 else 10_000
    if tier == "flex":
        return 300 if tokens > 200_000 else 100
    base = 3 if tokens > 200_000 else 2 if tokens > 1_000 else 1
    return base * 10 if late else base


def test_both_sides_of_every_threshold_date_tier_and_batch(priced: Priced) -> None:
    priced.read(EDGES)
    expected: dict[str, int] = {}
    events = []
    for tokens in (1, 999, 1_000, 1_001, 199_999, 200_000, 200_001):
        for tier in (None, "flex", "scale"):
            for batch in (False, True):
                for late, when in ((False, EDGE_S - 0.001), (True, float(EDGE_S))):
                    name = f"{tokens} {tier} {batch} {late}"
                    expected[name] = tokens * millionths(tokens, tier, batch=batch, late=late) * ATTO // 10**6
                    event = {"kind": "completions", "timestamp": when, "model": "M", "user_id": name}
                    event |= {"input_tokens": tokens, "batch": batch}
                    events.append(event | ({"service_tier": tier} if tier else {}))
    with fresh(priced.server) as api:
        assert send(api, events).json()["accepted"] == len(events)
        for width, seconds in WIDTHS_S.items():
            found = ask_costs(api, CostQuestion(EDGE_S - seconds, EDGE_S + seconds, width, ("user_id",)))
            spent = {dict(key)["user_id"]: atto for _, _, rows in found for key, atto, _, _ in rows}
            assert spent == expected, width
            assert [{dict(key)["user_id"].split()[-1] for key, *_ in rows} for _, _, rows in found] == [
                {"False"},
                {"True"},
            ]


def test_a_price_that_has_ended_is_none_and_no_earlier_one_comes_back(priced: Priced) -> None:
    """The first price lasts until the second begins; when that has ended there is none."""
    priced.read("model,counted,unit,price,from,until\nm,input,token,1,,\nm,input,token,2,2025-06-10,2025-06-11\n")
    event: Event = {"kind": "embeddings", "model": "m", "input_tokens": 1}
    times = [EDGE_S - 0.001, EDGE_S, EDGE_S + DAY_S - 0.001, EDGE_S + DAY_S]
    with fresh(priced.server) as api:
        assert send(api, [event | {"timestamp": when} for when in times]).json()["accepted"] == 4
        found = ask_costs(api, CostQuestion(EDGE_S - DAY_S, EDGE_S + 2 * DAY_S))
        assert amounts(found) == [1 * ATTO, 4 * ATTO, 0]
        assert [(row["since"], row["quantity"]) for row in unpriced(api)] == [(EDGE_S + DAY_S, 1)]


def test_cached_tokens_without_a_price_of_their_own_cost_what_cached_or_uncached_ones_do(priced: Priced) -> None:
    """Cached audio costs what cached input does, and where that has no price what uncached audio does; images alike."""
    event: Event = {"kind": "completions", "timestamp": EDGE_S, "model": "m", "input_tokens": 30}
    event |= {"input_cached_tokens": 30, "input_cached_audio_tokens": 10, "input_cached_image_tokens": 10}
    event |= {"input_audio_tokens": 10}
    prices = "model,counted,unit,price\nm,input,token,1\nm,image_input,token,100\nm,audio_input,token,10000\n"
    for text, total in ((prices, 10 + 1_000 + 100_000), (prices + "m,cached_input,token,0.5\n", 15)):
        priced.read(text)
        with fresh(priced.server) as api:
            assert send(api, [event]).json()["accepted"] == 1
            assert amounts(ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 60, "1m"))) == [total * ATTO]


def test_a_day_of_storage_is_its_minutes_also_when_the_price_changes_within(priced: Priced) -> None:
    """Rounded once since the day's start, whatever the price was when: a third of a GiB, which no decimal ends."""
    prices = "kind,counted,unit,price,from\nvector_stores,storage,GiB-day,0.7,\n"
    prices += "vector_stores,storage,GiB-day,1.1,2025-06-10T00:00:07.001Z\n"
    priced.read(prices)
    book = CostBook(prices)
    level: Event = {"kind": "vector_stores", "vector_store_id": "v", "usage_bytes": 2**30 // 3}
    with fresh(priced.server) as api:
        post_all(api, book, [level | {"timestamp": EDGE_S + 1.501}])
        (day,) = amounts(check(api, book, CostQuestion(EDGE_S, EDGE_S + DAY_S)))
        for width in ("1h", "1m"):
            assert sum(amounts(check(api, book, CostQuestion(EDGE_S, EDGE_S + DAY_S, width)))) == day


def test_the_whole_request_is_dearer_beyond_a_threshold(priced: Priced) -> None:
    """Its cached tokens count to its length, and every part with a threshold is at the higher price."""
    priced.read(
        "model,counted,above_input_tokens,unit,price\n"
        "m,input,,1M tokens,2\nm,input,1000,1M tokens,4\n"
        "m,cached_input,,1M tokens,1\n"
        "m,output,,1M tokens,10\nm,output,1000,1M tokens,15\n"
    )
    short = {"kind": "completions", "model": "m", "timestamp": EDGE_S, "output_tokens": 10}
    short |= {"input_tokens": 1_000, "input_cached_tokens": 600}
    with fresh(priced.server) as api:
        assert send(api, [short, short | {"timestamp": EDGE_S + 60, "input_tokens": 1_001}]).json()["accepted"] == 2
        found = ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 120, "1m"))
        millionths = [400 * 2 + 600 * 1 + 10 * 10, 401 * 4 + 600 * 1 + 10 * 15]
        assert amounts(found) == [count * ATTO // 10**6 for count in millionths]


def test_sums_beyond_64_bits_are_exact_to_the_last_digit(priced: Priced) -> None:
    """Each event costs more than 2^53 cents; a double would lose the last digits of the sum."""
    prices = "model,counted,unit,price\nm,input,1K tokens,0.123456789012345\n"
    priced.read(prices)
    book = CostBook(prices)
    events: list[Event] = [
        {"kind": "embeddings", "id": str(n), "timestamp": EDGE_S + n, "model": "m", "input_tokens": 2**53 - 1}
        for n in range(2_000)
    ]
    with fresh(priced.server) as api:
        post_all(api, book, events, at_once=1_000)
        for width in WIDTHS_S:
            found = check(api, book, CostQuestion(EDGE_S, EDGE_S + 3_600, width, ("line_item",)))
            if width != "1m":
                assert amounts(found) == [2_000 * (2**53 - 1) * 123_456_789_012_345]


def test_a_price_without_a_finite_decimal_is_rounded_once_for_each_event(priced: Priced) -> None:
    """$0.007 a minute is 0.000116666... a second: seven seconds cost 0.000816666666666667, twice that is twice it."""
    priced.read("model,counted,unit,price\nscribe,seconds,minute,0.007\n")
    event: Event = {"kind": "audio_transcriptions", "model": "scribe", "seconds": 7}
    with fresh(priced.server) as api:
        assert send(api, [event | {"timestamp": EDGE_S + n} for n in range(2)]).json()["accepted"] == 2
        for width in WIDTHS_S:
            (found,) = ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 60, width, ("line_item",)))
            ((key, atto, quantity, unit),) = found[2]
            assert (dict(key)["line_item"], unit) == ("scribe, seconds", "duration_seconds")
            assert quantity == 14
            assert Decimal(atto).scaleb(-18) == Decimal("0.001633333333333334")


def test_an_events_own_cost_stands_instead_of_the_book_and_is_no_quantity(priced: Priced) -> None:
    priced.read("model,counted,unit,price\nm,input,token,1\n")
    event: Event = {"kind": "completions", "timestamp": EDGE_S, "model": "m", "input_tokens": 5}
    own = {"value": Decimal("0.000000000000000001"), "currency": "usd"}
    with fresh(priced.server) as api:
        events = [event, event | {"cost": own}, event | {"cost": own, "model": "nobody knows"}, event | {"cost": own}]
        del events[3]["model"]
        assert send(api, events).json()["accepted"] == 4
        ((_, _, found),) = ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 60, "1m", ("line_item",)))
        rows = {dict(key)["line_item"]: (atto, quantity, unit) for key, atto, quantity, unit in found}
        expected: dict[str, tuple[Any, ...]] = {
            "m, input": (5 * ATTO, 5, "tokens"),
            "m, reported cost": (1, None, None),
            "nobody knows, reported cost": (1, None, None),
            "unknown model, reported cost": (1, None, None),
        }
        assert rows == expected
        assert unpriced(api) == []


def test_a_price_of_nothing_is_a_price_and_no_price_is_no_amount(priced: Priced) -> None:
    priced.read("model,counted,unit,price\ngratis,input,token,0\n")
    event: Event = {"kind": "moderations", "timestamp": EDGE_S, "input_tokens": 5}
    with fresh(priced.server) as api:
        assert send(api, [event | {"model": "gratis"}, event | {"model": "riddle"}]).json()["accepted"] == 2
        ((_, _, found),) = ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 60, "1m", ("line_item",)))
        ((key, atto, quantity, _),) = found
        assert (dict(key)["line_item"], atto) == ("gratis, input", 0)
        assert quantity == 5
        (row,) = unpriced(api)
        assert (row["model"], row["line_item"], row["quantity"], row["events"]) == ("riddle", "riddle, input", 5, 1)


def test_storage_without_a_price_is_listed_with_what_was_held(priced: Priced) -> None:
    """Two GiB for two days, the second of them at a price."""
    priced.read("kind,counted,unit,price,from\nvector_stores,storage,GiB-day,1,2025-06-11\n")
    level: Event = {"kind": "vector_stores", "vector_store_id": "v", "usage_bytes": 2**31, "timestamp": EDGE_S}
    with fresh(priced.server) as api:
        assert send(api, [level, level | {"timestamp": EDGE_S + 2 * DAY_S, "usage_bytes": 0}]).json()["accepted"] == 2
        assert amounts(ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 3 * DAY_S))) == [0, 2 * ATTO, 0]
        (row,) = exactly(api.get(f"{COSTS}/unpriced"))["data"]
        told = ("kind", "line_item", "counted", "quantity", "quantity_unit", "since")
        assert [row[name] for name in told] == ["vector_stores", STORAGE, "storage", 48, STORAGE_UNIT, EDGE_S]


def test_what_is_counted_without_a_price_is_what_a_price_file_calls_it(priced: Priced) -> None:
    """A file of such lines is taken, and leaves nothing without a price."""
    priced.read("model,counted,unit,price\nnobody,input,token,1\n")
    tokens = dict.fromkeys(("input_cached_tokens", "input_image_tokens", "input_cache_write_12h_tokens"), 1)
    events: list[Event] = [
        {"kind": "completions", "model": "m", "input_tokens": 9, "output_tokens": 9, **tokens},
        {"kind": "images", "model": "m", "images": 1},
        {"kind": "audio_speeches", "model": "m", "characters": 1},
        {"kind": "audio_transcriptions", "model": "m", "seconds": 1},
        {"kind": "code_interpreter_sessions", "num_sessions": 1},
        {"kind": "file_search_calls", "num_requests": 1},
        {"kind": "web_search_calls", "num_requests": 1},
        {"kind": "vector_stores", "vector_store_id": "v", "usage_bytes": 2**30},
        {"kind": "vector_stores", "vector_store_id": "v", "usage_bytes": 0, "timestamp": EDGE_S + 60},
    ]
    with fresh(priced.server) as api:
        assert send(api, [{"timestamp": EDGE_S} | event for event in events]).json()["rejected"] == 0
        found = api.get(f"{COSTS}/unpriced").json()["data"]
        assert len(found) == 12
        lines = [
            {"model": row["model"] or "", "kind": row["kind"], "counted": row["counted"], "price": "1"}
            | {"unit": UNITS_OF[row["counted"]][0]}
            for row in found
        ]
        priced.read(price_file(lines))
        listed = api.get(f"{COSTS}/prices").json()["data"]
        assert {row["counted"] for row in listed} == {row["counted"] for row in found}
        body = {"start_time": EDGE_S, "end_time": EDGE_S + 60, "dry_run": False}
        assert api.post(f"{COSTS}/rerate", json=body).status_code == 200
        assert api.get(f"{COSTS}/unpriced").json()["data"] == []


def test_prices_that_change_while_events_come_charge_each_by_one_of_them(priced: Priced) -> None:
    """Never by a mixture: both parts of an event are of the same file, and what comes after an answer is by it."""
    prices = "model,counted,unit,price\nm,input,token,{}\nm,output,token,{}\n"
    event: Event = {"kind": "completions", "model": "m", "input_tokens": 1, "output_tokens": 1, "timestamp": EDGE_S}
    priced.read(prices.format(1, 10))
    with fresh(priced.server) as api, ThreadPoolExecutor() as pool:
        key = api.headers["authorization"].removeprefix("Bearer ")

        def post(lane: int) -> None:
            with priced.server.http(key) as mine:
                for number in range(25):
                    assert send(mine, [event | {"user_id": f"{lane}-{number}"}]).json()["accepted"] == 1

        lanes = [pool.submit(post, lane) for lane in range(4)]
        for turn in range(6):
            priced.read(prices.format(*((1, 10) if turn % 2 else (100, 1_000))))
        for lane in lanes:
            lane.result(60)
        ((_, _, results),) = ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 60, "1m", ("user_id",)))
        assert len(results) == 100
        assert {atto for _, atto, _, _ in results} <= {11 * ATTO, 1_100 * ATTO}
        priced.read(prices.format(5, 50))
        assert send(api, [event | {"user_id": "after"}]).json()["accepted"] == 1
        ((_, _, results),) = ask_costs(api, CostQuestion(EDGE_S, EDGE_S + 60, "1m", ("user_id",)))
        assert [atto for key, atto, _, _ in results if ("user_id", "after") in key] == [55 * ATTO]


def test_other_prices_change_nothing_of_what_was_charged(priced: Priced) -> None:
    """Neither of events nor of what stores held until then; what comes later is charged by the new prices."""
    prices = "model,kind,counted,unit,price\nm,,input,token,{}\n,vector_stores,storage,GiB-day,{}\n"
    priced.read(prices.format(1, 2))
    event: Event = {"kind": "completions", "timestamp": EDGE_S, "model": "m", "input_tokens": 5}
    level: Event = {"kind": "vector_stores", "timestamp": EDGE_S, "vector_store_id": "v", "usage_bytes": 2**30}
    question = CostQuestion(EDGE_S, EDGE_S + 2 * DAY_S)
    with fresh(priced.server) as api:
        assert (
            send(api, [event, level, level | {"timestamp": EDGE_S + DAY_S, "usage_bytes": 0}]).json()["accepted"] == 3
        )
        assert amounts(ask_costs(api, question)) == [7 * ATTO, 0]
        priced.read(prices.format(3, 5))
        assert amounts(ask_costs(api, question)) == [7 * ATTO, 0]
        assert send(api, [event | {"timestamp": EDGE_S + DAY_S}]).json()["accepted"] == 1
        assert amounts(ask_costs(api, question)) == [7 * ATTO, 15 * ATTO]
