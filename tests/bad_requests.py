"""Requests that no decent client sends, as bytes on a socket, and what the server must do about each.

It answers, or parts with the connection; it never fails (5xx), never answers what is no error envelope, and never
takes longer than `ANSWER_S_MAX`. What it must not do over many requests, such as grow, is for those who count.
"""

import gzip
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import httpx

from tallybook.ingest.zstandard import zstd
from tallybook.kinds import KINDS
from tests.support import Server

ANSWER_S_MAX = 60
"""On a machine that has other things to do."""
DAY = 1_748_822_400
EVENTS = "/v1/organization/usage/events"
METHODS = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "M-SEARCH",
    "PRI", "G\x00T",
]  # fmt: skip
GOOD = {"kind": "completions", "id": "a", "timestamp": DAY, "model": "m", "input_tokens": 9, "output_tokens": 2}
NUMBERS = ["0", "-0", "-1", "1.5", "1e400", "-1e999", "9" * 400, "9" * 5_000, str(2**53), str(2**64), "1" + "0" * 30]
TEXTS = ["", "\x00", "é", "\ufeff", "'\"", "../..", "%00", "{{7*7}}", "\u202e", "=1+1", "a" * 300, "a" * 5_000]
HEADERS = [
    "Accept: */*", "Accept-Encoding: gzip", "Accept-Encoding: br;q=0", "Accept-Language: \xff\xfe",
    "Cookie: a=b; a=c", "Range: bytes=0-1", "If-None-Match: *", "Origin: null", "X-Request-Id: \x01",
    f"X-Request-Id: {'x' * 500}", "X:", "Content-Type: text/html; charset=\xff", "Content-Type: ",
    "Expect: 100-continue", "Expect: 200-ok", "TE: trailers", "Upgrade: websocket", "Connection: upgrade, close",
    "Connection: \t", "Keep-Alive: timeout=-1", "Via: 1.1 x", "Host: ", "Host: a b", "Host: [::",
    "Forwarded: for=unknown", "X-Forwarded-Host: evil", "HTTP2-Settings: AAMA", "OpenAI-Organization: org-other",
    "Content-Encoding: gzip", "Content-Encoding: zstd", "Content-Encoding: gzip, br", "Content-Encoding: \xff",
    "Content-Encoding: x-gzip", "Content-MD5: x", "Date: never", f"Long: {'y' * 3_000}",
]  # fmt: skip
FRAMES = [
    "Content-Length: -1", "Content-Length: 1e3", "Content-Length: 99999999999999999999999", "Content-Length: +5",
    "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length:",
    "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: \x0bchunked",
    "Content-Length: 5 5",
]  # fmt: skip
HEADS = [
    "GET", "GET /", "GET / HTTP", "GET / HTTP/9.9", "GET / HTTP/1.0", "/ GET HTTP/1.1", "GET  / HTTP/1.1",
    "\x16\x03\x01", "GET / HTTP/1.1 x", "GET /\x00 HTTP/1.1", "GET \xff HTTP/1.1", "GET * HTTP/1.1",
    "OPTIONS * HTTP/1.1", "GET http:// HTTP/1.1", "GET http://other/v1 HTTP/1.1", "CONNECT a:1 HTTP/1.1",
    "PRI * HTTP/2.0\r\n\r\nSM", "GET // HTTP/1.1", "\r\n\r\n", " GET / HTTP/1.1", f"GET /{'a' * 9_000} HTTP/1.1",
    f"GET /?{'a' * 140_000} HTTP/1.1", "GET /%zz HTTP/1.1", "GET /a#b HTTP/1.1",
]  # fmt: skip
LINES = [
    "no colon", ": no name", "a b: c", "A\x00: b", " folded: x", "X: y\r\n\tfolded", "X: \x00", "X: a\rb", "\xff: x",
    "X : y",
]  # fmt: skip
CHUNKS = [
    "5\r\nhello\r\n0\r\n\r\n", "zz\r\n", "-1\r\n\r\n", "ffffffffffffffffff\r\na", "2\r\nabc\r\n0\r\n\r\n", "5\r\nab",
    "0\n\n", "0\r\nX: y\r\n\r\n", "1;a=b\r\n{\r\n0\r\n\r\n", f"1;{'e' * 20_000}\r\n", "\r\n\r\n",
]  # fmt: skip
PIECES = [*map(quote, TEXTS), "%ff", "%2e%2e%2f", "//", ";a=b", "%", "%u0041", "?", "#", "/.", "\\"]
"""What makes another path of a path."""
PARAMETERS = [
    "start_time", "end_time", "bucket_width", "group_by", "limit", "page", "after", "order", "format", "batch", "kinds",
    "schema", "models", "line_items", "at", "%00", "", "start_time[]", "group_by[]", "x" * 400,
]  # fmt: skip
VALUES = [*NUMBERS, *map(quote, TEXTS), "1d", "1h", "model", "true", "%ff", "%E2%28", "csv", "a=b", ";"]
SCHEMES = ["Bearer", "bearer", "Basic", "", "Bearer Bearer", "\xff"]
PUT_IN = [b"\x00", b"\xff", b"\\ud800", b'"', b"}", b"\n", b"\xc2\x85", b"NaN", b",,"]
FIELDS = [
    *NUMBERS, *map(json.dumps, TEXTS), "null", "true", "[]", "{}", '"\ud800"', '"\\ud800"', "NaN", str(DAY), "[[[[]]]]",
    '{"value":1e999,"currency":"usd"}', '{"value":"0.1","currency":"usd"}', '"2025-02-30T00:00:00Z"',
]  # fmt: skip
ENCODINGS = ["gzip", "gzip", "zstd", "zstd", "x-gzip", "deflate", "br", "gzip, gzip", "GZIP", "\xff", ""]
COMMANDS = [
    "", "{", "[]", "null", "0", '"a"', "{}", '{"a":1}', '{"start_time":1,"end_time":0}', '{"name":"","scopes":["all"]}',
    '{"start_time":-1,"end_time":"x"}', '{"start_time":0,"end_time":9e99}', '{"name":1}', '{"name":"\\ud800"}',
    f'{{"start_time":{DAY},"end_time":{DAY + 1},"prices":"model\\n,,"}}', '{"name":"a","expires_in_seconds":-1}',
    *(f'{{"start_time":0,"end_time":1,"dry_run":true,"prices":{json.dumps(text * 9)}}}' for text in TEXTS),
]  # fmt: skip
BOMB = gzip.compress(bytes(64 * 1024 * 1024), 9)


