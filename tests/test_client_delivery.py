"""What is recorded reaches the server once, whatever becomes of server, network, disk and process; nobody waits."""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest

from tallybook.client import AsyncTallybook, Stats, Tallybook
from tests.scripted import Answers, Asked, Reply, Scripted, scripted
from tests.support import Server

EVENTS = "/v1/organization/usage/events"
DAY_S = 86_400


def forwarded(server: Server) -> Answers:
    """Have a server of ours stand before the real one: what it gets, that gets, and the answer goes back."""
    names = ("authorization", "content-type")

    def answer(asked: Asked) -> Reply:
        headers = {name: asked.headers[name] for name in names if name in asked.headers}
        url = server.url + asked.path
        found = httpx.post(url, content=asked.content, headers=headers, trust_env=False, timeout=30)
        return Reply(found.json(), found.status_code)

    return answer


def counted(api: httpx.Client) -> dict[str, int]:
    """How often each user used an embedding: tests give each event its own."""
    found: dict[str, int] = {}
    parameters: dict[str, Any] = {"start_time": int(time.time()) - DAY_S, "group_by": "user_id", "limit": 2}
    page = api.get("/v1/organization/usage/embeddings", params=parameters).raise_for_status().json()
    for bucket in page["data"]:
        for result in bucket["results"]:
            found[result["user_id"]] = found.get(result["user_id"], 0) + result["num_model_requests"]
    return found


def record(tallybook: Any, *numbers: int) -> None:
    for number in numbers:
        tallybook.record("embeddings", model="m", input_tokens=1, user_id=f"u{number}")


def once(*numbers: int) -> dict[str, int]:
    return {f"u{number}": 1 for number in numbers}


def is_whole(stats: Stats) -> bool:
    taken = stats.delivered + stats.rejected + stats.conflicts
    return stats.recorded + stats.adopted == taken + stats.dropped + stats.waiting + stats.spooled


