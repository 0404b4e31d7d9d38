"""A backup is a data directory at one instant, whole or not there at all; restored, it answers as the original did."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tallybook.cli.backup import backup, restore
from tallybook.errors import OperatorError
from tallybook.ingest.decode import decode
from tallybook.keys import KeyStore
from tallybook.lock import hold_backup
from tallybook.store.duckdb import DuckStore
from tallybook.store.protocol import Batch
from tests.crash import EVENTS, SINCE_S, UNTIL_S, Load, Request, assert_holds, made, ndjson, projects_there, resent
from tests.model import KINDS, Event
from tests.support import COMMAND, Server
from tests.test_cli import run

ORGANIZATION = "/v1/organization"
HEADER_BYTES = 3 * 4096
MEMORY_BYTES = 256 * 1024 * 1024
WAIT_S = 30
LEFT_IN_CHECKPOINT = """
import os, sys, threading
from contextlib import suppress
from pathlib import Path
import duckdb
from tallybook.store.duckdb import DuckStore

store = DuckStore(Path(sys.argv[1]), 1 << 28)
store._writer.execute("SET debug_checkpoint_abort = 'before_truncate'")
committing = store._writer.cursor()
committed = 0

def checkpoint():
    with suppress(duckdb.Error):
        store._writer.cursor().execute("CHECKPOINT")

def commit():
    global committed
    committing.execute("INSERT INTO quarantine VALUES (1, 'quar', 'org-default', make_timestamp(0), 'x', '[]', NULL)")
    committed += 1

commit()
threading.Thread(target=checkpoint).start()
with suppress(duckdb.Error):
    while True:
        commit()
print(committed, flush=True)
os._exit(9)
"""
"""Ends as a kill does while a checkpoint is under way and another commit came after its beginning."""


@contextmanager
def served(data: Path, *args: str) -> Iterator[Server]:
    server = Server.start(data, args=args)
    try:
        yield server
    finally:
        assert server.stop() == 0


def image(number: int) -> dict[str, object]:
    return {"kind": "images", "id": str(number), "timestamp": SINCE_S + number, "images": 1}


def images(api: httpx.Client) -> int:
    page = api.get(f"{ORGANIZATION}/usage/images", params={"start_time": SINCE_S, "end_time": UNTIL_S}).json()
    return sum(row["images"] for bucket in page["data"] for row in bucket["results"])


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A data directory with one event that no server runs on."""
    data = tmp_path / "data"
    data.mkdir()
    store = DuckStore(data, MEMORY_BYTES)
    store.append([Batch("org-default", decode(ndjson([image(1)]), UNTIL_S * 1000, 1).records)])
    store.close()
    KeyStore(data).close()
    return data


@pytest.fixture
def kept(stored: Path) -> Path:
    """A backup of it."""
    target = stored.parent / "backup"
    backup(target, data=stored)
    return target


def refusal(source: Path, data: Path, *, replace: bool = False) -> str:
    """What a restore is refused with."""
    with pytest.raises(OperatorError) as refused:
        restore(source, data=data, replace=replace)
    return str(refused.value)


def answers(api: httpx.Client) -> dict[str, bytes]:
    """Whatever can be asked, as bytes."""
    window: dict[str, object] = {"start_time": SINCE_S, "end_time": UNTIL_S}
    asked: list[tuple[str, dict[str, object]]] = [
        (f"usage/{kind}", {**window, "bucket_width": width, "group_by": "project_id"})
        for kind in KINDS
        for width in ("1m", "1h", "1d")
    ]
    asked += [("costs", {**window, "group_by": by}) for by in ("line_item", "model", "user_id")]
    asked += [(path, window) for path in ("costs/unpriced", "usage/export", "costs/export")]
    asked += [(path, {}) for path in ("costs/reratings", "usage/quarantine")]
    found = {}
    for path, parameters in asked:
        answer = api.get(f"{ORGANIZATION}/{path}", params=parameters)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        found[f"{path} {parameters}"] = answer.content
    return found


