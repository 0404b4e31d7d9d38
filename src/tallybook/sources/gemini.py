"""Gemini's answers, of the Gemini API and of Vertex AI: generateContent, interactions, embeddings, lines of batches.

A record is an answer as it came, the chunks of one stream as a list, a line of a batch's output, or either in an
envelope that says who made the call (see `tallybook.sources.envelope`). Field names may be in either spelling,
``usageMetadata`` or ``usage_metadata``, since the clients write both.

``promptTokenCount`` includes what came from the cache. Thoughts are counted beside the candidates, and the results of
tools beside the prompt; ``totalTokenCount`` proves it, or that a server counts them inside.

Source: types of the official ``google-genai`` client 3.6; reference of Vertex AI's ``UsageMetadata``.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, Final

from tallybook.sources.envelope import common, note_fields, opened
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, made, note_unread

_LINE: Final = ("key", "processed_time", "processedTime", "status", "metadata", "error")
"""Fields of a batch's lines, which hold a response and are no envelopes."""
_TIERS: Final = {
    "ON_DEMAND": "default",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_OFFPEAK": "offpeak",
    "PROVISIONED_THROUGHPUT": "provisioned",
    "STANDARD": "default",
    "UNSPECIFIED": None,
    "TRAFFIC_TYPE_UNSPECIFIED": None,
    "SERVICE_TIER_UNSPECIFIED": None,
}
"""Kinds of traffic and service tiers that others have another word for. What is provisioned is paid by the hour."""
_INTERACTION: Final = {
    "totalInputTokens": "promptTokenCount",
    "totalCachedTokens": "cachedContentTokenCount",
    "totalOutputTokens": "candidatesTokenCount",
    "totalThoughtTokens": "thoughtsTokenCount",
    "totalToolUseTokens": "toolUsePromptTokenCount",
    "totalTokens": "totalTokenCount",
    "inputTokensByModality": "promptTokensDetails",
    "cachedTokensByModality": "cacheTokensDetails",
    "outputTokensByModality": "candidatesTokensDetails",
    "toolUseTokensByModality": "toolUsePromptTokensDetails",
}
"""What the usage of an interaction calls the same counts."""
_READ: Final = frozenset(
    {*_INTERACTION.values(), "responseTokenCount", "responseTokensDetails", "trafficType", "serviceTier"}
    | {"groundingToolCount", "initialInputTokens", "initialPromptTokenCount"}  # the latter are parts of the prompt
)
_MODALITIES: Final = frozenset({"", "TEXT", "IMAGE", "AUDIO", "VIDEO", "DOCUMENT", "MODALITY_UNSPECIFIED"})
_BILLED_BY_PROMPT: Final = re.compile(r"gemini-(1|2)\b")
"""Models whose searches are billed by the grounded prompt; later ones are by the query."""


