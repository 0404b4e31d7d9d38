"""A server that is killed while it does everything it can do, and what must be true of it afterwards.

Every request of the load names a project of its own: an answer by project tells which requests are there. Every round
has an organization of its own, so that what is asked after it is small; all rounds share one store.
"""

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import httpx

from tests.costs_model import CostBook, CostQuestion
from tests.model import KINDS, LIMITS_MAX, Book, Event, Question
from tests.support import COMMAND, Server
from tests.test_exactness import ask, assert_same

DAY_S = 86_400
UNTIL_S = int(time.time()) // DAY_S * DAY_S
SINCE_S = UNTIL_S - 7 * DAY_S
BODY_EVENTS_MAX = 50_000  # half of what one request may hold
REQUESTS_MAX = 3_000  # of one thread; more than it gets to
PAUSE_S = 0.003
"""Before each request of one thread, times ten if it is a bulky one: what is sent has to be checked as well."""
AIM_S_MAX = 20
"""How long a round waits for what it is to end in the middle of."""
INTO_S = (0, 0.001, 0.005, 0.02, 0.05)
"""How far into what it is aimed at a kill comes, if that lasts so long."""
LOOK_S = 0.001
READY_S_MAX = 30
"""Two seconds are promised; a busy machine gets more."""
START_S_USUAL = 1
STOP_S_USUAL = 0.3
BACKUP_S_MAX = 60
JOIN_S_MAX = 90
EVENTS = "/v1/organization/usage/events"
COSTS = "/v1/organization/costs"
ASKED_FOR = ("single post", "bulk post", "question", "rebuild", "re-rating", "dry re-rating")
BACKGROUND = ("folding", "compacting", "checkpoint")
"""What the server does by itself, and tells in its log."""
OPERATIONS = (*ASKED_FOR, *BACKGROUND, "backup", "start", "stop")
"""What a kill must have come in the middle of, now and then."""

PRICES = """\
model,kind,counted,unit,price
m,,input,1M tokens,{0}.25
m,,cached_input,1M tokens,{0}
m,,output,1M tokens,{0}0
m,images,images,image,0.0{0}
m,audio_speeches,characters,1M characters,{0}5
m,audio_transcriptions,seconds,minute,0.00{0}2
,code_interpreter_sessions,sessions,session,0.0{0}
,file_search_calls,searches,1K calls,{0}.5
,web_search_calls,searches,1K calls,{0}0
,vector_stores,storage,GiB-hour,0.00{0}
"""
USUAL, OTHER = PRICES.format(1), PRICES.format(2)
"""What the server charges, and what it is told to charge instead for days that are past, again and again."""

BY_LINE_ITEM = CostQuestion(SINCE_S, UNTIL_S, "1d", ("line_item",))

Amounts = dict[tuple[str, int, str], int]
"""Project, day and line item -> 10^-18 dollars."""


@dataclass
class Request:
    """Events that are sent together, perhaps more than once."""

    project_id: str
    events: list[Event]
    acknowledged_s: float | None = None
    """When, by the clock of this process."""
    unanswered: int = 0
    accepted: int = 0
    """How many of them were counted as new, over all answers: never one twice."""

    def cost(self, prices: str) -> Amounts:
        """What they cost by a price file. What is in one project has nothing to do with what is in another."""
        if prices not in self._costs:
            book = CostBook(prices)
            assert {book.post(event) for event in self.events} == {"accepted"}
            self._costs[prices] = {
                (self.project_id, start_s, dict(dimensions)["line_item"]): amount
                for start_s, _, results in book.answer(BY_LINE_ITEM, UNTIL_S)
                for dimensions, amount, _, _ in results
            }
        return self._costs[prices]

    def __post_init__(self) -> None:
        self._costs: dict[str, Amounts] = {}


@dataclass(frozen=True)
class Rerating:
    """Days charged anew; `ended_s` is None if it was not answered."""

    began_s: float
    ended_s: float | None
    prices: str


class Wrong(AssertionError):
    """An answer that must not be."""


