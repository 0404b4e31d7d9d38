"""``GET /v1/organization/usage/<kind>``: one handler for every row of the table of kinds."""

from collections.abc import Awaitable, Callable

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.clock import now_s
from tallybook.keys import Scope
from tallybook.kinds import KINDS, UsageKind
from tallybook.routes.context import authorize, context
from tallybook.wire.pages import render_usage
from tallybook.wire.params import USAGE, parse


def _endpoint(kind: UsageKind) -> Callable[[Request], Awaitable[Response]]:
    async def usage(request: Request) -> Response:
        key = authorize(request, Scope.READ)
        app = context(request)
        # The second that is running counts as past: what was acknowledged in it belongs in the answer.
        page = parse(
            USAGE[kind.name],
            request.query_params.multi_items(),
            key.organization_id,
            now_s() + 1,
            app.settings.rows_max,
        )

        def read() -> bytes:
            with app.metrics.query_s.labels(kind.name).time():
                rows = app.store.usage(kind, page.query)
            return render_usage(kind, page, rows)

        body = await to_thread.run_sync(read, limiter=app.queries)
        return Response(body, media_type="application/json")

    return usage


routes = [
    Route(f"/v1/organization/usage/{kind.name}", _endpoint(kind), methods=["GET"], name=kind.name)
    for kind in KINDS.values()
]
