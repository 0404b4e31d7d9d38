"""Headers of every answer, whatever it is and whoever gives it."""

from typing import Final

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Answers are taken for what they say they are, are not told to other sites, and are not kept."""
NOTHING_LOADED: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""For what is no page: whatever a browser takes it for, it runs and loads nothing, and is in nobody's frame."""
