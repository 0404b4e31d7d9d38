"""What OpenTelemetry's operations are counted as, and token counts under all the names they have had.

Sources: OpenTelemetry's GenAI conventions up to 1.41, and those of their own repository since; OpenLLMetry 0.5;
OpenInference 0.1; vLLM's tracing; attributes of Pydantic AI, Strands, LiteLLM and Vercel's AI SDK.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallybook.event import COUNT_MAX
from tallybook.sources import ai_sdk
from tallybook.sources.conventions import (
    INSIDE,
    SCOPES,
    Counts,
    event_fields,
    family_of,
    settled,
)
from tallybook.sources.otlp_wire import Attributes
from tallybook.sources.record import Event, FaultyRecord, Fields, Options
from tallybook.sources.usage_objects import OPENAI, dialect_of, report_unread, token_events, watched

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
        "gen_ai.response.input_tokens",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
    ),
    "output": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
        "decision.token_count.output",
        "gen_ai.response.output_tokens",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
    ),
    "total": (
        "gen_ai.usage.total_tokens",
        "llm.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
    ),
    "cached": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.input_cached_tokens",
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
    "write_short": (
        "anthropic.usage.cache_creation.ephemeral_5m_input_tokens",
        "gen_ai.usage.details.ephemeral_5m_input_tokens",
        "gen_ai.usage.cache_creation.ephemeral_5m_input_tokens",
    ),
    "write_long": (
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
        "gen_ai.usage.details.ephemeral_1h_input_tokens",
        "gen_ai.usage.cache_creation.ephemeral_1h_input_tokens",
    ),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.experimental.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "ai.usage.reasoningTokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
    ),
    "text input": ("gen_ai.usage.text.input_tokens", "gen_ai.usage.input_text_tokens"),
    "image input": ("gen_ai.usage.image.input_tokens",),
    "audio input": (
        "gen_ai.usage.audio.input_tokens",
        "gen_ai.usage.input_audio_tokens",
        "gen_ai.usage.details.input_audio_tokens",
        "llm.token_count.prompt_details.audio",
    ),
    "text cached": ("gen_ai.usage.text.cache_read.input_tokens",),
    "image cached": ("gen_ai.usage.image.cache_read.input_tokens",),
    "audio cached": ("gen_ai.usage.audio.cache_read.input_tokens", "gen_ai.usage.details.cache_audio_read_tokens"),
    "image output": ("gen_ai.usage.image.output_tokens",),
    "audio output": (
        "gen_ai.usage.audio.output_tokens",
        "gen_ai.usage.output_audio_tokens",
        "gen_ai.usage.details.output_audio_tokens",
        "llm.token_count.completion_details.audio",
    ),
}
"""Attributes of each count, the newest name first: it is the one that counts where several say something."""

_PLACES: Final = {name: (count, rank) for count, names in _NAMES.items() for rank, name in enumerate(names)}
TOKEN_NAMES: Final = frozenset(_PLACES)
MAKERS: Final = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
MODELS: Final = (
    "gen_ai.response.model",
    "llm.response.model_name",
    "llm.model_name",
    "gen_ai.request.model",
    "llm.request.model_name",
    "llm.response.model",
    "llm.request.model",
    "embedding.model_name",
    "ai.model.id",
)
_PLAINEST: Final = frozenset({"input", "output", "cached"})
"""What most sources say; nothing can contradict or be apart there, if the cached tokens do not exceed the input."""
RAW: Final = "gen_ai.usage.raw"
"""The usage object of the answer, as JSON: Logfire's, whose other attributes leave some of it out."""
_RAW_MAX: Final = 16 * 1024
EVIDENCE: Final = frozenset({RAW, *ai_sdk.NAMES})
"""Attributes that are no counts of ours, and prove what others include."""


