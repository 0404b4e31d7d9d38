"""The server process: the app on a socket, in the foreground or beside a command, stopped without loss."""

import asyncio
import gc
import os
import resource
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, cast

import structlog
import uvicorn

from tallybook.api import Api
from tallybook.app import opened
from tallybook.clock import now_s
from tallybook.config import ADMIN_KEY_VARIABLE, DEFAULT_ORGANIZATION, Settings
from tallybook.connection import Connection, Room, surplus_max
from tallybook.errors import CommandFailed
from tallybook.keys import ALL_SCOPES, PREFIX, KeyStore
from tallybook.lock import Address, hold, publish

if TYPE_CHECKING:
    from tallybook.otlp_grpc import Receiver

_BACKLOG: Final = 2048
_OTHER_FILES_MAX: Final = 64
"""Open files that are no connections: the store's, the keys', and what a question too large for memory spills into."""
_KEY_LENGTH_MIN: Final = 32
_START_S_MAX: Final = 60

_log = structlog.get_logger()


def serve(settings: Settings, announce: Callable[[str, str | None], None]) -> None:
    """Run the server until it is told to stop; then answer what is open, write what waits, and return.

    Args:
        settings: as given by the operator.
        announce: called once it listens, with its address and, for a new data directory, its first admin key.

    Raises:
        OperatorError: the directory is in use or unusable, or the address cannot be bound.
    """
    # What is loaded by now stays: the garbage collector need not look through it. What requests allocate is mostly
    # rows, thousands at a time and rarely cyclic: looking less often than by default saves a sixth of the work.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # uvicorn stops cleanly on these and then raises them again for its parent's handlers: these here, which do
    # nothing, so that a stop that lost nothing ends with exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        with _listening(settings) as (server, sockets, url):
            announce(url, _first_key(settings))
            server.run(sockets)
    finally:
        # So that the interpreter can clear up as it ends; the engine's binding reports what it finds left.
        gc.unfreeze()


@contextmanager
def beside(settings: Settings) -> Iterator[str]:
    """Run the server on a free loopback port beside the caller; yield its address, stop it in the end.

    Raises:
        OperatorError: the directory is in use or unusable.
    """
    with _listening(replace(settings, host="127.0.0.1", port=0)) as (server, sockets, url):
        thread = threading.Thread(target=server.run, args=(sockets,), name="server")
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _listening(settings: Settings) -> Iterator[tuple[uvicorn.Server, list[socket.socket], str]]:
    with hold(settings.data), opened(settings) as api:
        listener = _bind(settings.host, settings.port, "--port")
        ports = 1 if settings.otlp_grpc_port is None else 2
        connections_max = _connections_max(settings.connections_max, ports)
        receiver = _receiver(api, settings, connections_max)
        host, port = listener.getsockname()[:2]
        host = {
            "0.0.0.0": "127.0.0.1",  # noqa: S104  what all interfaces are called, not a binding
            "::": "[::1]",
        }.get(host, f"[{host}]" if ":" in host else host)
        url = f"http://{host}:{port}"
        publish(settings.data, Address(os.getpid(), url))
        yield _Server(_config(api, settings, connections_max), receiver), [listener], url


class _Server(uvicorn.Server):
    """uvicorn's, and what takes OTLP over gRPC, which begins and ends with it.

    Args:
        config: uvicorn's.
        receiver: makes what takes OTLP over gRPC, in the event loop; None without it.
    """

    def __init__(self, config: uvicorn.Config, receiver: "Callable[[], Receiver] | None") -> None:
        super().__init__(config)
        self._make_receiver = receiver
        self._receiver: Receiver | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and be ready only then."""
        if self._make_receiver:
            self._receiver = self._make_receiver()
            await self._receiver.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way on both ports, at the same time."""
        stops = [super().shutdown(sockets), *([self._receiver.stop()] if self._receiver else [])]
        await asyncio.gather(*stops)


def _receiver(api: Api, settings: Settings, connections_max: int) -> "Callable[[], Receiver] | None":
    """Return what makes the receiver of OTLP over gRPC, if there is to be one.

    Raises:
        CommandFailed: its library is not installed, or its address cannot be listened on.
    """
    if settings.otlp_grpc_port is None:
        return None
    if find_spec("grpc") is None:
        raise CommandFailed(
            "otlp-grpc-port needs the extra 'grpc', which is not installed; run: pip install 'tallybook[grpc]'"
        )
    # Imported here, since most installations do without: it takes time and memory, and may not be there.
    from tallybook.otlp_grpc import Receiver  # noqa: PLC0415

    # gRPC says less of why it cannot listen; and which port is free is known before anyone asks.
    listener = _bind(settings.host, settings.otlp_grpc_port, "--otlp-grpc-port")
    port = listener.getsockname()[1]
    listener.close()
    return partial(Receiver, api.context, settings.host, port, connections_max)


def _config(api: Api, settings: Settings, connections_max: int) -> uvicorn.Config:
    room = Room(connections_max, settings.client_s_max, api.context.metrics, api.context.mistakes)
    return uvicorn.Config(
        api,
        http=cast("type[Connection]", partial(Connection, room=room)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom a proxy speaks for is asked where it matters, not for every request
        backlog=_BACKLOG,
        timeout_graceful_shutdown=settings.stop_s_max,
    )


def _connections_max(wanted: int, ports: int) -> int:
    """Raise the process's limit of open files as far as need be; return how many connections a port has below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = ports * (wanted + surplus_max(wanted)) + _OTHER_FILES_MAX
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft not in (resource.RLIM_INFINITY, hard) and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return wanted
    fitting = max(1, (allowed - _OTHER_FILES_MAX) * wanted // (ports * (wanted + surplus_max(wanted))))
    _log.warning("fewer connections than set", connections_max=fitting, files_max=hard)
    return fitting


def refuse_taken_address(settings: Settings) -> None:
    """Raise what `serve` would raise if its address cannot be listened on."""
    _bind(settings.host, settings.port, "--port").close()


def _bind(host: str, port: int, flag: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        problem = os.strerror(error.errno) if error.errno else error
        raise CommandFailed(
            f"cannot listen on {host} port {port}: {problem}; choose another --host or {flag}"
        ) from error


def _first_key(settings: Settings) -> str | None:
    """Make sure there is a key to begin with; return its value if it was made up here."""
    keys = KeyStore(settings.data)
    given = os.environ.get(ADMIN_KEY_VARIABLE)
    try:
        if given:
            if not given.startswith(PREFIX) or len(given) < _KEY_LENGTH_MIN or not given.isascii():
                raise CommandFailed(
                    f"{ADMIN_KEY_VARIABLE} must start with {PREFIX} and have at least {_KEY_LENGTH_MIN} ASCII "
                    f"characters, for example {PREFIX}{secrets.token_urlsafe(32)}"
                )
            if not keys.knows(given):
                keys.create(DEFAULT_ORGANIZATION, "from the environment", ALL_SCOPES, now_s(), value=given)
            return None
        if not keys.is_empty:
            return None
        return keys.create(DEFAULT_ORGANIZATION, "first key", ALL_SCOPES, now_s())[1]
    finally:
        keys.close()
