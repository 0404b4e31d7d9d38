"""The store's files at one instant, copied while it is written, and a copy read back.

Between two checkpoints the engine appends what is committed to its log, and leaves everything alone that the header of
the main file leads to: that is what it needs after a power loss. So the main file and the beginning of the log are the
store as it was when the log was that long. Nobody has to pause for it, and nothing is written anew. `Store.hold` keeps
checkpoints away meanwhile; where one came all the same, the header has changed, and the copy is of no use.

This is for another process than the one that has the store open: the engine's lock on its file is lost once its own
process closes any handle of that file.
"""

import shutil
import time
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from tallybook.errors import CommandFailed, StoreUnusable
from tallybook.store.commits import last_commit
from tallybook.store.duckdb import FILE_NAME
from tallybook.store.schema import current_version

LOG_NAME: Final = f"{FILE_NAME}.wal"
_CHECKPOINT_LOG_NAME: Final = f"{LOG_NAME}.checkpoint"
"""There while a checkpoint is under way: what is committed meanwhile."""
_LEFTOVERS: Final = (_CHECKPOINT_LOG_NAME, f"{LOG_NAME}.recovery")
_HEADER_BYTES: Final = 3 * 4096
"""The main header, and the two that checkpoints write in turn."""
_CHECKPOINT_S_MAX: Final = 120
_LOOK_EVERY_S: Final = 0.1
_MEMORY: Final = "1GiB"


class Instant(NamedTuple):
    """What of the store's files is the store at an instant.

    Attributes:
        header: of the main file; while it is the same, so is all that it leads to.
        file_bytes: how much of the main file.
        log_bytes: how much of the log; 0 if there is none.
    """

    header: bytes
    file_bytes: int
    log_bytes: int


class Contents(NamedTuple):
    """What a store was found to hold, all of it read.

    Attributes:
        schema_version: version of its tables.
        rows: how many each table has.
        commits: number of the last commit in it.
    """

    schema_version: int
    rows: dict[str, int]
    commits: int


def instant(directory: Path) -> Instant:
    """Return the store's present instant; waits for a checkpoint that is under way.

    Raises:
        CommandFailed: the checkpoint does not end.
    """
    deadline = time.monotonic() + _CHECKPOINT_S_MAX
    while (found := _instant(directory)) is None:
        if time.monotonic() > deadline:
            raise CommandFailed(f"the store has been writing its main file for {_CHECKPOINT_S_MAX} s; try again later")
        time.sleep(_LOOK_EVERY_S)
    return found


def is_past(directory: Path, of: Instant) -> bool:
    """Return whether the files can no longer be copied as of an instant."""
    return _header(directory) != of.header


def _instant(directory: Path) -> Instant | None:
    header = _header(directory)
    log_bytes = _log_bytes(directory)
    # After the log: what that says is in the main file has been written by then.
    file_bytes = (directory / FILE_NAME).stat().st_size
    is_between = not (directory / _CHECKPOINT_LOG_NAME).exists() and log_bytes <= _log_bytes(directory)
    return Instant(header, file_bytes, log_bytes) if is_between and header == _header(directory) else None


def _log_bytes(directory: Path) -> int:
    try:
        return (directory / LOG_NAME).stat().st_size
    except FileNotFoundError:  # a checkpoint removes it
        return 0


def _header(directory: Path) -> bytes:
    with (directory / FILE_NAME).open("rb") as file:
        return file.read(_HEADER_BYTES)


def settle(directory: Path) -> None:
    """Finish a checkpoint that a kill broke off, in a store that no process has open.

    Raises:
        StoreUnusable: the store is damaged.
    """
    if any((directory / name).exists() for name in _LEFTOVERS):
        _connect(directory, read_only=False).close()


def read_back(directory: Path) -> Contents:
    """Read all of a store that no process has open, and leave it as it is.

    The engine compares what it reads with the checksums it was written with.

    Raises:
        StoreUnusable: it cannot be read.
    """
    try:
        with _connect(directory, read_only=True) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
            rows = {}
            for (table,) in tables:
                ((rows[table], *_),) = connection.execute(
                    f"SELECT count(*), bit_xor(hash(COLUMNS(*))) FROM {table}"
                ).fetchall()
            return Contents(current_version(connection), rows, last_commit(connection))
    except duckdb.Error as error:
        raise StoreUnusable(f"cannot read the store in {directory}: {error}") from error
    finally:
        shutil.rmtree(directory / "spill", ignore_errors=True)


def _connect(directory: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    path = directory / FILE_NAME
    try:
        return duckdb.connect(
            str(path),
            read_only=read_only,
            config={
                "memory_limit": _MEMORY,
                "threads": "1",  # a server is at work beside it
                "temp_directory": str(directory / "spill"),
                "autoinstall_known_extensions": "false",
            },
        )
    except duckdb.Error as error:
        raise StoreUnusable(f"cannot open the store {path}: {error}") from error
