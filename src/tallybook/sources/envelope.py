"""Answers in an envelope that says who made the call, as the sources of single providers share it.

An envelope is this, and all of it but the response may be absent::

    {"response": {...}, "request": {...}, "user_id": ..., "project_id": ..., "api_key_id": ..., ...}

The response may be a list: the chunks or events of one stream, of which the last has the usage.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from tallybook.sources.record import WHO, Event, FaultyRecord, Fields, Options, call_id, is_blank, note_unread

NAMES: Final = frozenset(
    {"response", "request", "id", "timestamp", "model", "batch", "service_tier", "api_source", *WHO}
    | {"kind", "input_tokens"}
)


def opened(record: Any, *, foreign: Collection[str] = ()) -> tuple[Fields, Any]:
    """Return the envelope of a record, empty if it has none, and what is in it.

    Args:
        record: an answer, a list of chunks, or an envelope around either.
        foreign: fields of records that hold a response and are not envelopes, such as lines of a batch.

    Raises:
        FaultyRecord: it is neither an object nor a list, or the envelope has a field that envelopes do not have.
    """
    if isinstance(record, list):
        return Fields({}), record
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is a JSON object: an answer of the API, or one in an envelope")
    response = record.get("response")
    if not isinstance(response, dict | list) or any(name in record for name in foreign):
        return Fields({}), record
    envelope = Fields(record)
    if unknown := [name for name in record if name not in NAMES]:
        raise envelope.wrong(unknown[0], f"is not a field of an envelope; those are {', '.join(sorted(NAMES))}")
    return envelope, response


def common(
    envelope: Fields, *, identity: object, timestamp: object, model: str | None, tier: str | None, is_batch: bool
) -> Event:
    """Return what the events of one answer have in common; what the envelope says stands before the answer's own."""
    return {
        "id": _identity(envelope.values.get("id") or identity),
        "timestamp": envelope.any("timestamp") or timestamp,
        "model": envelope.text("model") or model,
        "service_tier": envelope.text("service_tier") or tier,
        "batch": envelope.values.get("batch", is_batch or None),
        **{name: envelope.text(name) for name in (*WHO, "api_source")},
    }


def _identity(value: object) -> str | None:
    return call_id(value) if isinstance(value, str) and value else None


def note_fields(usage: Fields, read: Collection[str], options: Options) -> None:
    """Note the fields of a usage object that are not zero and that nothing reads, by their path."""
    for name, value in usage.values.items():
        if name not in read and _is_used(value):
            note_unread(options, f"{usage.path}.{name}" if usage.path else name)


def _is_used(value: object) -> bool:
    """Return whether a value says that something was used: a number or text in it is not zero or empty."""
    if isinstance(value, Mapping):
        return any(map(_is_used, value.values()))
    if isinstance(value, list):
        return any(map(_is_used, value))
    return not is_blank(value)
