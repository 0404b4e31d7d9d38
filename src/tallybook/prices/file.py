"""Price files: dated prices, one a line, in CSV. The built-in file and the operator's have the same format.

A file is taken whole or refused whole: every fault names its line, the value and what would be right.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Final, NamedTuple

from tallybook.errors import CommandFailed
from tallybook.event import nearest
from tallybook.kinds import DIMENSIONS, KINDS
from tallybook.money import CURRENCY, SCALE
from tallybook.parts import PARTS
from tallybook.prices.hours import Hours, first_common_ms, read_hours
from tallybook.rate import UNITS, Price

COLUMNS: Final = (
    "provider",
    "model",
    "kind",
    "counted",
    "service_tier",
    "batch",
    "above_input_tokens",
    "size",
    "quality",
    "context_level",
    "inference_geo",
    "hours",
    "weekdays",
    "timezone",
    "unit",
    "price",
    "currency",
    "free",
    "factor",
    "like",
    "from",
    "until",
    "source",
    "checked",
)
ROWS_MAX: Final = 100_000
_FAULTS_MAX: Final = 100
_PRICE_MAX: Final = Decimal(10_000)
"""The highest price for one unit: beyond it the largest event would cost more than can be added up exactly."""
_FREE_MAX: Final = 2**32
_DECIMAL: Final = re.compile(r"\d{1,12}(\.\d{1,18})?", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,15}", re.ASCII)
STANDARD_TIERS: Final = frozenset({"", "auto", "default", "standard"})
"""What responses call the tier whose prices are listed first."""
STANDARD_GEOS: Final = frozenset({"", "default", "global", "not_available"})
"""What responses say where nothing was asked for: the model may have run anywhere."""
SUBSCRIPTION: Final = "subscription"
"""The tier of usage that a subscription covers: it is not billed by what was used."""
_SEARCHES: Final = {"file_search_calls": "file_searches", "web_search_calls": "web_searches"}
_MODEL_FREE: Final = ("vector_stores", "code_interpreter_sessions", "file_search_calls", "web_search_calls")
"""Kinds whose price may hold whatever the model."""
_ROUNDED: Final = ("seconds", "storage")
"""Parts whose price for one of what is measured need not be a finite decimal."""
_BOOLEANS: Final = {"": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line of a price file says of one model and usage kind.

    Attributes:
        line: its number in the file, from 1.
        provider: whose price it is; for a factor, whose prices it multiplies; empty for any.
        model: name in lower case; ``*`` at the end stands for the rest. Empty: any model, or none.
        kind: the usage kind it holds for.
        counted: the part it is for; empty for all, where it refers to other prices.
        conditions: dimension to the value it must have; a standard tier is ``default``.
        above: only requests with more input tokens than this; -1 for all.
        price: US dollars for one `unit`; None if the line refers to other prices.
        unit: what the price is for.
        free: GiB that every organization has for nothing.
        factor: multiplies other prices.
        like: the model whose prices hold.
        since_ms: first instant, Unix milliseconds; None: always.
        until_ms: end, exclusive; None: open.
        source: where the price stands.
        checked: when somebody looked.
        hours: the hours of the week it is for; None: all.
    """

    line: int
    provider: str
    model: str
    kind: str
    counted: str
    conditions: Mapping[str, str | bool]
    above: int
    price: Decimal | None
    unit: str
    free: Decimal
    factor: Decimal | None
    like: str | None
    since_ms: int | None
    until_ms: int | None
    source: str
    checked: str
    hours: Hours | None = None

    def likeness(self, model: str | None) -> int:
        """Return how well the line fits a model: 0 not at all, 1 if it fits any, more the closer it names it."""
        if not self.model:
            return 1
        if not model:
            return 0
        name = model.lower()
        if self.model.endswith("*"):
            return 2 * len(self.model) - 1 if name.startswith(self.model[:-1]) else 0
        return 2 * len(self.model) + 2 if name == self.model else 0

    def holds(self, dimensions: Mapping[str, str | bool | None]) -> bool:
        """Whether an event with these dimensions satisfies its conditions."""
        return all(_same(name, dimensions.get(name), value) for name, value in self.conditions.items())

    def is_in_force(self, instant_ms: int) -> bool:
        """Whether an instant lies between its dates, and within its hours."""
        return (
            (self.since_ms is None or self.since_ms <= instant_ms)
            and (self.until_ms is None or instant_ms < self.until_ms)
            and (self.hours is None or self.hours.holds(instant_ms))
        )

    def as_price(self) -> Price:
        """Return the price of a line that has one."""
        assert self.price is not None
        return Price(
            self.counted,
            self.price,
            self.unit,
            self.provider or None,
            self.free,
            source=self.source,
            checked=self.checked or None,
            since_ms=self.since_ms,
            until_ms=self.until_ms,
        )


