"""What was acknowledged is there, exactly once, however the server ended: killed, stopped or locked out.

More kills: `make soak`.
"""

import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.crash import (
    DAY_S,
    EVENTS,
    SINCE_S,
    UNTIL_S,
    Kills,
    Load,
    Request,
    assert_holds,
    assert_survived,
    booked,
    made,
    priced,
    resent,
)
from tests.model import KINDS, Question
from tests.support import COMMAND, Server
from tests.test_exactness import ask, assert_same

KILLS = 20
SECONDS = 240
"""So that a busy machine kills fewer times instead of for ever."""


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("TALLYBOOK_CRASH_SEED", "20240229"))
    print(f"TALLYBOOK_CRASH_SEED={seed}")
    kills = Kills(tmp_path, random.Random(seed))
    kills.run(KILLS, SECONDS)
    print(kills.told())
    assert kills.acknowledged > 0


def test_a_stop_under_load_answers_or_refuses_and_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(3):
        server = Server.start(tmp_path / "data", args=priced(tmp_path))
        load = Load(server, server.key(f"org-{uuid4().hex}"), rng)
        codes: list[int] = []

        def stop() -> None:
            time.sleep(rng.uniform(0.2, 1.0))
            codes.append(server.stop())  # noqa: B023  called before the next round

        load.run(stop)
        assert codes == [0]
        server = Server.start(tmp_path / "data", args=priced(tmp_path))
        try:
            with server.http(load.key) as api:
                assert_survived(api, load, rng)
        finally:
            assert server.stop() == 0


def test_rebuilding_beside_the_load_changes_no_answer(tmp_path: Path) -> None:
    """Neither of what was there before, in any instant of it, nor of what comes in meanwhile."""
    rng = random.Random(2)
    server = Server.start(tmp_path / "data", args=priced(tmp_path))
    try:
        load = Load(server, server.key(f"org-{uuid4().hex}"), rng)
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
            load.run(ask_meanwhile)
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