@dataclass
class Load:
    """What several threads send and ask until the server is gone, or it is enough."""

    server: Server
    key: str
    rng: random.Random
    maintenance: Sequence[str] = ("rebuild", "re-rating", "dry re-rating")
    """What is done to days meanwhile, again and again; what the server does by itself has to wait for that."""
    requests: list[Request] = field(default_factory=list)
    reratings: list[Rerating] = field(default_factory=list)
    cut_off: Counter[str] = field(default_factory=Counter)
    """What was under way when the server ended."""
    sent: int = 0
    questions: int = 0

    def __post_init__(self) -> None:
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._wrong: list[BaseException] = []

    def run(self, meanwhile: Callable[[], object]) -> None:
        """Send in bulk, singly, ask and maintain, for as long as `meanwhile` takes."""
        lanes: list[Callable[[httpx.Client, random.Random, str], bool]] = [
            self._send_many,
            self._send_many,
            self._send_one,
            self._send_one,
            self._ask,
            *([self._maintain] if self.maintenance else []),
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(act, self.rng.getrandbits(32), f"{number}"))
            for number, act in enumerate(lanes)
        ]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
        finally:
            self._enough.set()
        for thread in threads:
            thread.join(JOIN_S_MAX)
            assert not thread.is_alive(), f"a request neither answered nor broken off for {JOIN_S_MAX} s"
        if self._wrong:
            raise self._wrong[0]

    @property
    def acknowledged(self) -> int:
        """How many events were acknowledged, each counted once."""
        return sum(len(request.events) for request in self.requests if request.acknowledged_s is not None)

    def is_under_way(self, name: str) -> bool:
        """Whether something that was asked for is not answered yet."""
        return self._under_way[name] > 0

    def _repeat(self, act: Callable[[httpx.Client, random.Random, str], bool], seed: int, name: str) -> None:
        rng = random.Random(seed)
        try:
            with self.server.http(self.key) as api:
                for number in range(REQUESTS_MAX):
                    if self._enough.is_set() or not act(api, rng, f"{name}-{number}"):
                        return
        except BaseException as error:  # told by the thread that waits for this one
            self._wrong.append(error)
            raise

    @contextmanager
    def _doing(self, name: str) -> Iterator[None]:
        """Count what is under way; what a connection that breaks takes with it was so when the server ended."""
        with self._lock:
            self._under_way[name] += 1
        try:
            yield
        except httpx.TransportError:
            with self._lock:
                self.cut_off[name] += 1
            raise
        finally:
            with self._lock:
                self._under_way[name] -= 1

    def _send_one(self, api: httpx.Client, rng: random.Random, name: str) -> bool:
        return self._send("single post", api, rng, name, 1)

    def _send_many(self, api: httpx.Client, rng: random.Random, name: str) -> bool:
        return self._send("bulk post", api, rng, name, rng.choice([10, 50, 200]))

    def _send(self, what: str, api: httpx.Client, rng: random.Random, name: str, count: int) -> bool:
        time.sleep(PAUSE_S if count == 1 else 10 * PAUSE_S)
        requests = list(self.requests)
        again = [rng.choice(requests) for _ in range(rng.choice([1, 1, 3]))] if requests and rng.random() < 0.2 else []
        fresh = []
        if not again or rng.random() < 0.5:
            fresh = [Request(name, [made(rng, name, index) for index in range(count)])]
            self.requests += fresh
        return self._post(what, api, [*fresh, *{request.project_id: request for request in again}.values()])

    def _post(self, what: str, api: httpx.Client, requests: Sequence[Request]) -> bool:
        """Send requests in one body; the receipt must be exact as far as it can be known."""
        body = [event for request in requests for event in request.events]
        new = [request for request in requests if request.acknowledged_s is None]
        stored = len(body) - sum(len(request.events) for request in new)
        with self._lock:
            self.sent += len(body)
        try:
            with self._doing(what):
                answer = api.post(EVENTS, content=ndjson(body))
        except httpx.TransportError:
            for request in requests:
                request.unanswered += 1
            return False
        if answer.status_code in {429, 503}:  # busy, or about to stop: refused, not acknowledged
            return answer.status_code == 429
        if answer.status_code != 200:
            raise Wrong(f"{answer.status_code} {answer.text[:1000]}")
        receipt = answer.json()
        if (
            receipt["conflicts"]
            or receipt["rejected"]
            or receipt["accepted"] + receipt["duplicates"] != len(body)
            or receipt["duplicates"] < stored
        ):
            raise Wrong(f"{len(body)} events, {stored} of them acknowledged before, but {answer.text[:1000]}")
        with self._lock:
            if len(new) == 1:  # of several it cannot be known which were new
                new[0].accepted += receipt["accepted"]
            for request in new:
                request.acknowledged_s = request.acknowledged_s or time.monotonic()
        return True

    def _ask(self, api: httpx.Client, rng: random.Random, _: str) -> bool:
        """Ask what was used by project: what is acknowledged by now is there, whole."""
        kind = rng.choice(sorted(set(KINDS) - {"vector_stores"}))
        measure = KINDS[kind].measures[0]
        expected = {
            request.project_id: of_kind
            for request in list(self.requests)
            if request.acknowledged_s is not None
            and (of_kind := [event for event in request.events if event["kind"] == kind])
        }
        width = rng.choice(["1d", "1d", "1h"])
        window = f"start_time={SINCE_S}&end_time={UNTIL_S}&bucket_width={width}&limit={LIMITS_MAX[width]}"
        try:
            with self._doing("question"):
                answer = api.get(f"/v1/organization/usage/{kind}?{window}&group_by=project_id")
                cost = api.get(f"{COSTS}?{window}&group_by=project_id")
        except httpx.TransportError:
            return False
        if 503 in {answer.status_code, cost.status_code}:
            return False
        found: Counter[str] = Counter()
        for bucket in answer.raise_for_status().json()["data"]:
            for row in bucket["results"]:
                found[row["project_id"]] += row[measure]
        for project_id, events in expected.items():
            if found[project_id] != sum(event.get(measure, 1) for event in events):
                raise Wrong(f"{kind} of {project_id}: {found[project_id]}, though acknowledged before it was asked for")
        cost.raise_for_status()
        self.questions += 2
        return True

    def _maintain(self, api: httpx.Client, rng: random.Random, _: str) -> bool:
        """Rebuild, charge anew by these prices or those, or try what that would change."""
        time.sleep(0.01)
        window = {"start_time": SINCE_S, "end_time": UNTIL_S}
        prices = rng.choice([USUAL, OTHER])
        what = rng.choice(self.maintenance)
        began_s = time.monotonic()
        try:
            with self._doing(what):
                if what == "rebuild":
                    answer = api.post("/v1/organization/usage/rebuild", json=window)
                else:
                    dry = what == "dry re-rating"
                    answer = api.post(f"{COSTS}/rerate", json={**window, "prices": prices, "dry_run": dry})
        except httpx.TransportError:
            if what == "re-rating":
                self.reratings.append(Rerating(began_s, None, prices))
            return False
        if answer.status_code == 503:
            if what == "re-rating":
                self.reratings.append(Rerating(began_s, None, prices))
            return False
        if answer.status_code != 200:
            raise Wrong(f"{answer.status_code} {answer.text[:1000]}")
        if what == "re-rating":
            self.reratings.append(Rerating(began_s, time.monotonic(), prices))
        return True


