"""What is deleted for its age changes no answer that can still be given; what cannot is refused, and never zero."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.errors import InvalidRequest, Unavailable
from tallybook.ingest.decode import decode
from tallybook.kinds import KINDS as TABLE
from tallybook.prices.book import PriceBook, load
from tallybook.query import Query
from tallybook.store import retention
from tallybook.store.duckdb import FILE_NAME, DuckStore
from tallybook.store.protocol import Batch, CostRow, Keep, Kept
from tallybook.timegrid import ALL_S
from tallybook.wire.pages import render_usage
from tallybook.wire.params import USAGE, parse
from tests.crash import EVENTS, ndjson
from tests.model import FILTERS, KINDS, LIMITS_MAX, SPANS_S, WIDTHS_S, Book, Event, Question, Row, normalise, passes
from tests.support import Server
from tests.test_cli import run
from tests.test_exactness import assert_same, exact, narrowings, parameters, untied
from tests.test_exactness import events as any_event

MEMORY_BYTES = 256 * 1024 * 1024
DAY_S = 86_400
DAYS = 6
FIRST = 1_740_787_200  # 2025-03-01
END = FIRST + DAYS * DAY_S
ORGANIZATION = "org-a"
NOT_BY_MINUTE = {"project_id", "user_id", "api_key_id", "vector_store_id"}
WAIT_S = 240


@pytest.fixture(scope="session")
def prices(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load(tmp_path_factory.mktemp("prices"), None, list_prices=True)


@contextmanager
def opened(book: PriceBook | None = None) -> Iterator[DuckStore]:
    with TemporaryDirectory() as directory:
        store = DuckStore(Path(directory), MEMORY_BYTES, book)
        try:
            yield store
        finally:
            store.close()


def post(store: DuckStore, events: Sequence[Event], now_s: int = END) -> int:
    """Send events as the server does; how many were accepted."""
    found = decode(ndjson(events), now_s * 1000, len(events), store.kept.events_s * 1000)
    (outcome,) = store.append([Batch(ORGANIZATION, found.records, columns=found.columns)])
    return outcome.accepted.total()


def expire(store: DuckStore, keep: Keep, now_s: int = END) -> None:
    for _ in range(1000):
        if store.expire(keep, now_s) is None:
            return
    raise AssertionError("there is no end to it")


def ask(store: DuckStore, question: Question) -> list[Row]:
    """All buckets, as the API has them."""
    asked = [(name, str(value)) for name, value in parameters(question)]
    asked.append(("limit", str(LIMITS_MAX[question.width])))
    data: list[Row] = []
    cursor: list[tuple[str, str]] = []
    while True:
        page = parse(USAGE[question.kind], [*asked, *cursor], ORGANIZATION, END, 200_000)
        kind = TABLE[question.kind]
        body = json.loads(render_usage(kind, page, store.usage(kind, page.query)))
        data += body["data"]
        if not body["has_more"]:
            return data
        cursor = [("page", body["next_page"])]


def is_lost(start: int, end: int, width_s: int, names: set[str], kept: Kept, used_days: set[int]) -> bool:
    """Whether some minute of a window is in no cell that is kept, on a day that something was used on.

    Args:
        names: dimensions that what is asked for is told apart by.
        used_days: days on which anything of what is asked for was used, counted from 1970.
    """

    def is_whole(cell_s: int, minute_s: int) -> bool:
        cell = minute_s - minute_s % cell_s
        return cell_s <= width_s and start <= cell and cell + cell_s <= end

    for minute_s in range(start - start % 60, end, 60):
        if minute_s >= kept.events_s or is_whole(DAY_S, minute_s):
            continue
        if minute_s >= kept.hours_s and is_whole(3_600, minute_s):
            continue
        if minute_s >= kept.minutes_s and is_whole(60, minute_s) and not names & NOT_BY_MINUTE:
            continue
        if minute_s // DAY_S in used_days:
            return True
    return False


T = TypeVar("T")


def unless_lost(answer: Callable[[], T]) -> T | None:
    """Return an answer, None where it is refused for what is no longer kept."""
    try:
        return answer()
    except InvalidRequest as refused:
        if refused.code != "not_kept":
            raise
        return None


def assert_answers(store: DuckStore, book: Book, question: Question) -> None:
    """As if nothing were deleted; or a refusal, exactly where something that was used cannot be told."""
    names = {*question.group_by, *(FILTERS[name] for name in question.filters)}
    facts = [row for row in book.stored if row["kind"] == question.kind and passes(row, question.filters)]
    used_days = {row["ms"] // 1000 // DAY_S for row in facts}
    start, end, width_s = question.start - question.start % 60, question.end, SPANS_S[question.width]
    assert end is not None
    lost = question.kind != "vector_stores" and is_lost(start, end, width_s, names, store.kept, used_days)
    found = unless_lost(lambda: ask(store, question))
    assert (found is None) == lost, f"{question} {store.kept}"
    if found is not None:
        assert_same(question, found, book.answer(question, END))


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """By any width, at edges of days and hours and anywhere, of any kind."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    start = FIRST + draw(st.integers(-1, DAYS - 1)) * DAY_S + draw(st.sampled_from([0, 0, 0, 3_600 * 7, 60 * 61, 90]))
    length_s = draw(st.sampled_from([60, 3_600, 3_660, DAY_S, DAY_S, DAY_S + 3_600, 2 * DAY_S, 4 * DAY_S]))
    end = min(start + length_s + draw(st.sampled_from([0, 0, 0, 0, 1])), END)
    return Question(kind, start, end, draw(st.sampled_from(sorted(SPANS_S))), **draw(narrowings(kind)))


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True))
    days_s = [FIRST + number * DAY_S for number in range(DAYS)]
    found = [draw(any_event(kinds, days_s)) for _ in range(draw(st.integers(5, 60)))]
    for number, event in enumerate(found):
        event["id"] = f"only-{number}"
        if draw(st.integers(0, 5)) == 0:
            event["cost"] = {"value": draw(st.sampled_from(["0.5", "1.000000000000000001"])), "currency": "usd"}
    return [event for event in untied(found) if FIRST <= event["timestamp"] < END]


