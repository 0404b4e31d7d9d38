"""A store that an earlier version wrote opens, becomes a current one, and answers the same (see stores/README.md)."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from tallybook.store.duckdb import FILE_NAME
from tallybook.store.schema import MIGRATIONS, VERSION, current_version, migrate
from tests.model import Event
from tests.support import COMMAND, Server

STORES = Path(__file__).parent / "stores"
VERSIONS = range(1, VERSION)
ORGANIZATIONS = ("org-default", "org-company", "org-edge")
KEY_LENGTH = 41
FIRST_DAY, END = 1_748_822_400, 1_749_168_000  # 2025-06-02 to 2025-06-06
EVENTS = "/v1/organization/usage/events"
CHECK = "/v1/organization/usage/check"
STATEMENTS_AROUND = 3
"""Of each migration: its begin, its note of the version, its commit."""


@dataclass(frozen=True)
class Old:
    """A directory as an earlier version left it, with what that version answered."""

    directory: Path
    answers: list[dict[str, str]]
    events: list[dict[str, Any]]


def unpacked(version: int, directory: Path) -> Old:
    with tarfile.open(STORES / f"version-{version}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    answers, events = (
        [json.loads(line) for line in (directory / f"{name}.ndjson").read_text().splitlines()]
        for name in ("answers", "events")
    )
    assert version_of(directory) == version
    return Old(directory, answers, events)


EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def version_of(directory: Path) -> int:
    """The version of a store that no process has open, found on a copy: opening a store replays its log."""
    copy = directory.parent / "copy"
    shutil.copytree(directory, copy)
    with duckdb.connect(str(copy / FILE_NAME)) as connection:
        version = current_version(connection)
    shutil.rmtree(copy)
    return version


@dataclass(frozen=True)
class Clients:
    """A client in each organization, with the keys that the earlier version made."""

    of: dict[str, httpx.Client]

    def get(self, organization: str, path: str) -> httpx.Response:
        answer = self.of[organization].get(path)
        assert answer.status_code == 200, f"{organization} {path}\n{answer.text}"
        return answer


@contextmanager
def opened(old: Old) -> Iterator[Clients]:
    """Serve a directory with the current code."""
    server = Server.start(old.directory)
    try:
        yield Clients({name: server.http(f"sk-admin-{name}-".ljust(KEY_LENGTH, "x")) for name in ORGANIZATIONS})
    finally:
        assert server.stop() == 0


def test_there_is_a_store_of_every_earlier_version() -> None:
    assert {path.name for path in STORES.glob("*.tar.xz")} == {f"version-{version}.tar.xz" for version in VERSIONS}


@EVERY_VERSION
def test_it_answers_as_before_and_goes_on(version: int, tmp_path: Path) -> None:
    old = unpacked(version, tmp_path / "data")
    with opened(old) as clients:
        assert_same_answers(clients, old)
        for organization in ORGANIZATIONS:
            window = {"start_time": FIRST_DAY, "end_time": END}
            rebuilt = clients.of[organization].post("/v1/organization/usage/rebuild", json=window)
            assert rebuilt.json()["days"] >= 3, rebuilt.text
        assert_same_answers(clients, old)  # raw events and rollups say the same
        assert_recognised(clients, old)
        assert_mended(clients.of["org-default"])


def assert_same_answers(clients: Clients, old: Old, one_in: int = 1) -> None:
    assert len(old.answers) > 150
    for asked in old.answers[::one_in]:
        now = clients.get(asked["organization"], asked["path"]).text
        if "format=csv" in asked["path"]:
            names, rows = table(asked["answer"])
            there, found = table(now)
            assert set(names) <= set(there)
            assert Counter(selected(found, names)) == Counter(selected(rows, names)), asked["path"]
        else:
            assert in_order(now) == in_order(asked["answer"]), f"{asked['organization']} {asked['path']}"
    for organization in ORGANIZATIONS:
        verdict = clients.get(organization, CHECK).json()
        assert verdict["ok"] is True, verdict
        assert verdict["schema_version"] == VERSION


def table(text: str) -> tuple[list[str], list[dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text))
    return list(reader.fieldnames or ()), list(reader)


def selected(rows: list[dict[str, str]], names: list[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(row[name] for name in names) for row in rows)


def in_order(text: str) -> Any:
    """A page with exact numbers, and its results in an order that does not matter; cursors are a version's own.

    Versions before 5 did not say what a quarantined event came in; none here says what a price file counts.
    """
    body = json.loads(text, parse_float=Decimal)
    if "next_page" in body:
        body["next_page"] = body["next_page"] is not None
    for bucket in body["data"]:
        for name in ("result", "results"):
            if name in bucket:
                bucket[name].sort(key=repr)
        if bucket.get("object") == "organization.usage.quarantined_event":
            bucket.setdefault("source", "events")
        if bucket.get("object") == "organization.costs.unpriced":
            bucket.pop("counted", None)
    return body


def assert_recognised(clients: Clients, old: Old) -> None:
    """What is stored is not stored again, also if it says something else now; what is new is."""
    fresh = {"kind": "images", "id": "after the upgrade", "timestamp": FIRST_DAY + 60, "images": 3}
    for organization, api in clients.of.items():
        before = clients.get(organization, CHECK).json()["events"]
        stored = events_of(old, organization)
        receipt = api.post(EVENTS, json=stored).json()
        assert (receipt["duplicates"], receipt["faults"]) == (len(stored), [])
        receipt = api.post(EVENTS, json=[fresh, stored[0] | {"project_id": "of somebody else"}]).json()
        assert (receipt["accepted"], receipt["conflicts"]) == (1, 1), receipt
        assert clients.get(organization, CHECK).json()["events"] == before + 1


def events_of(old: Old, organization: str) -> list[Event]:
    return [line["event"] for line in old.events if line["organization"] == organization]


def assert_mended(api: httpx.Client) -> None:
    """What waits in quarantine can be mended and replayed."""
    path = "/v1/organization/usage/quarantine"
    waiting = api.get(path, params={"limit": 100, "order": "asc"}).json()["data"]
    mended = {"kind": "completions", "id": "mended later", "timestamp": FIRST_DAY + 1, "input_tokens": 1}
    assert api.post(f"{path}/{waiting[0]['id']}/replay", json=mended).json()["accepted"] == 1
    assert api.get(path, params={"limit": 100, "order": "asc"}).json()["data"] == waiting[1:]


def test_costs_that_events_brought_with_them_count_although_there_were_no_prices(tmp_path: Path) -> None:
    old = unpacked(1, tmp_path / "data")
    with opened(old) as clients:
        for organization in ORGANIZATIONS:
            given = [event["cost"]["value"] for event in events_of(old, organization) if "cost" in event]
            answer = clients.get(organization, f"/v1/organization/costs?start_time={FIRST_DAY}&end_time={END}")
            rows = [row for bucket in in_order(answer.text)["data"] for row in bucket["results"]]
            assert sum(Decimal(row["amount"]["value"]) for row in rows) == sum(Decimal(str(value)) for value in given)


# Run as a process of its own: it opens a store as the server does, and dies at one of the migration's statements.
MORTAL = """
import os, signal, sys
import duckdb
from tallybook.store.schema import migrate

