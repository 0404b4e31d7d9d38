"""What every route needs: the parts of the running app, and who is asking."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from anyio import CapacityLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tallybook.attempts import Attempts
from tallybook.clock import now_s
from tallybook.config import Settings
from tallybook.errors import Busy, Forbidden, InvalidRequest, RequestError, Unauthorized
from tallybook.ingest.notices import Notices
from tallybook.ingest.unpack import too_large
from tallybook.ingest.writer import Writer
from tallybook.keys import PREFIX, Key, KeyStore, Scope, redact
from tallybook.metrics import Metrics
from tallybook.mistakes import Mistake, Mistakes
from tallybook.prices.current import CurrentPrices
from tallybook.sources.record import Options
from tallybook.store.protocol import Store
from tallybook.wire.credentials import FORMS, given_key, is_ambient

_FIELD: Final = re.compile(r"(?:field `|`\$\.)(\w+)")
"""Where msgspec names a field in what it says."""
_PORT: Final = re.compile(r":(\d{1,5})$")
_HARMLESS: Final = ("GET", "HEAD")
_LOOPBACK: Final = ("127.0.0.1", "::1")
"""Where a proxy is trusted to say whom it speaks for."""
SMALL_BODY_BYTES: Final = 64 * 1024
"""The largest body read where no events are expected."""
REFUSE: Final = "tallybook.refuse"
"""Where the scope of a request says how it is refused, if not in OpenAI's envelope."""
Refuse = Callable[[RequestError], Response]


class Incoming:
    """Bytes of bodies that are being received or decoded, all requests together: what is held has a limit.

    Args:
        bytes_max: the most there may be. A body that is alone comes in whatever its size.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0


class Share:
    """What one body has of the incoming bytes; given back in the end."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._bytes = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self._incoming.bytes -= self._bytes

    def take(self, size_bytes: int) -> None:
        """Take so many more.

        Raises:
            Busy: there are no more.
        """
        incoming = self._incoming
        if incoming.bytes > self._bytes and incoming.bytes + size_bytes > incoming.bytes_max:
            raise Busy(
                "Too much is being received; nothing from this request was stored. Retry later.",
                code="queue_full",
                retry_after_s=1,
            )
        incoming.bytes += size_bytes
        self._bytes += size_bytes


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the running app.

    Attributes:
        settings: as given by the operator.
        store: where usage is kept.
        keys: who may do what.
        attempts: who gave wrong keys lately.
        mistakes: what senders get wrong.
        incoming: bodies of events that are being received or decoded.
        writer: the only way into the store.
        metrics: what Prometheus can ask.
        queries: how many questions are answered at once.
        decodes: how many large bodies are decoded at once.
        scans: how many checks, rebuilds and re-ratings go through the store at once.
        exports: how many exports are under way at once.
        prices: the price book in force.
        options: what the operator says of sources.
        notices: what the operator should know of senders.
    """

    settings: Settings
    store: Store
    keys: KeyStore
    attempts: Attempts
    mistakes: Mistakes
    incoming: Incoming
    writer: Writer
    metrics: Metrics
    queries: CapacityLimiter
    decodes: CapacityLimiter
    scans: CapacityLimiter
    exports: CapacityLimiter
    prices: CurrentPrices
    options: Options
    notices: Notices


def context(request: Request) -> Context:
    """Return the parts of the app that serves a request."""
    found: Context = request.app.context
    return found


def authorize(request: Request, scope: Scope) -> Key:
    """Return the key a request was made with: in its headers, or the one its browser signed in with.

    Raises:
        Unauthorized: there is none, or several, or it is unknown, revoked or expired, or the session has ended.
        Busy: so were many others that came from the same address.
        Forbidden: it lacks the scope, or another site's page wants to change something.
    """
    headers = request.scope["headers"]
    try:
        value = given_key(headers)
    except Unauthorized:
        context(request).mistakes.note(Mistake.SEVERAL_KEYS, client_address(request))
        raise
    # What does not begin like a key of ours is somebody else's, such as that of a proxy a browser comes through.
    if not (value and value.startswith(PREFIX)) and (token := session_token(request)):
        return _of_session(request, token, scope)
    if not value:
        raise _no_key(request, scope)
    if request.method not in _HARMLESS and _is_of_a_page(request) and is_ambient(headers, value):
        refuse_other_origins(request)
    return find_key(context(request), client_address(request), value, scope)


def _no_key(request: Request, scope: Scope) -> Unauthorized:
    """Return the error of a request without a key; what should be stored and is not is noted."""
    is_in_address = PREFIX.encode() in request.scope["query_string"] or PREFIX in request.scope["path"]
    if is_in_address or scope is Scope.WRITE:
        mistake = Mistake.KEY_IN_ADDRESS if is_in_address else Mistake.NO_KEY
        context(request).mistakes.note(mistake, client_address(request))
    where = "A key in the address is not read, and is in logs now: revoke it. " if is_in_address else ""
    return Unauthorized(f"You didn't provide an API key. {where}{FORMS}", code="invalid_api_key")


def session_name(request: Request) -> str:
    """Return the name of the cookie that has a session's token: cookies do not tell ports apart, and names do."""
    port = _PORT.search(request.headers.get("host", ""))
    return f"tallybook-{port[1]}" if port else "tallybook"


