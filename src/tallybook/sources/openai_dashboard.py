"""OpenAI's dashboard: rows of the usage it exports as CSV, ``<kind>_usage_<from>_<to>.csv``.

A row is what was used in a minute, an hour or a day by whoever the export was grouped by: an event for all its requests
together, at the bucket's start. Buckets without usage are rows with their window only.

Source: exports of 2025 and 2026.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from tallybook.kinds import DIMENSIONS, KINDS
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Options

SIGNS: Final = ("start_time", "end_time", "start_time_iso", "end_time_iso")
"""Columns by which such a file is known."""
_COSTS: Final = "amount_value"
_DERIVED: Final = ("input_uncached_tokens", "input_text_tokens", "input_cached_text_tokens", "output_text_tokens")
"""What follows from the rest. Exports have counted it in more than one way."""
_NAMES: Final = (
    "organization_id",
    "organization_name",
    "project_name",
    "user_name",
    "user_email",
    "api_key_name",
    "api_key_redacted",
)
"""Names for what the other columns identify."""
COLUMNS: Final = frozenset(
    {"kind", *SIGNS, *_NAMES} | {name for kind in KINDS.values() for name in (*kind.dimensions, *kind.measures)}
)
"""Columns that are read, or say nothing of usage."""


def events(row: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the event of a row; none of an empty bucket.

    Args:
        row: columns and their cells as text; ``kind`` is the file's, see `kind_of`.
        options: not looked at.

    Raises:
        FaultyRecord: it is no such row, or one of costs.
    """
    if not isinstance(row, Mapping) or any(name not in row for name in SIGNS):
        raise FaultyRecord(None, row, f"a row has at least the columns {', '.join(SIGNS)}")
    if _COSTS in row:
        raise FaultyRecord(
            _COSTS, row[_COSTS], "this is an export of costs, which says nothing of usage; see 'tallybook sync'"
        )
    kind = KINDS.get(row.get("kind") or "")
    if kind is None:
        raise FaultyRecord(
            "kind",
            row.get("kind"),
            f"the file is not called <kind>_usage_...: say which kind it is of, with --kind; one of {', '.join(KINDS)}",
        )
    given = {name: row.get(name) for name in (*kind.dimensions, *kind.measures) if row.get(name) not in (None, "")}
    if not any(name in given for name in kind.measures):
        return []
    event: Event = {"kind": kind.name, "timestamp": _number(row["start_time"])}
    for name, value in given.items():
        if name == "batch":
            event[name] = str(value).lower() == "true"
        elif name in DIMENSIONS:
            event[name] = value
        elif name not in _DERIVED:
            event[name] = _number(value)
    # The same bucket exported again has the same identity as long as it is grouped the same way.
    group = [row["end_time"], *(row.get(name) for name in kind.dimensions)]
    digest = hashlib.blake2b(json.dumps(group).encode(), digest_size=12).hexdigest()
    return [event | {"id": f"dashboard-{digest}"}]


def kind_of(file_name: str) -> str | None:
    """Return the usage kind a file's name says it is of."""
    return next((kind for kind in KINDS if file_name.startswith(f"{kind}_usage")), None)


def _number(text: Any) -> Any:
    """Return a count; exports write whole numbers with a fraction of 0."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return text
    return int(number) if number.is_integer() else number
