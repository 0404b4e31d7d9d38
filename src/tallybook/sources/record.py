"""What all dialects share: how a record's fields are looked up, and what is said when one is wrong."""

import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from threading import Lock
from typing import Any, Final

from tallybook.event import COST_MAX, COST_SCALE, COUNT_MAX, TEXT_MAX, Fault, shorten
from tallybook.kinds import KINDS, MEASURES
from tallybook.money import WIDE

Event = dict[str, Any]
"""An event as a producer of ours would send it: the fields of `tallybook.event`, nothing else."""

WHO: Final = ("project_id", "user_id", "api_key_id")
_OF_ALL_KINDS: Final = frozenset({"id", "timestamp", "cost", "labels", "session_id", *MEASURES})
"""Fields of events that are not dimensions."""
_DIGITS: Final = re.compile(r"[0-9]{1,20}")


class FaultyRecord(ValueError):
    """A record that no event can be made of, with what is wrong with it."""

    def __init__(self, field: str | None, value: object, message: str) -> None:
        super().__init__(message)
        self.faults = [Fault(field, shorten(value), message)]


class Unsure(FaultyRecord):
    """A record that is a fault unless others of its body show that nothing is lost with it.

    Attributes:
        events: what it counts as, if nothing else counts it.
    """

    def __init__(self, field: str | None, value: object, message: str, events: "list[Event] | None" = None) -> None:
        super().__init__(field, value, message)
        self.events = events or []


class Elsewhere(FaultyRecord):
    """A record of usage that another signal of its sender counts: it is not counted, and nothing is kept of it."""


class Latest:
    """What was noted lately, by key. The oldest are forgotten. Threads may share it."""

    __slots__ = ("_lock", "_values")

    def __init__(self) -> None:
        self._values: OrderedDict[int, Hashable] = OrderedDict()  # by hashes, since ids of others may be long
        self._lock = Lock()

    def __contains__(self, key: Hashable) -> bool:
        return hash(key) in self._values

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Return the value that was noted last."""
        return self._values.get(hash(key), default)

    def note(self, key: Hashable, value: Hashable = None) -> Hashable:
        """Return the value that was noted first, which stands."""
        with self._lock:
            found = self._values.setdefault(hash(key), value)
            self._forget()
            return found

    def put(self, key: Hashable, value: Hashable) -> None:
        """Note a value in place of the one that is there."""
        with self._lock:
            self._values[hash(key)] = value
            self._forget()

    def _forget(self) -> None:
        if len(self._values) > _LATEST_MAX:
            self._values.popitem(last=False)  # a plain dict would look for its first key through all that were deleted


_LATEST_MAX: Final = 32 * 1024
"""Minutes of a busy server, and about 10 MB."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator says of sources.

    Attributes:
        takes_costs: a source's own figure of what a call cost is taken, instead of the price book's.
        attributes: where OpenTelemetry says who used something: names of attributes for each of `WHO`; the first that
            is there counts.
        unread: counts by name the fields of usage that are not zero, not known to be irrelevant, and not read: what
            reads records adds to it, and whoever asked for them reports it.
        alike: counts pairs of reports that look like one call although no id proves it, by the two instrumentations
            they are from, "a | b", likewise.
        above: spans of calls that were counted in the latest requests, and those above them, with what was used, so
            that one that comes later is known to repeat it. Shared by all requests, and so is the next.
        sessions: the signal that each of the latest sessions of a coding agent came by first.
        owner: the organization whose records are read; nothing is noted for later requests where it is not known.
    """

    takes_costs: bool = False
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter, compare=False)
    alike: Counter[str] = field(default_factory=Counter, compare=False)
    above: Latest = field(default_factory=Latest, compare=False)
    sessions: Latest = field(default_factory=Latest, compare=False)
    owner: str = ""

    def of_request(self) -> "Options":
        """Return the same with nothing counted."""
        return replace(self, unread=Counter(), alike=Counter())


@dataclass(frozen=True, slots=True)
class Source:
    """One dialect.

    Attributes:
        name: as addresses, quarantine and metrics have it.
        events: turns one record into events; none if nothing was used. Raises `FaultyRecord`.
        heeds_429: whether its senders send again what was refused with 429, and not only what was with 503.
        reports_calls: its events are calls of models whose id is that of the provider's response, or one that nothing
            else has: wherever and whenever it comes in again, it is the same call.
    """

    name: str
    events: Callable[[Any, Options], list[Event]]
    heeds_429: bool = True
    reports_calls: bool = False


NO_OPTIONS: Final = Options()


class Fields:
    """The fields of a record. One that has the wrong type is a fault that names its path."""

    __slots__ = ("path", "values")

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values = values
        self.path = path

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def any(self, *names: str) -> Any:
        """Return the first of several fields that has a value, None if none has."""
        return next((value for name in names if (value := self.values.get(name)) is not None), None)

    def count(self, *names: str) -> int | None:
        """Return a count that may have several names: the first that is not 0, else 0, None if none has a value.

        A count is a whole number from 0 on, or the digits of one as text. All names are looked up.
        """
        found = None
        for name in names:
            count = self._count(name)
            found = found or (count if count is not None else found)
        return found

    def _count(self, name: str) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)  # as sources whose attributes are text, and tables, write them
        if isinstance(value, float | Decimal) and -COUNT_MAX <= value <= COUNT_MAX and value == int(value):
            value = int(value)  # as languages without integers write them
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
            raise self.wrong(name, f"must be an integer from 0 to {COUNT_MAX}")
        return value

    def text(self, *names: str) -> str | None:
        """Return the first of several fields that has a value; it must be text, and no longer than an event's."""
        for name in names:
            value = self.values.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str) or len(value) > TEXT_MAX:
                raise self.wrong(name, f"must be a string of at most {TEXT_MAX} characters")
            return value
        return None

    def identity(self, *names: str) -> str | None:
        """Return the first of several fields that has a value, as the id of a call; it must be text of any length."""
        for name in names:
            value = self.values.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                raise self.wrong(name, "must be a string")
            return call_id(value)
        return None

    def fields(self, *names: str) -> "Fields":
        """Return the fields of an object inside, none if it is absent.

        An object that is there under several names is put together field by field: what one lacks, or has as 0, comes
        from another.
        """
        found: list[Mapping[str, Any]] = []
        first = names[0]
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise self.wrong(name, "must be an object")
            first = first if found else name
            found.append(value)
        values = found[0] if len(found) == 1 else _Several(found)
        return Fields(values, self._path(first))

    def each(self, name: str) -> "Iterator[Fields]":
        """Yield the objects of a list inside; none if it is absent, and nothing for what is not an object."""
        value = self.values.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.wrong(name, "must be an array")
        for position, item in enumerate(value):
            if isinstance(item, Mapping):
                yield Fields(item, f"{self._path(name)}[{position}]")

    def wrong(self, name: str, expectation: str) -> FaultyRecord:
        """Return what is wrong with a field."""
        return FaultyRecord(self._path(name), self.values.get(name), f"{self._path(name)} {expectation}")

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


