"""``tallybook keys``: made and revoked in the data directory, whether or not a server runs on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tallybook.cli.terminal import cell, console
from tallybook.cli.when import instant
from tallybook.clock import now_s
from tallybook.config import DEFAULT_DATA, DEFAULT_ORGANIZATION
from tallybook.errors import CommandFailed
from tallybook.event import TEXT_MAX
from tallybook.keys import ALL_SCOPES, KeyStore, Scope
from tallybook.timegrid import INSTANT_MAX_S

keys = cyclopts.App(name="keys", help="Make, list and revoke admin keys; a running server follows at once.")

_Organization = Annotated[str, Parameter(env_var="TALLYBOOK_ORGANIZATION")]
_Data = Annotated[Path, Parameter(env_var="TALLYBOOK_DATA")]

_SCOPES: Final = {"read": Scope.READ, "write": Scope.WRITE, "manage": Scope.MANAGE}


@keys.command
def create(
    name: str,
    /,
    *,
    scope: Annotated[list[Literal["read", "write", "manage"]] | None, Parameter(negative="")] = None,
    expires: str | None = None,
    organization: _Organization = DEFAULT_ORGANIZATION,
    data: _Data = DEFAULT_DATA,
) -> None:
    """Make a key and print it, once.

    Example: tallybook keys create gateway --scope write --data ./usage

    Args:
        name: What the key is for.
        scope: What it may do; repeat for several. Default: all three.
        expires: When it ends, such as 90d from now or 2027-01-31. Default: never.
        organization: The organization whose usage it reads and writes. A new name makes a new organization.
        data: Data directory.
    """
    for what, text in (("name", name), ("organization", organization)):
        if not 1 <= len(text) <= TEXT_MAX or not text.isprintable():
            raise CommandFailed(f"the {what} must have 1 to {TEXT_MAX} printable characters, got {text[:64]!r}")
    now = now_s()
    # `90d` counts forward here, unlike in a question about the past.
    expires_at_s = None if expires is None else _ahead(expires, now)
    scopes = [_SCOPES[item] for item in dict.fromkeys(scope)] if scope else ALL_SCOPES
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _open(data) as store:
        key, value = store.create(organization, name, scopes, now, expires_at_s=expires_at_s)
    print(value)
    Console(stderr=True).print(
        f"Key {key.id} of {organization}; its value is not shown again.", highlight=False, markup=False
    )


@keys.command(name="list")
def list_(*, organization: str | None = None, data: _Data = DEFAULT_DATA) -> None:
    """List keys, without their values.

    Example: tallybook keys list --data ./usage

    Args:
        organization: Only keys of this organization. Default: all.
        data: Data directory.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "organization", "name", "key", "scopes", "created", "expires", "last used"):
        table.add_column(heading, no_wrap=heading == "id")
    with _open(data) as store:
        for owner in [organization] if organization else store.organizations():
            for key in store.of(owner):
                table.add_row(
                    key.id,
                    cell(key.organization_id),
                    cell(key.name),
                    key.redacted_value,
                    ", ".join(short for short, scope in _SCOPES.items() if scope in key.scopes),
                    _shown(key.created_at_s),
                    _shown(key.expires_at_s),
                    _shown(key.last_used_at_s),
                )
    console().print(table)


@keys.command
def revoke(key_id: str, /, *, organization: _Organization = DEFAULT_ORGANIZATION, data: _Data = DEFAULT_DATA) -> None:
    """Revoke a key; the server refuses it from the next request on.

    Example: tallybook keys revoke key_0123456789abcdef01234567 --data ./usage

    Args:
        key_id: Id of the key, as `keys list` shows it.
        organization: The organization it belongs to.
        data: Data directory.
    """
    with _open(data) as store:
        if not store.revoke(organization, key_id):
            raise CommandFailed(f"{organization} has no key {key_id}; see 'tallybook keys list'")
    print(f"Revoked {key_id}.")


@contextmanager
def _open(data: Path) -> Iterator[KeyStore]:
    if not data.is_dir():
        raise CommandFailed(f"there is no data directory {data}; name one with --data")
    store = KeyStore(data)
    try:
        yield store
    finally:
        store.close()


def _ahead(text: str, now: int) -> int:
    found = instant(text, now)
    found = 2 * now - found if text[-1] in "mhdw" else found
    if not now < found <= INSTANT_MAX_S:
        raise CommandFailed(f"--expires {text} lies in the past, or beyond the year 2100")
    return found


def _shown(instant_s: int | None) -> str:
    return "never" if instant_s is None else datetime.fromtimestamp(instant_s, UTC).strftime("%Y-%m-%d %H:%M")
