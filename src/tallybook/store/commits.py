"""The number of the last commit that was acknowledged, kept beside the store.

The engine's log has checksums, but an end: one that was cut short, or lost, looks like one that never was longer. So
each commit has a number, a sequence in the store, and the last one is also written to a file of its own. A store that
has fewer commits than were acknowledged lacks some.

The file is not forced to disk, so it costs next to nothing: after a power loss it may be behind, and never ahead.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import duckdb

from tallybook.errors import StoreUnusable

_SEQUENCE: Final = "commits"
_DIGITS: Final = 20


def path_of(store: Path) -> Path:
    """Return where the number is that belongs to a store's file."""
    return store.with_name(f"{store.name}.commits")


def acknowledged(store: Path) -> int:
    """Return the number of the last commit that was acknowledged of a store, 0 if that is not known."""
    try:
        return _number(path_of(store).read_bytes())
    except FileNotFoundError:
        return 0


def _number(recorded: bytes) -> int:
    digits = recorded[:_DIGITS]
    return int(digits) if digits.isdigit() else 0


def last_commit(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the last commit a store has, 0 if it has never had one."""
    ((found,),) = connection.execute(
        "SELECT coalesce(max(last_value), 0) FROM duckdb_sequences() WHERE sequence_name = ?", [_SEQUENCE]
    ).fetchall()
    return int(found)


class Commits:
    """Numbers commits, and knows when some are missing.

    Args:
        store: path of the store's file, which may be missing.

    Raises:
        StoreUnusable: it is missing, but has been there.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._path = path_of(store)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._acknowledged = _number(os.pread(self._file, _DIGITS, 0))
        if self._acknowledged and not store.exists():
            self.close()
            raise StoreUnusable(f"the store {store} is gone; {self._way_out}")

    def check(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Compare the store with what was acknowledged.

        Raises:
            StoreUnusable: it lacks commits.
        """
        connection.execute(f"CREATE SEQUENCE IF NOT EXISTS {_SEQUENCE}")
        found = last_commit(connection)
        if found < self._acknowledged:
            raise StoreUnusable(
                f"the store {self._store} lacks the last {self._acknowledged - found} of {self._acknowledged} commits "
                "that were acknowledged: its log was cut short, or older files have taken the place of its own; "
                f"{self._way_out}"
            )

    def number(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Return the number of the commit that the connection's open transaction will be."""
        ((number,),) = connection.execute(f"SELECT nextval('{_SEQUENCE}')").fetchall()
        return int(number)

    def acknowledge(self, number: int) -> None:
        """Note that a commit is on disk, before anyone is told."""
        self._acknowledged = number
        with suppress(OSError):  # the commit stands; the next one writes the number anew
            self._write()

    def force(self) -> None:
        """Have the number on disk.

        Raises:
            OSError: it cannot be written.
        """
        self._write()
        os.fsync(self._file)

    def _write(self) -> None:
        os.pwrite(self._file, f"{self._acknowledged:0{_DIGITS}}\n".encode(), 0)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    @property
    def _way_out(self) -> str:
        return (
            "restore a backup with 'tallybook restore', or, to go on without what is lost, delete "
            f"{self._path} and start again"
        )
