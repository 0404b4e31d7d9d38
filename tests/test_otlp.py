"""Spans of every dialect and generation of names: what is counted, what is not, and what is told to be wrong."""

import json
from hashlib import sha256
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tallybook.errors import BodyTooLarge, InvalidRequest
from tallybook.event import Record
from tallybook.ingest.decode import COLUMNS_MIN, Decoded, read_record
from tallybook.ingest.otlp import Limits, decode_traces
from tallybook.sources.record import Event, Options
from tallybook.sources.table import SOURCES
from tests.otlp_shaped import END_NS, SPAN_END, SPAN_ID, TRACE_ID, Json, field, in_protobuf, span, traces

NOW_MS = END_NS // 1_000_000 + 1_000
OPTIONS = Options(
    attributes={"project_id": ("team", "service.name"), "user_id": ("user.id", "enduser.id"), "api_key_id": ("key",)}
)
LIMITS = Limits(NOW_MS, 100_000)
BOTH = {"input_tokens": 9, "output_tokens": 2}
CHAT: Json = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
USAGE: Json = {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2}
CLAUDE: Json = CHAT | {"gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-sonnet-4-5"}
GEMINI: Json = CHAT | {"gen_ai.provider.name": "gcp.gemini", "gen_ai.request.model": "gemini-2.5-pro"}
INFERENCE: Json = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o"}
GROK: Json = CHAT | {"gen_ai.provider.name": "x_ai", "gen_ai.request.model": "grok-3-mini"}
VERCEL: Json = {"ai.operationId": "ai.generateText.doGenerate", "gen_ai.request.model": "gpt-4o"}
TOOL: Json = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.type": "extension"}
CACHED: Json = BOTH | {"input_cached_tokens": 4}


def tokens(**counts: int) -> Json:
    """Attributes with the latest names; two underscores are a dot."""
    return {f"gen_ai.usage.{name.replace('__', '.')}_tokens": count for name, count in counts.items()}


def of_openai(**parts: Any) -> Json:
    return {name: count for name, count in parts.items() if count is not None}