@dataclass
class Bill:
    """A question about costs, its answer while everything was there, and the days it is about."""

    query: Query
    rows: list[CostRow]
    used_days: set[int]

    def assert_same(self, store: DuckStore) -> None:
        query = self.query
        names = {*query.group_by} - {"line_item"}
        found = unless_lost(lambda: store.costs(query))
        lost = is_lost(query.start_s, query.end_s, query.width_s, names, store.kept, self.used_days)
        assert (found is None) == lost, f"{query} {store.kept}"
        assert found is None or found == self.rows


@st.composite
def bills(draw: st.DrawFn) -> Query:
    width_s = draw(st.sampled_from([60, 3_600, DAY_S]))
    start = FIRST + draw(st.integers(0, DAYS - 1)) * DAY_S + draw(st.sampled_from([0, 0, 3_600 * 5]))
    end = min(start + draw(st.sampled_from([3_600, DAY_S, 3 * DAY_S])), END)
    names = ["project_id", "user_id", "model", "line_item", "batch"]
    group_by = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    return Query(ORGANIZATION, start - start % width_s, end, width_s, END, tuple(group_by))


def quantities(store: DuckStore, start_s: int) -> dict[tuple[Any, ...], Any]:
    return {
        (row.kind, row.model, row.service_tier, row.batch, row.part.name): row.quantity
        for row in store.unpriced(Query(ORGANIZATION, start_s, END, ALL_S, END))
    }


keeps = st.builds(Keep, *[st.integers(0, DAYS)] * 3)


