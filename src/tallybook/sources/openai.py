"""OpenAI-shaped responses: what an answer of the API says was used.

A record is an answer as it came (chat, text completions, responses, embeddings, images, transcriptions, moderations, an
event of the realtime API, a line of a batch's output), or such an answer in an envelope that says who made the call::

    {"response": {...}, "request": {...}, "user_id": ..., "project_id": ..., "api_key_id": ..., ...}

One answer can be several events: tokens, searches, images and sessions of the code interpreter are counted apart.

Source: types of the official ``openai`` client 3.54.
"""

from decimal import Decimal
from typing import Any, Final

from tallybook.event import COUNT_MAX
from tallybook.kinds import KINDS
from tallybook.sources.record import NO_OPTIONS, WHO, Event, FaultyRecord, Fields, Options, made

_COMMON: Final = (*WHO, "api_source")
_UNUSED: Final = ("failed", "cancelled", "incomplete", "in_progress", "queued")
"""What becomes of a response that may have used nothing, or tells it later."""
_INSTANTS: Final = ("created", "created_at")
_ENVELOPE: Final = frozenset(
    {"response", "request", "id", "timestamp", "model", "batch", "service_tier", *_COMMON}
    | {"seconds", "characters", "input_tokens", "kind", "source"}
)
_SESSION_S: Final = 20 * 60
"""A container is billed for so long at a time: what answers make of it within that time is one session."""
_OBJECTS: Final = {
    "chat.completion": "completions",
    "text_completion": "completions",
    "response": "completions",
    "response.compaction": "completions",
    "realtime.response": "completions",
    "decision": "decisions",
}
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
        options: not looked at.

    Returns:
        None of them where nothing was used: a request of a batch that failed, an answer that is not finished.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    if not isinstance(record, dict):
        raise FaultyRecord(None, record, "a record is a JSON object: an answer of the API, or one in an envelope")
    envelope, response = _open(Fields(record))
    if response is None:
        return []
    return _Answer(envelope, response).events()


def _open(record: Fields) -> tuple[Fields, Fields | None]:
    """Return the envelope and the answer in it; no answer where the call came to nothing."""
    envelope = Fields({})
    if "custom_id" not in record and "type" not in record and "response" in record:
        if unknown := [name for name in record.values if name not in _ENVELOPE]:
            raise record.wrong(unknown[0], f"is no field of an envelope; those are {', '.join(sorted(_ENVELOPE))}")
        envelope, record = record, record.fields("response")
    if "custom_id" in record:  # a line of a batch's output
        line = record.fields("response")
        if line.count("status_code") != 200 or "body" not in line:
            return envelope, None
        body = line.fields("body")
        if "timestamp" not in envelope and not any(name in body for name in _INSTANTS):
            raise body.wrong("created", "is missing; give timestamp in an envelope, since a batch may be fetched twice")
        values = {"id": line.values.get("request_id") or record.values.get("id"), **body.values}
        return Fields({"batch": True, **envelope.values}, envelope.path), Fields(values, body.path)
    if isinstance(record.values.get("type"), str) and "response" in record:  # an event of a stream
        if record.values["type"] not in ("response.done", "response.completed", "response.incomplete"):
            return envelope, None
        return envelope, record.fields("response")
    return envelope, record


def tool_events(envelope: Fields, response: Fields) -> list[Event]:
    """Return what a response says the model used besides tokens, of who made the call by the envelope."""
    return _Answer(envelope, response).tools()


