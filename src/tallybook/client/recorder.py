"""Tallybook for an application: what is recorded here reaches the server, sooner or later, once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tallybook.client import tracking
from tallybook.client.answer import Fields, dialect_of, envelope, fields
from tallybook.client.attribution import WHO, attributed, named
from tallybook.client.delivery import Delivery, Stats
from tallybook.client.sender import Sender
from tallybook.client.spool import Spool

log = logging.getLogger("tallybook.client")

URL_VARIABLE = "TALLYBOOK_URL"
API_KEY_VARIABLE = "TALLYBOOK_API_KEY"
SPOOL_VARIABLE = "TALLYBOOK_SPOOL"
_RECORD_BYTES_MAX = 64 * 1024
"""The largest record: a good one has a hundredth of that, and the server keeps no larger one in quarantine."""
_NAME_MAX = 256
_MIB = 1024 * 1024
_FLUSH_S = 10.0

Client = TypeVar("Client")


class _Recorder:
    """What the synchronous and the asynchronous Tallybook have in common: whatever does not wait.

    Args:
        url: address of the server, such as ``https://tallybook.example``; by default that of TALLYBOOK_URL.
        api_key: a key with the scope api.usage.write; by default that of TALLYBOOK_API_KEY.
        project_id: project of what nothing else attributes.
        user_id: user of what nothing else attributes.
        api_key_id: key of what nothing else attributes: its id, never its value.
        spool: a directory for what the server does not take now, by default that of TALLYBOOK_SPOOL; without one it
            stays in memory. Processes may share it.
        batch_max: the most records in a request.
        batch_age_s: how long a record waits for others.
        queue_bytes_max: the most memory that waiting records take; what comes on top is dropped.
        spool_bytes_max: the most bytes a process has on disk.
        timeout_s: the longest a request may take.
        exit_s: the longest the end of the process waits for what is not delivered.

    Raises:
        ValueError: there is no address or no key, or neither can be right; or this system cannot have a spool.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        api_key_id: str | None = None,
        spool: Path | str | None = None,
        batch_max: int = 1000,
        batch_age_s: float = 1.0,
        queue_bytes_max: int = 16 * _MIB,
        spool_bytes_max: int = 256 * _MIB,
        timeout_s: float = 10.0,
        exit_s: float = 5.0,
    ) -> None:
        url = url or os.environ.get(URL_VARIABLE)
        api_key = api_key or os.environ.get(API_KEY_VARIABLE)
        spool = spool or os.environ.get(SPOOL_VARIABLE)
        if not url:
            raise ValueError(f"Tallybook has no address; give url, or set {URL_VARIABLE}")
        if not api_key:
            raise ValueError(f"Tallybook has no key; give api_key, or set {API_KEY_VARIABLE}")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the address {url!r} begins with neither http:// nor https://")
        api_key = api_key.strip()
        if not api_key.isascii() or not api_key.isprintable():  # no header can have it, and an error might show it
            raise ValueError("the key holds characters that no key has")
        self._who = named(project_id=project_id, user_id=user_id, api_key_id=api_key_id)
        self.pending: dict[str, tracking.Call] = {}
        self._delivery = Delivery(
            Sender(url, api_key, timeout_s),
            Spool(Path(spool), spool_bytes_max) if spool else None,
            batch_max=batch_max,
            batch_age_s=batch_age_s,
            queue_bytes_max=queue_bytes_max,
            exit_s=exit_s,
        )

    def record(self, kind: str | None = None, /, **event: Any) -> None:
        """Record an event: a usage kind, and its fields as the server has them. Never waits, never raises.

        One without an ``id`` gets one, one without a ``timestamp`` gets that of now: so it counts once, however often
        it has to be sent.
        """
        try:
            made = {name: value for name, value in event.items() if value is not None}
            made = {"kind": kind, **self.who({}), **made}
            made.setdefault("id", uuid.uuid4().hex)
            made.setdefault("timestamp", round(time.time(), 3))
            self._put("", made)
        except Exception as error:
            self._faulty(error)

    def record_response(self, response: Any, *, request: Mapping[str, Any] | None = None, **told: Any) -> None:
        """Record what a provider's client returned: an object of its models, or a dict. Never raises.

        Answers of OpenAI, Anthropic, Gemini, Bedrock (Converse), Ollama and Cohere are recognised. Those of Bedrock and
        Cohere do not name their model: give ``model``, or the ``request``.

        Only counts, names and kinds of tools leave the process, no text of a prompt or an answer.

        Args:
            response: the answer, or the last event of a stream, which tells the usage.
            request: what was asked, as far as it says more: ``tools``, ``size``, ``quality``, ``model``, ``user``.
            told: what is known besides: ``user_id``, ``project_id``, ``api_key_id``, ``id``, ``timestamp``, ``model``,
                ``batch``, ``service_tier``, ``kind``, ``source``, ``seconds``, ``characters``, ``input_tokens``.
        """
        try:
            answer, asked = fields(response), fields(request)
            explicit = {name: value for name, value in told.items() if value is not None}
            self._put_answer(dialect_of(answer), answer, asked, {**self.who(asked), **explicit})
        except Exception as error:
            self._faulty(error)

    def track(self, client: Client, *, asks_for_usage: bool = True) -> Client:
        """Have every call of an official client recorded, and of its copies; return the client, of the same type.

        Args:
            client: `OpenAI`, `AsyncOpenAI`, `AzureOpenAI`, `Anthropic`, ...
            asks_for_usage: a stream of a chat tells its usage only if it is asked to. True asks where the caller did
                not, and keeps the chunk with the answer from them.

        Raises:
            TypeError: it is no such client.
            ValueError: its calls are recorded already, by another Tallybook.
        """
        return tracking.track(client, self, asks_for_usage=asks_for_usage)

    def stats(self) -> Stats:
        """Return what became of everything that was recorded in this process."""
        return self._delivery.stats()

    def who(self, request: Fields) -> dict[str, str]:
        """Return who makes a call, here and now: as the code says, else as the call says, else as this was told."""
        return {**self._who, **_who_asks(request), **attributed()}

    def record_answer(self, dialect: str, response: Fields, request: Fields, told: Fields) -> None:
        """Record an answer that a tracked client got. Never raises."""
        try:
            self._put_answer(dialect, response, request, told)
        except Exception as error:
            self._faulty(error)

    def miss(self) -> None:
        """Count a call of a tracked client whose usage nobody told."""
        self._delivery.miss()

    def _close(self) -> None:
        while self.pending:  # nobody will tell any more
            self.pending.popitem()
            self.miss()
        self._delivery.close()

    def _put_answer(self, dialect: str, response: Fields, request: Fields, told: Fields) -> None:
        self._put(dialect, envelope(dialect, response, request, told))

    def _put(self, dialect: str, record: Mapping[str, Any]) -> None:
        for name in WHO:
            if name in record and not isinstance(record[name], str):
                record = {**record, name: str(record[name])}
        line = _ENCODER.encode(record).encode()
        if len(line) > _RECORD_BYTES_MAX:
            raise ValueError(f"a record of {len(line)} bytes, above the limit of {_RECORD_BYTES_MAX}")
        self._delivery.put(dialect, line)

    def _faulty(self, error: Exception) -> None:
        with suppress(Exception):
            self._delivery.lose()
            self._delivery.tell("faulty", "a record is dropped: %s: %s", type(error).__name__, error)


