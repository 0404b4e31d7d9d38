"""``tallybook quarantine``: events that could not be kept, to be seen, mended, replayed or dropped."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.table import Table

from tallybook.cli.target import Client, Target, connect
from tallybook.cli.terminal import cell, console
from tallybook.cli.when import show
from tallybook.errors import CommandFailed

quarantine = cyclopts.App(name="quarantine", help="See, mend, replay and drop events that could not be kept.")

_Target = Annotated[Target, Parameter(name="*")]
_PATH = "usage/quarantine"
_PAGE = 100


@quarantine.command(name="list")
def list_(
    *,
    limit: int = 50,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """List quarantined events, the oldest first, with what is wrong with each.

    Example: tallybook quarantine list

    Args:
        limit: The most to list.
        as_json: Print them whole, one JSON object a line.
    """
    with connect(target) as client:
        entries = list(_entries(client, limit))
    if as_json:
        for entry in entries:
            print(json.dumps(entry))
        return
    table = Table("id", "since (UTC)", "what is wrong")
    table.columns[0].no_wrap = True
    for entry in entries:
        faults = "\n".join(fault["message"] for fault in entry["faults"])
        table.add_row(entry["id"], show(entry["created_at"], "1m"), cell(faults))
    console().print(table)


@quarantine.command
def replay(
    quarantine_id: str | None = None,
    /,
    *,
    event: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Try quarantined events again: one as it is or mended, or all.

    Example: tallybook quarantine replay

    Example: tallybook quarantine replay quar_0123456789abcdef01234567 --event mended.json

    Args:
        quarantine_id: Which one. Default: all.
        event: File with the mended event; - for standard input.
    """
    if event and not quarantine_id:
        raise CommandFailed("--event mends one entry; name its id")
    with connect(target) as client:
        path = f"{_PATH}/{quarantine_id}/replay" if quarantine_id else f"{_PATH}/replay"
        receipt = client.post_events(path, _read(event) if event else None)
    print(
        f"accepted {receipt['accepted']}, duplicates {receipt['duplicates']}, conflicts {receipt['conflicts']}, "
        f"still rejected {receipt['rejected']}"
    )
    if receipt["conflicts"] or receipt["rejected"]:
        sys.exit(1)


@quarantine.command
def drop(
    quarantine_id: str | None = None,
    /,
    *,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    target: _Target = Target(),  # noqa: B008  frozen
) -> None:
    """Remove quarantined events for good.

    Example: tallybook quarantine drop quar_0123456789abcdef01234567

    Example: tallybook quarantine drop --all

    Args:
        quarantine_id: Which one.
        everything: All of them.
    """
    if everything == bool(quarantine_id):
        raise CommandFailed("name one entry, or --all")
    dropped = 0
    with connect(target) as client:
        if quarantine_id:
            client.delete(f"{_PATH}/{quarantine_id}")
            dropped = 1
        else:
            while found := client.delete(_PATH)["deleted"]:
                dropped += found
    print(f"Dropped {dropped}.")


def _entries(client: Client, limit: int) -> Iterator[dict[str, Any]]:
    after: dict[str, str] = {}
    while limit > 0:
        page = client.get(_PATH, limit=min(limit, _PAGE), **after)
        yield from page["data"]
        limit -= len(page["data"])
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