COUNTED: dict[str, tuple[Json, Json]] = {
    # every generation of names
    "today": (
        CHAT | USAGE | tokens(cache_read__input=4, cache_write__input=3),
        CACHED | {"input_cache_write_tokens": 3},
    ),
    "cache writes as they were called until 2026": (
        CHAT | USAGE | tokens(cache_creation__input=3),
        BOTH | {"input_cache_write_tokens": 3},
    ),
    "1.36 and before": ({"gen_ai.operation.name": "chat", "gen_ai.system": "openai"} | USAGE, BOTH),
    "prompt and completion": (CHAT | tokens(prompt=9, completion=2), BOTH),
    "the latest name stands": (CHAT | USAGE | tokens(prompt=1, completion=1), BOTH),
    "OpenLLMetry, legacy": (
        {"llm.request.type": "chat", "gen_ai.request.model": "gpt-4o"}
        | {"llm.usage.prompt_tokens": 9, "llm.usage.completion_tokens": 2, "llm.usage.total_tokens": 11},
        BOTH,
    ),
    "OpenLLMetry": (
        {"llm.request.type": "chat", "gen_ai.system": "Anthropic", "gen_ai.request.model": "claude-sonnet-4-5"}
        | tokens(prompt=9, completion=2, cache_read_input=4, cache_creation_input=3),
        CACHED | {"input_cache_write_tokens": 3},
    ),
    "OpenInference": (
        INFERENCE
        | {"llm.token_count.prompt": 9, "llm.token_count.completion": 2, "llm.token_count.total": 11}
        | {"llm.token_count.prompt_details.cache_read": 4, "llm.token_count.completion_details.reasoning": 1},
        CACHED,
    ),
    "OpenInference, cached input": (
        INFERENCE
        | {"llm.token_count.prompt": 9, "llm.token_count.completion": 2}
        | {"llm.token_count.prompt_details.cache_input": 4, "llm.token_count.prompt_details.cache_write": 1},
        CACHED | {"input_cache_write_tokens": 1},
    ),
    "OpenInference, embeddings": (
        {"openinference.span.kind": "EMBEDDING", "embedding.model_name": "text-embedding-3-small"}
        | {"llm.token_count.prompt": 9},
        {"kind": "embeddings", "input_tokens": 9},
    ),
    "OpenInference, decisions": (
        {"openinference.span.kind": "DECISION", "decision.token_count.input": 9, "decision.token_count.output": 2},
        BOTH | {"kind": "decisions"},
    ),
    "OpenInference does not know, the convention does": (
        CHAT | USAGE | {"openinference.span.kind": "UNKNOWN"},
        BOTH,
    ),
    "both conventions at once": (INFERENCE | CHAT | USAGE | {"llm.token_count.prompt": 9}, BOTH),
    "vLLM": (
        {"gen_ai.request.id": "chatcmpl-1", "gen_ai.response.model": "llama", "gen_ai.latency.e2e": 0.5}
        | tokens(prompt=9, completion=2, cached=4),
        CACHED | {"id": "chatcmpl-1"},
    ),
    "vLLM, which does not name the model": ({"gen_ai.request.id": "cmpl-1"} | tokens(prompt=9, completion=2), BOTH),
    "vLLM, embeddings": (
        {"gen_ai.request.id": "embd-1"} | tokens(prompt=9, completion=0),
        {"kind": "embeddings", "input_tokens": 9},
    ),
    "the inner span of an AI SDK": (
        VERCEL | USAGE,
        BOTH,
    ),
    "the same with cached tokens": (VERCEL | USAGE | {"ai.usage.cachedInputTokens": 4}, CACHED),
    "the same with cached tokens, as they are called today": (
        VERCEL
        | USAGE
        | {"ai.usage.inputTokenDetails.cacheReadTokens": 4, "ai.usage.inputTokenDetails.cacheWriteTokens": 3}
        | {"ai.usage.reasoningTokens": 1},
        CACHED | {"input_cache_write_tokens": 3},
    ),
    "embeddings of an AI SDK": (
        {"ai.operationId": "ai.embedMany.doEmbed", "ai.model.id": "text-embedding-3-small", "ai.usage.tokens": 9},
        {"kind": "embeddings", "model": "text-embedding-3-small", "input_tokens": 9},
    ),
    "Pydantic AI": (CHAT | USAGE | {"gen_ai.usage.details.cache_read_tokens": 4}, CACHED),
    "generate_content": (CHAT | USAGE | {"gen_ai.operation.name": "generate_content"}, BOTH),
    "text_completion": (CHAT | USAGE | {"gen_ai.operation.name": "text_completion"}, BOTH),
    "embeddings": (
        CHAT | {"gen_ai.operation.name": "embeddings", "gen_ai.usage.input_tokens": 9},
        {"kind": "embeddings", "input_tokens": 9},
    ),
    "embeddings that tell the total only": (
        {"llm.request.type": "embedding", "llm.usage.total_tokens": 9},
        {"kind": "embeddings", "input_tokens": 9},
    ),
    "an operation of the future, with an answer": (
        CHAT | USAGE | {"gen_ai.operation.name": "converse", "gen_ai.response.id": "resp_1"},
        BOTH,
    ),
    "integers as floating point numbers": (CHAT | {name: float(count) for name, count in USAGE.items()}, BOTH),
    # parts
    "reasoning is part of the output": (CHAT | USAGE | tokens(reasoning__output=2), BOTH),
    "audio and cached audio": (
        CHAT
        | tokens(input=10, output=5, cache_read__input=4, audio__input=6, audio__cache_read__input=3, audio__output=2),
        of_openai(input_tokens=10, output_tokens=5, input_cached_tokens=4, input_audio_tokens=6)
        | of_openai(input_cached_audio_tokens=3, output_audio_tokens=2),
    ),
    "the convention's example of images": (
        CHAT
        | tokens(input=300, output=1, cache_read__input=40, text__input=100, image__input=200)
        | tokens(text__cache_read__input=40),
        of_openai(input_tokens=300, output_tokens=1, input_cached_tokens=40, input_image_tokens=200),
    ),
    "cached tokens by modality only": (
        CHAT
        | tokens(input=300, output=1, audio__input=200)
        | tokens(text__cache_read__input=40, audio__cache_read__input=150),
        of_openai(input_tokens=300, output_tokens=1, input_cached_tokens=190)
        | of_openai(input_audio_tokens=200, input_cached_audio_tokens=150),
    ),
    "cached text only": (CHAT | USAGE | tokens(text__cache_read__input=4), CACHED),
    "images that were cached": (
        CHAT | tokens(input=300, output=1, cache_read__input=150, image__input=200, image__cache_read__input=150),
        of_openai(input_tokens=300, output_tokens=1, input_cached_tokens=150)
        | of_openai(input_image_tokens=50, input_cached_image_tokens=150),
    ),
    "images that were drawn": (
        CHAT | tokens(input=9, output=2, image__output=2),
        BOTH | {"output_image_tokens": 2},
    ),
    "OpenInference, audio": (
        INFERENCE
        | {"llm.token_count.prompt": 9, "llm.token_count.completion": 2}
        | {"llm.token_count.prompt_details.audio": 3, "llm.token_count.completion_details.audio": 1},
        BOTH | {"input_audio_tokens": 3, "output_audio_tokens": 1},
    ),
    # inclusive and exclusive
    "Anthropic by the convention": (
        CLAUDE | tokens(input=510, output=7, cache_read__input=300, cache_write__input=200),
        {"input_tokens": 510, "input_cached_tokens": 300, "input_cache_write_tokens": 200, "output_tokens": 7},
    ),
    "Anthropic as its API answers": (
        CLAUDE | tokens(input=10, output=7, cache_read__input=300, cache_write__input=200),
        {"input_tokens": 510, "input_cached_tokens": 300, "input_cache_write_tokens": 200, "output_tokens": 7},
    ),
    "Bedrock, whose total says that cached tokens are apart": (
        CHAT
        | {"gen_ai.provider.name": "aws.bedrock"}
        | tokens(input=100, output=5, total=145, cache_read_input=30, cache_write_input=10),
        {"input_tokens": 140, "input_cached_tokens": 30, "input_cache_write_tokens": 10, "output_tokens": 5},
    ),
    "a total that says that cached tokens are not apart": (
        CLAUDE | tokens(input=100, output=5, total=105, cache_read__input=30),
        {"input_tokens": 100, "input_cached_tokens": 30, "output_tokens": 5},
    ),
    "Gemini by the convention": (
        GEMINI | tokens(input=9, output=12, reasoning__output=10),
        BOTH | {"output_tokens": 12},
    ),
    "Gemini as its API answers": (GEMINI | USAGE | tokens(reasoning__output=10), BOTH | {"output_tokens": 12}),
    "Gemini, whose total says that thoughts are apart": (
        GEMINI | tokens(input=9, output=20, total=39, reasoning__output=10),
        BOTH | {"output_tokens": 30},
    ),
    "both apart": (
        GEMINI | tokens(input=9, output=20, total=34, cache_read__input=3, reasoning__output=2),
        {"input_tokens": 12, "input_cached_tokens": 3, "output_tokens": 22},
    ),
    "Gemini, whose thoughts only the total tells": (
        GEMINI | {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 20, "llm.usage.total_tokens": 539},
        {"input_tokens": 9, "output_tokens": 530},
    ),
    "Gemini, which did nothing but think": (
        GEMINI | tokens(input=9, total=539),
        {"input_tokens": 9, "output_tokens": 530},
    ),
    "Gemini, whose tools added to the prompt": (
        GEMINI | tokens(input=9, output=20, total=44, reasoning__output=10),
        {"input_tokens": 14, "output_tokens": 30},
    ),
    "a total beyond its parts, of others": (CHAT | USAGE | tokens(total=44), BOTH),
    "xAI as its API answers": (
        GROK | tokens(input=9, output=20, reasoning__output=300),
        {"input_tokens": 9, "output_tokens": 320},
    ),
    # who, which, at what tier
    "service tier": (CHAT | USAGE | {"openai.response.service_tier": "flex"}, BOTH | {"service_tier": "flex"}),
    "service tier, as it was called": (
        CHAT | USAGE | {"gen_ai.openai.response.service_tier": "flex", "openai.request.service_tier": "auto"},
        BOTH | {"service_tier": "flex"},
    ),
    "service tier as asked for": (
        CHAT | USAGE | {"openai.request.service_tier": "priority"},
        BOTH | {"service_tier": "priority"},
    ),
    "service tier left to the provider": (
        CHAT | USAGE | {"openai.request.service_tier": "auto"},
        BOTH | {"service_tier": None},
    ),
    "the model that answered": (
        CHAT | USAGE | {"gen_ai.response.model": "gpt-4o-2024-08-06"},
        BOTH | {"model": "gpt-4o-2024-08-06"},
    ),
    "the model that was asked": (CHAT | USAGE, BOTH | {"model": "gpt-4o"}),
    "user": (CHAT | USAGE | {"enduser.id": "ann"}, BOTH | {"user_id": "ann"}),
    "the first of several": (CHAT | USAGE | {"enduser.id": "bob", "user.id": "ann"}, BOTH | {"user_id": "ann"}),
    "a user by number": (CHAT | USAGE | {"user.id": 7}, BOTH | {"user_id": "7"}),
    "a list is no user": (CHAT | USAGE | {"user.id": ["ann"]}, BOTH | {"user_id": None}),
    "project and key": (
        CHAT | USAGE | {"team": "blue", "key": "key_1"},
        BOTH | {"project_id": "blue", "api_key_id": "key_1"},
    ),
    "the service is the project": (CHAT | USAGE, BOTH | {"project_id": "search"}),
    "the answer's id": (CHAT | USAGE | {"gen_ai.response.id": "resp_1"}, BOTH | {"id": "resp_1"}),
    "the span's own id": (CHAT | USAGE, BOTH | {"id": f"{TRACE_ID}-{SPAN_ID}", "timestamp": SPAN_END}),
    "an answer's id that is too long": (
        CHAT | USAGE | {"gen_ai.response.id": "r" * 257},
        BOTH | {"id": f"sha256:{sha256(b'r' * 257).hexdigest()}"},
    ),
    "one of several choices of vLLM": (
        {"gen_ai.request.id": "cmpl-1", "gen_ai.request.n": 2} | USAGE,
        BOTH | {"id": f"{TRACE_ID}-{SPAN_ID}"},
    ),
    # tools of the provider's
    "a web search": (TOOL | {"gen_ai.tool.name": "web_search"}, {"kind": "web_search_calls"}),
    "a web search, as it was called": (TOOL | {"gen_ai.tool.name": "web_search_preview"}, {"kind": "web_search_calls"}),
    "a web search of a version": (
        TOOL | {"gen_ai.tool.name": "web_search_preview_2025_03_11"},
        {"kind": "web_search_calls"},
    ),
    "a file search": (
        TOOL | {"gen_ai.tool.name": "file_search", "gen_ai.tool.type": "datastore"},
        {"kind": "file_search_calls"},
    ),
    "the code interpreter": (
        TOOL | {"gen_ai.tool.name": "code_interpreter_call"},
        {"kind": "code_interpreter_sessions", "id": TRACE_ID, "timestamp": 1_763_799_600},
    ),
}

