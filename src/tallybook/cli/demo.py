"""``tallybook demo``: a server with a month of made-up traffic, to look around in."""

import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import cyclopts
import msgspec
from rich.console import Console
from rich.progress import track

from tallybook import logs
from tallybook.cli.target import Target, connect
from tallybook.config import ADMIN_KEY_VARIABLE, Settings
from tallybook.errors import CommandFailed, StoreLocked
from tallybook.lock import running
from tallybook.server import refuse_taken_address, serve
from tallybook.traffic import traffic

_DAYS: Final = 30
_EVENTS_AT_ONCE: Final = 5_000
_MARK: Final = "demo"
"""A file of this name says that a directory was made by the demo and may be made anew."""


app = cyclopts.App(name="demo", config=())  # no settings of a real server's file apply to it


@app.default
def demo(
    *,
    data: Path = Path(".demo"),
    port: int = Settings().port,
) -> None:
    """Fill a new store with 30 days of made-up traffic of every kind, then run the server.

    Each run starts anew: what was in the demo's directory is gone.

    Example: tallybook demo --port 8080

    Args:
        data: Directory of the demo's store.
        port: Port to listen on.
    """
    logs.configure("warning", "auto")
    os.environ.pop(ADMIN_KEY_VARIABLE, None)  # the demo prints a key of its own
    settings = Settings(data=data, port=port)
    refuse_taken_address(settings)
    _clear(data)
    _fill(data)
    serve(settings, partial(_announce, data))


def _clear(data: Path) -> None:
    if data.exists() and any(data.iterdir()):
        if not (data / _MARK).exists():
            raise CommandFailed(f"{data} holds something that is not a demo; choose another --data")
        if address := running(data):
            raise StoreLocked(f"a demo runs already at {address.url}; stop it first, or choose another --data")
        shutil.rmtree(data)
    data.mkdir(parents=True, exist_ok=True)
    (data / _MARK).touch()


def _fill(data: Path) -> None:
    end = datetime.now(UTC)
    # From a midnight on, today included, as the dashboard counts days.
    start = end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_DAYS - 1)
    hours = list(traffic(start, end))
    bodies = list(_bodies(hours))
    with connect(Target(data=data)) as client:
        for body in track(bodies, "30 days of traffic", console=Console(stderr=True), transient=True):
            receipt = client.post_events("usage/events", body)
            if receipt["faults"]:
                raise CommandFailed(f"the demo's own traffic was refused: {receipt['faults'][0]['message']}")


def _bodies(hours: list[list[dict[str, object]]]) -> Iterator[bytes]:
    lines: list[bytes] = []
    for hour in hours:
        lines += map(msgspec.json.encode, hour)
        if len(lines) >= _EVENTS_AT_ONCE:
            yield b"\n".join(lines)
            lines = []
    if lines:
        yield b"\n".join(lines)


def _announce(data: Path, url: str, first_key: str | None) -> None:
    print(
        f"""
Tallybook listens at {url} with 30 days of made-up traffic. Open {url}/ and sign in with the key:

Admin key (shown once): {first_key}

The API is described at {url}/docs

A first question, with curl: tokens by model, the last seven days. Paste it into another terminal.

curl -s "{url}/v1/organization/usage/completions?start_time=$(($(date +%s) - 604800))&group_by=model" \\
  -H "Authorization: Bearer {first_key}"

The same with the official Python client (a checkout has it; elsewhere: pip install openai):

{sys.executable} <<'END'
import time
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="unused", admin_api_key="{first_key}")
week_ago = int(time.time()) - 7 * 86400
for day in client.admin.organization.usage.completions(start_time=week_ago, group_by=["model"], limit=8).data:
    for result in day.results:
        print(day.start_time, result.model, result.input_tokens, result.output_tokens)
END

And as a picture, and what it cost:

{sys.argv[0]} usage completions --group-by model --plot --data {data}
{sys.argv[0]} costs --group-by line_item --width 1d --since 7d --data {data}

Ctrl-C stops it.
""",
        flush=True,
    )
