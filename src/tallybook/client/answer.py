"""What an answer of a model's API says of its usage, and nothing else of it.

Of what a client returned - objects of its models, or plain dicts - and of what was asked, only counts, names and kinds
of tools are taken: no text of a prompt or an answer leaves the process. Which of it counts as what is decided by the
server, which gets it in its envelope.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

Fields = Mapping[str, Any]

OPENAI = "openai"
ANTHROPIC = "anthropic"
GEMINI = "gemini"
BEDROCK = "bedrock"
OLLAMA = "ollama"
COHERE = "cohere"
"""The dialects of the server that answers are sent in."""

_NAMES = ("id", "item_id", "object", "model", "service_tier", "status", "duration", "size", "quality")
_TEXT_MAX = 256
"""No name is longer; what is, is something else."""
_FLAGS = (
    *("service_tier", "serviceTier", "speed", "inference_geo", "traffic_type", "trafficType"),
    *("type", "ttl", "modality", "model"),
)
"""Texts of a usage object that its price depends on, or that say what a count is of."""
_FLAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,63}")
"""What such a text may look like: one word, never a sentence."""
_TRUTHS = ("is_byok",)
_LIST_MAX = 64
"""The most parts of a usage object that are taken: iterations, modalities."""
_CREATED_MIN_S = 1_420_070_400
_CREATED_AHEAD_S = 3600
"""2015 until an hour from now: what the server accepts. Some servers of models give no time, or milliseconds."""
_TOOLS = ("web_search", "file_search", "image_generation")
_TOOL_NAMES = ("type", "search_context_size", "model", "size", "quality")
_STORES_MAX = 2
"""One is named, of more it is not known which was searched."""
_CALLS = ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call")
_CALL_NAMES = ("type", "status", "id", "container_id", "size", "quality")


def fields(value: Any) -> Fields:
    """Return the fields of a dict or of an object of a client's models; none of anything else."""
    if isinstance(value, (dict, Mapping)):  # a dict is found out quicker
        return value
    own: Fields = getattr(value, "__dict__", None) or {}
    more = getattr(value, "__pydantic_extra__", None)
    return {**own, **more} if more else own


def dialect_of(response: Fields) -> str:
    """Return which API an answer is of."""
    usage, meta = fields(response.get("usage")), fields(response.get("meta"))
    if response.get("type") == "message" and "usage" in response:
        return ANTHROPIC
    if _first(response, "usage_metadata", "usageMetadata") is not None:
        return GEMINI
    if "inputTokens" in usage or "usage" in fields(response.get("metadata")):
        return BEDROCK
    if any(_first(each, "billed_units", "tokens") is not None for each in (usage, meta)):
        return COHERE
    if any(response.get(name) is not None for name in ("prompt_eval_count", "eval_count")):
        return OLLAMA
    return OPENAI


def envelope(
    dialect: str, response: Fields, request: Fields, told: Fields, now_s: float | None = None
) -> dict[str, Any]:
    """Return an answer as the server takes it, with an identity of its own.

    Args:
        dialect: which API it is of.
        response: the answer.
        request: what was asked, as far as it is known.
        told: what is known besides, and stands before what the answer says.
        now_s: the present, Unix seconds; by default what the clock says.
    """
    made = {name: value for name, value in told.items() if value is not None}
    inner = (
        fields(response["response"]) if "response" in response and isinstance(response.get("type"), str) else response
    )
    made.setdefault("id", _identity(inner) or uuid.uuid4().hex)
    made.setdefault("timestamp", _created(inner, time.time() if now_s is None else now_s))
    if dialect in _NATIVE:
        return _native(dialect, response, request, made)
    if dialect == ANTHROPIC:
        return {**made, "response": _named(response, ("id", "model")) | {"usage": counts(response.get("usage"))}}
    made.setdefault("kind", _kind(inner))
    if not _name(inner.get("model")):
        made.setdefault("model", _name(request.get("model")))
    if asked := _asked(request):
        made["request"] = asked
    made["response"] = _answer(response)
    return {name: value for name, value in made.items() if value is not None}


def essentials(request: Fields) -> dict[str, Any]:
    """Return what an envelope tells of a request: more of it need not be kept until there is an answer."""
    return _asked(request) | _named(request, ("model",))


def counts(value: Any) -> Any:
    """Return the numbers of a nested object or list, and the flags their price depends on; None if there are none."""
    if isinstance(value, (int, float)):
        return None if isinstance(value, bool) else value
    if value is None or isinstance(value, (str, bytes)):
        return None
    if isinstance(value, (list, tuple)):
        parts = [found for each in value[:_LIST_MAX] if isinstance(found := counts(each), dict)]
        return parts or None
    inside = fields(value)
    found = {name: number for name, inner in inside.items() if (number := counts(inner)) is not None}
    flags = {name: flag for name in _FLAGS if (flag := _flag(inside.get(name))) is not None}
    truths = {name: True for name in _TRUTHS if inside.get(name) is True}
    return {**found, **flags, **truths} or None


def _flag(value: Any) -> str | None:
    return str.__str__(value) if isinstance(value, str) and _FLAG.fullmatch(value) else None