class _Several(Mapping[str, Any]):
    """Objects that say the same of one thing, as one object."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        self._parts = parts

    def get(self, name: str, default: Any = None) -> Any:
        found = [value for part in self._parts if (value := part.get(name)) is not None]
        inner = [value for value in found if isinstance(value, Mapping)]
        if len(inner) > 1:
            return _Several(inner)
        return next((value for value in found if not is_blank(value)), found[0] if found else default)

    def __getitem__(self, name: str) -> Any:
        if not any(name in part for part in self._parts):
            raise KeyError(name)
        return self.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for part in self._parts for name in part))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Watched(dict[str, Any]):
    """An object of usage that remembers which of its fields, and of those of the objects in it, were looked up.

    Only `get` is looking up: that is how `Fields` reads.
    """

    __slots__ = ("_seen",)

    def __init__(self, values: Mapping[str, Any], levels: int = 0) -> None:
        super().__init__((name, _watched(value, levels)) for name, value in values.items())
        self._seen: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:  # noqa: D102 - as of every mapping
        self._seen.add(name)
        return super().get(name, default)

    def unread(self, path: str = "") -> Iterator[str]:
        """Yield the dotted path of each field that says something and was never looked up."""
        for name, value in self.items():
            inner = f"{path}.{name}" if path else name
            if isinstance(value, Watched):
                yield from value.unread(inner)
            elif isinstance(value, list) and any(isinstance(item, Watched) for item in value):
                for item in value:
                    if isinstance(item, Watched):
                        yield from item.unread(inner)
            elif name not in self._seen and not is_blank(value):
                yield inner


_WATCHED_MAX: Final = 16
"""Objects within objects of usage: nobody has more than four, and what is deeper is one field that is not read."""


def _watched(value: Any, levels: int) -> Any:
    if levels > _WATCHED_MAX:
        return value
    if isinstance(value, Mapping):
        return Watched(value, levels + 1)
    return [_watched(item, levels + 1) for item in value] if isinstance(value, list) else value


def is_blank(value: object) -> bool:
    """Whether a field says nothing: absent, 0, false, empty, or the text of one of these."""
    return not value or (isinstance(value, str) and value.strip("0.") == "")


UNREAD_MAX: Final = 64
"""So many names of fields that are not read are told apart in a request."""
_PATH_MAX: Final = 128


def note_unread(options: Options, name: str) -> None:
    """Note that a field of usage is not read, by its dotted path."""
    name = name[:_PATH_MAX]
    if name in options.unread or len(options.unread) < UNREAD_MAX:
        options.unread[name] += 1


def irrelevant(*tables: Mapping[str, str]) -> re.Pattern[str]:
    """Return what matches the paths of irrelevant fields.

    Args:
        tables: each path, with the reason; ``*`` stands for anything.
    """
    paths = (re.escape(path).replace(r"\*", ".*") for table in tables for path in table)
    return re.compile("|".join(paths))


def call_id(text: str) -> str:
    """Return the id of a call as events have it: the provider's own, or a digest of one that is too long."""
    if len(text) <= TEXT_MAX:
        return text
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


