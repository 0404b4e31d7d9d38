"""Which number a combination of dimensions has: a bounded memory of recent ones over the series table.

Each series belongs to two coarser ones, which lack some of its dimensions; rollups of those have far fewer cells, and
most questions ask for no more. A coarser series is a row of the same table.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import duckdb
import pyarrow as pa

from tallybook.columns import Dimensions
from tallybook.kinds import DIMENSIONS, KINDS

Owner = tuple[str, str]
"""Organization and kind."""
Wanted = Mapping[Owner, Sequence[Dimensions]]
"""Values of the kind's dimensions in its order, as often as they occur."""
Numbers = dict[Owner, dict[Dimensions, int]]

GRAINS: Final[Mapping[str, frozenset[str]]] = {
    "series_id": frozenset(),
    "project_series_id": frozenset({"user_id", "api_key_id", "vector_store_id"}),
    "organization_series_id": frozenset({"project_id", "user_id", "api_key_id", "vector_store_id"}),
}
"""Columns of the series table that name a series, itself or a coarser one: which dimensions that lacks."""

KNOWN_MAX: Final = 200_000
"""About 60 MB at the most. Beyond it the memory starts anew: what is needed again costs one look-up a commit."""

_COLUMNS: Final = ("organization_id", "kind", *DIMENSIONS)
_SCHEMA: Final = pa.schema(
    [(name, pa.int32()) for name in GRAINS]
    + [(name, pa.bool_() if name == "batch" else pa.string()) for name in _COLUMNS]
)
_SAME: Final = " AND ".join(f"known.{name} IS NOT DISTINCT FROM wanted.{name}" for name in DIMENSIONS)
READ_MAX: Final = 50_000
"""Up to so many series are read at the start: a quarter of a second."""


class SeriesIndex:
    """Numbers for series, within the transaction of the one writer that owns it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        ((self._last_id, count),) = connection.execute(
            "SELECT coalesce(max(series_id), 0), count(*) FROM series"
        ).fetchall()
        self._knows_all = count <= READ_MAX
        """Whether a series that is not in memory is none of the table's: there is no need to look it up."""
        self._known: Numbers = _read(connection) if self._knows_all else {}
        self._known_count = count if self._knows_all else 0
        self._unsettled: Numbers = {}

    def numbers(self, connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> Mapping[Owner, Sequence[int | None]]:
        """Return the number of each series; new ones are inserted in the connection's transaction.

        Call `settle` after the transaction has committed, `forget` after it was rolled back.
        """
        found: dict[Owner, list[int | None]] = {}
        missing: dict[Owner, list[Dimensions]] = {}
        for owner, rows in wanted.items():
            numbers = found[owner] = list(map(self._known.get(owner, {}).get, rows))
            if None in numbers:
                unknown = (row for row, number in zip(rows, numbers, strict=True) if number is None)
                missing[owner] = list(dict.fromkeys(unknown))
        if missing:
            self._unsettled = self._find_or_make(connection, missing)
        for owner in missing:
            numbers = found[owner]
            new = self._unsettled[owner]
            numbers[:] = [number or new[row] for row, number in zip(wanted[owner], numbers, strict=True)]
        return found

    def settle(self) -> None:
        """The numbers given are on disk: remember them."""
        added = sum(map(len, self._unsettled.values()))
        if self._known_count + added > KNOWN_MAX:
            self._known.clear()
            self._known_count = 0
            self._knows_all = False
        for owner, numbers in self._unsettled.items():
            self._known.setdefault(owner, {}).update(numbers)
        self._known_count += added
        self._unsettled = {}

    def forget(self) -> None:
        """The transaction is gone, and with it the numbers it gave."""
        self._unsettled = {}

    def _find_or_make(self, connection: duckdb.DuckDBPyConnection, missing: dict[Owner, list[Dimensions]]) -> Numbers:
        """Return the numbers of series and of the coarser ones they belong to."""
        keys = {
            (owner, coarser): None
            for owner, rows in missing.items()
            for row in rows
            for coarser in _grains(owner[1], row)
        }
        found: Numbers = {owner: {} for owner in missing}
        if self._knows_all:
            for owner, row in keys:
                if number := self._known.get(owner, {}).get(row):
                    found[owner][row] = number
        else:
            for (owner, row), number in _look_up(connection, list(keys)).items():
                found[owner][row] = number
        new = [(owner, row) for owner, row in keys if row not in found[owner]]
        for owner, row in new:
            self._last_id += 1
            found[owner][row] = self._last_id
        if new:
            table = _table(
                [(owner, row, [found[owner][part] for part in _grains(owner[1], row)]) for owner, row in new]
            )
            connection.register("new_series", table)
            connection.execute("INSERT INTO series BY NAME SELECT * FROM new_series")
            connection.unregister("new_series")
        return found


def _grains(kind: str, row: Dimensions) -> list[Dimensions]:
    """A series, and the coarser ones it belongs to, in the order of `GRAINS`."""
    names = KINDS[kind].dimensions
    return [
        tuple(None if name in lacking else value for name, value in zip(names, row, strict=True))
        for lacking in GRAINS.values()
    ]


def _read(connection: duckdb.DuckDBPyConnection) -> Numbers:
    """Return the numbers of all series."""
    found: Numbers = {}
    for kind in KINDS.values():
        rows = connection.execute(
            f"SELECT organization_id, series_id, {', '.join(kind.dimensions)} FROM series WHERE kind = ?", [kind.name]
        ).fetchall()
        for organization_id, number, *row in rows:
            found.setdefault((organization_id, kind.name), {})[tuple(row)] = number
    return found


def _look_up(
    connection: duckdb.DuckDBPyConnection, keys: list[tuple[Owner, Dimensions]]
) -> dict[tuple[Owner, Dimensions], int]:
    connection.register("wanted", _table([(*key, [place]) for place, key in enumerate(keys)]))
    rows = connection.execute(
        f"""SELECT wanted.series_id, known.series_id FROM wanted JOIN series AS known
            ON known.organization_id = wanted.organization_id AND known.kind = wanted.kind AND {_SAME}"""
    ).fetchall()
    connection.unregister("wanted")
    return {keys[place]: number for place, number in rows}


def _table(rows: list[tuple[Owner, Dimensions, list[int]]]) -> pa.Table:
    named = []
    for (organization_id, kind), row, numbers in rows:
        values: dict[str, object] = dict(zip(GRAINS, numbers, strict=False))
        values |= {"organization_id": organization_id, "kind": kind}
        values |= zip(KINDS[kind].dimensions, row, strict=True)
        named.append(values)
    return pa.Table.from_pylist(named, schema=_SCHEMA)
