"""Headers of every answer, whatever it is and whoever gives it."""

from typing import Final

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Unless an answer says otherwise of itself: it is taken for what it says it is, is not told to other sites, and is not
kept; and whatever a browser takes it for, it runs and loads nothing, and is in nobody's frame."""