class Mortal:
    left = int(sys.argv[2])
    def __init__(self, connection):
        self.connection = connection
    def __getattr__(self, name):
        if name in ("execute", "begin", "commit", "sql", "executemany"):
            if Mortal.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            Mortal.left -= 1
        return getattr(self.connection, name)

migrate(Mortal(duckdb.connect(sys.argv[1])))
"""


@EVERY_VERSION
def test_a_migration_killed_half_way_leaves_a_version_that_migrates_then(version: int, tmp_path: Path) -> None:
    old = unpacked(version, tmp_path / "data")
    reached = [version]
    for fifth in range(5):
        statements = sum(len(migration) + STATEMENTS_AROUND for migration in MIGRATIONS[reached[-1] :])
        command = [sys.executable, "-c", MORTAL, str(old.directory / FILE_NAME), str(statements * fifth // 5)]
        assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
        reached.append(version_of(old.directory))
    assert reached == sorted(reached)
    assert reached[1] == version
    with opened(old) as clients:
        assert_same_answers(clients, old, one_in=9)


def test_a_server_killed_while_it_upgrades_upgrades_then(tmp_path: Path) -> None:
    """At any moment of its start: also those at which it does something else to a store than migrate it."""
    begun_s = time.monotonic()
    assert Server.start(unpacked(VERSIONS[-1], tmp_path / "other").directory).stop() == 0
    start_s = time.monotonic() - begun_s
    old = unpacked(VERSIONS[-1], tmp_path / "data")
    for part in (0.5, 0.6, 0.7, 0.8):
        command = [*COMMAND, "serve", "--data", str(old.directory), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
            time.sleep(start_s * part)
            starting.kill()
    with opened(old) as clients:
        assert_same_answers(clients, old, one_in=9)


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / FILE_NAME)) as connection:
        migrate(connection)
        connection.execute("INSERT INTO schema_version VALUES (?, 0)", [VERSION + 1])
    before = (tmp_path / FILE_NAME).read_bytes()
    command = [*COMMAND, "serve", "--data", str(tmp_path), "--port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert f"version {VERSION + 1}" in refused.stderr
    assert f"up to {VERSION}" in refused.stderr
    assert "newer tallybook" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / FILE_NAME).read_bytes() == before
