"""The client's own wheel, in an environment that has nothing but it and httpx."""

import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement

from tests.support import Server

CLIENT = Path(__file__).parents[1] / "client"
SCRIPT = """
import importlib.util, sys
from tallybook.client import Tallybook, attribute

url, key = sys.argv[1:]
with Tallybook(url, key, project_id="bare") as tallybook, attribute(user_id="u1"):
    tallybook.record("embeddings", model="m", input_tokens=7)
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    tallybook.record_response({"id": "c", "object": "chat.completion", "model": "m", "usage": usage})
    assert tallybook.flush()
    assert tallybook.stats().delivered == 2
for absent in ("tallybook.server", "tallybook.event", "duckdb", "msgspec", "openai"):
    try:
        assert importlib.util.find_spec(absent) is None, absent
    except ModuleNotFoundError:
        pass
"""


def run(*command: object, cwd: Path | None = None) -> str:
    ended = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def needed(name: str) -> Iterator[Distribution]:
    """A distribution that is installed here, and those it needs; extras are nobody's need."""
    found = distribution(name)
    yield found
    for requirement in found.requires or ():
        needs = Requirement(requirement)
        if needs.marker is None or needs.marker.evaluate({"extra": ""}):
            yield from needed(needs.name)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=CLIENT)
    (built,) = target.iterdir()
    return built


def test_it_works_where_there_is_nothing_but_httpx(
    wheel: Path, server: Server, organization: str, api: httpx.Client, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    run(sys.executable, "-m", "venv", "--without-pip", bare)
    python = bare / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(bare), "platbase": str(bare)}))
    for found in needed("httpx"):
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".." and file.suffix != ".pth"}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))  # type: ignore[arg-type]  # a path, here
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    run(python, "-I", "-W", "error", "-c", SCRIPT, server.url, server.key(organization), cwd=tmp_path)
    parameters: dict[str, Any] = {
        "start_time": int(time.time()) - 86_400,
        "group_by": ["project_id", "user_id"],
        "limit": "2",
    }
    page = api.get("/v1/organization/usage/embeddings", params=parameters).raise_for_status().json()
    (result,) = [result for bucket in page["data"] for result in bucket["results"]]
    assert (result["input_tokens"], result["project_id"], result["user_id"]) == (7, "bare", "u1")


def test_it_holds_the_client_and_nothing_else(wheel: Path) -> None:
    names = run(sys.executable, "-m", "zipfile", "--list", wheel).splitlines()[1:]
    packages = {name.split()[0].rpartition("/")[0] for name in names}
    assert {name for name in packages if "dist-info" not in name} == {"tallybook/client"}
