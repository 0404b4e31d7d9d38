"""The same calls of models imported from files, by the command an operator gives, its own start included."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.effort import Effort
from benchmarks.events import bodies
from benchmarks.ingest import fill_warm
from benchmarks.results import Result
from benchmarks.server import running
from benchmarks.times import Turns
from tallybook.clock import now_s
from tallybook.config import ADMIN_KEY_VARIABLE
from tests.support import COMMAND, Server

CALLS_IN_BODY: Final = 5_000
"""What the command sends at once, here sent as plain events."""
CALLS_IN_BATCH: Final = 500
HISTORY_S: Final = 3_600
ANSWER: Final = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 20
"""Of a batch's output most is what the model said."""


class Form(NamedTuple):
    """One kind of files.

    Attributes:
        name: as the table of benchmarks has it, after the comma.
        write: writes events into a folder, and returns how many files.
    """

    name: str
    write: Callable[[Path, Sequence[bytes]], int]


def measure(place: Path, effort: Effort) -> Iterator[Result]:
    """Import files of each form, and send the same calls as plain events, each to a new store, by turns."""
    lines = _lines(effort.file_records)
    sent = [b"\n".join(lines[at : at + CALLS_IN_BODY]) for at in range(0, len(lines), CALLS_IN_BODY)]
    plain = []
    for turn in range(effort.turns):
        with running(place / f"plain-{turn}") as server:
            plain.append(fill_warm(server, iter(sent)))
    for form in (Form("NDJSON", _ndjson), Form("Parquet", _parquet), Form("batch outputs", _batch_outputs)):
        folder = place / form.name
        folder.mkdir()
        files = form.write(folder, lines)
        rates = []
        for turn in range(effort.turns):
            with running(place / f"{form.name}-{turn}") as server:
                rates.append(len(lines) / _import(server, folder))
        found = Turns(rates)
        note = f"medians of {effort.turns}, {len(lines):,} calls in {files:,} {'file' if files == 1 else 'files'}"
        if files > 1:
            note += f", {found.middle * files / len(lines):,.1f} files/s"
        yield Result(
            name=f"files, {form.name}",
            ours=found.middle,
            reference=Turns(plain).middle,
            spread=found.spread,
            note=note,
        )


def _lines(count: int) -> list[bytes]:
    """Return plain events of calls of models, as JSON."""
    end_s = now_s()
    made = bodies(2 * count, CALLS_IN_BODY, (end_s - HISTORY_S) * 1000, end_s * 1000)
    calls = (line for body in made for line in body.splitlines() if b'"kind":"completions"' in line)
    return list(islice(calls, count))


def _import(server: Server, folder: Path) -> float:
    """Import a folder, all of it new; return the seconds that took."""
    command = [*COMMAND, "import", str(folder), "--url", server.url]
    environment = os.environ | {ADMIN_KEY_VARIABLE: server.admin_key}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lasted_s = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"the import ended with {done.returncode}: {done.stdout}{done.stderr}")
    return lasted_s


def _ndjson(folder: Path, lines: Sequence[bytes]) -> int:
    (folder / "events.ndjson").write_bytes(b"\n".join(lines))
    return 1


def _parquet(folder: Path, lines: Sequence[bytes]) -> int:
    events = [msgspec.json.decode(line) for line in lines]
    pq.write_table(pa.Table.from_pylist(events), folder / "events.parquet")
    return 1


def _batch_outputs(folder: Path, lines: Sequence[bytes]) -> int:
    starts = range(0, len(lines), CALLS_IN_BATCH)
    for number, at in enumerate(starts):
        output = b"\n".join(_batch_line(msgspec.json.decode(line)) for line in lines[at : at + CALLS_IN_BATCH])
        (folder / f"batch_{number:06}_output.jsonl").write_bytes(output)
    return len(starts)


def _batch_line(event: dict[str, Any]) -> bytes:
    answer = {
        "id": event["id"],
        "object": "chat.completion",
        "created": int(event["timestamp"]),
        "model": event["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": event["input_tokens"],
            "completion_tokens": event["output_tokens"],
            "total_tokens": event["input_tokens"] + event["output_tokens"],
            "prompt_tokens_details": {"cached_tokens": event["input_cached_tokens"]},
        },
    }
    number = event["id"].removeprefix("resp_")
    return msgspec.json.encode(
        {
            "id": f"batch_req_{number}",
            "custom_id": number,
            "response": {"status_code": 200, "request_id": number, "body": answer},
            "error": None,
        }
    )
