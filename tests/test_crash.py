"""What was acknowledged is there, exactly once, however the server ended: killed, stopped or locked out.

Every request of the load names a project of its own: an answer by project tells which requests are there.
"""

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from uuid import uuid4

import httpx
import pytest

from tests.model import KINDS, Book, Event, Question
from tests.support import COMMAND, Server
from tests.test_exactness import ask, assert_same

DAY_S = 86_400
UNTIL_S = int(time.time()) // DAY_S * DAY_S
SINCE_S = UNTIL_S - 7 * DAY_S
RUNS = 20
BODY_EVENTS_MAX = 50_000  # half of what one request may hold
REQUESTS_MAX = 3_000  # of one thread; more than a second holds
READY_MAX_S = 10  # two seconds are promised; a busy machine gets more
EVENTS = "/v1/organization/usage/events"


@dataclass
class Request:
    """Events that are sent together, perhaps more than once."""

    project_id: str
    events: list[Event]
    acknowledged: bool = False
    unanswered: int = 0
    accepted: int = 0
    """How many of them were counted as new, over all answers: never one twice."""


@dataclass
class Load:
    """What several threads send until the server is gone, or it is enough."""

    server: Server
    key: str
    requests: list[Request] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _enough: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, meanwhile: Callable[[], object], rng: random.Random) -> None:
        """Send from two threads in bulk and from two singly, for as long as `meanwhile` takes."""
        threads = [
            threading.Thread(target=self._send_all, args=(f"{sizes[-1]}-{lane}", sizes, rng.getrandbits(32)))
            for sizes in ([10, 50, 200], [1])
            for lane in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            time.sleep(rng.uniform(0.2, 1.0))
            meanwhile()
        finally:
            self._enough.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a request neither answered nor broken off for 30 s"
        assert self.wrong == []

    def _send_all(self, name: str, sizes: Sequence[int], seed: int) -> None:
        rng = random.Random(seed)
        with self.server.http(self.key) as api:
            for number in range(REQUESTS_MAX):
                if self.requests and rng.random() < 0.15:
                    request = rng.choice(self.requests)
                else:
                    project_id = f"{name}-{number}"
                    events = [made(rng, project_id, index) for index in range(rng.choice(sizes))]
                    request = Request(project_id, events)
                    self.requests.append(request)
                if not self._send(api, request) or self._enough.is_set():
                    return

    def _send(self, api: httpx.Client, request: Request) -> bool:
        try:
            answer = api.post(EVENTS, content=ndjson(request.events))
        except httpx.TransportError:
            request.unanswered += 1
            return False
        with self._lock:
            if answer.status_code in {429, 503}:  # busy, or about to stop: refused, not acknowledged
                return answer.status_code == 429
            receipt = answer.json()
            if answer.status_code != 200 or receipt["conflicts"] or receipt["rejected"]:
                self.wrong.append(f"{answer.status_code} {answer.text[:1000]}")
                return False
            if receipt["accepted"] + receipt["duplicates"] != len(request.events):
                self.wrong.append(f"{len(request.events)} events, but {answer.text[:1000]}")
            request.acknowledged = True
            request.accepted += receipt["accepted"]
        return True


def made(rng: random.Random, project_id: str, index: int) -> Event:
    """An event of any kind at any time of the week before today."""
    kind = rng.choice(sorted(KINDS))
    event: Event = {
        "kind": kind,
        "id": f"{project_id}-{index}",
        "timestamp": rng.randrange(SINCE_S * 1000, UNTIL_S * 1000) / 1000,
        "project_id": project_id,
        "user_id": rng.choice(["one", "two"]),
    }
    match kind:
        case "completions" | "decisions":
            count = rng.randrange(5_000)
            event |= {"input_tokens": count, "input_cached_tokens": count // 3, "output_tokens": count // 7}
        case "vector_stores":
            event |= {"vector_store_id": f"vs-{project_id}", "usage_bytes": rng.randrange(1, 2**40)}
        case "code_interpreter_sessions" | "file_search_calls" | "web_search_calls":
            pass
        case _:
            event[KINDS[kind].measures[0]] = rng.randrange(1, 5_000)
    return event


def ndjson(events: Sequence[Event]) -> bytes:
    return "\n".join(map(json.dumps, events)).encode()


def booked(requests: Sequence[Request]) -> Book:
    book = Book()
    for request in requests:
        assert {book.post(event) for event in request.events} == {"accepted"}
    return book


def projects_there(api: httpx.Client) -> set[str]:
    days = [ask(api, Question(kind, SINCE_S, UNTIL_S, "1d", ("project_id",))) for kind in KINDS]
    return {row["project_id"] for data in days for bucket in data for row in bucket["results"]}


def assert_holds(api: httpx.Client, requests: Sequence[Request], rng: random.Random) -> None:
    """Exactly these requests are there, each event once, in every view of it."""
    book = booked(requests)
    questions = [Question(kind, SINCE_S, UNTIL_S, "1d", ("project_id",)) for kind in KINDS]
    questions += [Question(kind, SINCE_S, UNTIL_S, "1h") for kind in rng.sample(sorted(KINDS), 2)]
    for question in questions:
        assert_same(question, ask(api, question), book.answer(question, UNTIL_S))


def assert_survived(api: httpx.Client, load: Load, rng: random.Random) -> None:
    """What was acknowledged is there once, the rest whole or not at all, and all can be sent again."""
    there = projects_there(api)
    acknowledged = {request.project_id for request in load.requests if request.acknowledged}
    assert acknowledged - there == set(), "acknowledged, and lost"
    assert there - {request.project_id for request in load.requests} == set(), "never sent"
    assert_holds(api, [request for request in load.requests if request.project_id in there], rng)
    for request in load.requests:
        expected = range(len(request.events) + 1) if request.unanswered else [len(request.events)]
        assert not request.acknowledged or request.accepted in expected, f"{request.project_id} counted twice"

    open_ends = [request for request in load.requests if not request.acknowledged]
    absent = sum(len(request.events) for request in open_ends if request.project_id not in there)
    assert resent(api, open_ends) == absent
    assert resent(api, load.requests) == 0
    assert_holds(api, load.requests, rng)
    verdict = api.get("/v1/organization/usage/check").json()
    assert verdict["ok"] is True, verdict


def resent(api: httpx.Client, requests: Sequence[Request]) -> int:
    """Send everything again; how much of it was new. None of it may contradict."""
    events = [event for request in requests for event in request.events]
    accepted = 0
    for first in range(0, len(events), BODY_EVENTS_MAX):
        body = events[first : first + BODY_EVENTS_MAX]
        receipt = api.post(EVENTS, content=ndjson(body), timeout=60).raise_for_status().json()
        assert receipt["accepted"] + receipt["duplicates"] == len(body), receipt
        assert receipt["conflicts"] == receipt["rejected"] == 0, receipt
        accepted += receipt["accepted"]
    return accepted


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("TALLYBOOK_CRASH_SEED", "20240229"))
    print(f"TALLYBOOK_CRASH_SEED={seed}")
    rng = random.Random(seed)
    ready_s: list[float] = []
    sent = acknowledged = 0
    server = Server.start(tmp_path)
    try:
        for run in range(RUNS):
            load = Load(server, server.key(organization := f"org-{run}-{uuid4().hex}"))
            load.run(server.kill, rng)
            begun_s = time.perf_counter()
            server = Server.start(tmp_path)
            ready_s.append(time.perf_counter() - begun_s)
            assert ready_s[-1] < READY_MAX_S
            with server.http(load.key) as api:
                assert_survived(api, load, rng)
            sent += sum(len(request.events) for request in load.requests)
            acknowledged += sum(len(request.events) for request in load.requests if request.acknowledged)
            assert any(request.acknowledged for request in load.requests), f"no load at all on {organization}"
    finally:
        server.kill()
    print(f"{RUNS} kills, {sent} events sent, {acknowledged} acknowledged before a kill")
    print(f"ready after: median {median(ready_s):.2f} s, longest {max(ready_s):.2f} s")


def test_a_stop_under_load_answers_or_refuses_and_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(3):
        server = Server.start(tmp_path)
        load = Load(server, server.key(f"org-{uuid4().hex}"))
        codes: list[int] = []
        load.run(lambda: codes.append(server.stop()), rng)  # noqa: B023  called before the next round
        assert codes == [0]
        server = Server.start(tmp_path)
        try:
            with server.http(load.key) as api:
                assert_survived(api, load, rng)
        finally:
            assert server.stop() == 0


def test_rebuilding_beside_the_load_changes_no_answer(tmp_path: Path) -> None:
    """Neither of what was there before, in any instant of it, nor of what comes in meanwhile."""
    rng = random.Random(2)
    server = Server.start(tmp_path)
    try:
        load = Load(server, server.key(f"org-{uuid4().hex}"))
        before = Request("before", [made(rng, "before", index) for index in range(500)])
        kinds = sorted(set(KINDS) - {"vector_stores"})
        questions = [Question(kind, SINCE_S, UNTIL_S, filters={"project_ids": ["before"]}) for kind in kinds]
        expected = [booked([before]).answer(question, UNTIL_S) for question in questions]

        def rebuild() -> None:
            body = {"start_time": SINCE_S, "end_time": UNTIL_S}
            with server.http(load.key) as api:
                for _ in range(5):
                    api.post("/v1/organization/usage/rebuild", json=body, timeout=60).raise_for_status()
                    verdict = api.get("/v1/organization/usage/check", timeout=60).json()
                    assert verdict["ok"] is True, verdict

        def ask_meanwhile() -> None:
            with ThreadPoolExecutor() as pool, server.http(load.key) as api:
                rebuilt = pool.submit(rebuild)
                for _ in range(1_000):
                    for question, answer in zip(questions, expected, strict=True):
                        assert_same(question, ask(api, question), answer)
                    if rebuilt.done():
                        return rebuilt.result()
                raise AssertionError("five rebuilds outlasted a thousand rounds of questions")

        with server.http(load.key) as api:
            assert resent(api, [before]) == len(before.events)
            load.run(ask_meanwhile, rng)
            load.requests.append(before)
            assert_holds(api, load.requests, rng)
    finally:
        assert server.stop() == 0


def test_a_directory_has_one_server_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    event = {"kind": "images", "id": "last words", "timestamp": SINCE_S, "images": 3}
    server = Server.start(tmp_path)
    try:
        command = [*COMMAND, "serve", "--data", str(tmp_path), "--port", "0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode != 0
        assert str(tmp_path) in second.stderr, second.stderr
        assert "Traceback" not in second.stderr
        with server.http() as api:
            assert api.get("/readyz").status_code == 200, "the first is unharmed"
            assert api.post(EVENTS, json=event).json()["accepted"] == 1
        server.kill()  # at once: acknowledged is committed
        server = Server.start(tmp_path)
        with server.http() as api:
            (day,) = ask(api, Question("images", SINCE_S, SINCE_S + DAY_S))
            assert [row["images"] for row in day["results"]] == [3]
            assert api.post(EVENTS, json=event).json()["duplicates"] == 1
    finally:
        server.kill()
