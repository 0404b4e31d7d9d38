"""What OpenTelemetry's operations are counted as, and token counts under all the names they have had.

Sources: OpenTelemetry's GenAI conventions up to 1.41, and those of their own repository since; OpenLLMetry 0.5;
OpenInference 0.1; vLLM's tracing; attributes of Pydantic AI, Strands, LiteLLM and Vercel's AI SDK.
"""

from collections.abc import Mapping
from typing import Final

from tallybook.event import COUNT_MAX
from tallybook.sources import openai
from tallybook.sources.otlp import Attributes
from tallybook.sources.record import Event, FaultyRecord, Fields

COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"

OPERATIONS: Final[Mapping[str, str | None]] = {
    "chat": COMPLETIONS,
    "generate_content": COMPLETIONS,
    "text_completion": COMPLETIONS,
    "embeddings": EMBEDDINGS,
    # What there is besides the convention: OpenLLMetry's request types, LiteLLM's call types, Semantic Kernel's names.
    **dict.fromkeys(("completion", "acompletion", "atext_completion", "responses", "aresponses"), COMPLETIONS),
    **dict.fromkeys(("anthropic_messages", "agenerate_content", "chat.completions", "text.completions"), COMPLETIONS),
    **dict.fromkeys(("embedding", "aembedding"), EMBEDDINGS),
    # No calls of a model, or totals of calls that have spans of their own.
    **dict.fromkeys(("invoke_agent", "invoke_workflow", "create_agent", "plan", "fetch_response"), None),
    **dict.fromkeys(("execute_tool", "retrieval", "rerank"), None),
    **dict.fromkeys(("create_memory", "update_memory", "upsert_memory", "delete_memory", "search_memory"), None),
    **dict.fromkeys(("create_memory_store", "delete_memory_store"), None),
}
"""The usage kind of each operation there is a word for; None for those that are counted as nothing."""

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "input": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
        "llm.token_count.prompt",
        "decision.token_count.input",
        "ai.usage.tokens",
    ),
    "output": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
        "decision.token_count.output",
    ),
    "total": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    "cached": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "ai.usage.cachedInputTokens",
        "ai.usage.inputTokenDetails.cacheReadTokens",
    ),
    "write": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.token_count.prompt_details.cache_write",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
    ),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "ai.usage.reasoningTokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
    ),
    "text input": ("gen_ai.usage.text.input_tokens",),
    "image input": ("gen_ai.usage.image.input_tokens",),
    "audio input": (
        "gen_ai.usage.audio.input_tokens",
        "gen_ai.usage.details.input_audio_tokens",
        "llm.token_count.prompt_details.audio",
    ),
    "text cached": ("gen_ai.usage.text.cache_read.input_tokens",),
    "image cached": ("gen_ai.usage.image.cache_read.input_tokens",),
    "audio cached": ("gen_ai.usage.audio.cache_read.input_tokens", "gen_ai.usage.details.cache_audio_read_tokens"),
    "image output": ("gen_ai.usage.image.output_tokens",),
    "audio output": (
        "gen_ai.usage.audio.output_tokens",
        "gen_ai.usage.details.output_audio_tokens",
        "llm.token_count.completion_details.audio",
    ),
}
"""Attributes of each count, the newest name first: it is the one that counts where there are several."""

_PLACES: Final = {name: (count, rank) for count, names in _NAMES.items() for rank, name in enumerate(names)}
TOKEN_NAMES: Final = frozenset(_PLACES)
MAKERS: Final = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
MODELS: Final = (
    "gen_ai.response.model",
    "llm.response.model_name",
    "llm.model_name",
    "gen_ai.request.model",
    "llm.request.model_name",
    "embedding.model_name",
    "ai.model.id",
)
_CACHE_IS_APART: Final = ("anthropic", "bedrock", "claude")
_THOUGHTS_ARE_APART: Final = ("gemini", "google", "gcp", "vertex")
_REASONING_IS_APART: Final = (*_THOUGHTS_ARE_APART, "x_ai", "xai", "grok")
"""What providers and models are called whose API counts so."""
_PLAINEST: Final = frozenset({"input", "output", "cached"})
"""What most sources say; nothing can contradict or be apart there, if the cached tokens do not exceed the input."""
_MODALITIES: Final = frozenset(count for count in _NAMES if " " in count)
_CACHED_PARTS: Final = ("text cached", "image cached", "audio cached")

Counts = Mapping[str, int]
"""Tokens by the keys above; what is not said is not there."""


