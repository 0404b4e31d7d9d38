"""What tests share: one running server, and an organization of its own for each test."""

import itertools
import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.support import Server

_number = itertools.count()

# Whoever is started in the background by a script ignores it, and so would all processes that are started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Tests give wrong keys by the dozen, all from one address.
    running = Server.start(tmp_path_factory.mktemp("server"), args=["--wrong-keys-max", "1000000"])
    yield running
    assert running.stop() == 0


@pytest.fixture
def organization() -> str:
    return f"org-test-{os.getpid()}-{next(_number)}"


@pytest.fixture
def api(server: Server, organization: str) -> Iterator[httpx.Client]:
    with server.http(server.key(organization)) as client:
        yield client
