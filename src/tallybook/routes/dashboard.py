"""The dashboard: one page with a script and a style, as built from ``dashboard/``; it asks the API for the rest.

What the page loads has its hash in its name and is kept by browsers for good; the page itself is asked for anew.
"""

import gzip
import mimetypes
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallybook.errors import NotFound, Unavailable

_BUILT: Final = Path(__file__).parents[1] / "dashboard"
_PAGE: Final = "index.html"
VIEWS: Final = ("/", "/explore", "/live", "/manage")
"""Addresses of the page's views; the page tells them apart by itself."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


@cache
def _files() -> dict[str, bytes]:
    """Return what was built, by name, compressed."""
    return {path.name.removesuffix(".gz"): path.read_bytes() for path in _BUILT.glob("*.gz")}


async def page(request: Request) -> Response:
    """The dashboard."""
    if _PAGE not in _files():
        raise Unavailable(
            "The dashboard is not built; run 'make dashboard' in the checkout and restart the server. The API works "
            "without it",
            code="no_dashboard",
        )
    return _file(request, _PAGE, {"content-security-policy": _POLICY})


async def asset(request: Request) -> Response:
    """What the page loads."""
    name = request.path_params["name"]
    if name not in _files() or name == _PAGE:
        raise NotFound("The dashboard loads no such file.", code="not_found")
    return _file(request, name, {"cache-control": _FOR_GOOD})


def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    body = _files()[name]
    headers |= {"vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers |= {"content-encoding": "gzip"}
    else:
        body = gzip.decompress(body)
    return Response(body, media_type=mimetypes.guess_type(name)[0], headers=headers)


routes = [
    *(Route(path, page, methods=["GET"]) for path in VIEWS),
    Route("/assets/{name}", asset, methods=["GET"]),
]
