"""The official clients, tracked: every call is recorded, and nothing else about it changes.

The seam is the one method of these clients that every call of every resource goes through once, when its answer is
there: raw, parsed and streamed ones, after all retries, with what was asked. It is found in the clients of OpenAI
and Anthropic alike, and in all that are made of them: Azure's, copies with other options, beta resources.
"""

from __future__ import annotations

import inspect
import json
import logging
import uuid
from typing import Any, Callable, NamedTuple, Protocol, TypeVar

from tallybook.client import native
from tallybook.client.answer import ANTHROPIC, OPENAI, Fields, essentials, fields
from tallybook.client.stream import Watch

log = logging.getLogger("tallybook.client")

Client = TypeVar("Client")


class Endpoint(NamedTuple):
    """What an address of OpenAI's API is for: the kind of its usage, and where images come from."""

    kind: str
    source: str | None = None


_ENDPOINTS = {
    "/completions": Endpoint("completions"),  # of chat, too
    "/responses": Endpoint("completions"),
    "/responses/compact": Endpoint("completions"),
    "/decisions": Endpoint("decisions"),
    "/embeddings": Endpoint("embeddings"),
    "/moderations": Endpoint("moderations"),
    "/images/generations": Endpoint("images", "image.generation"),
    "/images/edits": Endpoint("images", "image.edit"),
    "/images/variations": Endpoint("images", "image.variation"),
    "/audio/transcriptions": Endpoint("audio_transcriptions"),
    "/audio/translations": Endpoint("audio_transcriptions"),
    "/audio/speech": Endpoint("audio_speeches"),
}
_UNFINISHED = ("queued", "in_progress")
_PENDING_MAX = 10_000
"""The most answers in the background that are waited for; of more, the oldest are not counted."""
_REFUSING = (400, 404, 405, 415, 422)
_UNIQUE_MIN = 20
"""An id that tells an answer from all others is no shorter. Some servers of models choose among a thousand."""


class Recorder(Protocol):
    """What calls are told to.

    Attributes:
        pending: calls whose answers are made in the background, by their answers' ids, until somebody retrieves those.
    """

    pending: dict[str, Call]

    def who(self, request: Fields) -> dict[str, str]:
        """Return who makes a call, here and now."""

    def record_answer(self, dialect: str, response: Fields, request: Fields, told: Fields) -> None:
        """Record an answer."""

    def miss(self) -> None:
        """Count a call whose usage nobody told."""


class _AskedForUsage(dict[str, Any]):
    """Options of a stream that its caller did not ask for."""


def track(client: Client, recorder: Recorder, *, asks_for_usage: bool) -> Client:
    """Have all calls of a client recorded, and of its copies; return the client.

    Args:
        client: of OpenAI, Anthropic or Ollama, synchronous or not, or boto3's for ``bedrock-runtime``.
        recorder: is told.
        asks_for_usage: streams of chats that were not asked for their usage are, and the chunk with it is left out.

    Raises:
        TypeError: it is no such client.
        ValueError: another recorder is told of its calls already.
    """
    base = type(client)
    tracker = getattr(base, "_tallybook_tracker", None)
    if tracker is not None:
        if tracker.recorder is recorder:
            return client
        raise ValueError("this client is tracked already, for another Tallybook")
    if own := native.methods(base, recorder):
        return _made_of(client, own, _Native(recorder))
    process = getattr(base, "_process_response", None)
    if not callable(process) or not callable(getattr(base, "request", None)):
        raise TypeError(
            f"{base.__module__}.{base.__qualname__} is not a client of OpenAI, Anthropic, Ollama or Bedrock that can "
            "be tracked"
        )
    dialect = ANTHROPIC if any(part.__module__.split(".")[0] == ANTHROPIC for part in base.__mro__) else OPENAI
    tracker = _Tracker(recorder, dialect, asks_for_usage=asks_for_usage and dialect == OPENAI)
    methods = _awaiting if inspect.iscoroutinefunction(process) else _blocking
    return _made_of(client, methods(base, tracker), tracker)


class _Native(NamedTuple):
    """What a tracked client with a protocol of its own has for a tracker."""

    recorder: Recorder


def _made_of(client: Client, methods: dict[str, Any], tracker: Any) -> Client:
    """Return a client with some methods of its own replaced."""
    base = type(client)
    # A class of the same name: the client tells the provider its own.
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    client.__class__ = type(base.__name__, (base,), {**names, **methods, "_tallybook_tracker": tracker})
    return client


