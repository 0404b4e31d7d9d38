"""The present, read in one place and passed down from routes and commands."""

import time


def now_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def now_s() -> int:
    """Return Unix seconds."""
    return int(time.time())
