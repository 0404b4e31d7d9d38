"""``POST /v1/organization/usage/events``: bytes in, a receipt out, once everything is on disk.

Below it, one address for each dialect that records of other software are in.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_ms
from tallybook.errors import Busy, InvalidRequest, Unavailable
from tallybook.ingest.decode import Decoded, Rejected, decode, decode_records
from tallybook.ingest.otlp import decode_lines
from tallybook.ingest.unpack import unpack, untold_encoding
from tallybook.keys import Key, Scope
from tallybook.routes import cloudevents
from tallybook.routes.context import Context, Share, answer, authorize, context, read_body
from tallybook.sources.record import Source
from tallybook.sources.table import SOURCES
from tallybook.store.protocol import Batch, Outcome, Quarantined

_CONFLICTS = {
    True: "this call is stored already, with {field} {stored}; the first report stands, and the call counts once",
    False: "an event with this id and timestamp is stored already with {field} {stored}; the first stands. Give a "
    "different event its own id",
}
_FAULTS_MAX = 100
"""The most faults told in a receipt; the counts are always whole."""
_WHERE = {
    True: "The events are in quarantine, to be mended and replayed.",
    False: "Events this large or this old are not kept in quarantine.",
}
_KEPT_BYTES_MAX = 64 * 1024
"""The largest bad event kept in quarantine. A good one is a tenth of that at the most."""
OWNER = "tallybook.owner"
"""Where a request's scope has the organization of its key, once that is known."""
_LINES_OF_MANY = ("otlp", "otlp-metrics", "otlp-logs")
"""Sources whose records hold many events each; a bad one spoils no other."""
_INLINE_BYTES = 16 * 1024
"""Bodies up to here are decoded at once; a hop to another thread would take longer than the work."""


Reader = Callable[[Context, bytes, int], Decoded]
"""What makes events of an unpacked body that came at an instant, Unix milliseconds."""


async def receive(request: Request) -> Response:
    """Store the events of a body and answer what became of each."""
    if read := cloudevents.reader(request.headers):
        return receipt(*await take(request, read, cloudevents.DIALECT), may_be_empty=True)
    return receipt(*await take(request, _read_events))


def receiver(source: Source) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint for records of a source."""
    decode_all = decode_lines if source.name in _LINES_OF_MANY else decode_records

    def read(app: Context, body: bytes, received_ms: int) -> Decoded:
        since_ms = app.store.kept.events_s * 1000
        return decode_all(source, app.options, body, received_ms, app.settings.events_max, since_ms)

    async def receive_records(request: Request) -> Response:
        try:
            return receipt(*await take(request, read, source.name))
        except Busy as error:
            if source.heeds_429 or error.code == "too_many_attempts":
                raise
            raise Unavailable(str(error), code=error.code, retry_after_s=error.retry_after_s) from None

    return receive_records


def _read_events(app: Context, body: bytes, received_ms: int) -> Decoded:
    return decode(body, received_ms, app.settings.events_max, app.store.kept.events_s * 1000)


async def take(
    request: Request, read: Reader, dialect: str | None = None, *, may_drop: bool = False
) -> tuple[Outcome, Decoded, dict[int, Quarantined]]:
    """Store the events of a request's body; return once they are on disk: `take_body` over HTTP."""
    key = authorize(request, Scope.WRITE)
    request.scope[OWNER] = key.organization_id
    app = context(request)
    receive_body = partial(read_body, request, app.settings.body_bytes_max)
    encoding = request.headers.get("content-encoding", "")
    return await take_body(app, key, Sent(receive_body, encoding), read, dialect, may_drop=may_drop)


class Sent(NamedTuple):
    """A body that a client is about to send, over whichever transport.

    Attributes:
        receive: reads it, at most `body-bytes-max` bytes, counted by the share while it comes in.
        encoding: its Content-Encoding, "" for none or one that its first bytes tell.
    """

    receive: Callable[[Share], Awaitable[bytes]]
    encoding: str


