"""Records that are events of ours already, and come from somewhere else.

Source ``sync`` is history from a provider's usage API: an event stands for all that a group used in an hour; see
`tallybook sync --as-events`. Source ``calls`` is what `tallybook import` made of records of calls: an event's id is
that of the provider's response, so a call that was reported by other means too is recognised.
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
