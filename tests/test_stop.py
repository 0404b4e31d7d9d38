"""A stop, however it comes, loses nothing and ends."""

import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support import Server, read_log

PATH = "/v1/organization/usage/events"
DAY = 1_767_225_600


def body(first: int, count: int) -> bytes:
    return b"\n".join(
        b'{"kind": "images", "id": "%d", "timestamp": %d, "images": 1}' % (number, DAY + number % 86_400)
        for number in range(first, first + count)
    )


def images(server: Server) -> int:
    with server.http() as client:
        page = client.get("/v1/organization/usage/images", params={"start_time": DAY, "limit": 1}).json()
        assert client.get("/v1/organization/usage/check").json()["ok"]
    return sum(result["images"] for result in page["data"][0]["results"])


def post_until_it_ends(server: Server, worker: int, counts: list[int]) -> None:
    with server.http() as client:
        for number in range(1_000):
            try:
                answer = client.post(PATH, content=body((worker * 1_000 + number) * 4_000, 4_000))
            except httpx.HTTPError:
                return
            if answer.status_code == 200:
                counts.append(answer.json()["accepted"])


@pytest.mark.parametrize(
    "numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]]
)
@pytest.mark.parametrize("arguments", [[], ["--stop-s-max", "0"]], ids=["in time", "out of time"])
def test_signals_under_load_end_the_server_and_lose_nothing(
    numbers: list[signal.Signals], arguments: list[str], tmp_path: Path
) -> None:
    server = Server.start(tmp_path / "data", args=arguments)
    acknowledged: list[int] = []
    threads = [threading.Thread(target=post_until_it_ends, args=(server, worker, acknowledged)) for worker in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    for number in numbers:
        server.signal(number)
        time.sleep(0.03)
    server.wait()
    for thread in threads:
        thread.join()
    assert "InvalidStateError" not in read_log(tmp_path / "data")
    again = Server.start(tmp_path / "data")
    assert images(again) >= sum(acknowledged) > 0
    assert again.stop() == 0


def test_a_stop_in_the_middle_of_maintenance_is_clean(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data")
    with server.http() as client:
        for part in range(5):
            assert client.post(PATH, content=body(part * 20_000, 20_000)).status_code == 200

    def check() -> None:
        with server.http() as client, suppress(httpx.HTTPError):
            while client.get("/v1/organization/usage/check").status_code == 200:
                pass

    thread = threading.Thread(target=check)
    thread.start()
    time.sleep(0.2)
    assert server.stop() == 0
    thread.join()
    again = Server.start(tmp_path / "data")
    assert images(again) == 100_000
    assert again.stop() == 0


def test_a_client_that_hangs_up_while_it_sends_is_no_failure_of_the_server(server: Server) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.admin_key}\r\n"
        "Content-Length: 1000\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b'{"kind": "images",')
        time.sleep(0.2)
    time.sleep(0.3)
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert 'status="499"' in text
    assert 'status="500"' not in text


def test_a_stop_ends_quietly(tmp_path: Path) -> None:
    """The last line of the log is the last request's: nothing is left over for the interpreter to complain about."""
    server = Server.start(tmp_path / "data")
    assert server.stop() == 0
    again = Server.start(tmp_path / "data")
    with again.http() as client:
        assert client.post(PATH, content=body(0, 10)).status_code == 200
    assert images(again) == 10
    assert again.stop() == 0
    assert '"event":"request"' in read_log(tmp_path / "data").strip().splitlines()[-1]
