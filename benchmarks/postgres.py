"""A PostgreSQL of our own: a fresh cluster in a temporary directory, reached by a socket there, gone afterwards."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

BINARIES: Final = Path("/usr/lib/postgresql/15/bin")
"""Where Debian has it; `make bench` installs it."""
USER: Final = "postgres"
"""Who runs it if we are root, which it refuses to be."""
START_S_MAX: Final = 60
STOP_S_MAX: Final = 120
SETTINGS: Final = {
    "listen_addresses": "",
    "synchronous_commit": "on",
    "shared_buffers": "2GB",
    "effective_cache_size": "8GB",
    "work_mem": "64MB",
    "max_wal_size": "8GB",  # no checkpoint for want of room while the benchmark lasts
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "jit": "off",  # it makes questions this small slower
}
"""What somebody who knows it would set on such a machine; all else is its default."""


def is_installed() -> bool:
    """It can be started."""
    return (BINARIES / "postgres").exists()


@contextmanager
def cluster() -> Iterator[str]:
    """A running server; yields how to connect to it."""
    as_user: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": ()} if os.geteuid() == 0 else {}
    # Not below a directory of the benchmark's: the other user could not enter it.
    with tempfile.TemporaryDirectory(prefix="tallybook-bench-postgres-") as name:
        place = Path(name)
        if as_user:
            shutil.chown(place, USER, USER)
        _run("initdb", "--pgdata", f"{place}/data", "--auth", "trust", "--username", USER, cwd=place, **as_user)
        log = (place / "log").open("wb")
        options = [argument for setting in SETTINGS.items() for argument in ("-c", "=".join(setting))]
        process = subprocess.Popen(
            [BINARIES / "postgres", "-D", f"{place}/data", "-k", name, *options],
            cwd=place,
            stdout=log,
            stderr=log,
            **as_user,
        )
        log.close()
        try:
            address = f"host={name} user={USER} dbname={USER}"
            _wait(process, address, place / "log")
            yield address
        finally:
            process.send_signal(signal.SIGINT)  # roll back, write, end
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(STOP_S_MAX)


def _run(program: str, *arguments: str, **options: Any) -> None:
    done = subprocess.run([BINARIES / program, *arguments], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr}")


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return
