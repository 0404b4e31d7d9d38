"""Maintenance over HTTP: rebuild rollups, compare them with events, tell the sources; hold files for a backup."""

from contextlib import suppress

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook import __version__
from tallybook.clock import now_s
from tallybook.errors import InvalidRequest, Unavailable
from tallybook.keys import Scope
from tallybook.lock import is_backed_up
from tallybook.routes.context import answer, authorize, context, typed_body
from tallybook.routes.single import Instant, single, window
from tallybook.store.protocol import Notice
from tallybook.timegrid import DAY_S

_DIFFERENCES_MAX = 100
_SOURCES_DAYS = 7


class Window(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the request that rebuilds: Unix seconds, half-open, widened to whole days."""

    start_time: Instant
    end_time: Instant


async def rebuild(request: Request) -> Response:
    """Make the rollups of whole days anew from raw events; returns how many days."""
    key = authorize(request, Scope.MANAGE)
    asked: Window = await typed_body(request, Window)
    if asked.end_time <= asked.start_time:
        raise InvalidRequest(
            f"Invalid 'end_time': {asked.end_time} is not after start_time {asked.start_time}.",
            param="end_time",
            code="invalid_value",
        )
    app = context(request)
    days = await to_thread.run_sync(
        app.store.rebuild, asked.start_time, asked.end_time, key.organization_id, limiter=app.scans
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


async def sources(request: Request) -> Response:
    """Return which sources sent events lately, and what was noticed of them."""
    key = authorize(request, Scope.READ)
    app = context(request)
    now = now_s() + 1
    given = single(request.query_params.multi_items(), ("start_time", "end_time"))
    start_s, end_s = window(given, now, now - _SOURCES_DAYS * DAY_S)
    facts, repeated = await to_thread.run_sync(
        app.store.sources, key.organization_id, start_s, end_s, limiter=app.scans
    )
    with suppress(Unavailable):  # while nothing can be written, those of the last seconds are missing
        await to_thread.run_sync(app.notices.flush)
    noticed = await to_thread.run_sync(app.store.notices, key.organization_id, start_s)
    return answer(
        {
            "object": "organization.usage.sources",
            "start_time": start_s,
            "end_time": end_s,
            "sources": [
                {"source": each.source, "kind": each.kind, "events": each.events}
                | {"first_event_at": each.first_s, "last_event_at": each.last_s}
                for each in facts
            ],
            "repeated": [each._asdict() for each in repeated],
            "notices": [_noticed(each) for each in noticed],
        }
    )


def _noticed(notice: Notice) -> dict[str, object]:
    found: dict[str, object] = {"subject": notice.subject, "source": notice.source, "name": notice.name}
    return found | {"count": notice.times, "last_at": notice.last_s, "example": notice.example}


routes = [
    Route("/v1/organization/usage/rebuild", rebuild, methods=["POST"]),
    Route("/v1/organization/usage/check", check, methods=["GET"]),
    Route("/v1/organization/usage/sources", sources, methods=["GET"]),
    Route("/v1/organization/usage/backup", backup, methods=["POST"]),
]
