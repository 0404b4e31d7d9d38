"""What the tests do for seconds, for an hour: kills, bad requests, fuzzing, overload. `make soak`."""

import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cyclopts

from tests import overload
from tests.bad_requests import Flood
from tests.crash import OPERATIONS, Kills
from tests.fuzz import TARGETS
from tests.support import Server, resident_bytes

KILL_S = 60
"""Several times what a kill takes on a machine that has nothing else to do, the checks after it included."""
ROUNDS = 6
"""How often the same bad requests are sent. What they leave behind, such as entries in quarantine, they leave once."""
WARM_UP_ROUNDS = 2
"""After these memory is measured: a server that has just started grows."""
ENGINE_BYTES_MAX = 128 * 1024 * 1024
"""Its cache is filled soon, and is not what a leak would be looked for in."""
GROWTH_BYTES_MAX = 64 * 1024 * 1024
"""What memory in use goes up and down by, by chance. A leak of a kilobyte a request is as much."""
MISSES_MAX = 5
"""A run of fewer kills for each operation may miss one."""


def main(
    *, kills: int = 200, requests: int = 100_000, fuzz_s: int = 60, overload_s: float = 300, seed: int = 1
) -> None:
    """Run all four, and print what happened; fail as soon as something is not as promised.

    Args:
        kills: how often to kill a server while it does all it can do.
        requests: how many bad requests to send.
        fuzz_s: how long to feed each parser what reaches new code in it.
        overload_s: how long to send ten times what a server can take.
        seed: of the dice.
    """
    if kills:
        _kill(kills, seed)
    if requests:
        _flood(requests, seed)
    if fuzz_s:
        _fuzz(fuzz_s)
    if overload_s:
        overload.main(overload_s)


def _kill(kills: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = Kills(Path(directory), random.Random(seed))
        found.run(kills, kills * KILL_S)
        print(found.told(), flush=True)
    missed = [name for name in OPERATIONS if not found.hits[name]]
    assert not missed or kills < MISSES_MAX * len(OPERATIONS), f"no kill came during {missed}"


def _flood(requests: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = Server.start(
            Path(directory), args=["--log-level", "warning", "--memory-bytes-max", str(ENGINE_BYTES_MAX)]
        )
        try:
            key = server.key("org-flooded")
            began_s = time.monotonic()
            memory = []
            for _ in range(ROUNDS):
                flood = Flood(server, seed, key)
                flood.send(requests // ROUNDS)
                memory.append(resident_bytes(server.pid))
                print(
                    f"{flood.sent.total()} bad requests, {time.monotonic() - began_s:.0f} s after the first; answers "
                    f"{dict(sorted(flood.answers.items()))}; memory {memory[-1]:,} bytes",
                    flush=True,
                )
            assert memory[-1] - memory[WARM_UP_ROUNDS - 1] < GROWTH_BYTES_MAX
        finally:
            assert server.stop() == 0
        assert "Traceback" not in (Path(directory) / "server.log").read_text()


def _fuzz(seconds: int) -> None:
    if not importlib.util.find_spec("atheris"):
        print("nothing fuzzed: atheris is not installed")
        return
    for name in TARGETS:
        command = [sys.executable, "-m", "tests.fuzz", name, f"-max_total_time={seconds}", "-print_final_stats=1"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        (runs,) = re.findall(r"number_of_executed_units: (\d+)", ended.stderr)
        print(f"{name}: {runs} inputs, none of them trouble", flush=True)


if __name__ == "__main__":
    cyclopts.run(main)
