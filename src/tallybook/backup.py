"""Backups: a data directory as it was at one instant, as a directory with the same files and a manifest.

A backup is written under another name, read back, and gets its own name last: what has the name is whole. So is what is
restored: it is read, opened as a server would, and only then put where a server looks for it.

Whoever makes a backup reads the files of the data directory, and so is its operator; there is no way to one over the
network.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tallybook import __version__, keys, lock
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.store import files as store_files
from tallybook.store.commits import acknowledged, path_of
from tallybook.store.duckdb import FILE_NAME, DuckStore
from tallybook.store.schema import VERSION

MANIFEST_NAME: Final = "manifest.json"
FORMAT: Final = 1
_BESIDE: Final = ("library-prices.json", "*.csv", "*.toml")
"""What else of a data directory belongs to a backup: price files and settings, where they are kept there."""
_NOT_OURS: Final = ("server.lock", "server.json", "backup.lock", "lost+found", "spill")
"""What an empty data directory may have in it all the same."""
_RESTORING: Final = "restoring"
_TRIES: Final = 3
_PIECE_BYTES: Final = 1 << 20
_SPARE_BYTES: Final = 64 << 20
"""What shall still be free after a copy."""
_MEMORY_BYTES: Final = 1 << 30

Tell = Callable[[str, int], None]
"""Takes what is being done, and how many bytes of it are done since the last time."""
Holding = Callable[[], AbstractContextManager[None]]
"""Keeps the store's main file as it is: by asking the server that has it open, or by keeping servers away."""


class File(msgspec.Struct, frozen=True):
    """A file of a backup."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds.

    Attributes:
        format: version of this layout.
        version: of the program that made it.
        schema_version: of the store's tables.
        created_at_s: the instant it shows, Unix seconds.
        rows: how many each table of the store has.
        files: all its files but this one.
    """

    format: int
    version: str
    schema_version: int
    created_at_s: int
    rows: dict[str, int]
    files: list[File]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


def back_up(data: Path, target: Path, holding: Holding, tell: Tell) -> Manifest:
    """Write a backup of a data directory, which may be in use, and read it back.

    Args:
        data: the data directory.
        target: directory to make.
        holding: keeps the store's main file as it is while it is copied.
        tell: is told of the progress.

    Raises:
        OperatorError: it cannot be made; nothing is left of it.
    """
    target = _refuse_bad_target(data, target)
    part = target.with_name(f".{target.name}.part")
    with lock.hold_backup(data), _explained(f"cannot make the backup {target}"):
        shutil.rmtree(part, ignore_errors=True)  # of a backup that was killed
        try:
            part.mkdir(mode=0o700)
            manifest = _read_back(part, _copy_all(data, part, holding, tell), tell)
            _write(part / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest)))
            _sync(part)
            part.rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return manifest


def restore(source: Path, data: Path, tell: Tell, *, replace: bool) -> tuple[Manifest, Path | None]:
    """Make a data directory from a backup.

    Args:
        source: the backup.
        data: the data directory; no server may run on it.
        tell: is told of the progress.
        replace: put aside what is there. Otherwise the directory has to be empty.

    Returns:
        What was restored, and where is what was there before, if there was anything.

    Raises:
        OperatorError: the backup is no good, or cannot be restored; the directory is as it was.
    """
    manifest = _read_manifest(source)
    with lock.hold(data), _explained(f"cannot restore {source} to {data}"):
        staged = data / _RESTORING
        shutil.rmtree(staged, ignore_errors=True)  # of a restore that was killed
        if not replace:
            _refuse_full(data)
        _refuse_full_disk(data, manifest.size_bytes)
        try:
            staged.mkdir(mode=0o700)
            for file in manifest.files:
                _copy_checked(source, staged, file, tell)
            _try_out(staged, manifest, tell)
            aside = _put_aside(data) if replace else None
            # The store comes last: where it is, the rest is.
            for path in sorted(staged.iterdir(), key=lambda path: path.name == FILE_NAME):
                path.rename(data / path.name)
            _sync(data)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return manifest, aside


def _refuse_bad_target(data: Path, target: Path) -> Path:
    """Return the target as an absolute path."""
    if not (data / FILE_NAME).is_file():
        raise CommandFailed(f"there is no store in {data}; name its directory with --data")
    if os.path.lexists(target):
        raise CommandFailed(f"{target} exists already; name a directory that does not")
    parent = target.parent.resolve()
    if not parent.is_dir():
        raise CommandFailed(f"there is no directory {parent} to make the backup in; is it mounted?")
    if parent.is_relative_to(data.resolve()):
        raise CommandFailed(f"{target} is inside the data directory, and would be lost with it; name another place")
    _refuse_full_disk(parent, sum(path.stat().st_size for path in data.glob("*.duckdb*")))
    return parent / target.name


