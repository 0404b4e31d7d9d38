"""The server under measurement: started, asked, looked at from outside."""

import http.client
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support import Server

TIMEOUT_S: Final = 120
SETTLE_STILL_S: Final = 90
"""Longer than the minute between two compactions."""
SETTLE_S_MAX: Final = 900


class Client:
    """A connection to the server, kept open; leaner than a full client, whose own time would be in the numbers."""

    def __init__(self, server: Server) -> None:
        self._http = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=TIMEOUT_S)
        self._headers = {"authorization": f"Bearer {server.admin_key}"}

    def ask(self, method: str, path: str, body: bytes | None = None, content_type: str | None = None) -> bytes:
        """Return the body of an answer that must be 200."""
        headers = self._headers | ({"content-type": content_type} if content_type else {})
        self._http.request(method, path, body, headers)
        response = self._http.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {path} answered {response.status}: {answer[:1000]!r}")
        return answer

    def metric(self, name: str) -> float:
        """Return a measurement the server makes of itself."""
        found = re.search(rf"^{name} (\S+)$", self.ask("GET", "/metrics").decode(), re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


@contextmanager
def running(data: Path, args: Sequence[str] = ()) -> Iterator[Server]:
    """A server with default settings but those given, stopped in the end, whatever happens."""
    server = Server.start(data, args=args)
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    if code := server.stop():
        raise RuntimeError(f"the server ended with {code}")


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    """A client, closed in the end."""
    client = Client(server)
    try:
        yield client
    finally:
        client.close()


def settle(client: Client) -> None:
    """Wait until compaction has found nothing to do, as in a server that has run for a while."""
    still_since, seen = time.monotonic(), -1.0
    deadline = still_since + SETTLE_S_MAX
    while time.monotonic() < min(deadline, still_since + SETTLE_STILL_S):
        found = client.metric("tallybook_compacted_rows_total")
        if found != seen:
            still_since, seen = time.monotonic(), found
        time.sleep(1)


def resident_mib(server: Server) -> tuple[float, float]:
    """Return the memory a server has now, and the most it ever had."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024
