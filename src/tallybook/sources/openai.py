"""OpenAI-shaped responses: what an answer of the API says was used.

A record is an answer as it came (chat, text completions, responses, embeddings, images, transcriptions, moderations, an
event of the realtime API, a line of a batch's output), or such an answer in an envelope that says who made the call::

    {"response": {...}, "request": {...}, "user_id": ..., "project_id": ..., "api_key_id": ..., ...}

One answer can be several events: tokens, searches, images and sessions of the code interpreter are counted apart. A
message of Anthropic's is read as such. What is not a finished answer is refused if it carries counts: chunks on the
way, batch objects, whose output has the answers, and steps of a run.

Source: types of the official ``openai`` client 3.54.
"""

from decimal import Decimal
from typing import Any, Final

from tallybook.event import COUNT_MAX
from tallybook.kinds import KINDS
from tallybook.sources import anthropic
from tallybook.sources.record import (
    NO_OPTIONS,
    WHO,
    Event,
    FaultyRecord,
    Fields,
    Options,
    call_id,
    charged,
    is_blank,
    made,
)
from tallybook.sources.usage_objects import (
    OPENAI,
    Dialect,
    dialect_of,
    image_events,
    report_unread,
    reported_cost,
    token_events,
    watched,
)

_COMMON: Final = (*WHO, "api_source")
_UNUSED: Final = ("failed", "cancelled", "incomplete", "in_progress", "queued")
"""What becomes of a response that may have used nothing, or tells it later."""
_INSTANTS: Final = ("created", "created_at")
_ENVELOPE: Final = frozenset(
    {"response", "request", "id", "timestamp", "model", "batch", "service_tier", *_COMMON}
    | {"seconds", "characters", "input_tokens", "kind", "source"}
)
_LAST: Final = ("response.done", "response.completed", "response.incomplete", "response.failed")
"""Events of streams that carry the whole answer."""
_SESSION_S: Final = 20 * 60
"""A container is billed for so long at a time: what answers make of it within that time is one session."""
_UNFINISHED: Final = ("in_progress", "queued")
_OBJECTS: Final = {
    "chat.completion": "completions",
    "chat.completion.chunk": "completions",
    "text_completion": "completions",
    "response": "completions",
    "response.compaction": "completions",
    "realtime.response": "completions",
    "thread.run": "completions",
    "decision": "decisions",
}
_IMAGE_EVENTS: Final = ("image_generation.completed", "image_edit.completed")
_SIGNS: Final = {
    "moderations": ("results",),
    "audio_transcriptions": ("seconds", "duration", "text", "transcript"),
    "audio_speeches": ("characters",),
    "completions": ("prompt_tokens", "input_tokens"),
}
"""Fields that only answers of one kind have, in this order."""


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record.

    Args:
        record: as above.
        options: whether a provider's own figure of the cost is taken, and where fields that nobody reads are counted.

    Returns:
        None of them where nothing was used: a request that failed, an answer that is not finished.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is a JSON object: an answer of the API, or one in an envelope")
    envelope, response = _open(Fields(record))
    if response is None or _is_of_nothing(response):
        return []
    if anthropic.is_message(response):
        return anthropic.answer_events(envelope, response, options)
    _refuse_unfinished(response)
    return _Answer(envelope, response, options).events()


def _open(record: Fields) -> tuple[Fields, Fields | None]:
    """Return the envelope and the answer in it; no answer where the call came to nothing."""
    envelope = Fields({})
    if "custom_id" not in record and "type" not in record and "response" in record:
        if unknown := [name for name in record.values if name not in _ENVELOPE]:
            raise record.wrong(unknown[0], f"is no field of an envelope; those are {', '.join(sorted(_ENVELOPE))}")
        envelope, record = record, record.fields("response")
    if "custom_id" in record and "response" in record:  # a line of a batch's output
        line = record.fields("response")
        if line.count("status_code") != 200 or "body" not in line:
            return envelope, None
        body = line.fields("body")
        if "timestamp" not in envelope and not any(name in body for name in _INSTANTS):
            raise body.wrong("created", "is missing; give timestamp in an envelope, since a batch may be fetched twice")
        values = {"id": line.values.get("request_id") or record.values.get("id"), **body.values}
        return Fields({"batch": True, **envelope.values}, envelope.path), Fields(values, body.path)
    if "custom_id" in record and "error" in record:
        return envelope, None
    if isinstance(record.values.get("type"), str) and "response" in record:  # an event of a stream
        if record.values["type"] not in _LAST:
            return envelope, None
        return envelope, record.fields("response")
    return envelope, record


