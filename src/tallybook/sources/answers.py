"""Answers of whatever provider, told apart by their shape; what has none of the shapes is rejected, never guessed."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tallybook.sources import bedrock, claude_code, cohere, gemini, ollama, openai
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Options


class Shape(NamedTuple):
    """A source, and how its records are known.

    Attributes:
        name: of the source.
        is_answer: whether an object is an answer of it; what it holds may be wrong nevertheless.
        events: reads it, in its envelope or without.
    """

    name: str
    is_answer: Callable[[Mapping[str, Any]], bool]
    events: Callable[[Any, Options], list[Event]]


_ANTHROPIC_EVENTS: Final = (
    "message_start",
    "message_delta",
    "message_stop",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "ping",
)
_OPENAI_OBJECTS: Final = (
    "chat.completion",
    "chat.completion.chunk",
    "text_completion",
    "response",
    "response.compaction",
    "decision",
    "realtime.response",
    "batch",
)
_OPENAI_EVENTS: Final = ("response.", "transcript.", "image_generation.", "image_edit.", "conversation.item.")
_OPENAI_COUNTS: Final = ("prompt_tokens", "completion_tokens", "input_tokens", "seconds")


def _is_anthropic(answer: Mapping[str, Any]) -> bool:
    name = answer.get("type")
    if "custom_id" in answer:
        return isinstance(answer.get("result"), dict)
    return (name == "message" and "usage" in answer) or name in _ANTHROPIC_EVENTS


def _is_openai(answer: Mapping[str, Any]) -> bool:
    if "custom_id" in answer:
        return "response" in answer
    name, usage = answer.get("type"), answer.get("usage")
    return (
        answer.get("object") in _OPENAI_OBJECTS
        or (isinstance(name, str) and name.startswith(_OPENAI_EVENTS))
        or (name != "message" and isinstance(usage, dict) and any(count in usage for count in _OPENAI_COUNTS))
        or (answer.get("object") == "list" and isinstance(answer.get("data"), list))
    )


SHAPES: Final = (
    Shape("claude-code", claude_code.is_line, claude_code.events),
    Shape("gemini", gemini.is_answer, gemini.events),
    Shape("anthropic", _is_anthropic, claude_code.events),
    Shape("bedrock", bedrock.is_answer, bedrock.events),
    Shape("cohere", cohere.is_answer, cohere.events),
    Shape("ollama", ollama.is_answer, ollama.events),
    Shape("openai", _is_openai, openai.events),
)
"""In this order: an answer has the first shape that fits it. No answer known fits two."""


def shape_of(record: Any) -> Shape | None:
    """Return the shape of a record, in an envelope or without; None if it has none that is known."""
    answers = record if isinstance(record, list) else [record]
    for answer in answers:
        if not isinstance(answer, Mapping):
            continue
        for shape in SHAPES:
            if shape.is_answer(answer):
                return shape
    inside = record.get("response") if isinstance(record, Mapping) else None
    return shape_of(inside) if isinstance(inside, dict | list) else None


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record, read as what its shape says it is.

    Raises:
        FaultyRecord: it has no shape that is known, or what it has is wrong.
    """
    shape = shape_of(record)
    if shape is None:
        # What an answer of OpenAI's has no counts for, its envelope tells: a speech, a transcription.
        if isinstance(record, Mapping) and "kind" in record and isinstance(record.get("response"), dict):
            return openai.events(record, options)
        known = ", ".join(shape.name for shape in SHAPES)
        raise FaultyRecord(
            None, record, f"not an answer of a provider that is recognised, which are {known}; send it as it came"
        )
    return shape.events(record, options)
