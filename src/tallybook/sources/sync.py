"""History from a provider's usage API: events of ours already, told apart from what was recorded as it happened.

An event stands for all that a group used in an hour; see `tallybook sync --as-events`.
"""

from typing import Any

from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Options


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the record as the event it is.

    Raises:
        FaultyRecord: it is no object.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is an event: a JSON object")
    return [record]
