"""Keys are refused the moment they are no good, are in no log, and open no view of another organization."""

import base64
import csv
import io
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallybook.attempts import Attempts
from tallybook.clock import now_s
from tallybook.keys import ALL_SCOPES, KeyStore, Scope
from tests.support import Server
from tests.test_cli import run

KEYS = "/v1/organization/admin_api_keys"
USAGE = "/v1/organization/usage"
COSTS = "/v1/organization/costs"
EVENTS = f"{USAGE}/events"
QUARANTINE = f"{USAGE}/quarantine"
DAY = 1_767_225_600
QUESTION = f"{USAGE}/completions?start_time={DAY}"
WRONG_KEYS = 5
START = 1_000_000.0


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[KeyStore]:
    """The same keys, as another process has them."""
    store = KeyStore(tmp_path)
    yield store
    store.close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon has enough of wrong keys."""
    server = Server.start(tmp_path_factory.mktemp("strict"), args=["--wrong-keys-max", str(WRONG_KEYS)])
    yield server
    assert server.stop() == 0


@pytest.fixture
def anyone(server: Server) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as client:
        yield client


@pytest.fixture
def other(server: Server, organization: str) -> Iterator[httpx.Client]:
    """A client of another organization."""
    with server.http(server.key(f"{organization}-other")) as client:
        yield client


def test_a_key_that_was_found_is_refused_once_another_process_has_revoked_it(
    keys: KeyStore, elsewhere: KeyStore
) -> None:
    for _ in range(20):
        key, value = elsewhere.create("org", "n", ALL_SCOPES, now_s())
        assert keys.find(value, now_s()) == key
        assert keys.find(value, now_s()) is not None
        elsewhere.revoke("org", key.id)
        assert keys.find(value, now_s()) is None


def test_requests_that_are_here_together_are_looked_up_together(tmp_path: Path, elsewhere: KeyStore) -> None:
    calls: list[Callable[[], None]] = []
    store = KeyStore(tmp_path, calls.append)
    made = [elsewhere.create("org", "n", ALL_SCOPES, now_s()) for _ in range(2)]
    assert store.find(made[0][1], now_s()) is not None
    elsewhere.revoke("org", made[0][0].id)
    assert store.find(made[0][1], now_s()) is not None, "it was here before"
    assert store.find("sk-admin-nobodys", now_s()) is None
    assert len(calls) == 1
    calls.pop()()
    assert store.find(made[0][1], now_s()) is None
    assert store.find(made[1][1], now_s()) is not None
    store.revoke("org", made[1][0].id)
    assert store.find(made[1][1], now_s()) is None, "what is revoked here is so at once"
    store.close()


def test_a_key_that_was_found_is_refused_once_it_is_revoked_here(keys: KeyStore) -> None:
    key, value = keys.create("org", "n", ALL_SCOPES, now_s())
    assert keys.find(value, now_s()) is not None
    keys.revoke("org", key.id)
    assert keys.find(value, now_s()) is None


def test_a_key_that_was_found_is_refused_from_its_last_second_on(keys: KeyStore) -> None:
    _, value = keys.create("org", "n", ALL_SCOPES, 1_000, expires_at_s=2_000)
    assert keys.find(value, 1_000) is not None
    assert keys.find(value, 1_999) is not None
    assert keys.find(value, 2_000) is None


def test_a_key_that_was_found_has_what_another_process_gives_it(keys: KeyStore, tmp_path: Path) -> None:
    key, value = keys.create("org", "n", ALL_SCOPES, now_s())
    assert keys.find(value, now_s()) is not None
    with sqlite3.connect(tmp_path / "keys.sqlite3") as connection:
        connection.execute("UPDATE keys SET scopes = 'api.usage.read' WHERE id = ?", [key.id])
    connection.close()
    found = keys.find(value, now_s())
    assert found is not None
    assert found.scopes == (Scope.READ,)


def test_the_use_of_a_key_is_noted_once_a_minute(keys: KeyStore, elsewhere: KeyStore) -> None:
    key, value = keys.create("org", "n", ALL_SCOPES, 0)
    seen = []
    for now in (100, 101, 159, 160, 161, 1_000):
        keys.find(value, now)
        shown = elsewhere.get("org", key.id)
        assert shown is not None
        seen.append(shown.last_used_at_s)
    assert seen == [100, 100, 100, 160, 160, 1_000]


def test_a_revoked_key_is_refused_from_the_next_request_on(server: Server, organization: str) -> None:
    store = KeyStore(server.data)
    try:
        for _ in range(20):
            key, value = store.create(organization, "n", ALL_SCOPES, now_s())
            with server.http(value) as client:
                assert client.get(f"{KEYS}/{key.id}").status_code == 200
                store.revoke(organization, key.id)
                assert client.get(f"{KEYS}/{key.id}").status_code == 401
    finally:
        store.close()


def wrong(server: Server, address: str, key: str = "sk-admin-wrong") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", "x-forwarded-for": address}
    return httpx.get(f"{server.url}{QUESTION}", headers=headers, trust_env=False, verify=False)


def test_after_many_wrong_keys_an_address_is_told_to_stop(strict: Server) -> None:
    statuses = [wrong(strict, "192.0.2.1").status_code for _ in range(WRONG_KEYS)]
    assert statuses == [401] * WRONG_KEYS
    answer = wrong(strict, "192.0.2.1")
    body = answer.json()["error"]
    assert (answer.status_code, body["code"], body["type"]) == (429, "too_many_attempts", "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 60 / WRONG_KEYS
    assert wrong(strict, "192.0.2.2").status_code == 401, "others are not meant"


def test_a_right_key_works_however_many_wrong_ones_its_address_gave(strict: Server) -> None:
    while wrong(strict, "192.0.2.3").status_code != 429:
        pass
    assert wrong(strict, "192.0.2.3", strict.admin_key).status_code == 200
    assert wrong(strict, "192.0.2.3", strict.key("org-new")).status_code == 200, "also one never used before"
    assert wrong(strict, "192.0.2.3").status_code == 429


def test_no_key_is_no_wrong_key(strict: Server) -> None:
    for _ in range(3 * WRONG_KEYS):
        answer = httpx.get(f"{strict.url}{QUESTION}", headers={"x-forwarded-for": "192.0.2.4"}, trust_env=False)
        assert answer.status_code == 401


def test_wrong_keys_are_counted_and_too_many_are_logged_with_their_address(strict: Server) -> None:
    def counted() -> float:
        text = httpx.get(f"{strict.url}/metrics", trust_env=False).text
        (count,) = re.findall(r"^tallybook_wrong_keys_total (\S+)", text, re.MULTILINE)
        return float(count)

    before = counted()
    while wrong(strict, "192.0.2.5").status_code != 429:
        pass
    assert counted() - before == WRONG_KEYS + 1
    assert '"client":"192.0.2.5","event":"too many wrong keys"' in (strict.data / "server.log").read_text()


def allowed(attempts: Attempts, address: str, now: float = START) -> bool:
    return attempts.note(address, now) is None


def test_wrong_keys_are_forgotten_evenly_over_a_minute() -> None:
    attempts = Attempts(20)
    assert [allowed(attempts, "192.0.2.1") for _ in range(25)] == [True] * 20 + [False] * 5
    assert attempts.note("192.0.2.1", START) == 3
    assert not allowed(attempts, "192.0.2.1", START + 2.9)
    assert allowed(attempts, "192.0.2.1", START + 3)
    assert not allowed(attempts, "192.0.2.1", START + 3)
    assert [allowed(attempts, "192.0.2.1", START + 100) for _ in range(21)] == [True] * 20 + [False]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(most=st.integers(1, 50), pauses_s=st.lists(st.floats(0, 100), max_size=200))
def test_a_refused_address_may_try_again_when_it_was_told(most: int, pauses_s: list[float]) -> None:
    attempts = Attempts(most)
    now, taken = START, 0
    for pause_s in pauses_s:
        now += pause_s
        retry_after_s = attempts.note("192.0.2.1", now)
        taken += retry_after_s is None
        if retry_after_s is not None:
            assert 1 <= retry_after_s <= 60 / most + 1
            now += retry_after_s
            assert attempts.note("192.0.2.1", now) is None
            taken += 1
    assert taken <= most + (now - START) * most / 60 + 1e-6


def test_an_address_is_what_one_customer_has() -> None:
    attempts = Attempts(1)
    same = ["2001:db8::1", "2001:db8::ffff", "2001:0db8:0:0:1:2:3:4"]
    assert [allowed(attempts, address) for address in same] == [True, False, False]
    assert allowed(attempts, "2001:db8:0:1::1")
    assert [allowed(attempts, address) for address in ("192.0.2.1", "::ffff:192.0.2.1")] == [True, False]
    assert [allowed(attempts, address) for address in ("nonsense", "", "x" * 10_000)] == [True, False, False]


def test_so_many_addresses_are_remembered_and_no_more() -> None:
    attempts = Attempts(1)
    assert allowed(attempts, "192.0.2.1")
    for number in range(9_999):
        allowed(attempts, f"10.0.{number // 256}.{number % 256}")
    assert not allowed(attempts, "192.0.2.1"), "and so it is remembered anew"
    for number in range(10_000):
        allowed(attempts, f"10.1.{number // 256}.{number % 256}")
    assert allowed(attempts, "192.0.2.1")


def test_a_key_in_a_wrong_place_is_in_no_log(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--log-level", "debug", "--wrong-keys-max", "3"])
    wrong_key = "sk-admin-" + "W" * 43
    for secret in (wrong_key, server.admin_key):
        encoded = base64.b64encode(f"key:{secret}".encode()).decode()
        with httpx.Client(base_url=server.url, trust_env=False, verify=False) as client:
            for path in (f"/{secret}", f"/v1/{secret}/more", f"{KEYS}/{secret}", f"{QUARANTINE}/{secret}"):
                for method in ("GET", "POST", "DELETE", secret[:8].upper()):
                    client.request(method, path, headers={"Authorization": f"Bearer {secret}"})
                    client.request(method, f"{path}?key={secret}#{secret}")
            for name, value in {
                "Authorization": secret,
                "authorization": f"Basic {encoded}",
                "Proxy-Authorization": f"Bearer {secret}",
                "X-Api-Key": secret,
                "X-Request-Id": secret,
                "X-Forwarded-For": secret,
                "Cookie": f"key={secret}",
                "User-Agent": secret,
                "Referer": f"https://example.com/{secret}",
                "Content-Encoding": secret,
                "Content-Type": secret,
                "Host": secret,
            }.items():
                for _ in range(2):
                    with_key = {"Authorization": f"Bearer {wrong_key}", name: value}
                    client.get(QUESTION, headers={name: value})
                    client.post(EVENTS, headers=with_key, content=secret)
        with server.http() as client:
            client.get(QUESTION, params={"group_by": secret, secret: "1", "models": secret, "page": secret})
            client.get(f"{COSTS}/export", params={"schema": secret, "start_time": secret})
            for body in (
                secret,
                f'{{"{secret}": 1}}',
                f'{{"kind": "{secret}"}}',
                f'[{{"kind": "images", "id": "{secret}"',
            ):
                for path in (EVENTS, KEYS, f"{USAGE}/rebuild", f"{COSTS}/rerate", f"{QUARANTINE}/replay"):
                    client.post(path, content=body)
                    client.post(path, content=body, headers={"Content-Encoding": "gzip"})
            client.post(EVENTS, json={"kind": "images", "user_id": secret, "images": 1})
            assert client.get("/healthz").status_code == 200
    assert server.stop() == 0
    log = (tmp_path / "data" / "server.log").read_text()
    assert log.count('"event":"request"') > 100
    for secret in (wrong_key, server.admin_key):
        assert secret not in log
        assert secret.removeprefix("sk-admin-") not in log
        assert base64.b64encode(f"key:{secret}".encode()).decode() not in log


SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", QUESTION),
        ("GET", f"{USAGE}/completions?start_time=nonsense"),
        ("GET", f"{USAGE}/export?format=csv&start_time={DAY}&end_time={DAY + 1}"),
        ("GET", f"{COSTS}?start_time={DAY}"),
        ("GET", KEYS),
        ("GET", f"{KEYS}/key_none"),
        ("POST", EVENTS),
        ("PUT", EVENTS),
        ("OPTIONS", QUESTION),
        ("HEAD", "/healthz"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/docs"),
        ("GET", "/docs/start.js"),
        ("GET", "/docs/assets/swagger-ui.css"),
        ("GET", "/docs/assets/nothing"),
        ("GET", "/docs/assets/..%2f..%2fpyproject.toml"),
    ],
)
def test_every_answer_is_safe_in_a_browser(method: str, path: str, api: httpx.Client, anyone: httpx.Client) -> None:
    for client in (api, anyone):
        headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "GET"}
        answer = client.request(method, path, headers=headers)
        assert {name: answer.headers.get(name) for name in SAFE} == SAFE
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert ("default-src 'none'" in policy) == (answer.headers.get("content-type") != "text/html; charset=utf-8")
        assert [name for name in answer.headers if name.startswith("access-control-")] == [], "no other site may ask"
        assert "server" not in answer.headers
        assert len(answer.headers.get_list("content-security-policy")) == 1


def same(mine: httpx.Response, unknown: httpx.Response, my_id: str, unknown_id: str) -> None:
    """Another organization's id is answered as one that nobody has, to the letter."""
    assert mine.status_code == unknown.status_code
    assert mine.text.replace(my_id, unknown_id) == unknown.text
    hidden = {"x-request-id", "date", "content-length"}
    headers = [
        {name: value for name, value in answer.headers.items() if name not in hidden} for answer in (mine, unknown)
    ]
    assert headers[0] == headers[1]


