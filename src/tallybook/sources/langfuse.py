"""Spans of Langfuse's SDK: usage and costs of an observation, which are objects in JSON under attributes of their own.

What is in them is what an API answered, OpenAI's or Anthropic's, or counts under Langfuse's own names. Those do not
overlap: `input` leaves out what `input_cached_tokens` and its like say, unless the total proves otherwise. Who fills
them in by hand mixes both: a whole under Langfuse's name makes them Langfuse's.

Source: the ``langfuse`` clients 5.0 for Python and JavaScript.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from tallybook.sources.conventions import event_fields
from tallybook.sources.otlp_wire import Attributes
from tallybook.sources.record import Event, FaultyRecord, Fields, Options, cost, is_blank, note_unread
from tallybook.sources.usage_objects import OPENAI, counts_of, dialect_of, report_unread, watched

TYPE: Final = "langfuse.observation.type"
USAGE: Final = "langfuse.observation.usage_details"
MODEL: Final = "langfuse.observation.model.name"
_COST: Final = "langfuse.observation.cost_details"
NAMES: Final = frozenset({TYPE, USAGE, MODEL, _COST})
KINDS: Final = {"generation": "completions", "embedding": "embeddings"}
_OF_AN_API: Final = frozenset({"prompt_tokens", "input_tokens"})
"""Wholes that make counts an API's."""
_OWN: Final = {"output_tokens": "output", "completion_tokens": "output", "total_tokens": "total"}
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIDES: Final = {"input": "input", "cached": "input", "cache": "input", "output": "output"}
"""Which whole a count is added to, by the first word of its name."""
_BYTES_MAX: Final = 16 * 1024
"""Usage is a dozen numbers; what is longer is something else."""


def token_fields(attributes: Attributes, options: Options) -> Event:
    """Return the token counts of an observation; raises `FaultyRecord` if they are none."""
    usage = _renamed(_object(attributes, USAGE), lambda name: _CAMEL.sub("_", name).lower())
    if not any(usage.get(name) is not None for name in _OF_AN_API):
        return _own(Fields(_renamed(usage, lambda name: _OWN.get(name, name)), USAGE), options)
    fields = watched(Fields(usage, USAGE))
    dialect = dialect_of(fields, OPENAI)
    model = attributes.get(MODEL)
    lacking = {name: count for name in ("input", "output", "total") if (count := fields.count(name))}
    found = event_fields(counts_of(fields, dialect, model if isinstance(model, str) else None, lacking=lacking))
    report_unread(fields, dialect, options)
    return found


def uncounted(attributes: Attributes) -> str | None:
    """Return the name of a count that is not 0 of an observation that made no tokens, None if there is none."""
    usage = _object(attributes, USAGE)
    return next((name for name, value in usage.items() if name != "unit" and not is_blank(value)), None)


def _renamed(usage: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """Return counts under other names; of two that become one, the first that is not 0."""
    found: dict[str, Any] = {}
    for name, value in usage.items():
        new = rename(name)
        found[new] = value if is_blank(found.get(new)) else found[new]
    return found


def cost_of(attributes: Attributes) -> Event | None:
    """Return what an observation says it cost: its total, else the sum of its parts."""
    try:
        costs = _object(attributes, _COST)
    except FaultyRecord:
        return None
    total = costs.get("total")
    if total is None:
        parts = [part for part in costs.values() if isinstance(part, int | float)]
        total = sum(parts) if parts else None
    return cost(total)


def _own(usage: Fields, options: Options) -> Event:
    sums = {"input": 0, "output": 0}
    parts: dict[str, int] = {}
    for name in usage.values:
        side = _SIDES.get(name.partition("_")[0])
        if side is None:
            if name not in ("total", "unit") and usage.count(name):
                note_unread(options, f"{USAGE}.{name}")
            continue
        count = usage.count(name) or 0
        sums[side] += count
        for part in _parts(name) if name != side else ():
            parts[part] = parts.get(part, 0) + count
    total_in, total_out = sums["input"], sums["output"]
    plain_in, plain_out = usage.count("input") or 0, usage.count("output") or 0
    if usage.count("total") == plain_in + plain_out != total_in + total_out:
        total_in, total_out = plain_in, plain_out
    return {"input_tokens": total_in, "output_tokens": total_out, **parts}


def _parts(name: str) -> tuple[str, ...]:
    """Return which parts of the tokens a name of Langfuse's is for; none for those at the price of the rest."""
    is_input = not name.startswith("output")
    if is_input and ("creation" in name or "write" in name):
        lasting = next((period for word, period in _PERIODS.items() if word in name.split("_")), None)
        return ("input_cache_write_tokens", *([f"input_cache_write_{lasting}_tokens"] if lasting else []))
    is_cached = is_input and "cache" in name
    for modality in ("audio", "image"):
        if modality in name:
            side = "input_cached" if is_cached else "input" if is_input else "output"
            return (f"{side}_{modality}_tokens",)
    return ("input_cached_tokens",) if is_cached else ()


_PERIODS: Final = {"5m": "30m", "1h": "12h"}
"""What lasts minutes, and hours, by Anthropic's words."""


def _object(attributes: Attributes, name: str) -> Mapping[str, Any]:
    text = attributes.get(name)
    if text is None:
        return {}
    try:
        found = msgspec.json.decode(str(text)) if len(str(text)) <= _BYTES_MAX else None
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FaultyRecord(name, None, f"{name} is not a JSON object of token counts")
    return found
