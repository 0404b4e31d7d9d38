"""``tallybook import``: files to events, over the same path as every other event."""

import csv
import gzip
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.table import Table

from tallybook.cli.target import Target, connect
from tallybook.cli.terminal import console, plain
from tallybook.errors import CommandFailed
from tallybook.export.formulas import restore
from tallybook.ingest.zstandard import zstd
from tallybook.kinds import DIMENSIONS, KINDS, MEASURES

_ROWS_AT_ONCE: Final = 5_000
_FAULTS_SHOWN: Final = 10
_NO_TIMESTAMP: Final = "it has no timestamp, and would count again each time it is imported; not imported"
_FIELDS: Final = ("kind", "id", "timestamp", *DIMENSIONS, *MEASURES, "cost")
_OUTCOMES: Final = ("accepted", "duplicates", "conflicts", "rejected")

Row = dict[str, Any] | bytes
"""An object, or a line that is none: the server puts it into quarantine, so that nothing of a file is lost."""

# Numbers with a fraction keep their digits: a cost is exact.
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_OBJECTS: Final = msgspec.json.Decoder(list[dict[str, Any]], float_hook=Decimal)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

Kind = Annotated[str, Parameter(choices=tuple(KINDS))]


def import_(
    files: list[Path],
    /,
    *,
    kind: Kind | None = None,
    map: Annotated[list[str] | None, Parameter(negative="")] = None,  # noqa: A002  the flag's name
    set: Annotated[list[str] | None, Parameter(negative="")] = None,  # noqa: A002  the flag's name
    name: str | None = None,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Import events from NDJSON, JSON or CSV files, plain, .gz or .zst, or from Parquet files.

    A row needs a timestamp; without an id it gets one from the file's name and its row. So importing a file again, or
    after it has grown, stores nothing twice. A time without an offset is UTC, a cost without a currency US dollars.
    The exit code is 1 if anything was refused.

    Example: tallybook import events.ndjson.gz

    Example: tallybook import trace.csv --kind completions --map timestamp=TIMESTAMP --map input_tokens=ContextTokens

    Args:
        files: Files to import.
        kind: Usage kind of rows that name none.
        map: FIELD=COLUMN: the field of the event comes from this column. Without --map columns are fields.
        set: FIELD=VALUE: the field has this value in every row that has none.
        name: What stands for the file in ids. Default: the file's name.
    """
    columns, constants = _pairs("--map", map or []), _pairs("--set", set or [])
    if kind:
        constants["kind"] = kind
    names = [name or path.name for path in files]
    if len(frozenset(names)) < len(names):
        raise CommandFailed("files of the same name would get the same ids; import them one by one, each with --name")
    totals = dict.fromkeys(_OUTCOMES, 0)
    faults: list[tuple[Path, int, str]] = []
    try:
        with connect(target, may_found=True) as client, _progress() as progress:
            for path, file_name in zip(files, names, strict=True):
                with _open(path, progress) as stream:
                    events = (_event(row, columns, constants) for row in _rows(path, stream, columns))
                    for rows, lines in _batches(_recognisable(events, path, file_name, faults)):
                        receipt = client.post_events("usage/events", b"\n".join(lines))
                        for outcome in _OUTCOMES:
                            totals[outcome] += receipt[outcome]
                        faults += ((path, rows[fault["index"]], fault["message"]) for fault in receipt["faults"])
    finally:
        totals["rejected"] += sum(message == _NO_TIMESTAMP for _, _, message in faults)
        _report(totals, faults)
    if totals["conflicts"] or totals["rejected"]:
        sys.exit(1)


def _pairs(flag: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or field not in _FIELDS:
            raise CommandFailed(f"{flag} {text!r}: write FIELD=... with one of {', '.join(_FIELDS)}")
        pairs[field] = value
    return pairs


@contextmanager
def _open(path: Path, progress: Progress) -> Iterator[BinaryIO]:
    """Yield the unpacked stream of a file; reading it moves the progress."""
    try:
        file = progress.open(path, "rb", description=path.name)
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    with file:
        stream: Any = file
        if path.suffix == ".gz":
            stream = gzip.GzipFile(fileobj=file)
        elif path.suffix == ".zst":
            stream = zstd.ZstdFile(file)
        yield stream


def _rows(path: Path, stream: BinaryIO, columns: dict[str, str]) -> Iterator[Row]:
    """Yield the rows of a file as they are; CSV and Parquet by its name, else a JSON array or one object a line."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    try:
        if name.lower().endswith(".parquet"):
            if name != path.name:
                raise CommandFailed(f"{path} is Parquet, which is read from its end: unpack it first")
            yield from _parquet_rows(stream, columns)
            return
        if name.lower().endswith(".csv"):
            yield from _csv_rows(stream, columns)
            return
        first = stream.readline()
        if first.lstrip().startswith(b"["):
            yield from _OBJECTS.decode(first + stream.read())
            return
        yield from (_json_row(line) for line in chain([first], stream) if line.strip())
    except (
        OSError,
        EOFError,
        zstd.ZstdError,
        UnicodeDecodeError,
        csv.Error,
        msgspec.DecodeError,
        pa.ArrowException,
    ) as error:
        raise CommandFailed(f"cannot read {path}: {error}") from error


def _csv_rows(stream: BinaryIO, columns: dict[str, str]) -> Iterator[Row]:
    table = csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline=""), restkey="beyond the header")
    _check_columns(table.fieldnames or (), columns)
    for row in table:
        yield {name: restore(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def _parquet_rows(stream: BinaryIO, columns: dict[str, str]) -> Iterator[Row]:
    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    _check_columns(names, columns)
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        yield from pa.record_batch([_readable(column) for column in batch.columns], names=names).to_pylist()


def _readable(column: Any) -> Any:
    """Return a column as Python can hold it: instants in microseconds of UTC, bytes as the text they are."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.timestamp("us"))
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column.cast(pa.large_string())
    return column


def _check_columns(header: Iterable[str], columns: dict[str, str]) -> None:
    """Refuse a file that lacks a column of --map."""
    names = list(header)
    if missing := [column for column in columns.values() if column not in names]:
        raise CommandFailed(f"there is no column {missing[0]!r}; the file has {', '.join(names)}")


def _json_row(line: bytes) -> Row:
    try:
        return _OBJECT.decode(line)
    except msgspec.DecodeError:
        return line.strip()


def _event(row: Row, columns: dict[str, str], constants: dict[str, str]) -> Row:
    """Return the event a row stands for; what is wrong with it is for the server to say."""
    if isinstance(row, bytes):
        return row
    if columns:
        row = {field: row[column] for field, column in columns.items() if column in row}
    event = {field: _value(field, value) for field, value in row.items() if not _is_absent(value)}
    for field, value in constants.items():
        event.setdefault(field, _value(field, value))
    return event


def _is_absent(value: Any) -> bool:
    """Whether a cell is empty; tables that have no other word for it write "not a number"."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _value(field: str, value: Any) -> Any:
    """Return a cell as the type the event's field has; what cannot be read is passed on as it is, to be refused."""
    if field == "cost":
        return _cost(value)
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        return _read(field, value)
    if isinstance(value, float) and value.is_integer() and field in MEASURES:
        return int(value)  # tables without nullable integers hold counts as floats
    return value


def _read(field: str, value: str) -> Any:
    if field == "batch":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    if field == "timestamp":
        return _timestamp(value)
    if field in MEASURES:
        try:
            return float(value) if field == "seconds" else int(value)
        except ValueError:
            return value
    return value


def _cost(value: Any) -> Any:
    """Return the producer's own figure as events have it; a bare number is US dollars, to its last digit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return value
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return value
    return {"value": amount, "currency": "usd"} if amount.is_finite() else str(value)


def _timestamp(value: str) -> Any:
    try:
        return json.loads(value) if value.replace(".", "", 1).isdecimal() else _rfc3339(value)
    except ValueError:
        return value


def _rfc3339(value: str) -> str:
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _recognisable(
    events: Iterator[Row], path: Path, name: str, faults: list[tuple[Path, int, str]]
) -> Iterator[tuple[int, bytes]]:
    """Yield events that would be recognised if they came again, as lines with their row, from 1.

    An event without an id gets one from the file's name and its row. One without a timestamp would count again each
    time: it is not sent, but told.
    """
    for row, event in enumerate(events, start=1):
        if isinstance(event, bytes):
            yield row, event
            continue
        if row == 1 and "kind" not in event:
            raise CommandFailed(f"the rows of {path} name no kind; say which with --kind, or --map kind=COLUMN")
        if "timestamp" not in event:
            faults.append((path, row, _NO_TIMESTAMP))
            continue
        event.setdefault("id", f"{name}:{row}")
        yield row, _ENCODER.encode(event)


def _batches(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield so many lines at once, and the row of each."""
    while batch := list(islice(lines, _ROWS_AT_ONCE)):
        yield [row for row, _ in batch], [line for _, line in batch]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _report(totals: dict[str, int], faults: list[tuple[Path, int, str]]) -> None:
    table = Table(*_OUTCOMES)
    table.add_row(*(f"{totals[outcome]:,}" for outcome in _OUTCOMES))
    console().print(table)
    errors = Console(stderr=True, soft_wrap=True)
    for path, row, message in faults[:_FAULTS_SHOWN]:
        errors.print(plain(f"{path.name} row {row}: {message}"), markup=False, highlight=False)
    if any(message != _NO_TIMESTAMP for _, _, message in faults):
        errors.print("Rejected events are in quarantine: see 'tallybook quarantine list'.", highlight=False)
