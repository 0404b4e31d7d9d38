"""``tallybook backup`` and ``tallybook restore``."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from tallybook import backup as backups
from tallybook import lock
from tallybook.cli.report import errors
from tallybook.cli.target import Target, connect
from tallybook.cli.terminal import size
from tallybook.cli.when import show
from tallybook.config import DEFAULT_DATA
from tallybook.errors import CommandFailed
from tallybook.store.files import settle

_Data = Annotated[Path, Parameter(env_var="TALLYBOOK_DATA")]


def backup(target: Path, /, *, data: _Data = DEFAULT_DATA) -> None:
    """Copy a data directory as it is now, while its server goes on, and read the copy back.

    TARGET appears once it is whole. It holds every organization, and the hashes of all keys.

    Example: tallybook backup /backup/tallybook-2026-01-31 --data ./usage

    Args:
        target: Directory to make.
        data: Data directory to back up.
    """
    with _progress() as tell:
        manifest = backups.back_up(data, target, partial(_holding, data), tell)
    print(
        f"Backed up {manifest.rows['events']:,} events as of {show(manifest.created_at_s, '1m')} UTC to {target}: "
        f"{size(manifest.size_bytes)} in {len(manifest.files)} files, read back."
    )


def restore(
    source: Path, /, *, data: _Data = DEFAULT_DATA, replace: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Make a data directory from a backup. The server must not run on it.

    Example: tallybook restore /backup/tallybook-2026-01-31 --data ./usage

    Args:
        source: Directory that `tallybook backup` made.
        data: Data directory to make; it has to be empty.
        replace: Put aside what is in the data directory.
    """
    with _progress() as tell:
        manifest, aside = backups.restore(source, data, tell, replace=replace)
    print(
        f"Restored {manifest.rows['events']:,} events as of {show(manifest.created_at_s, '1m')} UTC to {data}."
        + (f" What was there is in {aside}; delete it when you do not need it." if aside else "")
    )


@contextmanager
def _holding(data: Path) -> Iterator[None]:
    """Keep the main file of a store as it is: by its server, which goes on meanwhile, or by keeping servers away."""
    if _server_holds(data):
        yield  # it lets go by itself when the lock of the backup is free
        return
    with lock.hold(data):
        settle(data)
        yield


def _server_holds(data: Path) -> bool:
    if not lock.running(data):
        return False
    try:
        with connect(Target(data)) as client:
            client.post("usage/backup")
    except CommandFailed:
        if lock.running(data):
            raise
        return False  # it has just ended
    return True


@contextmanager
def _progress() -> Iterator[backups.Tell]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    terminal = errors()
    with Progress(
        *columns, TimeElapsedColumn(), console=terminal, transient=True, disable=not terminal.is_terminal
    ) as progress:
        task = progress.add_task("", total=None)

        def tell(what: str, size_bytes: int) -> None:
            if progress.tasks[task].description != what:
                progress.reset(task, description=what, total=None)
            progress.advance(task, size_bytes)

        yield tell
