"""Whether the engine works, told from its errors: what is wrong has a name, and is logged when it changes."""

import errno
import os
import threading
import time
from typing import Final

import structlog

from tallybook.errors import Reason

_DEAD: Final = "database has been invalidated"
"""The engine says so of itself after an error it cannot go on from, such as a checkpoint that failed half way."""
_COMMITTING: Final = "Failed to commit"
_SPILL: Final = "/spill/"


def _said(*numbers: int) -> tuple[str, ...]:
    """How the system words errors; the engine repeats it and does not tell the numbers."""
    return tuple(os.strerror(number) for number in numbers)


_SIGNS: Final = (
    (
        Reason.STORE_DAMAGED,
        (
            "Corrupt database file",
            "Corrupt WAL file",
            "Could not read enough bytes",
            "not a valid DuckDB database file",
            "WAL does not match database file",
        ),
    ),
    (Reason.DISK_FULL, _said(errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
    (Reason.READ_ONLY, _said(errno.EROFS, errno.EACCES, errno.EPERM)),
    (Reason.OUT_OF_FILES, _said(errno.EMFILE, errno.ENFILE)),
    (
        Reason.OUT_OF_MEMORY,
        ("Out of Memory Error", "could not allocate", "failed to allocate", "failed to pin", *_said(errno.ENOMEM)),
    ),
    (Reason.IO_ERROR, (*_said(errno.EIO), "fsync failed", "IO Error")),
    (Reason.STORE_FAILED, (_DEAD, "FATAL Error")),
)
"""What of an error's text tells its cause; the first that is found counts."""


def diagnose(problem: str) -> Reason | None:
    """Return what an error of the engine comes from; None if from what was asked of it."""
    return next((reason for reason, signs in _SIGNS if any(sign in problem for sign in signs)), None)


class Health:
    """What is wrong with the engine, if anything is. Safe to use from several threads.

    Attributes:
        reason: why it takes no commits; None while it does.
        is_dead: whether it has to be opened anew.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.is_dead = False
        self._since = 0.0
        self._changing = threading.Lock()

    def judge(self, error: Exception) -> Reason | None:
        """Find out what an error says of the engine; return what it comes from.

        Memory that one statement lacks, and room that a question lacks to spill into, are no fault of the engine's. But
        a commit that memory does not suffice for leaves more values in some columns than in others (DuckDB 2.0): what
        is added after them goes wrong without a word. Such an engine must not live on.
        """
        problem = str(error)
        reason = diagnose(problem)
        is_dead = (
            _DEAD in problem
            or problem.startswith("FATAL Error")
            or (reason is Reason.OUT_OF_MEMORY and _COMMITTING in problem)
        )
        if reason is not None and (is_dead or (reason is not Reason.OUT_OF_MEMORY and _SPILL not in problem)):
            self.fail(reason, problem, is_dead=is_dead)
        return reason

    def fail(self, reason: Reason, problem: str, *, is_dead: bool = False) -> None:
        """Note that the engine takes no commits. Damage stays; the first cause of its death stays until it lives."""
        with self._changing:
            known, was_dead = self.reason, self.is_dead
            self.is_dead = was_dead or is_dead
            if known in (reason, Reason.STORE_DAMAGED) or (was_dead and reason is Reason.STORE_FAILED):
                return
            self.reason = reason
            if known is None:
                self._since = time.monotonic()
        _log.error("not ready", reason=reason, problem=problem.splitlines()[0], remedy=reason.remedy)

    def revive(self) -> None:
        """Note that the engine was opened anew."""
        with self._changing:
            self.is_dead = False

    def recover(self) -> None:
        """Note that the engine takes commits again."""
        with self._changing:
            if self.reason in (None, Reason.STORE_DAMAGED):
                return
            reason, self.reason = self.reason, None
        _log.warning("ready again", reason=reason, after_s=round(time.monotonic() - self._since, 1))


_log = structlog.get_logger()
