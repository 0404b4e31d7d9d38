"""Native answers of providers: what each of their fields is counted as, in every spelling, envelope and order."""

import json
import re
from collections import Counter
from typing import Any

import httpx
import pytest

from tallybook.ingest.decode import read_record
from tallybook.sources.answers import SHAPES, shape_of
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Options
from tallybook.sources.table import SOURCES
from tests.test_sources import CALL, CHAT, MESSAGE, NUMBERS, ONE, RESPONSE, places
from tests.test_sources_http import WINDOW, counts, post, used

T = 1_763_800_000
TIME = "2025-11-22T08:26:40Z"


def gemini(model: str = "gemini-2.5-flash", **usage: Any) -> Event:
    ended = [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]
    return {
        "candidates": ended,
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": "gem-1",
        "createTime": TIME,
    }


def details(**tokens: int) -> list[Event]:
    return [{"modality": name.upper(), "tokenCount": count} for name, count in tokens.items()]


def grounded(model: str, *queries: list[str]) -> Event:
    candidates = [{"finishReason": "STOP", "groundingMetadata": {"webSearchQueries": each}} for each in queries]
    return gemini(model, promptTokenCount=9, candidatesTokenCount=3) | {"candidates": candidates}


def bedrock(answer: Event | list[Event] | None = None, **usage: Any) -> Event:
    asked = {"response": {"usage": usage, "ResponseMetadata": {"RequestId": "req-1"}}, "request": {"modelId": "m"}}
    return asked if answer is None else asked | {"response": answer}


def ollama(**fields: Any) -> Event:
    return {"model": "llama3.2", "created_at": "2025-11-22T08:26:40.123456789Z", "done": True, "response": "x"} | fields


def cohere(answer: Event) -> Event:
    return {"response": {"id": "co-1"} | answer, "model": "command-a-03-2025"}


def line(**fields: Any) -> Event:
    return {"type": "assistant", "uuid": "u", "sessionId": "s", "requestId": "req_1", "timestamp": TIME} | fields


def tokens(read: int, written: int, **fields: Any) -> Event:
    return {"kind": "completions", "input_tokens": read, "output_tokens": written} | fields