_NATIVE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    GEMINI: (
        ("response_id", "responseId", "model_version", "modelVersion"),
        ("usage_metadata", "usageMetadata"),
    ),
    BEDROCK: (("serviceTier",), ("usage", "serviceTier", "amazon-bedrock-invocationMetrics")),
    OLLAMA: (("model", "done", "done_reason", "prompt_eval_count", "eval_count", "total_duration"), ()),
    COHERE: (("id", "response_id", "generation_id"), ("usage", "meta")),
}
"""Dialects of their own: the names and the nested counts that are taken of an answer."""
_EMBEDDED = ("embedding", "embeddings")


def _native(dialect: str, response: Fields, request: Fields, made: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of a dialect of its own in its envelope."""
    names, nested = _NATIVE[dialect]
    where = fields(response["metadata"]) if dialect == BEDROCK and "metadata" in response else response
    taken = _named(where, names)
    taken.update((name, number) for name in nested if (number := counts(where.get(name))) is not None)
    if any(response.get(name) is not None for name in _EMBEDDED):
        made.setdefault("kind", "embeddings")
    if dialect == BEDROCK and fields(where.get("performanceConfig")).get("latency") == "optimized":
        taken["performanceConfig"] = {"latency": "optimized"}
    if dialect == GEMINI and (grounded := _grounded(response.get("candidates"))):
        taken["candidates"] = grounded
    model = _name(request.get("modelId")) or _name(request.get("model"))
    if model and not any(name in taken for name in ("model", "model_version", "modelVersion")):
        made.setdefault("model", model)
    return {name: value for name, value in made.items() if name not in ("source", "seconds", "characters")} | {
        "response": taken
    }


def _grounded(candidates: Any) -> list[dict[str, Any]]:
    """Return how many searches each candidate asked for: their texts are numbers here."""
    found = []
    for candidate in map(fields, candidates if isinstance(candidates, (list, tuple)) else ()):
        grounding = fields(_first(candidate, "grounding_metadata", "groundingMetadata"))
        queries = _first(grounding, "web_search_queries", "webSearchQueries")
        if isinstance(queries, (list, tuple)) and queries:
            numbers = [str(number) for number in range(len({str(query) for query in queries if query}))]
            found.append({"finishReason": "STOP", "groundingMetadata": {"webSearchQueries": numbers}})
    return found


def _identity(response: Fields) -> str | None:
    """Return the id an answer has by its own account."""
    kept = fields(response.get("ResponseMetadata"))
    return _name(kept.get("RequestId")) or next(
        (name for field in ("id", "item_id", "response_id", "responseId") if (name := _name(response.get(field)))), None
    )


def _first(found: Fields, *names: str) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _answer(response: Fields) -> dict[str, Any]:
    inner = response.get("response")
    if isinstance(response.get("type"), str) and inner is not None:  # an event of a stream
        return {"type": response["type"], "response": _answer(fields(inner))}
    found = _named(response, _NAMES)
    for name in ("usage", "tool_usage"):
        number = counts(response.get(name))
        if number is not None:
            found[name] = number
    data = response.get("data")
    if isinstance(data, list):
        is_embedding = bool(data) and fields(data[0]).get("object") == "embedding"
        found["data"] = [{"object": "embedding"}] if is_embedding else [{}] * len(data)
    if calls := list(_calls(response.get("output"))):
        found["output"] = calls
    if tools := _tools(response.get("tools")):
        found["tools"] = tools
    return found


def _asked(request: Fields) -> dict[str, Any]:
    found = _named(request, ("size", "quality"))
    if tools := _tools(request.get("tools")):
        found["tools"] = tools
    level = _named(fields(request.get("web_search_options")), ("search_context_size",))
    if level:
        found["web_search_options"] = level
    return found


def _tools(tools: Any) -> list[dict[str, Any]]:
    """Return what was asked of the provider's own tools; how others are described is the application's business."""
    found = []
    for tool in map(fields, tools if isinstance(tools, (list, tuple)) else ()):
        if str(tool.get("type", "")).startswith(_TOOLS):
            kept = _named(tool, _TOOL_NAMES)
            stores = tool.get("vector_store_ids")
            if isinstance(stores, (list, tuple)):
                kept["vector_store_ids"] = [name for store in stores[:_STORES_MAX] if (name := _name(store))]
            found.append(kept)
    return found


def _calls(output: Any) -> Iterable[dict[str, Any]]:
    for item in map(fields, output if isinstance(output, list) else ()):
        if item.get("type") in _CALLS:
            kept = _named(item, _CALL_NAMES)
            action = item.get("action")
            name = _name(action) or _name(fields(action).get("type"))
            if name:
                kept["action"] = name if isinstance(action, str) else {"type": name}
            yield kept


def _kind(response: Fields) -> str | None:
    """Return the kind of an answer that nothing would tell of any more once its texts are left out."""
    if "object" in response or ("usage" in response and "text" not in response):
        return None
    if "results" in response:
        return "moderations"
    return "audio_transcriptions" if "text" in response else None


def _created(response: Fields, now_s: float) -> float:
    """Return when an answer was made by its own account, or now if that cannot be."""
    for value in (response.get("created"), response.get("created_at")):
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and _CREATED_MIN_S <= value < now_s + _CREATED_AHEAD_S
        ):
            return value
    return round(now_s, 3)


def _named(found: Fields, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields that are names or numbers."""
    return {
        name: value
        for name in names
        if (value := found.get(name)) is not None
        and (isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= _TEXT_MAX))
    }


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _TEXT_MAX else None
