"""``tallybook import``: files to events, over the same path as every other event."""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tallybook.cli.formats import FIELDS, FORMATS
from tallybook.cli.reading import NOTES_SHOWN, OUTCOMES, Line, Reader, Result
from tallybook.cli.rows import find, rows
from tallybook.cli.target import Client, Target, connect
from tallybook.cli.unpriced import Grown
from tallybook.clock import now_ms
from tallybook.errors import CommandFailed
from tallybook.event import Record
from tallybook.ingest.decode import decode_one
from tallybook.kinds import KINDS
from tallybook.sources.record import Options

_EVENTS_AT_ONCE: Final = 5_000
_BYTES_AT_ONCE: Final = 8 * 1024 * 1024
_SAMPLES: Final = 3


Kind = Annotated[str, Parameter(choices=tuple(KINDS))]
Format = Annotated[str, Parameter(choices=tuple(FORMATS))]


def import_(
    files: Annotated[list[Path], Parameter(allow_leading_hyphen=True)],  # - is standard input
    /,
    *,
    format: Format | None = None,  # noqa: A002  the flag's name
    kind: Kind | None = None,
    map: Annotated[list[str] | None, Parameter(negative="")] = None,  # noqa: A002  the flag's name
    set: Annotated[list[str] | None, Parameter(negative="")] = None,  # noqa: A002  the flag's name
    name: str | None = None,
    reported_costs: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    target: Annotated[Target, Parameter(name="*")] = Target(),  # noqa: B008  frozen
) -> None:
    """Import events, or records of other software, from NDJSON, JSON, CSV or Parquet, plain, .gz or .zst.

    A row needs a timestamp; without an id it gets one from the file's name and its row. So importing a file again, or
    after it has grown, or after it was broken off, stores nothing twice. A time without an offset is UTC, a cost
    without a currency US dollars. The exit code is 1 if anything was refused.

    Example: tallybook import events.ndjson.gz

    Example: tallybook import trace.csv --kind completions --map timestamp=TIMESTAMP --map input_tokens=ContextTokens

    Example: tallybook import batch_output.jsonl --set project_id=search --dry-run

    Args:
        files: Files, folders, patterns in quotes; - for standard input.
        format: What the rows are: events, answers of a provider or lines of its batches, sessions of coding agents,
            LiteLLM's spend logs or callbacks, usage exported by OpenAI's dashboard; response recognises the answers of
            each row by itself. Default: recognised by the first row.
        kind: Usage kind of rows that name none.
        map: FIELD=COLUMN: the field of the event comes from this column. Without --map columns are fields.
        set: FIELD=VALUE: the field has this value in every event that has none.
        name: What stands for the file in ids. Default: the file's name.
        reported_costs: Take what LiteLLM or Claude Code says a call cost.
        dry_run: Read and check everything, show the first events, store nothing.
    """
    columns, constants = _pairs("--map", map or []), _pairs("--set", set or [])
    if kind:
        constants["kind"] = kind
    found = find(files)
    if name:
        if len(found) > 1:
            raise CommandFailed(f"--name stands for one file, and there are {len(found)}")
        found = [found[0]._replace(name=name)]
    reader = Reader(columns, constants, format, Options(takes_costs=reported_costs), is_named=name is not None)
    result = Result()
    client = nullcontext() if dry_run else connect(target, may_found=True)
    try:
        with client as server, _progress() as progress:
            task = progress.add_task("", total=sum(file.size_bytes for file in found) or None, events=0)
            grown = Grown(server) if server else None

            def lines() -> Iterator[Line]:
                for file in found:
                    progress.update(task, description=file.name, events=result.sent)
                    yield from reader.lines(file, rows(file, columns.values(), progress, task), result)

            taker = _Sender(server, result) if server else _Trial(result)
            try:
                for batch in batches(lines()):
                    taker.take(batch)
                    progress.update(task, events=result.sent)
            finally:
                if not isinstance(sys.exception(), KeyboardInterrupt):  # who breaks it off does not wait
                    taker.settle()
            progress.update(task, events=result.sent)
            if grown:
                grown.tell()
    except KeyboardInterrupt:
        Console(stderr=True).print("Broken off. Import it again: what is stored is recognised.", highlight=False)
        raise
    finally:
        if unread := reader.options.unread:
            names = ", ".join(f"{name} ({count:,})" for name, count in unread.most_common(NOTES_SHOWN))
            result.note(f"Fields of usage that are not read: {names}")
        result.report(is_tried=dry_run)
    if result.totals["conflicts"] or result.totals["rejected"]:
        sys.exit(1)


