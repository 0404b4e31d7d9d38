"""Content-Encoding: bytes as sent to bytes as meant, never beyond a limit."""

import zlib

import zstandard

from tallybook.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

ENCODINGS = ("gzip", "zstd", "identity")
_CHUNK_BYTES = 1 << 20


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
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name in ("gzip", "x-gzip"):
        return _gunzip(body, limit_bytes)
    if name == "zstd":
        return _unzstd(body, limit_bytes)
    raise UnsupportedEncoding(
        f"Content-Encoding {encoding[:64]!r} is not supported; use one of {', '.join(ENCODINGS)}",
        param="Content-Encoding",
        code="unsupported_content_encoding",
    )


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    unpacked = bytearray()
    rest = body
    try:
        while rest:  # a gzip file may hold several members, as `cat a.gz b.gz` makes them
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            unpacked += member.decompress(rest, limit_bytes + 1 - len(unpacked))
            if len(unpacked) > limit_bytes:
                raise too_large(limit_bytes)
            if not member.eof:
                raise _damaged("gzip", "it is cut short")
            rest = member.unused_data
    except zlib.error as error:
        raise _damaged("gzip", str(error)) from None
    return bytes(unpacked)


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    unpacked = bytearray()
    rest = body
    try:
        while rest:
            frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
            for start in range(0, len(rest), _CHUNK_BYTES):
                unpacked += frame.decompress(rest[start : start + _CHUNK_BYTES])
                if len(unpacked) > limit_bytes:
                    raise too_large(limit_bytes)
                if frame.eof:
                    rest = frame.unused_data + rest[start + _CHUNK_BYTES :]
                    break
            if not frame.eof:
                raise _damaged("zstd", "it is cut short")
    except zstandard.ZstdError as error:
        raise _damaged("zstd", str(error)) from None
    return bytes(unpacked)


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