def test_a_restored_backup_answers_every_question_as_the_original_did(tmp_path: Path) -> None:
    rng = random.Random(4)
    with served(tmp_path / "data") as server, server.http() as api:
        events = [priced(made(rng, f"p{number % 3}", number)) for number in range(300)]
        receipt = api.post(EVENTS, content=ndjson(events)).json()
        assert receipt["accepted"] == len(events), receipt
        api.post(EVENTS, json={"kind": "nothing known"})
        body = {"start_time": SINCE_S, "end_time": UNTIL_S, "dry_run": False}
        api.post(f"{ORGANIZATION}/costs/rerate", json=body).raise_for_status()
        expected = answers(api)
        assert "Backed up 300 events" in run("backup", tmp_path / "backup", "--data", server.data)
        api.post(EVENTS, json=image(1)).raise_for_status()
        assert answers(api) != expected, "what comes later is no part of it"
        keys = api.get(f"{ORGANIZATION}/admin_api_keys").json()["data"]
        key = server.admin_key
    assert "Restored 300 events" in run("restore", tmp_path / "backup", "--data", tmp_path / "other")
    with served(tmp_path / "other") as server, server.http(key) as api:
        assert answers(api) == expected
        assert api.get(f"{ORGANIZATION}/usage/check").json()["ok"]
        restored = api.get(f"{ORGANIZATION}/admin_api_keys").json()["data"]
        assert [key["id"] for key in restored if key["name"] != "test"] == [
            key["id"] for key in keys if key["name"] != "test"
        ], "neither more nor fewer keys: none of the command's own"


def priced(event: Event) -> Event:
    """The event with a model that has a list price, if it has a model."""
    return event | ({"model": "gpt-4o"} if "model" in event else {})


def test_a_backup_under_load_has_all_that_was_acknowledged_before_it_and_nothing_by_halves(tmp_path: Path) -> None:
    rng = random.Random(5)
    with served(tmp_path / "data", "--compact-every-s", "1") as server:
        load = Load(server, server.key(f"org-{uuid4().hex}"), rng)
        before: list[Request] = []
        after: list[Request] = []

        def meanwhile() -> None:
            time.sleep(1)
            before.extend(request for request in load.requests if request.acknowledged_s is not None)
            backup(tmp_path / "backup", data=server.data)
            after.extend(load.requests)

        load.run(meanwhile)
        assert before
    restore(tmp_path / "backup", data=tmp_path / "other")
    with served(tmp_path / "other") as server, server.http(load.key) as api:
        there = projects_there(api)
        assert {request.project_id for request in before} - there == set(), "acknowledged, and not backed up"
        assert there - {request.project_id for request in after} == set(), "sent only after it"
        assert_holds(api, [request for request in load.requests if request.project_id in there], rng)
        verdict = api.get(f"{ORGANIZATION}/usage/check").json()
        assert verdict["ok"] is True, verdict
        absent = sum(len(request.events) for request in load.requests if request.project_id not in there)
        assert resent(api, load.requests) == absent


def header(data: Path) -> bytes:
    with (data / "tallybook.duckdb").open("rb") as file:
        return file.read(HEADER_BYTES)


