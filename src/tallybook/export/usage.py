"""Raw usage as events that can be imported again: what the store gives, as the importer takes it.

A file of it has one column for each field an event can have. A field its kind does not have is null. `cost` is the
value in US dollars; `timestamp` is RFC 3339 with milliseconds, as exact as the store keeps it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from tallybook.event import COST_SCALE
from tallybook.kinds import DIMENSIONS, MEASURES

_SCHEMA: Final = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("timestamp", pa.string(), nullable=False),
        *(pa.field(name, pa.bool_() if name == "batch" else pa.string()) for name in DIMENSIONS),
        *(pa.field(name, pa.int64()) for name in MEASURES),
        pa.field("cost", pa.decimal128(38, COST_SCALE)),
    ]
)


def usage_schema() -> pa.Schema:
    """Return the columns of a usage export: the fields of events."""
    return _SCHEMA


def usage_batches(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield stored events as they are exported.

    Args:
        rows: of the store, with a column for each field, by name and in any order; `timestamp` without a zone, in UTC.
            The id of an event without an identity has to be null: two such events may have the same id and the same
            millisecond, and would become one when they are imported again.
    """
    for batch in rows:
        columns = {name: batch.column(name) for name in _SCHEMA.names}
        instants: Any = columns["timestamp"].cast(pa.timestamp("ms"))  # refuses to lose what is finer
        columns["timestamp"] = pc.strftime(instants, format="%Y-%m-%dT%H:%M:%SZ")
        yield pa.record_batch([columns[field.name].cast(field.type) for field in _SCHEMA], schema=_SCHEMA)