def _blocking(base: Any, tracker: _Tracker) -> dict[str, Any]:
    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        asking = tracker.asking(self, options)
        if asking is not None:
            try:
                return base.request(self, cast_to, asking, *args, **kwargs)
            except Exception as error:
                if not tracker.is_refused(self, error):
                    raise
        return base.request(self, cast_to, options, *args, **kwargs)

    def process_response(self: Any, **kwargs: Any) -> Any:
        end = tracker.begin(self, kwargs)
        result = None
        try:
            result = base._process_response(self, **kwargs)
            return result
        finally:
            end(result)

    return {"request": request, "_process_response": process_response}


def _awaiting(base: Any, tracker: _Tracker) -> dict[str, Any]:
    async def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        asking = tracker.asking(self, options)
        if asking is not None:
            try:
                return await base.request(self, cast_to, asking, *args, **kwargs)
            except Exception as error:
                if not tracker.is_refused(self, error):
                    raise
        return await base.request(self, cast_to, options, *args, **kwargs)

    async def process_response(self: Any, **kwargs: Any) -> Any:
        end = tracker.begin(self, kwargs)
        result = None
        try:
            result = await base._process_response(self, **kwargs)
            return result
        finally:
            end(result)

    return {"request": request, "_process_response": process_response}


class _Tracker:
    """What there is to know of a tracked client and its copies. None of its methods raises."""

    def __init__(self, recorder: Recorder, dialect: str, *, asks_for_usage: bool) -> None:
        self.recorder = recorder
        self.dialect = dialect
        self._asks_for_usage = asks_for_usage
        self._refusing: set[str] = set()

    def asking(self, client: Any, options: Any) -> Any:
        """Return the options of a request with a request for its usage, None where it is not to be asked for."""
        try:
            body, more = fields(options.json_data), fields(options.extra_json)
            given = more.get("stream_options", body.get("stream_options"))
            if (
                not self._asks_for_usage
                or more.get("stream", body.get("stream")) is not True
                or not isinstance(options.json_data, dict)
                or not _path(options).endswith("/completions")
                or "include_usage" in fields(given)
                or str(client.base_url) in self._refusing
            ):
                return None
            asked = {"stream_options": _AskedForUsage({**fields(given), "include_usage": True})}
            asking = options.model_copy() if hasattr(options, "model_copy") else options.copy()
            asking.json_data = {**body, **asked}
            if "stream_options" in more:
                asking.extra_json = {**more, **asked}
            return asking
        except Exception:
            log.debug("a stream was not asked for its usage", exc_info=True)
            return None

    def is_refused(self, client: Any, error: Exception) -> bool:
        """Return whether a server refuses a request for being asked for its usage; it is not asked again."""
        text = f"{error} {getattr(error, 'body', '')}"
        if getattr(error, "status_code", None) in _REFUSING and ("stream_options" in text or "include_usage" in text):
            self._refusing.add(str(client.base_url))
            return True
        return False

    def begin(self, client: Any, kwargs: dict[str, Any]) -> Callable[[Any], None]:
        """Look at an answer that has come; return what is to be called with what is made of it."""
        try:
            call = self._call(client, kwargs["options"])
            if call is not None:
                return call.watch(kwargs["response"], is_stream=bool(kwargs.get("stream")))
        except Exception:
            log.warning("a call is not recorded", exc_info=True)
        return _nothing

    def _call(self, client: Any, options: Any) -> Call | None:
        endpoint = self._endpoint(options)
        if endpoint is None and not (self.recorder.pending and "/responses/" in _path(options)):
            return None
        request = {**fields(options.json_data), **fields(options.extra_json)}
        who = self.recorder.who(request)
        project = getattr(client, "project", None)
        if isinstance(project, str):
            who.setdefault("project_id", project)
        return Call(self, endpoint, request, who)

    def _endpoint(self, options: Any) -> Endpoint | None:
        if str(options.method).lower() != "post":
            return None
        if self.dialect == ANTHROPIC:  # its messages have the same form at every address
            return Endpoint("completions")
        path = _path(options)
        return next((endpoint for name, endpoint in _ENDPOINTS.items() if path.endswith(name)), None)


def _path(options: Any) -> str:
    return "/" + str(options.url).split("?", 1)[0].strip("/")


def _nothing(_: Any) -> None:
    """Do nothing with the result of a call that is not recorded."""


