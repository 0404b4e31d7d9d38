"""``tallybook import``: files to events, over the same path as every other event."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import zstandard
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.table import Table

from tallybook.cli.target import Target, connect
from tallybook.errors import CommandFailed
from tallybook.kinds import DIMENSIONS, KINDS, MEASURES

_ROWS_AT_ONCE: Final = 5_000
_FAULTS_SHOWN: Final = 10
_FIELDS: Final = ("kind", "id", "timestamp", *DIMENSIONS, *MEASURES)
_OUTCOMES: Final = ("accepted", "duplicates", "conflicts", "rejected")

Row = dict[str, Any] | bytes
"""An object, or a line that is none: the server puts it into quarantine, so that nothing of a file is lost."""

Kind = Annotated[str, Parameter(choices=tuple(KINDS))]


def import_(
    files: list[Path],
    /,
    *,
    kind: Kind | None = None,
    map: Annotated[list[str] | None, Parameter(negative="")] = None,  # noqa: A002  the flag's name
    set: Annotated[list[str] | None, Parameter(negative="")] = None,  # noqa: A002  the flag's name
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Import events from NDJSON, JSON or CSV files, plain, .gz or .zst.

    A row without an id gets one from the file's name and its row, so that importing a file again, or after it has
    grown, stores nothing twice. A time without an offset is UTC. The exit code is 1 if anything was refused.

    Example: tallybook import events.ndjson.gz

    Example: tallybook import trace.csv --kind completions --map timestamp=TIMESTAMP --map input_tokens=ContextTokens

    Args:
        files: Files to import.
        kind: Usage kind of rows that name none.
        map: FIELD=COLUMN: the field of the event comes from this column. Without --map columns are fields.
        set: FIELD=VALUE: the field has this value in every row that has none.
    """
    columns, constants = _pairs("--map", map or []), _pairs("--set", set or [])
    if kind:
        constants["kind"] = kind
    totals = dict.fromkeys(_OUTCOMES, 0)
    faults: list[tuple[Path, dict[str, Any]]] = []
    with connect(target) as client, _progress() as progress:
        for path in files:
            with _open(path, progress) as stream:
                events = (_event(row, columns, constants) for row in _rows(path, stream))
                for first, batch in _numbered_batches(_of_a_kind(events, path), path.name):
                    receipt = client.post_events("usage/events", b"\n".join(batch))
                    for outcome in _OUTCOMES:
                        totals[outcome] += receipt[outcome]
                    faults += ((path, fault | {"row": first + fault["index"]}) for fault in receipt["faults"])
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
            stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
        yield stream


def _rows(path: Path, stream: BinaryIO) -> Iterator[Row]:
    """Yield the rows of a file as they are; CSV by its name, otherwise a JSON array or one object a line."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    try:
        if name.lower().endswith(".csv"):
            yield from csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline=""))
            return
        first = stream.readline()
        if first.lstrip().startswith(b"["):
            yield from msgspec.json.decode(first + stream.read(), type=list[dict[str, Any]])
            return
        yield from (_json_row(line) for line in chain([first], stream) if line.strip())
    except (
        OSError,
        EOFError,
        zstandard.ZstdError,
        UnicodeDecodeError,
        csv.Error,
        msgspec.DecodeError,
    ) as error:
        raise CommandFailed(f"cannot read {path}: {error}") from error


def _json_row(line: bytes) -> Row:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return line.strip()


def _event(row: Row, columns: dict[str, str], constants: dict[str, str]) -> Row:
    """Return the event a row stands for; what is wrong with it is for the server to say."""
    if isinstance(row, bytes):
        return row
    if columns:
        missing = [column for column in columns.values() if column not in row]
        if missing:
            raise CommandFailed(f"there is no column {missing[0]!r}; the file has {', '.join(map(str, row))}")
        row = {field: row[column] for field, column in columns.items()}
    event = {field: _value(field, value) for field, value in row.items() if value not in ("", None)}
    for field, value in constants.items():
        event.setdefault(field, _value(field, value))
    return event


def _value(field: str, value: Any) -> Any:
    """Return a field's text as the type the event has; what cannot be read is passed on as it is, to be refused."""
    if not isinstance(value, str):
        return value
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


def _timestamp(value: str) -> Any:
    try:
        return json.loads(value) if value.replace(".", "", 1).isdecimal() else _rfc3339(value)
    except ValueError:
        return value


def _rfc3339(value: str) -> str:
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _of_a_kind(events: Iterator[Row], path: Path) -> Iterator[Row]:
    """Yield the events; a file whose very first names no kind is not one of events as it is."""
    for row, event in enumerate(events):
        if row == 0 and isinstance(event, dict) and "kind" not in event:
            raise CommandFailed(f"the rows of {path} name no kind; say which with --kind, or --map kind=COLUMN")
        yield event


def _numbered_batches(events: Iterator[Row], name: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield batches of lines with the row of their first, from 1; an event without an id gets one."""
    first = 1
    while batch := list(islice(events, _ROWS_AT_ONCE)):
        lines = []
        for row, event in enumerate(batch, start=first):
            if isinstance(event, dict):
                event.setdefault("id", f"{name}:{row}")
                lines.append(msgspec.json.encode(event))
            else:
                lines.append(event)
        yield first, lines
        first += len(batch)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _report(totals: dict[str, int], faults: list[tuple[Path, dict[str, Any]]]) -> None:
    table = Table(*_OUTCOMES)
    table.add_row(*(f"{totals[outcome]:,}" for outcome in _OUTCOMES))
    Console().print(table)
    errors = Console(stderr=True, soft_wrap=True)
    for path, fault in faults[:_FAULTS_SHOWN]:
        errors.print(f"{path.name} row {fault['row']}: {fault['message']}", markup=False, highlight=False)
    if totals["rejected"]:
        errors.print("Rejected events are in quarantine: see 'tallybook quarantine list'.", highlight=False)
