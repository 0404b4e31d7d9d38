"""Many small requests over many connections, by a process of its own.

Reads a `Load` as JSON from standard input (a key does not belong on a command line), writes `Answers` to standard
output. A client in the server's or the benchmark's process would measure itself.

A load is closed or paced. Closed: each connection asks again as soon as it is answered, which finds the most a server
can do. Paced: requests are due at given instants whether or not earlier ones are answered, and each is timed from the
instant it was due, so that what waits behind a slow answer counts as waiting.
"""

import asyncio
import secrets
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, cycle
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from benchmarks import events
from benchmarks.times import Times
from tallybook.timegrid import floor_s

POSTS_PATH: Final = "/v1/organization/usage/events"
CONNECT_S_MAX: Final = 10
GRACE_S: Final = 10
"""How long answers may be late before they count as none."""
EXIT_S_MAX: Final = 60
ERRORS_KEPT: Final = 5
TICK_S: Final = 0.001
"""What the event loop's clock can tell apart."""
TEMPLATES: Final = 2_000
ID_BYTES: Final = 12
TIME_DIGITS: Final = 14
"""Unix seconds with three decimals, until the year 2286."""


class Page(msgspec.Struct, frozen=True):
    """Something to GET; with a width, the latest so many buckets of that width, the one in progress included."""

    name: str
    path: str
    width_s: int = 0
    buckets: int = 0

    def at(self, now_s: int) -> str:
        """The path at an instant."""
        if not self.width_s:
            return self.path
        return f"{self.path}&start_time={floor_s(now_s, self.width_s) - (self.buckets - 1) * self.width_s}"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask of whom, over how many connections, how often, for how long."""

    url: str
    key: str
    connections: int
    seconds: float
    pages: tuple[Page, ...] = ()
    """Asked by turns. Without any, single events are posted."""
    every_s: float | None = None
    """Paced: requests are due at each of the offsets in every such period. None: closed."""
    offsets_s: tuple[float, ...] = (0.0,)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: milliseconds of each good answer by page (posts have one name), and what went wrong."""

    ms: dict[str, list[float]]
    elapsed_s: float
    failed: int = 0
    failures: tuple[str, ...] = ()
    """The first few."""

    @property
    def times(self) -> Times:
        """Of all pages together.

        Raises:
            RuntimeError: nothing was answered well.
        """
        if not self.ms:
            raise RuntimeError(f"nothing was answered well: {'; '.join(self.failures)}")
        return Times([ms for found in self.ms.values() for ms in found])

    @property
    def per_s(self) -> float:
        """Good answers in a second."""
        return sum(map(len, self.ms.values())) / self.elapsed_s