IGNORED: dict[str, Json] = {
    "no attributes": {},
    "another span": {"http.request.method": "POST", "user.id": "ann"},
    "an agent, with the total of its calls": CHAT | USAGE | {"gen_ai.operation.name": "invoke_agent"},
    "a workflow": CHAT | USAGE | {"gen_ai.operation.name": "invoke_workflow"},
    "making an agent": CHAT | USAGE | {"gen_ai.operation.name": "create_agent"},
    "reading an answer again": CHAT | USAGE | {"gen_ai.operation.name": "fetch_response", "gen_ai.response.id": "a"},
    "retrieval": CHAT | USAGE | {"gen_ai.operation.name": "retrieval"},
    "an operation of the future, without usage": CHAT | {"gen_ai.operation.name": "converse"},
    "OpenInference, a chain that names no model": {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 9},
    "OpenInference, an agent without tokens": INFERENCE
    | {"openinference.span.kind": "AGENT", "llm.token_count.prompt": 0},
    "OpenInference, a re-ranker": INFERENCE | {"openinference.span.kind": "RERANKER", "llm.token_count.prompt": 9},
    "OpenInference says a call, the convention an agent": INFERENCE | USAGE | {"gen_ai.operation.name": "invoke_agent"},
    "OpenLLMetry, a workflow": {"traceloop.span.kind": "workflow", "gen_ai.request.model": "gpt-4o"} | USAGE,
    "OpenLLMetry, a re-ranker": {"llm.request.type": "rerank", "gen_ai.request.model": "m"} | USAGE,
    "an answer without usage, of a moderation": CHAT
    | {"gen_ai.operation.name": "moderation", "gen_ai.response.id": "modr-1"},
    "the outer span of an AI SDK's embeddings": {
        "ai.operationId": "ai.embed",
        "ai.model.id": "m",
        "ai.usage.tokens": 9,
    },
    "the outer span of an AI SDK": {"ai.operationId": "ai.generateText", "gen_ai.request.model": "gpt-4o"} | USAGE,
    "the run of an agent of old": {"gen_ai.agent.name": "a", "gen_ai.request.model": "gpt-4o"} | USAGE,
    "totals that name no model": {"model_name": "gpt-4o", "all_messages_events": "[]"} | USAGE,
    "a tool of the caller's own": TOOL | {"gen_ai.tool.type": "function", "gen_ai.tool.name": "web_search"},
    "a tool nobody charges for": TOOL | {"gen_ai.tool.name": "calculator"},
}

