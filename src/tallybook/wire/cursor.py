"""The cursor of a page: opaque to clients, bound to its question.

It holds where the next page begins and where the window ends (so that "now" does not move between pages), and a
fingerprint of the question and the organization. It is no secret and grants nothing; the digest only tells a damaged or
borrowed cursor from a good one. Clients paste it into addresses unescaped, hence the URL-safe alphabet.
"""

import base64
import binascii
import hashlib
import struct
from typing import Final, NamedTuple

from tallybook.errors import InvalidRequest
from tallybook.timegrid import INSTANT_MAX_S

_LAYOUT: Final = struct.Struct(">BQQ")
_VERSION: Final = 1
_DIGEST_BYTES: Final = 16


class Cursor(NamedTuple):
    """Where a walk through pages stands, Unix seconds."""

    next_s: int
    end_s: int


def write_cursor(cursor: Cursor, question: bytes) -> str:
    """Return the text of a cursor; its alphabet is ``[A-Za-z0-9_=-]``."""
    payload = _LAYOUT.pack(_VERSION, *cursor)
    return "page_" + base64.urlsafe_b64encode(payload + _digest(payload, question)).decode()


def read_cursor(text: str, question: bytes) -> Cursor:
    """Return the cursor that `write_cursor` wrote for the same question.

    Raises:
        InvalidRequest: it is damaged, or belongs to another question or organization.
    """
    try:
        decoded = base64.b64decode(text.removeprefix("page_"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(text) from None
    if len(decoded) != _LAYOUT.size + _DIGEST_BYTES:
        raise _invalid(text)
    version, next_s, end_s = _LAYOUT.unpack_from(decoded)
    if version != _VERSION or not next_s < end_s <= INSTANT_MAX_S:
        raise _invalid(text)
    cursor = Cursor(next_s, end_s)
    # Compared as written: of the last letter of base64 not all bits count.
    if write_cursor(cursor, question).removeprefix("page_") != text.removeprefix("page_"):
        raise _invalid(text)
    return cursor


def _digest(payload: bytes, question: bytes) -> bytes:
    return hashlib.blake2b(payload + question, digest_size=_DIGEST_BYTES).digest()


def _invalid(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid 'page': {text[:80]!r} is damaged or belongs to another question. Pass next_page as it was given, "
        "with the same parameters, or leave page out to start anew.",
        param="page",
        code="invalid_cursor",
    )
