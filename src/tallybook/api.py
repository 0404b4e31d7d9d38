"""The API: every request finds its endpoint, gets an id and an answer, is logged and counted, whatever happens."""

import re
import time
import traceback
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Lifespan, Message, Receive, Scope, Send

from tallybook import logs
from tallybook.errors import MethodNotAllowed, NotFound, RequestError, Unavailable
from tallybook.event import nearest, nearest_of
from tallybook.kinds import KINDS
from tallybook.mistakes import Mistake
from tallybook.routes.context import REFUSE, Context, Refuse, answer, client_address
from tallybook.wire.headers import SECURITY_HEADERS

_REQUEST_ID: Final = re.compile(rb"(?!sk-)[A-Za-z0-9_.:-]{1,128}")
"""What a client may call its request; it is logged, so that a key is not taken for one."""
_GUESSED: Final = ("GET", "HEAD", "POST")
"""Nobody should be led to something to delete or to replace."""
_SLASHES: Final = re.compile(r"//+")
_OTLP: Final = re.compile(r".*(/v1/(?:traces|metrics|logs))")
"""What OTLP's senders append to the address they are given, whatever that is."""
_EVENTS: Final = "/v1/organization/usage/events"
_ALWAYS_SERVED: Final = ("/healthz", "/readyz", "/metrics")
"""Also on connections beyond the limit: a server that is full is neither dead nor to be restarted."""

_log = structlog.get_logger()


class Api:
    """Answers every request, whatever happens.

    Args:
        routes: where requests go.
        context: the parts of the app, for whoever answers.
        lifespan: what runs beside as long as the server does; it is given this.
    """

    def __init__(self, routes: Sequence[BaseRoute], context: Context, lifespan: "Lifespan[Api]") -> None:
        self.context = context
        # An address with a slash too many is served as it is: clients that follow a redirect may lose the body.
        self._router = Router(routes, redirect_slashes=False, lifespan=lifespan)
        # To go through all routes would take longer than most answers do.
        self._plain = {
            (method, route.path): route
            for route in routes
            if isinstance(route, Route) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the server's start and stop."""
        scope["app"] = self
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        logs.request_id.set(request_id)
        started = time.perf_counter()
        status = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *(header for header in SECURITY_HEADERS if header[0] not in said),
                ]
            await send(message)

        request = Request(scope, receive)
        try:
            await self._serve(request, send_with_headers)
        except Exception as error:
            response = self._explain(request, error)
            if status is None:
                await response(scope, receive, send_with_headers)
        finally:
            # The pattern, not the path: a label or a log line must not hold what a client made up.
            route = getattr(scope.get("route"), "path", "unmatched")
            status = status or 500
            self.context.metrics.count_request(scope["method"] if status != 405 else "other", route, status)
            _log.info(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )

    async def _serve(self, request: Request, send: Send) -> None:
        scope = request.scope
        if scope["state"].get("is_surplus") and scope["path"] not in _ALWAYS_SERVED:
            raise Unavailable(
                "Too many connections are open; send the request again later, over a connection you keep",
                code="too_many_connections",
                retry_after_s=1,
            )
        route = self._plain.get((scope["method"], scope["path"])) or self._find(scope)
        if route is None:
            await self._router(scope, request.receive, send)
            return
        scope["route"] = route
        response = await route.endpoint(request)
        await response(scope, request.receive, send)

    def _find(self, scope: Scope) -> Route | None:
        """Return the route of an address that can mean one thing only; set a scope's path to what is meant.

        That is: slashes too many, and OTLP's address below that of something else, as senders make it who append it to
        the address they were given.
        """
        method = scope["method"]
        path = scope["path"] = _tidy(scope["path"])
        if method == "POST" and (found := _OTLP.fullmatch(path)) and (method, found[1]) in self._plain:
            path = scope["path"] = found[1]
        return self._plain.get((method, path))

    def _explain(self, request: Request, error: Exception) -> Response:
        """Return the answer to a request that failed."""
        refuse: Refuse = request.scope.get(REFUSE, _refusal)
        if isinstance(error, RequestError):
            _let_go(error)
            return refuse(error)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it, but the log and the counters do
        if isinstance(error, HTTPException):
            return self._http_error(request, error)
        _log.exception("request failed", exc_info=error)
        failure = RequestError("The server failed to answer; its log has the cause under this x-request-id.")
        failure.type = "server_error"
        failure.status = 500
        return refuse(failure)

    def _http_error(self, request: Request, error: HTTPException) -> Response:
        path = request.scope["path"][:256]
        if error.status_code in (404, 405) and request.method in ("POST", "PUT"):
            meant = self._meant(request.method, path)
            hint = f"What it means may be {meant}." if meant else "The endpoints are described at /docs."
            self.context.mistakes.note(Mistake.ADDRESS, client_address(request), hint)
        if error.status_code == 404:
            is_asked = request.method in ("GET", "HEAD")
            meant = (is_asked and _nearest_kind(path)) or _did_you_mean(self._meant(request.method, path))
            return _refusal(
                NotFound(
                    f"Unknown request URL: {request.method} {path}{meant}. The endpoints are described at /docs.",
                    code="unknown_url",
                )
            )
        if error.status_code == 405:
            allowed = ", ".join(sorted(self._methods(request)))
            response = _refusal(
                MethodNotAllowed(
                    f"Not allowed: {request.method} {path}{_did_you_mean(self._meant(request.method, path))}. "
                    f"Allowed methods: {allowed}.",
                    code="method_not_allowed",
                )
            )
            response.headers["allow"] = allowed
            return response
        return answer(RequestError(error.detail).envelope(), error.status_code)

    def _meant(self, method: str, path: str) -> str:
        """Return the address that is most like an unknown one; "" if there is none."""
        if method not in _GUESSED:
            return ""
        known = [route_path for route_method, route_path in self._plain if route_method == method]
        path = path.lower()
        if method == "POST":
            name = path.rpartition("/")[2].removesuffix("s")
            signal = "/v1/traces" if name in ("", "span") else f"/v1/{name}s"
            if signal in known:
                return signal
            if path.startswith(_EVENTS):
                known = [route_path for route_path in known if route_path.startswith(_EVENTS)]
        return nearest_of(path, known) or (_EVENTS if path.startswith(_EVENTS) else "")

    def _methods(self, request: Request) -> set[str]:
        """Every method of the path, whichever routes they have."""
        routes = (route for route in self._router.routes if route.matches(request.scope)[0] is not Match.NONE)
        return {method for route in routes for method in getattr(route, "methods", None) or ()}


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id a client chose for its request, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return logs.new_request_id()


def _let_go(error: BaseException) -> None:
    """Have freed what a refused request held.

    An error and the frames it went through hold each other, and with them whatever was in those: a body of 32 MiB would
    wait for the garbage collector, which looks at numbers of objects and not at their size.
    """
    found: BaseException | None = error
    while found:
        traceback.clear_frames(found.__traceback__)
        found.__traceback__ = None
        found = found.__context__


def _refusal(error: RequestError) -> Response:
    response = answer(error.envelope(), error.status)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response


def _tidy(path: str) -> str:
    """Return a path without slashes that are too many."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def _did_you_mean(path: str) -> str:
    return f" (did you mean {path}?)" if path else ""


def _nearest_kind(path: str) -> str:
    """Where a kind of usage was asked for that there is not: the nearest, or all."""
    before, name = path.rpartition("/")[::2]
    if before != "/v1/organization/usage":
        return ""
    return nearest(name, KINDS) or f" (usage kinds: {', '.join(KINDS)})"
