"""The documentation is whole: what exists is in it."""

import re
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from tallybook.config import ADMIN_KEY_VARIABLE, CONFIG_VARIABLE, Settings
from tallybook.kinds import KINDS
from tallybook.wire.openapi import openapi
from tests.support import Server

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "serve",
    "usage",
    "costs",
    "costs unpriced",
    "costs rerate",
    "costs reratings",
    "prices list",
    "prices show",
    "prices check",
    "prices update",
    "prices reload",
    "export costs",
    "export usage",
    "import",
    "sync",
    "reconcile",
    "quarantine list",
    "quarantine replay",
    "quarantine drop",
    "keys create",
    "keys list",
    "keys revoke",
    "rebuild",
    "backup",
    "restore",
    "doctor",
    "demo",
)


def read(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_setting_is_documented(name: str) -> None:
    text = read("docs/configuration.md")
    flag = name.replace("_", "-")
    assert f"--{flag}" in text
    assert f"TALLYBOOK_{name.upper()}" in text
    default = getattr(Settings(), name)
    assert isinstance(default, Path) or str(default) in text


@pytest.mark.parametrize("name", [ADMIN_KEY_VARIABLE, CONFIG_VARIABLE, "TALLYBOOK_URL", "TALLYBOOK_ORGANIZATION"])
def test_every_variable_is_documented(name: str) -> None:
    assert name in read("docs/configuration.md")


@pytest.mark.parametrize("path", list(openapi()["paths"]))  # type: ignore[call-overload]
def test_every_endpoint_is_documented(path: str) -> None:
    text = read("docs/http-api.md")
    # The kinds share a section; of them the name is there, in the table.
    before, _, name = path.rpartition("/")
    assert path in text or (name in KINDS and f"`{name}`" in text and f"{before}/" in text)


def test_every_metric_is_documented(server: Server) -> None:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    names = {re.sub(r"_(total|created)$", "", name) for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
    documented = read("docs/operations.md")
    assert {name for name in names if name not in documented} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"tallybook {command}" in read("docs/guide.md") + read("README.md")


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    ],
)
def test_every_link_leads_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(name))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (ROOT / name).parent.joinpath(target).exists()] == []
