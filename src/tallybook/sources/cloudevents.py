"""CloudEvents 1.0 around events of ours: source and id of the envelope are the event's identity.

A record is a CloudEvent in its JSON format. Its ``data`` is an event of ours; the event's ``id`` becomes what the
envelope says, so that the same CloudEvent sent again is recognised, and its ``timestamp``, if it has none, the
envelope's ``time``.

Source: CloudEvents specification 1.0, and its JSON format.
"""

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from tallybook.event import rfc3339_to_ms
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, call_id

_VERSION: Final = "1.0"
_JSON: Final = re.compile(r"\s*(application|text)/([\w.+-]+\+)?json\s*(;.*)?", re.IGNORECASE)
_URI_REFERENCE: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the event that a CloudEvent carries.

    Args:
        record: the CloudEvent.
        options: not looked at.

    Raises:
        FaultyRecord: an attribute is missing or wrong; it is named.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a CloudEvent is a JSON object")
    envelope = Fields(record)
    if envelope.values.get("specversion") != _VERSION:
        raise envelope.wrong("specversion", f"must be {_VERSION!r}")
    name, source = _required(envelope, "id"), _required(envelope, "source")
    _required(envelope, "type")
    if not _URI_REFERENCE.fullmatch(source):
        raise envelope.wrong("source", "must be a URI-reference; it has no spaces")
    event = {**_data(envelope), "id": identity(source, name)}
    if event.get("timestamp") is None:
        event["timestamp"] = _time(envelope)
    return [event]


def identity(source: str, name: str) -> str:
    """Return the id of an event: source and id of its CloudEvent, or a digest where they are too long for one."""
    return call_id(f"{source} {name}")


def _required(envelope: Fields, name: str) -> str:
    value = envelope.values.get(name)
    if not isinstance(value, str) or not value:
        raise envelope.wrong(name, "must be a string that is not empty; every CloudEvent has one")
    return value


def _time(envelope: Fields) -> str:
    value = envelope.values.get("time")
    if value is None:
        raise envelope.wrong(
            "time",
            "is missing, and data has no timestamp: without either it would count once more whenever it is sent again",
        )
    try:
        rfc3339_to_ms(str(value))
    except ValueError:
        raise envelope.wrong("time", "must be RFC 3339 with an offset, like 2026-01-31T09:30:00.250Z") from None
    return str(value)


def _data(envelope: Fields) -> Event:
    data = envelope.values.get("data")
    kind = envelope.values.get("datacontenttype")
    if kind is not None and not (isinstance(kind, str) and _JSON.fullmatch(kind)):
        raise envelope.wrong("datacontenttype", "must be application/json")
    if envelope.values.get("data_base64") is not None:
        if data is not None:
            raise envelope.wrong("data_base64", "must not be there beside data")
        data = _unpacked(envelope)
    if not isinstance(data, dict):
        raise envelope.wrong("data", "must be an event: a JSON object with at least a kind")
    return data


def _unpacked(envelope: Fields) -> Any:
    try:
        return msgspec.json.decode(base64.b64decode(str(envelope.values["data_base64"]), validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise envelope.wrong("data_base64", "must be an event: a JSON object, in base64") from None
