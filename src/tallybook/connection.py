"""A client's connection: uvicorn's, with limits on what a client may send and on how long it may take.

Here is refused what no route sees: a head that is malformed or too large, a request that does not arrive, an answer
that is not taken, and connections beyond the most there may be. What is left idle makes room for who comes new.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools
import msgspec
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tallybook.errors import HeadTooLarge, InvalidRequest, RequestError, RequestTooSlow
from tallybook.http2 import Refusal
from tallybook.logs import new_request_id
from tallybook.metrics import Metrics
from tallybook.mistakes import Mistake, Mistakes
from tallybook.wire.headers import SECURITY_HEADERS

HEAD_BYTES_MAX: Final = 128 * 1024
"""Of request line and headers. A thousand ids in a filter fit; it is memory that anyone may take."""
RATE_BYTES_S: Final = 16 * 1024
"""Slower than any line in use, fast enough that nobody holds a place for hours."""
KEEP_ALIVE_S: Final = 75
"""Longer than proxies and client libraries keep an idle connection: the one that closes it had better be the client."""
_LOOKS: Final = 10
"""How often a connection is looked at in the time its client has."""
_TLS_HANDSHAKE: Final = b"\x16\x03"
"""What TLS begins with, of any version in use."""
_LINGER_S: Final = 2
"""How long what a refused client still sends is thrown away: closed at once, it would not get to read why."""

_log = structlog.get_logger()


def surplus_max(connections_max: int) -> int:
    """Return how many connections beyond the limit are told so; what is beyond these, too, is closed without a word."""
    return connections_max // 10 + 1


@dataclass(slots=True)
class Room:
    """What the connections of a server share.

    Attributes:
        connections_max: the most connections served at once.
        client_s_max: seconds a client has to send a request or to take an answer, and one more for every 16 KiB.
        metrics: where what is refused here is counted.
        mistakes: who speaks another protocol.
        idle: connections that wait for a next request, the longest idle first.
    """

    connections_max: int
    client_s_max: float
    metrics: Metrics
    mistakes: Mistakes
    idle: "dict[Connection, None]" = field(default_factory=dict)


class _Stage(Enum):
    """How much of a request is here."""

    NOTHING = 0
    HEAD = 1
    BODY = 2
    WHOLE = 3


class _Cycle(RequestResponseCycle):
    """A request and its answer: as uvicorn has it, but that the head of an answer goes out with its first piece.

    Each piece that is sent by itself takes a tenth of the time a small answer takes in all.
    """

    _head = b""

    async def send(self, message: Any) -> None:
        """Send what the app says."""
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        assert self.response_started
        assert not self.response_complete
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            body = b"".join([*((b"%x\r\n" % len(body), body, b"\r\n") if body else ()), b"" if more else b"0\r\n\r\n"])
        else:
            self.expected_content_length -= len(body)
        self.transport.writelines([self._head, body])
        self._head = b""
        if not more:
            self._end()

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        headers = [*self.default_headers, *headers]
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        is_bare = self.scope["method"] == "HEAD" or status in (204, 304)
        self.chunked_encoding = length is None and not is_bare
        self.expected_content_length = length if length and not is_bare else 0
        if self.chunked_encoding:
            headers.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        head = b"".join([STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"])
        # Whatever a value was made of, it has not become a header or an answer of its own.
        assert head.count(b"\n") == head.count(b"\r") == len(headers) + 2
        self._head = head
        self.response_started = True
        self.waiting_for_100_continue = False

    def _end(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if self.expected_content_length or not self.keep_alive:  # a length not kept to misleads who waits for the rest
            self.transport.close()
        self.on_response()


class Connection(HttpToolsProtocol):
    """One connection; uvicorn makes it and hands it what its client sends."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        room: Room,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._room = room
        self._timer: asyncio.TimerHandle | None = None
        self._is_surplus = False
        self._is_refused = False
        self._http2: Refusal | None = None
        self._fault: RequestError | None = None
        self._serving: RequestResponseCycle | None = None
        # Time is counted in looks, so that none goes by while the whole process, or its machine, stands still.
        self._look_s = min(room.client_s_max, KEEP_ALIVE_S) / _LOOKS
        # Of the latest request: for how many looks it has been coming, and how much came after its first piece.
        self._stage = _Stage.NOTHING
        self._looks = 0
        self._arrived_bytes = 0
        self._is_new = False
        # Of the answer that waits to be taken: for how many looks, and how much of it waited at first.
        self._waiting_looks = 0
        self._waiting_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, on condition or not at all if there are too many."""
        super().connection_made(transport)
        self._room.metrics.connections.inc()
        self._look_later()
        surplus = len(self.connections) - self._room.connections_max
        if surplus > surplus_max(self._room.connections_max):
            transport.abort()
        elif surplus > 0:
            idle = next(iter(self._room.idle), None)
            self._is_surplus = idle is None
            if idle is not None:
                del self._room.idle[idle]
                idle.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clear up."""
        self._disconnect()
        super().connection_lost(exc)
        self._room.metrics.connections.dec()
        self._room.idle.pop(self, None)
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what a client sent; `on_...` are called meanwhile."""
        if self._is_refused:
            if self._http2 and not self._http2.is_over and not self.transport.is_closing():
                self._send_http2(self._http2, self._http2.answer(data))
            return
        if self in self._room.idle:
            del self._room.idle[self]
            self._stage, self._looks = _Stage.NOTHING, 0
        self._is_new = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # not offered: it is answered as what it is without, and nothing follows
        except httptools.HttpParserError:
            if self.parser.get_method() == b"PRI":
                self._refuse_http2(data)
                return
            if data.startswith(_TLS_HANDSHAKE) and self._serving is None:
                self._room.mistakes.note(Mistake.TLS, self._host)
            self._refuse(self._fault or InvalidRequest("The request is not valid HTTP.", code="invalid_http"))
        if not self._is_new:
            self._arrived_bytes += len(data)
            if self._stage is _Stage.HEAD and self._arrived_bytes > HEAD_BYTES_MAX:
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._stage, self._looks, self._arrived_bytes, self._is_new = _Stage.HEAD, 0, 0, True
        if self._is_surplus:
            self.scope["state"]["is_surplus"] = True

    def on_headers_complete(self) -> None:
        """Hand a request to the app; its body may still be on the way."""
        self._stage = _Stage.BODY
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX:
            self._fault = _head_too_large()
            raise self._fault
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        version = self.parser.get_http_version()
        self.scope |= {
            "method": self.parser.get_method().decode("ascii"),
            "http_version": version,
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
        }
        previous = self.cycle
        self.cycle = _Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self._is_surplus,
            on_response=self.on_response_complete,
        )
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_message_complete(self) -> None:
        """Note that the request is here as a whole."""
        super().on_message_complete()
        self._stage = _Stage.WHOLE
        self._rest()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._serving = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on to the next request, if it is here already."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._rest()

    def _rest(self) -> None:
        """Be idle if nothing is under way, in neither direction."""
        if self.cycle.response_complete and self._stage is _Stage.WHOLE:
            self._looks = 0
            self._room.idle[self] = None

    def resume_writing(self) -> None:
        """Note that the client takes what it is sent."""
        super().resume_writing()
        self._waiting_bytes = 0

    def _look_later(self) -> None:
        self._timer = self.loop.call_later(self._look_s, self._look)

    def _look(self) -> None:
        """Part with a client that takes too long."""
        self._looks += 1
        self._waiting_looks += 1
        waiting_bytes = self.transport.get_write_buffer_size()
        if not waiting_bytes or waiting_bytes > self._waiting_bytes:
            self._waiting_looks, self._waiting_bytes = 0, waiting_bytes
        if self.flow.read_paused:
            self._looks = 0  # it is us who do not read
        if self._is_late(self._waiting_looks, self._waiting_bytes - waiting_bytes):
            _log.info("connection closed", problem="the client does not take its answer")
            self.transport.abort()
        elif self._stage is _Stage.WHOLE:
            if self in self._room.idle and self._looks * self._look_s > KEEP_ALIVE_S:
                self.transport.close()
        elif self._is_late(self._looks, self._arrived_bytes):
            if self._stage is _Stage.NOTHING:
                self.transport.close()
            else:
                self._refuse(
                    RequestTooSlow("The request did not arrive in time; send it again.", code="request_too_slow")
                )
        self._look_later()

    def _is_late(self, looks: int, done_bytes: int) -> bool:
        return looks * self._look_s > self._room.client_s_max + done_bytes / RATE_BYTES_S

    def _refuse(self, error: RequestError) -> None:
        """Answer in the app's place, for the last time, and listen no more."""
        if self._is_refused:
            return
        self._is_refused = True
        has_begun = self._serving is not None and self._serving.response_started and not self._serving.response_complete
        self._disconnect()
        if has_begun:
            self.transport.abort()
            return
        request_id = new_request_id()
        self.transport.write(_answer(error, request_id))
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.abort)
        self._room.metrics.count_request("other", "unmatched", error.status)
        _log.info(
            "request", method="other", route="unmatched", status=error.status, code=error.code, request_id=request_id
        )

    def _refuse_http2(self, data: bytes) -> None:
        """Answer who speaks HTTP/2, which is gRPC mostly, in words it understands."""
        self._is_refused = True
        self._disconnect()
        if self._serving is not None:
            self.transport.abort()
            return
        self._room.mistakes.note(Mistake.HTTP2, self._host)
        self._room.metrics.count_request("other", "unmatched", 505)
        self._http2 = Refusal()
        self.loop.call_later(_LINGER_S, self.transport.abort)
        self._send_http2(self._http2, self._http2.begin(data))

    def _send_http2(self, refusal: Refusal, answer: bytes) -> None:
        self.transport.write(answer)
        if refusal.is_over:
            self.transport.write_eof()

    @property
    def _host(self) -> str:
        """IP address of the client."""
        return self.client[0] if self.client else ""

    def _disconnect(self) -> None:
        """Tell the app that nobody waits for the answer it is about to give."""
        if self._serving and not self._serving.response_complete:
            self._serving.disconnected = True
            self._serving.message_event.set()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"Request line and headers are larger than {HEAD_BYTES_MAX} bytes; ask for less at once",
        code="head_too_large",
    )


def _answer(error: RequestError, request_id: str) -> bytes:
    body = msgspec.json.encode(error.envelope())
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
        *SECURITY_HEADERS,
    )
    status = HTTPStatus(error.status)
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, status.phrase.encode(), lines, body)