def _refuse_full_disk(directory: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes + _SPARE_BYTES:
        raise CommandFailed(
            f"{directory} has {free_bytes:,} bytes free, but {needed_bytes + _SPARE_BYTES:,} are needed"
        )


def _copy_all(data: Path, part: Path, holding: Holding, tell: Tell) -> tuple[int, list[File]]:
    """Copy what belongs to a backup; return the instant it is of, and its files."""
    created_at_s, files = _copy_store(data, part, holding, tell)
    copied = part / keys.FILE_NAME
    os.close(os.open(copied, os.O_CREAT | os.O_EXCL, 0o600))
    keys.copy_keys(data, copied)
    with copied.open("rb") as file:
        os.fsync(file.fileno())
        files.append(File(copied.name, copied.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()))
    for path in sorted(path for pattern in _BESIDE for path in data.glob(pattern) if path.is_file()):
        files.append(_copy(path, part / path.name, path.stat().st_size, tell))
    return created_at_s, files


def _copy_store(data: Path, part: Path, holding: Holding, tell: Tell) -> tuple[int, list[File]]:
    for _ in range(_TRIES):
        with holding():
            # The number of the last commit acknowledged comes first, so that the store cannot but have it.
            number = path_of(data / FILE_NAME)
            files = [_copy(number, part / number.name, number.stat().st_size, tell)] if number.exists() else []
            instant = store_files.instant(data)
            created_at_s = now_s()
            sizes = {FILE_NAME: instant.file_bytes, store_files.LOG_NAME: instant.log_bytes}
            files += (_copy(data / name, part / name, size, tell) for name, size in sizes.items() if size)
            if not store_files.is_past(data, instant):
                return created_at_s, files
        for file in files:
            (part / file.name).unlink()
    raise CommandFailed(
        f"the store's main file was written anew while it was copied, {_TRIES} times; try again when the server has "
        "less to do, or copy to a faster disk"
    )


def _read_back(part: Path, copied: tuple[int, list[File]], tell: Tell) -> Manifest:
    """Read the files of a backup as they are on disk, and the store as a store; return its manifest."""
    created_at_s, files = copied
    for file in files:
        with (part / file.name).open("rb") as stream:
            _forget_cached(stream)
            digest, size_bytes = _digest(stream, tell)
        if (digest, size_bytes) != (file.sha256, file.size_bytes):
            raise CommandFailed(f"{file.name} does not read back as it was written; do not trust the disk of {part}")
    tell("reading all of it", 0)
    contents = store_files.read_back(part)
    if contents.commits < (wanted := acknowledged(part / FILE_NAME)):
        raise CommandFailed(f"the store has {contents.commits} commits, but {wanted} were acknowledged")
    return Manifest(FORMAT, __version__, contents.schema_version, created_at_s, contents.rows, files)


def _read_manifest(source: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((source / MANIFEST_NAME).read_bytes(), type=Manifest)
    except OSError as error:
        raise CommandFailed(f"{source} is no backup: {MANIFEST_NAME}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise CommandFailed(f"{source} is no backup, or a damaged one: {MANIFEST_NAME}: {error}") from error
    if manifest.format > FORMAT or manifest.schema_version > VERSION:
        raise CommandFailed(
            f"{source} was made by tallybook {manifest.version}, this is {__version__}; use a newer one"
        )
    for file in manifest.files:
        if not re.fullmatch(r"\w[\w.-]*", file.name) or file.name == MANIFEST_NAME:
            raise CommandFailed(f"{source} is no backup, or a damaged one: it names a file {file.name!r}")
    return manifest


def _refuse_full(data: Path) -> None:
    found = sorted(path.name for path in data.iterdir() if path.name not in _NOT_OURS)
    if found:
        raise CommandFailed(
            f"the data directory {data} is not empty, it has {', '.join(found[:3])}; name another, or put aside what "
            "is there with --replace"
        )


def _copy_checked(source: Path, staged: Path, file: File, tell: Tell) -> None:
    copied = _copy(source / file.name, staged / file.name, file.size_bytes, tell)
    if copied != file:
        raise CommandFailed(
            f"{source / file.name} is not what was backed up: its SHA-256 is {copied.sha256}, not {file.sha256}; "
            "restore another backup"
        )


def _try_out(staged: Path, manifest: Manifest, tell: Tell) -> None:
    """Open what is to be restored as a server would."""
    tell("reading all of it", 0)
    contents = store_files.read_back(staged)
    if contents.rows != manifest.rows:
        raise CommandFailed(f"the store has {contents.rows} rows, but {manifest.rows} were backed up")
    tell("opening the store", 0)
    DuckStore(staged, _MEMORY_BYTES).close()
    keys.KeyStore(staged).close()


def _put_aside(data: Path) -> Path | None:
    """Move the files of a data directory to a directory of their own in it; return that, None if there are none."""
    ours = [path for pattern in ("tallybook.duckdb*", "keys.sqlite3*", *_BESIDE) for path in data.glob(pattern)]
    if not ours:
        return None
    aside = data / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside.mkdir(mode=0o700)
    for path in ours:
        path.rename(aside / path.name)
    _sync(aside)
    return aside


def _copy(source: Path, target: Path, size_bytes: int, tell: Tell) -> File:
    """Copy the beginning of a file to a new one, on disk when this returns."""
    digest, copied = hashlib.sha256(), 0
    with source.open("rb") as reading, _new(target) as writing:
        while piece := reading.read(min(_PIECE_BYTES, size_bytes - copied)):
            writing.write(piece)
            digest.update(piece)
            copied += len(piece)
            tell(f"copying {target.name}", len(piece))
        writing.flush()
        os.fsync(writing.fileno())
    return File(target.name, copied, digest.hexdigest())


def _write(target: Path, content: bytes) -> None:
    with _new(target) as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


def _new(target: Path) -> BinaryIO:
    """Open a new file that nobody else can read: backups hold the hashes of keys."""
    return os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _digest(stream: BinaryIO, tell: Tell) -> tuple[str, int]:
    digest, size_bytes = hashlib.sha256(), 0
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
        size_bytes += len(piece)
        tell("reading back", len(piece))
    return digest.hexdigest(), size_bytes


def _forget_cached(stream: BinaryIO) -> None:
    """Have a file read from its disk, where the system can be told so."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync(directory: Path) -> None:
    """Have the names of a directory's files on disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(failed: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandFailed(f"{failed}: {where}{error.strerror or error}") from error
