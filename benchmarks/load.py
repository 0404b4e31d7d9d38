"""Many connections at once, one small request each at a time, as a process of its own.

Reads a `Load` as JSON from standard input (a key does not belong on a command line), writes a `Result` to standard
output. A client in the server's or the benchmark's process would measure itself.
"""

import asyncio
import secrets
import subprocess
import sys
import time
from typing import Final

import msgspec
import uvloop

from benchmarks.report import Times

TIMEOUT_S: Final = 60


class Load(msgspec.Struct, frozen=True):
    """What to send: events to a path, or without a key plain GETs."""

    host: str
    port: int
    path: str
    key: str | None
    connections: int
    seconds: float


class Result(msgspec.Struct, frozen=True):
    """What came of it."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float


def run(load: Load) -> Result:
    """Send in a process of its own and wait for it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        timeout=load.seconds + TIMEOUT_S,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Result)


async def _send(load: Load) -> Result:
    times = Times()
    started = time.perf_counter()
    async with asyncio.timeout(load.seconds + TIMEOUT_S / 2), asyncio.TaskGroup() as group:
        for _ in range(load.connections):
            group.create_task(_connection(load, started + load.seconds, times))
    elapsed_s = time.perf_counter() - started
    return Result(len(times.ms), len(times.ms) / elapsed_s, times.p50, times.p99)


async def _connection(load: Load, until: float, times: Times) -> None:
    reader, writer = await asyncio.open_connection(load.host, load.port)
    while time.perf_counter() < until:
        request = _post(load) if load.key else f"GET {load.path} HTTP/1.1\r\nhost: {load.host}\r\n\r\n".encode()
        with times.one():
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{load.path} answered {head + body!r}")
    writer.close()
    await writer.wait_closed()


def _post(load: Load) -> bytes:
    event = (
        f'{{"kind":"completions","id":"resp_{secrets.token_hex(12)}","timestamp":{time.time():.3f},'
        '"project_id":"proj_000000000000000000000001","user_id":"user-000000000000000000000001",'
        '"api_key_id":"key_0000000000000001","model":"gpt-5-2025-08-07","service_tier":"default",'
        '"input_tokens":1834,"input_cached_tokens":1024,"output_tokens":260}'
    )
    return (
        f"POST {load.path} HTTP/1.1\r\nhost: {load.host}\r\nauthorization: Bearer {load.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(event)}\r\n\r\n{event}"
    ).encode()


if __name__ == "__main__":
    sent = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_send(sent))))
