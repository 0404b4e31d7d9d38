"""How providers count: what is beside its whole is added, where something proves it, whoever reports it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.sources import ai_sdk, otlp_tokens
from tallybook.sources.conventions import CACHE_BESIDE, INSIDE, LITELLM, Convention, event_fields, family_of, settled
from tallybook.sources.record import NO_OPTIONS, Event
from tallybook.sources.table import SOURCES
from tests.otlp_shaped import span, traces

T = 1_793_059_200
TRUTHS = {
    "nothing but text": {"input": 1000, "output": 300},
    "a cache that was read": {"input": 1000, "output": 300, "cached": 600},
    "a cache that was written": {"input": 1000, "output": 300, "write": 200},
    "a cache, read and written": {"input": 1000, "output": 300, "cached": 600, "write": 200},
    "a cache, read more than it was not": {"input": 1000, "output": 300, "cached": 980},
    "reasoning": {"input": 1000, "output": 300, "reasoning": 120},
    "more reasoning than answer": {"input": 1000, "output": 300, "reasoning": 290},
    "all of it": {"input": 1000, "output": 300, "cached": 600, "write": 200, "reasoning": 290},
    "a cache and reasoning of one size": {"input": 1000, "output": 300, "cached": 120, "reasoning": 120},
}
"""What was used, with all parts in their wholes."""
MAKERS = {
    "openai": ("openai", "gpt-5", ()),
    "xai": ("xai", "grok-4", ("reasoning",)),
    "gemini": ("gcp.gemini", "gemini-2.5-flash", ("reasoning",)),
    "bedrock": ("aws.bedrock", "anthropic.claude-sonnet-4-5", ("cached", "write")),
    "anthropic": ("anthropic", "claude-sonnet-4-5", ("cached", "write")),
}
"""Provider, model, and what it counts beside its wholes."""


def told(truth: dict[str, int], beside: tuple[str, ...], *, has_total: bool) -> dict[str, int]:
    """Return the counts of a provider that counts so."""
    given_in = truth["input"] - sum(truth.get(part, 0) for part in beside if part != "reasoning")
    given_out = truth["output"] - sum(truth.get(part, 0) for part in beside if part == "reasoning")
    total = {"total": truth["input"] + truth["output"]} if has_total else {}
    return {**truth, "input": given_in, "output": given_out, **total}


def as_chat(counts: dict[str, int], model: str) -> Any:
    usage = {
        "prompt_tokens": counts["input"],
        "completion_tokens": counts["output"],
        "total_tokens": counts.get("total"),
        "prompt_tokens_details": {"cached_tokens": counts.get("cached"), "cache_write_tokens": counts.get("write")},
        "completion_tokens_details": {"reasoning_tokens": counts.get("reasoning")},
    }
    return {"object": "chat.completion", "id": "c", "created": T, "model": model, "usage": usage}


def as_response(counts: dict[str, int], model: str) -> Any:
    usage = {
        "input_tokens": counts["input"],
        "output_tokens": str(counts["output"]),
        "total_tokens": counts.get("total"),
        "input_tokens_details": {"cached_tokens": counts.get("cached"), "cache_write_tokens": counts.get("write")},
        "output_tokens_details": {"reasoning_tokens": counts.get("reasoning")},
    }
    return {"object": "response", "id": "c", "created_at": T, "model": model, "status": "completed", "usage": usage}


def as_litellm(counts: dict[str, int], model: str) -> Any:
    usage = as_chat(counts, model)["usage"]
    call = {"id": "c", "call_type": "acompletion", "status": "success", "model": model, "endTime": T}
    return {**call, "metadata": {"usage_object": usage}}


def as_span(counts: dict[str, int], maker: str, model: str) -> Any:
    names = {
        "input": "gen_ai.usage.input_tokens",
        "output": "gen_ai.usage.output_tokens",
        "total": "gen_ai.usage.total_tokens",
        "cached": "gen_ai.usage.cache_read.input_tokens",
        "write": "gen_ai.usage.cache_write.input_tokens",
        "reasoning": "gen_ai.usage.reasoning.output_tokens",
    }
    values = {names[count]: value for count, value in counts.items()}
    about = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": maker, "gen_ai.response.model": model}
    return traces(span(about | values))


def used(source: str, record: Any) -> dict[str, int]:
    (event,) = SOURCES[source].events(record, NO_OPTIONS)
    return {
        "input": event["input_tokens"],
        "output": event["output_tokens"],
        "cached": event.get("input_cached_tokens") or 0,
        "write": event.get("input_cache_write_tokens") or 0,
    }


COMBINATIONS = [(maker, truth) for maker in MAKERS for truth in TRUTHS]


@pytest.mark.parametrize("source", ["chat", "response", "litellm", "span"])
@pytest.mark.parametrize(("maker", "truth"), COMBINATIONS)
def test_a_total_proves_what_is_beside_whoever_reports_it(source: str, maker: str, truth: str) -> None:
    provider, model, beside = MAKERS[maker]
    counts = told(TRUTHS[truth], beside, has_total=True)
    record, reader = {
        "chat": (as_chat(counts, model), "openai"),
        "response": (as_response(counts, model), "openai"),
        "litellm": (as_litellm(counts, model), "litellm"),
        "span": (as_span(counts, provider, model), "otlp"),
    }[source]
    expected = TRUTHS[truth]
    assert used(reader, record) == {name: expected.get(name, 0) for name in ("input", "output", "cached", "write")}


@pytest.mark.parametrize(("maker", "truth"), COMBINATIONS)
def test_without_a_proof_the_convention_of_the_reader_holds(maker: str, truth: str) -> None:
    _, model, _ = MAKERS[maker]
    counts = told(TRUTHS[truth], (), has_total=True)
    found = used("openai", as_chat(counts, model))
    assert (found["input"], found["output"]) == (1000, 300)


ABOVE: list[tuple[str, Convention, dict[str, int], tuple[int, int]]] = [
    ("claude-sonnet-4-5", INSIDE, {"input": 10, "output": 5, "cached": 20}, (30, 5)),
    ("claude-sonnet-4-5", INSIDE, {"input": 10, "output": 5, "cached": 4, "write": 20}, (34, 5)),
    ("claude-sonnet-4-5", LITELLM, {"input": 10, "output": 5, "cached": 4, "write": 20}, (30, 5)),
    ("claude-sonnet-4-5", LITELLM, {"input": 10, "output": 5, "cached": 40, "write": 20}, (70, 5)),
    ("claude-sonnet-4-5", CACHE_BESIDE, {"input": 100, "output": 5, "cached": 4, "write": 20}, (124, 5)),
    ("grok-4", INSIDE, {"input": 10, "output": 5, "reasoning": 20}, (10, 25)),
    ("gemini-2.5-pro", INSIDE, {"input": 10, "output": 5, "reasoning": 20}, (10, 25)),
    ("gemini-2.5-pro", INSIDE, {"input": 10, "output": 5, "total": 22}, (10, 12)),
    ("gemini-2.5-pro", INSIDE, {"input": 10, "output": 5, "reasoning": 3, "total": 22}, (14, 8)),
    # nobody knows how these count: a part above its whole stays a contradiction, for whoever checks the event
    ("gpt-5", INSIDE, {"input": 10, "output": 5, "cached": 20}, (10, 5)),
    ("gpt-5", INSIDE, {"input": 10, "output": 5, "reasoning": 20}, (10, 5)),
    ("gpt-5", INSIDE, {"input": 10, "output": 5, "total": 22}, (10, 5)),
]


@pytest.mark.parametrize(("model", "convention", "counts", "wholes"), ABOVE)
def test_a_part_above_its_whole_is_beside_it_with_those_who_count_so(
    model: str, convention: Convention, counts: dict[str, int], wholes: tuple[int, int]
) -> None:
    found = settled(counts, family_of(model), convention)
    assert (found["input"], found["output"]) == wholes


@given(
    st.sampled_from(list(MAKERS)),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_nothing_is_ever_taken_away_and_no_total_exceeded(
    maker: str, text: int, answer: int, cached: int, write: int, reasoning: int
) -> None:
    """Whoever counts parts beside and says a total: no proof adds more than the total has."""
    provider, model, beside = MAKERS[maker]
    truth = {
        "input": text + cached + write,
        "output": answer + reasoning,
        "cached": cached,
        "write": write,
        "reasoning": reasoning,
    }
    counts = told(truth, beside, has_total=True)
    found = settled(counts, family_of(provider, model))
    assert found["input"] >= counts["input"]
    assert found["output"] >= counts["output"]
    assert found["input"] + found["output"] == counts["total"]
    if not (cached or write) or not reasoning:
        assert (found["input"], found["output"]) == (truth["input"], truth["output"])


def of_ai_sdk(version: int, provider: str, *, has_metadata: bool) -> dict[str, Any]:
    """Return the attributes of Vercel's AI SDK: 30,000 were read besides 20,000 from the cache."""
    of_input = 30_000 if version == 5 and provider in ("anthropic.messages", "amazon-bedrock") else 50_000
    values: dict[str, Any] = {
        "gen_ai.system": provider,
        "gen_ai.usage.input_tokens": of_input,
        "gen_ai.usage.output_tokens": 100,
        "ai.usage.inputTokens": of_input,
        "ai.usage.outputTokens": 100,
        "ai.usage.totalTokens": of_input + 100,
        "ai.usage.cachedInputTokens": 20_000,
    }
    if version == 6:
        values |= {
            "ai.usage.inputTokenDetails.noCacheTokens": 30_000,
            "ai.usage.inputTokenDetails.cacheReadTokens": 20_000,
        }
    if has_metadata:
        usage = '{"input_tokens": 30000, "cache_read_input_tokens": 20000, "output_tokens": 100}'
        values[ai_sdk.METADATA] = '{"anthropic": {"usage": ' + usage + "}}"
    return values


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize(
    ("provider", "has_metadata"),
    [
        ("anthropic.messages", True),
        ("anthropic.messages", False),
        ("amazon-bedrock", False),
        ("openai.responses", False),
    ],
)
def test_the_ai_sdk_includes_the_cache_since_its_version_6(version: int, provider: str, has_metadata: bool) -> None:
    attributes = of_ai_sdk(version, provider, has_metadata=has_metadata)
    fields = otlp_tokens.token_fields(otlp_tokens.counts_of(attributes), attributes, "ai")
    assert (fields["input_tokens"], fields["input_cached_tokens"], fields["output_tokens"]) == (50_000, 20_000, 100)


def test_metadata_that_cannot_be_read_prove_nothing() -> None:
    for odd in ("", "{", "[]", '{"anthropic": 5}', '{"anthropic": {"usage": {"input_tokens": "x"}}}', '"x"'):
        attributes = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 1, ai_sdk.METADATA: odd}
        fields = otlp_tokens.token_fields(otlp_tokens.counts_of(attributes), attributes)
        assert (fields["input_tokens"], fields["output_tokens"]) == (5, 1)


@given(st.permutations([0, 7, 9]), st.booleans())
def test_of_several_names_the_newest_that_is_not_0_counts(values: list[int], as_text: bool) -> None:
    names = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens")
    attributes = {name: str(value) if as_text else value for name, value in zip(names, values, strict=True)}
    assert otlp_tokens.counts_of(attributes) == {"input": next(value for value in values if value)}


def test_image_tokens_are_split_so_that_the_parts_fit() -> None:
    fields: Event = event_fields({"input": 300, "cached": 250, "image input": 200, "output": 1})
    assert (fields["input_image_tokens"], fields["input_cached_image_tokens"]) == (50, 150)
