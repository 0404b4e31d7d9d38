"""What the right answer is, in plain loops: events as posted in, pages as on the wire out.

It shares no code with the server and refuses cleverness: every bucket looks at every event. Money, limits,
scopes and the wording of faults are not its business.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

Event = dict[str, Any]
Row = dict[str, Any]

INPUT_CACHE_WRITE_PARTS = ("input_cache_write_30m_tokens", "input_cache_write_12h_tokens")
INPUT_CACHED_PARTS = ("input_cached_text_tokens", "input_cached_audio_tokens", "input_cached_image_tokens")
INPUT_PARTS = (
    "input_cached_tokens",
    "input_cache_write_tokens",
    *INPUT_CACHE_WRITE_PARTS,
    "input_uncached_tokens",
    "input_text_tokens",
    "input_image_tokens",
    "input_audio_tokens",
    *INPUT_CACHED_PARTS,
)
OUTPUT_PARTS = ("output_text_tokens", "output_audio_tokens", "output_image_tokens")
TOKENS = ("input_tokens", "output_tokens", *INPUT_PARTS, *OUTPUT_PARTS)

WHO = ("project_id", "user_id", "api_key_id")
ALL_DIMENSIONS = (
    *WHO,
    "model",
    "batch",
    "service_tier",
    "api_source",
    "size",
    "source",
    "vector_store_id",
    "context_level",
)
FILTERS = {
    "project_ids": "project_id",
    "user_ids": "user_id",
    "api_key_ids": "api_key_id",
    "models": "model",
    "batch": "batch",
    "sizes": "size",
    "sources": "source",
    "vector_store_ids": "vector_store_id",
    "context_levels": "context_level",
}
UNFILTERED = {"service_tier", "api_source"}  # can be grouped on, but no parameter filters them
WIDTHS_S = {"1m": 60, "1h": 3_600, "1d": 86_400}
SPANS_S = WIDTHS_S | {"all": 2**40}
"""With the one bucket of a whole window."""
LIMITS_MAX = {"1m": 1_440, "1h": 168, "1d": 31, "all": 1}
COUNTS = ("num_model_requests", "num_requests", "num_sessions")


class Kind(NamedTuple):
    """What a result of a usage kind looks like."""

    object: str
    measures: tuple[str, ...]
    dimensions: tuple[str, ...]

    @property
    def filters(self) -> tuple[str, ...]:
        return tuple(name for name, dimension in FILTERS.items() if dimension in self.dimensions)


_COMPLETIONS = (
    (*TOKENS, "num_model_requests"),
    (*WHO, "model", "batch", "service_tier", "api_source"),
)
_BY_MODEL = (*WHO, "model")
KINDS = {
    "completions": Kind("completions", *_COMPLETIONS),
    "decisions": Kind("decisions", *_COMPLETIONS),
    "embeddings": Kind("embeddings", ("input_tokens", "num_model_requests"), _BY_MODEL),
    "moderations": Kind("moderations", ("input_tokens", "num_model_requests"), _BY_MODEL),
    "images": Kind("images", ("images", "num_model_requests"), (*_BY_MODEL, "size", "source")),
    "audio_speeches": Kind("audio_speeches", ("characters", "num_model_requests"), _BY_MODEL),
    "audio_transcriptions": Kind("audio_transcriptions", ("seconds", "num_model_requests"), _BY_MODEL),
    "vector_stores": Kind("vector_stores", ("usage_bytes",), ("project_id",)),
    "code_interpreter_sessions": Kind("code_interpreter_sessions", ("num_sessions",), ("project_id",)),
    "file_search_calls": Kind("file_searches", ("num_requests",), (*WHO, "vector_store_id")),
    "web_search_calls": Kind(
        "web_searches", ("num_requests", "num_model_requests"), (*_BY_MODEL, "context_level", "api_source")
    ),
}


@dataclass(frozen=True)
class Question:
    """One question to `GET /v1/organization/usage/<kind>`; `filters` maps parameter names to their values."""

    kind: str
    start: int
    end: int | None = None
    width: str = "1d"
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def half_up(value: Fraction | Decimal) -> int:
    """The nearest integer to a value >= 0; a half goes up."""
    return int((Fraction(value) + Fraction(1, 2)) // 1)


def milliseconds(timestamp: float | str) -> int:
    """Unix milliseconds of Unix seconds (in decimal, as written) or of RFC 3339; what is finer is cut off."""
    if isinstance(timestamp, str):
        since = datetime.fromisoformat(timestamp) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    return int(Decimal(str(timestamp)) * 1000)


def tokens(event: Event) -> Row | None:
    """Every token part, given or derived; None when they contradict each other."""
    if "input_tokens" not in event and ("output_tokens" not in event or any(p in event for p in INPUT_PARTS)):
        return None
    if "output_tokens" not in event and any(part in event for part in OUTPUT_PARTS):
        return None
    whole, output = event.get("input_tokens", 0), event.get("output_tokens", 0)

    write_30m, write_12h = (event.get(part, 0) for part in INPUT_CACHE_WRITE_PARTS)
    write = event.get("input_cache_write_tokens", write_30m + write_12h)

    if "input_cached_tokens" in event:
        cached = event["input_cached_tokens"]
    elif "input_uncached_tokens" in event:
        cached = whole - event["input_uncached_tokens"] - write
    else:
        cached = sum(event.get(part, 0) for part in INPUT_CACHED_PARTS)
    uncached = whole - cached - write  # a breakdown may fall short of its whole, and not exceed it

    image = event.get("input_image_tokens", 0)
    heard = event.get("input_audio_tokens", 0) + image + event.get("input_text_tokens", 0)
    cached_audio = event.get("input_cached_audio_tokens", max(0, heard - uncached))
    cached_image = event.get("input_cached_image_tokens", 0)
    cached_text = event.get("input_cached_text_tokens", cached - cached_audio - cached_image)
    audio = event.get("input_audio_tokens", cached_audio)
    text = event.get("input_text_tokens", uncached - image - (audio - cached_audio))

    output_audio, output_image = event.get("output_audio_tokens", 0), event.get("output_image_tokens", 0)
    output_text = event.get("output_text_tokens", output - output_audio - output_image)

    facts = {
        "input_tokens": whole,
        "output_tokens": output,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        "input_cache_write_30m_tokens": write - write_12h,
        "input_cache_write_12h_tokens": write_12h,
        "input_uncached_tokens": uncached,
        "input_text_tokens": text,
        "input_image_tokens": image,
        "input_audio_tokens": audio,
        "input_cached_text_tokens": cached_text,
        "input_cached_audio_tokens": cached_audio,
        "input_cached_image_tokens": cached_image,
        "output_text_tokens": output_text,
        "output_audio_tokens": output_audio,
        "output_image_tokens": output_image,
    }
    sound = (
        min(facts.values()) >= 0
        and event.get("input_uncached_tokens", 0) <= uncached
        and write_30m + write_12h <= write
        and cached_text + cached_audio + cached_image <= cached
        and cached_audio <= audio
        and text + image + (audio - cached_audio) <= uncached
        and output_text + output_audio + output_image <= output
    )
    return facts if sound else None


def normalise(event: Event) -> Row | None:
    """The facts of an event as they are kept, with `ms` for its time; None when the event is rejected.

    The event has a timestamp: what is counted at the time of receipt only the server can know.
    """
    event = {name: value for name, value in event.items() if value is not None}
    kind = KINDS[event["kind"]]
    facts: Row = {name: event.get(name) for name in ALL_DIMENSIONS}
    facts |= {"kind": event["kind"], "id": event.get("id"), "ms": milliseconds(event["timestamp"])}
    facts["batch"] = bool(event.get("batch"))
    if facts["api_source"] != "agents_api":
        facts["api_source"] = "unlabeled"
    if "output_tokens" in kind.measures:
        parts = tokens(event)
        if parts is None:
            return None
        facts |= parts
    for name in kind.measures:
        if name in COUNTS:
            facts[name] = event.get(name, 1)
        elif name == "seconds":
            facts[name] = half_up(Decimal(str(event[name])))
        elif name not in TOKENS or "output_tokens" not in kind.measures:
            facts[name] = event[name]
    return facts


class Book:
    """Everything one organization has posted."""

    def __init__(self) -> None:
        self.stored: list[Row] = []
        self._first: dict[tuple[Any, ...], Row] = {}

    def post(self, event: Event) -> str:
        """Take one event; what the receipt must count it as: accepted, duplicates, conflicts or rejected."""
        facts = normalise(event)
        if facts is None:
            return "rejected"
        if facts["id"] is not None:
            first = self._first.setdefault((facts["kind"], facts["id"], facts["ms"]), facts)
            if first is not facts:
                return "duplicates" if first == facts else "conflicts"
        self.stored.append(facts)
        return "accepted"

    def answer(self, question: Question, now_s: float) -> list[Row]:
        """The buckets of all pages together, rows in no particular order.

        `now_s` is the end of what has elapsed: it ends a question without an end, and an average over time.
        """
        end = int(now_s) if question.end is None else question.end
        facts = [row for row in self.stored if row["kind"] == question.kind]
        data = []
        for low, high in buckets(question.start, end, SPANS_S[question.width]):
            if question.kind == "vector_stores":
                rows = levels(facts, low * 1000, min(high * 1000, int(now_s * 1000)))
            else:
                rows = [row for row in facts if low * 1000 <= row["ms"] < high * 1000]
            results = grouped([row for row in rows if passes(row, question.filters)], question)
            data.append(
                {
                    "object": "bucket",
                    "start_time": low,
                    "end_time": high,
                    "results": results,
                    "result": results,
                }
            )
        return data


def buckets(start: int, end: int, width_s: int) -> Iterator[tuple[int, int]]:
    """From the start, floored to the minute, over the aligned edges, to the end."""
    low = start - start % 60
    while low < end:
        high = min(low - low % width_s + width_s, end)
        yield low, high
        low = high


def passes(row: Row, filters: Mapping[str, Sequence[Any]]) -> bool:
    return all(row[FILTERS[name]] in values for name, values in filters.items())


def grouped(rows: Sequence[Row], question: Question) -> list[Row]:
    kind = KINDS[question.kind]
    sums: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        dimensions = {name: row[name] if name in question.group_by else None for name in kind.dimensions}
        result = sums.setdefault(
            tuple(dimensions.values()),
            {
                "object": f"organization.usage.{kind.object}.result",
                **dimensions,
                **dict.fromkeys(kind.measures, 0),
            },
        )
        for name in kind.measures:
            result[name] += row[name]
    return list(sums.values())


def levels(reports: Sequence[Row], low_ms: int, high_ms: int) -> list[Row]:
    """The mean bytes of every store in every project it was in, for those that held any in the window.

    A store is its id: a report that names another project moves it there.
    """
    histories: dict[str, list[Row]] = {}
    # At the same millisecond the larger is the later, so the smaller holds for no time at all.
    for report in sorted(reports, key=lambda report: (report["ms"], report["usage_bytes"])):
        histories.setdefault(report["vector_store_id"], []).append(report)
    held: dict[tuple[str, str | None], int] = {}
    for store, history in histories.items():
        ends_ms = [report["ms"] for report in history[1:]] + [high_ms]
        for report, end_ms in zip(history, ends_ms, strict=True):
            overlap_ms = min(end_ms, high_ms) - max(report["ms"], low_ms)
            if overlap_ms > 0 and report["usage_bytes"] > 0:
                place = store, report["project_id"]
                held[place] = held.get(place, 0) + overlap_ms * report["usage_bytes"]
    return [
        {"project_id": project, "usage_bytes": half_up(Fraction(byte_ms, high_ms - low_ms))}
        for (_, project), byte_ms in held.items()
    ]
