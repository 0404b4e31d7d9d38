"""Clients with a protocol of their own, tracked: boto3's for Bedrock (Converse), and Ollama's.

As with the clients of OpenAI (see `tallybook.client.tracking`), the seam is the one method every call goes through.
What a call returns is passed on as it is; of a stream each event is, at the moment it comes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any, Callable, Protocol

from tallybook.client.answer import BEDROCK, OLLAMA, Fields, fields

log = logging.getLogger("tallybook.client")

_SEAMS = {"botocore": "_make_api_call", "ollama": "_request"}
_OLLAMA_PATHS = ("/api/chat", "/api/generate", "/api/embed")
_NAMES = ("modelId", "model", "metadata", "requestMetadata")
"""What is kept of a request until its answer is whole: not what was asked, which may be long."""


class Recorder(Protocol):
    """What calls are told to."""

    def who(self, request: Fields) -> dict[str, str]:
        """Return who makes a call, here and now."""

    def record_answer(self, dialect: str, response: Fields, request: Fields, told: Fields) -> None:
        """Record an answer."""

    def miss(self) -> None:
        """Count a call whose usage nobody told."""


def methods(base: Any, recorder: Recorder) -> dict[str, Any] | None:
    """Return the methods that a tracked client has instead of its own; None if it is not a client of these."""
    package = base.__module__.split(".")[0]
    if not callable(getattr(base, _SEAMS.get(package, ""), None)):
        return None
    if package == "botocore":
        return {"_make_api_call": _bedrock(base, recorder)} if base.__name__ == "BedrockRuntime" else None
    return {"_request": _ollama(base, recorder)}


class _Call:
    """One call, until its answer is whole. None of its methods raises."""

    def __init__(self, recorder: Recorder, dialect: str, request: Any) -> None:
        self._recorder = recorder
        self._dialect = dialect
        asked = fields(request)
        self._request = {name: asked[name] for name in _NAMES if name in asked}
        self._who = recorder.who(self._request)
        self._last: Fields = {}

    def see(self, event: Any) -> None:
        """Look at an event of a stream; the last that has the usage is the answer."""
        found = fields(event)
        if "metadata" in found or found.get("done"):
            self._last = found

    def end(self, identity: Any = None) -> None:
        """Record what was seen; count the call if nobody said what it used."""
        if self._last:
            self.record(self._last, identity)
        else:
            self._recorder.miss()

    def record(self, response: Any, identity: Any = None) -> None:
        """Record an answer."""
        self._recorder.record_answer(self._dialect, fields(response), self._request, {**self._who, "id": identity})


def _bedrock(base: Any, recorder: Recorder) -> Callable[..., Any]:
    def make_api_call(self: Any, operation_name: str, api_params: Any) -> Any:
        result = base._make_api_call(self, operation_name, api_params)
        try:
            if operation_name == "Converse":
                _Call(recorder, BEDROCK, api_params).record(result)
            elif operation_name == "ConverseStream":
                identity = fields(result.get("ResponseMetadata")).get("RequestId")
                _watch(result["stream"], _Call(recorder, BEDROCK, api_params), identity)
        except Exception:
            log.warning("a call is not recorded", exc_info=True)
        return result

    return make_api_call


def _watch(stream: Any, call: _Call, identity: Any) -> None:
    """Look at what is read of a stream of Bedrock's, which is the same object afterwards."""
    kind = type(stream)

    def events(self: Any) -> Iterator[Any]:
        yield from _seen(kind.__iter__(self), call, identity)

    stream.__class__ = type(kind.__name__, (kind,), {"__iter__": events, "__module__": kind.__module__})


def _seen(events: Any, call: _Call, identity: Any = None) -> Iterator[Any]:
    try:
        for event in events:
            call.see(event)
            yield event
    finally:
        call.end(identity)


async def _seen_async(events: Any, call: _Call) -> AsyncIterator[Any]:
    try:
        async for event in events:
            call.see(event)
            yield event
    finally:
        call.end()


def _ollama(base: Any, recorder: Recorder) -> Callable[..., Any]:
    def begun(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        try:
            is_counted = len(args) > 1 and args[1] in _OLLAMA_PATHS
            return _Call(recorder, OLLAMA, kwargs.get("json")) if is_counted else None
        except Exception:
            log.warning("a call is not recorded", exc_info=True)
            return None

    def request(self: Any, cls: Any, *args: Any, stream: bool = False, **kwargs: Any) -> Any:
        call = begun(args, kwargs)
        result = base._request(self, cls, *args, stream=stream, **kwargs)
        if call is None:
            return result
        if stream:
            return _seen(result, call)
        call.record(result)
        return result

    async def request_async(self: Any, cls: Any, *args: Any, stream: bool = False, **kwargs: Any) -> Any:
        call = begun(args, kwargs)
        result = await base._request(self, cls, *args, stream=stream, **kwargs)
        if call is None:
            return result
        if stream:
            return _seen_async(result, call)
        call.record(result)
        return result

    return request_async if inspect.iscoroutinefunction(base._request) else request