def compacted(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    (line,) = (line for line in text.splitlines() if line.startswith("tallybook_compacted_rows_total"))
    return float(line.split()[1])


def test_the_main_file_is_written_again_only_when_the_backup_is_over(tmp_path: Path) -> None:
    """Compaction checkpoints; while a backup is made it must not."""
    with served(tmp_path / "data", "--compact-every-s", "1") as server, server.http() as api:

        def compaction() -> None:
            saved, deadline = compacted(server), time.monotonic() + WAIT_S
            while compacted(server) == saved:
                assert time.monotonic() < deadline
                api.post(EVENTS, json=image(random.randrange(86_400))).raise_for_status()
            time.sleep(0.5)

        compaction()
        assert header(server.data) != b""
        with hold_backup(server.data):
            assert api.post(f"{ORGANIZATION}/usage/backup").json() == {
                "object": "organization.usage.backup",
                "held": True,
            }
            held = header(server.data)
            compaction()
            compaction()
            assert header(server.data) == held
        time.sleep(2)
        compaction()
        assert header(server.data) != held


def test_a_key_alone_holds_nothing(api: httpx.Client) -> None:
    refusal = api.post(f"{ORGANIZATION}/usage/backup")
    assert refusal.status_code == 400
    assert refusal.json()["error"]["code"] == "no_backup"


def test_a_backup_without_a_server_has_what_is_only_in_the_log_after_a_kill(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data")
    with server.http() as api:
        api.post(EVENTS, json=image(1)).raise_for_status()
    server.kill()
    backup(tmp_path / "backup", data=server.data)
    assert {path.name for path in (tmp_path / "backup").iterdir()} == {
        "keys.sqlite3",
        "manifest.json",
        "tallybook.duckdb",
        "tallybook.duckdb.commits",
        "tallybook.duckdb.wal",
    }
    restore(tmp_path / "backup", data=tmp_path / "other")
    with served(tmp_path / "other") as server, server.http() as api:
        assert images(api) == 1


def test_a_store_that_lacks_acknowledged_commits_makes_no_backup(stored: Path) -> None:
    server = Server.start(stored)
    with server.http() as api:
        api.post(EVENTS, json=image(2)).raise_for_status()
    server.kill()
    (stored / "tallybook.duckdb.wal").unlink()
    with pytest.raises(OperatorError, match="1 commits, but 2 were acknowledged"):
        backup(stored.parent / "backup", data=stored)
    assert [path.name for path in stored.parent.iterdir()] == ["data"]


def test_a_checkpoint_broken_off_by_a_kill_is_finished_first(tmp_path: Path) -> None:
    for attempt in range(20):
        data = tmp_path / str(attempt)
        data.mkdir()
        done = subprocess.run([sys.executable, "-c", LEFT_IN_CHECKPOINT, data], stdout=subprocess.PIPE, check=False)
        assert done.returncode == 9
        if (data / "tallybook.duckdb.wal.checkpoint").exists():
            break
    else:
        pytest.fail("no commit came between the beginning of a checkpoint and its end")
    backup(tmp_path / "backup", data=data)
    manifest = json.loads((tmp_path / "backup" / "manifest.json").read_bytes())
    assert manifest["rows"]["quarantine"] >= int(done.stdout)


def started(data: Path, target: Path) -> subprocess.Popen[str]:
    """A backup that has begun to write."""
    process = subprocess.Popen(
        [*COMMAND, "backup", str(target), "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + WAIT_S
    while not list(target.parent.glob(f".{target.name}.part")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process


def test_a_killed_backup_leaves_nothing_that_looks_like_one_and_the_next_one_works(tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with served(tmp_path / "data") as server, server.http() as api:
        for number in range(3):
            api.post(EVENTS, json=image(number)).raise_for_status()
            process = started(server.data, target)
            process.kill()
            process.communicate()
            assert not target.exists()
        backup(target, data=server.data)
        assert [path.name for path in tmp_path.glob("*back*")] == ["backup"]
        assert list(tmp_path.glob(".*")) == []
        api.post(EVENTS, json=image(9)).raise_for_status()
    restore(target, data=tmp_path / "other")
    with served(tmp_path / "other") as server, server.http() as api:
        assert images(api) == 3


def test_a_backup_that_is_interrupted_clears_up(stored: Path) -> None:
    process = started(stored, stored.parent / "backup")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_S)
    assert (process.returncode, "Traceback" in said) == (130, False)
    assert [path.name for path in stored.parent.iterdir()] == ["data"]


def test_a_server_killed_during_a_backup_spoils_neither(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data")
    with server.http() as api:
        api.post(EVENTS, content=ndjson([image(number) for number in range(1000)])).raise_for_status()
    process = started(server.data, tmp_path / "backup")
    server.kill()
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    restore(tmp_path / "backup", data=tmp_path / "other")
    for data in (tmp_path / "data", tmp_path / "other"):
        with served(data) as server, server.http() as api:
            assert images(api) == 1000


def test_a_disk_without_room_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """Files may only be shorter than the store's: writing fails where it would on a full disk."""
    with served(tmp_path / "data") as server, server.http() as api:
        api.post(EVENTS, content=ndjson([image(number) for number in range(20_000)])).raise_for_status()
        limit_bytes = 128 * 1024
        done = subprocess.run(
            [*COMMAND, "backup", tmp_path / "backup", "--data", server.data],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 1
        assert f"cannot make the backup {tmp_path / 'backup'}" in done.stderr
        assert "File too large" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        assert images(api) == 20_000
        backup(tmp_path / "backup", data=server.data)


def test_targets_that_make_no_sense_are_refused(stored: Path) -> None:
    (stored.parent / "there").mkdir()
    for target, data, said in (
        (stored.parent / "there", stored, "exists already"),
        (stored / "backup", stored, "inside the data directory"),
        (stored.parent / "nowhere" / "backup", stored, "is it mounted?"),
        (stored.parent / "backup", stored.parent / "there", "there is no store"),
    ):
        with pytest.raises(OperatorError, match=said):
            backup(target, data=data)
    with hold_backup(stored), pytest.raises(OperatorError, match="another backup"):
        backup(stored.parent / "backup", data=stored)
    assert sorted(path.name for path in stored.parent.iterdir()) == ["data", "there"]


def test_only_its_owner_can_read_a_backup(kept: Path) -> None:
    assert kept.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}


def test_price_files_and_settings_of_the_data_directory_belong_to_it(stored: Path) -> None:
    (stored / "prices.csv").write_text("model,part,price\n")
    (stored / "tallybook.toml").write_text("port = 0\n")
    (stored / "server.log").write_text("no part of it")
    backup(stored.parent / "backup", data=stored)
    restore(stored.parent / "backup", data=stored.parent / "other")
    assert (stored.parent / "other" / "prices.csv").read_text() == "model,part,price\n"
    assert (stored.parent / "other" / "tallybook.toml").read_text() == "port = 0\n"
    assert not (stored.parent / "other" / "server.log").exists()


def test_a_damaged_store_makes_no_backup(stored: Path) -> None:
    with (stored / "tallybook.duckdb").open("r+b") as file:
        file.seek(HEADER_BYTES + 1000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    said = run("backup", stored.parent / "backup", "--data", stored, code=1)
    assert said.startswith("tallybook: cannot open the store")
    assert [path.name for path in stored.parent.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["tallybook.duckdb", "keys.sqlite3"])
def test_a_damaged_backup_is_not_restored(kept: Path, name: str) -> None:
    content = bytearray((kept / name).read_bytes())
    content[len(content) // 2] ^= 1
    (kept / name).write_bytes(content)
    other = kept.parent / "other"
    assert f"{kept / name} is not what was backed up" in refusal(kept, other)
    (kept / name).unlink()
    assert f"{kept / name}: No such file" in refusal(kept, other)
    assert [path.name for path in other.iterdir()] == ["server.lock"]


def test_a_directory_that_is_no_backup_is_not_restored(kept: Path) -> None:
    manifest = kept / "manifest.json"
    good = json.loads(manifest.read_bytes())
    for bad, said in (
        (good | {"format": 99}, "use a newer one"),
        (good | {"schema_version": 99}, "use a newer one"),
        (good | {"files": [{"name": "../escaped", "size_bytes": 1, "sha256": ""}]}, "../escaped"),
        (good | {"rows": good["rows"] | {"events": 2}}, "were backed up"),
        ({}, "damaged"),
        (None, "No such file"),
    ):
        if bad is None:
            manifest.unlink()
        else:
            manifest.write_text(json.dumps(bad))
        assert said in refusal(kept, kept.parent / "other")
    assert sorted(path.name for path in kept.parent.iterdir()) == ["backup", "data", "other"]
    assert {path.name for path in (kept.parent / "other").iterdir()} <= {"server.lock"}


def test_a_directory_in_use_is_not_restored_to(kept: Path) -> None:
    data = kept.parent / "data"
    with served(data) as server, server.http() as api:
        assert "is in use by process" in refusal(kept, data, replace=True)
        assert images(api) == 1


def test_what_is_replaced_is_kept_aside_and_still_good(kept: Path) -> None:
    data = kept.parent / "data"
    with served(data) as server, server.http() as api:
        api.post(EVENTS, json=image(2)).raise_for_status()
    (data / "notes.txt").write_text("not ours")
    assert "is not empty" in refusal(kept, data)
    assert "What was there is in" in run("restore", kept, "--data", data, "--replace")
    (aside,) = data.glob("replaced-*")
    with served(data) as server, server.http() as api:
        assert images(api) == 1
    shutil.move(aside, kept.parent / "old")
    with served(kept.parent / "old") as server, server.http() as api:
        assert images(api) == 2
    assert (data / "notes.txt").read_text() == "not ours"