REJECTED: dict[str, tuple[Json, str]] = {
    "no usage": (CHAT, "gen_ai.usage.input_tokens"),
    "no tokens": (CHAT | tokens(input=0, output=0), "gen_ai.usage.input_tokens"),
    "a count that is text": (CHAT | USAGE | {"gen_ai.usage.input_tokens": "9k"}, "gen_ai.usage.input_tokens"),
    "a count below 0": (CHAT | USAGE | tokens(output=-1), "gen_ai.usage.output_tokens"),
    "a count that is a truth": (CHAT | USAGE | {"gen_ai.usage.output_tokens": True}, "gen_ai.usage.output_tokens"),
    "a fraction": (CHAT | USAGE | {"gen_ai.usage.output_tokens": 1.5}, "gen_ai.usage.output_tokens"),
    "a count beyond counting": (CHAT | USAGE | tokens(output=2**53), "gen_ai.usage.output_tokens"),
    "more cached than read": (CHAT | USAGE | tokens(cache_read__input=10), "input_cached_tokens"),
    "more reasoning than output": (CHAT | USAGE | tokens(reasoning__output=3), "gen_ai.usage.reasoning.output_tokens"),
    "parts above the whole": (
        CHAT | USAGE | tokens(text__input=5, image__input=6),
        "gen_ai.usage.image.input_tokens",
    ),
    "cached without input": (CHAT | tokens(output=2, cache_read__input=1), "input_cached_tokens"),
    "an unknown operation that may be a total": (
        CHAT | USAGE | {"gen_ai.operation.name": "converse"},
        "gen_ai.operation.name",
    ),
    "a user too long": (CHAT | USAGE | {"user.id": "u" * 257}, "user_id"),
    "a model that is a number": (CHAT | USAGE | {"gen_ai.response.model": 5}, "gen_ai.response.model"),
    "a control character": (CHAT | USAGE | {"user.id": "a\x00b"}, "user_id"),
}


def decoded(body: Json, *, is_json: bool, options: Options = OPTIONS) -> Decoded:
    content = json.dumps(body).encode() if is_json else in_protobuf(body)
    return decode_traces(content, options, LIMITS, is_json=is_json)


def events_of(record: Json, options: Options = OPTIONS) -> list[Event]:
    return SOURCES["otlp"].events(record, options)


@pytest.mark.parametrize(("values", "expected"), COUNTED.values(), ids=COUNTED)
def test_a_call_is_counted(values: Json, expected: Json) -> None:
    (event,) = events_of(traces(span(values)))
    wanted = {"kind": "completions"} | expected
    measured = {name for name in event if name.endswith("tokens") and event[name] is not None}
    assert {name: event.get(name) for name in (*wanted, *measured)} == wanted


@pytest.mark.parametrize("values", [values for values, _ in COUNTED.values()], ids=COUNTED)
def test_both_encodings_are_the_same_event_and_one_we_take(values: Json) -> None:
    in_json, protobuf = (decoded(traces(span(values)), is_json=is_json) for is_json in (True, False))
    assert in_json == protobuf
    assert (len(in_json.records), in_json.rejected) == (1, [])
    assert in_json.records[0].identity is not None


@pytest.mark.parametrize("values", IGNORED.values(), ids=IGNORED)
@pytest.mark.parametrize("is_json", [True, False])
def test_what_is_no_call_is_passed_over(values: Json, is_json: bool) -> None:
    assert decoded(traces(span(values)), is_json=is_json) == Decoded([], [], [], (), 1)


def test_a_failed_call_counts_what_it_used() -> None:
    failed = {"status": {"code": 2, "message": "it is over"}}
    assert events_of(traces(span(CHAT, **failed))) == []
    assert events_of(traces(span(CHAT | tokens(input=0, output=0), **failed))) == []
    (event,) = events_of(traces(span(CHAT | tokens(input=9), **failed)))
    assert event["input_tokens"] == 9
    assert events_of(traces(span(TOOL | {"gen_ai.tool.name": "web_search"}, **failed))) == []


@pytest.mark.parametrize(("values", "field"), REJECTED.values(), ids=REJECTED)
@pytest.mark.parametrize("is_json", [True, False])
def test_what_is_wrong_is_told_and_kept_by_itself(values: Json, field: str, is_json: bool) -> None:
    found = decoded(traces(span(CHAT | USAGE), span(values), span({})), is_json=is_json)
    assert (len(found.records), found.indexes, found.ignored) == (1, [0], 1)
    (rejected,) = found.rejected
    assert (rejected.index, rejected.faults[0].field) == (1, field)
    again = read_record(SOURCES["otlp"], OPTIONS, rejected.raw, NOW_MS)
    assert again == rejected.faults


def test_a_rejected_span_counts_once_it_is_mended() -> None:
    (rejected,) = decoded(traces(span(CHAT | USAGE | tokens(output=-1))), is_json=False).rejected
    (mended,) = read_record(SOURCES["otlp"], OPTIONS, rejected.raw.replace(b'"-1"', b'"2"'), NOW_MS)
    (sent,) = decoded(traces(span(CHAT | USAGE)), is_json=False).records
    assert mended == sent