_TURN: Final = re.compile(r"(.+)#turn-([0-9]+)")


def turn_id(name: str, number: int) -> str:
    """Return the id of an event that is one of several turns of a call, numbered from 1."""
    return call_id(f"{name}#turn-{number}")


def turn_of(name: str) -> tuple[str, int] | None:
    """Return the id of the call that an event is a turn of, and the number of the turn; None if it is not a turn.

    Another report of the call may have it whole, under that id: the two must not add up.
    """
    found = _TURN.fullmatch(name)
    return (found[1], int(found[2])) if found else None


_WEAK_IDS: Final = re.compile(
    r"(chatcmpl-|cmpl-)(0|[1-9][0-9]{0,2})|resp_(0|[1-9][0-9]{0,5})"
    r"|(chatcmpl-|cmpl-)?A1|koboldcpp|(chatcmpl|cmpl)-?|0|null|none|unknown",
    re.IGNORECASE,
)


_WEAK_MAX: Final = 16
"""Characters; none of these is longer, and nearly all ids are."""
_NUMBERED: Final = re.compile(r"(chatcmpl-|cmpl-|resp_)[1-9][0-9]*")
_HOSTED: Final = re.compile(
    r"(?:(?:openai|azure|anthropic|vertex_ai|gemini|google|xai|x-ai|openrouter)/)*"
    r"(?:gpt-(?!oss)|chatgpt-|o[0-9](?:-|$)|claude-|gemini-|grok-|text-embedding-|whisper-1|dall-e-|tts-1)"
)
"""Models that only their makers and large clouds serve: their ids are long, and a short one was not drawn at random."""


def is_unique_id(text: str, model: object = None) -> bool:
    """Whether the id of an answer tells it from all others by itself; the model that answered may prove it.

    Not so those of servers that draw from few numbers, or have one id for all answers. Sources: Ollama's addresses in
    OpenAI's shape (``chatcmpl-`` or ``cmpl-`` and a random number below 999, ``resp_`` and one below 999,999);
    KoboldCpp (``chatcmpl-A1``, ``cmpl-A1``, and ``koboldcpp`` in streams); servers that write the prefix alone, or
    nothing.
    """
    if len(text) > _WEAK_MAX:
        return not text.isspace()
    if not text.strip():
        return False
    if _WEAK_IDS.fullmatch(text) is None:
        return True
    return isinstance(model, str) and bool(_NUMBERED.fullmatch(text) and _HOSTED.match(model))


def made(kind: str, common: Mapping[str, Any], **fields: Any) -> Event:
    """Return an event of what is known; what is None is left out, and so is a dimension the kind does not have."""
    allowed = KINDS[kind].dimensions
    event: Event = {"kind": kind}
    for name, value in (*common.items(), *fields.items()):
        if value is not None and (name in allowed or name in _OF_ALL_KINDS):
            event[name] = value
    return event


def cost(value: object) -> Event | None:
    """Return a source's own figure, US dollars, as events have it, rounded to their scale; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return None
    if not amount.is_finite() or not 0 <= amount <= COST_MAX:
        return None
    # Whoever adds up binary fractions sends more digits than there are in the sum.
    return {"value": amount.quantize(Decimal(1).scaleb(-COST_SCALE), context=WIDE), "currency": "usd"}


def charged(events: list[Event], told: Event | None) -> list[Event]:
    """Return the events of one call with what the source says the call cost: the first has it, the others cost nothing.

    Args:
        events: all of the call's.
        told: as `cost` returns it; None where the source does not say.
    """
    if told is None:
        return events
    return [event | {"cost": {"value": 0, "currency": "usd"} if place else told} for place, event in enumerate(events)]
