"""The calls that senders make, and what the provider reports of each.

Every call asks for a model of its own, so that totals by model compare call by call.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Used:
    """Tokens of a call as Tallybook counts them: `input` is everything read, `output` everything written.

    Attributes:
        input: cached, written to the cache and audio included.
        write_hour: the part of `write` that is kept for an hour.
        output: reasoning and audio included.
    """

    input: int
    output: int
    cached: int = 0
    write: int = 0
    write_hour: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The same under the names of the usage API."""
        return {name: getattr(self, field) for field, name in MEASURES.items()}


MEASURES = {
    "input": "input_tokens",
    "cached": "input_cached_tokens",
    "write": "input_cache_write_tokens",
    "write_hour": "input_cache_write_12h_tokens",
    "output": "output_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
}
"""Fields of the usage API by those of `Used`. Reasoning is not among them: it is part of the output."""
assert set(MEASURES) <= {field.name for field in fields(Used)}


@dataclass(frozen=True)
class Call:
    """One call: what it is named in the tables, where it goes, what it uses."""

    name: str
    api: str
    model: str
    used: Used
    stream: bool = False


BEDROCK_SONNET, BEDROCK_HAIKU = "anthropic.claude-sonnet-4-5-20250929", "anthropic.claude-haiku-4-5-20251001"
CALLS = (
    Call("chat", "chat", "gpt-4o-mini", Used(121, 31)),
    Call("chat cached", "chat", "gpt-4.1", Used(1_203, 53, cached=1_024)),
    Call("chat reasoning", "chat", "gpt-5-mini", Used(85, 405, reasoning=320)),
    Call("chat audio", "chat", "gpt-4o-audio-preview", Used(537, 311, input_audio=401, output_audio=257)),
    Call("chat stream", "chat", "gpt-4o", Used(127, 37), stream=True),
    Call("chat cached stream", "chat", "gpt-4.1-mini", Used(2_207, 59, cached=2_048, reasoning=11), stream=True),
    Call("response", "responses", "gpt-5", Used(131, 41)),
    Call("response cached", "responses", "gpt-5.1", Used(3_301, 61, cached=3_072)),
    Call("response reasoning", "responses", "o4-mini", Used(89, 607, reasoning=512)),
    Call("response stream", "responses", "gpt-5-nano", Used(1_407, 167, cached=1_152, reasoning=64), stream=True),
    Call("embedding", "embeddings", "text-embedding-3-small", Used(17, 0)),
    Call("message", "messages", "claude-sonnet-4-5", Used(137, 43)),
    Call("message cached", "messages", "claude-haiku-4-5", Used(5_701, 67, cached=4_300, write=1_200)),
    Call("message hour", "messages", "claude-opus-4-5", Used(2_903, 71, write=2_500, write_hour=1_500)),
    Call("message reasoning", "messages", "claude-opus-4-1", Used(97, 709, reasoning=640)),
    Call("message stream", "messages", "claude-sonnet-4-0", Used(139, 47), stream=True),
    Call("message cached stream", "messages", "claude-opus-4-0", Used(6_803, 73, cached=5_400, write=1_300), True),
    Call("gemini", "gemini", "gemini-2.5-flash-lite", Used(149, 79)),
    Call("gemini cached", "gemini", "gemini-2.5-flash", Used(4_409, 83, cached=4_096)),
    Call("gemini reasoning", "gemini", "gemini-2.5-pro", Used(101, 811, reasoning=768)),
    Call("gemini stream", "gemini", "gemini-2.0-flash", Used(1_151, 89, cached=1_030), stream=True),
    Call("bedrock", "converse", "amazon.nova-lite-v1:0", Used(157, 97)),
    Call("bedrock cached", "converse", f"{BEDROCK_SONNET}-v1:0", Used(7_907, 103, cached=6_500, write=1_250)),
    Call("bedrock stream", "converse", "amazon.nova-pro-v1:0", Used(163, 107), stream=True),
    Call("bedrock cached stream", "converse", f"{BEDROCK_HAIKU}-v1:0", Used(8_009, 109, cached=6_600), stream=True),
)  # fmt: skip
BY_NAME = {call.name: call for call in CALLS}
assert len({call.model for call in CALLS}) == len(BY_NAME) == len(CALLS)


def of(*apis: str) -> tuple[Call, ...]:
    """The calls of some APIs, in order."""
    return tuple(call for call in CALLS if call.api in apis)


def chat_usage(used: Used) -> dict[str, Any]:
    return {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": {"cached_tokens": used.cached, "audio_tokens": used.input_audio},
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning,
            "audio_tokens": used.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def response_usage(used: Used) -> dict[str, Any]:
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }


def message_usage(used: Used) -> dict[str, Any]:
    """Anthropic's: what is read from the cache or written to it is beside the input."""
    return {
        "input_tokens": used.input - used.cached - used.write,
        "cache_creation_input_tokens": used.write,
        "cache_read_input_tokens": used.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": used.write - used.write_hour,
            "ephemeral_1h_input_tokens": used.write_hour,
        },
        "output_tokens": used.output,
        "service_tier": "standard",
    }


def gemini_usage(used: Used) -> dict[str, Any]:
    """Gemini's: thoughts are beside the candidates."""
    return {
        "promptTokenCount": used.input,
        "candidatesTokenCount": used.output - used.reasoning,
        "totalTokenCount": used.input + used.output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": used.input}],
        **({"cachedContentTokenCount": used.cached} if used.cached else {}),
        **({"thoughtsTokenCount": used.reasoning} if used.reasoning else {}),
    }


def converse_usage(used: Used) -> dict[str, Any]:
    """Bedrock's: the cache is beside the input, and in the total."""
    cache = {"cacheReadInputTokens": used.cached, "cacheWriteInputTokens": used.write}
    return {
        "inputTokens": used.input - used.cached - used.write,
        "outputTokens": used.output,
        "totalTokens": used.input + used.output,
        **(cache if used.cached or used.write else {}),
    }
