"""Quarantine: events that could not be kept, to be seen, mended, replayed or dropped."""

from typing import Final

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_ms
from tallybook.errors import NotFound
from tallybook.event import Fault, Record
from tallybook.ingest.decode import Decoded, collect, decode_one, read_record
from tallybook.keys import Scope
from tallybook.routes.context import Context, answer, authorize, context, read_body
from tallybook.routes.events import commit, receipt, reports_calls
from tallybook.routes.lists import list_answer, parse_list, unknown_after
from tallybook.sources.record import Options
from tallybook.sources.table import SOURCES
from tallybook.store.protocol import Batch, Outcome, Quarantined


async def entries(request: Request) -> Response:
    """List quarantined events in the order they arrived."""
    key = authorize(request, Scope.READ)
    asked = parse_list(request.query_params.multi_items())
    store = context(request).store
    if asked.after and await to_thread.run_sync(store.quarantined, key.organization_id, asked.after) is None:
        raise unknown_after(asked.after)
    found = await to_thread.run_sync(
        lambda: store.quarantine(
            key.organization_id, after=asked.after, limit=asked.limit + 1, descending=asked.descending
        )
    )
    return list_answer(asked, [_entry(item) for item in found])


async def entry(request: Request) -> Response:
    """Return one quarantined event."""
    key = authorize(request, Scope.READ)
    return answer(_entry(await _find(request, key.organization_id)))


async def drop(request: Request) -> Response:
    """Remove one quarantined event for good."""
    key = authorize(request, Scope.WRITE)
    found = await _find(request, key.organization_id)
    await commit(context(request), Batch(key.organization_id, released=[found.quarantine_id]), 0)
    return answer(
        {
            "object": "organization.usage.quarantined_event.deleted",
            "id": found.quarantine_id,
            "deleted": True,
        }
    )


async def drop_all(request: Request) -> Response:
    """Remove all quarantined events for good."""
    key = authorize(request, Scope.WRITE)
    app = context(request)
    dropped = 0
    while found := await _oldest(app, key.organization_id, None):
        await commit(app, Batch(key.organization_id, released=[item.quarantine_id for item in found]), 0)
        dropped += len(found)
    return answer({"object": "organization.usage.quarantine.deleted", "deleted": dropped})


async def replay(request: Request) -> Response:
    """Try a quarantined event again, as it is or mended by the body; it leaves quarantine if it is good."""
    key = authorize(request, Scope.WRITE)
    app = context(request)
    found = await _find(request, key.organization_id)
    mended = await read_body(request)
    return await _replay(app, key.organization_id, [found._replace(event=mended.strip() or found.event)])


async def replay_all(request: Request) -> Response:
    """Try all quarantined events again, the oldest first; the good ones leave quarantine."""
    key = authorize(request, Scope.WRITE)
    app = context(request)
    items: list[Quarantined] = []
    while found := await _oldest(app, key.organization_id, items[-1].quarantine_id if items else None):
        items += found
    if not items:
        raise NotFound("Quarantine is empty; there is nothing to replay.", code="not_found")
    return await _replay(app, key.organization_id, items)


async def _replay(app: Context, organization_id: str, items: list[Quarantined]) -> Response:
    options = {item.dialect: app.options.of_request() for item in items}
    read = ((index, item.event, _read(item, options[item.dialect])) for index, item in enumerate(items))
    decoded = collect(read, app.store.kept.events_s * 1000)
    kept = {rejected.index: items[rejected.index] for rejected in decoded.rejected}
    used = [items[index].quarantine_id for index in decoded.indexes]
    unused = {item.quarantine_id for index, item in enumerate(items) if index not in kept}.difference(used)
    written = Outcome()
    outcomes: dict[str | None, Outcome] = {}
    for dialect, places in _by_dialect(items, decoded):
        records = [decoded.records[place] for place in places]
        released = [used[place] for place in places]
        batch = Batch(
            organization_id, records, released=released, dialect=dialect, reports_calls=reports_calls(dialect)
        )
        outcomes[dialect] = await commit(app, batch, 0)
        written.add(outcomes[dialect], places)
    for dialect, own in options.items():
        noted = Decoded([], [], [], unread=own.unread, alike=own.alike)
        app.notices.note(organization_id, dialect, noted, outcomes.get(dialect, Outcome()))
    if unused:
        await commit(app, Batch(organization_id, released=list(unused)), 0)
    app.metrics.count(written, 0)
    return receipt(written, decoded, kept)


def _by_dialect(items: list[Quarantined], decoded: Decoded) -> list[tuple[str | None, list[int]]]:
    """Return the places of the events of each dialect, which says how they are identified."""
    found: dict[str | None, list[int]] = {}
    for place, index in enumerate(decoded.indexes):
        found.setdefault(items[index].dialect, []).append(place)
    return list(found.items())


def _read(item: Quarantined, options: Options) -> list[Record] | list[Fault]:
    received_ms = item.created_at_s * 1000
    if item.dialect is None:
        found = decode_one(item.event, now_ms(), received_ms)
        return [found] if isinstance(found, Record) else found
    return read_record(SOURCES[item.dialect], options, item.event, now_ms(), received_ms)


async def _oldest(app: Context, organization_id: str, after: str | None) -> list[Quarantined]:
    return await to_thread.run_sync(
        lambda: app.store.quarantine(organization_id, after=after, limit=_PAGE, descending=False)
    )


async def _find(request: Request, organization_id: str) -> Quarantined:
    name = request.path_params["quarantine_id"]
    found = await to_thread.run_sync(context(request).store.quarantined, organization_id, name)
    if found is None:
        raise NotFound(f"No quarantined event {name!r}.", param="quarantine_id", code="not_found")
    return found


def _entry(item: Quarantined) -> dict[str, object]:
    try:
        msgspec.json.decode(item.event)
        event: object = msgspec.Raw(item.event)  # as it was sent: numbers keep all their digits
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = item.event.decode(errors="replace")
    return {
        "object": "organization.usage.quarantined_event",
        "id": item.quarantine_id,
        "created_at": item.created_at_s,
        "source": item.dialect or "events",
        "event": event,
        "faults": [fault._asdict() for fault in item.faults],
    }


_PAGE: Final = 1_000
_PATH: Final = "/v1/organization/usage/quarantine"

routes = [
    Route(_PATH, entries, methods=["GET"]),
    Route(_PATH, drop_all, methods=["DELETE"]),
    Route(f"{_PATH}/replay", replay_all, methods=["POST"]),
    Route(f"{_PATH}/{{quarantine_id}}", entry, methods=["GET"]),
    Route(f"{_PATH}/{{quarantine_id}}", drop, methods=["DELETE"]),
    Route(f"{_PATH}/{{quarantine_id}}/replay", replay, methods=["POST"]),
]