def session_token(request: Request) -> str | None:
    """Return the token of the session a request belongs to, if it says so."""
    return request.cookies.get(session_name(request)) if "cookie" in request.headers else None


def _of_session(request: Request, token: str, scope: Scope) -> Key:
    key = context(request).keys.session(token, now_s())
    if key is None:
        raise Unauthorized("Your session has ended. Sign in again.", code="session_ended")
    if request.method not in _HARMLESS:
        refuse_other_origins(request)
    return _permitted(key, scope)


def _is_of_a_page(request: Request) -> bool:
    """Return whether a browser says which page sends the request; other clients say nothing of the kind."""
    return "sec-fetch-site" in request.headers or "origin" in request.headers


def refuse_other_origins(request: Request) -> None:
    """Refuse what a page changes that is not ours, although its browser sends our cookie or a key by Basic along.

    Browsers tell by `Sec-Fetch-Site`; those that do not, and all of them over plain HTTP, by `Origin`.

    Raises:
        Forbidden: it is not ours, or the browser tells neither.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    if site == "same-origin" or (site is None and origin.partition("://")[2] == request.headers.get("host", "")):
        return
    raise Forbidden(
        "A page of another origin may not change anything here. Use the dashboard at its own address, or send an admin "
        "key in the header 'Authorization: Bearer sk-admin-...'.",
        code="other_origin",
    )


def find_key(app: Context, address: str, value: str, scope: Scope) -> Key:
    """Return the key with this value.

    Args:
        app: which keys there are.
        address: IP address of who gave it.
        value: what was given.
        scope: what it has to have.

    Raises:
        Unauthorized: it is unknown, revoked or expired.
        Busy: so were many others that came from the same address.
        Forbidden: it lacks the scope.
    """
    key = app.keys.find(value, now_s())
    if key is None:
        raise _refusal(app, address, value)
    return _permitted(key, scope)


def _permitted(key: Key, scope: Scope) -> Key:
    if scope not in key.scopes:
        raise Forbidden(
            f"You have insufficient permissions for this operation. Missing scopes: {scope}. "
            f"This key has: {', '.join(key.scopes)}.",
            code="missing_scope",
        )
    return key


def _refusal(app: Context, address: str, value: str) -> RequestError:
    """Return the error of a request with a wrong key."""
    app.metrics.wrong_keys.inc()
    retry_after_s = app.attempts.note(address, time.monotonic())
    if retry_after_s is None:
        return Unauthorized(
            f"Incorrect API key provided: {redact(value)}. It is unknown, revoked or expired; make one with "
            "'tallybook keys create'.",
            code="invalid_api_key",
        )
    return Busy(
        f"Incorrect API key provided: {redact(value)}, after more than {app.settings.wrong_keys_max} wrong ones in a "
        "minute from your address. Stop, and send a right one; that works at once.",
        code="too_many_attempts",
        retry_after_s=retry_after_s,
    )


def client_address(request: Request) -> str:
    """Return the address a request came from; of a proxy on this machine, the address it came to the proxy from."""
    host = request.client.host if request.client else ""
    return forwarded_address(host, request.headers.get("x-forwarded-for")) if host in _LOOPBACK else host


def forwarded_address(host: str, forwarded_for: str | None) -> str:
    """Return the address that a connection from a host stands for, given what it says in `X-Forwarded-For`."""
    return forwarded_for.rpartition(",")[2].strip() if forwarded_for and host in _LOOPBACK else host


def answer(content: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def read_body(request: Request, limit_bytes: int = SMALL_BODY_BYTES, share: Share | None = None) -> bytes:
    """Return the body of a request, at most so many bytes.

    Args:
        request: whose body.
        limit_bytes: the most it may have.
        share: what it is counted by while it comes in.

    Raises:
        BodyTooLarge: it is longer.
        Busy: too many bytes of others are coming in, too.
    """
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if share:
            share.take(len(message["body"]))
        body += message["body"]
        if len(body) > limit_bytes:
            raise too_large(limit_bytes)
        if not message["more_body"]:
            return bytes(body)


async def typed_body(request: Request, shape: Any, limit_bytes: int = SMALL_BODY_BYTES) -> Any:
    """Return the JSON body of a request as an instance of a type.

    Raises:
        InvalidRequest: it is no such JSON; the message names the field.
    """
    return typed(await read_body(request, limit_bytes), shape)


def typed(body: bytes, shape: Any) -> Any:
    """Return JSON as an instance of a type.

    Raises:
        InvalidRequest: it is no such JSON; the message names the field.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = _FIELD.search(str(error))
        raise InvalidRequest(
            f"Invalid body: {error}.", param=found[1] if found else None, code="invalid_body"
        ) from None
