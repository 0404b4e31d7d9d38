"""One process to a data directory, and where that process can be reached; one backup of it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from filelock import FileLock, Timeout

from tallybook.errors import CommandFailed, StoreLocked

_LOCK: Final = "server.lock"
_ADDRESS: Final = "server.json"
_BACKUP_LOCK: Final = "backup.lock"
_WAIT_S: Final = 0.5
"""A command that looks whether a server runs holds the lock for a moment."""


class Address(msgspec.Struct, frozen=True):
    """Which process has a data directory open, and where it listens."""

    pid: int
    url: str


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold a data directory for this process; made if it does not exist.

    The lock is the operating system's: it goes when the process does, however that ends.

    Raises:
        StoreLocked: another process holds it.
        CommandFailed: the directory cannot be made or written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(directory / _LOCK)
        lock.acquire(timeout=_WAIT_S)
        # A server that was killed has left its address; nothing may be sent there any more.
        (directory / _ADDRESS).unlink(missing_ok=True)
    except Timeout:
        raise StoreLocked(_who_holds(directory)) from None
    except OSError as error:
        raise CommandFailed(f"cannot use the data directory {directory}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # left behind it does no harm: the lock is gone
            (directory / _ADDRESS).unlink(missing_ok=True)
        lock.release()


def publish(directory: Path, address: Address) -> None:
    """Write down where the holder of a directory listens.

    Raises:
        CommandFailed: the directory cannot be written.
    """
    new = directory / f"{_ADDRESS}.new"
    try:
        new.write_bytes(msgspec.json.encode(address))
        new.replace(directory / _ADDRESS)  # whole or not at all, for whoever reads it meanwhile
    except OSError as error:
        raise CommandFailed(f"cannot use the data directory {directory}: {error.strerror or error}") from error


def running(directory: Path) -> Address | None:
    """Return the address of the server that holds a directory now, None if there is none."""
    if not (directory / _ADDRESS).exists():
        return None
    lock = FileLock(directory / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _read(directory)
    lock.release()
    return None


@contextmanager
def hold_backup(directory: Path) -> Iterator[None]:
    """Hold what tells the server of a data directory that a backup is made of it, by somebody who can write there.

    Raises:
        CommandFailed: another backup is being made, or the directory cannot be written.
    """
    lock = FileLock(directory / _BACKUP_LOCK)
    try:
        lock.acquire(timeout=_WAIT_S)
    except Timeout:
        raise CommandFailed(f"another backup of {directory} is under way; wait for it to end") from None
    except OSError as error:
        raise CommandFailed(f"cannot use the data directory {directory}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def is_backed_up(directory: Path) -> bool:
    """Return whether a backup of a data directory is being made now."""
    lock = FileLock(directory / _BACKUP_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _read(directory: Path) -> Address | None:
    try:
        return msgspec.json.decode((directory / _ADDRESS).read_bytes(), type=Address)
    except (OSError, msgspec.DecodeError):
        return None


def _who_holds(directory: Path) -> str:
    address = _read(directory)
    who = f"process {address.pid} at {address.url}" if address else "another process"
    return f"the data directory {directory} is in use by {who}; stop it first, or choose another --data"