@dataclass
class Flood:
    """Bad requests to one server, the same ones for the same seed.

    Attributes:
        sent: how many of each family.
        answers: how many of each status; 0 is a connection that was closed without an answer.
    """

    server: Server
    seed: int
    key: str
    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        address = urlsplit(self.server.url)
        self._address = (address.hostname or "", address.port or 0)
        with self.server.http(self.key) as api:
            paths = api.get("/openapi.json").json()["paths"]
            self._operations = [(method.upper(), path) for path, methods in paths.items() for method in methods]
            window = {"start_time": DAY, "end_time": DAY + 10 * 86_400, "limit": 1}
            self._cursor = api.get("/v1/organization/usage/completions", params=window).json()["next_page"]
        self._families: list[Callable[[], bytes]] = [
            self._heads,
            self._header_soup,
            self._framing,
            self._wrong_methods,
            self._odd_paths,
            self._wrong_questions,
            self._damaged_cursors,
            self._wrong_keys,
            self._broken_events,
            self._broken_events,
            self._wrong_events,
            self._wrong_events,
            self._packed_garbage,
            self._wrong_commands,
            self._deep,
            self._cut_short,
        ]

    def send(self, count: int) -> None:
        """Send that many requests, one after the other; raise AssertionError for an answer that must not be."""
        for _ in range(count):
            family = self._rng.choice(self._families)
            request = family()
            self.sent[family.__name__.strip("_")] += 1
            answer = self._exchange(request)
            status = answer.status_code if answer else 0
            self.answers[status] += 1
            told = f"{family.__name__} {request[:3_000]!r}\n{answer and answer.text[:2_000]}"
            assert status < 500, told
            if answer and status >= 400 and not request.startswith(b"HEAD "):
                assert isinstance(json.loads(answer.content)["error"]["message"], str), told
                assert self.key not in answer.text, told

    def _exchange(self, request: bytes) -> httpx.Response | None:
        """Send bytes, and read an answer if one comes before the connection ends."""
        with socket.create_connection(self._address, timeout=ANSWER_S_MAX) as connection:
            # Closed by a reset: many thousand connections that linger would use up the ports.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            received = bytearray()
            try:
                connection.sendall(request)
                if not _is_whole(request):
                    connection.shutdown(socket.SHUT_WR)
                while (answer := _parsed(bytes(received), request)) is None:
                    piece = connection.recv(1 << 16)
                    if not piece:
                        return None
                    received += piece
            except ConnectionError:  # refused before all was sent: what was received counts
                return _parsed(bytes(received), request)
            return answer

    # ------------------------------------------------------------------------------------------------ families

    def _heads(self) -> bytes:
        """No HTTP, or nearly: request lines and header lines of all sorts."""
        if self._rng.random() < 0.2:
            return self._rng.randbytes(self._rng.randrange(1, 200)) + b"\r\n\r\n"
        head = self._rng.choice([*HEADS, "GET /healthz HTTP/1.1"])
        lines = self._rng.sample(LINES, self._rng.randrange(4))
        return "\r\n".join([head, *lines, "", ""]).encode("latin-1")

    def _header_soup(self) -> bytes:
        """Many headers, twice over, in any order, on any endpoint."""
        method, path = self._operation()
        some = [self._rng.choice(HEADERS) for _ in range(self._rng.choice([1, 5, 30, 200]))]
        return self._request(method, path, json.dumps(GOOD).encode(), some)

    def _framing(self) -> bytes:
        """Bodies whose length is told wrongly, twice, or in chunks that are none."""
        head = f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
        if self._rng.random() < 0.5:
            return f"{head}{self._rng.choice(FRAMES)}\r\n\r\n{json.dumps(GOOD)}".encode("latin-1")
        return f"{head}Transfer-Encoding: chunked\r\n\r\n{self._rng.choice(CHUNKS)}".encode()

    def _wrong_methods(self) -> bytes:
        """Any method on any path."""
        _, path = self._operation()
        return self._request(self._rng.choice(METHODS), path, self._rng.choice([b"", b"{}"]))

    def _odd_paths(self) -> bytes:
        """Paths that are no endpoint's, though they look like one."""
        method, path = self._operation()
        place = self._rng.randrange(len(path) + 1)
        return self._request(method, path[:place] + self._rng.choice(PIECES) + path[place:], b"")

    def _wrong_questions(self) -> bytes:
        """Parameters that are not there, doubled, or of any value."""
        _, path = self._operation()
        given = [f"start_time={DAY}"] * self._rng.randrange(2)
        for _ in range(self._rng.randrange(8)):
            name, sign, value = map(self._rng.choice, (PARAMETERS, ["=", "=", "", "=="], VALUES))
            given.append(f"{name}{sign}{value}")
        return self._request("GET", f"{path}{'&' if '?' in path else '?'}{'&'.join(given)}", b"")

    def _damaged_cursors(self) -> bytes:
        """A real cursor with some of it changed, cut off, doubled, or of another question."""
        cursor = bytearray(self._cursor.encode())
        for _ in range(self._rng.randrange(4)):
            cursor[self._rng.randrange(len(cursor))] = self._rng.randrange(256)
        cursor = cursor[: self._rng.choice([len(cursor), len(cursor), self._rng.randrange(len(cursor))])]
        kind = self._rng.choice(sorted(KINDS))
        page = quote(bytes(cursor) * self._rng.choice([1, 1, 2, 50]), safe="")
        query = f"start_time={DAY}&end_time={DAY + 10 * 86_400}&limit=1&page={page}"
        return self._request("GET", f"/v1/organization/usage/{kind}?{query}", b"")

    def _wrong_keys(self) -> bytes:
        """No key, another's, or what is none."""
        method, path = self._operation()
        values = [
            "",
            "x",
            "sk-admin-" + "é" * 40,
            "y" * 9_000,
            "\x01",
            "a b",
            self.key[:-1],
            self.key + "x",
            self.key.upper(),
        ]
        line = f"Authorization: {self._rng.choice(SCHEMES)} {self._rng.choice(values)}"
        lines = [line] * self._rng.choice([1, 1, 2]) if self._rng.random() < 0.9 else []
        return self._request(method, path, b"{}", lines, key=None)

    def _broken_events(self) -> bytes:
        """Good bodies with bytes changed, taken out or put in."""
        count = self._rng.choice([1, 3, 80])
        body = bytearray("\n".join(json.dumps(GOOD | {"id": str(number)}) for number in range(count)).encode())
        if self._rng.random() < 0.3:
            body = bytearray(b"[" + bytes(body).replace(b"\n", b",") + b"]")
        for _ in range(self._rng.randrange(1, 6)):
            place = self._rng.randrange(len(body) or 1)
            match self._rng.randrange(4):
                case 0:
                    body[place : place + 1] = self._rng.randbytes(1)
                case 1:
                    del body[place : place + self._rng.choice([1, 5, 10_000])]
                case 2:
                    body[place:place] = self._rng.choice(PUT_IN)
                case _:
                    body[place:place] = body[: self._rng.randrange(50)]
        return self._request("POST", EVENTS, bytes(body))

    def _wrong_events(self) -> bytes:
        """Events by the grammar, with fields of any type, size and number."""
        count = self._rng.choice([1, 1, 2, 70])
        items = [self._wrong_event() for _ in range(count)]
        body = "[" + ",".join(items) + "]" if self._rng.random() < 0.5 else "\n".join(items)
        return self._request("POST", EVENTS, body.encode("utf-8", "surrogatepass"))

    def _wrong_event(self) -> str:
        kind = KINDS[self._rng.choice(sorted(KINDS))]
        names = ["id", "timestamp", "cost", *kind.dimensions, *kind.measures, "kind", "modle", "\\u0000", "x" * 300]
        given = [(name, self._rng.choice(FIELDS)) for name in self._rng.sample(names, self._rng.randrange(6))]
        given += [(name, "7") for name in kind.required if self._rng.random() < 0.7]
        return "{" + ",".join(f'"{name}":{value}' for name, value in [("kind", f'"{kind.name}"'), *given]) + "}"

    def _packed_garbage(self) -> bytes:
        """Bodies that are not in the encoding they claim, or unpack to something enormous."""
        plain = json.dumps(GOOD).encode() * self._rng.choice([1, 50])
        packed = self._rng.choice([gzip.compress(plain), zstd.compress(plain), self._rng.randbytes(100), b"", BOMB])
        if self._rng.random() < 0.7 and packed is not BOMB:
            place = self._rng.randrange(len(packed) + 1)
            rest = packed[self._rng.choice([place, place + 2]) :]
            packed = packed[:place] + self._rng.randbytes(self._rng.randrange(4)) + rest
        return self._request("POST", EVENTS, packed, [f"Content-Encoding: {self._rng.choice(ENCODINGS)}"])

    def _wrong_commands(self) -> bytes:
        """Bodies of all other endpoints: of the wrong shape, with windows that are none, in the wrong hands."""
        paths = [path for method, path in self._operations if method in {"POST", "DELETE"} and path != EVENTS]
        path = self._rng.choice(paths).replace("{", quote(self._rng.choice(TEXTS[1:]))).replace("}", "")
        return self._request(self._rng.choice(["POST", "DELETE"]), path, self._rng.choice(COMMANDS).encode())

    def _deep(self) -> bytes:
        """Nesting without end, keys without number, texts and bodies of blanks of a mebibyte."""
        count = self._rng.choice([200, 5_000, 100_000])
        openings = ["[", "{", '{"a":', '[{"a":', '{"kind":"images","images":', "[1,", "[[],"]
        bodies = [*(opening * count for opening in openings), "[" * count + "]" * count, "\n" * 10 * count]
        bodies += [
            "{" + ",".join(f'"k{number}":1' for number in range(count // 10)) + "}",
            '"' + "a" * 10 * count + '"',
        ]
        bodies += ["[" + ",".join("0" * (count // 50)) + "]", '{"kind":"completions","id":"' + "i" * count + '"}']
        return self._request("POST", EVENTS, self._rng.choice(bodies).encode())

    def _cut_short(self) -> bytes:
        """A good request that ends before its end."""
        whole = self._request("POST", EVENTS, json.dumps([GOOD] * 20).encode())
        return whole[: self._rng.randrange(1, len(whole))]

    # ------------------------------------------------------------------------------------------------ requests

    def _operation(self) -> tuple[str, str]:
        method, path = self._rng.choice(self._operations)
        if path.endswith("/export"):  # of all there ever was it would take long, rightly
            path += f"?start_time={DAY}&end_time={DAY + 86_400}"
        if "{" in path:
            path = (
                path[: path.index("{")]
                + quote(self._rng.choice([*TEXTS[1:], "key_1", "quar_1"]))
                + path[path.index("}") + 1 :]
            )
        return method, path

    def _request(
        self, method: str, path: str, body: bytes, lines: Sequence[str] = (), key: str | None = "mine"
    ) -> bytes:
        """A request with the right length, whatever else is wrong with it."""
        head = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines]
        if key:
            head.insert(1, f"Authorization: Bearer {self.key}")
        return "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body


def _is_whole(request: bytes) -> bool:
    """Whether no more of a request may be on its way: a server may wait for the rest otherwise."""
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")[1:]
        if line.lower().startswith(b"content-length")
    ]
    return lengths == [b"%d" % len(body)] and b"transfer-encoding" not in head.lower()


def _parsed(received: bytes, request: bytes) -> httpx.Response | None:
    """The first answer in what was received, None if it is not there as a whole."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    status_line, *lines = head.decode("latin-1").split("\r\n")
    status = int(status_line.split(" ")[1])
    if status == 100:
        return _parsed(body, request)
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    answer = httpx.Response(status, headers=headers, content=body)
    if request.startswith(b"HEAD "):
        return answer
    if answer.headers.get("transfer-encoding") == "chunked":
        return answer if body.endswith(b"0\r\n\r\n") else None
    return answer if len(body) >= int(answer.headers.get("content-length", 0)) else None
