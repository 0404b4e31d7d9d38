"""What every HTTP client, proxy, monitor and browser may rely on, whatever it asks for."""

import re
import socket
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.model import KINDS
from tests.support import Server

QUESTION = "/v1/organization/usage/completions?start_time=1748822400"
EVENTS = "/v1/organization/usage/events"
OPEN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"]


@pytest.fixture(scope="module")
def anyone(server: Server) -> Any:
    """A client without a key."""
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as client:
        yield client


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["type"] == "invalid_request_error"
    assert body["message"]
    return body


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/organization",
        "/v1/organization/usage",
        "/v1/organization/usage/",
        "/v1/organization/usage/completions/more",
        "/v1/organization/usage/%00",
        "/v1/organization/usage/%ff",
        "/v1/organization/usage/..%2f..%2fhealthz",
        "/v1/organization/usage/completions%0d%0aX-Injected:1",
        "/v1/organization/nothing",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/organization/admin_api_keys/a/b",
        "/v1/organization/usage/quarantine/a/b",
        "/v1/" + "x" * 5000,
    ],
    ids=lambda path: path[:60],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_any_other_path_is_a_404_in_the_usual_envelope(method: str, path: str, api: httpx.Client) -> None:
    error(api.request(method, path, params={"start_time": 1}), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", QUESTION, "GET"),
        ("DELETE", QUESTION, "GET"),
        ("PUT", EVENTS, "POST"),
        ("PATCH", EVENTS, "POST"),
        ("PUT", "/v1/organization/usage/quarantine", "GET"),
        ("PUT", "/v1/organization/usage/quarantine/quar_1", "DELETE"),
        ("GET", "/v1/organization/usage/quarantine/quar_1/replay", "POST"),
        ("DELETE", "/v1/organization/admin_api_keys", "POST"),
        ("POST", "/v1/organization/admin_api_keys/key_1", "DELETE"),
        ("POST", "/v1/organization/usage/check", "GET"),
        ("OPTIONS", QUESTION, "GET"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    method: str, path: str, allowed: str, api: httpx.Client
) -> None:
    answer = api.request(method, path)
    error(answer, 405)
    assert allowed in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_for_everyone(path: str, anyone: httpx.Client) -> None:
    assert anyone.get(path).status_code == 200


def test_metrics_are_prometheus_text_with_our_names(anyone: httpx.Client, api: httpx.Client) -> None:
    api.post(EVENTS, json={"kind": "completions", "input_tokens": 1})
    api.get(QUESTION)
    answer = anyone.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(answer.text))
    assert families
    assert [family.name for family in families if not family.name.startswith("tallybook_")] == []
    assert all(family.documentation for family in families)


def test_metrics_do_not_grow_with_what_strangers_ask(anyone: httpx.Client) -> None:
    """Paths as label values would let anyone fill the memory."""
    for number in range(20):
        anyone.get(f"/v1/stranger-{number}")
        anyone.get(f"/stranger-{number}")
    assert "stranger" not in anyone.get("/metrics").text


def test_openapi_describes_every_kind(anyone: httpx.Client) -> None:
    document = anyone.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    described = str(document)
    for kind in KINDS:
        assert kind in described
    for path in ("/v1/organization/usage/events", "/v1/organization/admin_api_keys"):
        assert path in document["paths"]


class References(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"src", "href", "action"} and value]


def test_the_documentation_page_needs_no_other_host(anyone: httpx.Client, server: Server) -> None:
    page = anyone.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    parser = References()
    parser.feed(page.text)
    urls = [urljoin(str(page.url), found) for found in parser.found if not found.startswith("data:")]
    assert any(urlsplit(url).path.endswith(".js") for url in urls)
    for url in urls:
        assert urlsplit(url).netloc == urlsplit(server.url).netloc
        assert anyone.get(url).status_code == 200
    scripts = [text for url in urls if ".js" in url and len(text := anyone.get(url).text) < 20_000]
    for text in (page.text, *scripts):  # what is longer is the bundle, whose licence texts name their hosts
        assert not re.search(r"""["'(=]\s*(https?:)?//(?!www\.w3\.org)""", text)


