"""What becomes of files as they are imported: their rows made events, each with an identity, and a summary."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from tallybook.cli.formats import FORMATS, Form, Read, add, detect, event, timed
from tallybook.cli.rows import STANDARD_INPUT, File, Row, is_table
from tallybook.cli.terminal import console, plain
from tallybook.errors import CommandFailed
from tallybook.kinds import MEASURES
from tallybook.sources import openai_dashboard
from tallybook.sources.record import Event, FaultyRecord, Options

_LINE_BYTES_MAX: Final = 64 * 1024
"""What is longer can be no event, and no server keeps it in quarantine."""
_FAULTS_SHOWN: Final = 10
NOTES_SHOWN: Final = 10
_HELD_MAX: Final = 1_000
"""Calls held back since a later row may have more of them: those rows follow one another closely."""
_NO_TIMESTAMP: Final = "it has no timestamp, and would count again each time it is imported; not imported"
OUTCOMES: Final = ("accepted", "duplicates", "conflicts", "rejected", "ignored")
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class Line(NamedTuple):
    """An event as it is sent, and where it is from.

    Attributes:
        file: name of the file.
        row: from 1.
        event: as JSON.
        is_call: its id is that of a provider's response. None of what is not even an event.
    """

    file: str
    row: int
    event: bytes
    is_call: bool | None = None


@dataclass(slots=True)
class Result:
    """What came of an import.

    Attributes:
        totals: events, and rows that are none, by outcome.
        faults: the first that are wrong, as reported to the operator.
        notes: what was left out although nothing is wrong, as reported to the operator.
        kinds: how many events of each kind were tried out.
        samples: the first of them.
        sent: events so far.
        is_quarantined: whether the server keeps some.
    """

    totals: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
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

    def note(self, text: str) -> None:
        """Note what the operator should know, if there is not too much of it already."""
        if len(self.notes) < NOTES_SHOWN:
            self.notes.append(text)

    def report(self, *, is_tried: bool) -> None:
        """Tell the operator."""
        lasted_s = max(time.monotonic() - self._since, 0.001)
        if is_tried:
            for sample in self.samples:
                console().print(plain(sample.decode()), markup=False, highlight=False, soft_wrap=True)
            _print_table({"would be stored": "", **{name: f"{count:,}" for name, count in self.kinds.items()}})
        _print_table({outcome: f"{self.totals[outcome]:,}" for outcome in OUTCOMES})
        errors = Console(stderr=True, soft_wrap=True)
        errors.print(f"{self.sent:,} events in {lasted_s:.1f} s, {self.sent / lasted_s:,.0f}/s", highlight=False)
        for fault in (*self.notes, *self.faults):
            errors.print(plain(fault), markup=False, highlight=False)
        if self.is_quarantined:
            errors.print("Rejected events are in quarantine: see 'tallybook quarantine list'.", highlight=False)


def _print_table(cells: Mapping[str, str]) -> None:
    table = Table(*cells)
    table.add_row(*cells.values())
    console().print(table)


@dataclass(frozen=True, slots=True)
class Reader:
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

    def lines(self, file: File, found: Iterator[Row], result: Result) -> Iterator[Line]:
        """Yield the events of a file that would be recognised if they came again, as they are sent.

        One without an id gets one from the file's name and its row. One without a timestamp would count again each
        time: it is not sent, but told.
        """
        reading: _Reading | None = None
        for number, row in enumerate(found, start=1):
            if isinstance(row, bytes):
                if len(row) > _LINE_BYTES_MAX:
                    result.refuse(
                        file.name, number, f"it is no JSON object, and has more than {_LINE_BYTES_MAX:,} bytes"
                    )
                else:
                    yield Line(file.name, number, row)
                continue
            if reading is None:
                reading = self._begin(file, row, result)
            try:
                events = self._events(reading, file, row)
            except FaultyRecord as error:
                result.refuse(file.name, number, f"{error}; not imported")
                continue
            if number == 1 and any("kind" not in each for each in events):
                raise CommandFailed(
                    f"the rows of {file.path} name no kind; say which with --kind, or --map kind=COLUMN"
                )
            result.totals["ignored"] += not events
            if any("timestamp" not in each for each in events):
                result.refuse(file.name, number, _NO_TIMESTAMP)
                continue
            for held_number, each in reading.ready(number, events):
                yield from self._line(reading, file, held_number, each, result)
        if reading is not None:
            for held_number, each in reading.rest():
                yield from self._line(reading, file, held_number, each, result)

    def _begin(self, file: File, row: dict[str, Any], result: Result) -> "_Reading":
        """Return how a file is read, by its first row; note the columns of a table that nothing reads."""
        name = self.format or ("events" if self.columns else detect(row))
        form = FORMATS[name]
        known = self.columns.values() if self.columns else form.columns
        if known is not None and is_table(file.path) and (unknown := [column for column in row if column not in known]):
            result.note(f"{file.name}: columns that are not read: {', '.join(unknown)}")
        return _Reading(name, form, form.reader() if form.reader else None)

    def _events(self, reading: "_Reading", file: File, row: dict[str, Any]) -> list[Event]:
        if reading.read is None:
            events = [event(row, self.columns)]
        else:
            if reading.name == "openai":
                row = timed(row, self.constants.get("timestamp"))
            elif reading.name == "openai-dashboard":
                row = {"kind": self.constants.get("kind") or openai_dashboard.kind_of(file.path.name), **row}
            events = reading.read(row, self.options)
        for each in events:
            add(each, self.constants)
        return events

    def _line(self, reading: "_Reading", file: File, number: int, found: Event, result: Result) -> Iterator[Line]:
        is_call = reading.form.reports_calls and "id" in found
        if "id" not in found:
            if file.path == STANDARD_INPUT and not self.is_named:
                raise CommandFailed("rows of standard input without an id need --name to get one from")
            found["id"] = f"{file.name}:{number}"
        line = _ENCODER.encode(found)
        if len(line) > _LINE_BYTES_MAX:
            reason = f"it makes an event of more than {_LINE_BYTES_MAX:,} bytes; not imported"
            result.refuse(file.name, number, reason)
        else:
            yield Line(file.name, number, line, is_call)


@dataclass(slots=True)
class _Reading:
    """One file being read, with what of its earlier rows matters to the later ones.

    Attributes:
        name: of its format.
        form: its format.
        read: makes events of a row; None if rows are events.
    """

    name: str
    form: Form
    read: Read | None
    _groups: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    _held: dict[tuple[Any, ...], tuple[int, Event]] = field(default_factory=dict)

    def ready(self, number: int, events: list[Event]) -> Iterator[tuple[int, Event]]:
        """Yield events, with the rows they are from, that no later row of the file can add to."""
        for each in events:
            key = (each.get("kind"), each.get("id"))
            if self.form.groups:
                yield number, self._placed(each)
            elif not self.form.repeats or key[1] is None:
                yield number, each
            elif key not in self._held or _size(each) > _size(self._held[key][1]):
                self._held[key] = number, each
        while len(self._held) > _HELD_MAX:
            yield self._held.pop(next(iter(self._held)))

    def rest(self) -> Iterator[tuple[int, Event]]:
        """Yield what was held back, at the end of the file."""
        yield from self._held.values()

    def _placed(self, found: Event) -> Event:
        """Return the event of a row with an id of its own: its group's, and its place among the rows of that group."""
        key = (found["id"], found["timestamp"])
        self._groups[key] += 1
        place = self._groups[key]
        return found if place == 1 else found | {"id": f"{found['id']}-{place}"}


def _size(found: Event) -> float:
    """Return how much an event says was used: of two reports of one call, the one with more is the final one."""
    return sum(float(found[name]) for name in MEASURES if isinstance(found.get(name), int | float | Decimal))
