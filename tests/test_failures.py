"""Whatever the machine does to it: the server says what is wrong, keeps what it acknowledged, and goes on by itself."""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tallybook.errors import StoreUnusable, Unavailable
from tallybook.ingest.decode import decode
from tallybook.store.duckdb import DuckStore
from tallybook.store.protocol import Batch
from tests.failures import Clock, limited, obey_permissions, open_files, wait_for_status
from tests.support import COMMAND, Server, read_log

PATH = "/v1/organization/usage/events"
DAY = 1_767_225_600
STORE = "tallybook.duckdb"
LOG = f"{STORE}.wal"


def body(first: int, count: int) -> bytes:
    return b"\n".join(
        b'{"kind": "images", "id": "%d", "timestamp": %d, "images": 1}' % (number, DAY + number % 86_400)
        for number in range(first, first + count)
    )


def images(client: httpx.Client) -> int:
    answer = client.get("/v1/organization/usage/images", params={"start_time": DAY, "limit": 1})
    assert answer.status_code == 200, answer.text
    return sum(result["images"] for result in answer.json()["data"][0]["results"])


def post(client: httpx.Client, first: int, count: int) -> httpx.Response:
    return client.post(PATH, content=body(first, count))


def refused(answer: httpx.Response) -> str:
    """Return why a request was refused, as the envelope has it."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "5"
    error = answer.json()["error"]
    assert error["type"] == "server_error"
    return str(error["code"])


def metric(server: Server, line: str) -> float:
    text = httpx.get(f"{server.url}/metrics", trust_env=False, verify=False).text
    return next(float(found.removeprefix(line)) for found in text.splitlines() if found.startswith(f"{line} "))


@contextmanager
def serving(data: Path, **options: object) -> Iterator[tuple[Server, httpx.Client]]:
    """A server, and a client of it. In the end it stops cleanly, and what is in the store is right."""
    server = Server.start(data, **options)  # type: ignore[arg-type]
    with server.http() as client:
        yield server, client
        assert client.get("/v1/organization/usage/check").json()["ok"]
    assert server.stop() == 0
    assert "Traceback" not in read_log(data)


def lines(data: Path, event: str) -> int:
    """How many lines a server's log has of an event."""
    return (data / "server.log").read_text().count(f'"event":"{event}"')


def test_a_full_disk_refuses_events_and_answers_questions_until_there_is_room(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (server, client):
        assert post(client, 0, 5_000).status_code == 200
        with limited(server, resource.RLIMIT_FSIZE, (data / LOG).stat().st_size):
            assert refused(post(client, 5_000, 10)) == "disk_full"
            told = wait_for_status(server, "disk_full")
            assert "Free space" in told["remedy"]
            assert metric(server, "tallybook_ready") == 0
            assert metric(server, 'tallybook_commit_failures_total{reason="disk_full"}') == 1
            for _ in range(20):
                assert refused(post(client, 5_000, 10)) == "disk_full"
                assert images(client) == 5_000
            time.sleep(1.2)  # it has been tried again meanwhile
            wait_for_status(server, "disk_full")
        wait_for_status(server, "ready")
        assert metric(server, "tallybook_ready") == 1
        assert post(client, 5_000, 10).json()["accepted"] == 10  # nothing had been kept of it
        assert images(client) == 5_010
        assert [lines(data, "not ready"), lines(data, "ready again")] == [1, 1]
    with serving(data) as (_, client):
        assert images(client) == 5_010


def test_a_checkpoint_that_fails_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """It leaves the engine unusable; a new one takes its place."""
    data = tmp_path / "data"
    acknowledged = 0
    with serving(data, args=["--compact-every-s", "1"]) as (server, client):
        with limited(server, resource.RLIMIT_FSIZE, 256 * 1024):  # enough for the log, not for the main file
            deadline = time.monotonic() + 20
            while not lines(data, "ready again"):
                answer = post(client, acknowledged, 3)
                if answer.status_code == 200:
                    acknowledged += 3
                else:
                    assert refused(answer) == "disk_full"
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert "Failed to create checkpoint" in (data / "server.log").read_text()
            assert images(client) == acknowledged
            assert post(client, acknowledged, 3).json()["accepted"] == 3
        assert images(client) == acknowledged + 3
    with serving(data) as (_, client):
        assert images(client) == acknowledged + 3


def test_a_directory_that_becomes_read_only_is_told_and_used_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (_, client):
        assert post(client, 0, 10).status_code == 200
    with serving(data, before=obey_permissions) as (server, client):
        assert not (data / LOG).exists()
        data.chmod(0o500)  # what is open stays writable, but there is no new log
        try:
            assert refused(post(client, 10, 10)) == "read_only"
            assert "writable" in wait_for_status(server, "read_only")["remedy"]
            assert images(client) == 10
        finally:
            data.chmod(0o700)
        wait_for_status(server, "ready")
        assert post(client, 10, 10).json()["accepted"] == 10


def test_too_few_open_files_are_told_and_do_no_harm(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (_, client):
        assert post(client, 0, 10).status_code == 200
    with serving(data) as (server, client):
        assert images(client) == 10
        with limited(server, resource.RLIMIT_NOFILE, open_files(server)):
            assert refused(post(client, 10, 10)) == "out_of_files"
            assert images(client) == 10
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{server.url}/readyz", trust_env=False, verify=False)
            assert client.get("/readyz").json()["status"] == "out_of_files"
        wait_for_status(server, "ready")
        assert post(client, 10, 10).json()["accepted"] == 10


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a kill leaves it: of 40 commits, 20 are in the main file and 20 in the log."""
    data = tmp_path_factory.mktemp("killed")
    for first in (0, 1_000):
        server = Server.start(data)
        with server.http() as client:
            for number in range(20):
                assert post(client, first + number * 10, 10).json()["accepted"] == 10
        if first:
            server.kill()
        else:
            assert server.stop() == 0
    return data


def contents(data: Path) -> dict[str, bytes]:
    """Return what the store's files hold."""
    return {path.name: content for path in data.glob(f"{STORE}*") if (content := path.read_bytes())}


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def flip(path: Path, *places: int) -> None:
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))


