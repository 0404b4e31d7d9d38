"""``tallybook export``: costs and usage as files for other programs, streamed from the server."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import cyclopts
from cyclopts import Parameter
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from tallybook.cli.report import errors
from tallybook.cli.target import Client, Target, connect
from tallybook.cli.unpriced import tell_unpriced, unpriced
from tallybook.cli.when import instant
from tallybook.clock import now_s
from tallybook.errors import CommandFailed
from tallybook.kinds import KINDS
from tallybook.timegrid import COST_WIDTHS, floor_s

export = cyclopts.App(name="export", help="Write costs or usage to a file for other programs.")

Format = Literal["csv", "parquet"]

_From = Annotated[str, Parameter(name="--from")]
_To = Annotated[str | None, Parameter(name="--to")]
_Kinds = Annotated[list[str] | None, Parameter(choices=tuple(KINDS), negative="")]
_Target = Annotated[Target, Parameter(name="*")]


@export.command
def costs(
    *,
    since: _From,
    until: _To = None,
    format: Format | None = None,  # noqa: A002  the flag's name
    schema: Literal["focus-1.4", "focus-1.2", "openai"] = "focus-1.4",
    width: Literal["1d", "1h"] = "1d",
    output: Path | None = None,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Write charges as FOCUS, the format of cloud bills, or as the CSV that OpenAI's dashboard exports.

    A file that is not whole is not left behind. Usage without a price is in no row; it is named at the end.

    Example: tallybook export costs --from 2026-01-01 --to 2026-02-01 --output january.parquet

    Args:
        since: Start: a date, a time (UTC), 7d ago, or Unix seconds.
        until: End, exclusive, in the same forms. Default: now.
        format: Format of the file. Default: parquet if the output's name ends so, otherwise csv.
        schema: Columns: FOCUS 1.4 or 1.2, or those of OpenAI's dashboard.
        width: How long a charge's period is.
        output: File to write. Default: standard output.
    """
    parameters = {"schema": schema, "bucket_width": width}
    _export("costs/export", since, until, format, output, target, **parameters)


@export.command
def usage(
    *,
    since: _From,
    until: _To = None,
    kind: _Kinds = None,
    format: Format | None = None,  # noqa: A002  the flag's name
    output: Path | None = None,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Write the events themselves, as `tallybook import` takes them. A file that is not whole is not left behind.

    Example: tallybook export usage --from 2026-01-01 --to 2026-02-01 --output january.csv

    Args:
        since: Start: a date, a time (UTC), 7d ago, or Unix seconds.
        until: End, exclusive, in the same forms. Default: now.
        kind: Only this usage kind; repeat for several. Default: all.
        format: Format of the file. Default: parquet if the output's name ends so, otherwise csv.
        output: File to write. Default: standard output.
    """
    _export("usage/export", since, until, format, output, target, **({"kinds": kind} if kind else {}))


def _export(
    path: str,
    since: str,
    until: str | None,
    format: Format | None,  # noqa: A002  as above
    output: Path | None,
    target: Target,
    **parameters: Any,
) -> None:
    format = format or ("parquet" if output and output.suffix == ".parquet" else "csv")  # noqa: A001  as above
    if format == "parquet" and output is None and sys.stdout.isatty():
        raise CommandFailed("Parquet is not for a terminal; name a file with --output")
    now = now_s()
    parameters |= {
        "start_time": instant(since, now),
        "end_time": instant(until, now) if until else now + 1,
        "format": format,
    }
    with connect(target) as client:
        with _written(output) as file, _progress() as progress:
            task = progress.add_task(f"{output or 'standard output'}", total=None)
            for piece in client.stream(path, **parameters):
                file.write(piece)
                progress.advance(task, len(piece))
        if output:
            errors().print(f"Wrote {output}, {int(progress.tasks[task].completed):,} bytes.", markup=False)
        if path == "costs/export":
            width_s = COST_WIDTHS[parameters["bucket_width"]].seconds
            _warn_of_unpriced(client, floor_s(parameters["start_time"], width_s), parameters["end_time"])


def _warn_of_unpriced(client: Client, start_s: int, end_s: int) -> None:
    """Say which usage is in no row; the file is complete whether or not that can be found out.

    Args:
        client: to a server.
        start_s: start of the first period, Unix seconds.
        end_s: end of the window, exclusive.
    """
    try:
        tell_unpriced(unpriced(client, start_s, end_s), start_s)
    except CommandFailed as error:
        errors().print(
            f"The export is complete, but it is not known whether usage without a price is missing from it: {error}. "
            "See 'tallybook costs unpriced'.",
            style="yellow",
            markup=False,
        )


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """Yield where to write; a file appears under its name once it is whole.

    Raises:
        CommandFailed: it cannot be written.
    """
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # What a link names is replaced, not the link; what is no file, such as a pipe, is written as it is.
    path = output.resolve()
    in_place = path.exists() and not path.is_file()
    beside = path if in_place else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as stream:
            yield stream
        if not in_place:
            beside.replace(path)
    except OSError as error:
        raise CommandFailed(f"cannot write {output}: {error.strerror}") from error
    finally:
        if not in_place:
            beside.unlink(missing_ok=True)


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    terminal = errors()
    # Neither into a log nor into what is printed on the same terminal.
    silent = not terminal.is_terminal or sys.stdout.isatty()
    return Progress(*columns, TimeElapsedColumn(), console=terminal, transient=True, disable=silent)
