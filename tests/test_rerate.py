"""Prices are corrected afterwards only when asked: by whole days, told beforehand, recorded, the same when done twice.

A month of a company's traffic is charged by list prices and an operator's file; the file is then corrected.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from tallybook.traffic import traffic
from tests.costs_model import CostBook, CostQuestion
from tests.model import KINDS, Event
from tests.support import Server
from tests.test_costs_exactness import (
    COSTS,
    EVENTS,
    Priced,
    amounts,
    ask_costs,
    assert_same_costs,
    exactly,
    priced,  # noqa: F401  a fixture
    send,
    unpriced,
)
from tests.test_exactness import exact, fresh

DAY_S = 86_400
DAYS = 30
LAST_DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
START = LAST_DAY - timedelta(days=DAYS)
START_S = int(START.timestamp())
END_S = START_S + DAYS * DAY_S
MONTH = {"start_time": START_S, "end_time": END_S}
ONE_IN = 25  # of the company's requests: enough of every kind, and quick

# What the company's own models and vector stores cost, before and after: the month had begun with a typing error.
WRONG = """\
model,kind,counted,unit,price,from
Qwen/Qwen3-32B,,input,1M tokens,0.8,
Qwen/Qwen3-32B,,output,1M tokens,0.30,
gpt-4.1-2025-04-14,,input,1M tokens,2.00,
gpt-4.1-2025-04-14,,output,1M tokens,8.00,
whisper-1,,seconds,minute,0.006,
,code_interpreter_sessions,sessions,session,0.03,
,vector_stores,storage,GiB-day,0.10,
"""
CHANGE = (START + timedelta(days=12, hours=7)).isoformat()
RIGHT = f"""\
model,kind,counted,unit,price,from
Qwen/Qwen3-32B,,input,1M tokens,0.08,
Qwen/Qwen3-32B,,output,1M tokens,0.30,
meta-llama/*,,input,1M tokens,0.11,
meta-llama/*,,output,1M tokens,0.34,
gpt-4.1-2025-04-14,,input,1M tokens,2.00,
gpt-4.1-2025-04-14,,input,1M tokens,1.50,{CHANGE}
gpt-4.1-2025-04-14,,output,1M tokens,8.00,
whisper-1,,seconds,minute,0.007,
,code_interpreter_sessions,sessions,session,0.03,
,vector_stores,storage,GiB-day,0.09,
"""
CORRECTED = {
    "Qwen/Qwen3-32B, input",
    "meta-llama/Llama-3.3-70B-Instruct, input",
    "meta-llama/Llama-3.3-70B-Instruct, output",
    "gpt-4.1-2025-04-14, input",
    "gpt-4.1-2025-04-14, cached input",  # which has no price of its own, and neither have cache writes
    "gpt-4.1-2025-04-14, cache write 30m",
    "whisper-1, seconds",
    "vector store storage",
}

Spent = dict[int, dict[str, Decimal]]
"""For each day: line item -> amount."""


@dataclass(frozen=True)
class Company:
    """A server, the price file it reads, and a client in an organization of its own."""

    server: Server
    file: Path
    api: httpx.Client

    def read(self, text: str) -> str:
        """Put other prices in force; the id of the book."""
        self.file.write_text(text)
        answer = self.api.post(f"{COSTS}/prices/reload")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["book"]["id"])

    def rerate(self, **asked: Any) -> dict[str, Any]:
        answer = self.api.post(f"{COSTS}/rerate", json={**MONTH, **asked}, timeout=120)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = exactly(answer)
        assert body["object"] == "organization.costs.rerating"
        assert body["dry_run"] is asked["dry_run"]
        return body

    def reratings(self) -> list[dict[str, Any]]:
        body = exactly(self.api.get(f"{COSTS}/reratings", params={"limit": 100, "order": "asc"}))
        assert body["has_more"] is False
        return list(body["data"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    directory = tmp_path_factory.mktemp("company")
    file = directory / "prices.csv"
    file.write_text(WRONG)
    server = Server.start(directory / "data", args=["--price-file", str(file)])
    yield server, file
    assert server.stop() == 0


@pytest.fixture
def company(running: tuple[Server, Path]) -> Iterator[Company]:
    server, file = running
    with fresh(server) as api:
        company = Company(server, file, api)
        company.read(WRONG)
        yield company


@pytest.fixture(scope="module")
def month() -> list[Event]:
    """Some of the company's month, and all of its vector stores; now and then a bill of the provider's."""
    rng = random.Random(3)
    found: list[Event] = []
    for hour in traffic(START, START + timedelta(days=DAYS)):
        found += [event for event in hour if event["kind"] == "vector_stores" or rng.randrange(ONE_IN) == 0]
    for event in found[::50]:
        event["cost"] = {"value": Decimal("0.0123"), "currency": "usd"}
    return found


def post(api: httpx.Client, events: Sequence[Event]) -> None:
    for first in range(0, len(events), 20_000):
        some = events[first : first + 20_000]
        receipt = send(api, some).json()
        assert receipt.get("accepted") == len(some), receipt


def spent(api: httpx.Client, start: int = START_S, days: int = DAYS) -> Spent:
    query = f"start_time={start}&end_time={start + days * DAY_S}&limit={days}&group_by=line_item"
    answer = api.get(f"{COSTS}?{query}")
    assert answer.status_code == 200, answer.text
    return {
        bucket["start_time"]: {row["line_item"]: Decimal(row["amount"]["value"]) for row in bucket["results"]}
        for bucket in exactly(answer)["data"]
    }


def differences(before: Spent, after: Spent) -> Spent:
    """For every day that differs: line item -> how much it costs more; with prices both before and after."""
    found: Spent = {}
    for day, items in before.items():
        changed = {
            name: after[day].get(name, Decimal(0)) - items.get(name, Decimal(0))
            for name in items.keys() | after[day].keys()
            if after[day].get(name) != items.get(name)
        }
        if changed:
            found[day] = changed
    return found


def told(report: dict[str, Any]) -> Spent:
    """The differences that a re-rating reports; its totals are those of its line items."""
    found: Spent = {}
    for day in report["days"]:
        assert set(day) == {"start_time", "events", "before", "after", "line_items"}
        for item in day["line_items"]:
            assert set(item) == {"line_item", "before", "after", "quantity", "quantity_unit"}
        items = {item["line_item"]: number(item["after"]) - number(item["before"]) for item in day["line_items"]}
        assert number(day["after"]) - number(day["before"]) == sum(items.values())
        assert len(items) == len(day["line_items"])
        if items:
            found[day["start_time"]] = items
    assert [*found] == sorted(found), "oldest first"
    return found


def number(value: Any) -> Decimal:
    """An amount; null where there was none, or is none any more."""
    return Decimal(0) if value is None else Decimal(value)


def everything_else(api: httpx.Client) -> dict[str, Any]:
    """Every answer that no price can change."""
    window = f"start_time={START_S}&end_time={END_S}&limit=31&bucket_width=1d"
    usage = {kind: api.get(f"/v1/organization/usage/{kind}?{window}").json() for kind in KINDS}
    items = api.get(f"{COSTS}?{window}&group_by=line_item").json()["data"]
    quantities = {
        (bucket["start_time"], row["line_item"]): row["quantity"] for bucket in items for row in bucket["results"]
    }
    own = {key: value for key, value in quantities.items() if key[1].endswith("reported cost")}
    return {"usage": usage, "own": own}


def test_what_is_told_beforehand_is_what_is_done_and_what_is_seen(company: Company, month: list[Event]) -> None:
    api = company.api
    post(api, month)
    before, beside = spent(api), everything_else(api)
    assert {row["model"] for row in unpriced(api)} >= {"meta-llama/Llama-3.3-70B-Instruct"}
    assert told(company.rerate(dry_run=True)) == {}, "by the same prices nothing changes"

    book = company.read(RIGHT)
    assert spent(api) == before, "prices alone change nothing that is past"
    dry = company.rerate(dry_run=True)
    assert spent(api) == before, "a rehearsal changes nothing"
    assert company.reratings() == []

    done = company.rerate(dry_run=False)
    after = spent(api)
    seen = differences(before, after)
    assert len(seen) == DAYS
    assert {name for items in seen.values() for name in items} == CORRECTED
    assert told(dry) == told(done) == seen
    assert dry["days"] == done["days"]
    assert dry["book_id"] == done["book_id"] == book

    assert everything_else(api) == beside, "usage and own costs are what they were"
    assert not any(row["model"].startswith("meta-llama") for row in unpriced(api)), "priced by now"

    records = company.reratings()
    assert [record["start_time"] for record in records] == [*seen]
    assert {record["book_id"] for record in records} == {book}
    assert {record["object"] for record in records} == {"organization.costs.rerating"}
    for record, day in zip(records, done["days"], strict=True):
        assert [record[name] for name in ("events", "before", "after")] == [
            day[name] for name in ("events", "before", "after")
        ]
        assert abs(record["created_at"] - time.time()) < 300

    again = company.rerate(dry_run=False)
    assert told(again) == {}, "twice is once"
    assert spent(api) == after
    assert company.reratings() == records, "nothing was changed, nothing is recorded"


def test_a_rerated_month_is_one_that_was_right_from_the_start(company: Company, month: list[Event]) -> None:
    """By any grouping, in hours too, and after its rollups were built anew."""
    week = [event for event in month if event["timestamp"] < START_S + 7 * DAY_S and event["kind"] != "vector_stores"]
    post(company.api, week)
    company.read(RIGHT)
    company.rerate(dry_run=False)
    with fresh(company.server) as api:
        post(api, week)
        for width, days in (("1d", 7), ("1h", 7), ("1m", 1)):
            for group_by in (("line_item",), ("project_id", "user_id"), ("model", "service_tier", "batch")):
                question = CostQuestion(START_S, START_S + days * DAY_S, width, group_by)
                assert_same_costs(question, ask_costs(company.api, question), ask_costs(api, question))
        body = {"start_time": START_S, "end_time": END_S}
        assert company.api.post("/v1/organization/usage/rebuild", json=body).status_code == 200
        verdict = company.api.get("/v1/organization/usage/check").json()
        assert verdict["ok"] is True, verdict
        question = CostQuestion(START_S, START_S + 7 * DAY_S, "1d", ("line_item", "user_id"))
        assert_same_costs(question, ask_costs(company.api, question), ask_costs(api, question))
        assert unpriced(company.api) == unpriced(api)


def test_only_days_that_touch_the_window_change(company: Company) -> None:
    """Whole days, also when the window begins and ends within one; the others keep the price they had."""
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000_000}
    post(company.api, [event | {"timestamp": START_S + day * DAY_S + 3_600} for day in range(5)])
    company.read(RIGHT)
    window = {"start_time": START_S + DAY_S + 80_000, "end_time": START_S + 3 * DAY_S + 1}
    done = company.rerate(dry_run=False, **window)
    assert [day["start_time"] for day in done["days"] if day["line_items"]] == [
        START_S + day * DAY_S for day in (1, 2, 3)
    ]
    days = spent(company.api, days=5)
    wrong, right = {"Qwen/Qwen3-32B, input": Decimal("0.8")}, {"Qwen/Qwen3-32B, input": Decimal("0.08")}
    assert [*days.values()] == [wrong, right, right, right, wrong]


def test_a_price_that_is_withdrawn_leaves_no_amount_behind(company: Company) -> None:
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000_000}
    post(company.api, [event | {"timestamp": START_S}])
    company.read("kind,counted,unit,price\ncode_interpreter_sessions,sessions,session,1\n")
    (day,) = company.rerate(dry_run=False)["days"]
    (item,) = day["line_items"]
    assert (item["line_item"], number(item["before"]), number(item["after"])) == (
        "Qwen/Qwen3-32B, input",
        Decimal("0.8"),
        Decimal(0),
    )
    assert spent(company.api, days=1) == {START_S: {}}
    (row,) = unpriced(company.api)
    assert (row["line_item"], row["quantity"]) == ("Qwen/Qwen3-32B, input", 1_000_000)


def test_what_if_answers_by_other_prices_and_changes_nothing(company: Company, month: list[Event]) -> None:
    """What would it have cost: told by a text in the file's place, which is then forgotten."""
    days = [event for event in month if event["timestamp"] < START_S + 3 * DAY_S]
    post(company.api, days)
    before = spent(company.api)
    supposed = told(company.rerate(dry_run=True, prices=RIGHT))
    assert supposed
    assert spent(company.api) == before
    assert company.reratings() == []
    assert told(company.rerate(dry_run=True)) == {}, "the book in force is the old one"
    company.read(RIGHT)
    company.rerate(dry_run=False)
    assert differences(before, spent(company.api)) == supposed


def test_own_costs_are_no_ones_to_correct(company: Company) -> None:
    """An event that told its own cost keeps it, priced or not, before and after."""
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000_000, "timestamp": START_S}
    level: Event = {"kind": "vector_stores", "vector_store_id": "v", "usage_bytes": 2**40, "timestamp": START_S}
    own = {"cost": {"value": Decimal("0.000000000000000007"), "currency": "usd"}}
    post(company.api, [event | own, level | own, event | own | {"model": "nobody knows"}])
    before = spent(company.api)
    assert sum(before[START_S].values()) == Decimal("0.000000000000000021")
    company.read(RIGHT)
    assert told(company.rerate(dry_run=False)) == {}
    assert spent(company.api) == before


def test_a_day_that_is_touched_is_whole_also_when_a_store_is_reported_late_in_it(company: Company) -> None:
    level: Event = {"kind": "vector_stores", "vector_store_id": "v", "usage_bytes": 2 * 2**30}
    post(company.api, [level | {"timestamp": START_S + 43_200}])
    company.read(RIGHT)
    company.rerate(dry_run=False, start_time=START_S, end_time=START_S + 60)
    assert spent(company.api, days=2) == {
        START_S: {"vector store storage": Decimal("0.09")},
        START_S + DAY_S: {"vector store storage": Decimal("0.2")},
    }


def test_stores_are_corrected_on_the_days_asked_for_only(company: Company) -> None:
    """A store that was reported once holds for days: each of its days has the price of its own re-rating."""
    level: Event = {"kind": "vector_stores", "vector_store_id": "v", "project_id": "p", "usage_bytes": 7 * 2**30}
    post(company.api, [level | {"timestamp": START_S + 3_600}])
    before = spent(company.api, days=6)
    name = "vector store storage"
    assert [day[name] for day in before.values()] == [
        Decimal("0.7") - (Decimal("0.029166666666666667") if number == 0 else 0) for number in range(6)
    ]
    company.read(RIGHT)
    window = {"start_time": START_S + 2 * DAY_S, "end_time": START_S + 4 * DAY_S}
    dry = told(company.rerate(dry_run=True, **window))
    done = told(company.rerate(dry_run=False, **window))
    after = spent(company.api, days=6)
    assert (
        dry == done == differences(before, after) == {START_S + day * DAY_S: {name: Decimal("-0.07")} for day in (2, 3)}
    )
    assert told(company.rerate(dry_run=False, **window)) == {}
    verdict = company.api.get("/v1/organization/usage/check").json()
    assert verdict["ok"] is True, verdict


@st.composite
def storage_prices(draw: st.DrawFn) -> str:
    """Prices of storage for the week that is re-rated, changing anywhere in it; perhaps there is none before."""
    changes = sorted(draw(st.sets(st.sampled_from([0, 6, 24, 31, 48, 60]), max_size=3)))
    starts = ["", *((START + timedelta(hours=hours, milliseconds=1)).isoformat() for hours in changes)]
    if len(starts) > 1 and draw(st.booleans()):
        starts = starts[1:]
    rows = [
        f",vector_stores,storage,{draw(st.sampled_from(['GiB-day', 'GiB-hour']))},"
        f"{draw(st.sampled_from(['0', '0.1', '0.7', '2.4']))},{draw(st.sampled_from(['', '1']))},{start}"
        for start in starts
    ]
    return "\n".join(["model,kind,counted,unit,price,free,from", *rows]) + "\n"


@exact(7)
@given(
    first=storage_prices(),
    corrections=st.lists(
        st.tuples(storage_prices(), st.integers(0, 4), st.integers(1, 5), st.sampled_from([0, 1, 30_000])),
        min_size=1,
        max_size=3,
    ),
    reports=st.lists(
        st.tuples(st.integers(-10 * 3_600, 80 * 3_600), st.sampled_from("ab"), st.sampled_from([0, 2**30, 2**33 // 3])),
        min_size=1,
        max_size=6,
        unique_by=lambda report: report[:2],
    ),
)
def test_every_day_of_storage_has_the_prices_of_its_own_rerating(
    priced: Priced,  # noqa: F811  the fixture
    first: str,
    corrections: list[tuple[str, int, int, int]],
    reports: list[tuple[int, str, int]],
) -> None:
    """Whatever is reported, however prices change: a day is by the last file it was re-rated with."""
    note(f"{first}{corrections}{reports}")
    events: list[Event] = [
        {"kind": "vector_stores", "vector_store_id": store, "project_id": store, "usage_bytes": size}
        | {"timestamp": START_S + second}
        for second, store, size in reports
    ]
    in_force = {START_S + day * DAY_S: charged(first, events) for day in range(10)}
    with fresh(priced.server) as api:
        company = Company(priced.server, priced.file, api)
        company.read(first)
        post(api, events)
        for text, begin, days, beside_s in corrections:
            company.read(text)
            low, high = START_S + begin * DAY_S, START_S + (begin + days) * DAY_S
            asked = {"start_time": low + beside_s, "end_time": high - beside_s}  # days are whole all the same
            past = spent(api, days=10)
            rehearsed = told(company.rerate(dry_run=True, **asked))
            assert told(company.rerate(dry_run=False, **asked)) == rehearsed == differences(past, spent(api, days=10))
            assert told(company.rerate(dry_run=False, **asked)) == {}
            in_force |= dict.fromkeys(range(low, high, DAY_S), charged(text, events))
        for width, days, group_by in (("1d", 7, ("line_item",)), ("1h", 3, ("project_id",)), ("1d", 5, ())):
            question = CostQuestion(START_S, START_S + days * DAY_S, width, group_by)
            answers = {book: book.answer(question, time.time()) for book in in_force.values()}
            expected = [
                answers[in_force[low - low % DAY_S]][number]
                for number, (low, _, _) in enumerate(answers[in_force[START_S]])
            ]
            assert_same_costs(question, ask_costs(api, question), expected)


def charged(prices: str, events: Sequence[Event]) -> CostBook:
    book = CostBook(prices)
    assert {book.post(event) for event in events} == {"accepted"}
    return book


def test_another_organizations_costs_stay(company: Company) -> None:
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000_000, "timestamp": START_S}
    with fresh(company.server) as other:
        post(company.api, [event])
        post(other, [event])
        company.read(RIGHT)
        company.rerate(dry_run=False)
        assert spent(company.api, days=1)[START_S] == {"Qwen/Qwen3-32B, input": Decimal("0.08")}
        assert spent(other, days=1)[START_S] == {"Qwen/Qwen3-32B, input": Decimal("0.8")}
        assert other.get(f"{COSTS}/reratings").json()["data"] == []


def test_reratings_are_listed_in_pages(company: Company) -> None:
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000_000}
    post(company.api, [event | {"timestamp": START_S + day * DAY_S} for day in range(5)])
    company.read(RIGHT)
    company.rerate(dry_run=False)
    for order in ("asc", "desc"):
        found: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        for _ in range(10):
            body = exactly(company.api.get(f"{COSTS}/reratings", params={"limit": 2, "order": order, **after}))
            assert set(body) == {"object", "data", "first_id", "last_id", "has_more"}
            assert (body["first_id"], body["last_id"]) == (body["data"][0]["id"], body["data"][-1]["id"])
            found += body["data"]
            if not body["has_more"]:
                break
            after = {"after": body["last_id"]}
        days = [START_S + day * DAY_S for day in range(5)]
        assert [record["start_time"] for record in found] == (days if order == "asc" else days[::-1])
        assert len({record["id"] for record in found}) == 5
        assert [(Decimal(record["before"]), Decimal(record["after"])) for record in found] == [
            (Decimal("0.8"), Decimal("0.08"))
        ] * 5


# ------------------------------------------------------------------------------------- beside load, and killed

LONG_DAYS = 40
LONG_START_S = START_S - (LONG_DAYS - DAYS) * DAY_S
LONG = {"start_time": LONG_START_S, "end_time": LONG_START_S + LONG_DAYS * DAY_S}


def long_history(events_a_day: int) -> list[Event]:
    """The same two prices' worth every day, in requests of many users."""
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000, "output_tokens": 10}
    return [
        event
        | {"id": f"{day}-{number}", "user_id": f"u{number % 17}"}
        | {"timestamp": LONG_START_S + day * DAY_S + number * 60}
        for day in range(LONG_DAYS)
        for number in range(events_a_day)
    ]


def test_what_comes_in_meanwhile_is_neither_lost_nor_charged_wrong(company: Company) -> None:
    history = long_history(20)
    post(company.api, history)
    company.read(RIGHT)
    right = CostBook(RIGHT)
    assert {right.post(event) for event in history} == {"accepted"}
    later: list[Event] = []
    stop = threading.Event()

    def write() -> None:
        with company.server.http(company.api.headers["authorization"].split()[1]) as api:
            for number in range(2_000):
                some = [event | {"id": f"later-{number}-{event['id']}"} for event in history[number % 30 :: 30]]
                post(api, some)
                later.extend(some)
                if stop.is_set():
                    return

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        try:
            for _ in range(2):
                company.rerate(dry_run=False, **LONG)
        finally:
            stop.set()
        writing.result(60)
    assert later
    assert {right.post(event) for event in later} == {"accepted"}
    question = CostQuestion(LONG["start_time"], LONG["end_time"], "1d", ("line_item", "user_id"))
    assert_same_costs(question, ask_costs(company.api, question), right.answer(question, time.time()))
    verdict = company.api.get("/v1/organization/usage/check").json()
    assert verdict["ok"] is True, verdict


@pytest.mark.timeout(300)
def test_a_killed_rerating_leaves_every_day_whole_old_or_new(tmp_path: Path) -> None:
    """What was done stays done and is recorded; the rest is done by asking again."""
    file = tmp_path / "prices.csv"
    args = ["--price-file", str(file)]
    key_of = f"org-{uuid4().hex}"
    history = long_history(20)
    question = CostQuestion(LONG["start_time"], LONG["end_time"], "1d")
    books = {name: CostBook(text) for name, text in (("old", WRONG), ("new", RIGHT))}
    for book in books.values():
        assert {book.post(event) for event in history[:20]} == {"accepted"}
    old, new = (amounts(book.answer(question, time.time()))[0] for book in books.values())
    assert old != new
    halfway = 0
    file.write_text(WRONG)
    server = Server.start(tmp_path / "data", args=args)
    try:
        for attempt in range(5):
            organization = f"{key_of}-{attempt}"
            file.write_text(WRONG)
            key = server.key(organization)
            with server.http(key) as api:
                api.post(f"{COSTS}/prices/reload").raise_for_status()
                post(api, history)
                assert set(amounts(ask_costs(api, question))) == {old}
                file.write_text(RIGHT)
                api.post(f"{COSTS}/prices/reload").raise_for_status()
                kill_while_rerating(server, key)
            server = Server.start(tmp_path / "data", args=args)
            with server.http(key) as api:
                days = amounts(ask_costs(api, question))
                assert set(days) <= {old, new}, "a day half old, half new"
                done = days.count(new)
                assert days == [new] * done + [old] * (LONG_DAYS - done), "oldest first"
                halfway += 0 < done < LONG_DAYS
                assert len(records(api)) == done, "one record for every day that is new"
                assert api.get("/v1/organization/usage/check").json()["ok"] is True
                answer = api.post(f"{COSTS}/rerate", json={**LONG, "dry_run": False}, timeout=120).json()
                assert sum(1 for day in answer["days"] if day["line_items"]) == LONG_DAYS - done
                assert set(amounts(ask_costs(api, question))) == {new}
                assert len(records(api)) == LONG_DAYS
            if halfway == 2:
                break
        assert halfway, "no kill came in the middle"
    finally:
        server.kill()


def kill_while_rerating(server: Server, key: str) -> None:
    """Kill the server once the first days are done; at the latest when all is."""

    def rerate() -> None:
        with server.http(key) as api:
            try:
                api.post(f"{COSTS}/rerate", json={**LONG, "dry_run": False}, timeout=120)
            except httpx.TransportError:
                return

    with ThreadPoolExecutor() as pool, server.http(key) as api:
        rerating = pool.submit(rerate)
        for _ in range(2_000):
            if rerating.done() or api.get(f"{COSTS}/reratings", params={"limit": 1}).json()["data"]:
                break
        server.kill()
        rerating.result(60)


def records(api: httpx.Client) -> list[int]:
    """The days that are recorded as re-rated."""
    found: list[int] = []
    after: dict[str, str] = {}
    for _ in range(50):
        body = api.get(f"{COSTS}/reratings", params={"limit": 20, "order": "asc", **after}).json()
        found += [record["start_time"] for record in body["data"]]
        if not body["has_more"]:
            assert len(set(found)) == len(found)
            return found
        after = {"after": body["last_id"]}
    raise AssertionError("more than a thousand records")


def test_costs_after_a_restart_are_what_they_were(tmp_path: Path) -> None:
    """Also with other prices in the file by then: what rated a charge is recorded with it."""
    file = tmp_path / "prices.csv"
    file.write_text(WRONG)
    event: Event = {"kind": "completions", "model": "Qwen/Qwen3-32B", "input_tokens": 1_000_000, "timestamp": START_S}
    server = Server.start(tmp_path / "data", args=["--price-file", str(file)])
    with server.http() as api:
        assert api.post(EVENTS, json=event).json()["accepted"] == 1
        before = spent(api, days=1)
    assert server.stop() == 0
    file.write_text(RIGHT)
    server = Server.start(tmp_path / "data", args=["--price-file", str(file)])
    try:
        with server.http() as api:
            assert spent(api, days=1) == before == {START_S: {"Qwen/Qwen3-32B, input": Decimal("0.8")}}
            assert api.post(EVENTS, json=event).json()["accepted"] == 1
            assert spent(api, days=1)[START_S] == {"Qwen/Qwen3-32B, input": Decimal("0.88")}
    finally:
        assert server.stop() == 0