@exact(20)
@given(
    events=histories(),
    asked=st.lists(questions(), min_size=8, max_size=16),
    queries=st.lists(bills(), min_size=5, max_size=5),
    keep=keeps,
    folds=st.lists(st.booleans(), min_size=10, max_size=10),
)
def test_no_answer_changes_that_can_still_be_given(
    events: list[Event], asked: list[Question], queries: list[Query], keep: Keep, folds: list[bool], prices: PriceBook
) -> None:
    book = Book()
    with opened(prices) as store:
        for number, first in enumerate(range(0, len(events), 7)):
            part = events[first : first + 7]
            assert post(store, part) == sum(book.post(event) == "accepted" for event in part)
            if folds[number]:
                store.fold()
        flowed = [
            event for event in events if normalise(event) and (event["kind"] != "vector_stores" or "cost" in event)
        ]
        used_days = {int(event["timestamp"]) // DAY_S for event in flowed}
        known = [Bill(query, store.costs(query), used_days) for query in queries]
        missing = quantities(store, FIRST)
        while store.expire(keep, END) is not None:
            for question in asked[:3]:
                assert_answers(store, book, question)
            store.fold()
        store.compact(1, merges_max=100)
        for question in asked:
            assert_answers(store, book, question)
        for bill in known:
            bill.assert_same(store)
        assert quantities(store, FIRST) == missing
        since = max(store.kept.events_s, FIRST)
        assert store.rebuild(since, END, None) == len(store.days(ORGANIZATION, since, END))
        # What comes too late is refused, all else is counted once, and deleted in its turn.
        assert post(store, events) == 0
        late = [event | {"id": f"late-{event['id']}"} for event in events]
        in_time = [event for event in late if event["timestamp"] >= store.kept.events_s]
        assert post(store, late) == sum(book.post(event) == "accepted" for event in in_time)
        store.fold()
        expire(store, Keep(*(days and max(1, days - 1) for days in keep)))
        for question in asked:
            assert_answers(store, book, question)
        assert store.check(None) == []


def image(number: int, at_s: int, **more: Any) -> Event:
    return {"kind": "images", "id": str(number), "timestamp": at_s, "images": 1, "model": "nobody's", **more}


def test_what_is_gone_stays_gone_whatever_is_set_later(tmp_path: Path) -> None:
    store = DuckStore(tmp_path, MEMORY_BYTES)
    post(store, [image(day, FIRST + day * DAY_S) for day in range(DAYS)])
    store.fold()
    expire(store, Keep(events=2, hours=3))
    kept = store.kept
    assert kept == Kept(END - 2 * DAY_S, 0, END - 3 * DAY_S)
    store.close()
    store = DuckStore(tmp_path, MEMORY_BYTES)
    assert store.kept == kept
    expire(store, Keep(events=5, hours=5))
    expire(store, Keep())
    assert store.kept == kept
    assert store.facts(None).events == 2
    store.close()


def test_a_clock_that_is_wrong_deletes_nothing() -> None:
    """Neither one that is years ahead nor one before all events."""
    with opened() as store:
        post(store, [image(day, FIRST + day * DAY_S) for day in range(DAYS)])
        store.fold()
        for now_s in (0, FIRST - DAY_S, END + 3650 * DAY_S):
            expire(store, Keep(DAYS, DAYS, DAYS), now_s)
        assert store.facts(None).events == DAYS


def test_events_that_no_rollup_has_yet_are_not_deleted() -> None:
    question = Question("images", FIRST, END, "1d")
    with opened() as store:
        post(store, [image(0, END - 1), image(1, FIRST)])
        store.fold()
        post(store, [image(2, FIRST)])  # a commit that came just before
        with store._connections.lent() as connection:
            step = retention.next_step(connection, store.kept, Keep(events=1), END)
            assert step
            assert retention.take(connection, step) == 1
        assert store.facts(None).events == 2
        assert [sum(row["images"] for row in bucket["results"]) for bucket in ask(store, question)] == [
            2,
            0,
            0,
            0,
            0,
            1,
        ]
        expire(store, Keep(events=1))
        assert store.facts(None).events == 1
        assert [sum(row["images"] for row in bucket["results"]) for bucket in ask(store, question)] == [
            2,
            0,
            0,
            0,
            0,
            1,
        ]


def test_a_resent_event_that_crosses_its_deletion_is_never_counted_again() -> None:
    with opened() as store:
        events = [image(day, FIRST + day * DAY_S) for day in range(DAYS)]
        post(store, events)
        store.fold()
        before = decode(ndjson(events), END * 1000, 10, store.kept.events_s * 1000)  # it waits in the queue
        expire(store, Keep(events=1))
        with pytest.raises(Unavailable):
            store.append([Batch(ORGANIZATION, before.records)])
        again = decode(ndjson(events), END * 1000, 10, store.kept.events_s * 1000)
        assert [rejected.index for rejected in again.rejected] == [0, 1, 2, 3, 4]
        assert "2025-03-06T00:00:00Z" in again.rejected[0].faults[0].message
        (outcome,) = store.append([Batch(ORGANIZATION, again.records)])
        assert (outcome.accepted.total(), outcome.duplicates.total()) == (0, 1)
        assert (
            sum(row["images"] for bucket in ask(store, Question("images", FIRST, END)) for row in bucket["results"])
            == 6
        )


def test_questions_asked_while_it_deletes_are_answered_whole_or_refused() -> None:
    days = 60
    end = FIRST + days * DAY_S
    with opened() as store:
        post(store, [image(number, FIRST + number * 3_600) for number in range(24 * days)], end)
        store.fold()
        store.compact(1, merges_max=1000)
        wrong: list[int] = []
        is_done = threading.Event()

        def ask_on() -> None:
            day_s = FIRST
            while not is_done.is_set():
                query = Query(ORGANIZATION, day_s, day_s + DAY_S, 3_600, end)
                rows = unless_lost(lambda query=query: store.usage(TABLE["images"], query))  # type: ignore[misc]
                if rows is None:
                    day_s += DAY_S
                elif len(rows) != 24:
                    wrong.append(len(rows))

        threads = [threading.Thread(target=ask_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        expire(store, Keep(1, 1, 1), end - 1)
        is_done.set()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_old_events_of_a_large_body_are_refused_one_by_one() -> None:
    with opened() as store:
        post(store, [image(0, END - 1), image(1, FIRST)])
        store.fold()
        expire(store, Keep(events=1))
        events = [image(number, END - 1 if number % 2 else FIRST) for number in range(10, 500)]
        found = decode(ndjson(events), END * 1000, 1000, store.kept.events_s * 1000)
        assert list(found.indexes) == list(range(1, 490, 2))
        assert [rejected.index for rejected in found.rejected] == list(range(0, 490, 2))


def test_what_a_store_holds_is_known_however_long_ago_it_was_reported() -> None:
    report = {"kind": "vector_stores", "id": "1", "timestamp": FIRST, "vector_store_id": "vs", "usage_bytes": 1000}
    with opened() as store:
        post(store, [report, image(1, END - 1)])
        store.fold()
        expire(store, Keep(1, 1, 1))
        assert store.facts(None).events == 1
        for width in WIDTHS_S:
            data = ask(store, Question("vector_stores", FIRST + 3 * DAY_S + 60, FIRST + 3 * DAY_S + 3_660, width))
            assert {row["usage_bytes"] for bucket in data for row in bucket["results"]} == {1000}


def test_space_of_what_is_deleted_is_used_again(tmp_path: Path) -> None:
    sizes = []
    rng = random.Random(1)
    store = DuckStore(tmp_path, MEMORY_BYTES)
    for day in range(12):
        first_s = FIRST + day * DAY_S
        events = [
            image(number, first_s + int(rng.random() * DAY_S), id=rng.randbytes(12).hex()) for number in range(20_000)
        ]
        post(store, events, first_s + DAY_S)
        store.fold()
        expire(store, Keep(1, 1, 1), first_s + DAY_S - 1)
        store._checkpoint()
        sizes.append((tmp_path / FILE_NAME).stat().st_size)
    store.close()
    assert sizes[-1] <= 1.2 * sizes[4], sizes


# ------------------------------------------------------------------------------------------------- the running server


TODAY = int(time.time()) // DAY_S * DAY_S
OLDEST = TODAY - 9 * DAY_S
PATH = "/v1/organization"


def history(number: int = 400) -> list[Event]:
    rng = random.Random(7)
    return [
        image(index, OLDEST + int(rng.random() * 9 * DAY_S), user_id=rng.choice(["a", "b"])) for index in range(number)
    ]


@contextmanager
def served(data: Path, *args: str) -> Iterator[httpx.Client]:
    """A client of a server on a directory."""
    server = Server.start(data, args=args)
    try:
        with server.http() as api:
            yield api
    finally:
        assert server.stop() == 0


def daily(api: httpx.Client) -> bytes:
    asked = {"start_time": OLDEST, "end_time": TODAY, "group_by": "user_id", "limit": 31}
    answer = api.get(f"{PATH}/usage/images", params=asked)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.content


def kept(api: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = api.get(f"{PATH}/usage/check").json()["kept"]
    return found


def wait_until(api: httpx.Client, **expected: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := kept(api)) != {"events_s": 0, "minutes_s": 0, "hours_s": 0} | expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@dataclass
class Aged:
    """A server that has deleted events and minutes after three days and hours after five."""

    data: Path
    api: httpx.Client
    before: bytes
    """What it answered by day when everything was there."""


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aged]:
    data = tmp_path_factory.mktemp("aged")
    with served(data) as api:
        assert api.post(EVENTS, content=ndjson(history())).json()["accepted"] == 400
        before = daily(api)
    with served(data, "--keep-events-days", "3", "--keep-minutes-days", "3", "--keep-hours-days", "5") as api:
        days_s = TODAY - 3 * DAY_S
        wait_until(api, events_s=days_s, minutes_s=days_s, hours_s=days_s - 2 * DAY_S)
        yield Aged(data, api, before)


def refusal(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "not_kept"
    return str(answer.json()["error"]["message"])


def test_days_answer_as_before_and_what_is_finer_says_what_is_kept(aged: Aged) -> None:
    api, before = aged.api, aged.before
    assert daily(api) == before
    said = refusal(api.get(f"{PATH}/usage/images", params={"start_time": OLDEST, "bucket_width": "1h"}))
    for part in ("single events from 20", "sums by hour from 20", "sums by day of all time", "begin later"):
        assert part in said
    recent = kept(api)["hours_s"]
    answer = api.get(f"{PATH}/usage/images", params={"start_time": recent, "bucket_width": "1h"})
    assert answer.status_code == 200
    refusal(api.get(f"{PATH}/costs", params={"start_time": OLDEST, "bucket_width": "1h"}))
    assert api.get(f"{PATH}/costs", params={"start_time": OLDEST}).status_code == 200


def test_a_resent_event_is_recognised_or_refused_but_never_counted_again(aged: Aged) -> None:
    api, before = aged.api, aged.before
    since = kept(api)["events_s"]
    old = sum(event["timestamp"] < since for event in history())
    receipt = api.post(EVENTS, content=ndjson(history())).json()
    assert (receipt["accepted"], receipt["rejected"], receipt["duplicates"]) == (0, old, 400 - old)
    assert 0 < old < 400
    assert {fault["field"] for fault in receipt["faults"]} == {"timestamp"}
    assert {fault["quarantine_id"] for fault in receipt["faults"]} == {None}, "there is nothing to mend"
    answer = api.post(EVENTS, json=image(1000, OLDEST))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_event")
    assert api.get(f"{PATH}/usage/quarantine").json()["data"] == []
    assert daily(api) == before


def test_what_needs_the_events_is_refused_and_harms_nothing(aged: Aged) -> None:
    api, before = aged.api, aged.before
    since = kept(api)["events_s"]
    window = {"start_time": OLDEST, "end_time": TODAY}
    assert "stays as it is" in refusal(api.post(f"{PATH}/usage/rebuild", json=window))
    assert "keeps its prices" in refusal(api.post(f"{PATH}/costs/rerate", json=window))
    assert "single events are kept" in refusal(api.get(f"{PATH}/usage/export", params=window))
    refusal(api.get(f"{PATH}/costs/export", params={**window, "bucket_width": "1h"}))
    assert daily(api) == before
    for path in ("usage/rebuild", "costs/rerate"):
        assert api.post(f"{PATH}/{path}", json={**window, "start_time": since}).status_code == 200
    lines = api.get(f"{PATH}/usage/export", params={**window, "start_time": since}).text.splitlines()
    assert len(lines) == 1 + sum(event["timestamp"] >= since for event in history())
    assert api.get(f"{PATH}/costs/export", params=window).status_code == 200
    assert daily(api) == before


def test_what_has_no_price_is_told_of_all_time(aged: Aged) -> None:
    api = aged.api
    (entry,) = api.get(f"{PATH}/costs/unpriced").json()["data"]
    assert (entry["quantity"], entry["events"], entry["since"]) == (400, None, OLDEST)
    since = kept(api)["events_s"]
    (entry,) = api.get(f"{PATH}/costs/unpriced", params={"start_time": since}).json()["data"]
    assert entry["events"] == entry["quantity"] == sum(event["timestamp"] >= since for event in history())
    told = run("costs", "unpriced", "--data", aged.data)
    assert " 400 " in told


def test_doctor_is_content(aged: Aged) -> None:
    api = aged.api
    assert api.get(f"{PATH}/usage/check").json()["ok"]
    assert "rollups equal raw events" in run("doctor", "--data", aged.data)


def test_quarantined_events_that_grow_too_old_stay_and_say_so(tmp_path: Path) -> None:
    with served(tmp_path) as api:
        api.post(EVENTS, json=image(1, OLDEST, colour="red"))
        api.post(EVENTS, json=image(2, TODAY - 1))
        (entry,) = api.get(f"{PATH}/usage/quarantine").json()["data"]
    with served(tmp_path, "--keep-events-days", "1") as api:
        wait_until(api, events_s=TODAY - DAY_S)
        receipt = api.post(f"{PATH}/usage/quarantine/{entry['id']}/replay", json=image(1, OLDEST)).json()
        assert (receipt["accepted"], receipt["rejected"]) == (0, 1)
        assert "deleted for their age" in receipt["faults"][0]["message"]
        assert len(api.get(f"{PATH}/usage/quarantine").json()["data"]) == 1


def test_kills_while_it_deletes_leave_whole_days(tmp_path: Path) -> None:
    rng = random.Random(3)
    with served(tmp_path) as api:
        api.post(EVENTS, content=ndjson(history(3000))).raise_for_status()
        before = daily(api)
    marks: list[list[int]] = []
    for _ in range(8):
        server = Server.start(
            tmp_path, args=["--keep-events-days", "1", "--keep-minutes-days", "2", "--keep-hours-days", "3"]
        )
        time.sleep(rng.random())
        server.kill()
        store = DuckStore(tmp_path, MEMORY_BYTES)
        marks.append(list(store.kept))
        assert store.check(None) == []
        store.close()
    assert all(earlier <= later for pair in pairwise(marks) for earlier, later in zip(*pair, strict=True))
    assert len({tuple(mark) for mark in marks}) > 2, "no kill came in between"
    with served(tmp_path) as api:
        assert daily(api) == before
        assert api.get(f"{PATH}/usage/check").json()["ok"]
