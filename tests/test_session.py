"""A browser signs in with a key, is known by a cookie, and can do no more with it than its own page may."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook.clock import now_s
from tallybook.keys import ALL_SCOPES, KeyStore, Scope, copy_keys
from tests.support import Server

KEYS = "/v1/organization/admin_api_keys"
QUESTION = "/v1/organization/usage/completions?start_time=1767225600"
EVENTS = "/v1/organization/usage/events"
OUR_PAGE = {"sec-fetch-site": "same-origin"}
LIFE_S = 43_200


def browser(server: Server) -> httpx.Client:
    """A client that keeps cookies, and says of its requests that they are made by the server's own page."""
    return httpx.Client(base_url=server.url, headers=OUR_PAGE, trust_env=False, verify=False)


@pytest.fixture
def page(server: Server) -> Iterator[httpx.Client]:
    with browser(server) as client:
        yield client


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path)
    yield store
    store.close()


def sign_in(page: httpx.Client, key: str, **headers: str) -> httpx.Response:
    return page.post("/session", json={"key": key}, headers=headers)


def test_who_signs_in_may_do_what_the_key_may(page: httpx.Client, server: Server, organization: str) -> None:
    assert page.get("/session").json() == {"object": "session", "key": None, "ended": False}
    told = sign_in(page, f" {server.key(organization, [Scope.READ])}\n").json()
    assert (told["key"]["organization_id"], told["key"]["scopes"]) == (organization, ["api.usage.read"])
    assert 0 <= told["key"]["expires_at"] - now_s() - LIFE_S + 5 <= 5
    assert page.get("/session").json() == told
    assert page.get(QUESTION).status_code == 200
    refused = page.post(EVENTS, json={"kind": "images", "images": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")


def test_the_cookie_is_for_this_page_alone_and_holds_no_key(
    page: httpx.Client, server: Server, organization: str
) -> None:
    key = server.key(organization)
    assert "secure" in sign_in(page, key, origin="https://usage.example.com").headers["set-cookie"].lower().split("; ")
    cookie = sign_in(page, key).headers["set-cookie"]
    token = cookie.partition("=")[2].partition(";")[0]
    assert set(cookie.lower().split("; ")[1:]) == {"httponly", f"max-age={LIFE_S}", "path=/", "samesite=strict"}
    assert key not in cookie
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as other:
        assert other.get(QUESTION, headers={"authorization": f"Bearer {token}"}).status_code == 401
        name = cookie.partition("=")[0]
        assert other.get(QUESTION, headers={"cookie": f"{name}={key}"}).status_code == 401
        assert other.get(QUESTION, headers={"cookie": f"{name}={token}"}).status_code == 200


def test_a_header_counts_and_not_the_cookie_beside_it(page: httpx.Client, server: Server, organization: str) -> None:
    sign_in(page, server.key(organization))
    assert page.get(QUESTION, headers={"authorization": "Bearer sk-admin-nobodys"}).status_code == 401
    theirs = {"authorization": f"Bearer {server.key(f'{organization}-other')}", "sec-fetch-site": "cross-site"}
    assert page.post(KEYS, json={"name": "n"}, headers=theirs).json()["owner"]["id"] == f"{organization}-other"


def test_who_signs_out_is_signed_out(page: httpx.Client, server: Server, organization: str) -> None:
    sign_in(page, server.key(organization))
    (cookie,) = page.cookies.jar
    assert page.delete("/session").json()["key"] is None
    assert list(page.cookies.jar) == []
    refused = page.get(QUESTION, headers={"cookie": f"{cookie.name}={cookie.value}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "session_ended")
    assert page.get("/session", headers={"cookie": f"{cookie.name}={cookie.value}"}).json()["ended"] is True


def test_signing_in_ends_the_session_the_browser_has(page: httpx.Client, server: Server, organization: str) -> None:
    key = server.key(organization)
    sign_in(page, key)
    (former,) = page.cookies.jar
    assert sign_in(page, "sk-admin-nobodys").status_code == 401
    assert page.get(QUESTION).status_code == 200
    sign_in(page, key)
    assert page.get(QUESTION).status_code == 200
    page.cookies.clear()
    refused = page.get(QUESTION, headers={"cookie": f"{former.name}={former.value}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "session_ended")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "SELF"}, 403),
        ({"origin": "SELF"}, 200),
        ({"origin": "http://example.com"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_only_our_own_page_changes_anything(
    headers: dict[str, str], status: int, page: httpx.Client, server: Server, organization: str
) -> None:
    key = server.key(organization)
    sign_in(page, key)
    del page.headers["sec-fetch-site"]
    headers = {name: value.replace("SELF", server.url) for name, value in headers.items()}
    assert page.post(KEYS, json={"name": "n"}, headers=headers).status_code == status
    assert page.post("/session", json={"key": key}, headers=headers).status_code == status
    assert page.get(KEYS, headers=headers).status_code == 200
    assert page.delete("/session", headers=headers).status_code == status


def test_revoking_the_key_ends_its_sessions(page: httpx.Client, server: Server, organization: str) -> None:
    sign_in(page, server.key(organization))
    assert page.get(QUESTION).status_code == 200
    mine = page.get("/session").json()["key"]["id"]
    assert page.delete(f"{KEYS}/{mine}").status_code == 200
    assert page.get(QUESTION).json()["error"]["code"] == "session_ended"


def test_a_session_ends_in_its_time_or_with_its_key(keys: KeyStore) -> None:
    key, _ = keys.create("org", "n", ALL_SCOPES, 1_000)
    token = keys.sign_in(key.id, 1_000, 500)
    found = keys.session(token, 1_499)
    assert found is not None
    assert (found.id, found.expires_at_s) == (key.id, 1_500)
    assert keys.session(token, 1_500) is None
    short, _ = keys.create("org", "n", ALL_SCOPES, 1_000, expires_at_s=1_200)
    token = keys.sign_in(short.id, 1_000, 500)
    assert keys.session(token, 1_199) is not None
    assert keys.session(token, 1_200) is None


def test_a_session_ends_when_another_process_revokes_the_key(keys: KeyStore, tmp_path: Path) -> None:
    key, _ = keys.create("org", "n", ALL_SCOPES, 1_000)
    token = keys.sign_in(key.id, 1_000, 500)
    assert keys.session(token, 1_001) is not None
    elsewhere = KeyStore(tmp_path)
    elsewhere.revoke("org", key.id)
    elsewhere.close()
    assert keys.session(token, 1_001) is None


def test_a_key_has_so_many_sessions_and_the_oldest_makes_room(keys: KeyStore) -> None:
    key, _ = keys.create("org", "n", ALL_SCOPES, 1_000)
    tokens = [keys.sign_in(key.id, 1_000, 500) for _ in range(101)]
    assert keys.session(tokens[0], 1_001) is None
    assert all(keys.session(token, 1_001) for token in tokens[1:])


def test_a_backup_has_the_keys_and_no_sessions(keys: KeyStore, tmp_path: Path) -> None:
    key, value = keys.create("org", "n", ALL_SCOPES, 1_000)
    token = keys.sign_in(key.id, 1_000, 500)
    (tmp_path / "copy").mkdir()
    copy_keys(tmp_path, tmp_path / "copy" / "keys.sqlite3")
    restored = KeyStore(tmp_path / "copy")
    assert restored.find(value, 1_001) is not None
    assert restored.session(token, 1_001) is None
    restored.close()


def test_sessions_outlive_a_restart(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--session-s-max", "60"])
    with browser(server) as page:
        sign_in(page, server.admin_key)
        (cookie,) = page.cookies.jar
    assert server.stop() == 0
    server = Server.start(tmp_path / "data")
    name = re.sub(r"\d+$", server.url.rpartition(":")[2], cookie.name)  # another port, this time
    with browser(server) as page:
        told = page.get("/session", headers={"cookie": f"{name}={cookie.value}"}).json()
        assert told["key"]["expires_at"] - now_s() <= 60
    assert server.stop() == 0


def test_wrong_keys_are_counted_and_a_right_one_works_at_once(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--wrong-keys-max", "3"])
    with browser(server) as page:
        answers = [sign_in(page, "sk-admin-nobodys").status_code for _ in range(4)]
        assert answers == [401, 401, 401, 429]
        assert sign_in(page, server.admin_key).status_code == 200
    assert server.stop() == 0


@pytest.mark.parametrize("body", [b"", b"{}", b'{"key": 1}', b'{"key": "k", "more": 1}', b'{"key": ""}'])
def test_a_body_without_a_key_is_told_so(body: bytes, page: httpx.Client) -> None:
    refused = page.post("/session", content=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_body")


def test_a_key_that_may_not_read_is_told_so(page: httpx.Client, server: Server, organization: str) -> None:
    refused = sign_in(page, server.key(organization, [Scope.WRITE]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("host", ["usage.example.com", "127.0.0.1:99999999", "[::1]:80", "nonsense:port"])
def test_any_name_the_server_is_called_by_will_do(
    host: str, page: httpx.Client, server: Server, organization: str
) -> None:
    cookie = sign_in(page, server.key(organization), host=host).headers["set-cookie"].partition(";")[0]
    assert page.get(QUESTION, headers={"host": host, "cookie": cookie}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/explore", "/explore?of=costs", "/live", "/manage"])
def test_the_page_runs_and_loads_what_is_ours_alone(path: str, page: httpx.Client) -> None:
    answer = page.get(path).raise_for_status()
    policy = dict[str, Any](part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert answer.headers["cache-control"] == "no-store"
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", answer.text) == []
    loaded = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
    assert len(loaded) == 3
    assert all(re.fullmatch(r"/assets/\w+-[A-Z0-9]{8}\.(js|css|svg)", name) for name in loaded)


def test_what_the_page_loads_is_small_compressed_and_kept(page: httpx.Client) -> None:
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.get("/").text)
    size = 0
    for path in loaded:
        answer = page.get(path).raise_for_status()
        size += int(answer.headers["content-length"])
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["vary"] == "accept-encoding"
        plain = page.get(path, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
    assert size < 300_000


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2f__init__.py", "dashboard.js.gz", ""])
def test_what_the_page_does_not_load_is_not_there(name: str, page: httpx.Client) -> None:
    assert page.get(f"/assets/{name}").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "SELF"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "SELF"}, 403),
        ({"origin": "http://example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://example.com", "x-api-key": "KEY"}, 200),
        ({"origin": "http://example.com", "authorization": "Bearer KEY"}, 200),
        ({"origin": "http://example.com", "authorization": "KEY"}, 200),
    ],
)
def test_no_page_of_another_site_sends_with_the_key_that_a_browser_adds_by_basic(
    headers: dict[str, str], status: int, server: Server, organization: str
) -> None:
    key = server.key(organization)
    form = base64.b64encode(f"x:{key}".encode()).decode()
    given = {"authorization": f"Basic {form}", "content-type": "text/plain"} | {
        name: value.replace("SELF", server.url).replace("KEY", key) for name, value in headers.items()
    }
    event = json.dumps({"kind": "completions", "id": "e", "timestamp": now_s(), "input_tokens": 1})
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as client:
        sent = client.post(EVENTS, content=event, headers=given)
        assert sent.status_code == status, sent.text
        assert client.get(QUESTION, headers=given).status_code == 200
