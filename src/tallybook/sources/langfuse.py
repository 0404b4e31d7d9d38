"""Spans of Langfuse's SDK: usage and costs of an observation, which are objects in JSON under attributes of their own.

What is in them is what an API answered, OpenAI's or Anthropic's, or counts under Langfuse's own names. Those do not
overlap: `input` leaves out what `input_cached_tokens` and its like say, unless the total proves otherwise.

Source: the ``langfuse`` clients 5.0 for Python and JavaScript.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallybook.sources.conventions import event_fields
from tallybook.sources.otlp_wire import Attributes
from tallybook.sources.record import Event, FaultyRecord, Fields, Options, cost, note_unread
from tallybook.sources.usage_objects import ANTHROPIC, OPENAI, counts_of, report_unread, watched

TYPE: Final = "langfuse.observation.type"
USAGE: Final = "langfuse.observation.usage_details"
MODEL: Final = "langfuse.observation.model.name"
_COST: Final = "langfuse.observation.cost_details"
NAMES: Final = frozenset({TYPE, USAGE, MODEL, _COST})
KINDS: Final = {"generation": "completions", "embedding": "embeddings"}
_OF_ANTHROPIC: Final = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens"})
_OF_AN_API: Final = _OF_ANTHROPIC | {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"}
_BYTES_MAX: Final = 16 * 1024
"""Usage is a dozen numbers; what is longer is something else."""


def token_fields(attributes: Attributes, options: Options) -> Event:
    """Return the token counts of an observation; raises `FaultyRecord` if they are none."""
    usage = _object(attributes, USAGE)
    fields = Fields(usage, USAGE)
    if not _OF_AN_API.intersection(usage):
        return _own(fields, options)
    dialect = ANTHROPIC if _OF_ANTHROPIC.intersection(usage) else OPENAI
    fields = watched(fields)
    model = attributes.get(MODEL)
    found = event_fields(counts_of(fields, dialect, model if isinstance(model, str) else None))
    report_unread(fields, dialect, options)
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
        side = name.partition("_")[0].replace("cached", "input")
        if side not in sums:
            if name not in ("total", "unit") and usage.count(name):
                note_unread(options, f"{USAGE}.{name}")
            continue
        count = usage.count(name) or 0
        sums[side] += count
        if name != side and (part := _part(name)):
            parts[part] = parts.get(part, 0) + count
    total_in, total_out = sums["input"], sums["output"]
    plain_in, plain_out = usage.count("input") or 0, usage.count("output") or 0
    if usage.count("total") == plain_in + plain_out != total_in + total_out:
        total_in, total_out = plain_in, plain_out
    return {"input_tokens": total_in, "output_tokens": total_out, **parts}


def _part(name: str) -> str | None:
    """Return which part of the tokens a name of Langfuse's is for; None for those at the price of the rest."""
    is_input = not name.startswith("output")
    if is_input and ("creation" in name or "write" in name):
        return "input_cache_write_tokens"
    is_cached = is_input and "cache" in name
    for modality in ("audio", "image"):
        if modality in name.lower():
            side = "input_cached" if is_cached else "input" if is_input else "output"
            return f"{side}_{modality}_tokens"
    return "input_cached_tokens" if is_cached else None


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