def counts_of(attributes: Attributes) -> dict[str, int]:
    """Return the token counts that attributes have; raises `FaultyRecord` for what is no count."""
    named: dict[str, tuple[int, str]] = {}
    for name in attributes:
        if place := _PLACES.get(name):
            count, rank = place
            if count not in named or rank < named[count][0]:
                named[count] = (rank, name)
    counts = {}
    for count, (_, name) in named.items():
        value = attributes[name]
        if type(value) is not int or not 0 <= value <= COUNT_MAX:  # else as nearly all are
            value = Fields(attributes).count(name) or 0
        counts[count] = value
    return counts


def token_fields(counts: Counts, attributes: Attributes) -> Event:
    """Return token counts as fields of events.

    Args:
        counts: what the source says.
        attributes: whose they are; provider and model say whether these belong to a family that counts apart.

    Raises:
        FaultyRecord: the counts contradict each other.
    """
    cached, write = counts.get("cached"), counts.get("write")
    total_in, total_out = counts.get("input"), counts.get("output")
    if total_in is not None and _PLAINEST.issuperset(counts) and (cached or 0) <= total_in:
        return {"input_tokens": total_in, "input_cached_tokens": cached, "output_tokens": total_out}
    if cached is None and (parts := [counts[name] for name in _CACHED_PARTS if name in counts]):
        cached = sum(parts)
        counts = {**counts, "cached": cached}
    apart_in, apart_out = _apart(counts, attributes)
    if total_in is not None:
        total_in += apart_in
    if apart_out:
        total_out = (total_out or 0) + apart_out
    _check_whole(counts, ("reasoning",), "output", total_out)
    _check_whole(counts, ("text input", "image input", "audio input"), "input", total_in)
    if _MODALITIES.isdisjoint(counts):
        return {
            "input_tokens": total_in,
            "input_cached_tokens": cached,
            "input_cache_write_tokens": write,
            "output_tokens": total_out,
        }
    return openai.token_fields(Fields(_as_openai(counts, total_in, total_out)))


def _apart(counts: Counts, attributes: Attributes) -> tuple[int, int]:
    """Return what has to be added to input and output, because the source counts it beside them.

    The convention has cached tokens in the input and reasoning tokens in the output. Whoever hands on what Anthropic,
    Bedrock, Gemini or xAI answer leaves them out. It shows where a part exceeds its whole, or where only all of them
    make the total; without such a proof the convention holds. What Gemini's total has beyond its parts are thoughts,
    and, if these are told, what its tools put into the prompt.
    """
    total_in, total_out = counts.get("input", 0), counts.get("output", 0)
    cached, reasoning = counts.get("cached", 0) + counts.get("write", 0), counts.get("reasoning", 0)
    beyond = counts.get("total", 0) - total_in - total_out
    makers = " ".join(str(attributes[name]) for name in (*MAKERS, *MODELS) if name in attributes).lower()
    if beyond > 0:
        for apart in ((cached, 0), (0, reasoning), (cached, reasoning)):
            if beyond == sum(apart):
                return apart
        is_gemini = _is_any(_THOUGHTS_ARE_APART, makers) and not _is_any(_CACHE_IS_APART, makers)
        if is_gemini and "input" in counts and beyond > reasoning:
            return (beyond - reasoning, reasoning) if reasoning else (0, beyond)
    is_cached_apart = cached > total_in and _is_any(_CACHE_IS_APART, makers)
    is_reasoning_apart = reasoning > total_out and _is_any(_REASONING_IS_APART, makers)
    return cached if is_cached_apart else 0, reasoning if is_reasoning_apart else 0


def _is_any(names: tuple[str, ...], makers: str) -> bool:
    return any(name in makers for name in names)


def _check_whole(counts: Counts, parts: tuple[str, ...], whole: str, limit: int | None) -> None:
    given = {part: counts[part] for part in parts if counts.get(part)}
    if sum(given.values()) > (limit or 0):
        largest = max(given, key=lambda part: given[part])
        listed = " + ".join(f"{part} {tokens}" for part, tokens in given.items())
        raise FaultyRecord(
            _NAMES[largest][0],
            given[largest],
            f"the tokens of {listed} exceed those of the whole {whole}, {limit or 0}, which they are parts of",
        )


def _as_openai(counts: Counts, total_in: int | None, total_out: int | None) -> Event:
    """Return counts as OpenAI's API has them: there, too, the parts of each modality include cached ones."""
    cached_parts = {name: counts.get(f"{name[:5]} cached") for name in ("image_tokens", "audio_tokens")}
    return {
        "input_tokens": total_in,
        "input_tokens_details": {
            "cached_tokens": counts.get("cached"),
            "cached_tokens_details": cached_parts,
            "cache_write_tokens": counts.get("write"),
            "image_tokens": counts.get("image input"),
            "audio_tokens": counts.get("audio input"),
        },
        "output_tokens": total_out,
        "output_tokens_details": {
            "image_tokens": counts.get("image output"),
            "audio_tokens": counts.get("audio output"),
        },
    }