def test_prompts_and_answers_are_not_kept() -> None:
    told = {"gen_ai.input.messages": "secret", "input.value": "secret", "gen_ai.prompt.0.content": "secret"}
    (rejected,) = decoded(traces(span(CHAT | told, events=[{"name": "secret"}])), is_json=True).rejected
    assert b"secret" not in rejected.raw


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endTimeUnixNano": None}, "endTimeUnixNano"),
        ({"endTimeUnixNano": "soon"}, "endTimeUnixNano"),
        ({"endTimeUnixNano": str(NOW_MS * 10**6 + 2 * 3_600 * 10**9)}, "timestamp"),
        ({"endTimeUnixNano": str(END_NS // 1000)}, "timestamp"),
        ({"traceId": "", "spanId": ""}, "traceId"),
        ({"traceId": "0" * 32}, "traceId"),
        ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, "traceId"),
    ],
)
def test_times_and_ids_that_are_none(fields: Json, field: str) -> None:
    (rejected,) = decoded(traces(span(CHAT | USAGE, **fields)), is_json=True).rejected
    assert rejected.faults[0].field == field


def test_json_may_have_numbers_or_text_and_fields_nobody_knows() -> None:
    strict = traces(span(CHAT | USAGE, status={"code": 1}))
    loose = json.loads(json.dumps(strict).replace('"9"', "9").replace(f'"{END_NS}"', str(END_NS)))
    loose["resourceSpans"][0]["scopeSpans"][0]["spans"][0] |= {"futureField": {"a": [1]}, "traceId": TRACE_ID.upper()}
    loose["resourceSpans"][0]["schemaUrl"] = None
    assert decoded(loose, is_json=True) == decoded(strict, is_json=True)
    assert loose != strict


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"a"',
        b'{"resourceSpans":{}}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":{"a":1}}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":5}]}]}]}',
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
)
def test_json_that_is_no_otlp_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="ExportTraceServiceRequest in JSON"):
        decode_traces(body, OPTIONS, LIMITS, is_json=True)


@pytest.mark.parametrize("body", [b"abc", b"\x0a\xff", b"\x0a\x05ab", in_protobuf(traces(span(CHAT)))[:-1]])
def test_bytes_that_are_no_otlp_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="ExportTraceServiceRequest in protobuf"):
        decode_traces(body, OPTIONS, LIMITS, is_json=False)


def test_nothing_is_nothing() -> None:
    assert decode_traces(b"", OPTIONS, LIMITS, is_json=False) == Decoded([], [], [])
    assert decode_traces(b"{}", OPTIONS, LIMITS, is_json=True) == Decoded([], [], [])
    assert decode_traces(b'{"resourceSpans":null}', OPTIONS, LIMITS, is_json=True) == Decoded([], [], [])


def many(count: int, **last: Any) -> Json:
    spans = [span(CHAT | USAGE | {"gen_ai.response.id": f"resp_{number}"}) for number in range(count - 1)]
    return traces(*spans, span({}), span(CHAT | USAGE | {"gen_ai.response.id": "last"} | last))


@pytest.mark.parametrize("is_json", [True, False])
def test_a_large_body_is_read_at_once_and_the_same(is_json: bool) -> None:
    at_once = decoded(many(COLUMNS_MIN), is_json=is_json)
    (columns,) = at_once.columns
    assert (len(columns), at_once.ignored) == (COLUMNS_MIN, 1)
    assert list(at_once.indexes) == [*range(COLUMNS_MIN - 1), COLUMNS_MIN]
    one_by_one = decoded(many(COLUMNS_MIN, **{"user.id": "a\x07"}), is_json=is_json)
    assert [columns.record(place) for place in range(COLUMNS_MIN - 1)] == one_by_one.records
    assert [rejected.index for rejected in one_by_one.rejected] == [COLUMNS_MIN]


@pytest.mark.parametrize("last", [tokens(output=-1), {"user.id": "u" * 257}, tokens(cache_read__input=10)])
def test_one_bad_span_spoils_no_other(last: Json) -> None:
    found = decoded(many(COLUMNS_MIN, **last), is_json=False)
    counted = len(found.records) + sum(map(len, found.columns))
    assert (counted, [rejected.index for rejected in found.rejected]) == (COLUMNS_MIN - 1, [COLUMNS_MIN])


def test_more_events_than_there_may_be_are_refused() -> None:
    body = json.dumps(many(5)).encode()
    assert len(decode_traces(body, OPTIONS, LIMITS._replace(events_max=5), is_json=True).records) == 5
    with pytest.raises(BodyTooLarge, match="4 events"):
        decode_traces(body, OPTIONS, LIMITS._replace(events_max=4), is_json=True)


@pytest.mark.parametrize("is_json", [True, False])
def test_spans_of_no_calls_and_rejected_ones_have_a_limit_as_well(is_json: bool) -> None:
    limits = LIMITS._replace(events_max=2)
    for body, most in ((span({}), 20), (span(CHAT), 2)):
        for count in (most, most + 1):
            sent = traces(*[body] * count)
            content = json.dumps(sent).encode() if is_json else in_protobuf(sent)
            if count == most:
                found = decode_traces(content, OPTIONS, limits, is_json=is_json)
                assert found.ignored + len(found.rejected) == count
            else:
                with pytest.raises(BodyTooLarge, match=f"more than {most}"):
                    decode_traces(content, OPTIONS, limits, is_json=is_json)


def test_what_is_kept_of_many_bad_spans_is_not_many_times_the_body() -> None:
    sent = traces(*[span(CHAT)] * 64, resource={"service.name": "s" * 2**20})
    found = decoded(sent, is_json=False)
    assert len(found.rejected) == 64
    assert 32 * 2**20 < sum(len(rejected.raw) for rejected in found.rejected) < 34 * 2**20
    assert [rejected.is_mendable for rejected in found.rejected] == [bool(rejected.raw) for rejected in found.rejected]


def user(record: Record) -> object:
    return record.dimensions[record.kind.dimensions.index("user_id")]


PROMPT = "gen_ai.input.messages"


def damaged(is_json: bool) -> bytes:
    """A call whose prompt, and another whose user, are cut in the middle of a character, beside a good one."""
    cut = [{PROMPT: "cut@"}, {"user.id": "ann@"}, {}]
    body = traces(*(span(CHAT | USAGE | values | {"gen_ai.response.id": str(at)}) for at, values in enumerate(cut)))
    return json.dumps(body).encode().replace(b"@", b"\\ud83d") if is_json else in_protobuf(body).replace(b"@", b"\xf0")


