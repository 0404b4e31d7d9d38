"""A server of our own that answers what a test tells it to: as a provider of models, or as a Tallybook gone wrong."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """An answer.

    Attributes:
        body: JSON if it is a dict or a list; the pieces it is sent in if it is a tuple; else as it is.
        status: of HTTP.
        headers: besides those of the body.
        pause_s: between pieces, or before the body.
        is_cut: the connection ends before the body does.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    pause_s: float = 0
    is_cut: bool = False


class Asked(NamedTuple):
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """What it asks, as JSON."""
        return json.loads(self.content)


Answers = Callable[[Asked], Reply]


class Scripted:
    """The server, while it runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self._answers: dict[str, Answers] = {}

    def on(self, path: str, answer: Answers | Reply | Sequence[Reply]) -> None:
        """Say what requests of a path get: always the same, one after the other (the last for ever), or computed."""
        if isinstance(answer, Reply):
            self._answers[path] = lambda _: answer
        elif callable(answer):
            self._answers[path] = answer
        else:
            left = list(answer)
            self._answers[path] = lambda _: left.pop(0) if len(left) > 1 else left[0]

    def answer(self, asked: Asked) -> Reply:
        """Return what a request gets."""
        self.asked.append(asked)
        path = asked.path.split("?")[0]
        found = [made for end, made in self._answers.items() if path.endswith(end)]
        return found[0](asked) if found else Reply({"error": {"message": "no such path"}}, 404)


def events(*found: Any, names: bool = False, done: bool = True) -> Reply:
    """Return a stream of events, one piece each."""
    pieces = [
        (f"event: {event['type']}\n" if names else "") + f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in found
    ]
    return Reply(
        (*pieces, "data: [DONE]\n\n") if done else tuple(pieces), headers={"content-type": "text/event-stream"}
    )


def packed(reply: Reply) -> Reply:
    """Return the same answer with its body packed by gzip."""
    whole = "".join(reply.body) if isinstance(reply.body, tuple) else json.dumps(reply.body)
    content = gzip.compress(whole.encode())
    middle = len(content) // 2
    kind = {"content-type": "application/json", **reply.headers}
    return Reply((content[:middle], content[middle:]), headers={**kind, "content-encoding": "gzip"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # an answer that takes for ever is no reason not to end
    block_on_close = False
    request_queue_size = 128
    scripted: Scripted

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks may be killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, content)
        try:
            self._send(self.server.scripted.answer(asked))
        except OSError:  # whoever asked did not wait
            self.close_connection = True

    def do_GET(self) -> None:
        self.do_POST()

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = dict(reply.headers)
        if isinstance(reply.body, tuple):
            headers["transfer-encoding"] = "chunked"
        else:
            content = json.dumps(reply.body).encode() if isinstance(reply.body, dict | list) else reply.body
            headers.setdefault("content-type", "application/json")
            headers["content-length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not isinstance(reply.body, tuple):
            time.sleep(reply.pause_s)
            self.wfile.write(content)
            return
        for piece in reply.body:
            data = piece.encode() if isinstance(piece, str) else piece
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(reply.pause_s)
        if reply.is_cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def scripted(port: int = 0) -> Iterator[Scripted]:
    """Run such a server on loopback."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.scripted = Scripted(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server.scripted
    finally:
        server.shutdown()
        server.server_close()