def _same(name: str, value: str | bool | None, wanted: str | bool) -> bool:
    if isinstance(wanted, bool):
        return bool(value) is wanted
    return _STANDARD[name](value) == wanted if wanted == "default" else value == wanted


def counted_as(part: str) -> str:
    """Return what a line of a price file says it counts, for a part."""
    return "searches" if part in _SEARCHES.values() else part


def standard_tier(tier: object) -> object:
    """Return a service tier with one name for the standard one."""
    return "default" if (tier or "") in STANDARD_TIERS else tier


def standard_geo(geo: object) -> object:
    """Return where a model ran with one name for anywhere."""
    return "default" if (geo or "") in STANDARD_GEOS else geo


_STANDARD: Final = {"service_tier": standard_tier, "inference_geo": standard_geo}


class PriceFault(NamedTuple):
    """What is wrong with a price file: where, the value, and what would be right."""

    line: int
    column: str | None
    value: str | None
    message: str

    def __str__(self) -> str:
        column = f", {self.column}" if self.column else ""
        return f"line {self.line}{column}: {self.message}"


class FaultyPrices(CommandFailed):
    """A price file that cannot be used, with everything that is wrong with it."""

    def __init__(self, name: str, faults: list[PriceFault]) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{name} is refused: {faults[0]}{more}")
        self.faults = faults


class _Wrong(ValueError):
    """A cell that is no good."""

    def __init__(self, column: str, value: str, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.value = value


def read(text: str, name: str) -> list[Entry]:
    """Return the entries of a price file, in the order of its lines.

    Args:
        text: its content.
        name: what to call it in errors.

    Raises:
        FaultyPrices: it has a fault.
    """
    faults: list[PriceFault] = []
    entries: list[Entry] = []
    for line, row in _rows(text, faults):
        try:
            entries += _entries(line, row)
        except _Wrong as wrong:
            faults.append(PriceFault(line, wrong.column, wrong.value, str(wrong)))
        if len(faults) >= _FAULTS_MAX:
            break
    if not faults:
        entries = _dated(entries, faults)
        _check_hours(entries, faults)
        _check_thresholds(entries, faults)
    if faults:
        raise FaultyPrices(name, sorted(faults)[:_FAULTS_MAX])
    return entries


def _rows(text: str, faults: list[PriceFault]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows with their line; empty lines and those that begin with ``#`` are comments."""
    lines = [
        (number, line)
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        faults.append(
            PriceFault(1, None, None, "there is no header; begin with a line such as model,counted,unit,price")
        )
        return
    if len(lines) > ROWS_MAX:
        faults.append(
            PriceFault(lines[ROWS_MAX][0], None, None, f"more than {ROWS_MAX} lines; remove what is not used")
        )
        return
    # A row is a line: what is quoted may hold a comma, but no line break.
    try:
        header = _cells(lines[0][1])
    except csv.Error as error:
        faults.append(PriceFault(lines[0][0], None, lines[0][1][:64], f"the header is no CSV: {error}"))
        return
    for column in header:
        if column not in COLUMNS:
            message = f"unknown column {column!r}{nearest(column, COLUMNS)}; columns are {', '.join(COLUMNS)}"
            faults.append(PriceFault(lines[0][0], column, column, message))
        elif header.count(column) > 1:
            faults.append(PriceFault(lines[0][0], column, column, f"column {column} stands twice; leave one out"))
    if faults:
        return
    for number, line in lines[1:]:
        try:
            cells = _cells(line)
        except csv.Error as error:
            faults.append(PriceFault(number, None, line[:64], f"it is no CSV: {error}; close each quote on its line"))
            continue
        if len(cells) > len(header):
            message = f"{len(cells)} cells, but the header has {len(header)}; quote a cell that holds a comma"
            faults.append(PriceFault(number, None, line[:64], message))
        else:
            yield number, dict.fromkeys(COLUMNS, "") | dict(zip(header, cells, strict=False))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], strict=True))]


