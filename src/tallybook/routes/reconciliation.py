"""``/v1/organization/reconciliation``: what providers say beside what was recorded, and the books of the former.

The server reads no provider itself; ``tallybook sync`` does, and puts what it has read here.
"""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_s
from tallybook.errors import BodyTooLarge, InvalidRequest, NotFound
from tallybook.event import Event, FaultyEvent, Record, Text, record
from tallybook.keys import Scope
from tallybook.money import DIGITS_MAX, WIDE, difference, is_plain, share
from tallybook.parts import LINE_ITEM_MAX
from tallybook.query import Query
from tallybook.routes.context import Context, Share, answer, authorize, context, read_body, typed
from tallybook.routes.single import Instant
from tallybook.store.protocol import BilledCost, Reading
from tallybook.timegrid import DAY_S, floor_s
from tallybook.wire.pages import amount, number, render_reconciliation
from tallybook.wire.params import RECONCILIATION, parse

_PROVIDER: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_DAYS_MAX: Final = 366
"""Days of one reading."""
_SETTLE_S: Final = DAY_S
"""How long after its end a day is read before it is judged by: providers report late."""
_JUDGED_DAYS: Final = 7
_JUDGED_AGE_S: Final = 31 * DAY_S
"""A verdict is of the last settled days, and none of them is much older than the others."""


class _Amount(msgspec.Struct, forbid_unknown_fields=True):
    """US dollars, as a number or as text: 35 decimals are more than JSON readers keep of a number."""

    value: Decimal
    currency: Literal["usd"]


class _Cost(msgspec.Struct, forbid_unknown_fields=True):
    """What something cost on a day, as a provider says."""

    start_time: Instant
    amount: _Amount
    line_item: Annotated[str, msgspec.Meta(min_length=1, max_length=LINE_ITEM_MAX)] | None = None
    project_id: Text | None = None
    quantity: Decimal | None = None


