"""Whatever comes over the line, the server answers or hangs up, goes on, and does not grow. More of it: `make soak`."""

from pathlib import Path

import pytest

from tests.bad_requests import Flood
from tests.support import Server, resident_bytes

REQUESTS = 3_000
WARM_UP = 1_000
GROWTH_BYTES_MAX = 64 * 1024 * 1024


@pytest.mark.timeout(300)
def test_bad_requests_neither_fail_nor_hurt(tmp_path: Path) -> None:
    server = Server.start(tmp_path)
    try:
        flood = Flood(server, 20_250_602, server.key("org-flooded"))
        flood.send(WARM_UP)
        before = resident_bytes(server.pid)
        flood.send(REQUESTS - WARM_UP)
        print(flood.sent, flood.answers, f"{before} bytes, then {resident_bytes(server.pid)}")
        assert resident_bytes(server.pid) - before < GROWTH_BYTES_MAX
        with server.http() as api:
            assert api.get("/readyz").status_code == 200
            assert api.get("/v1/organization/usage/check").json()["ok"] is True
        assert {200, 400, 401, 404, 405, 413, 415} <= set(flood.answers), flood.answers
        assert len(flood.sent) == 14
    finally:
        assert server.stop() == 0
    assert '"level": "error"' not in (tmp_path / "server.log").read_text()