class _Answer:
    """One answer of the API, with who made the call."""

    def __init__(self, envelope: Fields, response: Fields) -> None:
        self._envelope = envelope
        self._request = envelope.fields("request")
        self._response = response
        self._usage = response.fields("usage")
        self._timestamp = envelope.any("timestamp") or response.any(*_INSTANTS)
        self._common: Event = {
            "id": envelope.text("id") or response.text("id", "item_id", "request_id"),
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
        return read(kind)

    def _kind(self) -> str:
        """Return what an answer is of: by its `object` where it has one, else by a field that no other kind has."""
        response = self._response
        name = response.values.get("object")
        if isinstance(name, str) and name in _OBJECTS:
            return _OBJECTS[name]
        data = response.values.get("data")
        if isinstance(data, list):
            first = data[0] if data else None
            return "embeddings" if isinstance(first, dict) and first.get("object") == "embedding" else "images"
        for kind, fields in _SIGNS.items():
            if any(field in where for field in fields for where in (response, self._usage, self._envelope)):
                return kind
        raise FaultyRecord(
            "object", name, "this is no answer of the API that says what was used; name its kind in an envelope"
        )

    def _tokens(self, kind: str) -> list[Event]:
        found = [made(kind, self._common, **token_fields(self._usage))] if self._usage.values else []
        if not found and self._response.values.get("status") not in _UNUSED:
            raise self._response.wrong(
                "usage", "is missing; a stream of chat has it if the request asks for stream_options.include_usage"
            )
        return found + self.tools()

    def _input(self, kind: str) -> list[Event]:
        tokens = self._envelope.count("input_tokens")
        if tokens is None:
            tokens = self._usage.count("prompt_tokens", "input_tokens", "total_tokens")
        if tokens is None and kind == "moderations":
            tokens = 0  # the answer does not say, and nobody charges for it
        if tokens is None:
            raise self._response.wrong("usage", "is missing; give input_tokens in the envelope")
        return [made(kind, self._common, input_tokens=tokens)]

    def _images(self, kind: str) -> list[Event]:
        data = self._response.values.get("data")
        images = len(data) if isinstance(data, list) else 1
        edited = any(name in self._request for name in ("image", "images", "mask"))
        return [
            made(
                kind,
                self._common,
                images=images,
                size=settled(self._response.text("size") or self._request.text("size")),
                quality=settled(self._response.text("quality") or self._request.text("quality")),
                source=self._envelope.text("source") or ("image.edit" if edited else "image.generation"),
            )
        ]

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
            return [made("completions", self._common, **token_fields(self._usage))]
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
        found += (self._image(item) for item in done.get("image_generation_call", []))
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
        told = self._response.fields("tool_usage").fields("web_search").count("num_requests")
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


def token_fields(usage: Fields) -> Event:
    """Return the token counts of a ``usage`` object, whichever of the API's it is from.

    Its details are parts of the whole, cached ones included, where ours of text and image are not.
    """
    inside = next(
        (
            usage.fields(name)
            for name in ("prompt_tokens_details", "input_tokens_details", "input_token_details")
            if name in usage
        ),
        Fields({}),
    )
    outside = next(
        (
            usage.fields(name)
            for name in ("completion_tokens_details", "output_tokens_details", "output_token_details")
            if name in usage
        ),
        Fields({}),
    )
    total = usage.count("prompt_tokens", "input_tokens")
    cached = inside.count("cached_tokens")
    cached_parts = inside.fields("cached_tokens_details")
    write_parts = inside.fields("cache_write_tokens_details")
    write = inside.count("cache_write_tokens", "cache_creation_tokens")
    image, cached_image = _uncached_image(inside, cached_parts, total, cached, write)
    return {
        "input_tokens": total,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        "input_cache_write_30m_tokens": write_parts.count("ttl_30m_tokens"),
        "input_cache_write_12h_tokens": write_parts.count("ttl_12h_tokens"),
        "input_audio_tokens": inside.count("audio_tokens"),
        "input_image_tokens": image,
        "input_cached_audio_tokens": cached_parts.count("audio_tokens", "cached_audio_tokens"),
        "input_cached_image_tokens": cached_image,
        "output_tokens": usage.count("completion_tokens", "output_tokens"),
        "output_audio_tokens": outside.count("audio_tokens"),
        "output_image_tokens": outside.count("image_tokens"),
    }


def _uncached_image(
    inside: Fields, cached_parts: Fields, total: int | None, cached: int | None, write: int | None
) -> tuple[int | None, int | None]:
    """Return how many of the image tokens were not cached, and how many were.

    Where the source does not say how many were cached, the least is taken that makes the parts fit: text comes first,
    and so is cached first.
    """
    image = inside.count("image_tokens")
    cached_image = cached_parts.count("image_tokens", "cached_image_tokens")
    if image is None:
        return None, cached_image
    if cached_image is None:
        room = (total or 0) - (cached or 0) - (write or 0) - (inside.count("audio_tokens") or 0)
        cached_image = min(max(0, image - max(0, room)), cached or 0)
    return max(0, image - cached_image), cached_image or None


def settled(value: str | None) -> str | None:
    """Return a size or quality; none where it was left to the model and nobody said what it chose."""
    return None if value == "auto" else value


def _number(text: str, where: Fields) -> float:
    try:
        return float(text)
    except ValueError:
        raise where.wrong("duration", "must be a number of seconds") from None