class _Reading(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the request that stores what was read: whole days, Unix seconds, half-open."""

    start_time: Instant
    end_time: Instant
    read_at: Instant
    usage: list[Event]  # type: ignore[valid-type]
    costs: list[_Cost]


class Verdict(NamedTuple):
    """How far both books are apart over the last settled days.

    Attributes:
        provider: whose book.
        days: how many days were read of it.
        read_at_s: when it was last read, Unix seconds.
        start_s: first day it is judged by, None if none is settled.
        end_s: end of the last.
        recorded: what is recorded cost on those days, US dollars.
        billed: what the provider says they cost.
        is_beyond: whether that differs by more than the settings allow.
    """

    provider: str
    days: int
    read_at_s: int
    start_s: int | None
    end_s: int | None
    recorded: Decimal | None
    billed: Decimal | None
    is_beyond: bool

    @property
    def difference(self) -> Decimal | None:
        """What was recorded less what was billed."""
        return difference(self.recorded, self.billed)

    @property
    def ratio(self) -> Decimal | None:
        """The difference as a share of what was billed."""
        return share(self.difference, self.billed)


async def reconcile(request: Request) -> Response:
    """Answer what was recorded beside what a provider says, by UTC day."""
    key = authorize(request, Scope.READ)
    app = context(request)
    page = parse(
        RECONCILIATION, request.query_params.multi_items(), key.organization_id, now_s() + 1, app.settings.rows_max
    )
    filters = dict(page.query.filters)
    named = filters.pop("provider", ())
    if len(named) != 1:
        raise InvalidRequest(
            "Missing required parameter: 'provider'. Name one whose book was read; 'tallybook sync' reads it.",
            param="provider",
            code="missing_required_parameter",
        )
    provider = _checked(str(named[0]))
    query = replace(page.query, filters=filters)

    def read() -> bytes:
        with app.metrics.query_s.labels("reconciliation").time():
            rows = app.store.reconcile(query, provider)
            days = app.store.days_read(key.organization_id, provider)
        fields = app.settings.line_item_names == "fields"
        return render_reconciliation(page, provider, rows, days, fields=fields)

    return Response(await to_thread.run_sync(read, limiter=app.queries), media_type="application/json")


async def books(request: Request) -> Response:
    """List the providers whose books were read, and how far these are from what was recorded."""
    key = authorize(request, Scope.READ)
    app = context(request)

    def judged() -> list[Verdict]:
        named = [provider for organization, provider in app.store.books() if organization == key.organization_id]
        verdicts = (judge(app, key.organization_id, provider, now_s()) for provider in named)
        return [verdict for verdict in verdicts if verdict]

    found = await to_thread.run_sync(judged, limiter=app.queries)
    allowed = {"percent": app.settings.reconcile_percent_max, "usd": app.settings.reconcile_usd_max}
    data = [_verdict(verdict) | {"allowed": allowed} for verdict in found]
    return answer({"object": "list", "data": data, "has_more": False})


def _verdict(verdict: Verdict) -> dict[str, object]:
    ratio = verdict.ratio
    return {
        "object": "organization.reconciliation.book",
        "provider": verdict.provider,
        "days": verdict.days,
        "read_at": verdict.read_at_s,
        "start_time": verdict.start_s,
        "end_time": verdict.end_s,
        "recorded": amount(verdict.recorded),
        "billed": amount(verdict.billed),
        "difference": amount(verdict.difference),
        "ratio": None if ratio is None else number(ratio),
        "beyond": verdict.is_beyond,
    }


def judge(app: Context, organization_id: str, provider: str, now: int) -> Verdict | None:
    """Return how far a provider's book is from what was recorded; None if nothing was read of it. Notes it for metrics.

    Args:
        app: the parts of the app.
        organization_id: whose second book.
        provider: whose book.
        now: the present, Unix seconds.
    """
    read = app.store.days_read(organization_id, provider)
    if not read:
        app.metrics.forget_reconciliation(organization_id, provider)
        return None
    settled = [day_s for day_s, read_at_s in read.items() if read_at_s >= day_s + DAY_S + _SETTLE_S]
    days = [day_s for day_s in settled[-_JUDGED_DAYS:] if day_s > settled[-1] - _JUDGED_AGE_S]
    verdict = Verdict(provider, len(read), max(read.values()), None, None, None, None, is_beyond=False)
    if days:
        start_s, end_s = days[0], days[-1] + DAY_S
        query = Query(organization_id, start_s, end_s, DAY_S, now + 1, rows_max=app.settings.rows_max)
        recorded = billed = Decimal(0)
        for row in app.store.reconcile(query, provider):
            if row.start_s in days:
                recorded = WIDE.add(recorded, row.recorded.amount or 0)
                billed = WIDE.add(billed, row.billed.amount or 0)
        is_beyond = _is_beyond(app, recorded, billed)
        verdict = verdict._replace(start_s=start_s, end_s=end_s, recorded=recorded, billed=billed, is_beyond=is_beyond)
    ratio = verdict.ratio
    app.metrics.note_reconciliation(
        organization_id,
        provider,
        ratio=None if ratio is None else float(ratio),
        is_beyond=verdict.is_beyond,
        read_at_s=verdict.read_at_s,
    )
    return verdict


def _is_beyond(app: Context, recorded: Decimal, billed: Decimal) -> bool:
    apart = abs(WIDE.subtract(recorded, billed))
    percent, dollars = (
        Decimal(str(limit)) for limit in (app.settings.reconcile_percent_max, app.settings.reconcile_usd_max)
    )
    return apart > dollars and WIDE.multiply(apart, Decimal(100)) > WIDE.multiply(abs(billed), percent)


async def book(request: Request) -> Response:
    """List the days that were read of a provider, and when."""
    key = authorize(request, Scope.READ)
    app = context(request)
    provider = _checked(request.path_params["provider"])
    read = await to_thread.run_sync(app.store.days_read, key.organization_id, provider, limiter=app.queries)
    data = [
        {"object": "organization.reconciliation.day", "start_time": day_s, "end_time": day_s + DAY_S, "read_at": at_s}
        for day_s, at_s in read.items()
    ]
    return answer({"object": "list", "provider": provider, "data": data, "has_more": False})


async def put(request: Request) -> Response:
    """Put what was read of a provider in the place of what was read of those days before."""
    key = authorize(request, Scope.WRITE)
    app = context(request)
    provider = _checked(request.path_params["provider"])
    with Share(app.incoming) as part:
        body = await read_body(request, app.settings.body_bytes_max, part)

        def keep() -> Reading:
            reading = _read(provider, typed(body, _Reading), now_s(), app.settings.events_max)
            app.store.keep_reading(key.organization_id, reading)
            judge(app, key.organization_id, provider, now_s())
            return reading

        kept = await to_thread.run_sync(keep, limiter=app.decodes)
    return answer(
        {
            "object": "organization.reconciliation.reading",
            "provider": provider,
            "start_time": kept.start_s,
            "end_time": kept.end_s,
            "read_at": kept.read_at_s,
            "usage": len(kept.usage),
            "costs": len(kept.costs),
        }
    )


def _read(provider: str, sent: _Reading, now: int, rows_max: int) -> Reading:
    """Return a reading whose every row is of one of its days, and can be kept.

    Raises:
        InvalidRequest: naming the field.
    """
    start_s, end_s = sent.start_time, sent.end_time
    if start_s % DAY_S or end_s % DAY_S or not 0 < end_s - start_s <= _DAYS_MAX * DAY_S:
        raise _invalid("end_time", f"{start_s} to {end_s} are not 1 to {_DAYS_MAX} whole days (UTC).")
    if end_s > floor_s(now, DAY_S) + DAY_S:
        raise _invalid("end_time", f"{end_s} is after the end of the present day; nothing is known of later ones.")
    if len(sent.usage) + len(sent.costs) > rows_max:
        raise BodyTooLarge(f"A reading has at most {rows_max} rows; send fewer days at once.", code="too_many_rows")
    for place, cost in enumerate(sent.costs):
        if not is_plain(cost.amount.value) or not (cost.quantity is None or is_plain(cost.quantity)):
            raise _invalid("costs", f"a number at index {place} has more than {DIGITS_MAX} decimals, or is too large.")
    usage = [_record(event, place, now) for place, event in enumerate(sent.usage)]
    days = [*(row.timestamp_ms // 1000 for row in usage), *(cost.start_time for cost in sent.costs)]
    for day_s in days:
        if day_s % DAY_S or not start_s <= day_s < end_s:
            raise _invalid("start_time", f"{day_s}, of a row, is not the start of a day of the reading.")
    costs = [
        BilledCost(cost.start_time, cost.line_item, cost.project_id, cost.quantity, cost.amount.value)
        for cost in sent.costs
    ]
    return Reading(provider, start_s, end_s, min(sent.read_at, now), usage, costs)


def _record(event: msgspec.Struct, place: int, now: int) -> Record:
    try:
        found = record(event, now * 1000, received_ms=0)
    except FaultyEvent as error:
        raise _invalid("usage", f"at index {place}: {error}.") from None
    if found.kind.is_level:
        raise _invalid("usage", f"at index {place}: {found.kind.name} is a level, which is known by its costs only.")
    return found


async def drop(request: Request) -> Response:
    """Forget what was read of a provider."""
    key = authorize(request, Scope.WRITE)
    app = context(request)
    provider = _checked(request.path_params["provider"])
    days = await to_thread.run_sync(app.store.drop_readings, key.organization_id, provider, limiter=app.queries)
    if not days:
        raise NotFound(f"Nothing was read of {provider}.", code="no_book")
    app.metrics.forget_reconciliation(key.organization_id, provider)
    return answer({"object": "organization.reconciliation.book.deleted", "provider": provider, "deleted": days})


def _checked(provider: str) -> str:
    if not _PROVIDER.fullmatch(provider):
        raise _invalid("provider", f"{provider[:64]!r} is no name: 1 to 64 of a-z 0-9 _ -, beginning with a letter.")
    return provider


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': {problem}", param=name, code="invalid_value")


_PATH: Final = "/v1/organization/reconciliation"

routes = [
    Route(_PATH, reconcile, methods=["GET"]),
    Route(f"{_PATH}/books", books, methods=["GET"]),
    Route(f"{_PATH}/books/{{provider}}", book, methods=["GET"]),
    Route(f"{_PATH}/books/{{provider}}", put, methods=["PUT"]),
    Route(f"{_PATH}/books/{{provider}}", drop, methods=["DELETE"]),
]