class Call:
    """One call, from its answer's first byte to its last.

    Args:
        tracker: of the client.
        endpoint: what was called; None if it asked for what an earlier call had begun.
        request: what was asked.
        who: made the call.
    """

    def __init__(self, tracker: _Tracker, endpoint: Endpoint | None, request: Fields, who: dict[str, str]) -> None:
        self._tracker = tracker
        self._endpoint = endpoint
        self._request = request
        self._who = who
        self._begun: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._has_images = False

    def watch(self, response: Any, *, is_stream: bool) -> Callable[[Any], None]:
        """Look at the answer as it is read, or once it is read; return what is to be called with the result."""
        if self._kind == "audio_speeches":
            return self._end_speech
        if not is_stream and response.is_stream_consumed:
            return lambda result: self._end_read(result, response)
        is_events = is_stream or "event-stream" in response.headers.get("content-type", "")
        hides = isinstance(self._request.get("stream_options"), _AskedForUsage)
        end = self._end_events if is_events else self._end_body
        Watch(self._see, end, is_stream=is_events, may_hide=hides and is_events).attach(response)
        return _nothing

    @property
    def _kind(self) -> str | None:
        return self._endpoint.kind if self._endpoint else None

    def _see(self, data: bytes) -> bool:
        """Look at an event that tells a usage, or begins; return whether the caller is to see it."""
        event = fields(json.loads(data))
        if self._kind == "images":
            if str(event.get("type", "")).endswith(".completed"):
                self._has_images = True
                self._record({name: value for name, value in event.items() if name != "type"})
        elif self._tracker.dialect == ANTHROPIC:
            self._begun = {**self._begun, **fields(event.get("message"))}
            known = {name: value for name, value in fields(event.get("usage")).items() if value is not None}
            self._begun["usage"] = {**fields(self._begun.get("usage")), **known}
            if event.get("type") == "message_delta":  # message_start tells what is known before anything is answered
                self._last = self._begun
        else:
            self._last = dict(fields(event["response"]) if "response" in event else event)
        return not (isinstance(self._request.get("stream_options"), _AskedForUsage) and event.get("choices") == [])

    def _end_events(self, _: bytes) -> None:
        if self._last:
            self._record(self._last)
        elif not self._has_images:
            self._miss()

    def _end_body(self, body: bytes) -> None:
        self._record(_parsed(body))

    def _end_read(self, result: Any, response: Any) -> None:
        try:
            is_model = isinstance(result, dict) or hasattr(result, "model_dump") or hasattr(result, "__fields_set__")
            self._record(fields(result) if is_model else _parsed(response.content))
        except Exception:
            log.warning("a call is not recorded", exc_info=True)

    def _end_speech(self, _: Any) -> None:
        text = self._request.get("input")
        self._tell({}, characters=len(text) if isinstance(text, str) else 0)

    def _record(self, answer: Fields) -> None:
        """Record an answer that tells its usage; remember one that is not finished, count one that does not tell."""
        if self._tracker.dialect == ANTHROPIC:
            if answer.get("type") == "message":
                self._tell(answer)
            return
        name = answer.get("id")
        is_unfinished = answer.get("status") in _UNFINISHED
        if self._endpoint is None:
            if not is_unfinished and isinstance(name, str) and (begun := self._pending.pop(name, None)):
                begun._record(answer)
        elif is_unfinished and self._request.get("background") and isinstance(name, str):
            self._remember(name)
        elif not is_unfinished and self._is_told(answer):
            self._tell(answer)
        else:
            self._miss()

    @property
    def _pending(self) -> dict[str, Call]:
        return self._tracker.recorder.pending

    def _remember(self, name: str) -> None:
        """Keep of a call what will be told of it: not what was asked, which may be long."""
        pending = self._pending
        pending[name] = Call(self._tracker, self._endpoint, essentials(self._request), self._who)
        for oldest in list(pending)[:-_PENDING_MAX]:  # a list, since other threads may change it meanwhile
            if pending.pop(oldest, None):
                self._miss()

    def _is_told(self, answer: Fields) -> bool:
        if self._kind == "images":
            return isinstance(answer.get("data"), list) or self._has_images
        if self._kind == "moderations":
            return "results" in answer
        has_length = self._kind == "audio_transcriptions" and answer.get("duration") is not None
        return has_length or bool(fields(answer.get("usage")))

    def _miss(self) -> None:
        if self._endpoint is not None:
            self._tracker.recorder.miss()

    def _tell(self, answer: Fields, **told: Any) -> None:
        if self._endpoint is not None and self._tracker.dialect == OPENAI:
            told = {"kind": self._endpoint.kind, "source": self._endpoint.source, **told}
        name = answer.get("id")
        if isinstance(name, str) and 0 < len(name) < _UNIQUE_MIN:
            told["id"] = f"{name}-{uuid.uuid4().hex}"
        self._tracker.recorder.record_answer(self._tracker.dialect, answer, self._request, {**self._who, **told})


def _parsed(body: bytes) -> Fields:
    """Return the fields of a body; none if it is something else than an object of JSON."""
    try:
        return fields(json.loads(body))
    except (ValueError, RecursionError):
        return {}
