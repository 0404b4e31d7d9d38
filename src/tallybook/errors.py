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
│   ├── HeadTooLarge        431
│   ├── Busy                429, with Retry-After
│   └── Unavailable         503, with Retry-After
└── OperatorError           something the operator has to set right: told in one line, exit code 1
    ├── StoreLocked         another server has the data directory open
    ├── StoreUnusable       the store is from a newer version, or damaged
    └── CommandFailed       a command could not do its work
"""


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


class OperatorError(TallybookError):
    """Something the operator has to set right."""


class StoreLocked(OperatorError):
    """Another server has the data directory open."""


class StoreUnusable(OperatorError):
    """The store is damaged, or was written by a newer version."""


class CommandFailed(OperatorError):
    """A command could not do its work."""
