"""More senders than a server can serve, who never wait.

For seconds in a test, for minutes by `python -m tests.overload`.
"""

import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support import Server, resident_bytes

PATH = "/v1/organization/usage/events"
DAY = 1_767_225_600
_SAMPLE_EVERY_S = 0.05
_PROCESSES = 2
_MOST_BYTES = 3 * 1024**3
"""What a server may need with its default limits: the engine's GiB, and a queue and incoming bodies of 256 MiB each."""
_AT_ONCE_S = 5
_ANSWER_S_MAX = 60
"""Ten seconds to be read, ten to be written, and what it takes to send and to listen where the senders have the same
processors."""


class Answers(NamedTuple):
    """What senders were told.

    Attributes:
        statuses: how often which status came.
        accepted: how many events were acknowledged.
        retry_after: what refusals said about when to come again.
        longest_s: how long the slowest answer took.
    """

    statuses: Counter[int]
    accepted: int
    retry_after: set[str | None]
    longest_s: float


class Overload(NamedTuple):
    """What became of a server that was sent too much.

    Attributes:
        answers: what all senders were told.
        stored: how many events it has afterwards.
        before_bytes: resident memory before.
        most_bytes: the most there was meanwhile.
        page_s: how long the first question took afterwards.
        post_s: how long the first event took afterwards.
    """

    answers: Answers
    stored: int
    before_bytes: int
    most_bytes: int
    page_s: float
    post_s: float


def overload(server: Server, seconds: float, senders: int, events: int) -> Overload:
    """Send a server as much as so many senders can, who come again at once whatever they are told.

    Args:
        server: a new one.
        seconds: how long.
        senders: how many.
        events: of a request; each has some 75 bytes.
    """
    before_bytes = most_bytes = resident_bytes(server.pid)
    todo = (server.url, server.admin_key, seconds, senders // _PROCESSES, events)
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as pool:
        found = [pool.submit(_send, *todo, place) for place in range(_PROCESSES)]
        while not all(future.done() for future in found):
            most_bytes = max(most_bytes, resident_bytes(server.pid))
            time.sleep(_SAMPLE_EVERY_S)
        told = [future.result() for future in found]
    with server.http() as client:
        began = time.monotonic()
        stored = _stored(client)
        asked = time.monotonic()
        last = client.post(PATH, json={"kind": "images", "id": "last", "timestamp": DAY, "images": 0})
        assert last.status_code == 200, last.text
        posted = time.monotonic()
    answers = Answers(
        sum((part.statuses for part in told), Counter()),
        sum(part.accepted for part in told),
        set().union(*(part.retry_after for part in told)),
        max(part.longest_s for part in told),
    )
    return Overload(answers, stored, before_bytes, most_bytes, asked - began, posted - asked)


def _stored(client: httpx.Client) -> int:
    answer = client.get("/v1/organization/usage/images", params={"start_time": DAY, "limit": 1})
    assert answer.status_code == 200, answer.text
    return sum(result["images"] for result in answer.json()["data"][0]["results"])


def _send(url: str, key: str, seconds: float, senders: int, events: int, place: int) -> Answers:
    """Send from so many threads at once, events that are all new."""
    statuses: Counter[int] = Counter()
    retry_after: set[str | None] = set()
    accepted = 0
    longest_s = 0.0
    counting = threading.Lock()
    numbers = itertools.count()
    until = time.monotonic() + seconds
    body = b"\n".join(
        b'{"kind":"images","id":"%d-REQUEST-%d","timestamp":%d,"images":1}' % (place, number, DAY + number % 86_400)
        for number in range(events)
    )

    def send() -> None:
        nonlocal accepted, longest_s
        with httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=120, trust_env=False, verify=False
        ) as client:
            while time.monotonic() < until:
                began = time.monotonic()
                answer = client.post(PATH, content=body.replace(b"REQUEST", b"%d" % next(numbers)))
                with counting:
                    longest_s = max(longest_s, time.monotonic() - began)
                    statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        accepted += answer.json()["accepted"]
                    elif answer.status_code == 429:
                        retry_after.add(answer.headers.get("retry-after"))

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Answers(statuses, accepted, retry_after, longest_s)


def main(seconds: float = 300) -> None:
    """Overload a server with its default limits; print what became of it, fail if that is not as promised."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server.start(Path(directory) / "data", args=["--log-level", "warning"])
        try:
            found = overload(server, seconds, senders=400, events=20_000)
        finally:
            assert server.stop() == 0
        print(found, flush=True)
        assert set(found.answers.statuses) == {200, 429}
        assert found.answers.retry_after == {"1"}
        assert found.stored == found.answers.accepted
        assert found.most_bytes < _MOST_BYTES
        assert found.answers.longest_s < _ANSWER_S_MAX
        assert max(found.page_s, found.post_s) < _AT_ONCE_S


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
