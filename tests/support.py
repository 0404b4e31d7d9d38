"""The real server as a process, for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import msgspec

from tallybook.clock import now_s
from tallybook.keys import ALL_SCOPES, KeyStore, Scope
from tallybook.lock import Address

COMMAND = (sys.executable, "-m", "tallybook")
START_S_MAX = 30
STOP_S_MAX = 30


class Server:
    """A running server: its address, its data directory, its first admin key."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, url: str, admin_key: str) -> None:
        self._process = process
        self.data = data
        self.url = url
        self.admin_key = admin_key
        self.pid = process.pid

    @classmethod
    def start(
        cls,
        data: Path,
        *,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        before: Callable[[], None] | None = None,
    ) -> "Server":
        """Start a server on a directory and wait until it is ready; `before` runs in its process, first of all."""
        data.mkdir(parents=True, exist_ok=True)
        log = (data / "server.log").open("ab")
        process = subprocess.Popen(
            [*COMMAND, "serve", "--data", str(data), "--port", str(port), "--log-format", "json", *args],
            env={**os.environ, **(env or {})},
            stdout=log,
            stderr=log,
            preexec_fn=before,  # noqa: PLW1509  it sets limits of the process, and takes no lock
        )
        log.close()
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}: {read_log(data)}")
            url = _ready(data, process.pid)
            if url:
                admin_key = KeyStore(data).create("org-default", "test", ALL_SCOPES, now_s())[1]
                return cls(process, data, url, admin_key)
            time.sleep(0.01)
        process.kill()
        raise RuntimeError(f"the server is not ready after {START_S_MAX} s: {read_log(data)}")

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        self._process.send_signal(number)

    @property
    def is_running(self) -> bool:
        """Whether the server has not ended yet."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Return the exit code once the server has ended."""
        return self._process.wait(STOP_S_MAX)

    def stop(self) -> int:
        """Ask the server to stop; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End the server without warning."""
        self._process.kill()
        self._process.wait(STOP_S_MAX)

    def key(self, organization: str, scopes: Sequence[str] = ALL_SCOPES) -> str:
        """Make a key while the server runs."""
        keys = KeyStore(self.data)
        try:
            return keys.create(organization, "test", [Scope(scope) for scope in scopes], now_s())[1]
        finally:
            keys.close()

    def http(self, key: str | None = None) -> httpx.Client:
        """A client with a key, the admin key if none is given."""
        return httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key or self.admin_key}"},
            timeout=60,
            trust_env=False,
            verify=False,  # plain HTTP on loopback; building a TLS context would take longer than most tests
        )


def _ready(data: Path, pid: int) -> str | None:
    try:
        address = msgspec.json.decode((data / "server.json").read_bytes(), type=Address)
        if address.pid != pid:
            return None
        return address.url if httpx.get(f"{address.url}/readyz", trust_env=False, verify=False).is_success else None
    except (OSError, msgspec.DecodeError, httpx.HTTPError):
        return None


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in use, by Linux's count."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def read_log(data: Path) -> str:
    """The end of what a server wrote to its log."""
    return (data / "server.log").read_text()[-4000:]
