"""Bodies are unpacked whole or refused, and never take much more memory than the limit."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from tallybook.errors import BodyTooLarge, InvalidRequest
from tallybook.ingest.unpack import unpack
from tallybook.ingest.zstandard import zstd

LIMIT = 1 << 20


def streamed(data: bytes) -> bytes:
    compressor = zstd.ZstdCompressor()
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress), ("zstd", streamed)]
)
def test_a_bomb_costs_little_more_than_the_limit(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(200 * LIMIT))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        unpack(bomb, encoding, LIMIT)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * LIMIT


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress), ("zstd", streamed)]
)
@pytest.mark.parametrize("size_bytes", [0, 1, LIMIT - 1, LIMIT])
def test_what_fits_the_limit_is_unpacked(encoding: str, compress: Callable[[bytes], bytes], size_bytes: int) -> None:
    body = bytes(range(256)) * (size_bytes // 256) + bytes(size_bytes % 256)
    assert unpack(compress(body), encoding, LIMIT) == body
    if size_bytes > 1:
        assert unpack(compress(body[:1]) + compress(body[1:]), encoding, LIMIT) == body


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress), ("zstd", streamed)]
)
def test_every_cut_is_noticed(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    packed = compress(b"all or nothing")
    for length in range(1, len(packed)):
        with pytest.raises(InvalidRequest):
            unpack(packed[:length], encoding, LIMIT)


def test_thousands_of_empty_parts_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than 100 parts"):
        unpack(gzip.compress(b"") * 5_000, "gzip", LIMIT)


def test_what_is_no_gzip_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        unpack(zlib.compress(b"no header of gzip"), "gzip", LIMIT)