@pytest.mark.parametrize("is_json", [True, False])
def test_text_that_is_cut_within_a_character_refuses_nothing(is_json: bool) -> None:
    found = decode_traces(damaged(is_json), OPTIONS, LIMITS, is_json=is_json)
    assert ([record.id for record in found.records], found.rejected) == (["0", "1", "2"], [])
    assert list(map(user, found.records)) == [None, "ann?" if is_json else "ann\N{REPLACEMENT CHARACTER}", None]


def test_lists_may_be_nested_deeper_than_protobuf_follows() -> None:
    message = TracesData.FromString(in_protobuf(traces(span(CHAT | USAGE))))
    deep = b""
    for _ in range(100):
        deep = field(5, field(1, deep))
    content = message.resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    content += field(9, field(1, b"tools") + field(2, deep))
    body = field(1, field(2, field(2, content)))
    with pytest.raises(DecodeError):
        TracesData.FromString(body)
    assert len(decode_traces(body, OPTIONS, LIMITS, is_json=False).records) == 1


@pytest.mark.parametrize("wrong", [{"stringValue": 200}, {"intValue": [1]}, {"doubleValue": {}}, {"boolValue": "yes"}])
def test_an_attribute_that_is_not_of_its_type_is_absent(wrong: Json) -> None:
    body = traces(span(CHAT | USAGE))
    found = body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    found += [{"key": "http.status", "value": wrong}, {"key": "user.id", "value": wrong}]
    (record,) = decoded(body, is_json=True).records
    assert user(record) is None


def test_a_status_may_be_told_by_name() -> None:
    assert decoded(traces(span(CHAT, status={"code": "STATUS_CODE_ERROR"})), is_json=True).ignored == 1


def test_the_name_of_a_span_is_told_shortened() -> None:
    (rejected,) = decoded(traces(span(CHAT, name="n" * 1_000_000)), is_json=True).rejected
    assert len(rejected.faults[0].message) < 300


ANSWERED = {"gen_ai.response.id": "resp_1"}
ADK = {"gen_ai.system": "gcp.vertex.agent", "gen_ai.request.model": "gemini-2.5-pro"}


def nested(*levels: Json) -> Json:
    """Spans each of which is part of the one before."""
    return traces(
        *(
            span(values, spanId=f"{at + 1:016x}", parentSpanId=f"{at:016x}" if at else "")
            for at, values in enumerate(levels)
        )
    )


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((ADK | USAGE, CHAT | USAGE), [1]),
        ((ADK | USAGE, CHAT | USAGE | ANSWERED), [1]),
        ((ADK | USAGE, CHAT | tokens(input=9, output=30)), [1]),
        ((ADK | USAGE | ANSWERED, CHAT | tokens(input=9, output=30)), [0, 1]),
        ((CHAT | USAGE, {}, {"http.request.method": "POST"}, CHAT | USAGE), [3]),
        ((CHAT | USAGE, CHAT | USAGE, CHAT | USAGE), [2]),
        ((CHAT | USAGE | ANSWERED, CHAT | USAGE), [0]),
        ((CHAT | USAGE, CHAT | USAGE | tokens(output=3)), [0, 1]),
        ((CHAT | tokens(input=9), CHAT | tokens(input=9) | {"gen_ai.operation.name": "embeddings"}), [0, 1]),
        ((TOOL | {"gen_ai.tool.name": "web_search"}, TOOL | {"gen_ai.tool.name": "web_search"}), [0, 1]),
    ],
)
def test_a_call_that_says_what_one_below_it_used_is_counted_once(
    levels: tuple[Json, ...], expected: list[int], is_json: bool
) -> None:
    found = decoded(nested(*levels), is_json=is_json)
    assert (found.indexes, found.ignored, found.rejected) == (expected, len(levels) - len(expected), [])


LLM: Json = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o", "llm.token_count.prompt": 9}
ANSWER = '{"id":"chatcmpl-B1x2","choices":[{"message":{"content":"hi"}}],"object":"chat.completion"}'


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ANSWER, "chatcmpl-B1x2"),
        ('{ "id": "msg_01abc", "type": "message"}', "msg_01abc"),
        ('{"id": "my-user-7", "id2": "chatcmpl-1"}', None),
        ('{"text": "chatcmpl-B1x2"}', None),
        ("hello", None),
    ],
)
def test_the_id_of_an_answer_that_a_span_has_whole_is_taken_and_nothing_else_of_it(
    answer: str, expected: str | None, is_json: bool
) -> None:
    found = decoded(traces(span(LLM | {"output.value": answer})), is_json=is_json)
    assert found.records[0].id == (expected or f"{TRACE_ID}-{SPAN_ID}")
    bad = decoded(traces(span(LLM | {"output.value": answer, "llm.token_count.prompt": -1})), is_json=is_json)
    assert b"content" not in bad.rejected[0].raw
    assert b"output.value" not in bad.rejected[0].raw


def test_of_two_spans_of_one_response_in_a_line_the_inner_one_stands_unless_the_outer_one_says_more() -> None:
    stream = CHAT | ANSWERED | tokens(input=9, output=3)  # its first token counted twice
    assert decoded(nested(stream, CHAT | ANSWERED | USAGE), is_json=True).indexes == [1]
    assert decoded(nested(stream | tokens(cache_read__input=4), CHAT | ANSWERED | USAGE), is_json=True).indexes == [0]


def test_of_two_spans_of_one_response_the_poorer_one_says_who_made_the_call() -> None:
    framework = span(CHAT | ANSWERED | USAGE | {"user.id": "ann"}, traceId="1" * 32)
    client = span(CHAT | ANSWERED | USAGE | tokens(cache_read__input=0), spanId="2" * 16)
    (record,) = decoded(traces(framework, client), is_json=True).records
    assert (record.dimensions[1], record.measures[0]) == ("ann", 9)


