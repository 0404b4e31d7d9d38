"""Who used something: named for a stretch of code, and for everything called from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

WHO = ("project_id", "user_id", "api_key_id")
_NOBODY: Mapping[str, str] = MappingProxyType({})
_attributed: ContextVar[Mapping[str, str]] = ContextVar("tallybook_attributed", default=_NOBODY)


@contextmanager
def attribute(
    *, user_id: str | None = None, project_id: str | None = None, api_key_id: str | None = None
) -> Iterator[None]:
    """Attribute what is recorded inside the ``with`` to a user, a project or a key.

    It holds in this thread or task and in tasks started from it, and stands before what the Tallybook was given. Inside
    another one it adds to that.
    """
    token = _attributed.set(
        {**_attributed.get(), **named(user_id=user_id, project_id=project_id, api_key_id=api_key_id)}
    )
    try:
        yield
    finally:
        # A generator may be closed in another context than it was started in, where there is nothing to take back.
        with suppress(ValueError):
            _attributed.reset(token)


def attributed() -> Mapping[str, str]:
    """Return who this stretch of code is attributed to."""
    return _attributed.get()


def named(**who: Any) -> dict[str, str]:
    """Return those of project, user and key that are given, as text."""
    return {name: str(value) for name, value in who.items() if name in WHO and value is not None and value != ""}