def _is_of_nothing(answer: Fields) -> bool:
    """Whether it says by itself that nothing was used: an error, a piece of a stream, a batch that goes on."""
    values = answer.values
    if not is_blank(values.get("usage")):
        return False
    if values.get("object") == "batch":
        return True
    if values.get("object") == "chat.completion.chunk":
        # With include_usage there is a usage of null in all chunks but the last. Without, the last says that it ends.
        is_last = any(choice.values.get("finish_reason") for choice in answer.each("choices"))
        return "usage" in values or not is_last
    return not is_blank(values.get("error")) and "object" not in values


def _refuse_unfinished(answer: Fields) -> None:
    """Raise `FaultyRecord` for what carries counts and is not a whole answer."""
    name = answer.values.get("object")
    if name == "batch":
        raise answer.wrong(
            "object",
            "is a batch, whose output file says the same of each of its requests; send the lines of that file",
        )
    if name == "thread.run.step":
        raise answer.wrong("object", "is a step of a run, which repeats its counts; send the run")
    if name == "chat.completion.chunk" and not is_blank(answer.values.get("usage")):
        choices = list(answer.each("choices"))
        if choices and not any(choice.values.get("finish_reason") for choice in choices):
            raise answer.wrong(
                "object", "is a chunk on the way, whose counts are those up to then; send the last one of the stream"
            )
    if answer.values.get("status") in _UNFINISHED and not is_blank(answer.values.get("usage")):
        raise answer.wrong("status", "is not an end; send the answer once it is finished")
    data = answer.values.get("data")
    first = data[0] if isinstance(data, list) and data else None
    is_embedding = isinstance(first, dict) and first.get("object") == "embedding"
    if isinstance(data, list) and ("has_more" in answer.values or (name == "list" and first and not is_embedding)):
        raise answer.wrong("object", "is a list of what the API keeps, and not an answer of a model")


def tool_events(envelope: Fields, response: Fields) -> list[Event]:
    """Return what a response says the model used besides tokens, of who made the call by the envelope."""
    return _Answer(envelope, response, NO_OPTIONS).tools()


