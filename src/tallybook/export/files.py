"""Record batches to the bytes of a file, while they come: CSV or Parquet, never more than a row group in memory.

CSV is RFC 4180 in UTF-8 without a byte order mark: a header, comma, LF, quotes only where a value needs them. A null is
an empty cell, an empty text is ``""``. Decimals are plain, all digits, no exponent; times are ``2026-01-31T09:30:00Z``.

Values are never altered, but for one case in CSV: a text that a spreadsheet would take for a formula has a single quote
before it (`formulas`). Who joins such ids with other data takes it off, as our own importer does, or reads Parquet.
"""

import io
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tallybook.export.formulas import FORMULA

Format = Literal["csv", "parquet"]

CONTENT_TYPES: Final = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
ROWS_MAX: Final = 8_192
"""Rows of a piece of CSV, and what a longer batch is cut to."""
GROUP_ROWS_MAX: Final = 65_536
"""Rows of a Parquet row group: enough for readers to skip by, few enough to be held."""
GROUP_BYTES_MAX: Final = 32 * 1024 * 1024
"""What a row group may gather in memory before it is written."""
_QUOTED: Final = r'[",\r\n]|^$'

Column = Any
"""A pyarrow array of any type; its stubs have no common name for what compute functions take and give."""


def stream(batches: Iterable[pa.RecordBatch], schema: pa.Schema, format: Format) -> Generator[bytes, None, None]:  # noqa: A002
    """Yield a file piece by piece, asking for no more batches than the next piece needs.

    Args:
        batches: of this schema, any number of them and of any length.
        schema: of the file; also of one without a row.
        format: of the file.

    Raises:
        Exception: whatever `batches` raise. A Parquet file is then without its footer, so that no reader takes it for
            a whole one.
    """
    return _csv(batches, schema) if format == "csv" else _parquet(batches, schema)


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_MAX):
            yield batch.slice(start, ROWS_MAX)


def _csv(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Generator[bytes, None, None]:
    yield (",".join(schema.names) + "\n").encode()
    for piece in _pieces(batches):
        cells = [_text(column) for column in piece.columns]
        rows = pc.binary_join_element_wise(*cells, ",", null_handling="replace", null_replacement="")
        yield "".join(f"{row}\n" for row in rows.to_pylist()).encode()


def _text(column: Column) -> Column:
    """Return a column's cells as they stand in CSV."""
    if pa.types.is_decimal(column.type) and column.type.scale:
        return _plain(column)
    if pa.types.is_timestamp(column.type):
        # Without its zone, which is UTC: so no time zone database has to be there.
        return pc.strftime(column.cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%SZ")
    text = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        return text
    if pc.any(pc.match_substring_regex(text, FORMULA)).as_py():
        defused = pc.binary_join_element_wise("'", text, "")
        text = pc.if_else(pc.match_substring_regex(text, FORMULA), defused, text)
    if not pc.any(pc.match_substring_regex(text, _QUOTED)).as_py():
        return text
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(text, _QUOTED), quoted, text)


def _plain(column: Column) -> Column:
    """Return decimals with all their digits, without an exponent and without zeros at the end.

    Arrow writes a decimal whose first digit is far behind the point with an exponent. One more than that has none, and
    the same decimals.
    """
    scale = column.type.scale
    size = pc.abs(column)
    is_small = pc.less(size, pa.scalar(1, column.type))
    small = pc.if_else(is_small, size, pa.scalar(0, column.type)).cast(pa.decimal128(scale + 1, scale))
    raised = pc.add(small, pa.scalar(1, pa.decimal128(1, 0))).cast(pa.string())
    digits = pc.if_else(
        is_small, pc.binary_join_element_wise("0", pc.utf8_slice_codeunits(raised, 1), ""), size.cast(pa.string())
    )
    digits = pc.utf8_rtrim(pc.utf8_rtrim(digits, "0"), ".")
    sign = pc.if_else(pc.less(column, pa.scalar(0, column.type)), "-", "")
    return pc.binary_join_element_wise(sign, digits, "")


class _Sink(io.RawIOBase):
    """Keeps what a writer writes until it is taken."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._written += data
        self._position += size
        return size

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._written = bytes(self._written), bytearray()
        return taken


def _parquet(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Generator[bytes, None, None]:
    sink = _Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="snappy") as writer:
        for group in _groups(batches):
            writer.write_table(pa.Table.from_batches(group, schema), row_group_size=GROUP_ROWS_MAX)
            group.clear()
            yield sink.take()
    yield sink.take()


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield the batches of a row group at once."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for piece in _pieces(batches):
        group.append(piece)
        rows += piece.num_rows
        size += piece.nbytes
        if rows >= GROUP_ROWS_MAX or size >= GROUP_BYTES_MAX:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group
