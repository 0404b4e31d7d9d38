"""Anthropic's messages: what an answer says was used.

A record is a message as it came, a line of a batch's results, or either in an envelope that says who made the call (see
`tallybook.sources.openai`). Anthropic counts apart what was read from the cache and what was written to it: here both
belong to the input.

Source: types of the official ``anthropic`` client.
"""

from typing import Any, Final

from tallybook.sources.record import NO_OPTIONS, WHO, Event, FaultyRecord, Fields, Options, made
from tallybook.sources.usage_objects import ANTHROPIC, TIERS, report_unread, token_events, watched

_ENVELOPE: Final = frozenset({"response", "id", "timestamp", "model", "batch", "service_tier", *WHO})
_STREAM: Final = ("message_start", "message_delta")
"""Events of a stream that carry counts: those up to then, and those at its end without id and model."""
_STREAM_ONLY: Final = ("message_stop", "content_block_start", "content_block_delta", "content_block_stop", "ping")


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none where nothing was used.

    A message that took several requests, such as one whose context was compacted, can be several events.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is a JSON object: a message, or one in an envelope")
    return answer_events(*_open(Fields(record)), options)


def is_message(answer: Fields) -> bool:
    """Whether an answer is a message of Anthropic's, or a line of a batch's results."""
    result = answer.values.get("result")
    is_line = "custom_id" in answer and isinstance(result, dict) and "type" in result
    return is_line or (answer.values.get("type") == "message" and "object" not in answer)


def answer_events(envelope: Fields, answer: Fields, options: Options) -> list[Event]:
    """Return the events of a message, or of a line of a batch's results, of who made the call by the envelope."""
    if "custom_id" in answer and "result" in answer:
        result = answer.fields("result")
        envelope = Fields({"batch": True, **envelope.values}, envelope.path)
        if result.values.get("type") != "succeeded":
            return []
        answer = result.fields("message")
    elif answer.values.get("type") in ("error", *_STREAM_ONLY):
        return []
    return _message_events(envelope, answer, options)


def _message_events(envelope: Fields, message: Fields, options: Options) -> list[Event]:
    kind = message.values.get("type")
    if kind in _STREAM:
        raise message.wrong(
            "type",
            "is an event of a stream, whose counts are not those of the whole message; send the message that it makes, "
            "as the client library returns it at the end",
        )
    if "object" in message or "prompt_tokens" in message.fields("usage"):
        raise message.wrong(
            "object", "makes this an answer of OpenAI's shape; send it to the address for those, or import it as openai"
        )
    if "usage" not in message:
        raise message.wrong("usage", "is missing; send a message as the API answers it")
    usage = watched(message.fields("usage"))
    tier = envelope.text("service_tier")
    common: Event = {
        "id": envelope.identity("id") or message.identity("id"),
        "timestamp": envelope.any("timestamp"),
        "model": envelope.text("model") or message.text("model"),
        "service_tier": TIERS.get(tier, tier) if tier else None,
        "batch": envelope.values.get("batch", usage.values.get("service_tier") == "batch" or None),
        **{name: envelope.text(name) for name in WHO},
    }
    found = token_events("completions", common, usage, ANTHROPIC)
    if searches := usage.fields("server_tool_use").count("web_search_requests"):
        found.append(made("web_search_calls", common, num_requests=searches))
    report_unread(usage, ANTHROPIC, options)
    return found


def _open(record: Fields) -> tuple[Fields, Fields]:
    """Return the envelope and the answer in it."""
    if "response" not in record or "type" in record or "custom_id" in record:
        return Fields({}), record
    if unknown := [name for name in record.values if name not in _ENVELOPE]:
        raise record.wrong(unknown[0], f"is not a field of an envelope; those are {', '.join(sorted(_ENVELOPE))}")
    return record, record.fields("response")
