"""The Tallybook that the environment names, for applications that need no other: made when it is first asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from tallybook.client.recorder import Client, Tallybook

_making = threading.Lock()
_made: list[Tallybook] = []


def tallybook() -> Tallybook:
    """Return the process's own Tallybook, with the settings TALLYBOOK_URL, TALLYBOOK_API_KEY and TALLYBOOK_SPOOL.

    Raises:
        ValueError: there is no address or no key, or neither can be right.
    """
    with _making:
        if not _made:
            _made.append(Tallybook())
        return _made[0]


def track(client: Client, *, asks_for_usage: bool = True) -> Client:
    """See `Tallybook.track`; also raises ValueError as `tallybook` does."""
    return tallybook().track(client, asks_for_usage=asks_for_usage)


def record(kind: str | None = None, /, **event: Any) -> None:
    """See `Tallybook.record`; raises ValueError as `tallybook` does, and nothing else."""
    tallybook().record(kind, **event)


def record_response(response: Any, *, request: Mapping[str, Any] | None = None, **told: Any) -> None:
    """See `Tallybook.record_response`; raises ValueError as `tallybook` does, and nothing else."""
    tallybook().record_response(response, request=request, **told)


def _renew() -> None:
    """Let a process that was forked make its own, whatever the threads were doing that it has not got."""
    global _making  # noqa: PLW0603  a lock cannot be renewed in place
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