def test_a_key_of_another_organization_is_answered_as_one_that_is_not(api: httpx.Client, other: httpx.Client) -> None:
    theirs = other.post(KEYS, json={"name": "n"}).json()["id"]
    nobodys = "key_000000000000000000000000"
    for method in ("GET", "DELETE"):
        same(api.request(method, f"{KEYS}/{theirs}"), api.request(method, f"{KEYS}/{nobodys}"), theirs, nobodys)
    same(api.get(KEYS, params={"after": theirs}), api.get(KEYS, params={"after": nobodys}), theirs, nobodys)
    assert other.get(f"{KEYS}/{theirs}").status_code == 200


def test_quarantine_of_another_organization_is_answered_as_what_is_not(api: httpx.Client, other: httpx.Client) -> None:
    bad = {"kind": "images", "images": -1}
    theirs = other.post(EVENTS, json=bad).json()["faults"][0]["quarantine_id"]
    nobodys = "quar_000000000000000000000000"
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/replay")):
        answers = [api.request(method, f"{QUARANTINE}/{name}{more}") for name in (theirs, nobodys)]
        same(answers[0], answers[1], theirs, nobodys)
    answers = [api.get(QUARANTINE, params={"after": name}) for name in (theirs, nobodys)]
    same(answers[0], answers[1], theirs, nobodys)
    assert other.get(f"{QUARANTINE}/{theirs}").status_code == 200
    mine = api.post(EVENTS, json=bad).json()["faults"][0]["quarantine_id"]
    assert mine != theirs, "the same fault has another id here: an id tells nothing of what others sent"


