"""Maintenance over HTTP: rebuild an organization's rollups, compare them with events; hold files for a backup."""

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook import __version__
from tallybook.errors import InvalidRequest
from tallybook.keys import Scope
from tallybook.lock import is_backed_up
from tallybook.routes.context import answer, authorize, context, typed_body
from tallybook.routes.single import Instant

_DIFFERENCES_MAX = 100


class Window(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the request that rebuilds: Unix seconds, half-open, widened to whole days."""

    start_time: Instant
    end_time: Instant


async def rebuild(request: Request) -> Response:
    """Make the rollups of whole days anew from raw events; returns how many days."""
    key = authorize(request, Scope.MANAGE)
    window: Window = await typed_body(request, Window)
    if window.end_time <= window.start_time:
        raise InvalidRequest(
            f"Invalid 'end_time': {window.end_time} is not after start_time {window.start_time}.",
            param="end_time",
            code="invalid_value",
        )
    app = context(request)
    days = await to_thread.run_sync(
        app.store.rebuild, window.start_time, window.end_time, key.organization_id, limiter=app.scans
    )
    return answer({"object": "organization.usage.rebuild", "days": days})


async def check(request: Request) -> Response:
    """Compare rollups with raw events and tell the sizes."""
    key = authorize(request, Scope.MANAGE)
    app = context(request)
    differences = await to_thread.run_sync(app.store.check, key.organization_id, limiter=app.scans)
    facts = await to_thread.run_sync(app.store.facts, key.organization_id, limiter=app.scans)
    return answer(
        {
            "object": "organization.usage.check",
            "ok": not differences,
            "organization_id": key.organization_id,
            "version": __version__,
            **facts._asdict(),
            "kept": facts.kept._asdict(),
            "differences": [difference._asdict() for difference in differences[:_DIFFERENCES_MAX]],
        }
    )


async def backup(request: Request) -> Response:
    """Keep the store's main file as it is while a backup is made of it.

    A key alone cannot do that: somebody who can write the data directory has to be making a backup there. When that is
    over, the file is let go again.
    """
    authorize(request, Scope.MANAGE)
    app = context(request)
    if not await to_thread.run_sync(is_backed_up, app.settings.data):
        raise InvalidRequest(
            "No backup is being made of this server's data directory. Make one with 'tallybook backup', where that "
            "directory is.",
            code="no_backup",
        )
    await to_thread.run_sync(app.store.hold)
    return answer({"object": "organization.usage.backup", "held": True})


routes = [
    Route("/v1/organization/usage/rebuild", rebuild, methods=["POST"]),
    Route("/v1/organization/usage/check", check, methods=["GET"]),
    Route("/v1/organization/usage/backup", backup, methods=["POST"]),
]
