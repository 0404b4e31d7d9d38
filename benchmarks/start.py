"""How long a server takes from its command to `/readyz`."""

import http.client
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import urlsplit

import msgspec

from benchmarks.effort import Effort
from benchmarks.events import bodies
from benchmarks.ingest import EVENTS_IN_BODY, fill
from benchmarks.results import Result
from benchmarks.stores import Store
from benchmarks.times import Turns
from tallybook.clock import now_s
from tallybook.keys import ALL_SCOPES, KeyStore
from tallybook.lock import Address
from tallybook.store.duckdb import FILE_NAME
from tests.support import COMMAND, Server

START_S_MAX: Final = 120
LOOK_EVERY_S: Final = 0.002


def measure(store: Store, effort: Effort) -> Iterator[Result]:
    """Start on the store after a clean stop, then after kills while bulk bodies come in; beside an empty store."""
    empty = Turns([_start_and_stop(store.place / f"empty-{turn}") for turn in range(effort.starts)])
    with store.to_write() as data:
        stopped = Turns([_start_and_stop(data) for _ in range(effort.starts)])
        random, logs, taken = Random(1), [], []
        for _ in range(effort.starts):
            logs.append(_kill_under_load(data, random.uniform(*effort.pressure_s), 2 * effort.bulk_events))
            taken.append(_start_and_stop(data))
    killed = Turns(taken)
    for name, ours, note in (
        ("start after a stop", stopped, f"median of {effort.starts}"),
        ("start after a kill under load", killed, f"log to replay: {min(logs):.0f} to {max(logs):.0f} MiB"),
    ):
        yield Result(
            name=name,
            ours=ours.middle,
            reference=empty.middle,
            events=store.filled.events,
            spread=ours.spread,
            note=note,
        )


def _start_and_stop(data: Path) -> float:
    server, elapsed_s = start(data)
    if code := server.stop():
        raise RuntimeError(f"the server ended with {code}")
    return elapsed_s


def start(data: Path) -> tuple[Server, float]:
    """Start a server; return it, and the seconds from the command to the first 200 of `/readyz`."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "server.log").open("ab") as log:
        command = [*COMMAND, "serve", "--data", str(data), "--port", "0", "--log-format", "json"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not (url := _ready(data, process.pid)):
            if process.poll() is not None or time.perf_counter() > started + START_S_MAX:
                raise RuntimeError(f"the server is not ready; its log is {data / 'server.log'}")
            time.sleep(LOOK_EVERY_S)
        elapsed_s = time.perf_counter() - started
        keys = KeyStore(data)
        admin_key = keys.create("org-default", "bench", ALL_SCOPES, now_s())[1]
        keys.close()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Server(process, data, url, admin_key), elapsed_s


def _ready(data: Path, pid: int) -> str | None:
    try:
        address = msgspec.json.decode((data / "server.json").read_bytes(), type=Address)
        if address.pid != pid:
            return None
        connection = http.client.HTTPConnection(urlsplit(address.url).netloc, timeout=START_S_MAX)
        connection.request("GET", "/readyz")
        is_ready = connection.getresponse().status == 200
        connection.close()
    except (OSError, msgspec.DecodeError, http.client.HTTPException):
        return None
    return address.url if is_ready else None


def _kill_under_load(data: Path, after_s: float, events: int) -> float:
    """Fill a server and kill it in the midst of that; return how long its log then is, in MiB."""
    server, _ = start(data)
    now_ms = now_s() * 1000
    made = bodies(events, EVENTS_IN_BODY, now_ms - 3_600_000, now_ms, seed=server.pid)

    def pour() -> None:
        with suppress(OSError, http.client.HTTPException):
            fill(server, made)

    thread = threading.Thread(target=pour)
    thread.start()
    time.sleep(after_s)
    server.kill()
    thread.join()
    log = data / f"{FILE_NAME}.wal"
    return log.stat().st_size / 2**20 if log.exists() else 0.0
