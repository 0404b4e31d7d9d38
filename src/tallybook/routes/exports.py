"""Exports: charges as FOCUS or as OpenAI's dashboard has them, raw events to be imported again; streamed."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain, islice
from types import MappingProxyType
from typing import Final, cast

import pyarrow as pa
from anyio import to_thread
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tallybook.clock import now_s
from tallybook.export.charge import Charge
from tallybook.export.dashboard import SCHEMA as DASHBOARD
from tallybook.export.dashboard import dashboard_batches
from tallybook.export.files import CONTENT_TYPES, Format, stream
from tallybook.export.focus import FOCUS, focus_batches, schema
from tallybook.export.usage import usage_batches, usage_schema
from tallybook.keys import Scope
from tallybook.kinds import KINDS
from tallybook.money import to_decimal
from tallybook.parts import PARTS, line_item
from tallybook.query import Query
from tallybook.routes.context import Context, authorize, context
from tallybook.routes.single import choice, single, window
from tallybook.store.charges import DETAILS
from tallybook.store.level_rates import LEVEL
from tallybook.store.protocol import CostRow, Line
from tallybook.timegrid import COST_WIDTHS, floor_s
from tallybook.wire.headers import unpriced_link

_FORMATS: Final = ("csv", "parquet")
_WIDTHS: Final = ("1d", "1h")
_SCHEMAS: Final = ("focus-1.4", *(f"focus-{version}" for version in FOCUS if version != "1.4"), "openai")
_TERMS: Final = ("size", "quality", "context_level", "inference_geo")
"""Dimensions a price may depend on that have no column of their own."""
_ROWS_MAX: Final = 500_000
"""Charges of one period; those of a day, or of an hour where that is the period, are in memory at once."""


async def costs_export(request: Request) -> Response:
    """Stream what usage cost: a row for each period, part, price and who used it."""
    key = authorize(request, Scope.READ)
    app = context(request)
    known = ("start_time", "end_time", "format", "schema", "bucket_width")
    given = single(request.query_params.multi_items(), known)
    now = now_s() + 1
    start_s, end_s = await to_thread.run_sync(_used_window, app, given, key.organization_id, now, limiter=app.queries)
    name = choice(given, "schema", _SCHEMAS)
    width_s = COST_WIDTHS[choice(given, "bucket_width", _WIDTHS)].seconds
    charges = await to_thread.run_sync(
        _begun, _charges(app, key.organization_id, floor_s(start_s, width_s), end_s, width_s, now), limiter=app.queries
    )
    if name == "openai":
        columns, batches = DASHBOARD, dashboard_batches(charges)
    else:
        version = name.removeprefix("focus-")
        columns, batches = schema(version), focus_batches(charges, version)
    format_ = cast("Format", choice(given, "format", _FORMATS))
    link = unpriced_link(floor_s(start_s, width_s), end_s)
    return _answer(app, f"costs-{name}", start_s, end_s, batches, columns, format_, link)


async def usage_export(request: Request) -> Response:
    """Stream stored events, such that importing them makes the same store."""
    key = authorize(request, Scope.READ)
    app = context(request)
    parameters = [(name.removesuffix("[]"), value) for name, value in request.query_params.multi_items()]
    named = [kind for name, value in parameters if name == "kinds" for kind in value.split(",")]
    for kind in named:
        choice({"kinds": kind}, "kinds", tuple(KINDS))
    others = (parameter for parameter in parameters if parameter[0] != "kinds")
    given = single(others, ("start_time", "end_time", "format"))
    start_s, end_s = window(given, now_s() + 3_601)  # events may lie an hour ahead
    kinds = list(dict.fromkeys(named)) or list(KINDS)
    rows = await to_thread.run_sync(app.store.events, key.organization_id, start_s, end_s, kinds, limiter=app.queries)
    format_ = cast("Format", choice(given, "format", _FORMATS))
    return _answer(app, "usage", start_s, end_s, usage_batches(rows), usage_schema(), format_)


def _used_window(app: Context, given: dict[str, str], organization_id: str, now: int) -> tuple[int, int]:
    """Return the window from the first day on that anything was used, which may be empty: days before have no costs."""
    start_s, end_s = window(given, now)
    used = app.store.days(organization_id, 0, end_s)
    return (max(start_s, used[0]) if used else end_s), end_s


def _begun(charges: Iterator[Charge]) -> Iterator[Charge]:
    """Look for the first charge, so that a window of which not enough is kept is refused before the answer begins."""
    return chain(list(islice(charges, 1)), charges)


def _charges(app: Context, organization_id: str, start_s: int, end_s: int, width_s: int, now: int) -> Iterator[Charge]:
    """Yield charges in order of time, a period in memory at once."""
    fields = app.settings.line_item_names == "fields"
    last_s = min(end_s, now + 3_600)  # events may lie an hour ahead
    while start_s < last_s:
        until_s = min(floor_s(start_s, width_s) + width_s, end_s)
        query = Query(organization_id, start_s, until_s, width_s, now, rows_max=_ROWS_MAX)
        for row in app.store.charges(query):
            yield _charge(app, organization_id, row, until_s, fields=fields)
        start_s = until_s


def _charge(app: Context, organization_id: str, row: CostRow, end_s: int, *, fields: bool) -> Charge:
    *values, line = row.group
    assert isinstance(line, Line)
    named = dict(zip(DETAILS, values, strict=True))
    part = PARTS[line.part]
    rate = app.store.rate(row.rate_id)
    priced = "storage" if part.name == "free_storage" else part.name
    price = next((price for price in rate.prices if price.part == priced), None) if rate else None
    terms = [(name, str(named[name])) for name in _TERMS if named[name] is not None]
    if price and price.above >= 0:
        terms.append(("above_input_tokens", str(price.above)))
    return Charge(
        row.start_s,
        end_s,
        organization_id,
        str(named["kind"] or LEVEL.name),
        part.name,
        line_item(part, line.model, fields=fields),
        _text(named["project_id"]),
        _text(named["user_id"]),
        _text(named["api_key_id"]),
        _text(named["model"]),
        _text(named["service_tier"]),
        None if named["batch"] is None else bool(named["batch"]),
        _text(named["api_source"]),
        None if row.quantity is None else Decimal(row.quantity),
        part.quantity_unit,
        to_decimal(row.amount),
        price.value if price else None,
        price.unit if price else None,
        price.provider if price else None,
        rate.book_id if rate else None,
        row.rate_id,
        tuple(terms),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _answer(
    app: Context,
    name: str,
    start_s: int,
    end_s: int,
    batches: Iterable[pa.RecordBatch],
    columns: pa.Schema,
    format_: Format,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        file = stream(batches, columns, format_)
        turn = object()  # whoever clears up after a client that hung up is not who took the turn
        await app.exports.acquire_on_behalf_of(turn)
        try:
            async for piece in iterate_in_threadpool(file):
                yield piece
        finally:
            app.exports.release_on_behalf_of(turn)
            file.close()

    first, last = (datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d") for instant in (start_s, end_s - 1))
    file = f"tallybook-{name}-{first}-{last}.{format_}"
    return StreamingResponse(
        pieces(),
        media_type=CONTENT_TYPES[format_],
        headers={"content-disposition": f'attachment; filename="{file}"', **headers},
    )


routes = [
    Route("/v1/organization/costs/export", costs_export, methods=["GET"]),
    Route("/v1/organization/usage/export", usage_export, methods=["GET"]),
]
