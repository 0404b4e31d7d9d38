"""Logging: one line an event, structured, to standard error. No key, body or query value is ever logged."""

import json
import logging
import random
import sys
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Literal

import msgspec
import structlog

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Id of the request that is being served; every line written meanwhile has it."""

_TRACEBACK: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Without the values of variables: among them are keys and events."""


def new_request_id() -> str:
    """Return an id nobody else has; it is no secret."""
    return f"req_{random.getrandbits(96):024x}"


def configure(level: str, style: Literal["auto", "json", "console"]) -> None:
    """Set up logging for the process.

    Args:
        level: least severe level that is written, lower case.
        style: console for people, json for machines, auto for what standard error is connected to.
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.ExceptionRenderer(_TRACEBACK), structlog.processors.JSONRenderer(_json)]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Lines:
    """Writes to standard error. A line that cannot be written is lost; what it tells of goes on all the same."""

    def __init__(self) -> None:
        self._file = sys.stderr

    def msg(self, line: str) -> None:
        """Write a line, in one piece."""
        with suppress(OSError):  # a full disk, or a pipe nobody reads any more
            self._file.write(line + "\n")

    debug = info = warning = error = exception = msg


def _add_request_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    found = request_id.get()
    if found is not None:
        event["request_id"] = found
    return event


def _json(event: structlog.typing.EventDict, **options: Any) -> str:
    try:
        return msgspec.json.encode(event).decode()
    except (TypeError, UnicodeEncodeError):  # what only text can stand for, or a name of a file that is not UTF-8
        return json.dumps(event, **options)
