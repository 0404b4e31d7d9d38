"""Cohere's answers, of both versions of its API: chat, embed, and the last event of a stream.

A record is an answer as it came, the events of one stream as a list, or either in an envelope that says who made the
call (see `tallybook.sources.envelope`). An answer does not name its model: the envelope or the request in it does.

What is billed is counted, ``billed_units``; where an answer lacks them, ``tokens``, which also has what Cohere adds to
a prompt. Searches of rerank and classifications are not tokens, and there is no usage kind for them: they are rejected.

Source: types of the official ``cohere`` client 7.3.
"""

from collections.abc import Mapping
from typing import Any, Final

from tallybook.sources.envelope import common, note_fields, opened
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, made

_LAST: Final = ("message-end", "stream-end")
_UNITS: Final = ("billed_units", "tokens")
_USAGE: Final = (*_UNITS, "cached_tokens")
_META: Final = (*_USAGE, "api_version", "warnings")
_COUNTS: Final = ("input_tokens", "output_tokens", "text_tokens", "image_tokens")
_OTHER: Final = ("search_units", "classifications", "pages")
"""Units that no usage kind counts."""


def is_answer(answer: Mapping[str, Any]) -> bool:
    """Return whether an object is an answer or an event of a stream of this source, whatever is in it."""
    if isinstance(answer.get("event_type"), str) or _event_type(answer) is not None:
        return True
    where = [answer.get("usage"), answer.get("meta")]
    return any(isinstance(each, dict) and any(isinstance(each.get(name), dict) for name in _UNITS) for each in where)


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none of the events of a stream before its last.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    envelope, answer = opened(record, foreign=("event_type",))
    if isinstance(answer, list):
        answer = _merged(answer)
    answer = _last(answer)
    if answer is None:
        return []
    response = Fields(answer)
    name = "usage" if "usage" in response else "meta"
    usage = response.fields(name)
    note_fields(usage, _META if name == "meta" else _USAGE, options)
    billed, tokens = usage.fields("billed_units"), usage.fields("tokens")
    note_fields(billed, (*_COUNTS, *_OTHER), options)
    model = response.text("model") or envelope.fields("request").text("model")
    shared = common(
        envelope,
        identity=response.any("id", "response_id", "generation_id"),
        timestamp=None,
        model=model,
        tier=None,
        is_batch=False,
    )
    for unit in _OTHER:
        if billed.count(unit):
            raise billed.wrong(unit, "is not tokens, and no usage kind counts it; not counted")
    read = _input(billed)
    read = _input(tokens) if read is None else read
    if envelope.text("kind") == "embeddings" or "embeddings" in response:
        read = envelope.count("input_tokens") if "input_tokens" in envelope else read
        if read is None:
            raise response.wrong(name, "has no input_tokens; give input_tokens in the envelope")
        return [made("embeddings", shared, input_tokens=read)]
    written = billed.count("output_tokens")
    written = tokens.count("output_tokens") if written is None else written
    if read is None and written is None:
        raise FaultyRecord("usage", None, "usage is missing, and so is meta.billed_units; send the answer as it came")
    cached = usage.count("cached_tokens")
    if cached is not None:  # of the prompt with all that was added to it; no more can be cached than is billed
        cached = min(cached, read or 0)
    return [made("completions", shared, input_tokens=read or 0, input_cached_tokens=cached, output_tokens=written or 0)]


def _input(units: Fields) -> int | None:
    parts = [count for name in ("text_tokens", "image_tokens") if (count := units.count(name)) is not None]
    whole = units.count("input_tokens")
    return max(whole or 0, sum(parts)) if parts else whole


def _event_type(answer: Mapping[str, Any]) -> str | None:
    """Return the type of an event of a stream of version 2, None of anything else."""
    name = answer.get("type")
    is_event = isinstance(name, str) and name.endswith(("-start", "-delta", "-end"))
    return name if is_event and ("delta" in answer or "index" in answer) else None


def _last(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the answer that a stream's last event holds, or the answer itself; None of the events before."""
    name = answer.get("event_type") or _event_type(answer)
    if name is None:
        return answer
    inside = answer.get("response" if "event_type" in answer else "delta")
    if name not in _LAST or not isinstance(inside, dict):
        return None
    return {"id": answer.get("id"), **inside}


def _merged(found: list[Any]) -> dict[str, Any]:
    """Return the last event of a stream with the id of its first."""
    objects = [each for each in found if isinstance(each, dict)]
    identity = next((each["id"] for each in objects if each.get("id")), None)
    return {"id": identity, **(objects[-1] if objects else {})}
