"""Files to rows: NDJSON, JSON, CSV and Parquet, plain or packed, from files, folders, patterns or standard input."""

import codecs
import csv
import gzip
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress, TaskID

from tallybook.errors import CommandFailed
from tallybook.export.formulas import restore
from tallybook.ingest.zstandard import zstd

Row = dict[str, Any] | bytes
"""An object, or a line that is none: the server puts it into quarantine, so that nothing of a file is lost."""
STANDARD_INPUT: Final = Path("-")
_PACKED: Final = (".gz", ".zst")
_SUFFIXES: Final = (".ndjson", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""What is read of a folder; a file that is named is read whatever it is called."""
_PATTERN: Final = frozenset("*?[")
_BATCH_ROWS: Final = 5_000
_READ_BYTES: Final = 1024 * 1024
_ROW_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest line or cell, as of an answer with images in it. Of a longer line only this much is looked at."""

# Numbers with a fraction keep their digits: a cost is exact.
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class File(NamedTuple):
    """A file to read.

    Attributes:
        path: where it is.
        name: what stands for it in ids: its own name, or its path inside the folder that was named.
        size_bytes: 0 for standard input.
    """

    path: Path
    name: str
    size_bytes: int


def find(paths: Iterable[Path]) -> list[File]:
    """Return the files that paths stand for: themselves, a folder's, or those a pattern matches; in order of name.

    Raises:
        CommandFailed: there are none, or two would have the same name.
    """
    found: list[File] = []
    for path in paths:
        if path == STANDARD_INPUT:
            found.append(File(path, "standard input", 0))
        elif path.name.startswith("--"):
            raise CommandFailed(f"there is no option {path}; see 'tallybook import --help'")
        elif path.is_dir():
            inside = [each for each in sorted(path.rglob("*")) if each.is_file() and _plain_suffix(each) in _SUFFIXES]
            if not inside:
                raise CommandFailed(f"there is no file to import in {path}; read are {', '.join(_SUFFIXES)}")
            found += (_file(each, each.relative_to(path).as_posix()) for each in inside)
        elif not path.exists() and _PATTERN.intersection(path.as_posix()):
            root, pattern = _split(path)
            matching = [each for each in sorted(root.glob(pattern)) if each.is_file()]
            if not matching:
                raise CommandFailed(f"no file is called like {path}")
            found += (_file(each, each.name) for each in matching)
        else:
            found.append(_file(path, path.name))
    names = [file.name for file in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CommandFailed(
            f"files of the same name, {twice}, would get the same ids; import them one by one, each with --name"
        )
    return found


def _split(path: Path) -> tuple[Path, str]:
    """Return where a pattern begins, and the pattern."""
    parts = path.parts
    first = next(number for number, part in enumerate(parts) if _PATTERN.intersection(part))
    return Path(*parts[:first]), "/".join(parts[first:])


def _file(path: Path, name: str) -> File:
    try:
        return File(path, name, path.stat().st_size)
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error


def is_table(path: Path) -> bool:
    """Return whether a file is a table: its rows have the same columns."""
    return _plain_suffix(path) in (".csv", ".tsv", ".parquet")


def _plain_suffix(path: Path) -> str:
    """Return the end of a file's name that says what is in it, whether it is packed or not."""
    return Path(path.stem if path.suffix in _PACKED else path.name).suffix.lower()


def rows(file: File, columns: Iterable[str], progress: Progress, task: TaskID) -> Iterator[Row]:
    """Yield the rows of a file as they are; CSV and Parquet by its name, else JSON: an array, objects a line, or one.

    Args:
        file: which.
        columns: columns it must have, if it is a table.
        progress: moves as the file is read.
        task: of the progress.

    Raises:
        CommandFailed: it cannot be read, or lacks a column.
    """
    try:
        suffix = _plain_suffix(file.path)
        if suffix == ".parquet":
            yield from _parquet_rows(file, columns)
            progress.advance(task, file.size_bytes)
            return
        with _open(file, progress, task) as stream:
            if suffix in (".csv", ".tsv"):
                yield from _csv_rows(stream, columns, "\t" if suffix == ".tsv" else ",")
                return
            yield from _json_rows(stream)
    except (
        OSError,
        EOFError,
        zstd.ZstdError,
        UnicodeDecodeError,
        csv.Error,
        msgspec.DecodeError,
        pa.ArrowException,
    ) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandFailed(f"cannot read {file.path}: {reason}") from error


@contextmanager
def _open(file: File, progress: Progress, task: TaskID) -> Iterator[BinaryIO]:
    """Yield the unpacked stream of a file; reading it moves the progress."""
    if file.path == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with file.path.open("rb") as plain:
        # Buffered, since each read moves the progress, and a line is too little for that.
        stream: Any = plain
        if file.size_bytes:
            stream = io.BufferedReader(progress.wrap_file(plain, task_id=task), _READ_BYTES)
        if file.path.suffix == ".gz":
            stream = gzip.GzipFile(fileobj=stream)
        elif file.path.suffix == ".zst":
            stream = zstd.ZstdFile(stream)
        yield stream


def _csv_rows(stream: BinaryIO, columns: Iterable[str], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_ROW_BYTES_MAX)
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    table = csv.DictReader(text, restkey="beyond the header", delimiter=delimiter)
    _check_columns(table.fieldnames or (), columns)
    for row in table:
        yield {name: restore(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def _parquet_rows(file: File, columns: Iterable[str]) -> Iterator[Row]:
    if file.path.suffix in _PACKED:
        raise CommandFailed(f"{file.path} is Parquet, which is read from its end: unpack it first")
    with pq.ParquetFile(file.path) as table:
        names = table.schema_arrow.names
        _check_columns(names, columns)
        for batch in table.iter_batches(_BATCH_ROWS):
            yield from pa.record_batch([_readable(column) for column in batch.columns], names=names).to_pylist()


def _readable(column: Any) -> Any:
    """Return a column as Python can hold it: instants in microseconds of UTC, bytes as the text they are."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.timestamp("us"))
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column.cast(pa.large_string())
    return column


def _check_columns(header: Iterable[str], columns: Iterable[str]) -> None:
    """Refuse a file that lacks a column it must have."""
    names = list(header)
    if missing := [column for column in columns if column not in names]:
        raise CommandFailed(f"there is no column {missing[0]!r}; the file has {', '.join(names)}")


def _json_rows(stream: BinaryIO) -> Iterator[Row]:
    first = stream.readline(_ROW_BYTES_MAX).removeprefix(codecs.BOM_UTF8)
    if first.lstrip().startswith(b"["):
        yield from map(_json_row, _ITEMS.decode(first + stream.read()))
        return
    rest = b""
    if isinstance(_json_row(first), bytes):  # perhaps the file is one object, written over many lines
        rest = stream.read(_ROW_BYTES_MAX)
        whole = _json_row(first + rest)
        if isinstance(whole, dict):
            yield whole
            return
        rest += stream.readline(_ROW_BYTES_MAX)
    lines = chain([first], _lines(io.BytesIO(rest)), _lines(stream))
    yield from (_json_row(line) for line in lines if line.strip())


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(_ROW_BYTES_MAX):
        yield line
        while len(line) == _ROW_BYTES_MAX and not line.endswith(b"\n"):
            line = stream.readline(_ROW_BYTES_MAX)


def _json_row(value: bytes | msgspec.Raw) -> Row:
    try:
        return _OBJECT.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError):
        return bytes(value).strip()
