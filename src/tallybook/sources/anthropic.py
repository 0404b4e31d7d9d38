"""Anthropic's messages: what an answer says was used.

A record is a message as it came, a line of a batch's results, or either in an envelope that says who made the call (see
`tallybook.sources.openai`). Anthropic counts apart what was read from the cache and what was written to it: here both
belong to the input.

Source: types of the official ``anthropic`` client.
"""

from typing import Any, Final

from tallybook.sources.record import NO_OPTIONS, WHO, Event, FaultyRecord, Fields, Options, made

_ENVELOPE: Final = frozenset({"response", "id", "timestamp", "model", "batch", "service_tier", *WHO})
_TIERS: Final = {"standard": "default", "batch": "default"}
"""Service tiers that others have another word for; a batch is told apart by itself."""


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none where nothing was used.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is a JSON object: a message, or one in an envelope")
    envelope, message = _open(Fields(record))
    if message is None:
        return []
    if "usage" not in message:
        raise message.wrong("usage", "is missing; send a message as the API answers it")
    usage = message.fields("usage")
    tier = envelope.text("service_tier") or usage.text("service_tier")
    is_batch = envelope.values.get("batch", tier == "batch" or None)
    common: Event = {
        "id": envelope.text("id") or message.text("id"),
        "timestamp": envelope.any("timestamp"),
        "model": envelope.text("model") or message.text("model"),
        "service_tier": _TIERS.get(tier, tier) if tier else None,
        "batch": is_batch,
        **{name: envelope.text(name) for name in WHO},
    }
    found = [made("completions", common, **token_fields(usage))]
    if searches := usage.fields("server_tool_use").count("web_search_requests"):
        found.append(made("web_search_calls", common, num_requests=searches))
    return found


def _open(record: Fields) -> tuple[Fields, Fields | None]:
    """Return the envelope and the message in it; no message where the call came to nothing."""
    envelope = Fields({})
    if "response" in record and "type" not in record:
        if unknown := [name for name in record.values if name not in _ENVELOPE]:
            raise record.wrong(unknown[0], f"is no field of an envelope; those are {', '.join(sorted(_ENVELOPE))}")
        envelope, record = record, record.fields("response")
    if "custom_id" in record:  # a line of a batch's results
        result = record.fields("result")
        message = result.fields("message") if result.values.get("type") == "succeeded" else None
        return Fields({"batch": True, **envelope.values}, envelope.path), message
    if record.values.get("type") == "error":
        return envelope, None
    return envelope, record


def token_fields(usage: Fields) -> Event:
    """Return the token counts of a ``usage`` object, cached and cache-write tokens put into the input.

    Its two periods a cache lasts, five minutes and an hour, are the shorter and the longer of ours.
    """
    fresh = usage.count("input_tokens")
    cached = usage.count("cache_read_input_tokens")
    periods = usage.fields("cache_creation")
    short, long = periods.count("ephemeral_5m_input_tokens"), periods.count("ephemeral_1h_input_tokens")
    write = usage.count("cache_creation_input_tokens")
    if write is None and (short or long):
        write = (short or 0) + (long or 0)
    total = None if fresh is None else fresh + (cached or 0) + (write or 0)
    return {
        "input_tokens": total,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        "input_cache_write_30m_tokens": short,
        "input_cache_write_12h_tokens": long,
        "output_tokens": usage.count("output_tokens"),
    }
