"""``POST /v1/organization/usage/events``: bytes in, a receipt out, once everything is on disk."""

import hashlib
from collections.abc import Mapping

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_ms
from tallybook.errors import Busy, InvalidRequest, Unavailable
from tallybook.ingest.decode import Decoded, Rejected, decode
from tallybook.ingest.unpack import unpack
from tallybook.keys import Scope
from tallybook.routes.context import Context, Share, answer, authorize, context, read_body
from tallybook.store.protocol import Batch, Outcome, Quarantined

_FAULTS_MAX = 100
"""The most faults told in a receipt; the counts are always whole."""
_WHERE = {
    True: "The events are in quarantine, to be mended and replayed.",
    False: "Events this large or this old are not kept in quarantine.",
}
_KEPT_BYTES_MAX = 64 * 1024
"""The largest bad event kept in quarantine. A good one is a tenth of that at the most."""
_INLINE_BYTES = 16 * 1024
"""Bodies up to here are decoded at once; a hop to another thread would take longer than the work."""


async def receive(request: Request) -> Response:
    """Store the events of a body and answer what became of each."""
    key = authorize(request, Scope.WRITE)
    app = context(request)
    app.writer.refuse_if_full()
    with Share(app.incoming) as share:
        sent = await read_body(request, app.settings.body_bytes_max, share)
        received_ms = now_ms()
        decoded, size_bytes = await _decoded(app, sent, request.headers.get("content-encoding", ""), received_ms)
    quarantined = {
        rejected.index: quarantine(key.organization_id, rejected, received_ms // 1000)
        for rejected in decoded.rejected
        if rejected.is_mendable and len(rejected.raw) <= _KEPT_BYTES_MAX
    }
    if quarantined:
        await _make_room(app, key.organization_id, len(quarantined))
    batch = Batch(key.organization_id, decoded.records, list(quarantined.values()), columns=decoded.columns)
    outcome = await commit(app, batch, size_bytes)
    app.metrics.count(outcome, len(decoded.rejected))
    return receipt(outcome, decoded, quarantined)


async def _decoded(app: Context, sent: bytes, encoding: str, received_ms: int) -> tuple[Decoded, int]:
    """Return the events of a body, and its unpacked size."""

    def read() -> tuple[Decoded, int]:
        body = unpack(sent, encoding, app.settings.body_bytes_max)
        return decode(body, received_ms, app.settings.events_max, app.store.kept.events_s * 1000), len(body)

    if len(sent) <= _INLINE_BYTES and not encoding:
        return read()
    return await to_thread.run_sync(read, limiter=app.decodes)


async def _make_room(app: Context, organization_id: str, wanted: int) -> None:
    held = await to_thread.run_sync(app.store.quarantine_count, organization_id)
    if held + wanted > app.settings.quarantine_max:
        raise Busy(
            f"Bad events: {wanted}, but quarantine is full ({held} of {app.settings.quarantine_max}); nothing of "
            "this request was kept. Mend, replay or drop what is there, or send the good events alone",
            code="quarantine_full",
            retry_after_s=60,
        )


async def commit(app: Context, batch: Batch, size_bytes: int) -> Outcome:
    """Write a batch and return its outcome once it is on disk.

    Raises:
        Busy: too much is waiting.
        Unavailable: the store could not take it; nothing of it was kept.
    """
    future = app.writer.submit(batch, size_bytes)
    try:
        return await future
    except Unavailable:
        raise
    except Exception as error:
        raise Unavailable(
            "The store could not write the request; nothing of it was kept, send it again",
            code="store_unavailable",
            retry_after_s=5,
        ) from error


def quarantine(organization_id: str, rejected: Rejected, now_s: int) -> Quarantined:
    """Return a rejected event as an entry of quarantine; the same event is the same entry."""
    digest = hashlib.blake2b(rejected.raw, key=organization_id.encode()[:64], digest_size=12).hexdigest()
    return Quarantined(f"quar_{digest}", now_s, rejected.raw, rejected.faults)


def receipt(outcome: Outcome, decoded: Decoded, quarantined: Mapping[int, Quarantined]) -> Response:
    """Return what became of the events of a body; 400 if none of them was any good.

    Args:
        outcome: of the records.
        decoded: what the body held.
        quarantined: entries of the rejected events that are in quarantine, by their place in the body.
    """
    faults: list[dict[str, object]] = [
        {
            "index": rejected.index,
            "outcome": "rejected",
            "field": fault.field,
            "value": fault.value,
            "message": fault.message,
            "quarantine_id": quarantined[rejected.index].quarantine_id if rejected.index in quarantined else None,
        }
        for rejected in decoded.rejected[:_FAULTS_MAX]
        for fault in rejected.faults
    ]
    faults += (
        {
            "index": decoded.indexes[conflict.position],
            "outcome": "conflict",
            "field": conflict.field,
            "value": conflict.sent,
            "message": f"an event with this id and timestamp is stored already with {conflict.field} "
            f"{conflict.stored}; the first stands. Give a different event its own id",
            "quarantine_id": None,
        }
        for conflict in outcome.conflicts[:_FAULTS_MAX]
    )
    faults.sort(key=lambda fault: int(str(fault["index"])))
    content: dict[str, object] = {
        "object": "organization.usage.events.receipt",
        "accepted": outcome.accepted.total(),
        "duplicates": outcome.duplicates.total(),
        "conflicts": len(outcome.conflicts),
        "rejected": len(decoded.rejected),
        "faults": faults[:_FAULTS_MAX],
    }
    if decoded.indexes:
        return answer(content)
    if not decoded.rejected:
        nothing = InvalidRequest("The body holds no event; send at least one.", code="no_events")
        return answer(nothing.envelope() | content, 400)
    first = decoded.rejected[0].faults[0]
    error = InvalidRequest(
        f"No event is valid; the first fault, at index {decoded.rejected[0].index}: {first.message}. "
        f"{_WHERE[bool(quarantined)]}",
        param=first.field,
        code="invalid_event",
    )
    return answer(error.envelope() | content, 400)


routes = [Route("/v1/organization/usage/events", receive, methods=["POST"])]