def priced(directory: Path) -> list[str]:
    """Arguments of a server that charges the usual prices."""
    file = directory / "prices.csv"
    file.write_text(USUAL)
    return ["--price-file", str(file)]


def made(rng: random.Random, project_id: str, index: int) -> Event:
    """An event of any kind at any time of the week before today, rather at noon; some have a cost of their own."""
    kind = rng.choice(sorted(KINDS))
    instant_ms = rng.randrange(SINCE_S * 1000, UNTIL_S * 1000)
    if rng.random() < 0.9:  # so that cells have company, and days become worth compacting
        instant_ms += 12 * 3_600_000 - instant_ms % (DAY_S * 1000) + rng.randrange(60_000)
    event: Event = {
        "kind": kind,
        "id": f"{project_id}-{index}",
        "timestamp": instant_ms / 1000,
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
    if kind not in {"vector_stores", "code_interpreter_sessions", "file_search_calls"}:
        event["model"] = "m"
    if rng.randrange(20) == 0:
        event["cost"] = {"value": rng.choice([0.25, 1, 0.000001]), "currency": "usd"}
    return event


def ndjson(events: Sequence[Event]) -> bytes:
    return "\n".join(map(json.dumps, events)).encode()


# ------------------------------------------------------------------------------------------- what must be there


def booked(requests: Sequence[Request]) -> Book:
    book = Book()
    for request in requests:
        assert {book.post(without_cost(event)) for event in request.events} == {"accepted"}
    return book


def without_cost(event: Event) -> Event:
    return {name: value for name, value in event.items() if name != "cost"}


def charged(requests: Sequence[Request], prices: str) -> Amounts:
    """What requests cost by a price file."""
    return {place: amount for request in requests for place, amount in request.cost(prices).items()}


def charged_there(api: httpx.Client) -> Amounts:
    query = f"start_time={SINCE_S}&end_time={UNTIL_S}&limit=31&group_by=project_id,line_item"
    page = json.loads(api.get(f"{COSTS}?{query}").raise_for_status().text, parse_float=str, parse_int=str)
    return {
        (row["project_id"], int(bucket["start_time"]), row["line_item"]): atto(row["amount"]["value"])
        for bucket in page["data"]
        for row in bucket["results"]
    }


def atto(dollars: str) -> int:
    whole, _, fraction = dollars.partition(".")
    return int(whole + fraction.ljust(18, "0"))


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


def assert_survived(api: httpx.Client, load: Load, rng: random.Random) -> int:
    """What was acknowledged is there once, the rest whole or not at all, and all can be sent again.

    Returns:
        How many events were there.
    """
    there = projects_there(api)
    acknowledged = {request.project_id for request in load.requests if request.acknowledged_s is not None}
    assert acknowledged - there == set(), "acknowledged, and lost"
    assert there - {request.project_id for request in load.requests} == set(), "never sent"
    held = [request for request in load.requests if request.project_id in there]
    assert_holds(api, held, rng)
    assert_charged(api, held, load.reratings)
    for request in load.requests:
        assert request.accepted <= len(request.events), f"{request.project_id} counted twice"

    open_ends = [request for request in load.requests if request.acknowledged_s is None]
    absent = sum(len(request.events) for request in open_ends if request.project_id not in there)
    assert resent(api, open_ends) == absent
    assert resent(api, load.requests) == 0
    assert_holds(api, load.requests, rng)
    window = {"start_time": SINCE_S, "end_time": UNTIL_S}
    api.post(f"{COSTS}/rerate", json=window).raise_for_status()
    assert charged_there(api) == charged(load.requests, USUAL)
    verdict = api.get("/v1/organization/usage/check").raise_for_status().json()
    assert verdict["ok"] is True, verdict
    return sum(len(request.events) for request in held)


def assert_charged(api: httpx.Client, requests: Sequence[Request], reratings: Sequence[Rerating]) -> None:
    """Everything costs what it did at first or what it was charged anew by; what was charged anew last stays so."""
    by_prices = {prices: charged(requests, prices) for prices in (USUAL, OTHER)}
    there = charged_there(api)
    assert there.keys() == by_prices[USUAL].keys()
    last = reratings[-1] if reratings else None
    settled = set()
    if last and last.ended_s is not None:
        settled = {
            request.project_id for request in requests if (request.acknowledged_s or last.began_s) < last.began_s
        }
    for place, found in there.items():
        allowed = [last.prices] if last and place[0] in settled else by_prices
        assert found in {by_prices[prices][place] for prices in allowed}, (place, found, last)


def resent(api: httpx.Client, requests: Sequence[Request]) -> int:
    """Send everything again; how much of it was new. None of it may contradict."""
    events = [event for request in requests for event in request.events]
    accepted = 0
    for first in range(0, len(events), BODY_EVENTS_MAX):
        body = events[first : first + BODY_EVENTS_MAX]
        receipt = api.post(EVENTS, content=ndjson(body)).raise_for_status().json()
        assert receipt["accepted"] + receipt["duplicates"] == len(body), receipt
        assert receipt["conflicts"] == receipt["rejected"] == 0, receipt
        accepted += receipt["accepted"]
    return accepted


# ----------------------------------------------------------------------------------------------------- the kills


class Background:
    """What a server does by itself at this moment, as its log tells."""

    def __init__(self, log: Path) -> None:
        self._file = log.open("rb")
        self._rest = b""
        self._begun: set[str] = set()

    def look(self) -> set[str]:
        """Read on; what has begun and not ended."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            if b" begins" in line or b" ends" in line:
                what, _, state = json.loads(line)["event"].rpartition(" ")
                if state == "begins":
                    self._begun.add(what)
                else:
                    self._begun.discard(what)
        return self._begun

    def close(self) -> None:
        """Let go of the log."""
        self._file.close()


@dataclass(frozen=True)
class Survivor:
    """An organization of an earlier round, and what it was like when that was over."""

    key: str
    answers: list[tuple[Question, list[Any]]]
    charged: Amounts


@dataclass
class Kills:
    """Rounds of load that end in a kill, each aimed at something else, all on one directory.

    Attributes:
        hits: what was under way at kills, and at how many of them.
        sent: events of all bodies, also those sent again.
        acknowledged: events, each once, that were acknowledged before the kill of their round.
        found: events that were there after it.
        ready_s: how long the server took to start again, each time.
    """

    directory: Path
    rng: random.Random
    hits: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    sent: int = 0
    acknowledged: int = 0
    found: int = 0
    questions: int = 0
    ready_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._data = self.directory / "data"
        self._log = self._data / "server.log"
        self._prices = priced(self.directory)
        self._rounds = 0
        self._survivors: list[Survivor] = []
        self._server = self._started()

    def run(self, rounds: int, seconds: float) -> None:
        """Kill that many times, or fewer if the time is up before."""
        until_s = time.monotonic() + seconds
        try:
            while self._rounds < rounds and time.monotonic() < until_s:
                self._round(OPERATIONS[self._rounds % len(OPERATIONS)])
                self._rounds += 1
            self._assert_survivors()
        finally:
            self._server.kill()

    def told(self) -> str:
        """What happened, in a few lines."""
        hits = ", ".join(f"{name} {self.hits[name]}" for name in OPERATIONS)
        return (
            f"{self.kills} kills; under way at them: {hits}\n"
            f"{self.sent} events sent, {self.acknowledged} of them acknowledged before a kill, {self.found} found "
            f"after it; {self.questions} questions answered\n"
            f"ready again after: median {median(self.ready_s):.2f} s, longest {max(self.ready_s):.2f} s"
        )

    def _started(self) -> Server:
        self._log.unlink(missing_ok=True)
        return Server.start(self._data, args=[*self._prices, "--compact-every-s", "1", "--log-level", "debug"])

    def _round(self, aim: str) -> None:
        load = Load(self._server, self._server.key(f"org-{self._rounds}-{uuid4().hex}"), self.rng)
        if aim in load.maintenance:
            load.maintenance = (aim,)
        elif aim in BACKGROUND:
            load.maintenance = ()
        background = Background(self._log)
        load.run(lambda: self._end(load, background, aim))
        self.kills += 1
        self.hits.update({*load.cut_off, *background.look()})
        background.close()
        if aim == "start":
            self._kill_while_it_starts()
        begun_s = time.monotonic()
        self._server = self._started()
        self.ready_s.append(time.monotonic() - begun_s)
        assert self.ready_s[-1] < READY_S_MAX
        with self._server.http(load.key) as api:
            self.found += assert_survived(api, load, self.rng)
            questions = [Question(kind, SINCE_S, UNTIL_S, "1d") for kind in KINDS]
            answers = [(question, ask(api, question)) for question in questions]
            self._survivors.append(Survivor(load.key, answers, charged_there(api)))
        self.sent += load.sent
        self.questions += load.questions
        self.acknowledged += load.acknowledged

    def _assert_survivors(self) -> None:
        """What earlier rounds left is as they left it, after all that came later."""
        for survivor in self._survivors:
            with self._server.http(survivor.key) as api:
                for question, answer in survivor.answers:
                    assert_same(question, ask(api, question), answer)
                assert charged_there(api) == survivor.charged

    # -------------------------------------------------------------------------------------------------- aiming

    def _end(self, load: Load, background: Background, aim: str) -> None:
        """Kill the server in the middle of what is aimed at; if that does not come for long, at any moment."""
        time.sleep(self.rng.uniform(0.2, 1.0))
        if aim == "stop":
            self._server.signal(signal.SIGTERM)
            time.sleep(self.rng.uniform(0, STOP_S_USUAL))
            self.hits["stop"] += self._server.is_running
        elif aim == "backup":
            self._back_up()
            return
        elif aim != "start":
            self._await(lambda: load.is_under_way(aim) or aim in background.look(), lambda: True)
        self._server.kill()

    def _await(self, is_under_way: Callable[[], bool], can_come: Callable[[], bool]) -> None:
        """Return some way into something."""
        deadline_s = time.monotonic() + AIM_S_MAX
        while time.monotonic() < deadline_s and can_come():
            if is_under_way():
                time.sleep(self.rng.choice(INTO_S))
                if is_under_way():
                    return
            time.sleep(LOOK_S)

    def _back_up(self) -> None:
        """Kill the server while it is backed up: the backup is whole, or not there at all."""
        target = self.directory / f"backup-{self._rounds}"
        part = self.directory / f".backup-{self._rounds}.part"
        stored = self.acknowledged
        command = [*COMMAND, "backup", str(target), "--data", str(self._data)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as backing_up:
            self._await(part.is_dir, lambda: backing_up.poll() is None)
            self.hits["backup"] += part.is_dir()
            self._server.kill()
            ended = backing_up.wait(BACKUP_S_MAX)
        assert target.is_dir() == (ended == 0)
        assert not part.exists()
        if ended == 0:
            rows = json.loads((target / "manifest.json").read_text())["rows"]
            assert rows["events"] >= stored
            shutil.rmtree(target)

    def _kill_while_it_starts(self) -> None:
        command = [*COMMAND, "serve", "--data", str(self._data), "--port", "0", *self._prices]
        usual_s = median(self.ready_s) if self.ready_s else START_S_USUAL
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
            time.sleep(usual_s * self.rng.uniform(0.4, 1))
            starting.kill()
        self.kills += 1
        self.hits["start"] += 1
