"""``tallybook import``: files to events, over the same path as every other event."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tallybook.cli.formats import FIELDS, FORMATS, add, detect, event, timed
from tallybook.cli.rows import STANDARD_INPUT, File, Row, find, rows
from tallybook.cli.target import Client, Target, connect
from tallybook.cli.terminal import console, plain
from tallybook.cli.unpriced import Grown
from tallybook.clock import now_ms
from tallybook.errors import CommandFailed
from tallybook.event import Record
from tallybook.ingest.decode import decode_one
from tallybook.kinds import KINDS
from tallybook.sources import openai_dashboard
from tallybook.sources.record import Event, FaultyRecord, Options

_EVENTS_AT_ONCE: Final = 5_000
_BYTES_AT_ONCE: Final = 8 * 1024 * 1024
_LINE_BYTES_MAX: Final = 64 * 1024
"""What is longer can be no event, and no server keeps it in quarantine."""
_FAULTS_SHOWN: Final = 10
_SAMPLES: Final = 3
_NO_TIMESTAMP: Final = "it has no timestamp, and would count again each time it is imported; not imported"
_OUTCOMES: Final = ("accepted", "duplicates", "conflicts", "rejected", "ignored")

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

Kind = Annotated[str, Parameter(choices=tuple(KINDS))]
Format = Annotated[str, Parameter(choices=tuple(FORMATS))]


class Line(NamedTuple):
    """An event as it is sent, and where it is from.

    Attributes:
        file: name of the file.
        row: from 1.
        event: as JSON.
    """

    file: str
    row: int
    event: bytes


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
        format: What the rows are: events, OpenAI's or Anthropic's answers or lines of batches, LiteLLM's spend logs or
            callbacks, usage exported by OpenAI's dashboard. Default: told from the first row.
        kind: Usage kind of rows that name none.
        map: FIELD=COLUMN: the field of the event comes from this column. Without --map columns are fields.
        set: FIELD=VALUE: the field has this value in every event that has none.
        name: What stands for the file in ids. Default: the file's name.
        reported_costs: Take what LiteLLM says a call cost.
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
    reader = _Reader(columns, constants, format, Options(takes_costs=reported_costs), is_named=name is not None)
    result = _Result()
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


@dataclass(slots=True)
class _Result:
    """What came of an import.

    Attributes:
        totals: events, and rows that are none, by outcome.
        faults: the first that are wrong, as the operator is told.
        kinds: how many events of each kind were tried out.
        samples: the first of them.
        sent: events so far.
        is_quarantined: whether the server keeps some.
    """

    totals: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    samples: list[bytes] = field(default_factory=list)
    sent: int = 0
    is_quarantined: bool = False
    _since: float = field(default_factory=time.monotonic)

    def refuse(self, file: str, row: int, message: str) -> None:
        """Note a row of which nothing is imported."""
        self.totals["rejected"] += 1
        self.tell(file, row, message)

    def tell(self, file: str, row: int, message: str) -> None:
        """Note what is wrong with a row, if not too many are already."""
        if len(self.faults) < _FAULTS_SHOWN:
            self.faults.append(f"{file} row {row}: {message}")

    def report(self, *, is_tried: bool) -> None:
        """Tell the operator."""
        lasted_s = max(time.monotonic() - self._since, 0.001)
        if is_tried:
            for sample in self.samples:
                console().print(plain(sample.decode()), markup=False, highlight=False, soft_wrap=True)
            _print_table({"would be stored": "", **{name: f"{count:,}" for name, count in self.kinds.items()}})
        _print_table({outcome: f"{self.totals[outcome]:,}" for outcome in _OUTCOMES})
        errors = Console(stderr=True, soft_wrap=True)
        errors.print(f"{self.sent:,} events in {lasted_s:.1f} s, {self.sent / lasted_s:,.0f}/s", highlight=False)
        for fault in self.faults:
            errors.print(plain(fault), markup=False, highlight=False)
        if self.is_quarantined:
            errors.print("Rejected events are in quarantine: see 'tallybook quarantine list'.", highlight=False)


def _print_table(cells: Mapping[str, str]) -> None:
    table = Table(*cells)
    table.add_row(*cells.values())
    console().print(table)


@dataclass(frozen=True, slots=True)
class _Reader:
    """How rows become events.

    Attributes:
        columns: from which column each field comes.
        constants: what events have that do not say otherwise.
        format: what rows are; None to tell from the first.
        options: of sources.
        is_named: whether the operator said what stands for the file in ids.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    format: str | None
    options: Options
    is_named: bool

    def lines(self, file: File, found: Iterator[Row], result: _Result) -> Iterator[Line]:
        """Yield the events of a file that would be recognised if they came again, as they are sent.

        One without an id gets one from the file's name and its row. One without a timestamp would count again each
        time: it is not sent, but told.
        """
        form = self.format
        for number, row in enumerate(found, start=1):
            if isinstance(row, bytes):
                if len(row) > _LINE_BYTES_MAX:
                    result.refuse(
                        file.name, number, f"it is no JSON object, and has more than {_LINE_BYTES_MAX:,} bytes"
                    )
                else:
                    yield Line(file.name, number, row)
                continue
            form = form or ("events" if self.columns else detect(row))
            try:
                events = self._events(form, file, row)
            except FaultyRecord as error:
                result.refuse(file.name, number, f"{error}; not imported")
                continue
            if number == 1 and any("kind" not in each for each in events):
                raise CommandFailed(
                    f"the rows of {file.path} name no kind; say which with --kind, or --map kind=COLUMN"
                )
            result.totals["ignored"] += not events
            yield from self._recognisable(file, number, events, result)

    def _events(self, form: str, file: File, row: dict[str, Any]) -> list[Event]:
        read = FORMATS[form]
        if read is None:
            events = [event(row, self.columns)]
        else:
            if form == "openai":
                row = timed(row, self.constants.get("timestamp"))
            elif form == "openai-dashboard":
                row = {"kind": self.constants.get("kind") or openai_dashboard.kind_of(file.path.name), **row}
            events = read(row, self.options)
        for each in events:
            add(each, self.constants)
        return events

    def _recognisable(self, file: File, number: int, events: list[Event], result: _Result) -> Iterator[Line]:
        if any("timestamp" not in each for each in events):
            result.refuse(file.name, number, _NO_TIMESTAMP)
            return
        for each in events:
            if "id" not in each:
                if file.path == STANDARD_INPUT and not self.is_named:
                    raise CommandFailed("rows of standard input without an id need --name to get one from")
                each["id"] = f"{file.name}:{number}"
            line = _ENCODER.encode(each)
            if len(line) > _LINE_BYTES_MAX:
                reason = f"it makes an event of more than {_LINE_BYTES_MAX:,} bytes; not imported"
                result.refuse(file.name, number, reason)
            else:
                yield Line(file.name, number, line)


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield events together, as many as a request may have; also those before a file that cannot be read."""
    batch: list[Line] = []
    size = 0
    try:
        for line in lines:
            batch.append(line)
            size += len(line.event)
            if size >= _BYTES_AT_ONCE or len(batch) == _EVENTS_AT_ONCE:
                yield batch
                batch, size = [], 0
    except CommandFailed:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


class _Sender:
    """Sends events while the next are read: one request at a time, since of two that conflict the first counts.

    Args:
        server: to which.
        result: where what came of it is noted.
    """

    def __init__(self, server: Client, result: _Result) -> None:
        self._server = server
        self._result = result
        self._under_way: tuple[list[Line], Future[dict[str, Any]]] | None = None

    def take(self, batch: list[Line]) -> None:
        """Send events, once those before are stored."""
        self.settle()
        receipt: Future[dict[str, Any]] = Future()

        def send() -> None:
            try:
                receipt.set_result(self._server.post_events("usage/events", b"\n".join(line.event for line in batch)))
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
        for outcome in _OUTCOMES:
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

    def __init__(self, result: _Result) -> None:
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
