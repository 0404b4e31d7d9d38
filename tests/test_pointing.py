"""A sender that is pointed at the wrong place works, or is told what to set: by its answer, the log and a metric."""

import base64
import gzip
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallybook.errors import Unauthorized
from tallybook.http2 import MESSAGE, Refusal
from tallybook.wire.credentials import given_key
from tests.otlp_shaped import in_protobuf, traces
from tests.support import Server, read_log
from tests.test_otlp_grpc import basic, send
from tests.test_otlp_http import call, used

A, B = "sk-admin-" + "A" * 43, "sk-admin-" + "B" * 43
EVENTS = "/v1/organization/usage/events"
JSON_BODY = json.dumps(traces(call(1))).encode()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose log and metrics nobody else writes to."""
    server = Server.start(tmp_path_factory.mktemp("own"))
    yield server
    assert server.stop() == 0


def mistakes(server: Server, reason: str) -> float:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return float(re.findall(rf'^tallybook_sender_mistakes_total{{reason="{reason}"}} (\S+)', text, re.MULTILINE)[0])


def logged(server: Server, reason: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (server.data / "server.log").read_text().splitlines() if line[:1] == "{"]
    return [line for line in lines if line.get("reason") == reason]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": f"Bearer {A}"}, A),
        ({"authorization": f"bearer  {A} "}, A),
        ({"authorization": A}, A),
        ({"authorization": f"Bearer%20{A}"}, A),
        ({"authorization": f'"Bearer {A}"'}, A),
        ({"authorization": f"Bearer Bearer {A}"}, A),
        ({"authorization": f"Token {A}"}, A),
        ({"authorization": f"Api-Key {A}"}, A),
        ({"x-api-key": A}, A),
        ({"x-api-key": f"Bearer {A}"}, A),
        ({"api-key": A}, A),
        ({"authorization": basic(f"pk-lf-public:{A}")}, A),
        ({"authorization": basic(f"{A}:")}, A),
        ({"authorization": basic(f"{A}:x")}, A),
        ({"authorization": basic(A)}, A),
        ({"authorization": basic(f":{A}").rstrip("=")}, A),
        ({"authorization": basic("user:password")}, "password"),
        ({"authorization": f"Bearer {A}", "x-api-key": A, "api-key": f"Bearer {A}"}, A),
        ({"authorization": "", "x-api-key": A}, A),
        ({"authorization": ""}, ""),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "Digest username=x"}, ""),
        ({"authorization": "Basic !!!"}, ""),
        ({"authorization": "Basic /////w=="}, ""),
        ({"cookie": f"key={A}"}, None),
        ({"proxy-authorization": f"Bearer {A}"}, None),
    ],
)
def test_a_key_is_found_in_every_form(headers: dict[str, str], key: str | None) -> None:
    assert given_key([(name.encode(), value.encode()) for name, value in headers.items()]) == key


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {A}"), ("authorization", f"Bearer {B}")],
        [("authorization", f"Bearer {A}"), ("x-api-key", B)],
        [("api-key", A), ("x-api-key", B)],
        [("authorization", basic(f"{A}:{B}"))],
    ],
)
def test_two_different_keys_are_rejected_with_the_reason(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Unauthorized, match="2 different API keys") as raised:
        given_key([(name.encode(), value.encode()) for name, value in headers])
    assert A not in str(raised.value)
    assert B not in str(raised.value)


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "authorization"])
def test_a_key_of_ours_counts_beside_one_of_a_proxy_in_whatever_header(name: str) -> None:
    other = "x-api-key" if name == "authorization" else "authorization"
    headers = [(other, basic("proxy:secret") if other == "authorization" else "another"), (name, A)]
    for order in (headers, headers[::-1]):
        assert given_key([(each.encode(), value.encode()) for each, value in order]) == A


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"api-key"]), st.binary()), max_size=3))
def test_whatever_a_header_holds_is_a_key_none_or_rejected(headers: list[tuple[bytes, bytes]]) -> None:
    with suppress(Unauthorized):
        assert isinstance(given_key(headers), str | None)


@pytest.mark.parametrize("path", [EVENTS, "/v1/traces"])
@pytest.mark.parametrize("name", ["x-api-key", "api-key", "authorization"])
def test_a_key_works_in_its_forms_with_its_scopes_wherever_one_is_taken(
    server: Server, organization: str, path: str, name: str
) -> None:
    headers = {"content-type": "application/json"}
    body = JSON_BODY if path == "/v1/traces" else b'{"kind": "images", "images": 1}'
    for scope, expected in (("api.usage.write", 200), ("api.usage.read", 403)):
        key = server.key(organization, [scope])
        answer = httpx.post(server.url + path, content=body, headers=headers | {name: key}, trust_env=False)
        assert answer.status_code == expected, answer.text
    answer = httpx.post(server.url + path, content=body, headers=headers | {name: "sk-admin-wrong"}, trust_env=False)
    assert answer.status_code == 401


def test_without_a_key_the_answer_says_which_forms_work(own: Server) -> None:
    answer = httpx.post(own.url + EVENTS, content=b"{}", trust_env=False)
    assert answer.status_code == 401
    for form in ("Authorization: Bearer", "x-api-key", "api-key", "Basic"):
        assert form in answer.json()["error"]["message"]
    assert mistakes(own, "no_key") == 1


def test_a_key_in_the_address_is_not_read_and_said_to_be_lost(own: Server) -> None:
    answer = httpx.post(f"{own.url}{EVENTS}?api_key={own.admin_key}", content=b"{}", trust_env=False)
    assert answer.status_code == 401
    assert "revoke it" in answer.json()["error"]["message"]
    assert mistakes(own, "key_in_address") == 1
    assert own.admin_key not in read_log(own.data)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/traces/",
        "//v1/traces",
        "/v1//traces//",
        "/v1/v1/traces",
        f"{EVENTS}/v1/traces",
        f"{EVENTS}/otlp/v1/traces",
        "/api/public/otel/v1/traces",
        "/otlp/v1/traces/",
    ],
)
def test_an_address_that_can_mean_one_thing_only_works(api: httpx.Client, path: str) -> None:
    answer = api.post(httpx.URL(str(api.base_url).rstrip("/") + path), json=traces(call(1)))
    assert (answer.status_code, answer.json()) == (200, {})
    assert used(api) == 1


@pytest.mark.parametrize("path", [f"{EVENTS}/", f"/{EVENTS}", f"{EVENTS}//"])
def test_a_slash_too_many_is_no_redirect(api: httpx.Client, path: str) -> None:
    answer = api.post(httpx.URL(str(api.base_url).rstrip("/") + path), json={"kind": "images", "images": 1})
    assert answer.json()["accepted"] == 1
    answer = api.get("/v1/organization/usage/images/?start_time=1767225600")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/v1/trace", "/v1/traces"),
        ("/v1/Traces", "/v1/traces"),
        ("/traces", "/v1/traces"),
        ("/v1/metric", "/v1/metrics"),
        ("/v1/organization/usage/event", EVENTS),
        ("/organization/usage/events", EVENTS),
        (f"{EVENTS}/litelm", f"{EVENTS}/litellm"),
        (f"{EVENTS}/nonsense", EVENTS),
        ("/", "/v1/traces"),
    ],
)
def test_another_address_says_which_is_right(api: httpx.Client, path: str, right: str) -> None:
    answer = api.post(path, json={})
    assert answer.status_code in (404, 405)
    assert f"did you mean {right}?" in answer.json()["error"]["message"] or right in answer.json()["error"]["message"]


def test_a_wrong_address_is_logged_once_with_the_right_one_and_not_as_it_was_sent(own: Server) -> None:
    for _ in range(3):
        httpx.post(f"{own.url}/v1/trace?{own.admin_key}", content=b"{}", trust_env=False)
    (line,) = logged(own, "unknown_address")
    assert "/v1/traces" in line["remedy"]
    assert mistakes(own, "unknown_address") == 3


@pytest.mark.parametrize(
    "media",
    [
        None,
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "text/plain; charset=utf-8",
    ],
)
@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
def test_without_a_type_of_use_the_body_tells(
    api: httpx.Client, media: str | None, is_json: bool, is_packed: bool
) -> None:
    body = b"\n" + JSON_BODY + b"\n" if is_json else in_protobuf(traces(call(1)))
    headers = {"content-type": media} if media else {}
    answer = api.post("/v1/traces", content=gzip.compress(body) if is_packed else body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ("application/json" if is_json else "application/x-protobuf")
    assert used(api) == 1


@pytest.mark.parametrize("media", ["application/protobuf", 'application/x-protobuf; messageType="x"; charset=utf-8'])
def test_protobuf_by_another_name_is_protobuf(api: httpx.Client, media: str) -> None:
    answer = api.post("/v1/traces", content=in_protobuf(traces(call(1))), headers={"content-type": media})
    assert answer.status_code == 200
    assert used(api) == 1


def test_another_type_is_refused_logged_and_says_what_to_send(own: Server) -> None:
    with own.http() as api:
        answer = api.post("/v1/traces", content=JSON_BODY, headers={"content-type": "image/png"})
    assert answer.status_code == 415
    assert "application/x-protobuf" in answer.json()["error"]["message"]
    assert len(logged(own, "content_type")) == mistakes(own, "content_type") == 1


def test_a_packed_body_need_not_say_so(api: httpx.Client) -> None:
    body = gzip.compress(b'{"kind": "images", "images": 1}')
    assert api.post(EVENTS, content=body).json()["accepted"] == 1


def test_grpc_on_the_http_port_says_what_to_set(own: Server) -> None:
    address = own.url.removeprefix("http://")
    for _ in range(2):
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
            send(channel, None, in_protobuf(traces(call(1))))
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert error.details() == MESSAGE
    (line,) = logged(own, "http2_on_http_port")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in line["remedy"]
    assert "otlp-grpc-port" in line["remedy"]
    assert mistakes(own, "http2_on_http_port") == 2


def test_tls_on_the_http_port_is_logged(own: Server) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(own.url.replace("http:", "https:"), trust_env=False)
    assert len(logged(own, "tls_on_http_port")) == 1


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\x64"
CALL_FRAME = b"\0\0\4\1\4\0\0\0\1" + b"abcd"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 60), max_size=8), st.binary(max_size=40))
def test_the_answer_does_not_depend_on_how_the_bytes_are_cut(cuts: list[int], rest: bytes) -> None:
    stream = SETTINGS + CALL_FRAME + rest
    whole = Refusal()
    expected = whole.begin(PREFACE + stream)
    assert whole.is_over
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = Refusal()
    found = pieces.begin(PREFACE[-3:])
    found += b"".join(pieces.answer(stream[begin:end]) for begin, end in itertools.pairwise(edges))
    assert found == expected


@pytest.mark.parametrize("cut", [1, 3, 14, 18, 20, 23])
def test_a_preface_in_two_pieces_is_one(own: Server, cut: int) -> None:
    host, _, port = own.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(PREFACE[:cut])
        time.sleep(0.1)
        connection.sendall(PREFACE[cut:] + SETTINGS + CALL_FRAME)
        found = b""
        while piece := connection.recv(4096):
            found += piece
    assert MESSAGE.encode() in found


def test_no_secret_is_in_the_log_of_mistakes(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--log-level", "debug"])
    for path in (
        f"/v1/trace/{A}",
        f"/{A}/v1/traces",
        f"{EVENTS}?key={A}",
        f"/v1/traces?{A}",
        f"/v1/organization/usage/{A}",
    ):
        for headers in (
            {"authorization": basic(f"x:{A}")},
            {"x-api-key": A},
            {"api-key": A, "x-api-key": B},
            {"content-type": A},
            {},
        ):
            httpx.post(server.url + path, content=A, headers=headers, trust_env=False)
    assert server.stop() == 0
    log = (tmp_path / "data" / "server.log").read_text()
    assert "a sender needs to be set up differently" in log
    assert "A" * 10 not in log
    assert base64.b64encode(f"x:{A}".encode()).decode() not in log