async def take_body(
    app: Context, key: Key, incoming: Sent, read: Reader, dialect: str | None = None, *, may_drop: bool = False
) -> tuple[Outcome, Decoded, dict[int, Quarantined]]:
    """Store the events of a body; return once they are on disk.

    Args:
        app: the parts of the running app.
        key: whose organization they are of; it may write.
        incoming: the body.
        read: makes events of the body.
        dialect: what they are in, if not events of ours.
        may_drop: where quarantine is full, bad events are not kept, and the good ones are stored nevertheless.

    Returns:
        What became of the events, what the body held, and what is in quarantine by its place in the body.

    Raises:
        RequestError: nothing from it was stored.
    """
    app.writer.refuse_if_full()
    with Share(app.incoming) as share:
        sent = await incoming.receive(share)
        received_ms = now_ms()
        came_s = time.monotonic()
        encoding = incoming.encoding or untold_encoding(sent)

        def unpacked() -> tuple[Decoded, int]:
            if time.monotonic() - came_s > app.settings.queue_s_max:
                raise Busy(
                    "Too much waits to be read; nothing from this request was stored. Retry later.",
                    code="queue_full",
                    retry_after_s=1,
                )
            body = unpack(sent, encoding, app.settings.body_bytes_max)
            return read(app, body, received_ms), len(body)

        if len(sent) <= _INLINE_BYTES and not encoding:
            decoded, size_bytes = unpacked()
        else:
            decoded, size_bytes = await to_thread.run_sync(unpacked, limiter=app.decodes)
    quarantined = {
        rejected.index: quarantine(key.organization_id, rejected, received_ms // 1000, dialect)
        for rejected in decoded.rejected
        if is_worth_keeping(rejected)
    }
    if quarantined:
        try:
            await _make_room(app, key.organization_id, len(quarantined))
        except Busy:
            if not may_drop:
                raise
            quarantined = {}
    batch = Batch(
        key.organization_id,
        decoded.records,
        list(quarantined.values()),
        columns=decoded.columns,
        dialect=dialect,
        reports_calls=reports_calls(dialect),
    )
    # Most spans, say, are no usage: what nothing is to be kept of need not wait for a commit.
    outcome = await commit(app, batch, size_bytes) if batch.events or batch.quarantined else Outcome()
    app.metrics.count(outcome, len(decoded.rejected))
    app.notices.note(key.organization_id, dialect, decoded, outcome)
    return outcome, decoded, quarantined


def reports_calls(dialect: str | None) -> bool:
    """Return whether records of a dialect are calls, each of which counts once."""
    source = SOURCES.get(dialect or "")
    return source is not None and source.reports_calls


def is_worth_keeping(rejected: Rejected) -> bool:
    """Return whether a bad event goes to quarantine."""
    return rejected.is_mendable and len(rejected.raw) <= _KEPT_BYTES_MAX


async def _make_room(app: Context, organization_id: str, wanted: int) -> None:
    held = await to_thread.run_sync(app.store.quarantine_count, organization_id)
    if held + wanted > app.settings.quarantine_max:
        raise Busy(
            f"Bad events: {wanted}, but quarantine is full ({held} of {app.settings.quarantine_max}); nothing "
            "from this request was stored. Fix, replay or drop what is there, or send the good events alone",
            code="quarantine_full",
            retry_after_s=60,
        )


async def commit(app: Context, batch: Batch, size_bytes: int) -> Outcome:
    """Write a batch and return its outcome once it is on disk.

    Raises:
        Busy: too much is waiting.
        Unavailable: the store could not take it; nothing from it was stored.
    """
    future = app.writer.submit(batch, size_bytes)
    try:
        return await future
    except Unavailable:
        raise
    except Exception as error:
        raise Unavailable(
            "The store could not write the request; nothing from it was stored. Retry later.",
            code="store_unavailable",
            retry_after_s=5,
        ) from error


def quarantine(organization_id: str, rejected: Rejected, now_s: int, dialect: str | None = None) -> Quarantined:
    """Return a rejected event as an entry of quarantine; the same event is the same entry."""
    content = rejected.raw if dialect is None else dialect.encode() + b"\0" + rejected.raw
    digest = hashlib.blake2b(content, key=organization_id.encode()[:64], digest_size=12).hexdigest()
    return Quarantined(f"quar_{digest}", now_s, rejected.raw, rejected.faults, dialect)


def receipt(
    outcome: Outcome, decoded: Decoded, quarantined: Mapping[int, Quarantined], *, may_be_empty: bool = False
) -> Response:
    """Return what became of the events of a body; 400 if none of them was any good.

    Args:
        outcome: of the records.
        decoded: what the body held.
        quarantined: entries of the rejected events that are in quarantine, by their place in the body.
        may_be_empty: a body without events is as it should be.
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
            "message": _CONFLICTS[conflict.is_call].format(field=conflict.field, stored=conflict.stored),
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
        "ignored": decoded.ignored,
        "faults": faults[:_FAULTS_MAX],
    }
    if decoded.indexes or decoded.ignored or (may_be_empty and not decoded.rejected):
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


_PATH = "/v1/organization/usage/events"

routes = [
    Route(_PATH, receive, methods=["POST"]),
    *(Route(f"{_PATH}/{name}", receiver(source), methods=["POST"]) for name, source in SOURCES.items()),
]
