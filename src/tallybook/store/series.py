"""Which number a combination of dimensions has: a bounded memory of recent ones over the series table."""

from collections.abc import Iterable
from typing import Final

import duckdb
import pyarrow as pa

from tallybook.kinds import DIMENSIONS, KINDS

SeriesKey = tuple[str, str, tuple[str | bool | None, ...]]
"""Organization, kind, and the values of the kind's dimensions in its order."""

KNOWN_MAX: Final = 200_000
"""About 60 MB at the most. Beyond it the memory starts anew: what is needed again costs one look-up a commit."""

_COLUMNS: Final = ("organization_id", "kind", *DIMENSIONS)
_SCHEMA: Final = pa.schema(
    [("series_id", pa.int32())] + [(name, pa.bool_() if name == "batch" else pa.string()) for name in _COLUMNS]
)
_SAME: Final = " AND ".join(f"known.{name} IS NOT DISTINCT FROM wanted.{name}" for name in DIMENSIONS)


class SeriesIndex:
    """Numbers for series, within the transaction of the one writer that owns it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        row = connection.execute("SELECT coalesce(max(series_id), 0) FROM series").fetchone()
        assert row is not None  # an aggregate without groups always has one row
        self._last_id = int(row[0])
        self._known: dict[SeriesKey, int] = {}
        self._unsettled: dict[SeriesKey, int] = {}

    def numbers(self, connection: duckdb.DuckDBPyConnection, keys: Iterable[SeriesKey]) -> dict[SeriesKey, int]:
        """Return the number of each key; new ones are inserted in the connection's transaction.

        Call `settle` after the transaction has committed, `forget` after it was rolled back.
        """
        known = self._known
        wanted = dict.fromkeys(keys, 0)
        missing = [key for key in wanted if key not in known]
        if missing:
            found = self._look_up(connection, missing)
            new = [key for key in missing if key not in found]
            for key in new:
                self._last_id += 1
                found[key] = self._last_id
            if new:
                self._insert(connection, {key: found[key] for key in new})
            self._unsettled = found
        unsettled = self._unsettled
        return {key: known.get(key) or unsettled[key] for key in wanted}

    def settle(self) -> None:
        """The numbers given are on disk: remember them."""
        if len(self._known) + len(self._unsettled) > KNOWN_MAX:
            self._known.clear()
        self._known |= self._unsettled
        self._unsettled = {}

    def forget(self) -> None:
        """The transaction is gone, and with it the numbers it gave."""
        self._unsettled = {}

    @staticmethod
    def _look_up(connection: duckdb.DuckDBPyConnection, keys: list[SeriesKey]) -> dict[SeriesKey, int]:
        connection.register("wanted", _table(dict(zip(keys, range(len(keys)), strict=True))))
        rows = connection.execute(
            f"""SELECT wanted.series_id, known.series_id FROM wanted JOIN series AS known
                ON known.organization_id = wanted.organization_id AND known.kind = wanted.kind AND {_SAME}"""
        ).fetchall()
        connection.unregister("wanted")
        return {keys[position]: number for position, number in rows}

    @staticmethod
    def _insert(connection: duckdb.DuckDBPyConnection, numbers: dict[SeriesKey, int]) -> None:
        connection.register("new_series", _table(numbers))
        connection.execute("INSERT INTO series BY NAME SELECT * FROM new_series")
        connection.unregister("new_series")


def _table(numbers: dict[SeriesKey, int]) -> pa.Table:
    rows = []
    for (organization_id, kind, dimensions), number in numbers.items():
        named = dict(zip(KINDS[kind].dimensions, dimensions, strict=True))
        rows.append({"series_id": number, "organization_id": organization_id, "kind": kind} | named)
    return pa.Table.from_pylist(rows, schema=_SCHEMA)
