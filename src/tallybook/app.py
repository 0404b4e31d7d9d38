"""The app: the parts put together, every error in one shape, every request with an id."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from tallybook import logs
from tallybook.attempts import Attempts
from tallybook.clock import now_ms
from tallybook.config import Settings
from tallybook.errors import CommandFailed, MethodNotAllowed, NotFound, RequestError, Unavailable
from tallybook.event import nearest
from tallybook.ingest.writer import Writer
from tallybook.keys import KeyStore
from tallybook.kinds import KINDS
from tallybook.metrics import Metrics
from tallybook.prices.current import CurrentPrices
from tallybook.routes import costs, events, exports, maintain, operate, quarantine, usage
from tallybook.routes import keys as keys_routes
from tallybook.routes.context import Context, answer
from tallybook.store.duckdb import DuckStore
from tallybook.wire.headers import NOTHING_LOADED, SECURITY_HEADERS

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_ALWAYS_SERVED: Final = ("/healthz", "/readyz", "/metrics")
"""Also on connections beyond the limit: a server that is full is neither dead nor to be restarted."""
_ROWS_FOR_CELL_MAX: Final = 1.25
"""Rollup rows for each cell of a day from which on merging them pays."""
_DECODES_MAX: Final = 4
"""Large bodies decoded at once: more would only take turns, each holding its memory."""
_MERGES_MAX: Final = 8
"""Days of a rollup merged at once: a second or so of work, for which a stop may have to wait."""
_FOLD_EVERY_S: Final = 1
"""Seconds of events that pages read one by one, beside the rollups."""
_COMPACT_BREATH_S: Final = 1
_EXPORTS_MAX: Final = 2
_LOOK_AT_PRICES_S: Final = 5

_log = structlog.get_logger()


@contextmanager
def opened(settings: Settings) -> Iterator["Observed"]:
    """Open a data directory that belongs to this process alone, and yield the app over it.

    When the caller is done, however that comes about, what waits is written and the store is closed.

    Args:
        settings: as given by the operator; the directory exists.

    Raises:
        StoreUnusable: the store or the keys cannot be opened.
    """
    metrics = Metrics()
    keys = KeyStore(settings.data)
    prices = CurrentPrices(settings.data, settings.price_file, list_prices=settings.list_prices)
    store = DuckStore(settings.data, settings.memory_bytes_max)
    store.use(prices.book, now_ms())
    store.append([])  # so that it holds before the first event comes
    metrics.store_bytes.set_function(store.size_bytes)
    writer = Writer(store, settings.queue_bytes_max, metrics)
    writer.start()
    try:
        yield Observed(
            _build(
                Context(
                    settings=settings,
                    store=store,
                    keys=keys,
                    attempts=Attempts(settings.wrong_keys_max),
                    writer=writer,
                    metrics=metrics,
                    queries=CapacityLimiter(settings.queries_max),
                    decodes=CapacityLimiter(_DECODES_MAX),
                    scans=CapacityLimiter(1),
                    exports=CapacityLimiter(_EXPORTS_MAX),
                    prices=prices,
                )
            ),
            metrics,
        )
    finally:
        writer.stop()
        store.close()
        keys.close()


def _build(context: Context) -> Starlette:
    app = Starlette(
        exception_handlers={
            RequestError: _request_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _crash,
        },
    )
    app.router = _Router(
        [
            *usage.routes,
            *costs.routes,
            *exports.routes,
            *events.routes,
            *quarantine.routes,
            *maintain.routes,
            *keys_routes.routes,
            *operate.routes,
        ],
        _lifespan,
    )
    app.state.context = context
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    chores = [asyncio.create_task(chore(app.state.context)) for chore in (_fold_now_and_then, _compact_now_and_then, _watch_prices)]
    yield
    for chore in chores:
        chore.cancel()
        with suppress(asyncio.CancelledError):
            await chore


async def _watch_prices(context: Context) -> None:
    """Take price files into force when they change; what has a fault is told, once, and the book in force stays."""
    while True:
        await asyncio.sleep(_LOOK_AT_PRICES_S)
        if not context.prices.is_stale:
            continue
        try:
            if await to_thread.run_sync(context.prices.reload):
                await costs.adopt(context)
                _log.info("prices changed", book_id=context.prices.book.book_id)
        except RequestError:  # a full queue, or the end
            _log.warning("prices changed, but are not in force yet")
        except CommandFailed as error:
            _log.error("prices refused; those in force stay", problem=str(error))
        except Exception:
            _log.exception("prices not read; those in force stay")
        context.metrics.price_files_refused.set(context.prices.problem is not None)


async def _fold_now_and_then(context: Context) -> None:
    while True:
        await asyncio.sleep(_FOLD_EVERY_S)
        try:
            with context.metrics.fold_s.time():
                await to_thread.run_sync(context.store.fold)
        except Exception:
            _log.exception("folding failed; answers read the events themselves")


async def _compact_now_and_then(context: Context) -> None:
    saved = 0
    while context.settings.compact_every_s:
        # Where there was much to do there may be more; a breath between keeps it in the background.
        await asyncio.sleep(_COMPACT_BREATH_S if saved else context.settings.compact_every_s)
        try:
            saved = await to_thread.run_sync(context.store.compact, _ROWS_FOR_CELL_MAX, _MERGES_MAX)
        except Exception:
            saved = 0
            _log.exception("compaction failed")
        else:
            context.metrics.compacted_rows.inc(saved)
            if saved:
                _log.info("compacted", rows_saved=saved)


class Observed:
    """Gives each request an id, logs and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the start and the stop of the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        logs.request_id.set(request_id)
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                if not any(name == b"content-security-policy" for name, _ in headers):
                    headers = [*headers, NOTHING_LOADED]
                message["headers"] = [*headers, (b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:  # noqa: S110  answered and logged by `_crash`, which sees it first
            pass
        finally:
            # The pattern, not the path: a label or a log line must not hold what a client made up.
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.count_request(scope["method"] if status != 405 else "other", route, status)
            _log.info(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id a client chose for its request, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return logs.new_request_id()


class _Router(Router):
    """Finds what has no parameter in its path by a look-up; going through all routes takes longer than most answers."""

    def __init__(self, routes: Sequence[BaseRoute], lifespan: Lifespan[Starlette]) -> None:
        # An address with a slash too many is unknown, and says so in the envelope.
        super().__init__(routes, redirect_slashes=False, lifespan=lifespan)
        self._plain = {
            (method, route.path): route
            for route in routes
            if isinstance(route, Route) and not route.param_convertors
            for method in route.methods or ()
        }

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["state"].get("is_surplus") and scope["path"] not in _ALWAYS_SERVED:
            raise Unavailable(
                "Too many connections are open; send the request again later, over a connection you keep",
                code="too_many_connections",
                retry_after_s=1,
            )
        route = scope["type"] == "http" and self._plain.get((scope["method"], scope["path"]))
        if not route:
            await super().app(scope, receive, send)
            return
        scope["route"] = route
        await route.app(scope, receive, send)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    response = answer(error.envelope(), error.status)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:256]
    if error.status_code == 404:
        return await _request_error(
            request,
            NotFound(
                f"Unknown request URL: {request.method} {path}{_nearest_kind(path)}. "
                "The endpoints are described at /docs.",
                code="unknown_url",
            ),
        )
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        response = await _request_error(
            request,
            MethodNotAllowed(
                f"Not allowed: {request.method} {path}. Allowed methods: {allowed}.",
                code="method_not_allowed",
            ),
        )
        response.headers["allow"] = allowed
        return response
    return answer(RequestError(error.detail).envelope(), error.status_code)


def _nearest_kind(path: str) -> str:
    """Where a kind of usage was asked for that there is not: the nearest, or all."""
    before, name = path.rpartition("/")[::2]
    if before != "/v1/organization/usage":
        return ""
    return nearest(name, KINDS) or f" (usage kinds: {', '.join(KINDS)})"


def _methods(request: Request) -> set[str]:
    """Every method of the path, whichever routes they have."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in routes for method in getattr(route, "methods", None) or ()}


async def _gone(request: Request, error: Exception) -> Response:
    """The client hung up while it sent; nobody reads this answer, but the log and the counters do."""
    return Response(status_code=499)


async def _crash(request: Request, error: Exception) -> Response:
    _log.exception("request failed", exc_info=error)
    failure = RequestError("The server failed to answer; its log has the cause under this x-request-id.")
    failure.type = "server_error"
    return answer(failure.envelope(), 500)
