"""Health, readiness, measurements and the API's own description. None needs a key; none tells of an organization."""

from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tallybook.routes.context import answer, context
from tallybook.wire.openapi import openapi

_OPENAPI: Final = openapi()
_SWAGGER: Final = Path(str(distribution("fastapi-swagger").locate_file("fastapi_swagger/resources")))
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tallybook API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
</head>
<body>
<div id="api"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true});\n'
_POLICY: Final = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


async def healthz(request: Request) -> Response:
    """The process answers."""
    return answer({"status": "ok"})


async def readyz(request: Request) -> Response:
    """The server takes events; if not, why, and what to do about it."""
    trouble = context(request).writer.trouble
    if trouble is None:
        return answer({"status": "ready"})
    return answer({"status": trouble, "problem": trouble.problem, "remedy": trouble.remedy}, 503)


async def metrics(request: Request) -> Response:
    """Measurements in Prometheus' text format."""
    return Response(context(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def description(request: Request) -> Response:
    """The API as OpenAPI."""
    return answer(_OPENAPI)


async def docs(request: Request) -> Response:
    """The API as a page to read and try; everything it loads comes from this server."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})


async def docs_start(request: Request) -> Response:
    """The script that opens the page."""
    return Response(_START, media_type="text/javascript")


routes = [
    Route("/healthz", healthz, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/openapi.json", description, methods=["GET"]),
    Route("/docs", docs, methods=["GET"]),
    Route("/docs/start.js", docs_start, methods=["GET"]),
    Mount("/docs/assets", StaticFiles(directory=_SWAGGER)),
]
