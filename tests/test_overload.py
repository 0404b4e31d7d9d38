"""Every queue has a limit and an answer when it is reached."""

import threading
from collections import Counter
from pathlib import Path

from tests.overload import overload
from tests.support import Server

PATH = "/v1/organization/usage/events"


def test_a_full_queue_answers_429_with_retry_after_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--queue-bytes-max", "1"])
    answers: Counter[int] = Counter()
    retry_after: set[str | None] = set()
    lock = threading.Lock()

    def post(worker: int) -> None:
        with server.http() as client:
            for number in range(5):
                body = {"kind": "images", "id": f"{worker}-{number}", "timestamp": 1_767_225_600, "images": 1}
                answer = client.post(PATH, json=body)
                with lock:
                    answers[answer.status_code] += 1
                    if answer.status_code == 429:
                        retry_after.add(answer.headers.get("retry-after"))
                        assert answer.json()["error"]["code"] == "queue_full"

    threads = [threading.Thread(target=post, args=(worker,)) for worker in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.http() as client:
        page = client.get("/v1/organization/usage/images", params={"start_time": 1_767_225_600, "limit": 1}).json()
    assert set(answers) == {200, 429}
    assert retry_after == {"1"}
    assert page["data"][0]["results"][0]["images"] == answers[200]
    assert server.stop() == 0


def test_much_more_than_it_can_take_costs_neither_memory_nor_events(tmp_path: Path) -> None:
    limits = ["--queue-bytes-max", str(2_000_000), "--memory-bytes-max", str(128 << 20)]
    server = Server.start(tmp_path / "data", args=limits)
    found = overload(server, seconds=3, senders=80, events=2_000)
    statuses = found.answers.statuses
    assert set(statuses) == {200, 429}
    assert statuses[429] > 3 * statuses[200]
    assert found.answers.retry_after == {"1"}
    assert found.stored == found.answers.accepted > 0
    assert found.most_bytes < found.before_bytes + (512 << 20)
    assert max(found.page_s, found.post_s) < 5  # what waits is little, and nobody waits behind it
    assert server.stop() == 0


def test_what_would_wait_too_long_is_refused_although_there_is_room(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--queue-s-max", "1"])
    found = overload(server, seconds=4, senders=100, events=20_000)  # 150 MB, and seconds of work for any machine
    assert set(found.answers.statuses) == {200, 429}
    assert found.answers.retry_after == {"1"}
    assert found.stored == found.answers.accepted > 0
    assert server.stop() == 0


def test_a_full_quarantine_refuses_bad_events_and_takes_good_ones(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--quarantine-max", "2"])
    with server.http() as client:
        for number in range(2):
            assert client.post(PATH, json={"kind": "images", "images": -number - 1}).status_code == 400
        full = client.post(PATH, json=[{"kind": "images", "images": -9}, {"kind": "images", "images": 1}])
        assert (full.status_code, full.json()["error"]["code"]) == (429, "quarantine_full")
        assert client.post(PATH, json={"kind": "images", "images": 1}).status_code == 200
        assert client.delete("/v1/organization/usage/quarantine").json()["deleted"] == 2
        assert client.post(PATH, json={"kind": "images", "images": -9}).status_code == 400
    assert server.stop() == 0


def test_a_page_of_too_many_results_says_how_to_narrow_it(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--rows-max", "3"])
    with server.http() as client:
        events = [
            {"kind": "images", "images": 1, "user_id": f"u{number}", "timestamp": 1_767_225_600} for number in range(4)
        ]
        assert client.post(PATH, json=events).status_code == 200
        question: dict[str, str | int] = {"start_time": 1_767_225_600, "limit": 1}
        wide = client.get("/v1/organization/usage/images", params={**question, "group_by": "user_id"})
        assert (wide.status_code, wide.json()["error"]["param"]) == (400, "group_by")
        assert "more than 3 results" in wide.json()["error"]["message"]
        narrow = {**question, "group_by": "user_id", "user_ids": "u1"}
        assert client.get("/v1/organization/usage/images", params=narrow).status_code == 200
    assert server.stop() == 0


def test_no_key_is_in_the_log(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--log-level", "debug"])
    secret = "sk-admin-" + "s" * 40
    with server.http() as client:
        assert client.get("/v1/organization/usage/check").status_code == 200
        assert client.get("/v1/organization/usage/check", headers={"authorization": f"Bearer {secret}"}).is_error
        assert client.get(f"/v1/{secret}?key={secret}").status_code == 404
        assert client.get(f"/v1/organization/admin_api_keys/{secret}").status_code == 404
    assert server.stop() == 0
    log = (tmp_path / "data" / "server.log").read_text()
    assert secret not in log
    assert server.admin_key not in log
