"""Content-Encoding: bytes as sent to bytes as meant, never beyond a limit."""

import zlib
from typing import Final

from tallybook.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from tallybook.ingest.zstandard import zstd

ENCODINGS: Final = ("gzip", "zstd", "identity")
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_WINDOW_LOG_MAX: Final = 27
"""What the format recommends every reader to take: 128 MiB."""
_MEMBERS_MAX: Final = 100
"""A body may be several compressed files one after the other; each costs a copy of what follows it."""


def unpack(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Return the body without its Content-Encoding.

    Args:
        body: as received.
        encoding: value of the Content-Encoding header, "" if absent.
        limit_bytes: the most the result may be; a bomb costs at most this much memory.

    Raises:
        UnsupportedEncoding: an encoding other than `ENCODINGS`, or several.
        InvalidRequest: the body is not what its header says, or is cut short.
        BodyTooLarge: it unpacks to more than the limit.
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name in ("", "identity"):
        return body
    if name not in ENCODINGS:
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:64]!r} is not supported; use one of {', '.join(ENCODINGS)}",
            param="Content-Encoding",
            code="unsupported_content_encoding",
        )
    unpacked = bytearray()
    rest = body
    for _ in range(_MEMBERS_MAX):
        try:
            member, is_whole, rest = _member(name, rest, limit_bytes + 1 - len(unpacked))
        except (zlib.error, zstd.ZstdError) as error:
            raise _damaged(name, str(error)) from None
        unpacked += member
        if len(unpacked) > limit_bytes:
            raise too_large(limit_bytes)
        if not is_whole:
            raise _damaged(name, "it is cut short")
        if not rest:
            return bytes(unpacked)
    raise _damaged(name, f"it has more than {_MEMBERS_MAX} parts")


def untold_encoding(body: bytes) -> str:
    """Return the encoding that the first bytes of a body tell, for a sender that packs it and does not say so.

    Neither JSON nor a message of OTLP can begin with them.
    """
    return next((name for magic, name in _MAGIC.items() if body.startswith(magic)), "")


def _member(name: str, packed: bytes, limit_bytes: int) -> tuple[bytes, bool, bytes]:
    """Unpack the first member, no further than a limit; return it, whether it ended, and what follows it."""
    if name == "gzip":
        gunzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        return gunzip.decompress(packed, limit_bytes), gunzip.eof, gunzip.unused_data
    unzstd = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
    unpacked = bytearray(unzstd.decompress(packed, limit_bytes))
    while not (unzstd.eof or unzstd.needs_input or len(unpacked) >= limit_bytes):
        unpacked += unzstd.decompress(b"", limit_bytes - len(unpacked))
    return bytes(unpacked), unzstd.eof, unzstd.unused_data if unzstd.eof else b""


def too_large(limit_bytes: int) -> BodyTooLarge:
    """The error of a body above the limit."""
    return BodyTooLarge(
        f"The body is larger than {limit_bytes} bytes unpacked; send it in several requests",
        code="body_too_large",
    )


def _damaged(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"The body is not the {name} that Content-Encoding says: {problem}; send it whole, or without the header",
        param="Content-Encoding",
        code="invalid_content_encoding",
    )