def test_spans_of_one_response_that_are_above_each_other_are_one_call() -> None:
    ones = [span(CHAT | ANSWERED | USAGE, spanId=f"{at:016x}", parentSpanId=f"{3 - at:016x}") for at in (1, 2)]
    assert len(decoded(traces(*ones), is_json=True).records) == 1


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            '{"input_tokens": 9, "output_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3,'
            ' "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}, "speed": "fast"}',
            {"input_tokens": 16, "input_cached_tokens": 4, "input_cache_write_12h_tokens": 2, "output_tokens": 2},
        ),
        (
            '{"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"audio_tokens": 5}}',
            {"input_tokens": 9, "input_audio_tokens": 5, "output_tokens": 2},
        ),
        # What the object lacks the other attributes have, and what is wrong in it spoils nothing.
        ('{"prompt_tokens": 5}', {"input_tokens": 5, "output_tokens": 2}),
        ('{"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}', {"input_tokens": 9, "output_tokens": 2}),
        ('{"prompt_tokens": -5, "completion_tokens": 2}', {"input_tokens": 9, "output_tokens": 2}),
        (
            '{"input_tokens": 0, "output_tokens": 2, "cache_read_input_tokens": 9}',
            {"input_tokens": 9, "input_cached_tokens": 9, "output_tokens": 2},
        ),
        ("no json", {"input_tokens": 9, "output_tokens": 2}),
        ("{}", {"input_tokens": 9, "output_tokens": 2}),
    ],
)
def test_a_usage_object_that_a_span_has_whole_counts(raw: str, expected: Json) -> None:
    (record,) = decoded(traces(span(CHAT | USAGE | {"gen_ai.usage.raw": raw})), is_json=True).records
    found = dict(zip(record.kind.measures, record.measures, strict=True))
    assert {name: found[name] for name in expected} == expected
    tier = dict(zip(record.kind.dimensions, record.dimensions, strict=True))["service_tier"]
    assert tier == ("fast" if "speed" in raw else None)


def test_iterations_of_a_usage_object_that_a_span_has_whole_are_requests_of_their_own() -> None:
    compaction = {"type": "compaction", "input_tokens": 50, "output_tokens": 5}
    message = {"type": "message", "input_tokens": 9, "output_tokens": 2}
    raw = {"input_tokens": 9, "output_tokens": 2, "cache_read_input_tokens": 0, "iterations": [compaction, message]}
    values = CHAT | USAGE | {"gen_ai.response.id": "msg_1", "gen_ai.usage.raw": json.dumps(raw)}
    found = decoded(traces(span(values)), is_json=True).records
    assert [record.id for record in found] == ["msg_1", "msg_1#compaction-1"]


def test_what_anthropics_sdk_writes_of_its_usage_object_is_read() -> None:
    values = CHAT | USAGE | {"gen_ai.response.id": "msg_1", "anthropic.usage.speed": "fast"}
    values |= {"anthropic.usage.compaction.input_tokens": 50, "anthropic.usage.compaction.output_tokens": 5}
    found = decoded(traces(span(values)), is_json=True).records
    assert [record.id for record in found] == ["msg_1", "msg_1#compaction-1"]
    assert [record.measures[record.kind.measures.index("input_tokens")] for record in found] == [9, 50]
    tiers = [dict(zip(record.kind.dimensions, record.dimensions, strict=True))["service_tier"] for record in found]
    assert tiers == ["fast", "fast"]


LIVEKIT: Json = {
    "lk.llm_metrics": json.dumps(
        {
            "type": "llm_metrics",
            "request_id": "chatcmpl-livekit",
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "metadata": {"model_name": "gpt-4o-mini"},
        }
    )
}
MLFLOW: Json = {
    "mlflow.spanType": '"CHAT_MODEL"',
    "mlflow.llm.model": '"gpt-4o-mini"',
    "mlflow.chat.tokenUsage": '{"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}',
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (MLFLOW, ("gpt-4o-mini", 9)),
        (MLFLOW | {"mlflow.spanType": '"AGENT"'}, None),
        (LIVEKIT, ("gpt-4o-mini", 9)),
        (LIVEKIT | {"gen_ai.request.model": "gpt-4o"}, ("gpt-4o", 9)),
        (LIVEKIT | CHAT | USAGE, ("gpt-4o", 9)),
        ({"lk.llm_metrics": "no json"}, None),
        (
            {"llm.usage.prompt_tokens": 9, "llm.usage.completion_tokens": 2, "llm.response.model": "gpt-4o"},
            ("gpt-4o", 9),
        ),
    ],
)
def test_other_names_of_models_and_counts(values: Json, expected: tuple[str, int] | None) -> None:
    found = decoded(traces(span(values)), is_json=True)
    assert found.rejected == []
    assert [(each.dimensions[3], each.measures[0]) for each in found.records] == ([expected] if expected else [])


def test_a_model_whose_counts_are_in_its_answer_only_is_rejected_with_the_reason() -> None:
    values = {"genkit:metadata:subtype": "model", "genkit:output": '{"usage": {"inputTokens": 9}, "text": "secret"}'}
    (bad,) = decoded(traces(span(values)), is_json=True).rejected
    assert "Genkit" in bad.faults[0].message
    assert b"secret" not in bad.raw


def test_thoughts_of_the_adk_are_added_where_they_prove_to_be_apart() -> None:
    values = ADK | USAGE | {"gen_ai.usage.experimental.reasoning_tokens": 30}
    (record,) = decoded(traces(span(values)), is_json=True).records
    assert record.measures[record.kind.measures.index("output_tokens")] == 32


