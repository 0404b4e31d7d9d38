"""The CSV that OpenAI's own dashboard exports for costs: a row for each period, line item and project.

Columns: the dashboard's, in its order. Tallybook has no names of organizations: their ids stand for them.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby, islice
from typing import Any, Final

import pyarrow as pa

from tallybook.export.charge import SCALE, WIDE, Charge

_ROWS_AT_ONCE: Final = 4_096

_FIELDS: "Final[list[pa.Field[Any]]]" = [
    pa.field("start_time", pa.int64(), nullable=False),
    pa.field("end_time", pa.int64(), nullable=False),
    pa.field("start_time_iso", pa.string(), nullable=False),
    pa.field("end_time_iso", pa.string(), nullable=False),
    pa.field("amount_value", pa.decimal128(38, SCALE), nullable=False),
    pa.field("amount_currency", pa.string(), nullable=False),
    pa.field("line_item", pa.string(), nullable=False),
    pa.field("project_id", pa.string()),
    pa.field("organization_id", pa.string(), nullable=False),
    pa.field("organization_name", pa.string(), nullable=False),
]
SCHEMA: Final = pa.schema(_FIELDS)


def dashboard_batches(charges: Iterable[Charge]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the dashboard's CSV.

    Args:
        charges: those of one period next to each other; of more than one period nothing is held.
    """
    rows = _rows(charges)
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        columns = zip(*chunk, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        yield pa.record_batch(arrays, schema=SCHEMA)


def _rows(charges: Iterable[Charge]) -> Iterator[tuple[Any, ...]]:
    for (start_s, end_s), period in groupby(charges, key=lambda charge: (charge.start_s, charge.end_s)):
        sums: dict[tuple[str, str | None, str], Decimal] = {}
        for charge in period:
            key = (charge.line_item, charge.project_id, charge.organization_id)
            sums[key] = WIDE.add(sums.get(key, Decimal(0)), charge.amount)
        start_iso, end_iso = (datetime.fromtimestamp(instant_s, UTC).isoformat() for instant_s in (start_s, end_s))
        for (line_item, project_id, organization_id), amount in sums.items():
            who = (line_item, project_id, organization_id, organization_id)
            yield (start_s, end_s, start_iso, end_iso, amount, "usd", *who)