def counts_of(attributes: Attributes) -> dict[str, int]:
    """Return the token counts that attributes have; raises `FaultyRecord` for what is not a count.

    Of several names of a count the newest counts that does not say 0.
    """
    named: dict[str, tuple[int, str]] = {}
    others: dict[str, list[str]] = {}
    for name in attributes:
        if place := _PLACES.get(name):
            count, rank = place
            if count not in named:
                named[count] = (rank, name)
            else:
                others.setdefault(count, [named[count][1]]).append(name)
    counts = {}
    for count, (_, name) in named.items():
        value = attributes[name]
        if count in others:
            value = Fields(attributes).count(*sorted(others[count], key=_PLACES.__getitem__)) or 0
        elif type(value) is not int or not 0 <= value <= COUNT_MAX:  # else as nearly all are
            value = Fields(attributes).count(name) or 0
        counts[count] = value
    return counts


def token_fields(counts: Counts, attributes: Attributes, scope: str = "") -> Event:
    """Return token counts as fields of events.

    Args:
        counts: what the source says.
        attributes: whose they are; provider and model say whether these belong to a family that counts apart.
        scope: name of the instrumentation.

    Raises:
        FaultyRecord: the counts contradict each other.
    """
    cached = counts.get("cached")
    total_in = counts.get("input")
    is_plain = total_in is not None and _PLAINEST.issuperset(counts) and (cached or 0) <= total_in
    if is_plain and ai_sdk.METADATA not in attributes:
        is_inside = not cached or (scope not in SCOPES and ai_sdk.CACHED not in attributes)
        if is_inside:
            return {"input_tokens": total_in, "input_cached_tokens": cached, "output_tokens": counts.get("output")}
    family = family_of(*(attributes[name] for name in (*MAKERS, *MODELS) if name in attributes))
    told = ai_sdk.told(attributes)
    if told.usage is not None:
        return ai_sdk.of_anthropic(told.usage, family)
    convention = ai_sdk.convention(attributes, family, told.counts) or SCOPES.get(scope, INSIDE)
    more = {name: count for name, count in told.counts.items() if not counts.get(name)}
    counts = settled({**counts, **more}, family, convention)
    _check_whole(counts, ("reasoning",), "output")
    _check_whole(counts, ("text input", "image input", "audio input"), "input")
    return event_fields(counts)


def raw_events(kind: str, common: Event, counts: Counts, attributes: Attributes, options: Options) -> list[Event]:
    """Return the events of the usage object of an answer that a span has whole.

    Args:
        kind: what they are counted as.
        common: what they have in common; what it lacks of tier and place is taken from the object.
        counts: what the other attributes say, for counts that the object does not have.
        attributes: the span's.
        options: where fields that nobody reads are counted.

    Returns:
        None of them if there is no object, or none that has counts, or one whose counts are wrong.
    """
    text = attributes.get(RAW)
    if not isinstance(text, str) or len(text) > _RAW_MAX:
        return []
    try:
        usage = watched(Fields(msgspec.json.decode(text, type=dict[str, Any]), "usage"))
        dialect = dialect_of(usage, OPENAI)
        told = dialect.counts(usage)
        if not any(told.get(name) for name in ("input", "output")):
            return []
        # Not the total: that of the attributes may be of other parts.
        lacking = {name: count for name, count in counts.items() if name not in told and name != "total"}
        maker = Fields(attributes).any(*MAKERS)
        found = token_events(kind, common, usage, dialect, maker=str(maker or ""), lacking=lacking)
    except (msgspec.DecodeError, RecursionError, FaultyRecord):
        return []
    report_unread(usage, dialect, options)
    return found


def _check_whole(counts: Counts, parts: tuple[str, ...], whole: str) -> None:
    given = {part: counts[part] for part in parts if counts.get(part)}
    limit = counts.get(whole, 0)
    if sum(given.values()) > limit:
        largest = max(given, key=lambda part: given[part])
        listed = " + ".join(f"{part} {tokens}" for part, tokens in given.items())
        raise FaultyRecord(
            _NAMES[largest][0],
            given[largest],
            f"the tokens of {listed} exceed those of the whole {whole}, {limit}, which they are parts of",
        )
