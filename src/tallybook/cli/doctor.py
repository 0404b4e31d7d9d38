"""``tallybook doctor``."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console

from tallybook import __version__
from tallybook.cli.target import Target, connect
from tallybook.cli.when import show
from tallybook.keys import KeyStore

_FREE_BYTES_MIN: Final = 1 << 30


def doctor(*, target: Annotated[Target, Parameter(name="*")] = Target()) -> None:  # noqa: B008  frozen
    """Check the store: rollups against raw events, quarantine, disk, version. The exit code is 1 if something is wrong.

    Example: tallybook doctor --data ./usage
    """
    console = Console(soft_wrap=True, highlight=False)
    healthy = True
    for name, good, text in _findings(target):
        healthy &= good
        console.print(f"{'ok  ' if good else 'FAIL'}  {name}: {text}", style=None if good else "red", markup=False)
    if not healthy:
        sys.exit(1)


def _findings(target: Target) -> Iterator[tuple[str, bool, str]]:
    yield "version", True, f"tallybook {__version__}"
    if target.url is None:
        stored = sum(file.stat().st_size for file in target.data.glob("tallybook.duckdb*"))
        yield "store", True, f"{_bytes(stored)} in {target.data}"
        free = shutil.disk_usage(target.data if target.data.exists() else ".").free
        yield (
            "disk",
            free >= _FREE_BYTES_MIN,
            f"{_bytes(free)} free, at least {_bytes(_FREE_BYTES_MIN)} wanted",
        )
    for organization in _organizations(target):
        with connect(replace(target, organization=organization)) as client:
            found = client.get("usage/check")
        yield from _organization(found)


def _organizations(target: Target) -> list[str]:
    """Those of the data directory; of a server elsewhere, the key's own."""
    if target.url or not target.data.is_dir():
        return [target.organization]
    keys = KeyStore(target.data)
    try:
        return keys.organizations() or [target.organization]
    finally:
        keys.close()


def _organization(found: dict[str, Any]) -> Iterator[tuple[str, bool, str]]:
    name = found["organization_id"]
    if found["version"] != __version__:
        yield name, False, f"the server is version {found['version']}, this command {__version__}"
    window = ""
    if found["first_event_s"] is not None:
        window = f", {show(found['first_event_s'], '1m')} to {show(found['last_event_s'], '1m')} UTC"
    yield (
        name,
        True,
        f"{found['events']:,} events in {found['series']:,} series{window}; schema {found['schema_version']}",
    )
    wrong = found["differences"]
    yield (
        name,
        not wrong,
        "rollups equal raw events"
        if not wrong
        else f"{len(wrong)} or more rollup sums differ from raw events, first {wrong[0]}; mend them with "
        f"'tallybook rebuild --since {show(wrong[0]['start_s'], '1d')} --organization {name}'",
    )
    waiting = found["quarantined"]
    yield (
        name,
        not waiting,
        f"{waiting:,} events in quarantine"
        + (f"; see 'tallybook quarantine list --organization {name}'" if waiting else ""),
    )


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
