"""Clients that send too much, too slowly, or what is no HTTP: told so, parted with, and nobody else is kept waiting."""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from tallybook.connection import HEAD_BYTES_MAX, KEEP_ALIVE_S, RATE_BYTES_S
from tests.support import Server

EVENTS = "/v1/organization/usage/events"
DAY = 1_767_225_600
EXPORT = f"/v1/organization/usage/export?kinds=completions&start_time={DAY}&end_time={DAY + 86_400}"
CLIENT_S = 2
CONNECTIONS = 8
PATIENCE_S = 30
"""For what must happen in seconds, on a machine that has other things to do."""
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little patience."""
    yield from running(tmp_path_factory.mktemp("strict"), "--client-s-max", str(CLIENT_S))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little room."""
    yield from running(tmp_path_factory.mktemp("small"), "--connections-max", str(CONNECTIONS))


def running(data: Path, *arguments: str) -> Iterator[Server]:
    server = Server.start(data, args=arguments)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in (data / "server.log").read_text()


class Answer:
    """An answer as it came over the line."""

    def __init__(self, received: bytes) -> None:
        head, _, self.body = received.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1]) if head else 0
        lines = head.decode("latin-1").split("\r\n")[1:]
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    @property
    def code(self) -> str:
        code: str = msgspec.json.decode(self.body)["error"]["code"]
        return code


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=PATIENCE_S) as connection:
        yield connection


def read_to_the_end(connection: socket.socket) -> bytes:
    received = bytearray()
    while chunk := connection.recv(65_536):
        received += chunk
    return bytes(received)


