"""``/v1/organization/admin_api_keys``, as the official client calls it; scopes are ours."""

from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_s
from tallybook.errors import Forbidden, InvalidRequest, NotFound
from tallybook.event import Text
from tallybook.keys import LIFE_S_MAX, Key, Scope
from tallybook.routes.context import answer, authorize, context, typed_body
from tallybook.routes.lists import list_answer, parse_list, unknown_after


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the request that makes a key."""

    name: Text
    expires_in_seconds: Annotated[int, msgspec.Meta(ge=1, le=LIFE_S_MAX)] | None = None
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)] | None = None


async def create(request: Request) -> Response:
    """Make a key in the asking key's organization; its value is in this answer only."""
    creator = authorize(request, Scope.MANAGE)
    wanted: NewKey = await typed_body(request, NewKey)
    if not wanted.name.isprintable():
        raise InvalidRequest(
            "Invalid 'name': it holds a control character; remove it.", param="name", code="invalid_value"
        )
    scopes = tuple(dict.fromkeys(wanted.scopes or creator.scopes))
    if beyond := [scope for scope in scopes if scope not in creator.scopes]:
        raise Forbidden(
            f"A key cannot give what it does not have. Missing scopes: {', '.join(beyond)}.",
            param="scopes",
            code="missing_scope",
        )
    now = now_s()
    expires_at_s = now + wanted.expires_in_seconds if wanted.expires_in_seconds else None
    key, value = context(request).keys.create(
        creator.organization_id, wanted.name, scopes, now, expires_at_s=expires_at_s
    )
    return answer(_shown(key) | {"value": value})


async def keys(request: Request) -> Response:
    """List the organization's keys in the order they were made."""
    asker = authorize(request, Scope.MANAGE)
    asked = parse_list(request.query_params.multi_items())
    if asked.after and context(request).keys.get(asker.organization_id, asked.after) is None:
        raise unknown_after(asked.after)
    found = context(request).keys.of(
        asker.organization_id, after=asked.after, limit=asked.limit + 1, descending=asked.descending
    )
    return list_answer(asked, [_shown(key) for key in found])


async def key(request: Request) -> Response:
    """Return one key."""
    asker = authorize(request, Scope.MANAGE)
    found = context(request).keys.get(asker.organization_id, request.path_params["key_id"])
    if found is None:
        raise _unknown(request)
    return answer(_shown(found))


async def revoke(request: Request) -> Response:
    """Remove a key; it is refused from the next request on."""
    asker = authorize(request, Scope.MANAGE)
    key_id = request.path_params["key_id"]
    if not context(request).keys.revoke(asker.organization_id, key_id):
        raise _unknown(request)
    return answer({"object": "organization.admin_api_key.deleted", "id": key_id, "deleted": True})


def _shown(key: Key) -> dict[str, object]:
    return {
        "object": "organization.admin_api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": key.redacted_value,
        "created_at": key.created_at_s,
        "last_used_at": key.last_used_at_s,
        "expires_at": key.expires_at_s,
        "scopes": key.scopes,
        # A key belongs to its organization, not to a person: there are no user accounts here.
        "owner": {
            "object": "organization.service_account",
            "type": "service_account",
            "id": key.organization_id,
            "name": key.organization_id,
            "created_at": key.created_at_s,
            "role": "owner",
        },
    }


def _unknown(request: Request) -> NotFound:
    return NotFound(f"No key {request.path_params['key_id']!r}.", param="key_id", code="not_found")


_PATH: Final = "/v1/organization/admin_api_keys"

routes = [
    Route(_PATH, keys, methods=["GET"]),
    Route(_PATH, create, methods=["POST"]),
    Route(f"{_PATH}/{{key_id}}", key, methods=["GET"]),
    Route(f"{_PATH}/{{key_id}}", revoke, methods=["DELETE"]),
]
