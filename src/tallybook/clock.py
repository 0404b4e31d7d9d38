"""The present, read in one place and passed down from routes and commands."""

import time


def now_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def now_s() -> int:
    """Return Unix seconds."""
    return int(time.time())


class Steadiness:
    """Whether the clock can be trusted with what cannot be undone: it has not been put far forward or back of late.

    Args:
        jump_s: how far is far.
        trusted_after_s: how long a clock that was put elsewhere has to go on steadily until that counts as the time.
    """

    def __init__(self, jump_s: int, trusted_after_s: int) -> None:
        self._jump_s = jump_s
        self._trusted_after_s = trusted_after_s
        self._lead_s = time.time() - time.monotonic()
        self._distrusted_until = 0.0

    def is_given(self) -> bool:
        """Compare the clock with the one that nobody can put anywhere."""
        since_boot_s = time.monotonic()
        lead_s = time.time() - since_boot_s
        if abs(lead_s - self._lead_s) > self._jump_s:
            self._lead_s = lead_s
            self._distrusted_until = since_boot_s + self._trusted_after_s
        return since_boot_s >= self._distrusted_until
