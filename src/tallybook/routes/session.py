"""``/session``: a browser signs in with an admin key and is known by a cookie from then on.

The cookie has a token that is good for nothing but this; no script can read it, and no other site's page has it sent.
"""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_s
from tallybook.event import Text
from tallybook.keys import Key, Scope
from tallybook.routes.context import (
    answer,
    client_address,
    context,
    find_key,
    refuse_other_origins,
    session_name,
    session_token,
    typed_body,
)


class SignIn(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the request that signs in."""

    key: Text


async def sign_in(request: Request) -> Response:
    """Begin a session of a key; one that may read is enough."""
    refuse_other_origins(request)
    wanted: SignIn = await typed_body(request, SignIn)
    app = context(request)
    key = find_key(app, client_address(request), wanted.key.strip(), Scope.READ)
    if former := session_token(request):
        app.keys.sign_out(former)  # its token would be good for hours more, and nobody could end it
    token = app.keys.sign_in(key.id, now_s(), app.settings.session_s_max)
    response = answer(_shown(app.keys.session(token, now_s())))
    response.set_cookie(
        session_name(request),
        token,
        max_age=app.settings.session_s_max,
        # What the page was opened with is known to the browser alone: a proxy may have ended TLS.
        secure=request.headers.get("origin", "").startswith("https://"),
        httponly=True,
        samesite="strict",
    )
    return response


async def session(request: Request) -> Response:
    """Tell whose session it is; that it is nobody's is no error."""
    token = session_token(request)
    key = context(request).keys.session(token, now_s()) if token else None
    return answer(_shown(key, has_ended=token is not None and key is None))


async def sign_out(request: Request) -> Response:
    """End the session."""
    refuse_other_origins(request)
    if token := session_token(request):
        context(request).keys.sign_out(token)
    response = answer(_shown(None))
    response.delete_cookie(session_name(request), httponly=True, samesite="strict")
    return response


def _shown(key: Key | None, *, has_ended: bool = False) -> dict[str, object]:
    shown = key and {
        "id": key.id,
        "name": key.name,
        "organization_id": key.organization_id,
        "scopes": key.scopes,
        "expires_at": key.expires_at_s,
    }
    return {"object": "session", "key": shown, "ended": has_ended}


_PATH: Final = "/session"

routes = [
    Route(_PATH, session, methods=["GET"]),
    Route(_PATH, sign_in, methods=["POST"]),
    Route(_PATH, sign_out, methods=["DELETE"]),
]