class _Answer:
    """One answer of the API, with who made the call."""

    def __init__(self, envelope: Fields, response: Fields, options: Options) -> None:
        self._envelope = envelope
        self._request = envelope.fields("request")
        self._response = response
        self._options = options
        self._usage = watched(response.fields("usage"))
        self._tool_usage = watched(response.fields("tool_usage"))
        self._dialect: Dialect = dialect_of(response.fields("usage"), OPENAI)
        self._timestamp = envelope.any("timestamp") or response.any(*_INSTANTS)
        self._common: Event = {
            "id": envelope.identity("id") or response.identity("id", "item_id", "request_id"),
            "timestamp": self._timestamp,
            "model": envelope.text("model") or response.text("model") or self._request.text("model"),
            "service_tier": envelope.text("service_tier") or response.text("service_tier"),
            "batch": envelope.any("batch"),
            **{name: envelope.text(name) for name in _COMMON},
        }

    def events(self) -> list[Event]:
        """Return what was used; the kind is told from the shape, unless the envelope names it."""
        kind = self._envelope.text("kind") or self._kind()
        read = {
            "completions": self._tokens,
            "decisions": self._tokens,
            "embeddings": self._input,
            "moderations": self._input,
            "images": self._images,
            "audio_transcriptions": self._transcription,
            "audio_speeches": self._speech,
        }.get(kind)
        if read is None:
            raise self._envelope.wrong("kind", f"must be one of {', '.join(KINDS)} that answers of the API are of")
        found = read(kind)
        report_unread(self._usage, self._dialect, self._options)
        report_unread(self._tool_usage, self._dialect, self._options, "tool_usage")
        return charged(found, reported_cost(self._usage)) if self._options.takes_costs else found

    def _kind(self) -> str:
        """Return what an answer is of: by its `object` where it has one, else by a field that no other kind has."""
        response, usage = self._response, self._response.fields("usage")
        name = response.values.get("object")
        if isinstance(name, str) and name in _OBJECTS:
            return _OBJECTS[name]
        data = response.values.get("data")
        if isinstance(data, list):
            first = data[0] if data else None
            is_embedding = isinstance(first, dict) and first.get("object") == "embedding"
            return "embeddings" if is_embedding or name == "list" else "images"
        if response.values.get("type") in _IMAGE_EVENTS:
            return "images"
        for kind, fields in _SIGNS.items():
            if any(field in where for field in fields for where in (response, usage, self._envelope)):
                return kind
        raise FaultyRecord(
            "object", name, "this is not an answer of the API that says what was used; name its kind in an envelope"
        )

    def _tokens(self, kind: str) -> list[Event]:
        found = token_events(kind, self._common, self._usage, self._dialect) if self._usage.values else []
        if not found and self._response.values.get("status") not in _UNUSED:
            raise self._response.wrong(
                "usage", "is missing; a stream of chat has it if the request asks for stream_options.include_usage"
            )
        searches = self._usage.fields("server_tool_use").count("web_search_requests")
        tools = self.tools()
        if searches and not any(event["kind"] == "web_search_calls" for event in tools):
            tools.append(made("web_search_calls", self._common, num_requests=searches))
        return found + tools

    def _input(self, kind: str) -> list[Event]:
        tokens = self._envelope.count("input_tokens")
        if tokens is None:
            tokens = self._usage.count("prompt_tokens", "input_tokens", "total_tokens")
        if tokens is None and kind == "moderations":
            tokens = 0  # the answer does not say, and nobody charges for it
        if tokens is None:
            raise self._response.wrong("usage", "is missing; give input_tokens in the envelope")
        return [made(kind, self._common, input_tokens=tokens)]

    def _images(self, _: str) -> list[Event]:
        data = self._response.values.get("data")
        images = len(data) if isinstance(data, list) else 1
        is_edit = self._response.values.get("type") == "image_edit.completed"
        edited = is_edit or any(name in self._request for name in ("image", "images", "mask"))
        return (
            image_events(
                self._common,
                self._usage,
                self._dialect,
                images=images,
                size=settled(self._response.text("size") or self._request.text("size")),
                quality=settled(self._response.text("quality") or self._request.text("quality")),
                source=self._envelope.text("source") or ("image.edit" if edited else "image.generation"),
            )
            + self._drawn_as_text()
        )

    def _drawn_as_text(self) -> list[Event]:
        """Return the tokens of the model that wrote a picture as SVG."""
        usage = watched(self._response.fields("svg_usage"))
        if not usage.values:
            return []
        identity = self._common["id"] and call_id(f"{self._common['id']}#svg")
        common = self._common | {"id": identity, "model": usage.text("model")}
        return token_events("completions", common, usage, OPENAI)

    def _transcription(self, kind: str) -> list[Event]:
        seconds = self._envelope.any("seconds")
        if seconds is None:
            seconds = self._usage.any("seconds")
        if seconds is None:
            seconds = self._response.any("duration")
        if isinstance(seconds, str):  # verbose answers of earlier versions
            seconds = _number(seconds, self._response)
        if seconds is not None:
            return [made(kind, self._common, seconds=seconds)]
        if self._usage.values:  # billed by tokens, and how long it took to say is not told
            return token_events("completions", self._common, self._usage, self._dialect)
        raise self._response.wrong(
            "usage", "is missing, and so is duration; give seconds in the envelope, or ask for response_format json"
        )

    def _speech(self, kind: str) -> list[Event]:
        characters = self._envelope.count("characters")
        if characters is None:
            characters = len(str(self._request.values.get("input") or ""))
        return [made(kind, self._common, characters=characters)]

    def tools(self) -> list[Event]:
        """Return what the model used besides tokens."""
        found: list[Event] = []
        done: dict[str, list[Fields]] = {}
        for item in self._response.each("output"):
            if item.values.get("status") in (None, "completed"):
                done.setdefault(str(item.values.get("type")), []).append(item)
        if searches := self._searches(done.get("web_search_call", [])):
            found.append(made("web_search_calls", self._common, num_requests=searches, context_level=self._level()))
        if calls := len(done.get("file_search_call", [])):
            found.append(made("file_search_calls", self._common, num_requests=calls, vector_store_id=self._store()))
        containers = {item.text("container_id") for item in done.get("code_interpreter_call", [])}
        found += (self._session(container) for container in sorted(containers, key=str))
        return found + self._pictures(done.get("image_generation_call", []))

    def _pictures(self, calls: list[Fields]) -> list[Event]:
        """Return the pictures that were drawn, and the tokens of the model that drew them where the answer has them."""
        found = [self._image(item) for item in calls]
        usage = self._tool_usage.fields("image_gen")
        if found and usage.values:
            identity = self._common["id"] and call_id(f"{self._common['id']}#image_generation")
            common = self._common | {"id": identity, "model": self._tool("image_generation").text("model")}
            picture, *tokens = image_events(common, usage, OPENAI)
            found = [event | ({"quality": picture["quality"]} if "quality" in picture else {}) for event in found]
            found += tokens
        return found

    def _image(self, item: Fields) -> Event:
        drawer = self._tool("image_generation")
        return made(
            "images",
            self._common | {"id": item.text("id") or self._common["id"], "model": drawer.text("model")},
            images=1,
            size=settled(item.text("size") or drawer.text("size")),
            quality=settled(item.text("quality") or drawer.text("quality")),
            source="image.edit" if item.values.get("action") == "edit" else "image.generation",
        )

    def _searches(self, calls: list[Fields]) -> int:
        """Return how many searches are billed: as the answer says, else those that were carried out."""
        told = self._tool_usage.fields("web_search").count("num_requests")
        if told is not None:
            return told
        return sum(call.fields("action").values.get("type", "search") == "search" for call in calls)

    def _level(self) -> str | None:
        for name in ("web_search", "web_search_preview"):
            level = self._tool(name).text("search_context_size")
            if level:
                return level
        return self._request.fields("web_search_options").text("search_context_size")

    def _store(self) -> str | None:
        """Return the vector store that was searched, if there is no doubt which."""
        stores = self._tool("file_search").values.get("vector_store_ids")
        return stores[0] if isinstance(stores, list) and len(stores) == 1 and isinstance(stores[0], str) else None

    def _tool(self, name: str) -> Fields:
        """Return a tool as the request, or the answer, which repeats it, describes it."""
        for where in (self._request, self._response):
            for tool in where.each("tools"):
                if str(tool.values.get("type", "")).startswith(name):
                    return tool
        return Fields({})

    def _session(self, container: str | None) -> Event:
        """Return a session. What tells it from others is its container, and since when it can have lasted."""
        instant = self._timestamp
        if isinstance(instant, int | float | Decimal) and not isinstance(instant, bool) and 0 <= instant < COUNT_MAX:
            instant = int(instant) // _SESSION_S * _SESSION_S
        identity = {"id": container or self._common["id"], "timestamp": instant}
        return made("code_interpreter_sessions", self._common | identity)


def settled(value: str | None) -> str | None:
    """Return a size or quality; none where it was left to the model and nobody said what it chose."""
    return None if value == "auto" else value


def _number(text: str, where: Fields) -> float:
    try:
        return float(text)
    except ValueError:
        raise where.wrong("duration", "must be a number of seconds") from None