class Tallybook(_Recorder):
    """Records what an application used. Make one for a process, and keep it; see `_Recorder` for its settings.

    It may be used from any thread, and from coroutines as well: only `flush` and `close` wait.
    """

    def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until the server has everything; return whether it has."""
        return self._delivery.flush(timeout_s)

    def close(self) -> None:
        """Deliver what there is, or put it on disk, as at the end of the process; what comes later is dropped."""
        self._close()

    def __enter__(self) -> Tallybook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTallybook(_Recorder):
    """A `Tallybook` whose `flush` and `close` are awaited."""

    async def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until the server has everything; return whether it has."""
        return await asyncio.to_thread(self._delivery.flush, timeout_s)

    async def close(self) -> None:
        """Deliver what there is, or put it on disk, as at the end of the process; what comes later is dropped."""
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> AsyncTallybook:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _who_asks(request: Fields) -> dict[str, str]:
    """Return who a request says it is for: by its metadata, or by the identifier of a user that providers ask for."""
    metadata = fields(request.get("metadata"))
    user = metadata.get("user_id") or request.get("safety_identifier") or request.get("user")
    who = {"project_id": metadata.get("project_id"), "user_id": user, "api_key_id": metadata.get("api_key_id")}
    return named(**{name: value for name, value in who.items() if isinstance(value, str) and len(value) <= _NAME_MAX})


def _plain(value: Any) -> str:
    """Return as text what JSON has no form for and the server reads from text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing JSON has")


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)
