"""Records on disk, until a server takes them.

Each process has a directory of its own inside the spool's, and holds a lock in it for as long as it lives::

    spool/
        4711-8c1f0e.../lock
        4711-8c1f0e.../000000000001.openai.ndjson

The name of a segment says in which dialect its records are; they are one a line. A segment is only ever added to, and
removed once a server has all of it. Whoever finds a directory whose lock nobody holds takes its segments over.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # pragma: no cover  # not on Windows, where there is no spool
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"
_PLAIN = "events"
"""Stands in a segment's name for events of Tallybook's own, which have no dialect."""
_SEGMENT_BYTES = 1024 * 1024
"""A segment this large is not added to any more. It is read, sent and removed as a whole."""


class Segment(NamedTuple):
    """A file of records."""

    path: Path
    dialect: str
    size_bytes: int
    records: int


class Spool:
    """The directory of this process.

    Args:
        directory: of the spool, shared by all processes of an application; made if it does not exist.
        bytes_max: the most there may be in the directory of a process; what would exceed it is not added.
    """

    def __init__(self, directory: Path, bytes_max: int) -> None:
        if fcntl is None:  # pragma: no cover
            raise ValueError("a spool needs file locks of POSIX, which this system does not have")
        self._directory = directory
        self._bytes_max = bytes_max
        self._own: Path | None = None
        self._lock: int | None = None
        self._last = 0
        self._segments: dict[Path, Segment] = {}
        self._open: dict[str, tuple[Path, int]] = {}

    def prepare(self) -> None:
        """Make the spool's directory.

        Raises:
            OSError: there is none that can be written to.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._directory))

    @property
    def records(self) -> int:
        """How many records are on disk."""
        return sum(segment.records for segment in list(self._segments.values()))

    @property
    def size_bytes(self) -> int:
        """How many bytes are on disk."""
        return sum(segment.size_bytes for segment in list(self._segments.values()))

    def append(self, dialect: str, lines: Sequence[bytes]) -> bool:
        """Add records; return whether there was room. They are on disk, and stay there, when this returns.

        Raises:
            OSError: none of them was added.
        """
        content = b"".join(line + b"\n" for line in lines)
        if self.size_bytes + len(content) > self._bytes_max:
            return False
        path, file = self._open.get(dialect) or self._begin(dialect)
        segment = self._segments[path]
        try:
            _write(file, content)
            os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, segment.size_bytes)
            raise
        grown = segment._replace(size_bytes=segment.size_bytes + len(content), records=segment.records + len(lines))
        self._segments[path] = grown
        if grown.size_bytes >= _SEGMENT_BYTES:
            self._end(dialect)
        return True

    def first(self) -> tuple[Segment, list[bytes]] | None:
        """Return the segment that is next, the oldest or the one postponed first, with its records; None if none is."""
        for path, segment in list(self._segments.items()):
            if self._open.get(segment.dialect, (None,))[0] == path:
                self._end(segment.dialect)
            try:
                # What follows the last line's end was being written when its process ended: nobody was told it is here.
                lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
            except OSError:
                self.remove(segment)
                continue
            if lines:
                return segment, lines
            self.remove(segment)
        return None

    def remove(self, segment: Segment) -> None:
        """Remove a segment that a server has taken."""
        self._segments.pop(segment.path, None)
        with suppress(OSError):
            segment.path.unlink()

    def postpone(self, segment: Segment) -> None:
        """Let all others go before a segment that a server did not take."""
        self._segments[segment.path] = self._segments.pop(segment.path)

    def adopt(self) -> int:
        """Take over what processes that have ended left behind; return how many records."""
        found = 0
        with suppress(OSError):
            for directory in sorted(self._directory.iterdir()):
                if directory != self._own and directory.is_dir() and not directory.name.startswith("."):
                    found += self._adopt_from(directory)
        return found

    def close(self) -> None:
        """Let go of the directory: what is in it is for the next process to take over."""
        for dialect in list(self._open):
            self._end(dialect)
        if self._lock is not None and self._own is not None:
            if not self._segments:
                with suppress(OSError):
                    (self._own / _LOCK).unlink()
                    self._own.rmdir()
            os.close(self._lock)
        self._own = self._lock = None

    def forget(self) -> None:
        """Forget the directory, in a process that was forked: it is the parent's, and so is its lock."""
        for _, file in self._open.values():
            os.close(file)
        if self._lock is not None:
            os.close(self._lock)  # the parent has the lock open, too, and keeps it
        self._own = self._lock = None
        self._last = 0
        self._open = {}
        self._segments = {}

    def _adopt_from(self, directory: Path) -> int:
        found = 0
        with suppress(OSError):  # another process was quicker, or its owner lives
            lock = os.open(directory / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                own = self._directory_of_own()
                for path in sorted(directory.glob("*.ndjson")):
                    word = path.name.split(".")[1]
                    dialect = "" if word == _PLAIN else word
                    content = path.read_bytes()
                    target = self._next(own, dialect)
                    path.rename(target)
                    records = content.count(b"\n")
                    self._segments[target] = Segment(target, dialect, len(content), records)
                    found += records
                _sync(own)
                (directory / _LOCK).unlink()
                directory.rmdir()
            finally:
                os.close(lock)
        return found

    def _directory_of_own(self) -> Path:
        if self._own is None:
            self.prepare()
            name = f"{os.getpid()}-{uuid.uuid4().hex}"
            hidden = self._directory / f".{name}"  # until its lock is held: else it would look like a dead one's
            hidden.mkdir(mode=0o700)
            self._lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._own = hidden.rename(self._directory / name)
            _sync(self._directory)
        return self._own

    def _next(self, own: Path, dialect: str) -> Path:
        self._last += 1
        return own / f"{self._last:012}.{dialect or _PLAIN}.ndjson"

    def _begin(self, dialect: str) -> tuple[Path, int]:
        own = self._directory_of_own()
        path = self._next(own, dialect)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        _sync(own)
        self._open[dialect] = (path, file)
        self._segments[path] = Segment(path, dialect, 0, 0)
        return path, file

    def _end(self, dialect: str) -> None:
        _, file = self._open.pop(dialect)
        os.close(file)


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _sync(directory: Path) -> None:
    """Make sure that the names in a directory are on disk."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