def _entries(line: int, row: Mapping[str, str]) -> list[Entry]:
    if row["currency"].lower() not in ("", CURRENCY):
        raise _Wrong("currency", row["currency"], f"prices are in {CURRENCY}; convert {row['currency']}")
    refers = bool(row["factor"] or row["like"])
    counted, kinds = _counted(row, required=not refers)
    since_ms, until_ms = _instant(row, "from"), _instant(row, "until")
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise _Wrong("until", row["until"], f"until {row['until']} is not after from {row['from']}; until is exclusive")
    models = tuple(name.lower() for name in row["model"].split())
    if any("*" in name[:-1] for name in models):
        raise _Wrong(
            "model",
            row["model"],
            f"in {row['model']!r} a * stands where it is not the end of a name; * stands for the rest",
        )
    if not models and not (refers and row["provider"]) and any(kind not in _MODEL_FREE for kind in kinds):
        raise _Wrong("model", "", "the model is missing; name one, several separated by spaces, or a prefix with *")
    entry = Entry(
        line,
        row["provider"],
        "",
        "",
        "",
        _conditions(row, kinds),
        _above(row, kinds),
        None,
        row["unit"],
        Decimal(0),
        None,
        row["like"] or None,
        since_ms,
        until_ms,
        row["source"],
        row["checked"],
        _hours(row, kinds),
    )
    if refers:
        for column in ("price", "unit", "free", "above_input_tokens"):
            if row[column]:
                raise _Wrong(
                    column, row[column], f"a line with factor or like refers to other prices; leave out {column}"
                )
        if row["like"] and not models:
            raise _Wrong("model", "", "the model that is priced like another is missing; name it")
        if row["like"] and counted:
            raise _Wrong("counted", row["counted"], "a model is priced like another as a whole; leave counted empty")
        entry = replace(entry, factor=_decimal(row, "factor") if row["factor"] else Decimal(1))
    else:
        entry = replace(entry, price=_price(row, counted[0]), free=_free(row, counted[0]))
    return [
        replace(entry, model=model, kind=kind, counted=part)
        for model in dict.fromkeys(models) or ("",)
        for kind in kinds
        for part in counted or ("",)
        if not part or kind in PARTS[part].terms
    ]