def test_a_rerating_of_another_organization_is_answered_as_one_that_is_not(
    api: httpx.Client, other: httpx.Client
) -> None:
    other.post(EVENTS, json={"kind": "completions", "timestamp": DAY, "model": "gpt-4o", "input_tokens": 5})
    prices = "model,counted,unit,price\ngpt-4o,input,1M tokens,9\n"
    asked = {"start_time": DAY, "end_time": DAY + 86_400, "prices": prices, "dry_run": False}
    assert other.post(f"{COSTS}/rerate", json=asked).status_code == 200
    (entry,) = other.get(f"{COSTS}/reratings").json()["data"]
    theirs, nobodys = entry["id"], "rate_000000000000000000000000"
    answers = [api.get(f"{COSTS}/reratings", params={"after": name}) for name in (theirs, nobodys)]
    assert answers[0].status_code == 400
    same(answers[0], answers[1], theirs, nobodys)


def test_a_cursor_of_another_organization_is_answered_as_a_damaged_one(api: httpx.Client, other: httpx.Client) -> None:
    question = {"start_time": DAY, "end_time": DAY + 5 * 86_400, "limit": 2}
    for path in (f"{USAGE}/completions", COSTS):
        theirs = other.get(path, params=question).json()["next_page"]
        damaged = theirs[:-6] + ("AAAA" if theirs[-6:-2] != "AAAA" else "BBBB") + theirs[-2:]
        answers = [api.get(path, params=question | {"page": page}) for page in (theirs, damaged)]
        assert answers[0].json()["error"]["code"] == "invalid_cursor"
        same(answers[0], answers[1], theirs, damaged)
        assert other.get(path, params=question | {"page": theirs}).status_code == 200


