"""Ollama's own answers: chat, generate and embed.

A record is an answer as it came, a stream's chunks one by one or as a list, or either in an envelope that says who made
the call (see `tallybook.sources.envelope`). Chunks that are not ``done`` have no counts and are nothing. An answer has
no id: without one in the envelope it is counted each time it is sent.

Source: types of the official ``ollama`` client 0.6; Ollama's API reference.
"""

from collections.abc import Mapping
from typing import Any, Final

from tallybook.sources.envelope import common, opened
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, is_blank, made, note_unread

_SIGNS: Final = ("prompt_eval_count", "eval_count", "done_reason", "total_duration")
_COUNTS: Final = ("prompt_eval_count", "eval_count")
_CACHED: Final = "prompt_eval_cached_count"
"""What of the prompt was in memory, where a version says it."""


def is_answer(answer: Mapping[str, Any]) -> bool:
    """Return whether an object is an answer or a chunk of this source, whatever is in it."""
    return any(name in answer for name in _SIGNS) or (isinstance(answer.get("done"), bool) and "model" in answer)


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none of a chunk that is not done, or of a model that was only loaded.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    envelope, answer = opened(record)
    if isinstance(answer, list):
        answer = next(
            (each for each in reversed(answer) if isinstance(each, dict) and each.get("done")), {"done": False}
        )
    response = Fields(answer)
    if response.values.get("done") is False or (
        response.values.get("done_reason") in ("load", "unload") and not any(name in response for name in _COUNTS)
    ):
        return []
    model = response.text("model") or envelope.fields("request").text("model")
    shared = common(
        envelope, identity=None, timestamp=response.any("created_at"), model=model, tier=None, is_batch=False
    )
    read = response.count("prompt_eval_count")
    if envelope.text("kind") == "embeddings" or "embeddings" in response or "embedding" in response:
        read = envelope.count("input_tokens") if "input_tokens" in envelope else read
        if read is None:
            raise response.wrong("prompt_eval_count", "is missing; give input_tokens in the envelope")
        return [made("embeddings", shared, input_tokens=read)]
    if not any(name in response for name in _COUNTS):
        raise FaultyRecord(
            "eval_count", None, "eval_count is missing; send a stream's last chunk, the one that is done"
        )
    cached = response.count(_CACHED)
    for name in response.values:
        if name.endswith("_count") and name not in (*_COUNTS, _CACHED) and not is_blank(response.values[name]):
            note_unread(options, name)
    # Absent: the whole prompt was in memory from the request before, and none of it had to be read.
    return [
        made(
            "completions",
            shared,
            input_tokens=max(read or 0, cached or 0),
            input_cached_tokens=cached,
            output_tokens=response.count("eval_count") or 0,
        )
    ]