def _counted(row: Mapping[str, str], *, required: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts a line is for and the kinds that have them."""
    kind = row["kind"]
    if kind and kind not in KINDS:
        raise _Wrong("kind", kind, f"unknown kind {kind!r}{nearest(kind, KINDS)}; it is one of {', '.join(KINDS)}")
    names = row["counted"].split()
    if not names and not required:
        return (), (kind,) if kind else tuple(KINDS)
    if not names:
        raise _Wrong("counted", "", f"what is counted is missing; it is one of {_COUNTED}")
    if len(names) > 1 and required:
        raise _Wrong("counted", row["counted"], "one price counts one thing; give each a line of its own")
    counted = []
    for name in names:
        part = _SEARCHES.get(kind, "") if name == "searches" else name
        if name == "searches" and not part:
            raise _Wrong("kind", kind, f"searches are of a kind; it is one of {', '.join(_SEARCHES)}")
        if part not in PARTS or not PARTS[part].terms:
            raise _Wrong("counted", name, f"unknown {name!r}{nearest(name, _COUNTABLE)}; it is one of {_COUNTED}")
        counted.append(part)
    kinds = tuple(dict.fromkeys(found for part in counted for found in PARTS[part].terms))
    if kind and kind not in kinds:
        raise _Wrong("kind", kind, f"{kind} has no {row['counted']}; that is counted for {', '.join(kinds)}")
    return tuple(counted), (kind,) if kind else kinds


_COUNTABLE: Final = (
    "searches",
    *(name for name, part in PARTS.items() if part.terms and not name.endswith("searches")),
)
_COUNTED: Final = ", ".join(_COUNTABLE)


def _conditions(row: Mapping[str, str], kinds: tuple[str, ...]) -> dict[str, str | bool]:
    conditions: dict[str, str | bool] = {}
    for column in ("service_tier", "size", "quality", "context_level", "inference_geo"):
        if value := row[column]:
            _refuse_misplaced(column, value, kinds)
            allowed = DIMENSIONS[column].values
            if allowed and value not in allowed:
                raise _Wrong(column, value, f"{column} is one of {', '.join(allowed)}")
            conditions[column] = str(_STANDARD[column](value)) if column in _STANDARD else value
    if row["batch"]:
        _refuse_misplaced("batch", row["batch"], kinds)
        if (batch := _BOOLEANS.get(row["batch"].lower())) is None:
            raise _Wrong(
                "batch",
                row["batch"],
                f"batch is true or false, not {row['batch']!r}; leave it empty where it does not matter",
            )
        conditions["batch"] = batch
    return conditions


def _hours(row: Mapping[str, str], kinds: tuple[str, ...]) -> Hours | None:
    try:
        hours = read_hours(row["hours"], row["weekdays"], row["timezone"])
    except ValueError as error:
        column, message = error.args
        raise _Wrong(column, row[column], message) from None
    if hours and any(KINDS[kind].is_level for kind in kinds) and "storage" in row["counted"].split():
        raise _Wrong("hours", str(hours), "storage costs the same at every hour; leave out hours and weekdays")
    return hours


def _refuse_misplaced(column: str, value: str, kinds: tuple[str, ...]) -> None:
    if not any(column in KINDS[kind].dimensions for kind in kinds):
        raise _Wrong(column, value, f"{', '.join(kinds)} have no {column}; leave it empty")


def _above(row: Mapping[str, str], kinds: tuple[str, ...]) -> int:
    text = row["above_input_tokens"]
    if not text:
        return -1
    if not _COUNT.fullmatch(text):
        raise _Wrong("above_input_tokens", text, f"{text!r} is no number of tokens; write it in digits, such as 272000")
    if not any("input_tokens" in KINDS[kind].measures for kind in kinds):
        raise _Wrong("above_input_tokens", text, f"{', '.join(kinds)} have no input tokens; leave it empty")
    return int(text)


def _decimal(row: Mapping[str, str], column: str) -> Decimal:
    text = row[column]
    if not _DECIMAL.fullmatch(text):
        raise _Wrong(
            column,
            text,
            f"{column} {text!r} is no decimal from 0 up; write it in digits, such as 2.50"
            if text
            else f"the {column} is missing; a price of 0 is written 0",
        )
    return Decimal(text)


def _price(row: Mapping[str, str], part: str) -> Decimal:
    unit = row["unit"]
    if unit not in UNITS:
        message = f"unknown unit {unit!r}{nearest(unit, UNITS)}; it is one of {', '.join(UNITS)}"
        raise _Wrong("unit", unit, message if unit else f"the unit is missing; it is one of {', '.join(UNITS)}")
    measured, size = UNITS[unit]
    if measured != PARTS[part].measured:
        fitting = ", ".join(name for name, (other, _) in UNITS.items() if other == PARTS[part].measured)
        raise _Wrong("unit", unit, f"{row['counted']} are not measured in {unit}; use one of {fitting}")
    price = _decimal(row, "price")
    if price > _PRICE_MAX * size:
        raise _Wrong(
            "price", row["price"], f"price {price} for one {unit} is above {_PRICE_MAX * size}; check the unit"
        )
    if part not in _ROUNDED and price.scaleb(SCALE) % size:
        message = f"price {price} a {unit} has more than {SCALE} decimals for one {measured}; round it yourself"
        raise _Wrong("price", row["price"], message)
    return price


def _free(row: Mapping[str, str], part: str) -> Decimal:
    if not row["free"]:
        return Decimal(0)
    if part != "storage":
        raise _Wrong("free", row["free"], "only storage has something free; leave it empty")
    if (free := _decimal(row, "free")) > _FREE_MAX:
        raise _Wrong("free", row["free"], f"more than {_FREE_MAX} GiB are free; for a price of nothing write price 0")
    return free


def _instant(row: Mapping[str, str], column: str) -> int | None:
    text = row[column]
    if not text:
        return None
    try:
        found = (
            datetime.fromisoformat(text)
            if len(text) > 10
            else datetime.combine(date.fromisoformat(text), time.min, UTC)
        )
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not 1970 <= found.year <= 9998:
        raise _Wrong(column, text, f"{text!r} is no date; write it like 2026-01-31 or 2026-01-31T09:30:00Z")
    return int(found.timestamp() * 1000)


_Thing = tuple[object, ...]
"""What a price is for: kind, model, part, conditions."""


def _thing(entry: Entry) -> _Thing:
    return (*_thing_at_any_hour(entry), entry.hours)


def _thing_at_any_hour(entry: Entry) -> _Thing:
    conditions = tuple(sorted(entry.conditions.items()))
    refers = (entry.like is not None, entry.provider) if entry.price is None else ()
    return (entry.kind, entry.model, entry.counted, conditions, refers)


def _dated(entries: list[Entry], faults: list[PriceFault]) -> list[Entry]:
    """Return entries of which an open one ends where the next of the same thing begins.

    The prices of one thing follow each other without overlap or gap.
    """
    same: defaultdict[_Thing, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        same[(*_thing(entry), entry.above)].append(number)
    dated = list(entries)
    for numbers in same.values():
        numbers.sort(key=lambda number: -1 if (since := entries[number].since_ms) is None else since)
        for number, following in pairwise(numbers):
            before, after = entries[number], entries[following]
            starts, ends = after.since_ms, before.until_ms
            message = None
            if starts is None or starts == before.since_ms or (ends is not None and ends > starts):
                message = (
                    f"from {_date(starts) or 'the beginning'} it overlaps with line {before.line}, which has the same "
                    "thing at the same time; give each its own from and until"
                )
            elif ends is not None and ends < starts and before.hours is None:
                message = (
                    f"there is no price from {_date(ends)}, where line {before.line} ends, until {_date(starts)}; "
                    "close the gap, or say what it cost in between"
                )
            elif ends is None:
                dated[number] = replace(dated[number], until_ms=starts)
            if message:
                faults.append(PriceFault(after.line, "from", _date(starts), message))
    faults[:] = list(dict.fromkeys(faults))
    return dated


def _check_hours(entries: list[Entry], faults: list[PriceFault]) -> None:
    """Hours of one thing do not overlap while both lines hold: which of the two counted would be chance.

    Args:
        entries: as `_dated` returns them; those with the same hours follow each other.
        faults: what is wrong is added to it.
    """
    same: defaultdict[_Thing, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.hours:
            same[(*_thing_at_any_hour(entry), entry.above)].append(entry)
    found = set()
    for group in same.values():
        for first, second in combinations(group, 2):
            if first.hours is None or second.hours is None or first.hours == second.hours:
                continue
            since_ms = max((at for at in (first.since_ms, second.since_ms) if at is not None), default=None)
            until_ms = min((at for at in (first.until_ms, second.until_ms) if at is not None), default=None)
            at_ms = first_common_ms(first.hours, second.hours, since_ms, until_ms)
            if at_ms is not None:
                message = (
                    f"the hours {second.hours} overlap with {first.hours} of line {first.line}, which has the same "
                    f"thing at the same time, as on {_date(at_ms)}; give each its own hours, weekdays or dates"
                )
                found.add(PriceFault(second.line, "hours", str(second.hours), message))
    faults += found


def _check_thresholds(entries: list[Entry], faults: list[PriceFault]) -> None:
    """Thresholds of a price stand in ascending order, after the price that holds below them."""
    last: dict[_Thing, Entry] = {}
    base: set[_Thing] = set()
    for entry in entries:
        if entry.price is None:
            continue
        thing = _thing(entry)
        before = last.get((*thing, entry.since_ms))
        problem = None
        if entry.above < 0:
            base.add(thing)
        elif thing not in base:
            problem = (
                f"no line before it says the price up to {entry.above} input tokens; "
                "begin with one that has no threshold"
            )
        elif before and before.above >= entry.above:
            problem = (
                f"threshold {entry.above} comes after {before.above} of line {before.line}; put them in ascending order"
            )
        if problem:
            faults.append(PriceFault(entry.line, "above_input_tokens", str(entry.above), problem))
        last[(*thing, entry.since_ms)] = entry
    faults[:] = list(dict.fromkeys(faults))


def _date(instant_ms: int | None) -> str | None:
    if instant_ms is None:
        return None
    found = datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
    return found.removesuffix("T00:00:00Z")
