"""What goes wrong with disks, memory and clocks, made to happen to a running server; as any user, on any machine."""

import ctypes
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support import Server

_DROP_CAPABILITY = 24
"""PR_CAPBSET_DROP of prctl(2)."""
_IGNORES_PERMISSIONS = 1
"""CAP_DAC_OVERRIDE: root has it, and would write to what nobody may write to."""
_CLOCK = """
import os, time

_time, _time_ns = time.time, time.time_ns

def _offset_s():
    with open(os.environ["TEST_CLOCK"]) as file:
        return int(file.read() or 0)

time.time = lambda: _time() + _offset_s()
time.time_ns = lambda: _time_ns() + _offset_s() * 1_000_000_000
"""


@contextmanager
def limited(server: Server, kind: int, value: int) -> Iterator[None]:
    """Have the system refuse a server what is beyond a limit; it may do all again in the end.

    Args:
        kind: `resource.RLIMIT_FSIZE` stands for a full disk, for each file; `RLIMIT_NOFILE` for files that are open.
        value: the limit.
    """
    soft, hard = resource.prlimit(server.pid, kind)
    resource.prlimit(server.pid, kind, (value, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, kind, (soft, hard))


def open_files(server: Server) -> int:
    """How many files a server has open."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def obey_permissions() -> None:
    """Take from this process and what it starts the right to ignore file permissions; without it, nothing changes."""
    ctypes.CDLL(None).prctl(_DROP_CAPABILITY, _IGNORES_PERMISSIONS, 0, 0, 0)


def wait_for_status(server: Server, status: str, within_s: float = 10) -> dict[str, str]:
    """Wait until a server says that it is in some state; return all it says of it."""
    deadline = time.monotonic() + within_s
    while True:
        found: dict[str, str] = httpx.get(f"{server.url}/readyz", trust_env=False, verify=False).json()
        if found["status"] == status:
            return found
        assert time.monotonic() < deadline, f"{found} and not {status} after {within_s} s"
        time.sleep(0.02)


class Clock:
    """The clock of a server's machine, which can be put forward and back while it runs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._offset = directory / "offset"
        self.set(0)
        (directory / "sitecustomize.py").write_text(_CLOCK)
        paths = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {"TEST_CLOCK": str(self._offset), "PYTHONPATH": os.pathsep.join(paths)}

    def set(self, offset_s: int) -> None:
        """Put the clock so many seconds ahead of the true time."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(offset_s))
        new.replace(self._offset)