def test_what_another_organization_stored_is_neither_a_duplicate_nor_a_conflict_here(
    api: httpx.Client, other: httpx.Client
) -> None:
    event = {"kind": "images", "id": "one", "timestamp": DAY, "images": 1}
    receipts = [
        client.post(EVENTS, json=event | {"images": images}).json()
        for client, images in ((other, 1), (api, 2), (other, 1), (api, 2))
    ]
    counts = [(receipt["accepted"], receipt["duplicates"], receipt["conflicts"]) for receipt in receipts]
    assert counts == [(1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0)]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://example.com","open")', "'=1", "plain", "'plain'"]


@pytest.fixture
def named(api: httpx.Client) -> httpx.Client:
    """An organization whose users have names that a spreadsheet takes for formulas."""
    events = [
        {"kind": "completions", "id": str(number), "timestamp": DAY, "model": name, "user_id": name, "project_id": name}
        | {"input_tokens": number + 1}
        for number, name in enumerate(FORMULAS)
    ]
    assert api.post(EVENTS, json=events).json()["accepted"] == len(FORMULAS)
    return api


def assert_harmless(content: str, *, names: int) -> None:
    cells = {cell for row in csv.reader(io.StringIO(content, newline="")) for cell in row}
    text = {cell for cell in cells if not re.fullmatch(r"-?\d+(\.\d+)?", cell)}
    assert [cell for cell in text if cell[:1] in "=+-@\t\r\n" and cell] == []
    assert len({f"'{name}" for name in FORMULAS[:6]} & cells) == names