def entries(log: Path) -> list[int]:
    """Return where the entries of the engine's log begin: each has its size, a checksum, and so many bytes."""
    content = log.read_bytes()
    for header_bytes in range(1, 200):
        places, place = [], header_bytes
        while place + 16 <= len(content):
            places.append(place)
            place += 16 + int.from_bytes(content[place : place + 8], "little")
        if place == len(content) and len(places) > 30:
            return places
    raise AssertionError("the engine's log has another form")


WAYS: dict[str, Callable[[Path], object]] = {
    "log cut short": lambda data: truncate(data / LOG, 0.5),
    "log cut short by a byte": lambda data: os.truncate(data / LOG, (data / LOG).stat().st_size - 1),
    "log emptied": lambda data: truncate(data / LOG, 0),
    "log gone": lambda data: (data / LOG).unlink(),
    "bit of the log flipped": lambda data: flip(data / LOG, (data / LOG).stat().st_size // 2),
    "size of an entry of the log flipped": lambda data: flip(data / LOG, entries(data / LOG)[-30] + 7),
    "header flipped": lambda data: flip(data / STORE, 20),
    "later header flipped": lambda data: flip(data / STORE, 4_096 + 40, 8_192 + 40),
    "file cut short": lambda data: truncate(data / STORE, 0.5),
    "file cut to its headers": lambda data: os.truncate(data / STORE, 12_288),
    "file emptied": lambda data: truncate(data / STORE, 0),
    "file is another": lambda data: (data / STORE).write_bytes(b"no store at all" * 1_000),
    "file gone": lambda data: (data / STORE).unlink(),
    "all gone": lambda data: list(map(Path.unlink, (data / STORE, data / LOG))),
}


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_found_at_the_start(way: str, killed: Path, tmp_path: Path) -> None:
    data = shutil.copytree(killed, tmp_path / "data")
    WAYS[way](data)
    before = contents(data)
    with pytest.raises(StoreUnusable, match="restore"):
        DuckStore(data, 256 << 20)
    assert contents(data) == before


def test_what_is_not_damaged_opens(killed: Path, tmp_path: Path) -> None:
    store = DuckStore(shutil.copytree(killed, tmp_path / "data"), 256 << 20)
    assert store.facts(None).events == 400
    store.close()


def refusal(data: Path, before: Callable[[], None] | None = None) -> str:
    """Start a server that cannot start; return what it says."""
    command = [*COMMAND, "serve", "--data", str(data), "--port", "0"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, preexec_fn=before)
    assert ended.returncode == 1
    assert ended.stderr.startswith("tallybook: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_a_server_that_cannot_start_says_why_in_a_line(killed: Path, tmp_path: Path) -> None:
    data = shutil.copytree(killed, tmp_path / "cut")
    truncate(data / LOG, 0.5)
    said = refusal(data)
    assert "of 40 commits that were acknowledged" in said
    assert "tallybook restore" in said
    data = shutil.copytree(killed, tmp_path / "keys")
    (data / "keys.sqlite3").write_bytes(b"no keys at all" * 1_000)
    assert "cannot open the keys" in refusal(data)
    data = shutil.copytree(killed, tmp_path / "full")
    assert "disk I/O error" in refusal(data, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
    data = shutil.copytree(killed, tmp_path / "read-only")
    for path in (*data.iterdir(), data):
        path.chmod(0o500 if path.is_dir() else 0o400)
    assert "Permission denied" in refusal(data, obey_permissions)


def test_the_loss_of_commits_can_be_accepted(killed: Path, tmp_path: Path) -> None:
    data = shutil.copytree(killed, tmp_path / "data")
    truncate(data / LOG, 0.5)
    (data / f"{STORE}.commits").unlink()
    with serving(data) as (_, client):
        assert 200 <= images(client) < 400


def test_damage_that_is_read_while_serving_is_told_and_stops_commits(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (_, client):
        for number in range(3):
            assert post(client, number * 20_000, 20_000).status_code == 200
        time.sleep(1.2)  # folded
    server = Server.start(data)
    whole = (data / STORE).read_bytes()
    with server.http() as client:
        flip(data / STORE, *range(12_288 + 5_000, len(whole), 262_144))  # what is not in memory yet is read like that
        assert refused(client.get("/v1/organization/usage/check")) == "store_damaged"
        assert "restore" in wait_for_status(server, "store_damaged")["remedy"]
        assert refused(post(client, 0, 10)) == "store_damaged"
        export = client.get("/v1/organization/usage/export", params={"start_time": DAY})
        assert not export.is_success
        time.sleep(1.2)
        wait_for_status(server, "store_damaged", within_s=0)
        assert client.get("/healthz").status_code == 200
        assert [lines(data, "not ready"), lines(data, "question failed")] == [1, 0]
    assert server.stop() == 0
    (data / STORE).write_bytes(whole)
    with serving(data) as (_, client):
        assert images(client) == 60_000


def test_what_memory_does_not_suffice_for_is_refused_and_nothing_else_is(tmp_path: Path) -> None:
    store = DuckStore(tmp_path, 12 << 20)
    stored: set[int] = set()

    def append(first: int, count: int) -> bool:
        numbers = range(first, first + count)
        events = b"\n".join(
            b'{"kind": "images", "id": "%d", "timestamp": %d, "images": %d, "user_id": "%0250d"}'
            % (number, DAY, number, number)
            for number in numbers
        )
        decoded = decode(events, DAY * 1000, 1_000_000)
        store.recover()
        assert store.trouble is None
        try:
            (outcome,) = store.append([Batch("org", decoded.records, columns=decoded.columns)])
        except Unavailable as error:
            return error.code != "out_of_memory"
        stored.update(numbers)
        return outcome.accepted.total() == count

    large = [append(number * 1_000_000, 30_000) for number in range(3)]
    assert not all(large)  # how much memory a commit takes depends on how its threads take turns
    for number in range(20):  # what is refused succeeds when it is sent again
        assert append(5_000_000 + number * 500, 500) or append(5_000_000 + number * 500, 500)
    with pytest.raises(Unavailable) as too_much:
        store.check(None)
    assert too_much.value.code == "out_of_memory"
    store.close()
    store = DuckStore(tmp_path, 1 << 30)  # and not a value of one event stands with another
    rows = [row for batch in store.events("org", DAY, DAY + 1, ["images"]) for row in batch.to_pylist()]
    assert {row["images"] for row in rows} == stored
    assert all(int(row["id"]) == int(row["user_id"]) == row["images"] for row in rows)
    assert store.check(None) == []
    store.close()


def test_keys_that_cannot_be_written_are_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as (server, client):
        assert post(client, 0, 10).status_code == 200
        other = server.key("org-default")
        with limited(server, resource.RLIMIT_FSIZE, 1), server.http(other) as newcomer:
            assert images(newcomer) == 10
            assert refused(newcomer.post("/v1/organization/admin_api_keys", json={"name": "new"})) == "keys_unavailable"
        wait_for_status(server, "ready")


def test_a_clock_that_jumps_harms_nothing(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    data = tmp_path / "data"
    server = Server.start(data, env=clock.env)
    event = {"kind": "images", "images": 1}
    with server.http() as client:
        page: dict[str, str | int] = {"start_time": DAY, "limit": 1}
        first = client.get("/v1/organization/usage/images", params=page).json()
        for number, years in enumerate((0, 1, 0, 100, -1, -50, 7_000, 0)):
            clock.set(years * 365 * 86_400)
            for sent in ([event] * 3, [{**event, "id": f"e{number}"}]):
                assert client.post(PATH, json=sent).json()["accepted"] == len(sent)
            answer = client.get("/v1/organization/usage/images", params={**page, "page": first["next_page"]})
            assert answer.status_code == (200 if years >= 0 else 400), answer.text  # that day is yet to come then
            assert client.get("/v1/organization/usage/check").json()["ok"]
            assert client.get("/readyz").status_code == 200
        assert client.get("/v1/organization/usage/check").json()["events"] == 8 * 4
    assert server.stop() == 0
    assert "Traceback" not in read_log(data)
