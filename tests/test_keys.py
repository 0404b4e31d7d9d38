"""A key opens exactly what it was made for, to its own organization, until it expires or is revoked."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import Server

KEYS = "/v1/organization/admin_api_keys"
USAGE = "/v1/organization/usage"
QUESTION = f"{USAGE}/completions?start_time=1748822400"
EVENT = {"kind": "completions", "timestamp": 1_748_865_600, "input_tokens": 7}
READ, WRITE, MANAGE = SCOPES = ("api.usage.read", "api.usage.write", "api.management")

# method, path, body, the one scope it needs, its answer with that scope
DOORS: list[tuple[str, str, Any, str, int]] = [
    ("GET", QUESTION, None, READ, 200),
    ("GET", f"{USAGE}/quarantine", None, READ, 200),
    ("GET", f"{USAGE}/quarantine/quar_none", None, READ, 404),
    ("POST", f"{USAGE}/events", EVENT, WRITE, 200),
    ("DELETE", f"{USAGE}/quarantine/quar_none", None, WRITE, 404),
    ("POST", f"{USAGE}/quarantine/quar_none/replay", None, WRITE, 404),
    ("GET", KEYS, None, MANAGE, 200),
    ("POST", KEYS, {"name": "new"}, MANAGE, 200),
    ("GET", f"{KEYS}/key_none", None, MANAGE, 404),
    ("DELETE", f"{KEYS}/key_none", None, MANAGE, 404),
    ("POST", f"{USAGE}/rebuild", {"start_time": 1_748_822_400, "end_time": 1_748_908_800}, MANAGE, 200),
    ("GET", f"{USAGE}/check", None, MANAGE, 200),
    ("POST", f"{USAGE}/backup", None, MANAGE, 400),
]
DOOR = pytest.mark.parametrize(
    ("method", "path", "body", "scope", "status"), DOORS, ids=[f"{door[0]} {door[1]}" for door in DOORS]
)


@pytest.fixture
def other(server: Server, organization: str) -> Iterator[httpx.Client]:
    """A client of another organization."""
    with server.http(server.key(f"{organization}-other")) as client:
        yield client


def create(api: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = api.post(KEYS, json={"name": "made by a test", **body})
    assert answer.status_code == 200, answer.text
    key: dict[str, Any] = answer.json()
    return key


def listed(api: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = api.get(KEYS, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def status(server: Server, key: str) -> int:
    with server.http(key) as client:
        return client.get(QUESTION).status_code


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return body


@DOOR
def test_a_door_opens_to_its_own_scope_alone(
    *, method: str, path: str, body: Any, scope: str, status: int, server: Server, organization: str
) -> None:
    with server.http(server.key(organization, [scope])) as client:
        assert client.request(method, path, json=body).status_code == status
    with server.http(server.key(organization, [other for other in SCOPES if other != scope])) as client:
        refusal = error(client.request(method, path, json=body), 403)
    assert refusal["type"] == "invalid_request_error"
    assert f"Missing scopes: {scope}" in refusal["message"]


@DOOR
def test_no_door_opens_without_a_key(
    *, method: str, path: str, body: Any, scope: str, status: int, server: Server
) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as client:
        for authorization in (
            None,
            "Bearer",
            "Bearer sk-admin-nobody",
            f"Basic {server.admin_key}",
        ):
            headers = {"Authorization": authorization} if authorization else {}
            refusal = error(client.request(method, path, json=body, headers=headers), 401)
            assert (refusal["code"], refusal["type"]) == ("invalid_api_key", "invalid_request_error")


def test_a_wrong_key_is_not_repeated_in_the_answer(server: Server) -> None:
    secret = "sk-admin-a-typing-error-in-a-real-secret"
    with server.http(secret) as client:
        assert secret not in client.get(QUESTION).text


def test_a_key_one_letter_off_is_no_key(server: Server, organization: str) -> None:
    key = server.key(organization)
    for wrong in (
        key[:-1],
        key + "A",
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key.upper(),
        f"{key}, {key}",
    ):
        assert status(server, wrong) == 401


def test_a_key_expires(server: Server, api: httpx.Client) -> None:
    created = create(api, expires_in_seconds=2)
    assert created["expires_at"] == created["created_at"] + 2
    assert status(server, created["value"]) == 200
    deadline = time.monotonic() + 10
    while status(server, created["value"]) == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert time.time() >= created["expires_at"], "not before its time"
    assert status(server, created["value"]) == 401


def test_a_revoked_key_is_refused_at_once_even_on_an_open_connection(server: Server, api: httpx.Client) -> None:
    created = create(api)
    with server.http(created["value"]) as client:
        assert client.get(QUESTION).status_code == 200
        deleted = api.delete(f"{KEYS}/{created['id']}")
        assert deleted.json() == {
            "object": "organization.admin_api_key.deleted",
            "id": created["id"],
            "deleted": True,
        }
        assert error(client.get(QUESTION), 401)["code"] == "invalid_api_key"
        error(client.post(f"{USAGE}/events", json=EVENT), 401)
    error(api.get(f"{KEYS}/{created['id']}"), 404)
    error(api.delete(f"{KEYS}/{created['id']}"), 404)
    assert created["id"] not in {key["id"] for key in listed(api, limit=100)["data"]}


def test_lists_are_paged_in_order_of_creation(api: httpx.Client) -> None:
    made = [create(api, name=f"key {n}")["id"] for n in range(5)]
    whole = [key["id"] for key in listed(api, limit=100, order="asc")["data"]]
    assert [key for key in whole if key in made] == made
    for order, expected in (("asc", whole), ("desc", whole[::-1])):
        seen: list[str] = []
        for _ in range(len(whole)):
            query = {"after": seen[-1]} if seen else {}
            body = listed(api, limit=2, order=order, **query)
            ids = [key["id"] for key in body["data"]]
            assert (body["object"], body["first_id"], body["last_id"]) == ("list", ids[0], ids[-1])
            assert len(ids) <= 2
            seen += ids
            assert body["has_more"] is (len(seen) < len(whole))
            if not body["has_more"]:
                break
        assert seen == expected


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=101", "limit"),
        ("limit=two", "limit"),
        ("order=up", "order"),
        ("after=key_none", "after"),
        ("limt=2", "limt"),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_a_wrong_question_for_the_list_is_refused(query: str, param: str, api: httpx.Client) -> None:
    assert error(api.get(f"{KEYS}?{query}"), 400)["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "n" * 257}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "n", "expires_in_seconds": 0}, "expires_in_seconds"),
        ({"name": "n", "expires_in_seconds": -1}, "expires_in_seconds"),
        ({"name": "n", "expires_in_seconds": 1.5}, "expires_in_seconds"),
        ({"name": "n", "expires_in_seconds": "60"}, "expires_in_seconds"),
        ({"name": "n", "expires_in_seconds": True}, "expires_in_seconds"),
        ({"name": "n", "expires_in_seconds": 10**30}, "expires_in_seconds"),
        ({"name": "n", "scopes": ["api.everything"]}, "scopes"),
        ({"name": "n", "scopes": []}, "scopes"),
        ({"name": "n", "scopes": READ}, "scopes"),
        ({"name": "n", "scopes": [5]}, "scopes"),
        ({"nmae": "n", "name": "n"}, "nmae"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_wish_for_a_key_is_refused_and_makes_none(body: dict[str, Any], param: str, api: httpx.Client) -> None:
    before = listed(api, limit=100)
    fault = error(api.post(KEYS, json=body), 400)["param"]
    assert str(fault).partition("[")[0] == param, "`scopes[0]` names the scopes"
    assert [key["id"] for key in listed(api, limit=100)["data"]] == [key["id"] for key in before["data"]]


@pytest.mark.parametrize(
    "body", ["", "nonsense", "[]", "5", "null", '{"name": NaN}', "{" * 10_000, '{"name": "\\ud800"}']
)
def test_a_wish_that_is_not_an_object_is_refused(body: str, api: httpx.Client) -> None:
    error(api.post(KEYS, content=body, headers={"Content-Type": "application/json"}), 400)


def test_a_key_never_has_more_scopes_than_its_creator(server: Server, organization: str) -> None:
    with server.http(server.key(organization, [MANAGE, READ])) as client:
        assert set(create(client)["scopes"]) == {MANAGE, READ}
        assert create(client, scopes=[READ])["scopes"] == [READ]
        answer = client.post(KEYS, json={"name": "more", "scopes": [READ, WRITE]})
        assert answer.status_code in {400, 403}
        assert WRITE in answer.json()["error"]["message"]
        assert "more" not in {key["name"] for key in listed(client, limit=100)["data"]}


def test_a_created_key_has_the_scopes_it_says(server: Server, api: httpx.Client) -> None:
    with server.http(create(api, scopes=[WRITE])["value"]) as client:
        assert client.post(f"{USAGE}/events", json=EVENT).status_code == 200
        error(client.get(QUESTION), 403)


def test_the_value_is_shown_once_and_redacted_ever_after(api: httpx.Client) -> None:
    created = create(api)
    value, redacted = created["value"], created["redacted_value"]
    assert value.startswith("sk-admin-")
    assert len(value) >= 40, "too long to be guessed"
    assert value not in redacted
    assert len(set(redacted) & set(value)) > 0
    assert len(value) - sum(a == b for a, b in zip(redacted, value, strict=False)) > 20, "most of it is hidden"
    for answer in (api.get(f"{KEYS}/{created['id']}"), api.get(KEYS, params={"limit": 100})):
        assert value not in answer.text
        assert "value" not in (answer.json().get("data") or [answer.json()])[0]


def test_no_file_of_the_server_contains_a_key(server: Server, api: httpx.Client) -> None:
    created = create(api)
    assert status(server, created["value"]) == 200
    secrets = [created["value"].encode(), created["value"].removeprefix("sk-admin-").encode()]
    files = [path for path in server.data.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path


def test_keys_of_another_organization_do_not_exist(api: httpx.Client, other: httpx.Client) -> None:
    created = create(api)
    error(other.get(f"{KEYS}/{created['id']}"), 404)
    error(other.delete(f"{KEYS}/{created['id']}"), 404)
    error(other.get(KEYS, params={"after": created["id"]}), 400)
    assert created["id"] not in {key["id"] for key in listed(other, limit=100)["data"]}
    assert api.get(f"{KEYS}/{created['id']}").status_code == 200


def test_usage_of_another_organization_is_invisible(api: httpx.Client, other: httpx.Client) -> None:
    assert api.post(f"{USAGE}/events", json=[EVENT, EVENT | {"input_tokens": -1}]).status_code == 200
    assert any(bucket["results"] for bucket in api.get(QUESTION).json()["data"])
    assert not any(bucket["results"] for bucket in other.get(QUESTION).json()["data"])
    assert other.get(f"{USAGE}/quarantine").json()["data"] == []


def test_a_key_made_through_the_api_belongs_to_the_organization_of_its_maker(server: Server, api: httpx.Client) -> None:
    api.post(f"{USAGE}/events", json=EVENT)
    with server.http(create(api)["value"]) as client:
        (result,) = client.get(QUESTION).json()["data"][0]["results"]
    assert result["input_tokens"] == 7