@pytest.mark.parametrize("path", [f"{COSTS}/export?schema={name}&" for name in ("focus-1.4", "focus-1.2", "openai")])
def test_no_cell_of_a_bill_is_a_formula(path: str, named: httpx.Client) -> None:
    event = {"kind": "completions", "id": "c", "timestamp": DAY, "model": "=1", "project_id": "=1+1", "input_tokens": 1}
    named.post(EVENTS, json=event | {"cost": {"value": 1, "currency": "usd"}})
    content = named.get(f"{path}start_time={DAY}&end_time={DAY + 86_400}").text
    assert content.count("\n") > 1
    assert_harmless(content, names=1)


def test_no_cell_of_an_export_of_usage_is_a_formula_and_import_gives_back_what_was(
    named: httpx.Client, server: Server, organization: str, tmp_path: Path
) -> None:
    content = named.get(f"{USAGE}/export?start_time={DAY}&end_time={DAY + 86_400}").text
    assert_harmless(content, names=6)
    path = tmp_path / "events.csv"
    path.write_text(content)
    copy = f"{organization}-copy"
    run("import", path, "--data", server.data, "--organization", copy)
    with server.http(server.key(copy)) as client:
        page = client.get(f"{QUESTION}&group_by=user_id&limit=1").json()
    users = {result["user_id"]: result["input_tokens"] for result in page["data"][0]["results"]}
    assert users == {name: number + 1 for number, name in enumerate(FORMULAS)}


@pytest.mark.parametrize("command", ["usage completions", "costs"])
def test_no_cell_that_a_command_prints_is_a_formula(
    command: str, named: httpx.Client, server: Server, organization: str
) -> None:
    named.post(EVENTS, json=[{"kind": "completions", "timestamp": DAY, "user_id": name, "input_tokens": 1,
                              "cost": {"value": 1, "currency": "usd"}} for name in FORMULAS])  # fmt: skip
    arguments = ("--data", server.data, "--organization", organization, "--since", DAY, "--until", DAY + 86_400)
    printed = run(*command.split(), "--csv", "--group-by", "user_id", *arguments)
    assert_harmless(printed, names=6)


@pytest.mark.parametrize(
    "path",
    ["/v1/organization%2Fusage%2Fcompletions", "/%76%31/organization/usage/completions", "/v1/organization/costs%00",
     "/healthz/../v1/organization/costs", "/docs/assets/../../v1/organization/costs", "/v1/organization/costs;a=b"],
)  # fmt: skip
def test_a_path_written_otherwise_opens_nothing(path: str, anyone: httpx.Client, server: Server) -> None:
    target = httpx.URL(server.url).copy_with(raw_path=f"{path}?start_time={DAY}".encode())
    assert anyone.get(target).status_code in {401, 404}