def test_of_objects_that_spans_hold_only_what_was_used_is_kept() -> None:
    metadata = '{"google": {"groundingMetadata": {"webSearchQueries": ["my illness"]}, "usage": {"tier": "standard"}}}'
    values = VERCEL | {"ai.usage.inputTokens": "-1", "ai.response.providerMetadata": metadata}
    (bad,) = decoded(traces(span(values)), is_json=True).rejected
    assert b"illness" not in bad.raw
    assert b"standard" in bad.raw


def test_what_bedrock_wrote_to_its_cache_is_in_the_metadata_of_version_5_of_vercels_sdk() -> None:
    values = VERCEL | {"gen_ai.system": "amazon-bedrock", "ai.usage.inputTokens": 300, "ai.usage.outputTokens": 5}
    values |= {"ai.usage.cachedInputTokens": 2000}
    values |= {"ai.response.providerMetadata": '{"bedrock": {"usage": {"cacheWriteInputTokens": 700}}}'}
    (record,) = decoded(traces(span(values)), is_json=True).records
    found = dict(zip(record.kind.measures, record.measures, strict=True))
    assert [found[f"input_{name}"] for name in ("tokens", "cached_tokens", "cache_write_tokens")] == [3000, 2000, 700]


def test_calls_beside_each_other_are_two_whatever_they_used() -> None:
    first = span(CHAT | USAGE, parentSpanId=SPAN_ID, spanId="1" * 16)
    found = decoded(traces(first, first | {"spanId": "2" * 16}, first | {"spanId": SPAN_ID}), is_json=True)
    assert found.indexes == [0, 1]  # and one is above both
    itself = decoded(traces(first | {"spanId": SPAN_ID}, first), is_json=True)
    assert itself.indexes == [1]


def test_spans_from_before_events_are_kept_are_refused_for_good() -> None:
    limits = LIMITS._replace(since_ms=NOW_MS)
    (rejected,) = decode_traces(json.dumps(traces(span(CHAT | USAGE))).encode(), OPTIONS, limits, is_json=True).rejected
    assert not rejected.is_mendable


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"llm.cost.total": 0.25}, 0.25),
        ({"llm.cost.prompt": 0.125, "llm.cost.completion": 0.5}, 0.625),
        ({"operation.cost": "0.25"}, 0.25),
        ({"gen_ai.usage.cost": -1.0}, None),
        ({}, None),
    ],
)
def test_costs_are_taken_if_the_operator_says_so(values: Json, expected: float | None) -> None:
    body = traces(span(CHAT | USAGE | values))
    assert "cost" not in events_of(body)[0]
    told = events_of(body, Options(takes_costs=True))[0].get("cost")
    assert (told and (float(told["value"]), told["currency"])) == (expected and (expected, "usd"))


def test_a_service_without_a_name_is_no_project() -> None:
    (event,) = events_of(traces(span(CHAT | USAGE), resource={"service.name": "unknown_service:python"}))
    assert "project_id" not in event


def test_a_resource_may_name_user_and_model() -> None:
    resource = {"user.id": "ann", "gen_ai.request.model": "llama"}
    (event,) = events_of(traces(span({"gen_ai.request.id": "cmpl-1"} | tokens(prompt=9)), resource=resource))
    assert (event["user_id"], event["model"]) == ("ann", "llama")


def test_what_a_trace_computes_within_a_session_is_one_session() -> None:
    used = span(TOOL | {"gen_ai.tool.name": "code_interpreter"})
    again = used | {"spanId": "1" * 16, "endTimeUnixNano": str(END_NS + 60 * 10**9)}
    first, second = events_of(traces(used, again))
    assert first == second


@pytest.mark.parametrize("trace_id", ["", "0" * 32])
def test_sessions_without_a_trace_are_those_of_their_answers(trace_id: str) -> None:
    used = TOOL | {"gen_ai.tool.name": "code_interpreter", "gen_ai.response.id": "resp_1"}
    (event,) = events_of(traces(span(used, traceId=trace_id)))
    assert event["id"] == "resp_1"


def test_a_record_that_is_no_trace_is_told() -> None:
    (fault,) = read_record(SOURCES["otlp"], OPTIONS, b'{"resourceSpans":5}', NOW_MS)
    assert "TracesData" in str(fault)


NUMBERS = [
    "0",
    "-1",
    "1e400",
    "9" * 400,
    '"9"',
    '"' + "9" * 400 + '"',
    "1.5",
    "null",
    "true",
    "[]",
    '"NaN"',
    '"-0"',
    "{}",
]
WHOLE = CHAT | USAGE | tokens(total=11, cache_read__input=3) | {"llm.cost.prompt": 1.5, "user.id": 7}
BODY = json.dumps(traces(span(WHOLE, status={"code": 2}))).encode()
PACKED = in_protobuf(traces(span(WHOLE), span(CHAT | USAGE)))


def holds(body: bytes, *, is_json: bool) -> None:
    """A body is refused, or each of its spans is counted, rejected or passed over."""
    try:
        found = decode_traces(body, Options(takes_costs=True, attributes=OPTIONS.attributes), LIMITS, is_json=is_json)
    except InvalidRequest:
        return
    assert all(rejected.faults for rejected in found.rejected)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.sampled_from([str(END_NS), "9", "2", "11", "3", "7", "1.5"]), st.sampled_from(NUMBERS))
def test_numbers_nobody_would_write_are_told(number: str, other: str) -> None:
    for quoted in (f'"{number}"', f": {number}"):
        put = other if quoted.startswith('"') else f": {other}"
        holds(BODY.replace(quoted.encode(), put.encode()), is_json=True)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_damaged_bodies_are_refused_or_read(data: st.DataObject) -> None:
    for body, is_json in ((BODY, True), (PACKED, False)):
        at = data.draw(st.integers(0, len(body) - 1))
        end = data.draw(st.integers(at, min(len(body), at + 8)))
        holds(body[:at] + data.draw(st.binary(max_size=4)) + body[end:], is_json=is_json)
