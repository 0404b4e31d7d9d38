"""OTLP over gRPC: the same calls as over HTTP, on a port of its own, in the same event loop.

gRPC's library frames, limits and answers; what a call brings goes the way of `POST /v1/traces` from its key on. The key
is looked at before the message is read. Messages are unpacked here and not by the library, which has no bound for what
comes out of a packed one.

Importing this needs the extra ``tallybook[grpc]``.

Source: OTLP specification 1.x, "OTLP/gRPC Response" and "OTLP/gRPC Throttling".
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from tallybook import logs
from tallybook.errors import Busy, CommandFailed, InvalidRequest, NotFound, RequestError, RequestTooSlow, Unauthorized
from tallybook.keys import Key, Scope
from tallybook.mistakes import Mistake
from tallybook.routes.context import Context, Share, find_key, forwarded_address
from tallybook.routes.events import Sent
from tallybook.routes.otlp import SERVICES, export, judged
from tallybook.wire.credentials import FORMS, given_key

_IDLE_S: Final = 10
"""Seconds a connection may be without a call, before its first and between two: it can be held without a key.
Exporters of spans send every five seconds; one that sends less often connects again, and loses nothing."""
_PING_S: Final = 10
"""How often a client may ask whether the connection still stands; collectors are set to do so every ten seconds."""
_STREAMS_MAX: Final = 100
"""Calls at once on a connection."""
_NO_MESSAGE: Final = "no_message"
"""Cancelled by the client, over at its deadline, or ended by the library for a message that is too large."""
_PLAIN_OR_GZIP: Final = 0b101
"""As OTLP has it; the bit between is deflate."""
_CANCELLED: Final[int] = grpc.StatusCode.CANCELLED.value[0]
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

_log = structlog.get_logger()


class Receiver:
    """Takes calls on a port.

    Args:
        app: the parts of the running app.
        host: address to listen on.
        port: port to listen on; not 0.
        connections_max: the most connections, and the most calls with a valid key at once.
    """

    def __init__(self, app: Context, host: str, port: int, connections_max: int) -> None:
        self._app = app
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._connections_max = connections_max
        settings = app.settings
        # How large a message is is not known before it is here: so many fit into the bytes that may be received.
        self._turns = asyncio.Semaphore(max(1, settings.queue_bytes_max // settings.body_bytes_max))
        self._calls = 0
        self._server: aio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            CommandFailed: somebody else does, at that address.
        """
        settings = self._app.settings
        self._server = aio.server(
            # No `maximum_concurrent_rpcs`: the library refuses without a RetryInfo, and exporters drop what they sent.
            options=[
                ("grpc.so_reuseport", 0),  # else two servers would share the port, each with half of what comes
                ("grpc.max_receive_message_length", settings.body_bytes_max),
                ("grpc.per_message_decompression", 0),
                ("grpc.compression_enabled_algorithms_bitset", _PLAIN_OR_GZIP),
                ("grpc.max_concurrent_streams", _STREAMS_MAX),
                ("grpc.max_allowed_incoming_connections", self._connections_max),
                ("grpc.server_handshake_timeout_ms", settings.client_s_max * 1000),
                ("grpc.max_connection_idle_ms", _IDLE_S * 1000),
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_S * 1000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self._server.add_generic_rpc_handlers((_Services(self._serve),))
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise CommandFailed(
                f"cannot listen on {self._address} for OTLP over gRPC; choose another --otlp-grpc-port"
            ) from error
        await self._server.start()
        _log.info("OTLP over gRPC is taken", address=self._address)

    async def stop(self) -> None:
        """Take no more calls; return once those under way are answered, or `stop-s-max` is over."""
        if self._server:
            await self._server.stop(self._app.settings.stop_s_max)

    async def _serve(self, service: str, call: Any) -> bytes:
        """Answer a call."""
        logs.request_id.set(logs.new_request_id())
        started = time.perf_counter()
        code, message, retry_after_s = grpc.StatusCode.CANCELLED, "", None
        response = b""
        try:
            response = await self._take(service, call)
            code = grpc.StatusCode.OK
        except RequestError as error:
            number, retry_after_s = judged(error)[1:]
            code, message = _CODES[number if error.code != _NO_MESSAGE else _CANCELLED], error.message
        except Exception:
            _log.exception("call failed")
            code, message = grpc.StatusCode.INTERNAL, "The server failed to answer; its log has the cause."
        finally:
            self._app.metrics.grpc_requests.labels(service, code.name).inc()
            duration_ms = round((time.perf_counter() - started) * 1000, 2)
            _log.info("request", method="gRPC", route=service, status=code.name, duration_ms=duration_ms)
        if code is not grpc.StatusCode.OK:
            await call.abort(code, message, _details(code, message, retry_after_s))
        return response

    async def _take(self, service: str, call: Any) -> bytes:
        if service not in SERVICES:
            raise NotFound(f"Not a service of this server; it has {', '.join(SERVICES)}", code="unknown_url")
        key = self._authorize(call)

        async def receive(share: Share) -> bytes:
            return await self._receive(call, share)

        # Calls without a valid key do not wait for anything, so they take nobody's place.
        if self._calls >= self._connections_max:
            raise Busy(
                f"There are {self._connections_max} calls under way, the most connections-max allows; nothing "
                "from this request was stored. Retry later.",
                code="too_many_calls",
                retry_after_s=1,
            )
        self._calls += 1
        try:
            return await export(self._app, service, key, Sent(receive, ""))
        finally:
            self._calls -= 1

    def _authorize(self, call: Any) -> Key:
        """Return the key a call is made with.

        Raises:
            RequestError: as over HTTP.
        """
        metadata = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in call.invocation_metadata() or ()
        ]
        forwarded_for = dict(metadata).get(b"x-forwarded-for", b"").decode("latin-1")
        address = forwarded_address(_host(call.peer()), forwarded_for)
        try:
            value = given_key(metadata)
        except Unauthorized:
            self._app.mistakes.note(Mistake.SEVERAL_KEYS, address)
            raise
        if not value:
            self._app.mistakes.note(Mistake.NO_KEY, address)
            raise Unauthorized(f"You didn't provide an API key. {FORMS}", code="invalid_api_key")
        return find_key(self._app, address, value, Scope.WRITE)

    async def _receive(self, call: Any, share: Share) -> bytes:
        """Return the message of a call.

        Raises:
            Busy: too many others are coming in, too.
            RequestTooSlow: it is not here in time.
            InvalidRequest: the call has no message.
        """
        settings = self._app.settings
        try:
            await asyncio.wait_for(self._turns.acquire(), settings.queue_s_max)
        except TimeoutError:
            raise Busy(
                "Too much is being received; nothing from this request was stored. Retry later.",
                code="queue_full",
                retry_after_s=1,
            ) from None
        try:
            message = await asyncio.wait_for(call.read(), settings.client_s_max)
        except TimeoutError:
            raise RequestTooSlow(
                f"The message did not arrive in {settings.client_s_max} seconds; send it again.",
                code="request_too_slow",
            ) from None
        finally:
            self._turns.release()
        if not isinstance(message, bytes):
            raise InvalidRequest("The call ended without a message.", code=_NO_MESSAGE)
        share.take(len(message))
        return message


class _Services(grpc.GenericRpcHandler):
    """Hands every call on, whatever it calls."""

    def __init__(self, serve: Callable[[str, Any], Awaitable[bytes]]) -> None:
        self._serve = serve

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return what answers a call: as of a stream, so that the key comes before the message."""
        method = handler_call_details.method
        name = method if isinstance(method, str) else method.decode()

        async def serve(_: object, call: Any) -> bytes:
            return await self._serve(name if name in SERVICES else "unknown", call)

        return grpc.stream_unary_rpc_method_handler(serve)


def _host(peer: str) -> str:
    """Return the IP address in what gRPC calls a client, such as ``ipv4:127.0.0.1:4711`` or ``ipv6:[::1]:4711``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


def _details(code: grpc.StatusCode, message: str, retry_after_s: int | None) -> tuple[tuple[str, bytes], ...]:
    """Return what comes with a status: that a sender may try again, as the specification and as Python's SDK has it."""
    if retry_after_s is None:
        return ()
    retry = RetryInfo(retry_delay=Duration(seconds=retry_after_s))
    packed = AnyMessage()
    packed.Pack(retry)
    status = Status(code=code.value[0], message=message, details=[packed])
    return (
        ("grpc-status-details-bin", status.SerializeToString()),
        ("google.rpc.retryinfo-bin", retry.SerializeToString()),
    )