@contextmanager
def running(load: Load) -> Iterator["Running"]:
    """A load under way beside the caller; ended with it."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Running(process, load)
    finally:
        process.kill()
        process.wait(EXIT_S_MAX)


class Running:
    """A process that asks."""

    def __init__(self, process: subprocess.Popen[bytes], load: Load) -> None:
        self._process = process
        self._load = load
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(load))
        process.stdin.close()
        process.stdin = None

    def answers(self) -> Answers:
        """Wait for the end and return what came of it."""
        out, _ = self._process.communicate(timeout=self._load.seconds + CONNECT_S_MAX + GRACE_S + EXIT_S_MAX)
        if self._process.returncode:
            raise RuntimeError(f"the load ended with {self._process.returncode}")
        return msgspec.json.decode(out, type=Answers)


def run(load: Load) -> Answers:
    """Ask and wait for the end."""
    with running(load) as process:
        return process.answers()


def run_well(load: Load) -> Answers:
    """Ask, wait for the end, and raise if anything went wrong."""
    answers = run(load)
    if answers.failed:
        raise RuntimeError(f"{answers.failed} requests failed: {'; '.join(answers.failures)}")
    return answers


class Connection(asyncio.Protocol):
    """One request at a time, the next when the answer is whole."""

    def __init__(self, asker: "Asker") -> None:
        self._asker = asker
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._missing = 0
        """Bytes of the body not received yet; 0 while the head is not whole."""
        self._name = ""
        self._due = 0.0
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is not derived from it

    def ask(self, name: str, request: bytes, due: float) -> None:
        """Send a request that was due at an instant of the performance counter."""
        assert self._transport is not None
        self._name, self._due, self._is_open = name, due, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._missing:
            end = self._buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = bytes(self._buffer[:end]).lower().partition(b"content-length:")[2]
            self._missing = end + int(length.split(b"\r\n", 1)[0])
        if len(self._buffer) < self._missing:
            return
        answer, self._buffer, self._missing, self._is_open = self._buffer, bytearray(), 0, False
        self._asker.answered(self, self._name, self._due, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._asker.lost(self, f"the connection was lost: {exc}" if self._is_open else None)


class Asker:
    """Hands requests to idle connections as they become due."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = _pages(load) if load.pages else _posts(load)
        # First in, first out: a connection that is idle for long is closed by the server.
        self._idle: deque[Connection] = deque()
        self._overdue: deque[float] = deque()
        self._open = 0
        self._alive = 0
        self._ms: defaultdict[str, list[float]] = defaultdict(list)
        self._failed = 0
        self._failures: list[str] = []
        self._until = 0.0

    async def run(self) -> Answers:
        """Connect, ask, wait for the last answers."""
        loop = asyncio.get_running_loop()
        address = urlsplit(self._load.url)
        assert address.hostname
        assert address.port
        for _ in range(self._load.connections):
            async with asyncio.timeout(CONNECT_S_MAX):
                _, connection = await loop.create_connection(lambda: Connection(self), address.hostname, address.port)
            self._idle.append(connection)
        self._alive = len(self._idle)
        started = time.perf_counter()
        self._until = started + self._load.seconds
        await (self._ask_when_free() if self._load.every_s is None else self._ask_when_due(started))
        while self._alive and (self._open or self._overdue) and time.perf_counter() < self._until + GRACE_S:
            await asyncio.sleep(TICK_S)
            self._ask_overdue()
        elapsed_s = time.perf_counter() - started
        for _ in range(self._open + len(self._overdue)):
            self.failed(f"no answer {GRACE_S} s after the end")
        return Answers(ms=self._ms, elapsed_s=elapsed_s, failed=self._failed, failures=tuple(self._failures))

    async def _ask_when_free(self) -> None:
        while self._idle:
            self._ask(self._idle.popleft(), time.perf_counter())
        while self._alive and time.perf_counter() < self._until:
            await asyncio.sleep(0.01)

    async def _ask_when_due(self, started: float) -> None:
        for due in _instants(self._load, started):
            while self._alive and time.perf_counter() < due:
                await asyncio.sleep(TICK_S)
            self._overdue.append(due)
            self._ask_overdue()

    def _ask_overdue(self) -> None:
        while self._overdue and self._idle:
            self._ask(self._idle.popleft(), self._overdue.popleft())

    def _ask(self, connection: Connection, due: float) -> None:
        name, request = next(self._requests)
        self._open += 1
        connection.ask(name, request, due)

    def answered(self, connection: Connection, name: str, due: float, answer: bytearray) -> None:
        """Note an answer and give the connection its next request."""
        now = time.perf_counter()
        self._open -= 1
        if not answer.startswith(b"HTTP/1.1 200") or not (self._load.pages or b'"accepted":1,' in answer):
            self.failed(f"{name} was answered {bytes(answer[:500])!r}")
        else:
            self._ms[name].append((now - due) * 1000)
        if self._load.every_s is not None:
            self._idle.append(connection)
            self._ask_overdue()
        elif now < self._until:
            self._ask(connection, now)

    def failed(self, why: str) -> None:
        """Note a request without a good answer."""
        self._failed += 1
        if len(self._failures) < ERRORS_KEPT:
            self._failures.append(why)

    def lost(self, connection: Connection, why: str | None) -> None:
        """Do without a connection; if it had a request, say why there will be no answer."""
        self._alive -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if why:
            self._open -= 1
            self.failed(why)


def _instants(load: Load, started: float) -> Iterator[float]:
    """When requests are due."""
    assert load.every_s is not None
    for period in count():
        for offset_s in load.offsets_s:
            after_s = period * load.every_s + offset_s
            if after_s >= load.seconds:
                return
            yield started + after_s


def _pages(load: Load) -> Iterator[tuple[str, bytes]]:
    tail = f" HTTP/1.1\r\nhost: tallybook\r\nauthorization: Bearer {load.key}\r\n\r\n".encode()
    for page in cycle(load.pages):
        yield page.name, b"GET " + page.at(int(time.time())).encode() + tail


def _posts(load: Load) -> Iterator[tuple[str, bytes]]:
    """Single events, of the same people as the bulk ones; only id and time are filled in here."""
    for template in cycle(_templates(load.key, events.lines(TEMPLATES))):
        yield "post", template % (secrets.token_hex(ID_BYTES).encode(), time.time())


def _templates(key: str, lines: Sequence[str]) -> Iterator[bytes]:
    for line in lines:
        length = len(line) - len("%s") - len("%.3f") + 2 * ID_BYTES + TIME_DIGITS
        head = (
            f"POST {POSTS_PATH} HTTP/1.1\r\nhost: tallybook\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
        yield (head + line).replace("%s", "%b").encode()


if __name__ == "__main__":
    sent = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    found = uvloop.run(Asker(sent).run())
    # A writer of our own: with PYTHONUNBUFFERED set, standard output may write a part and say so to nobody.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(msgspec.json.encode(found))