def is_answer(answer: Mapping[str, Any]) -> bool:
    """Return whether an object is an answer or a line of this source, whatever is in it."""
    values = _camel(answer)
    if isinstance(values.get("usageMetadata"), dict) or ("candidates" in values and "modelVersion" in values):
        return True
    if any(name in answer for name in _LINE) and "custom_id" not in answer:
        inside = answer.get("response")
        return is_answer(inside) if isinstance(inside, dict) else "key" in answer and "error" in answer
    return _interaction(values) is not None or _statistics(values) is not None


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none where nothing was used, or where the last chunk will say.

    Raises:
        FaultyRecord: it is none of these, or a field has the wrong type.
    """
    envelope, answer = opened(record, foreign=_LINE)
    is_batch = False
    instant: object = None
    if isinstance(answer, dict) and any(name in answer for name in _LINE):  # a line of a batch's output
        is_batch, instant = True, answer.get("processed_time") or answer.get("processedTime")
        answer = answer.get("response")
        if not isinstance(answer, dict) or not answer:
            return []  # the request failed
    if isinstance(answer, list):
        answer = _merged(answer)
    elif _is_unfinished(answer):
        return []
    values = _camel(answer)
    values = _interaction(values) or values
    response = Fields(values)
    usage = Fields(_camel(response.fields("usageMetadata").values), "usageMetadata")
    note_fields(usage, _READ, options)
    model = response.text("modelVersion") or _model(envelope.fields("request").text("model"))
    shared = common(
        envelope,
        identity=response.values.get("responseId"),
        timestamp=response.any("createTime") or instant,
        model=_model(model),
        tier=_tier(response, usage),
        is_batch=is_batch,
    )
    if _statistics(values) is not None or envelope.text("kind") == "embeddings":
        return [made("embeddings", shared, input_tokens=_embedded(envelope, values, usage))]
    if not usage.values:
        raise response.wrong(
            "usageMetadata", "is missing; send the answer as the API returns it, a stream's last chunk"
        )
    found = [made("completions", shared, **token_fields(usage, options))]
    if searches := _searches(response, usage, str(shared["model"])):
        found.append(made("web_search_calls", shared, num_requests=searches))
    return found


def token_fields(usage: Fields, options: Options = NO_OPTIONS) -> Event:
    """Return the token counts of a ``usageMetadata``, thoughts put into the output and tools' results into the input.

    A count that is absent is 0: that is how the API writes it.
    """
    prompt = usage.count("promptTokenCount") or 0
    output = usage.count("candidatesTokenCount", "responseTokenCount") or 0
    beside = {
        "thoughts": usage.count("thoughtsTokenCount") or 0,
        "tool": usage.count("toolUsePromptTokenCount") or 0,
    }
    total = usage.count("totalTokenCount")
    inside = _inside(total, prompt + output, beside)
    if inside is None:
        note_unread(options, "usageMetadata.totalTokenCount")  # more or less than its parts
    tool = 0 if "tool" in (inside or ()) else beside["tool"]
    thoughts = 0 if "thoughts" in (inside or ()) else beside["thoughts"]
    read = _modalities(usage, options, "promptTokensDetails", *(("toolUsePromptTokensDetails",) if tool else ()))
    cached_parts = _modalities(usage, options, "cacheTokensDetails")
    written = _modalities(usage, options, "candidatesTokensDetails", "responseTokensDetails")
    cached = usage.count("cachedContentTokenCount")
    audio, image = read.get("AUDIO"), read.get("IMAGE")
    cached_image = cached_parts.get("IMAGE")
    if image and cached and not cached_parts:  # text comes first, and so is cached first
        cached_image = min(cached, max(0, image - max(0, prompt + tool - cached - (audio or 0)))) or None
    return {
        "input_tokens": prompt + tool,
        "input_cached_tokens": cached,
        "input_audio_tokens": audio,
        "input_image_tokens": None if image is None else max(0, image - (cached_image or 0)),
        "input_cached_audio_tokens": cached_parts.get("AUDIO"),
        "input_cached_image_tokens": cached_image,
        "output_tokens": output + thoughts,
        "output_audio_tokens": written.get("AUDIO"),
        "output_image_tokens": written.get("IMAGE"),
    }


def _inside(total: int | None, whole: int, beside: Mapping[str, int]) -> tuple[str, ...] | None:
    """Return which counts a total proves to be inside the others; None if it proves nothing, and then none is."""
    if total is None:
        return ()
    given = [name for name, count in beside.items() if count]
    for size in range(len(given) + 1):
        for inside in combinations(given, size):
            if whole + sum(beside[name] for name in given if name not in inside) == total:
                return inside
    return None


def _modalities(usage: Fields, options: Options, *names: str) -> dict[str, int]:
    """Return tokens by modality, of several lists together."""
    found: dict[str, int] = {}
    for name in names:
        for part in usage.each(name):
            modality = (part.text("modality") or "").upper()
            tokens = part.count("tokenCount", "token_count", "tokens") or 0
            found[modality] = found.get(modality, 0) + tokens
            if tokens and modality not in _MODALITIES:
                note_unread(options, f"usageMetadata.{name}.{modality}")
    return found


def _tier(response: Fields, usage: Fields) -> str | None:
    name = usage.text("trafficType", "serviceTier") or response.text("serviceTier")
    return _TIERS.get(name.upper(), name.lower()) if name else None


def _model(name: str | None) -> str | None:
    """Return a model without the path it has in requests."""
    return name.rpartition("models/")[2] if name else None


def _searches(response: Fields, usage: Fields, model: str) -> int:
    """Return how many searches are billed."""
    if "groundingToolCount" in usage:
        tools = usage.each("groundingToolCount")
        return sum(tool.count("count") or 0 for tool in tools if tool.text("type") in ("google_search", None))
    queries = 0
    for candidate in response.each("candidates"):
        grounding = Fields(_camel(candidate.values)).fields("groundingMetadata")
        asked = _camel(grounding.values).get("webSearchQueries")
        if isinstance(asked, list):
            queries += len({query for query in asked if isinstance(query, str) and query})
    return min(queries, 1) if _BILLED_BY_PROMPT.match(model) else queries


def _embedded(envelope: Fields, values: Mapping[str, Any], usage: Fields) -> int:
    tokens = envelope.count("input_tokens")
    if tokens is None:
        tokens = usage.count("promptTokenCount", "totalTokenCount")
    if tokens is None and (parts := _statistics(values)):
        tokens = sum(part.count("tokenCount", "token_count") or 0 for part in parts)
    if tokens is None:
        raise FaultyRecord("usageMetadata", None, "usageMetadata is missing; give input_tokens in the envelope")
    return tokens


def _statistics(values: Mapping[str, Any]) -> list[Fields] | None:
    """Return what an answer of embeddings says of each of them; None if it is not such an answer."""
    if isinstance(values.get("embedding"), dict):
        return []
    embeddings = values.get("embeddings")
    if isinstance(values.get("predictions"), list):  # Vertex AI's older address
        embeddings = [each.get("embeddings") for each in values["predictions"] if isinstance(each, dict)]
    if not isinstance(embeddings, list) or not embeddings or not all(isinstance(each, dict) for each in embeddings):
        return None  # Ollama's and Cohere's are lists of numbers
    return [Fields(each["statistics"]) for each in embeddings if isinstance(each.get("statistics"), dict)]


def _interaction(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an interaction, or the last event of its stream, as generateContent's answer; None of anything else."""
    if isinstance(values.get("interaction"), dict):
        values = _camel(values["interaction"])
    usage = values.get("usage")
    usage = _camel(usage) if isinstance(usage, dict) else {}
    if values.get("object") != "interaction" and "totalInputTokens" not in usage:
        return None
    return {
        "responseId": values.get("id"),
        "modelVersion": values.get("model"),
        "createTime": values.get("created"),
        "serviceTier": values.get("serviceTier"),
        "usageMetadata": {_INTERACTION.get(name, name): value for name, value in usage.items()},
    }


