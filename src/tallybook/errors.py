"""Everything that can go wrong, as one tree; raised where the fact is known, worded for its reader.

TallybookError
├── RequestError            an HTTP request that cannot be served; carries OpenAI's error envelope
│   ├── InvalidRequest      400
│   ├── Unauthorized        401
│   ├── Forbidden           403
│   ├── NotFound            404
│   ├── MethodNotAllowed    405
│   ├── RequestTooSlow      408
│   ├── BodyTooLarge        413
│   ├── UnsupportedEncoding 415
│   ├── UnsupportedMediaType 415
│   ├── HeadTooLarge        431
│   ├── Busy                429, with Retry-After
│   └── Unavailable         503, with Retry-After
│       └── NotReady        the store takes nothing now; says why
└── OperatorError           something the operator has to set right: told in one line, exit code 1
    ├── StoreLocked         another server has the data directory open
    ├── StoreUnusable       the store is from a newer version, or damaged
    └── CommandFailed       a command could not do its work
"""

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why the server takes no events now. Requests are told the name, and so is who asks whether it is ready."""

    STOPPING = "stopping"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    IO_ERROR = "io_error"
    OUT_OF_FILES = "out_of_files"
    OUT_OF_MEMORY = "out_of_memory"
    STORE_DAMAGED = "store_damaged"
    STORE_FAILED = "store_failed"

    @property
    def problem(self) -> str:
        """What is wrong, for everyone."""
        return _PROBLEMS[self][0]

    @property
    def remedy(self) -> str:
        """What the operator can do about it."""
        return _PROBLEMS[self][1]


_BY_ITSELF: Final = "the server goes on by itself then"
_PROBLEMS: Final = {
    Reason.STOPPING: ("The server is stopping", "Wait until it has started again"),
    Reason.DISK_FULL: ("The disk is full", f"Free space on the data directory's disk; {_BY_ITSELF}"),
    Reason.READ_ONLY: (
        "The data directory cannot be written",
        f"Make its file system and the directory writable for the server's user; {_BY_ITSELF}",
    ),
    Reason.IO_ERROR: ("The disk reports errors", f"Look into the system's log and mend the disk; {_BY_ITSELF}"),
    Reason.OUT_OF_FILES: (
        "The server has too many files open",
        f"Raise its limit of open files, or lower connections-max; {_BY_ITSELF}",
    ),
    Reason.OUT_OF_MEMORY: ("The store has no memory left", "Raise memory-bytes-max and restart the server"),
    Reason.STORE_DAMAGED: (
        "The store is damaged",
        "Stop the server, check the disk, and restore a backup with 'tallybook restore'",
    ),
    Reason.STORE_FAILED: (
        "The store's engine has failed",
        "It is opened anew every second; if that does not help, look into the server's log and restart it",
    ),
}


class TallybookError(Exception):
    """Root of all errors raised on purpose."""


class RequestError(TallybookError):
    """A request that cannot be served.

    Args:
        message: what is wrong, the value, the limit and the remedy, in one or two sentences.
        param: the parameter or field at fault, as the client named it, without ``[]``.
        code: machine-readable name of the fault, OpenAI's where it has one.
        retry_after_s: whole seconds after which the same request may succeed.
    """

    status = 400
    type = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def envelope(self) -> dict[str, object]:
        """Return the body of the answer: OpenAI's ``{"error": {...}}``."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(RequestError):
    """The request is malformed; sending it again unchanged cannot help."""


class Unauthorized(RequestError):
    """No key, or none that is known, valid and unexpired."""

    status = 401


class Forbidden(RequestError):
    """The key is known but lacks a scope."""

    status = 403


class NotFound(RequestError):
    """Nothing by that path or id, or nothing this organization may know of."""

    status = 404


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method."""

    status = 405


class RequestTooSlow(RequestError):
    """The request did not arrive in the time there is for it."""

    status = 408


class BodyTooLarge(RequestError):
    """The body, or what it unpacks to, is above the limit."""

    status = 413


class UnsupportedEncoding(RequestError):
    """A Content-Encoding other than those the server can unpack."""

    status = 415


class UnsupportedMediaType(RequestError):
    """A Content-Type other than those the endpoint reads."""

    status = 415


class HeadTooLarge(RequestError):
    """Request line and headers are above the limit."""

    status = 431


class Busy(RequestError):
    """A bounded resource is full; the same request may succeed later."""

    status = 429
    type = "rate_limit_error"


class Unavailable(RequestError):
    """The store cannot take the work now; nothing of the request was kept."""

    status = 503
    type = "server_error"


class NotReady(Unavailable):
    """The server takes nothing now, from nobody.

    Args:
        reason: why.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(
            f"{reason.problem}; nothing from this request was stored. Retry later.", code=reason, retry_after_s=5
        )
        self.reason = reason


class OperatorError(TallybookError):
    """Something the operator has to set right."""


class StoreLocked(OperatorError):
    """Another server has the data directory open."""


class StoreUnusable(OperatorError):
    """The store is damaged, or was written by a newer version."""


class CommandFailed(OperatorError):
    """A command could not do its work."""