@pytest.mark.parametrize("path", [*OPEN, QUESTION, "/v1/nothing", "/nothing", EVENTS])
def test_every_answer_has_an_id_of_its_own(path: str, api: httpx.Client) -> None:
    ids = [api.get(path).headers["x-request-id"] for _ in range(2)]
    assert ids[0]
    assert ids[0] != ids[1]


ODD_HEADERS: list[dict[str, str]] = [
    {"Content-Type": "application/json"},
    {"Content-Type": "nonsense/;;="},
    {"Content-Encoding": "gzip"},
    {"OpenAI-Organization": "org-of-someone"},
    {"OpenAI-Project": "proj_1"},
    {"OpenAI-Beta": "assistants=v2"},
    {"Accept": "text/html"},
    {"Accept": "*/*;q=nonsense"},
    {"Accept-Encoding": "br;q=1.0, nonsense"},
    {"Accept-Language": "*"},
    {"User-Agent": ""},
    {"Cookie": "a=b; c"},
    {"Range": "bytes=0-1"},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "never"},
    {"X-Forwarded-For": "nonsense, , 1"},
    {"X-Forwarded-Proto": "gopher"},
    {"X-Request-Id": "a" * 4000},
    {"X-Http-Method-Override": "DELETE"},
    {"Traceparent": "00-nonsense"},
    {"Connection": "upgrade", "Upgrade": "websocket"},
    {"Upgrade": "h2c"},
    {"Expect": "100-continue"},
    {"X-Stainless-Lang": "python", "X-Stainless-Retry-Count": "0"},
    {"X-Long": "x" * 8000},
]


@pytest.mark.parametrize("headers", ODD_HEADERS, ids=lambda headers: str(headers)[:60])
def test_odd_headers_change_no_answer(headers: dict[str, str], api: httpx.Client) -> None:
    query = f"{QUESTION}&end_time=1749427200"
    answer = api.get(query, headers=headers)
    assert (answer.status_code, answer.json()) == (200, api.get(query).json())


@pytest.mark.parametrize("content", [b"{}", b"nonsense", b"\0" * 1000])
def test_a_body_on_a_question_is_ignored(content: bytes, api: httpx.Client) -> None:
    assert api.request("GET", QUESTION, content=content).status_code == 200


def test_a_header_never_opens_another_organization(api: httpx.Client, organization: str, server: Server) -> None:
    """The key decides whose usage it is; the header that clients send beside it grants nothing."""
    api.post(EVENTS, json={"kind": "completions", "timestamp": 1_748_865_600, "input_tokens": 1})
    with server.http(server.key(f"{organization}-other")) as other:
        answer = other.get(QUESTION, headers={"OpenAI-Organization": organization})
    assert answer.status_code in {200, 401}
    assert not any(bucket["results"] for bucket in answer.json().get("data", []))


@pytest.mark.parametrize(
    "query",
    ["start_time=%zz", "start_time=%", "%ff=1", "=", "&&&", "start_time", "a=b=c", "[]=1", "start_time[]=1[]",
     "start_time[0]=1", "%00=%00", "start_time=1&" * 500, "x" * 20_000, "group_by[a]=model", "\u00e9=1"],
    ids=lambda query: query[:20],
)  # fmt: skip
def test_a_query_of_nonsense_is_the_senders_fault(query: str, api: httpx.Client) -> None:
    answer = api.get(f"/v1/organization/usage/completions?{query}")
    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "head",
    [
        b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n",
        b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: \r\n",
        b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        b"GET %s HTTP/1.0\r\n",
        b"GET %s HTTP/1.1\r\nHost: \xff\r\nOpenAI-Organization: \xe9\r\n",
        b"GET %s HTTP/1.1\r\nHost: x\r\nContent-Encoding: \xff\r\nContent-Type: \xff\r\n",
    ],
)
def test_bytes_that_no_client_library_sends_are_refused(head: bytes, server: Server) -> None:
    address = urlsplit(server.url)
    assert address.hostname
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
        connection.sendall(head.replace(b"%s", QUESTION.encode()) + b"Connection: close\r\n\r\n")
        answer = b""
        while len(answer) < 100_000 and (chunk := connection.recv(65_536)):
            answer += chunk
    assert answer.split(b" ")[1] in {b"400", b"401"}, answer