BATCHED = {"batch": True}
CASES: dict[str, tuple[str, Any, list[Event]]] = {
    "Gemini": ("gemini", gemini(promptTokenCount=9, candidatesTokenCount=3, totalTokenCount=12), [tokens(9, 3)]),
    "Gemini, an absent count": ("gemini", gemini(promptTokenCount=9, totalTokenCount=9), [tokens(9, 0)]),
    "Gemini, cached inside": (
        "gemini",
        gemini(promptTokenCount=90, cachedContentTokenCount=40, candidatesTokenCount=3, totalTokenCount=93),
        [tokens(90, 3, input_cached_tokens=40)],
    ),
    "Gemini, thoughts beside": (
        "gemini",
        gemini(promptTokenCount=9, candidatesTokenCount=3, thoughtsTokenCount=20, totalTokenCount=32),
        [tokens(9, 23)],
    ),
    "Gemini, thoughts beside without a total": (
        "gemini",
        gemini(promptTokenCount=9, candidatesTokenCount=3, thoughtsTokenCount=20),
        [tokens(9, 23)],
    ),
    "Gemini, thoughts inside, proven": (
        "gemini",
        gemini(promptTokenCount=9, candidatesTokenCount=23, thoughtsTokenCount=20, totalTokenCount=32),
        [tokens(9, 23)],
    ),
    "Gemini, tools beside": (
        "gemini",
        gemini(promptTokenCount=9, toolUsePromptTokenCount=50, candidatesTokenCount=3, totalTokenCount=62),
        [tokens(59, 3)],
    ),
    "Gemini, tools inside, thoughts beside, proven": (
        "gemini",
        gemini(
            promptTokenCount=59,
            toolUsePromptTokenCount=50,
            candidatesTokenCount=3,
            thoughtsTokenCount=7,
            totalTokenCount=69,
        ),
        [tokens(59, 10)],
    ),
    "Gemini, modalities": (
        "gemini",
        gemini(
            promptTokenCount=900,
            promptTokensDetails=details(text=100, image=300, audio=400, video=100),
            cachedContentTokenCount=250,
            cacheTokensDetails=details(image=150, audio=100),
            candidatesTokenCount=1300,
            candidatesTokensDetails=details(text=10, image=1290),
            totalTokenCount=2200,
        ),
        [
            tokens(
                900,
                1300,
                input_cached_tokens=250,
                input_audio_tokens=400,
                input_image_tokens=150,
                input_cached_audio_tokens=100,
                input_cached_image_tokens=150,
                output_image_tokens=1290,
            )
        ],
    ),
    "Gemini, images of which it is not known how many were cached": (
        "gemini",
        gemini(
            promptTokenCount=900,
            promptTokensDetails=details(text=600, image=300),
            cachedContentTokenCount=700,
            candidatesTokenCount=1,
        ),
        [tokens(900, 1, input_cached_tokens=700, input_image_tokens=200, input_cached_image_tokens=100)],
    ),
    "Gemini, speech": (
        "gemini",
        gemini(promptTokenCount=9, candidatesTokenCount=70, candidatesTokensDetails=details(audio=70)),
        [tokens(9, 70, output_audio_tokens=70)],
    ),
    "Gemini Live": (
        "gemini",
        {"usageMetadata": {"promptTokenCount": 9, "responseTokenCount": 3, "totalTokenCount": 12}},
        [tokens(9, 3)],
    ),
    **{
        f"Gemini, {name}": (
            "gemini",
            gemini(promptTokenCount=9, candidatesTokenCount=3, **{field: name}),
            [tokens(9, 3, service_tier=tier)],
        )
        for field, name, tier in (
            ("trafficType", "ON_DEMAND", "default"),
            ("trafficType", "ON_DEMAND_PRIORITY", "priority"),
            ("trafficType", "ON_DEMAND_FLEX", "flex"),
            ("trafficType", "ON_DEMAND_OFFPEAK", "offpeak"),
            ("trafficType", "PROVISIONED_THROUGHPUT", "provisioned"),
            ("trafficType", "TRAFFIC_TYPE_UNSPECIFIED", None),
            ("serviceTier", "standard", "default"),
            ("serviceTier", "flex", "flex"),
            ("serviceTier", "unspecified", None),
        )
    },
    "Gemini 2.5, searches are billed by the prompt": (
        "gemini",
        grounded("gemini-2.5-pro", ["a", "b"]),
        [tokens(9, 3), {"kind": "web_search_calls", "num_requests": 1}],
    ),
    "Gemini 3, searches are billed by the query": (
        "gemini",
        grounded("gemini-3-pro-preview", ["a", "b", ""], ["c"]),
        [tokens(9, 3), {"kind": "web_search_calls", "num_requests": 3}],
    ),
    "Gemini, nothing was searched": ("gemini", grounded("gemini-2.5-pro", []), [tokens(9, 3)]),
    "Gemini, an answer without its content": (
        "gemini",
        gemini(promptTokenCount=9, candidatesTokenCount=3)
        | {"candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}}]},
        [tokens(9, 3), {"kind": "web_search_calls", "num_requests": 1}],
    ),
    "Gemini, a chunk before the last": (
        "gemini",
        gemini(promptTokenCount=9, candidatesTokenCount=1) | {"candidates": [{"content": {}}]},
        [],
    ),
    "Gemini, the chunks of a stream": (
        "gemini",
        {
            "response": [
                gemini(promptTokenCount=9, candidatesTokenCount=1)
                | {"candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}}]},
                gemini(promptTokenCount=9, candidatesTokenCount=3),
            ]
        },
        [tokens(9, 3), {"kind": "web_search_calls", "num_requests": 1}],
    ),
    "Gemini, a line of a batch": (
        "gemini",
        {"key": "k", "response": gemini(promptTokenCount=9, candidatesTokenCount=3)},
        [tokens(9, 3, **BATCHED)],
    ),
    "Gemini, a line of Vertex AI's batch": (
        "gemini",
        {
            "status": "",
            "processed_time": TIME,
            "request": {"contents": []},
            "response": gemini(promptTokenCount=9, candidatesTokenCount=3),
        },
        [tokens(9, 3, **BATCHED)],
    ),
    "Gemini, a failed line of a batch": ("gemini", {"key": "k", "error": {"code": 400}}, []),
    "Gemini, an interaction": (
        "gemini",
        {
            "id": "int-1",
            "object": "interaction",
            "model": "models/gemini-3-pro-preview",
            "created": TIME,
            "usage": {
                "total_input_tokens": 9,
                "total_cached_tokens": 4,
                "total_output_tokens": 3,
                "total_thought_tokens": 20,
                "total_tool_use_tokens": 5,
                "total_tokens": 37,
                "input_tokens_by_modality": [{"modality": "audio", "tokens": 2}],
                "grounding_tool_count": [{"type": "google_search", "count": 2}, {"type": "google_maps", "count": 1}],
            },
        },
        [
            tokens(14, 23, input_cached_tokens=4, input_audio_tokens=2),
            {"kind": "web_search_calls", "num_requests": 2},
        ],
    ),
    "Gemini, an embedding": (
        "gemini",
        {"response": {"embedding": {"values": [0.1]}}, "model": "gemini-embedding-001", "input_tokens": 7},
        [{"kind": "embeddings", "input_tokens": 7}],
    ),
    "Gemini, embeddings with usage": (
        "gemini",
        {"embeddings": [{"values": [0.1]}], "usageMetadata": {"promptTokenCount": 7}},
        [{"kind": "embeddings", "input_tokens": 7}],
    ),
    "Gemini, embeddings of Vertex AI": (
        "gemini",
        {"predictions": [{"embeddings": {"values": [0.1], "statistics": {"token_count": n}}} for n in (3, 4)]},
        [{"kind": "embeddings", "input_tokens": 7}],
    ),
    "Bedrock": ("bedrock", bedrock(inputTokens=9, outputTokens=3, totalTokens=12), [tokens(9, 3)]),
    "Bedrock, the cache beside, proven": (
        "bedrock",
        bedrock(
            inputTokens=9,
            outputTokens=3,
            totalTokens=352,
            cacheReadInputTokens=300,
            cacheWriteInputTokens=40,
            cacheDetails=[{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}],
        ),
        [
            tokens(
                349,
                3,
                input_cached_tokens=300,
                input_cache_write_tokens=40,
                input_cache_write_12h_tokens=30,
                input_cache_write_30m_tokens=10,
            )
        ],
    ),
    "Bedrock, the cache beside without a total": (
        "bedrock",
        bedrock(inputTokens=400, outputTokens=3, cacheReadInputTokens=300),
        [tokens(700, 3, input_cached_tokens=300)],
    ),
    "Bedrock, the cache inside, proven": (
        "bedrock",
        bedrock(inputTokens=400, outputTokens=3, totalTokens=403, cacheReadInputTokens=300),
        [tokens(400, 3, input_cached_tokens=300)],
    ),
    "Bedrock, a total that leaves the cache out": (
        "bedrock",
        bedrock(inputTokens=9, outputTokens=3, totalTokens=12, cacheReadInputTokens=300),
        [tokens(309, 3, input_cached_tokens=300)],
    ),
    "Bedrock, the last event of a stream": (
        "bedrock",
        bedrock({"metadata": {"usage": {"inputTokens": 9, "outputTokens": 3}, "serviceTier": {"type": "flex"}}}),
        [tokens(9, 3, service_tier="flex")],
    ),
    "Bedrock, the events of a stream": (
        "bedrock",
        bedrock([{"messageStart": {}}, {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 3}}}]),
        [tokens(9, 3)],
    ),
    "Bedrock, an event of a stream without usage": ("bedrock", bedrock({"contentBlockDelta": {"delta": {}}}), []),
    "Bedrock, optimized": (
        "bedrock",
        bedrock(
            {
                "usage": {"inputTokens": 9, "outputTokens": 3},
                "performanceConfig": {"latency": "optimized"},
                "serviceTier": {"type": "default"},
            }
        ),
        [tokens(9, 3, service_tier="optimized")],
    ),
    "Bedrock, the metrics of a stream": (
        "bedrock",
        bedrock(
            {
                "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 9,
                    "outputTokenCount": 3,
                    "cacheReadInputTokenCount": 20,
                    "invocationLatency": 800,
                }
            }
        ),
        [tokens(29, 3, input_cached_tokens=20)],
    ),
    "Bedrock, Titan": (
        "bedrock",
        bedrock({"inputTextTokenCount": 9, "results": [{"tokenCount": 3, "outputText": "x"}]}),
        [tokens(9, 3)],
    ),
    "Bedrock, Titan's embedding": (
        "bedrock",
        bedrock({"embedding": [0.1], "inputTextTokenCount": 9}),
        [{"kind": "embeddings", "input_tokens": 9}],
    ),
    "Bedrock, Llama": (
        "bedrock",
        bedrock({"generation": "x", "prompt_token_count": 9, "generation_token_count": 3}),
        [tokens(9, 3)],
    ),
    "Bedrock, counts in headers": (
        "bedrock",
        bedrock(
            {
                "ResponseMetadata": {
                    "RequestId": "req-1",
                    "HTTPHeaders": {
                        "x-amzn-bedrock-input-token-count": "9",
                        "x-amzn-bedrock-output-token-count": "3",
                    },
                }
            }
        ),
        [tokens(9, 3)],
    ),
    "Bedrock, an Anthropic message": (
        "bedrock",
        bedrock(MESSAGE | {"usage": {"input_tokens": 9, "cache_read_input_tokens": 20, "output_tokens": 3}}),
        [tokens(29, 3, input_cached_tokens=20)],
    ),
    "Bedrock, a line of a batch": (
        "bedrock",
        bedrock({"recordId": "r", "modelInput": {}, "modelOutput": {"usage": {"inputTokens": 9, "outputTokens": 3}}}),
        [tokens(9, 3, **BATCHED)],
    ),
    "Bedrock, a failed line of a batch": ("bedrock", bedrock({"recordId": "r", "modelInput": {}, "error": {}}), []),
    "Bedrock, a log of invocations": (
        "bedrock",
        {
            "schemaType": "ModelInvocationLog",
            "timestamp": TIME,
            "requestId": "req-1",
            "operation": "Converse",
            "modelId": "arn:aws:bedrock:us-east-1:1:inference-profile/m",
            "input": {"inputTokenCount": 9, "cacheReadInputTokenCount": 20},
            "output": {"outputTokenCount": 3, "outputBodyJson": {"usage": {"inputTokens": 9, "outputTokens": 3}}},
        },
        [tokens(29, 3, input_cached_tokens=20)],
    ),
    "Ollama": ("ollama", ollama(prompt_eval_count=9, eval_count=3), [tokens(9, 3)]),
    "Ollama, the prompt was in memory": ("ollama", ollama(eval_count=3), [tokens(0, 3)]),
    "Ollama, a chunk": ("ollama", ollama(done=False), []),
    "Ollama, a model that was loaded": ("ollama", ollama(done_reason="load"), []),
    "Ollama, the chunks of a stream": (
        "ollama",
        {"response": [ollama(done=False), ollama(prompt_eval_count=9, eval_count=3)], "id": "mine"},
        [tokens(9, 3)],
    ),
    "Ollama, embeddings": (
        "ollama",
        {"model": "all-minilm", "embeddings": [[0.1]], "prompt_eval_count": 9, "total_duration": 5},
        [{"kind": "embeddings", "input_tokens": 9}],
    ),
    "Cohere 2": (
        "cohere",
        cohere(
            {
                "usage": {
                    "billed_units": {"input_tokens": 9.0, "output_tokens": 3.0},
                    "tokens": {"input_tokens": 80, "output_tokens": 4},
                }
            }
        ),
        [tokens(9, 3)],
    ),
    "Cohere, without billed units": (
        "cohere",
        cohere({"usage": {"tokens": {"input_tokens": 80, "output_tokens": 4}, "cached_tokens": 64}}),
        [tokens(80, 4, input_cached_tokens=64)],
    ),
    "Cohere, more cached than billed": (
        "cohere",
        cohere({"usage": {"billed_units": {"input_tokens": 9, "output_tokens": 3}, "cached_tokens": 64}}),
        [tokens(9, 3, input_cached_tokens=9)],
    ),
    "Cohere 1": (
        "cohere",
        cohere({"text": "x", "meta": {"billed_units": {"input_tokens": 9, "output_tokens": 3}}}),
        [tokens(9, 3)],
    ),
    "Cohere 2, the last event of a stream": (
        "cohere",
        cohere({"type": "message-end", "delta": {"usage": {"billed_units": {"input_tokens": 9, "output_tokens": 3}}}}),
        [tokens(9, 3)],
    ),
    "Cohere 2, another event of a stream": ("cohere", cohere({"type": "content-delta", "index": 0, "delta": {}}), []),
    "Cohere 1, the last event of a stream": (
        "cohere",
        cohere(
            {
                "event_type": "stream-end",
                "response": {"text": "x", "meta": {"billed_units": {"input_tokens": 9, "output_tokens": 3}}},
            }
        ),
        [tokens(9, 3)],
    ),
    "Cohere, embeddings": (
        "cohere",
        cohere({"embeddings": {"float": [[0.1]]}, "meta": {"billed_units": {"input_tokens": 9}}}),
        [{"kind": "embeddings", "input_tokens": 9}],
    ),
    "Cohere, embeddings of images": (
        "cohere",
        cohere({"embeddings": {"float": [[0.1]]}, "meta": {"billed_units": {"text_tokens": 2, "image_tokens": 9}}}),
        [{"kind": "embeddings", "input_tokens": 11}],
    ),
    "Claude Code, a message": (
        "anthropic",
        line(message=MESSAGE | {"usage": {"input_tokens": 9, "cache_read_input_tokens": 20, "output_tokens": 3}}),
        [tokens(29, 3, input_cached_tokens=20)],
    ),
    "Claude Code, an error": (
        "anthropic",
        line(message=MESSAGE | {"model": "<synthetic>", "usage": {"input_tokens": 0, "output_tokens": 0}}),
        [],
    ),
    "Claude Code, what was asked": ("anthropic", line(type="user", message={"role": "user", "content": "x"}), []),
    "Claude Code, a summary": ("anthropic", {"type": "summary", "summary": "x", "leafUuid": "u"}, []),
}
PARAMETERS = [pytest.param(*case, id=name) for name, case in CASES.items()]