def _is_unfinished(answer: Mapping[str, Any]) -> bool:
    """Return whether an answer is a chunk that others follow: its candidates are there, and none has ended.

    One without content that says what was searched is no chunk: somebody cut an answer down to what is counted.
    """
    candidates = answer.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        return False
    found = [_camel(each) for each in candidates if isinstance(each, dict)]
    return not any(
        each.get("finishReason") or ("content" not in each and "groundingMetadata" in each) for each in found
    )


def _merged(chunks: Iterable[Any]) -> dict[str, Any]:
    """Return the chunks of one stream as one answer: its usage is the last, its candidates all."""
    merged: dict[str, Any] = {}
    candidates: list[Any] = []
    for chunk in chunks:
        if not isinstance(chunk, dict):
            raise FaultyRecord(None, chunk, "a chunk of a stream is a JSON object")
        values = _camel(chunk)
        found = values.pop("candidates", None)
        candidates += found if isinstance(found, list) else []
        merged.update((name, value) for name, value in values.items() if value is not None)
    return {**merged, "candidates": candidates}


def _camel(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by the names the API has for them; of two spellings of one, the one that has a value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        spelled = re.sub(r"_([a-z])", lambda part: part[1].upper(), name) if "_" in name else name
        if not found.get(spelled) or _is_more(value, found[spelled]):
            found[spelled] = value
    return found


def _is_more(value: object, other: object) -> bool:
    return isinstance(value, int) and isinstance(other, int) and value > other