def _pairs(flag: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in FIELDS:
            raise CommandFailed(f"{flag} {text!r}: write FIELD=... with one of {', '.join(FIELDS)}")
        pairs[name] = value
    return pairs


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield events together, as many as a request may have; also those before a file that cannot be read.

    Calls and other events do not share a request, since they are sent to different addresses.
    """
    batch: list[Line] = []
    size = 0
    are_calls: bool | None = None
    try:
        for line in lines:
            if batch and None not in (line.is_call, are_calls) and line.is_call != are_calls:
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line.event)
            are_calls = are_calls if line.is_call is None else line.is_call
            if size >= _BYTES_AT_ONCE or len(batch) == _EVENTS_AT_ONCE:
                yield batch
                batch, size = [], 0
    except CommandFailed:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _are_calls(batch: list[Line]) -> bool | None:
    """Return whether events are calls; None if there are none."""
    return next((line.is_call for line in batch if line.is_call is not None), None)


class _Sender:
    """Sends events while the next are read: one request at a time, since of two that conflict the first counts.

    Args:
        server: to which.
        result: where what came of it is noted.
    """

    def __init__(self, server: Client, result: Result) -> None:
        self._server = server
        self._result = result
        self._under_way: tuple[list[Line], Future[dict[str, Any]]] | None = None

    def take(self, batch: list[Line]) -> None:
        """Send events, once those before are stored."""
        self.settle()
        receipt: Future[dict[str, Any]] = Future()
        address = "usage/events/calls" if _are_calls(batch) else "usage/events"

        def send() -> None:
            try:
                receipt.set_result(self._server.post_events(address, b"\n".join(line.event for line in batch)))
            except Exception as error:
                receipt.set_exception(error)

        Thread(target=send, daemon=True).start()
        self._under_way = batch, receipt

    def settle(self) -> None:
        """Wait for what is under way, and note what came of it."""
        if self._under_way is None:
            return
        (batch, answer), self._under_way = self._under_way, None
        receipt = answer.result()
        for outcome in OUTCOMES:
            self._result.totals[outcome] += receipt[outcome]
        self._result.sent += len(batch)
        self._result.is_quarantined |= receipt["rejected"] > 0
        for fault in receipt["faults"]:
            line = batch[fault["index"]]
            self._result.tell(line.file, line.row, fault["message"])


class _Trial:
    """Checks events as the server would, but for what it has stored.

    Args:
        result: where what would come of it is noted.
    """

    def __init__(self, result: Result) -> None:
        self._result = result

    def take(self, batch: list[Line]) -> None:
        """Check events."""
        now = now_ms()
        for line in batch:
            found = decode_one(line.event, now)
            if isinstance(found, Record):
                self._result.kinds[found.kind.name] += 1
            else:
                self._result.refuse(line.file, line.row, found[0].message)
            if len(self._result.samples) < _SAMPLES:
                self._result.samples.append(line.event)
        self._result.sent += len(batch)

    def settle(self) -> None:
        """Nothing is under way."""


class _Rate(ProgressColumn):
    """Events a second, over all the time so far."""

    def render(self, task: Task) -> Text:
        """Return the column."""
        return Text(f"{task.fields['events'] / max(task.elapsed or 0, 0.001):,.0f} events/s")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
