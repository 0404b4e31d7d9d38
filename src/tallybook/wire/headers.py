"""Headers of every answer, whatever it is and whoever gives it."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Unless an answer says otherwise of itself: it is taken for what it says it is, is not told to other sites, and is not
kept; and whatever a browser takes it for, it runs and loads nothing, and is in nobody's frame."""

_UNPRICED: Final = "/v1/organization/costs/unpriced"
_LINK_MAX: Final = 4_096
"""Proxies refuse answers whose headers have more than 8 KB."""


def unpriced_link(start_s: int, end_s: int, parameters: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Return the header that leads from amounts to the usage that is in none of them; none, if it were too long.

    The body of costs is OpenAI's to the letter, and the files have the columns of others: neither has room to say it.

    Args:
        start_s: start of the amounts' window, Unix seconds.
        end_s: its end, exclusive.
        parameters: filters and groups, as they were given.
    """
    window = [("start_time", str(start_s)), ("end_time", str(end_s))]
    target = f"{_UNPRICED}?{urlencode([*window, *parameters])}"
    return {"link": f'<{target}>; rel="related"; title="unpriced usage"'} if len(target) <= _LINK_MAX else {}