def read_one(connection: socket.socket) -> Answer:
    """Read one answer of a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65_536)
        assert chunk, f"closed after {received!r}"
        received += chunk
    length = int(Answer(received).headers["content-length"])
    while len(Answer(received).body) < length:
        received += connection.recv(65_536)
    return Answer(received)


def last_words(server: Server, sent: bytes, more: Iterable[bytes] = (), pause_s: float = 0.0) -> Answer:
    """Send, and return the answer that comes before the server closes the connection."""
    with connected(server) as connection:
        connection.sendall(sent)
        for piece in more:
            time.sleep(pause_s)
            try:
                connection.sendall(piece)
            except OSError:  # it has stopped to listen
                break
        return Answer(read_to_the_end(connection))


def is_well(server: Server) -> bool:
    with server.http() as client:
        return client.get("/healthz").status_code == 200


def authorized(server: Server, method: str, path: str, more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin_key}\r\n{more}\r\n".encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5,
        b"nonsense\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:80 HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX y: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_what_is_no_http_is_a_400_like_every_other(sent: bytes, server: Server) -> None:
    answer = last_words(server, sent)
    assert (answer.status, answer.code) == (400, "invalid_http")
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_is_refused_is_logged_with_the_id_of_its_answer_and_counted(server: Server) -> None:
    answer = last_words(server, b"nonsense\r\n\r\n")
    assert answer.headers["x-request-id"] in (server.data / "server.log").read_text()
    with server.http() as client:
        assert 'method="other",route="unmatched",status="400"' in client.get("/metrics").text


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz?" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * (HEAD_BYTES_MAX // 6) + b"\r\n",
    ],
    ids=["value", "path", "query", "number"],
)
def test_a_head_too_large_is_a_431(head: bytes, server: Server) -> None:
    answer = last_words(server, head)
    assert (answer.status, answer.code) == (431, "head_too_large")


def test_a_head_as_large_as_it_may_be_is_served(server: Server) -> None:
    head = b"GET /healthz HTTP/1.1\r\nConnection: close\r\nX: " + b"a" * (HEAD_BYTES_MAX - 100) + b"\r\n\r\n"
    assert last_words(server, head).status == 200


@pytest.mark.parametrize("start", [b"GET /healthz HTTP/1.1\r\nX: ", b"GET /", b"GET /healthz HTTP/1.1\r\nX"])
def test_a_head_without_end_is_cut_off(start: bytes, server: Server) -> None:
    answer = last_words(server, start, [b"a" * 65_536] * 100)
    assert (answer.status, answer.code) == (431, "head_too_large")


@pytest.mark.parametrize("sent", [b"GET /heal", b"GET /healthz HTTP/1.1\r\nX: a"], ids=["path", "head"])
def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes, strict: Server) -> None:
    started = time.monotonic()
    answer = last_words(strict, sent)
    assert time.monotonic() - started >= CLIENT_S
    assert (answer.status, answer.code) == (408, "request_too_slow")


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "lines"])
def test_a_connection_over_which_nothing_comes_is_closed_without_a_word(sent: bytes, strict: Server) -> None:
    started = time.monotonic()
    assert last_words(strict, sent).status == 0
    assert time.monotonic() - started >= CLIENT_S


@pytest.mark.parametrize("start", ["head", "body"])
def test_a_request_that_comes_byte_by_byte_is_not_waited_for(start: str, strict: Server) -> None:
    post = authorized(strict, "POST", EVENTS, "Content-Length: 100000\r\n")
    sent = {"head": b"GET /healthz HTTP/1.1\r\nX: ", "body": post}[start]
    answer = last_words(strict, sent, [b"a"] * 300, 0.1)
    assert (answer.status, answer.code) == (408, "request_too_slow")
    assert is_well(strict)


def test_a_request_that_is_long_but_not_slow_is_taken(strict: Server) -> None:
    events = b"\n".join(b'{"kind": "images", "images": 1, "timestamp": %d}' % DAY for _ in range(6_000))
    pieces = [events[at : at + 2 * RATE_BYTES_S] for at in range(0, len(events), 2 * RATE_BYTES_S)]
    head = authorized(strict, "POST", EVENTS, f"Connection: close\r\nContent-Length: {len(events)}\r\n")
    started = time.monotonic()
    answer = last_words(strict, head, pieces, 0.5)
    assert time.monotonic() - started > 1.5 * CLIENT_S
    assert answer.status == 200
    assert msgspec.json.decode(answer.body)["accepted"] == 6_000


def test_who_is_idle_between_requests_may_take_longer(strict: Server) -> None:
    assert KEEP_ALIVE_S > 2 * CLIENT_S
    with connected(strict) as connection:
        for _ in range(2):
            connection.sendall(HEALTH)
            assert read_one(connection).status == 200
            time.sleep(1.5 * CLIENT_S)
        connection.sendall(b"\r\n")  # nothing, but no longer idle
        assert read_to_the_end(connection) == b""


def test_requests_sent_at_once_are_answered_in_their_order(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nX-Request-Id: first\r\n\r\n"
            b"GET /nothing HTTP/1.1\r\nX-Request-Id: second\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\nX-Request-Id: third\r\nConnection: close\r\n\r\n"
        )
        received = read_to_the_end(connection)
    places = [received.find(f"x-request-id: {name}".encode()) for name in ("first", "second", "third")]
    assert -1 not in places
    assert places == sorted(places)


def test_nonsense_behind_a_request_ends_the_connection_and_not_the_request(strict: Server) -> None:
    """While an answer is being made, its connection turns out to be no good."""
    body = b'{"kind": "images", "id": "before", "timestamp": %d, "images": 1}' % DAY
    post = authorized(strict, "POST", EVENTS, f"Content-Length: {len(body)}\r\n") + body
    for behind in (b"nonsense\r\n\r\n", HEALTH + b"nonsense\r\n\r\n", post * 20 + b"nonsense\r\n\r\n"):
        assert last_words(strict, post + behind).code == "invalid_http"
        with connected(strict) as connection:
            connection.sendall(post + behind.removesuffix(b"nonsense\r\n\r\n"))  # and is gone
    with strict.http() as client:
        stored = {"kind": "images", "id": "before", "timestamp": DAY, "images": 1}
        assert client.post(EVENTS, json=stored).json()["duplicates"] == 1
    log = (strict.data / "server.log").read_text()
    assert "request failed" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_protocol_that_is_not_spoken_is_passed_over(protocol: bytes, server: Server) -> None:
    answer = last_words(server, b"GET /healthz HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n")
    assert answer.status == 200


@pytest.mark.parametrize("given", ["a b", "a\tb", "a%0d%0aX-Injected:1", "\u00e9", "a" * 129, "", "{}", "<script>"])
def test_a_request_id_that_is_more_than_one_is_not_taken_over(given: str, server: Server) -> None:
    with server.http() as client:
        answer = client.get("/healthz", headers={b"X-Request-Id": given.encode()})
    assert answer.headers["x-request-id"].startswith("req_")
    assert "x-injected" not in answer.headers


def test_connections_beyond_the_limit_are_told_to_come_again(small: Server) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(connected(small)).sendall(b"GET /healthz HTTP/1.1\r\nX: a")
        refused = last_words(small, authorized(small, "GET", "/v1/organization/admin_api_keys"))
        served = last_words(small, HEALTH)
        with connected(small) as first, connected(small) as second:
            first.sendall(b"GET")
            assert second.recv(1) == b"", "so many are not even told"
    assert (refused.status, refused.code) == (503, "too_many_connections")
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
    assert served.status == 200, "a full server is not dead"
    assert is_well(small)


def test_idle_connections_make_room_for_new_ones(small: Server) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(small)) for _ in range(CONNECTIONS)]
        for connection in idle:
            connection.sendall(HEALTH)
            assert read_one(connection).status == 200
        for number in range(1, 4):
            new = stack.enter_context(connected(small))
            new.sendall(authorized(small, "GET", "/v1/organization/admin_api_keys"))
            assert read_one(new).status == 200
            assert idle[number - 1].recv(1) == b"", "the longest idle goes first"
        idle[-1].sendall(HEALTH)
        assert read_one(idle[-1]).status == 200


def test_exports_that_nobody_takes_make_room_for_one_that_is_taken(strict: Server) -> None:
    lines = [
        b'{"kind": "completions", "id": "%d", "timestamp": %d, "model": "%s", "input_tokens": 1}'
        % (number, DAY + number % 86_400, b"m" * 200)
        for number in range(50_000)
    ]
    with strict.http() as client, ExitStack() as stack:
        assert client.post(EVENTS, content=b"\n".join(lines)).json()["accepted"] == len(lines)
        for _ in range(2):
            stalled = stack.enter_context(connected(strict))
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stalled.sendall(authorized(strict, "GET", EXPORT))
            assert stalled.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        whole = client.get(EXPORT)
        assert whole.text.count("\n") == len(lines) + 1
        assert time.monotonic() - started >= CLIENT_S / 2, "both turns were taken"
    assert "does not take its answer" in (strict.data / "server.log").read_text()


def test_bodies_that_come_in_together_have_a_limit_together(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--queue-bytes-max", "1000000"])
    post = authorized(server, "POST", EVENTS, "Content-Length: 900000\r\n")
    with connected(server) as kept, server.http() as client:
        kept.sendall(post + b" " * 400_000)
        with connected(server) as given_up:
            given_up.sendall(post + b" " * 400_000)
            wait_for(client, "tallybook_incoming_bytes 800000.0")
            with connected(server) as beyond:
                beyond.sendall(post + b" " * 400_000)
                refused = read_one(beyond)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "queue_full", "1")
        wait_for(client, "tallybook_incoming_bytes 400000.0")
        kept.sendall(b" " * 500_000)
        assert read_one(kept).code == "no_events", "an end has come to a body of white space"
        wait_for(client, "tallybook_incoming_bytes 0.0")
    assert server.stop() == 0


def wait_for(client: httpx.Client, measured: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while f"{measured}\n" not in (text := client.get("/metrics").text):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


def test_a_thousand_connections_that_say_nothing_keep_nobody_waiting(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--client-s-max", "5"])
    with ExitStack() as stack:
        for _ in range(900):
            stack.enter_context(connected(server))
        with server.http() as client:
            for number in range(20):
                event = {"kind": "images", "id": str(number), "timestamp": DAY, "images": 1}
                assert client.post(EVENTS, json=event).status_code == 200
            wait_for(client, "tallybook_connections 901.0")
            wait_for(client, "tallybook_connections 1.0")
    assert server.stop() == 0


def test_a_hostile_client_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--stop-s-max", "1"])
    with connected(server) as connection:
        connection.sendall(authorized(server, "POST", EVENTS, "Content-Length: 900000\r\n") + b" ")
        time.sleep(0.2)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < PATIENCE_S / 2


def test_what_strangers_send_leaves_the_server_as_it_was(server: Server, api: httpx.Client) -> None:
    event = {"kind": "images", "timestamp": DAY, "images": 1}
    assert api.post(EVENTS, json=event).status_code == 200
    with connected(server) as connection:
        connection.sendall(authorized(server, "POST", EVENTS, "Content-Length: 10\r\n") + b'{"kind"')
    assert api.post(EVENTS, json=event).json()["accepted"] == 1
