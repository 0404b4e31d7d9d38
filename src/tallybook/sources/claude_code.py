"""Messages of Anthropic, as they are or in the lines of a transcript of Claude Code, ``~/.claude/projects/*/*.jsonl``.

A line of type ``assistant`` holds a message as the API returned it and says when that was. A message is in several
lines while it grows, with the same id; the last has all of its counts. Other lines hold no usage.

Source: transcripts of Claude Code 1 and 2.
"""

from collections.abc import Mapping
from typing import Any, Final

from tallybook.sources import anthropic
from tallybook.sources.record import NO_OPTIONS, Event, Options, cost

_SIGNS: Final = ("uuid", "sessionId", "requestId", "leafUuid", "messageId")
_SYNTHETIC: Final = "<synthetic>"
"""The model of messages that Claude Code writes itself, such as errors."""


def is_line(record: Any) -> bool:
    """Return whether a record is a line of a transcript, whatever is in it."""
    return (
        isinstance(record, Mapping)
        and isinstance(record.get("type"), str)
        and record["type"] != "message"
        and any(isinstance(record.get(name), str) for name in _SIGNS)
        and "response" not in record
    )


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none of a line that holds no message of the API.

    Args:
        record: a line, what `tallybook.sources.anthropic` reads, or an envelope around either.
        options: whether a line's own cost is taken.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    if isinstance(record, Mapping) and "type" not in record and isinstance(record.get("request"), Mapping):
        asked = record["request"].get("modelId")  # what Bedrock was asked for, whose prices differ by region
        record = {"model": asked} | {name: value for name, value in record.items() if name != "request"}
    line = record.get("response") if isinstance(record, Mapping) and "type" not in record else record
    if not isinstance(line, Mapping) or not is_line(line):
        return anthropic.events(record, options)
    message = line.get("message")
    if line["type"] != "assistant" or not isinstance(message, dict) or message.get("model") == _SYNTHETIC:
        return []
    around = {name: value for name, value in record.items() if name != "response"} if line is not record else {}
    known = {"timestamp": line.get("timestamp"), **around, "response": message}
    if "id" not in known and not message.get("id"):
        known["id"] = line.get("requestId") or line.get("uuid")
    found = anthropic.events({name: value for name, value in known.items() if value is not None}, options)
    if found and options.takes_costs and (told := cost(line.get("costUSD"))):
        found[0]["cost"] = told  # of the whole message
        for other in found[1:]:
            other["cost"] = {"value": 0, "currency": "usd"}
    return found