def until(happens: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def on_disk(spool: Path) -> list[Path]:
    """The segments of a spool; directories may go meanwhile."""
    found = [Path(directory) / name for directory, _, names in os.walk(spool) for name in names]
    return [path for path in found if path.suffix == ".ndjson"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def front() -> Iterator[Scripted]:
    with scripted() as running:
        yield running


@pytest.fixture
def key(server: Server, organization: str) -> str:
    return server.key(organization)


class TestDelivery:
    def test_events_are_gathered_to_batches(self, front: Scripted, server: Server, key: str, api: httpx.Client) -> None:
        front.on(EVENTS, forwarded(server))
        with Tallybook(front.url, key, batch_age_s=60, batch_max=100) as tallybook:
            record(tallybook, *range(250))
            assert tallybook.flush()
            assert [len(asked.content.splitlines()) for asked in front.asked] == [100, 100, 50]
            assert tallybook.stats() == Stats(recorded=250, delivered=250)
        assert counted(api) == once(*range(250))

    def test_age_is_enough_to_be_sent(self, front: Scripted, server: Server, key: str) -> None:
        front.on(EVENTS, forwarded(server))
        with Tallybook(front.url, key, batch_age_s=0.2) as tallybook:
            record(tallybook, 1)
            until(lambda: tallybook.stats().delivered == 1, 5)

    def test_settings_come_from_the_environment(
        self, server: Server, key: str, monkeypatch: pytest.MonkeyPatch, api: httpx.Client
    ) -> None:
        with pytest.raises(ValueError, match="TALLYBOOK_URL"):
            Tallybook()
        monkeypatch.setenv("TALLYBOOK_URL", server.url + "/")
        with pytest.raises(ValueError, match="TALLYBOOK_API_KEY"):
            Tallybook()
        monkeypatch.setenv("TALLYBOOK_API_KEY", key)
        with Tallybook() as tallybook:
            record(tallybook, 1)
            assert tallybook.flush()
        assert counted(api) == once(1)

    def test_settings_that_cannot_be_right_are_refused_without_telling_the_key(self) -> None:
        with pytest.raises(ValueError, match="neither http"):
            Tallybook("tallybook.example", "sk-admin-x")
        for wrong in ("sk-admin-\nx", "sk-admin-\u00fc"):
            with pytest.raises(ValueError, match="no key has") as error:
                Tallybook("http://127.0.0.1", wrong)
            assert "sk-" not in str(error.value)

    def test_an_answer_that_is_lost_doubles_nothing(
        self, front: Scripted, server: Server, key: str, api: httpx.Client
    ) -> None:
        forward = forwarded(server)

        def answer(asked: Asked) -> Reply:
            reply = forward(asked)
            return Reply((b"{",), is_cut=True) if len(front.asked) % 2 else reply

        front.on(EVENTS, answer)
        with Tallybook(front.url, key, batch_max=10) as tallybook:
            record(tallybook, *range(25))
            assert tallybook.flush(20)
            assert tallybook.stats() == Stats(recorded=25, delivered=25)
        bodies = [asked.content for asked in front.asked]
        assert bodies[0] == bodies[1]  # sent again, to the last byte
        assert counted(api) == once(*range(25))

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 401, 403, 404])
    def test_what_may_pass_is_waited_for(
        self, front: Scripted, server: Server, key: str, api: httpx.Client, status: int
    ) -> None:
        forward = forwarded(server)
        refusal = Reply({"error": {"message": "not now"}}, status)
        front.on(EVENTS, lambda asked: refusal if len(front.asked) < 3 else forward(asked))
        with Tallybook(front.url, key) as tallybook:
            record(tallybook, 1, 2, 3)
            assert tallybook.flush(20)
            assert tallybook.stats() == Stats(recorded=3, delivered=3)
        assert counted(api) == once(1, 2, 3)

    def test_the_server_says_when_to_come_again(self, front: Scripted, server: Server, key: str) -> None:
        forward = forwarded(server)
        times: list[float] = []

        def answer(asked: Asked) -> Reply:
            times.append(time.monotonic())
            return forward(asked) if len(times) > 1 else Reply({"error": {}}, 503, {"retry-after": "2"})

        front.on(EVENTS, answer)
        with Tallybook(front.url, key) as tallybook:
            record(tallybook, 1)
            assert tallybook.flush(20)
        assert 2 <= times[1] - times[0] < 2.5

    def test_failures_are_further_and_further_apart(self, front: Scripted, key: str) -> None:
        times: list[float] = []

        def answer(asked: Asked) -> Reply:
            times.append(time.monotonic())
            return Reply(b"", 500)

        front.on(EVENTS, answer)
        with Tallybook(front.url, key, batch_age_s=0.01, exit_s=0) as tallybook:
            record(tallybook, 1)
            time.sleep(3)
        gaps = [after - before for before, after in pairwise(times)]
        assert 2 <= len(gaps) <= 4
        assert all(0.25 * 2**place <= gap for place, gap in enumerate(gaps[:3]))

    def test_bad_events_are_told_once_and_are_in_quarantine(
        self, server: Server, key: str, api: httpx.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Tallybook(server.url, key, batch_max=2) as tallybook, caplog.at_level(logging.WARNING, "tallybook.client"):
            for number in range(10):
                tallybook.record("embeddings", model="m", input_tokens=-number - 1)
            record(tallybook, 1)
            assert tallybook.flush()
            assert tallybook.stats() == Stats(recorded=11, rejected=10, delivered=1)
        (message,) = [found.getMessage() for found in caplog.records if found.name == "tallybook.client"]
        assert "input_tokens must be an integer" in message
        assert len(api.get("/v1/organization/usage/quarantine").json()["data"]) == 10
        assert counted(api) == once(1)

    def test_a_conflict_is_told(self, server: Server, key: str, caplog: pytest.LogCaptureFixture) -> None:
        now = time.time()
        with Tallybook(server.url, key) as tallybook, caplog.at_level(logging.WARNING, "tallybook.client"):
            for tokens in (1, 2):
                tallybook.record("embeddings", id="x", timestamp=now, input_tokens=tokens)
                assert tallybook.flush()
            assert tallybook.stats() == Stats(recorded=2, delivered=1, conflicts=1)
        assert "is stored already with input_tokens 1" in caplog.text

    @pytest.mark.parametrize("is_on_disk", [False, True])
    @pytest.mark.parametrize("what", ["an address", "a batch"])
    def test_what_is_never_taken_keeps_nothing_else_waiting(
        self, front: Scripted, server: Server, key: str, api: httpx.Client, tmp_path: Path, what: str, is_on_disk: bool
    ) -> None:
        forward = forwarded(server)
        refusal = Reply({"error": {"message": "not this"}}, 500)
        front.on(f"{EVENTS}/openai", refusal)
        front.on(EVENTS, lambda asked: refusal if b"never" in asked.content else forward(asked))
        spool = tmp_path if is_on_disk else None
        with Tallybook(front.url, key, batch_age_s=0.01, exit_s=0.1, spool=spool) as tallybook:
            if what == "an address":
                tallybook.record_response({"object": "chat.completion", "usage": {"prompt_tokens": 1}})
            else:
                tallybook.record("embeddings", input_tokens=1, user_id="never")
            until(lambda: len(front.asked) == 2)
            for number in range(5):
                record(tallybook, number)
                time.sleep(0.02)
            until(lambda: tallybook.stats().delivered == 5)
            left = {"spooled": 1} if is_on_disk else {"waiting": 1}
            assert tallybook.stats() == Stats(recorded=6, delivered=5, **left)
        assert counted(api) == once(*range(5))

    def test_batches_that_are_too_large_for_a_server_are_split(
        self, front: Scripted, server: Server, key: str, api: httpx.Client
    ) -> None:
        forward = forwarded(server)
        too_large = Reply({"error": {"message": "too large"}}, 413)
        front.on(EVENTS, lambda asked: too_large if len(asked.content) > 500 else forward(asked))
        with Tallybook(front.url, key) as tallybook:
            record(tallybook, *range(20))
            tallybook.record("embeddings", input_tokens=1, user_id="x" * 600)
            assert tallybook.flush()
            assert tallybook.stats() == Stats(recorded=21, delivered=20, rejected=1)
        assert counted(api) == once(*range(20))

    def test_a_full_quarantine_keeps_no_good_event_waiting(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        own = Server.start(tmp_path / "data", args=["--quarantine-max", "1"])
        try:
            with Tallybook(own.url, own.admin_key) as tallybook:
                for number in range(8):
                    tallybook.record("embeddings", model="bad", input_tokens=-number - 1)
                    record(tallybook, number)
                assert tallybook.flush(20)
                assert tallybook.stats() == Stats(recorded=16, delivered=8, rejected=8)
            with own.http() as api:
                assert counted(api) == once(*range(8))
            assert "refused and lost" in caplog.text
        finally:
            own.stop()

    def test_what_is_no_event_is_dropped_and_told(
        self, server: Server, key: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop: dict[str, Any] = {}
        loop["loop"] = loop
        with Tallybook(server.url, key) as tallybook:
            tallybook.record("embeddings", input_tokens=object())
            tallybook.record("embeddings", input_tokens=float("nan"))
            tallybook.record("embeddings", input_tokens=1, user_id="x" * 70_000)
            tallybook.record("embeddings", input_tokens=loop)
            tallybook.record_response(object(), seconds=object())
            tallybook.record("embeddings", kind=object())
            assert tallybook.stats() == Stats(recorded=6, dropped=6)
        assert "object is nothing JSON has" in caplog.text

    def test_values_python_has_and_json_has_not(self, server: Server, key: str, api: httpx.Client) -> None:
        with Tallybook(server.url, key) as tallybook:
            tallybook.record(
                "embeddings",
                id=UUID(int=7),
                timestamp=datetime.now(UTC),
                input_tokens=1,
                user_id=4711,
                project_id=None,
                cost={"value": Decimal("0.000000000000000001"), "currency": "usd"},
            )
            assert tallybook.flush()
            assert tallybook.stats().delivered == 1
        assert counted(api) == {"4711": 1}

    def test_what_comes_after_the_end_is_dropped_and_counted(
        self, server: Server, key: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        tallybook = Tallybook(server.url, key)
        record(tallybook, 1)
        tallybook.close()
        tallybook.close()
        record(tallybook, 2)
        assert tallybook.stats() == Stats(recorded=2, delivered=1, dropped=1)
        assert "it is closed" in caplog.text

    def test_the_key_is_in_no_log(self, front: Scripted, caplog: pytest.LogCaptureFixture) -> None:
        front.on(EVENTS, Reply({"error": {"message": "wrong key"}}, 401))
        with (
            caplog.at_level(logging.DEBUG),
            Tallybook(front.url, "sk-admin-secret-of-ours", exit_s=0.1) as tallybook,
        ):
            record(tallybook, 1)
            assert not tallybook.flush(0.3)
        assert "wrong key" in caplog.text
        assert "secret-of-ours" not in caplog.text + repr(tallybook) + str(vars(tallybook))


class TestNobodyWaits:
    """A Tallybook that is broken, hostile or hangs does nothing to the application's own calls."""

    HOSTILE = (
        Reply(b"", 500),
        Reply(b"<html>captive portal</html>", 200, {"content-type": "text/html"}),
        Reply(b"[" * 100_000, 200),
        Reply(b"\x00\xff" * 1000, 200),
        Reply({"object": "organization.usage.events.receipt", "rejected": "x", "faults": 7}, 200),
        Reply({"object": "organization.usage.events.receipt", "rejected": 10**9, "faults": [None]}, 200),
        Reply({"error": {"message": 7, "code": []}}, 400),
        Reply({"error": "x" * 10_000}, 418),
        Reply(b"", 301, {"location": "http://127.0.0.1:1/"}),
        Reply(b"", 429, {"retry-after": "1e309"}),
        Reply(b"", 503, {"retry-after": "-5"}),
        Reply(b"{}", pause_s=60),
        Reply((b" ",) * 1000, pause_s=0.05),
        Reply((b" " * 100_000,) * 100),
        Reply(b"x" * 1000, headers={"content-encoding": "gzip"}),
        Reply((b"{",), is_cut=True),
    )

    @pytest.mark.parametrize("reply", HOSTILE)
    def test_calls_go_as_ever(self, reply: Reply, tmp_path: Path) -> None:
        with scripted() as provider, scripted() as hostile:
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            message = {"role": "assistant", "content": "fine"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
            provider.on("/chat/completions", Reply(answer | {"usage": usage}))
            hostile.on("/openai", reply)
            tallybook = Tallybook(
                hostile.url, "sk-admin-x", batch_age_s=0.01, timeout_s=1, exit_s=0.2, spool=tmp_path / "spool"
            )
            client = tallybook.track(openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0))
            slowest = 0.0
            for _ in range(20):
                began = time.monotonic()
                found = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
                slowest = max(slowest, time.monotonic() - began)
                assert found.choices[0].message.content == "fine"
            assert slowest < 0.5
            began = time.monotonic()
            tallybook.close()
            assert time.monotonic() - began < 4
            assert is_whole(tallybook.stats())
            assert tallybook.stats().dropped == 0

    def test_recording_takes_no_time_while_the_server_hangs(self, front: Scripted) -> None:
        front.on(EVENTS, Reply(b"{}", pause_s=60))
        tallybook = Tallybook(front.url, "sk-admin-x", batch_age_s=0.01, timeout_s=60, exit_s=0.1)
        times = []
        for number in range(2000):
            began = time.perf_counter()
            record(tallybook, number)
            times.append(time.perf_counter() - began)
        assert sorted(times)[len(times) // 2] < 0.0005
        tallybook.close()
        assert tallybook.stats() == Stats(recorded=2000, dropped=2000)

    def test_memory_is_bounded_and_what_was_first_stays(
        self, front: Scripted, server: Server, key: str, api: httpx.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = threading.Event()
        forward = forwarded(server)
        front.on(EVENTS, lambda asked: forward(asked) if gate.wait(30) else Reply())
        with Tallybook(front.url, key, queue_bytes_max=100_000, timeout_s=30) as tallybook:
            record(tallybook, *range(5000))
            stats = tallybook.stats()
            assert 100 < stats.waiting < 100_000 / 150
            assert stats.dropped == 5000 - stats.waiting
            gate.set()
            assert tallybook.flush()
            kept = stats.waiting
        assert counted(api) == once(*range(kept))
        assert caplog.text.count("a record is dropped: 100000 bytes are waiting already") == 1

    def test_a_loop_goes_on_while_its_records_are_flushed(
        self, front: Scripted, server: Server, key: str, api: httpx.Client
    ) -> None:
        front.on(EVENTS, lambda asked: forwarded(server)(asked)._replace(pause_s=0.5))

        async def work() -> float:
            async with AsyncTallybook(front.url, key) as tallybook:
                record(tallybook, 1, 2, 3)
                flushing = asyncio.create_task(tallybook.flush())
                longest = 0.0
                while not flushing.done():
                    began = time.monotonic()
                    await asyncio.sleep(0.01)
                    longest = max(longest, time.monotonic() - began)
                assert flushing.result()
                assert tallybook.stats() == Stats(recorded=3, delivered=3)
                return longest

        assert asyncio.run(work()) < 0.3
        assert counted(api) == once(1, 2, 3)

    def test_many_threads_lose_nothing(self, server: Server, key: str, api: httpx.Client) -> None:
        with Tallybook(server.url, key) as tallybook:
            numbers = [range(start, start + 500) for start in range(0, 4000, 500)]
            threads = [threading.Thread(target=record, args=(tallybook, *found)) for found in numbers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert tallybook.flush()
            assert tallybook.stats() == Stats(recorded=4000, delivered=4000)
        assert counted(api) == once(*range(4000))


class TestSpool:
    def test_what_the_server_does_not_take_is_on_disk_and_sent_when_it_is_back(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        port = free_port()
        with Tallybook(f"http://127.0.0.1:{port}", key, spool=tmp_path, batch_age_s=0.05) as tallybook:
            record(tallybook, *range(30))
            until(lambda: tallybook.stats().spooled == 30)
            assert tallybook.stats() == Stats(recorded=30, spooled=30)
            assert not tallybook.flush(0.5)
            with scripted(port) as front:
                front.on(EVENTS, forwarded(server))
                record(tallybook, *range(30, 40))
                assert tallybook.flush(20)
                assert tallybook.stats() == Stats(recorded=40, delivered=40)
                assert on_disk(tmp_path) == []
        assert counted(api) == once(*range(40))
        assert list(tmp_path.iterdir()) == []

    def test_answers_keep_their_dialect_on_disk(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        usage = {"input_tokens": 3, "output_tokens": 4}
        with Tallybook(f"http://127.0.0.1:{free_port()}", key, spool=tmp_path, exit_s=1) as away:
            record(away, 1)
            away.record_response({"id": "r1", "object": "response", "model": "a", "usage": usage})
            away.record_response({"id": "m1", "type": "message", "model": "b", "usage": usage})
        assert away.stats() == Stats(recorded=3, spooled=3)
        with Tallybook(server.url, key, spool=tmp_path) as tallybook:
            until(lambda: tallybook.stats().delivered == 3)
            assert tallybook.stats() == Stats(adopted=3, delivered=3)
        assert counted(api) == once(1)
        parameters: dict[str, Any] = {"start_time": int(time.time()) - DAY_S, "limit": 2}
        page = api.get("/v1/organization/usage/completions", params=parameters).json()
        results = [result for bucket in page["data"] for result in bucket["results"]]
        assert sum(result["output_tokens"] for result in results) == 8

    def test_its_size_is_bounded_and_what_was_first_stays(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        limits: Any = {"batch_max": 10, "batch_age_s": 0.01, "spool_bytes_max": 20_000, "queue_bytes_max": 20_000}
        away = Tallybook(f"http://127.0.0.1:{free_port()}", key, spool=tmp_path, exit_s=0.5, **limits)
        for number in range(1000):
            record(away, number)
            time.sleep(0.0002)
        until(lambda: away.stats().spooled > 100)
        assert 15_000 < sum(path.stat().st_size for path in on_disk(tmp_path)) <= 20_000
        away.close()
        stats = away.stats()
        assert is_whole(stats)
        assert stats.dropped == 1000 - stats.spooled > 500
        with Tallybook(server.url, key, spool=tmp_path) as tallybook:
            until(lambda: tallybook.stats().delivered == stats.spooled)
        kept = counted(api)
        assert set(kept.values()) == {1}
        assert len(kept) == stats.spooled
        assert once(*range(40)).items() <= kept.items()

    def test_a_directory_that_cannot_be_written_is_told_and_memory_is_used(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "spool").write_text("a file, and no directory")
        port = free_port()
        with Tallybook(f"http://127.0.0.1:{port}", key, spool=tmp_path / "spool", batch_age_s=0.01) as tallybook:
            assert "the spool cannot be written" in caplog.text
            record(tallybook, 1)
            with scripted(port) as front:
                front.on(EVENTS, forwarded(server))
                assert tallybook.flush(20)
        assert counted(api) == once(1)

    def test_a_process_killed_again_and_again_loses_and_doubles_nothing_that_was_spooled(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        port = free_port()
        rng = random.Random(5)
        spooled: set[int] = set()
        for life in range(6):
            first = life * 10_000
            is_reachable = life % 3 == 2
            with scripted(port if is_reachable else 0) as front:
                front.on(EVENTS, forwarded(server))
                process = start(_RECORDING, f"http://127.0.0.1:{port}", key, tmp_path, str(first))
                assert process.stdout is not None
                deadline = time.monotonic() + rng.uniform(0.4, 1.4)
                for line in process.stdout:
                    spooled |= set(range(first, first + int(line)))
                    if time.monotonic() > deadline:
                        break
                process.kill()
                process.wait()
                process.stdout.close()
        with Tallybook(server.url, key, spool=tmp_path) as tallybook:
            until(lambda: not on_disk(tmp_path) and not tallybook.stats().spooled, 60)
        found = counted(api)
        assert len(spooled) > 500
        assert once(*spooled).items() <= found.items()
        assert set(found.values()) == {1}

    def test_the_end_of_a_process_waits_so_long_and_no_longer(
        self, front: Scripted, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        front.on(EVENTS, Reply(b"{}", pause_s=60))
        began = time.monotonic()
        assert finish(_ENDING, front.url, key, tmp_path) == 0
        assert time.monotonic() - began < 8  # a second of them waiting, the rest starting
        assert finish(_ENDING, server.url, key, tmp_path) == 0
        assert counted(api) == {"at-the-end": 2}

    def test_a_process_that_ends_delivers_first(self, server: Server, key: str, api: httpx.Client) -> None:
        assert finish(_ENDING, server.url, key) == 0
        assert counted(api) == {"at-the-end": 1}

    def test_forked_processes_record_their_own(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        assert finish(_FORKING, server.url, key, tmp_path) == 0
        expected = {"parent": 2, "child-0": 1, "child-1": 1, "pool-0": 1, "pool-1": 1, "pool-2": 1}
        assert counted(api) == expected
        assert list(tmp_path.iterdir()) == []

    def test_a_process_forked_while_a_thread_makes_the_environments_tallybook_makes_its_own(self) -> None:
        assert finish(_FORKING_WHILE_MAKING) == 0

    def test_an_application_needs_no_tallybook_of_its_own(
        self, server: Server, key: str, api: httpx.Client, tmp_path: Path
    ) -> None:
        assert finish(_OWN, server.url, key, tmp_path) == 0
        assert counted(api) == {"recorded": 1, "answered": 1}

    def test_the_environment_may_name_the_spool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TALLYBOOK_URL", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("TALLYBOOK_API_KEY", "sk-admin-x")
        monkeypatch.setenv("TALLYBOOK_SPOOL", str(tmp_path))
        with Tallybook(exit_s=0.5) as tallybook:
            record(tallybook, 1)
        assert len(on_disk(tmp_path)) == 1


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})


def finish(script: str, *arguments: object) -> int:
    """Run a script to its end; return how it ended."""
    process = start(script, *arguments)
    try:
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    return process.returncode


_RECORDING = """
    import sys, time
    from tallybook.client import Tallybook

    url, key, spool, first = sys.argv[1:]
    tallybook = Tallybook(url, key, spool=spool, batch_max=50, batch_age_s=0.05, timeout_s=2)
    for number in range(int(first), int(first) + 9000):
        tallybook.record("embeddings", model="m", input_tokens=1, user_id=f"u{number}")
        if number % 20 == 0:
            time.sleep(0.002)
            stats = tallybook.stats()
            # What was recorded first is on disk first, or delivered already.
            print(stats.delivered + stats.spooled - stats.adopted if stats.delivered == 0 else 0, flush=True)
"""
_ENDING = """
    import sys
    from tallybook.client import Tallybook

    url, key, *spool = sys.argv[1:]
    tallybook = Tallybook(url, key, spool=spool[0] if spool else None, exit_s=1, batch_age_s=60)
    tallybook.record("embeddings", model="m", input_tokens=1, user_id="at-the-end")
"""
_OWN = """
    import os, sys
    from openai import OpenAI
    from tallybook.client import record, record_response, tallybook, track

    try:
        record("embeddings", model="m", input_tokens=1)
    except ValueError as error:
        assert "TALLYBOOK_URL" in str(error)
    else:
        sys.exit("nobody was told that there is no server")
    url, key, spool = sys.argv[1:]
    os.environ.update(TALLYBOOK_URL=url, TALLYBOOK_API_KEY=key, TALLYBOOK_SPOOL=spool)
    client = track(OpenAI(api_key="x", base_url=url))
    assert track(client) is client
    record("embeddings", model="m", input_tokens=1, user_id="recorded")
    answer = {"object": "list", "model": "m", "data": [], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    record_response(answer, kind="embeddings", user_id="answered")
    assert tallybook() is tallybook()
    assert tallybook().stats().recorded == 2
"""
_FORKING = """
    import multiprocessing, os, sys
    from tallybook.client import Tallybook

    url, key, spool = sys.argv[1:]
    tallybook = Tallybook(url, key, spool=spool, batch_age_s=60)


    def record(user):
        tallybook.record("embeddings", model="m", input_tokens=1, user_id=user)


    record("parent")
    tallybook.flush()
    record("parent")  # still waiting when the process is forked
    for child in range(2):
        if not os.fork():
            assert tallybook.stats().recorded == 0
            record(f"child-{child}")
            sys.exit(0 if tallybook.flush() and tallybook.stats().delivered == 1 else 1)
        assert os.wait()[1] == 0
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=record, args=(f"pool-{number}",)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
"""
_FORKING_WHILE_MAKING = """
    import os, signal, sys, threading
    from tallybook.client import environment

    os.environ.update(TALLYBOOK_URL="http://127.0.0.1:1", TALLYBOOK_API_KEY="sk-admin-x")
    making = threading.Thread(target=environment._making.acquire)  # as it is for a moment only
    making.start()
    making.join()
    if not os.fork():
        signal.alarm(10)
        sys.exit(0 if environment.tallybook() else 1)
    sys.exit(os.wait()[1])
"""


def test_a_receipt_is_believed_only_if_it_is_one(front: Scripted) -> None:
    """A server that says 200 to everything has taken nothing."""
    front.on(EVENTS, Reply({"object": "list", "rejected": 0}))
    with Tallybook(front.url, "sk-admin-x", exit_s=0.2) as tallybook:
        record(tallybook, 1)
        assert not tallybook.flush(0.5)
        assert tallybook.stats().waiting == 1
    assert json.loads(front.asked[0].content)["user_id"] == "u1"
