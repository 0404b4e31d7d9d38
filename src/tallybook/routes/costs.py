"""``/v1/organization/costs`` and what belongs to it: what has no price, the price book, charging anew."""

from collections.abc import Iterable
from decimal import Decimal
from functools import partial
from typing import Final

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_ms, now_s
from tallybook.errors import CommandFailed, InvalidRequest
from tallybook.event import TEXT_MAX
from tallybook.keys import Scope
from tallybook.money import text
from tallybook.parts import PARTS, line_item
from tallybook.prices.book import Listed, PriceBook
from tallybook.prices.file import counted_as
from tallybook.routes.context import Context, answer, authorize, context, typed_body
from tallybook.routes.lists import list_answer, parse_list, unknown_after
from tallybook.routes.single import Instant, instant, single
from tallybook.store.protocol import TOLD_APART, Batch, DayChange, Rerating, Unpriced
from tallybook.timegrid import DAY_S, INSTANT_MAX_S, buckets, floor_s
from tallybook.wire.headers import unpriced_link
from tallybook.wire.pages import number, render_costs
from tallybook.wire.params import COSTS, UnpricedRequest, parse, parse_unpriced

_PRICES_BYTES_MAX: Final = 16 * 1024 * 1024


class Rerate(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the request that charges anew: Unix seconds, half-open, widened to whole days."""

    start_time: Instant
    end_time: Instant
    dry_run: bool = False
    prices: str | None = None


async def costs(request: Request) -> Response:
    """Answer what usage cost."""
    key = authorize(request, Scope.READ)
    app = context(request)
    given = request.query_params.multi_items()
    page = parse(COSTS, given, key.organization_id, now_s() + 1, app.settings.rows_max)

    def read() -> bytes:
        with app.metrics.query_s.labels("costs").time():
            rows = app.store.costs(page.query)
        return render_costs(page, rows, fields=app.settings.line_item_names == "fields")

    body = await to_thread.run_sync(read, limiter=app.queries)
    selecting = [(name, value) for name, value in given if name.removesuffix("[]") in ("group_by", *COSTS.filters)]
    headers = unpriced_link(page.query.start_s, page.query.end_s, selecting)
    return Response(body, media_type="application/json", headers=headers)


async def unpriced(request: Request) -> Response:
    """List usage without a price."""
    key = authorize(request, Scope.READ)
    app = context(request)
    parameters = request.query_params.multi_items()
    asked = parse_unpriced(parameters, key.organization_id, now_s() + 1, app.settings.rows_max)
    read = partial(app.store.unpriced, asked.query, counts=asked.counts)
    found = await to_thread.run_sync(read, limiter=app.queries)
    fields = app.settings.line_item_names == "fields"
    data = [_more(row, asked) | _unpriced(row, fields=fields) for row in found]
    return answer({"object": "list", "data": data, "has_more": False})


def _more(row: Unpriced, asked: UnpricedRequest) -> dict[str, object]:
    """Return the fields an entry has only where they were asked for: its bucket, and who used it."""
    query = asked.query
    names = (name for name in query.group_by if name not in TOLD_APART)
    more: dict[str, object] = dict(zip(names, row.group, strict=True))
    if asked.has_buckets:
        ((_, end_s),) = buckets(row.bucket_s, query.end_s, query.width_s, limit=1)
        more |= {"start_time": row.bucket_s, "end_time": end_s}
    return more


def _unpriced(row: Unpriced, *, fields: bool) -> dict[str, object]:
    return {
        "object": "organization.costs.unpriced",
        "kind": row.kind,
        "model": row.model,
        "service_tier": row.service_tier,
        "batch": row.batch,
        "line_item": line_item(row.part, row.model, fields=fields),
        "counted": counted_as(row.part.name),
        "since": row.since_s,
        "until": row.until_s,
        "quantity": row.quantity if isinstance(row.quantity, int) else number(row.quantity),
        "quantity_unit": row.part.quantity_unit,
        "events": row.events,
    }


async def prices(request: Request) -> Response:
    """List the prices in force at an instant: of one model, or all there are."""
    authorize(request, Scope.READ)
    book = context(request).prices.book
    given = single(request.query_params.multi_items(), ("model", "at"))
    at_s = instant(given, "at", now_s())
    model = given.get("model")
    if model is not None and not 1 <= len(model) <= TEXT_MAX:
        raise InvalidRequest(
            f"Invalid 'model': a name has 1 to {TEXT_MAX} characters.", param="model", code="invalid_value"
        )

    def read() -> bytes:
        found = book.listed(at_s * 1000) if model is None else book.effective(model, at_s * 1000)
        listed = {"object": "list", "book": _book(book), "data": [_price(price) for price in found], "has_more": False}
        return msgspec.json.encode(listed)

    body = await to_thread.run_sync(read, limiter=context(request).queries)
    return Response(body, media_type="application/json")


def _book(book: PriceBook) -> dict[str, object]:
    return {"id": book.book_id, "sources": [source._asdict() for source in book.sources]}


def _price(price: Listed) -> dict[str, object]:
    listed = price._asdict()
    since_ms, until_ms = listed.pop("since_ms"), listed.pop("until_ms")
    return {
        "object": "organization.costs.price",
        **listed,
        "counted": counted_as(price.counted),
        "price": number(price.price),
        "free": _optional(price.free),
        "from": None if since_ms is None else since_ms // 1000,
        "until": None if until_ms is None else until_ms // 1000,
    }


async def reload(request: Request) -> Response:
    """Read the price files again."""
    authorize(request, Scope.MANAGE)
    app = context(request)
    try:
        has_changed = await to_thread.run_sync(app.prices.reload)
    except CommandFailed as error:
        raise InvalidRequest(f"{error}; the prices in force stay.", code="invalid_prices") from error
    if has_changed:
        await adopt(app)
    return answer({"object": "organization.costs.prices", "book": _book(app.prices.book), "changed": has_changed})


async def adopt(app: Context) -> None:
    """Charge by the book in force from now on."""
    app.store.use(app.prices.book, now_ms())
    # A commit makes it so: also for what is held, and costs the more the longer nobody sends anything.
    await app.writer.submit(Batch(""), 0)


async def rerate(request: Request) -> Response:
    """Charge whole days anew, each in one transaction, or tell what that would change."""
    key = authorize(request, Scope.MANAGE)
    app = context(request)
    asked: Rerate = await typed_body(request, Rerate, _PRICES_BYTES_MAX)
    if asked.end_time <= asked.start_time:
        raise InvalidRequest(
            f"Invalid 'end_time': {asked.end_time} is not after start_time {asked.start_time}.",
            param="end_time",
            code="invalid_value",
        )

    def work() -> tuple[str, list[DayChange]]:
        book = app.prices.book
        if asked.prices is not None:
            try:
                book = app.prices.instead(asked.prices)
            except CommandFailed as error:
                raise InvalidRequest(f"{error}.", param="prices", code="invalid_prices") from error
        changes = []
        for day_s in _days(app, key.organization_id, asked.start_time, asked.end_time):
            change = app.store.rerate(key.organization_id, day_s, book, now_ms(), dry_run=asked.dry_run)
            if change.lines:
                changes.append(change)
        return book.book_id, changes

    book_id, changes = await to_thread.run_sync(work, limiter=app.scans)
    fields = app.settings.line_item_names == "fields"
    return answer(
        {
            "object": "organization.costs.rerating",
            "dry_run": asked.dry_run,
            "book_id": book_id,
            "days": [_day(change, fields=fields) for change in changes],
        }
    )


def _days(app: Context, organization_id: str, start_s: int, end_s: int) -> Iterable[int]:
    """Return the days of a window from the first that anything was used on; what is held costs on all that follow."""
    used = app.store.days(organization_id, 0, min(-floor_s(-end_s, DAY_S), INSTANT_MAX_S))
    if not used:
        return ()
    return range(max(floor_s(start_s, DAY_S), used[0]), min(end_s, max(now_s(), used[-1]) + DAY_S), DAY_S)


def _day(change: DayChange, *, fields: bool) -> dict[str, object]:
    return {
        "start_time": change.day_s,
        "events": change.events,
        "before": _amount(change.before),
        "after": _amount(change.after),
        "line_items": [
            {
                "line_item": line_item(PARTS[line.line.part], line.line.model, fields=fields),
                "before": _amount(line.before),
                "after": _amount(line.after),
                "quantity": _optional(line.quantity_before if line.quantity_after is None else line.quantity_after),
                "quantity_unit": PARTS[line.line.part].quantity_unit,
            }
            for line in change.lines
        ],
    }


def _amount(units: int | None) -> msgspec.Raw | None:
    return None if units is None else msgspec.Raw(text(units).encode())


def _optional(value: Decimal | int | None) -> msgspec.Raw | int | None:
    return number(value) if isinstance(value, Decimal) else value


async def reratings(request: Request) -> Response:
    """List the days that were charged anew, in the order that was done."""
    key = authorize(request, Scope.READ)
    app = context(request)
    asked = parse_list(request.query_params.multi_items())

    found = await to_thread.run_sync(app.store.reratings, key.organization_id, limiter=app.queries)
    if asked.descending:
        found.reverse()
    if asked.after:
        place = next((number for number, entry in enumerate(found) if entry.rerating_id == asked.after), None)
        if place is None:
            raise unknown_after(asked.after)
        found = found[place + 1 :]
    return list_answer(asked, [_rerating(entry) for entry in found[: asked.limit + 1]])


def _rerating(entry: Rerating) -> dict[str, object]:
    return {
        "object": "organization.costs.rerating",
        "id": entry.rerating_id,
        "created_at": entry.created_at_s,
        "start_time": entry.day_s,
        "book_id": entry.book_id,
        "events": entry.events,
        "before": _amount(entry.before),
        "after": _amount(entry.after),
    }


_PATH: Final = "/v1/organization/costs"

routes = [
    Route(_PATH, costs, methods=["GET"], name="costs"),
    Route(f"{_PATH}/unpriced", unpriced, methods=["GET"]),
    Route(f"{_PATH}/prices", prices, methods=["GET"]),
    Route(f"{_PATH}/prices/reload", reload, methods=["POST"]),
    Route(f"{_PATH}/rerate", rerate, methods=["POST"]),
    Route(f"{_PATH}/reratings", reratings, methods=["GET"]),
]