def ignored(event: Event, expected: Event) -> Event:
    """The event without what a case does not speak of."""
    return {
        name: value for name, value in event.items() if name in expected or name not in ("id", "timestamp", "model")
    }


@pytest.mark.parametrize(("source", "record", "expected"), PARAMETERS)
@pytest.mark.parametrize("at", ["its own address", "the one that recognises it"])
def test_an_answer_is_counted_as_its_provider_counts_it(
    source: str, record: Any, expected: list[Event], at: str
) -> None:
    found = SOURCES[source if at == "its own address" else "response"].events(record, NO_OPTIONS)
    assert len(found) == len(expected)
    for event, wanted in zip(found, expected, strict=True):
        assert ignored(event, wanted) == {name: value for name, value in wanted.items() if value is not None}


def snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", name).lower(): snake(inner) for name, inner in value.items()}
    return [snake(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("source", "record", "expected"), [each for each in PARAMETERS if each.values[0] == "gemini"])
def test_geminis_fields_may_be_in_either_spelling(source: str, record: Any, expected: list[Event]) -> None:
    assert SOURCES[source].events(snake(record), NO_OPTIONS) == SOURCES[source].events(record, NO_OPTIONS)


def test_of_a_field_in_both_spellings_the_fuller_counts() -> None:
    answer = gemini(promptTokenCount=9, candidatesTokenCount=0, candidates_token_count=3)
    assert SOURCES["gemini"].events(answer, NO_OPTIONS)[0]["output_tokens"] == 3


@pytest.mark.parametrize(("source", "record", "expected"), PARAMETERS)
def test_every_event_of_an_answer_is_one_we_take(source: str, record: Any, expected: list[Event]) -> None:
    found = read_record(SOURCES[source], NO_OPTIONS, json.dumps(record).encode(), (T + 3_600) * 1000)
    assert [hasattr(each, "identity") for each in found] == [True] * len(expected), found


@pytest.mark.parametrize(("source", "record", "expected"), PARAMETERS)
def test_whatever_stands_in_a_field_of_an_answer_is_an_event_or_a_fault(
    source: str, record: Any, expected: list[Event]
) -> None:
    for path in places(record):
        for odd in NUMBERS:
            changed = json.loads(json.dumps(record))
            inner = changed
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = "HERE"
            body = json.dumps(changed).replace('"HERE"', odd).encode()
            for name in (source, "response"):
                for found in read_record(SOURCES[name], Options(takes_costs=True), body, (T + 3_600) * 1000):
                    json.dumps(found, default=str)


@pytest.mark.parametrize(
    ("source", "record", "identity"),
    [
        ("gemini", gemini(promptTokenCount=1), ("gem-1", TIME, "gemini-2.5-flash")),
        ("gemini", gemini("models/gemini-3-pro", promptTokenCount=1), ("gem-1", TIME, "gemini-3-pro")),
        ("bedrock", bedrock(inputTokens=1, outputTokens=1), ("req-1", None, "m")),
        ("ollama", ollama(eval_count=1), (None, "2025-11-22T08:26:40.123456789Z", "llama3.2")),
        (
            "ollama",
            {"response": ollama(eval_count=1), "id": "mine"},
            ("mine", "2025-11-22T08:26:40.123456789Z", "llama3.2"),
        ),
        ("cohere", cohere({"usage": {"billed_units": {"input_tokens": 1}}}), ("co-1", None, "command-a-03-2025")),
        ("anthropic", line(message=MESSAGE | {"usage": {"input_tokens": 1}}), ("msg_1", TIME, "claude-sonnet-4-5")),
        ("gemini", gemini(promptTokenCount=1) | {"responseId": "x" * 300}, ("sha256:", TIME, "gemini-2.5-flash")),
    ],
)
def test_identity_time_and_model_are_the_answers_own(source: str, record: Any, identity: tuple[Any, ...]) -> None:
    (event,) = SOURCES[source].events(record, NO_OPTIONS)
    found = tuple(event.get(name) for name in ("id", "timestamp", "model"))
    assert found == identity or (
        str(found[0]).startswith(identity[0]) and len(str(found[0])) < 256 and found[1:] == identity[1:]
    )


@pytest.mark.parametrize("source", ["gemini", "bedrock", "ollama", "cohere", "anthropic", "response"])
def test_an_envelope_says_who_when_and_what_stands_before_the_answer(source: str) -> None:
    answers: dict[str, Any] = {
        "gemini": gemini(promptTokenCount=1),
        "bedrock": {"usage": {"inputTokens": 1, "outputTokens": 1}},
        "ollama": ollama(eval_count=1),
        "cohere": {"usage": {"billed_units": {"input_tokens": 1}}},
        "anthropic": MESSAGE | {"usage": {"input_tokens": 1}},
    }
    who = {"project_id": "p", "user_id": "u", "api_key_id": "k", "model": "m", "id": "i", "timestamp": T, "batch": True}
    for name, answer in answers.items():
        if source in (name, "response"):
            (event,) = SOURCES[source].events({"response": answer} | who, NO_OPTIONS)
            assert {field: event.get(field) for field in who} == who


BAD: dict[str, tuple[str, Any, str | None]] = {
    "Gemini without usage": ("gemini", {"modelVersion": "m", "candidates": []}, "usageMetadata"),
    "Gemini, a count that is text": ("gemini", gemini(promptTokenCount="nine"), "usageMetadata.promptTokenCount"),
    "Gemini, an embedding without a count": ("gemini", {"embedding": {"values": [0.1]}}, "usageMetadata"),
    "Gemini, a misspelt field": ("gemini", {"response": gemini(promptTokenCount=1), "user": "u"}, "user"),
    "Bedrock without a model": ("bedrock", {"usage": {"inputTokens": 1, "outputTokens": 1}}, "model"),
    "Bedrock without usage": ("bedrock", bedrock({"ResponseMetadata": {}}), "usage"),
    "Bedrock, another period": (
        "bedrock",
        bedrock(inputTokens=1, outputTokens=1, cacheDetails=[{"ttl": "2h", "inputTokens": 1}]),
        "usage.cacheDetails[0].ttl",
    ),
    "Ollama without counts": ("ollama", ollama(), "eval_count"),
    "Ollama, embeddings without a count": ("ollama", {"model": "m", "embedding": [0.1]}, "prompt_eval_count"),
    "Cohere without usage": ("cohere", cohere({"text": "x"}), "usage"),
    "Cohere, a search of rerank": (
        "cohere",
        cohere({"results": [], "meta": {"billed_units": {"search_units": 1}}}),
        "meta.billed_units.search_units",
    ),
    "nothing that is known": ("response", {"id": "x", "tokens": 5}, None),
    "a record of LiteLLM": ("response", CALL | {"prompt_tokens": 1}, None),
    "no object": ("response", 5, None),
}


@pytest.mark.parametrize(("source", "record", "field"), BAD.values(), ids=BAD)
def test_what_cannot_be_counted_is_rejected_by_its_field(source: str, record: Any, field: str | None) -> None:
    with pytest.raises(FaultyRecord) as error:
        SOURCES[source].events(record, NO_OPTIONS)
    assert error.value.faults[0].field == field


@pytest.mark.parametrize(
    ("name", "record"),
    [
        *(
            (name if source != "anthropic" else "claude-code", record)
            for source, record, _ in CASES.values()
            for name in [source]
        ),
        ("openai", CHAT | {"usage": ONE}),
        ("openai", RESPONSE | {"usage": {"input_tokens": 9, "output_tokens": 3}}),
        ("openai", {"custom_id": "a", "response": {"status_code": 200, "body": CHAT | {"usage": ONE}}}),
        (
            "openai",
            {"object": "list", "data": [{"object": "embedding"}], "usage": {"prompt_tokens": 3, "total_tokens": 3}},
        ),
        ("anthropic", MESSAGE | {"usage": {"input_tokens": 1, "output_tokens": 1}}),
        ("anthropic", {"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}}),
    ],
)
def test_an_answer_has_one_shape(name: str, record: Any) -> None:
    shape = shape_of(record)
    assert shape is not None
    assert shape.name == name or (name, shape.name) == ("bedrock", "anthropic")
    inside = record.get("response") if isinstance(record, dict) and "response" in record else record
    for answer in (record, inside):
        fits = [each.name for each in SHAPES if isinstance(answer, dict) and each.is_answer(answer)]
        assert len(fits) <= 1, fits


@pytest.mark.parametrize(
    ("source", "record", "unread"),
    [
        (
            "gemini",
            gemini(promptTokenCount=9, candidatesTokenCount=3, dreamTokenCount=4),
            ["usageMetadata.dreamTokenCount"],
        ),
        ("gemini", gemini(promptTokenCount=9, candidatesTokenCount=3, dreamTokenCount=0, dreams=[{"x": 0}]), []),
        ("gemini", gemini(promptTokenCount=9, totalTokenCount=20), ["usageMetadata.totalTokenCount"]),
        (
            "gemini",
            gemini(promptTokenCount=9, promptTokensDetails=details(smell=9)),
            ["usageMetadata.promptTokensDetails.SMELL"],
        ),
        ("bedrock", bedrock(inputTokens=9, outputTokens=3, dreamTokens=4), ["usage.dreamTokens"]),
        (
            "cohere",
            cohere({"usage": {"billed_units": {"input_tokens": 1, "dreams": 4}}}),
            ["usage.billed_units.dreams"],
        ),
    ],
)
def test_a_field_of_usage_that_nothing_reads_is_counted_by_its_name(
    source: str, record: Any, unread: list[str]
) -> None:
    options = Options(unread=Counter())
    SOURCES[source].events(record, options)
    assert sorted(options.unread) == unread


def test_every_address_counts_what_it_is_sent(api: httpx.Client) -> None:
    for number, (source, record) in enumerate(
        {
            "gemini": gemini(promptTokenCount=9, candidatesTokenCount=3, thoughtsTokenCount=20, totalTokenCount=32),
            "bedrock": bedrock(inputTokens=9, outputTokens=23, totalTokens=32) | {"timestamp": T},
            "ollama": {"response": ollama(prompt_eval_count=9, eval_count=23), "id": "mine"},
            "cohere": cohere({"usage": {"billed_units": {"input_tokens": 9, "output_tokens": 23}}}) | {"timestamp": T},
        }.items(),
        start=1,
    ):
        assert counts(post(api, source, record)) == (1, 0, 0, 0, 0)
        assert counts(post(api, source, [record])) == (0, 1, 0, 0, 0)
        assert counts(post(api, "response", record)) == (0, 1, 0, 0, 0)
        assert used(api, "completions", "output_tokens") == 23 * number


def test_what_is_recognised_nowhere_is_kept_with_its_reason(api: httpx.Client) -> None:
    receipt = post(api, "response", {"tokens": 5})
    assert counts(receipt) == (0, 0, 0, 1, 0)
    assert "not an answer of a provider that is recognised" in receipt["faults"][0]["message"]
    assert used(api, "completions", "input_tokens") == 0
    page = api.get("/v1/organization/usage/completions", params=WINDOW).json()
    assert page["has_more"] is False


def test_an_array_of_a_streams_chunks_is_one_call(api: httpx.Client) -> None:
    chunks = [
        gemini(promptTokenCount=9, candidatesTokenCount=count) | {"candidates": [{"content": {}}]} for count in (1, 2)
    ]
    assert counts(post(api, "gemini", [*chunks, gemini(promptTokenCount=9, candidatesTokenCount=3)])) == (1, 0, 0, 0, 2)
    assert used(api, "completions", "output_tokens") == 3
