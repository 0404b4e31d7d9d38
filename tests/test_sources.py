"""Dialects of others, record by record: what is counted, and what is not. Payloads as the services answer them."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tallybook.ingest.decode import decode_records, read_record
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Options
from tallybook.sources.table import SOURCES

T = 1_763_800_000
CHAT: Event = {"object": "chat.completion", "id": "chatcmpl-1", "created": T, "model": "gpt-4o-2024-08-06"}
RESPONSE: Event = {"object": "response", "id": "resp_1", "created_at": T, "model": "gpt-5", "status": "completed"}
MESSAGE: Event = {"type": "message", "id": "msg_1", "model": "claude-sonnet-4-5"}
CALL: Event = {
    "id": "chatcmpl-1",
    "call_type": "acompletion",
    "status": "success",
    "startTime": T - 2.5,
    "endTime": T + 0.25,
    "model": "gpt-4o",
    "metadata": {},
}
ONE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
BOTH = {"input_tokens": 1, "output_tokens": 1}


def usage(**fields: Any) -> Event:
    return {"usage": fields}


def chat(**fields: Any) -> Event:
    return CHAT | usage(**fields)


def response(**fields: Any) -> Event:
    return RESPONSE | usage(input_tokens=9, output_tokens=3, total_tokens=12) | fields


def call(**fields: Any) -> Event:
    return CALL | fields


def done(kind: str, **fields: Any) -> Event:
    return {"type": kind, "status": "completed", **fields}


EMBEDDINGS_LINE: Event = {
    "id": "batch_req_1",
    "custom_id": "a",
    "response": {
        "status_code": 200,
        "request_id": "req_1",
        "body": {"object": "list", "data": [{"object": "embedding"}], "model": "m"} | usage(prompt_tokens=3),
    },
}
RESPONSE_TOKENS = {"kind": "completions", "input_tokens": 9, "output_tokens": 3}

OPENAI: dict[str, tuple[Any, list[Event]]] = {
    "chat": (chat(**ONE), [BOTH]),
    "chat, legacy": (chat(**ONE) | {"object": "text_completion"}, [BOTH]),
    "cached tokens are part of the prompt": (
        chat(prompt_tokens=100, completion_tokens=5, prompt_tokens_details={"cached_tokens": 80}),
        [{"input_tokens": 100, "input_cached_tokens": 80, "output_tokens": 5}],
    ),
    "reasoning is part of the output": (
        chat(prompt_tokens=1, completion_tokens=50, completion_tokens_details={"reasoning_tokens": 40}),
        [{"input_tokens": 1, "output_tokens": 50}],
    ),
    "audio in and out": (
        chat(
            prompt_tokens=50,
            completion_tokens=60,
            prompt_tokens_details={"audio_tokens": 40, "text_tokens": 10, "cached_tokens": 0},
            completion_tokens_details={"audio_tokens": 45, "text_tokens": 15},
        ),
        [
            {
                "input_tokens": 50,
                "input_cached_tokens": 0,
                "input_audio_tokens": 40,
                "output_tokens": 60,
                "output_audio_tokens": 45,
            }
        ],
    ),
    "images in the prompt": (
        chat(prompt_tokens=300, completion_tokens=1, prompt_tokens_details={"image_tokens": 200, "cached_tokens": 40}),
        [{"input_tokens": 300, "input_cached_tokens": 40, "input_image_tokens": 200, "output_tokens": 1}],
    ),
    "images in the prompt, nearly all cached": (
        chat(prompt_tokens=300, completion_tokens=1, prompt_tokens_details={"image_tokens": 200, "cached_tokens": 250}),
        [
            {
                "input_tokens": 300,
                "input_cached_tokens": 250,
                "input_image_tokens": 50,
                "input_cached_image_tokens": 150,
                "output_tokens": 1,
            }
        ],
    ),
    "service tier": (chat(**ONE) | {"service_tier": "priority"}, [BOTH | {"service_tier": "priority"}]),
    "responses": (response(), [RESPONSE_TOKENS]),
    "responses, cache written": (
        RESPONSE
        | usage(
            input_tokens=100,
            input_tokens_details={
                "cached_tokens": 10,
                "cache_write_tokens": 30,
                "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 10},
            },
            output_tokens=1,
        ),
        [
            {
                "input_tokens": 100,
                "input_cached_tokens": 10,
                "input_cache_write_tokens": 30,
                "input_cache_write_30m_tokens": 20,
                "input_cache_write_12h_tokens": 10,
                "output_tokens": 1,
            }
        ],
    ),
    "the end of a stream of responses": ({"type": "response.completed", "response": response()}, [RESPONSE_TOKENS]),
    "what comes before the end of a stream": (
        {"type": "response.created", "response": RESPONSE | {"status": "in_progress"}},
        [],
    ),
    "a response that is not finished": (RESPONSE | {"status": "queued"}, []),
    "web searches as billed": (
        response(
            output=[done("web_search_call", action={"type": "search"})] * 3,
            tool_usage={"web_search": {"num_requests": 2}},
            tools=[{"type": "web_search", "search_context_size": "high"}],
        ),
        [RESPONSE_TOKENS, {"kind": "web_search_calls", "num_requests": 2, "context_level": "high"}],
    ),
    "no web search is billed": (
        response(output=[done("web_search_call")], tool_usage={"web_search": {"num_requests": 0}}),
        [RESPONSE_TOKENS],
    ),
    "web searches counted, pages not": (
        response(
            output=[
                done("web_search_call", action={"type": "search"}),
                done("web_search_call", action={"type": "open_page"}),
                done("web_search_call") | {"status": "failed"},
                done("web_search_call"),
            ]
        ),
        [RESPONSE_TOKENS, {"kind": "web_search_calls", "num_requests": 2}],
    ),
    "file searches": (
        response(output=[done("file_search_call")] * 2, tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}]),
        [RESPONSE_TOKENS, {"kind": "file_search_calls", "num_requests": 2, "vector_store_id": "vs_1"}],
    ),
    "file searches in several stores": (
        response(
            output=[done("file_search_call")], tools=[{"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]}]
        ),
        [RESPONSE_TOKENS, {"kind": "file_search_calls", "num_requests": 1}],
    ),
    "a session for each container": (
        response(output=[done("code_interpreter_call", container_id=name) for name in ("cntr_b", "cntr_a", "cntr_b")]),
        [
            RESPONSE_TOKENS,
            {"kind": "code_interpreter_sessions", "id": "cntr_a", "timestamp": T - T % 1200},
            {"kind": "code_interpreter_sessions", "id": "cntr_b", "timestamp": T - T % 1200},
        ],
    ),
    "images drawn on the way": (
        response(
            output=[done("image_generation_call", id="ig_1", size="1024x1024", quality="high", action="edit")],
            tools=[{"type": "image_generation", "model": "gpt-image-1"}],
        ),
        [
            RESPONSE_TOKENS,
            {
                "kind": "images",
                "id": "ig_1",
                "model": "gpt-image-1",
                "images": 1,
                "size": "1024x1024",
                "quality": "high",
                "source": "image.edit",
            },
        ],
    ),
    "decisions": (
        {"object": "decision", "id": "dec_1", "created_at": T} | usage(input_tokens=4, output_tokens=1),
        [{"kind": "decisions", "input_tokens": 4, "output_tokens": 1}],
    ),
    "embeddings": (
        {"object": "list", "data": [{"object": "embedding"}], "model": "m"} | usage(prompt_tokens=8, total_tokens=8),
        [{"kind": "embeddings", "input_tokens": 8}],
    ),
    "moderations, which nobody charges for": (
        {"id": "modr-1", "model": "omni", "results": []},
        [{"kind": "moderations", "input_tokens": 0}],
    ),
    "moderations with a count": (
        {"response": {"id": "modr-1", "results": []}, "input_tokens": 7},
        [{"kind": "moderations", "input_tokens": 7}],
    ),
    "images": (
        {"created": T, "data": [{"url": "u"}, {"url": "u"}], "size": "1024x1024", "quality": "hd"},
        [
            {
                "kind": "images",
                "images": 2,
                "size": "1024x1024",
                "quality": "hd",
                "source": "image.generation",
            }
        ],
    ),
    "images whose size was left to the model": (
        {"response": {"created": T, "data": [{"b64_json": ""}]}, "request": {"size": "auto", "quality": "low"}},
        [{"kind": "images", "images": 1, "quality": "low", "source": "image.generation"}],
    ),
    "transcriptions by duration": (
        {"text": "hi"} | usage(type="duration", seconds=12.5),
        [{"kind": "audio_transcriptions", "seconds": 12.5}],
    ),
    "transcriptions, verbose": (
        {"text": "hi", "duration": "3.32", "language": "english"},
        [{"kind": "audio_transcriptions", "seconds": 3.32}],
    ),
    "transcriptions by tokens": (
        {"text": "hi"}
        | usage(
            type="tokens", input_tokens=14, output_tokens=5, input_token_details={"text_tokens": 0, "audio_tokens": 14}
        ),
        [{"input_tokens": 14, "input_audio_tokens": 14, "output_tokens": 5}],
    ),
    "transcriptions by tokens whose length is known": (
        {"response": {"text": "hi"} | usage(type="tokens", input_tokens=14, output_tokens=5), "seconds": 9},
        [{"kind": "audio_transcriptions", "seconds": 9}],
    ),
    "speech": (
        {"response": {}, "kind": "audio_speeches", "request": {"input": "hello"}, "id": "s1", "timestamp": T},
        [{"kind": "audio_speeches", "characters": 5, "id": "s1"}],
    ),
    "realtime": (
        {
            "type": "response.done",
            "response": {"object": "realtime.response", "id": "resp_2"}
            | usage(
                input_tokens=100,
                output_tokens=20,
                input_token_details={
                    "text_tokens": 20,
                    "audio_tokens": 50,
                    "image_tokens": 30,
                    "cached_tokens": 40,
                    "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 20, "image_tokens": 10},
                },
                output_token_details={"text_tokens": 5, "audio_tokens": 15},
            ),
        },
        [
            {
                "id": "resp_2",
                "input_tokens": 100,
                "input_cached_tokens": 40,
                "input_audio_tokens": 50,
                "input_image_tokens": 20,
                "input_cached_audio_tokens": 20,
                "input_cached_image_tokens": 10,
                "output_tokens": 20,
                "output_audio_tokens": 15,
            }
        ],
    ),
    "speech heard in a realtime session": (
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "item_1", "transcript": "x"}
        | usage(type="duration", seconds=2),
        [{"kind": "audio_transcriptions", "seconds": 2, "id": "item_1"}],
    ),
    "a line of a batch": (
        {
            "id": "batch_req_1",
            "custom_id": "a",
            "response": {"status_code": 200, "request_id": "req_1", "body": chat(**ONE)},
            "error": None,
        },
        [BOTH | {"batch": True}],
    ),
    "a line of a batch of embeddings": (
        {"response": EMBEDDINGS_LINE, "timestamp": T},
        [{"kind": "embeddings", "input_tokens": 3, "batch": True, "id": "req_1", "timestamp": T}],
    ),
    "a line of a batch that failed": (
        {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 400, "body": {"error": {}}}},
        [],
    ),
    "a line of a batch that never ran": ({"id": "b", "custom_id": "a", "response": None, "error": {"code": "x"}}, []),
    "an envelope": (
        {
            "response": chat(**ONE),
            "id": "mine",
            "timestamp": T + 1,
            "project_id": "p",
            "user_id": "u",
            "api_key_id": "k",
            "service_tier": "flex",
            "batch": True,
        },
        [
            BOTH
            | {
                "id": "mine",
                "timestamp": T + 1,
                "project_id": "p",
                "user_id": "u",
                "api_key_id": "k",
                "service_tier": "flex",
                "batch": True,
            }
        ],
    ),
}

ANTHROPIC: dict[str, tuple[Any, list[Event]]] = {
    "a message": (MESSAGE | usage(input_tokens=10, output_tokens=5), [{"input_tokens": 10, "output_tokens": 5}]),
    "what was cached is counted apart, and belongs to the input": (
        MESSAGE
        | usage(
            input_tokens=10,
            cache_read_input_tokens=300,
            cache_creation_input_tokens=200,
            cache_creation={"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
            output_tokens=5,
        ),
        [
            {
                "input_tokens": 510,
                "input_cached_tokens": 300,
                "input_cache_write_tokens": 200,
                "input_cache_write_30m_tokens": 150,
                "input_cache_write_12h_tokens": 50,
                "output_tokens": 5,
            }
        ],
    ),
    "web searches": (
        MESSAGE | usage(input_tokens=1, output_tokens=1, server_tool_use={"web_search_requests": 3}),
        [BOTH, {"kind": "web_search_calls", "num_requests": 3}],
    ),
    "the usual tier": (
        MESSAGE | usage(input_tokens=1, output_tokens=1, service_tier="standard"),
        [BOTH | {"service_tier": "default"}],
    ),
    "a batch": (
        MESSAGE | usage(input_tokens=1, output_tokens=1, service_tier="batch"),
        [BOTH | {"service_tier": "default", "batch": True}],
    ),
    "a line of a batch": (
        {
            "custom_id": "a",
            "result": {"type": "succeeded", "message": MESSAGE | usage(input_tokens=1, output_tokens=1)},
        },
        [BOTH | {"batch": True}],
    ),
    "a line of a batch that failed": ({"custom_id": "a", "result": {"type": "errored", "error": {}}}, []),
    "an error": ({"type": "error", "error": {"type": "overloaded_error"}}, []),
    "an envelope": (
        {"response": MESSAGE | usage(input_tokens=1, output_tokens=1), "timestamp": T, "user_id": "u"},
        [BOTH | {"timestamp": T, "user_id": "u"}],
    ),
}

LITELLM: dict[str, tuple[Any, list[Event]]] = {
    "a call": (call(prompt_tokens=9, completion_tokens=3), [{"input_tokens": 9, "output_tokens": 3}]),
    "details": (
        call(
            prompt_tokens=9,
            completion_tokens=3,
            metadata={
                "usage_object": {
                    "prompt_tokens": 9,
                    "completion_tokens": 3,
                    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                }
            },
        ),
        [{"input_tokens": 9, "input_cached_tokens": 4, "input_cache_write_tokens": 2, "output_tokens": 3}],
    ),
    "who": (
        call(
            prompt_tokens=1,
            completion_tokens=1,
            end_user="end",
            metadata={
                "user_api_key_hash": "hash",
                "user_api_key_user_id": "ann",
                "user_api_key_team_id": "team",
                "user_api_key_project_id": "project",
            },
        ),
        [BOTH | {"api_key_id": "hash", "user_id": "ann", "project_id": "project"}],
    ),
    "who, by other names": (
        call(prompt_tokens=1, completion_tokens=1, end_user="end", metadata={"user_api_key_team_id": "team"}),
        [BOTH | {"user_id": "end", "project_id": "team"}],
    ),
    "from its own cache": (call(prompt_tokens=9, completion_tokens=3, cache_hit=True), []),
    "failed": (call(prompt_tokens=9, completion_tokens=0, status="failure"), []),
    "a batch that was made": (call(call_type="acreate_batch", prompt_tokens=9, completion_tokens=3), []),
    "a batch that was cancelled": (call(call_type="cancel_batch", prompt_tokens=9, completion_tokens=3), []),
    "nothing used": (call(call_type="afile_list", prompt_tokens=0, completion_tokens=0), []),
    "a type of call to come": (
        call(call_type="athink", prompt_tokens=1, completion_tokens=1),
        [BOTH],
    ),
    "embeddings": (
        call(call_type="aembedding", prompt_tokens=8, completion_tokens=0),
        [{"kind": "embeddings", "input_tokens": 8}],
    ),
    "images": (
        call(
            call_type="image_generation",
            response={"created": T, "data": [{}, {}]},
            model_parameters={"size": "1024x1024", "quality": "hd", "n": 2},
        ),
        [{"kind": "images", "images": 2, "size": "1024x1024", "quality": "hd", "source": "image.generation"}],
    ),
    "edited images": (
        call(call_type="aimage_edit", response={"data": [{}]}),
        [{"kind": "images", "images": 1, "source": "image.edit"}],
    ),
    "speech": (
        call(call_type="aspeech", messages="hello"),
        [{"kind": "audio_speeches", "characters": 5}],
    ),
    "speech, as a message": (
        call(call_type="aspeech", messages=[{"role": "user", "content": "hello"}]),
        [{"kind": "audio_speeches", "characters": 5}],
    ),
    "a response that searched": (
        call(
            call_type="aresponses",
            prompt_tokens=1,
            completion_tokens=1,
            response={"output": [done("web_search_call", action={"type": "search"})]},
        ),
        [BOTH, {"kind": "web_search_calls", "num_requests": 1}],
    ),
    "transcriptions": (
        call(call_type="atranscription", response={"text": "x"} | usage(type="duration", seconds=12.5)),
        [{"kind": "audio_transcriptions", "seconds": 12.5}],
    ),
    "moderations": (
        call(call_type="amoderation", prompt_tokens=0),
        [{"kind": "moderations", "input_tokens": 0}],
    ),
    "web searches": (
        call(
            prompt_tokens=1,
            completion_tokens=1,
            metadata={"usage_object": ONE | {"server_tool_use": {"web_search_requests": 2}}},
            standard_built_in_tools_params={"web_search_options": {"search_context_size": "low"}},
        ),
        [BOTH, {"kind": "web_search_calls", "num_requests": 2, "context_level": "low"}],
    ),
    "a batch, whenever it is looked at": (
        call(
            call_type="aretrieve_batch",
            prompt_tokens=1,
            completion_tokens=1,
            response={"id": "batch_1", "completed_at": T - 60},
        ),
        [BOTH | {"batch": True, "id": "batch_1", "timestamp": T - 60}],
    ),
    "a batch that expired, half done": (
        call(
            call_type="aretrieve_batch",
            prompt_tokens=1,
            completion_tokens=1,
            response={"id": "batch_1", "status": "expired", "completed_at": None, "expired_at": T - 30},
        ),
        [BOTH | {"batch": True, "id": "batch_1", "timestamp": T - 30}],
    ),
    "a batch that goes on": (
        call(call_type="aretrieve_batch", prompt_tokens=1, response={"id": "batch_1", "status": "in_progress"}),
        [],
    ),
    "a response that is looked at again": (
        call(call_type="aget_responses", id="resp_1", response=RESPONSE | usage(**BOTH), metadata={"usage_object": {}}),
        [BOTH | {"id": "resp_1", "timestamp": T}],
    ),
}

GOLDEN = [
    pytest.param(source, record, expected, id=f"{source}: {case}")
    for source, cases in (("openai", OPENAI), ("anthropic", ANTHROPIC), ("litellm", LITELLM))
    for case, (record, expected) in cases.items()
]
COMMON = ("id", "timestamp", "model")
"""What is looked at only where a case names it."""


@pytest.mark.parametrize(("source", "record", "expected"), GOLDEN)
def test_a_record_is_the_events_it_stands_for(source: str, record: Any, expected: list[Event]) -> None:
    found = SOURCES[source].events(record, NO_OPTIONS)
    wanted = [{"kind": "completions"} | each for each in expected]
    assert len(found) == len(wanted)
    for event, each in zip(found, wanted, strict=True):
        assert {name: value for name, value in event.items() if name in each or name not in COMMON} == {
            name: value for name, value in each.items() if value is not None
        }


@pytest.mark.parametrize(
    ("source", "record", "identity"),
    [
        ("openai", chat(**ONE), ("chatcmpl-1", T, "gpt-4o-2024-08-06")),
        ("openai", response(), ("resp_1", T, "gpt-5")),
        ("anthropic", MESSAGE | usage(input_tokens=1, output_tokens=1), ("msg_1", None, "claude-sonnet-4-5")),
        ("litellm", call(prompt_tokens=1, completion_tokens=1), ("chatcmpl-1", T + 0.25, "gpt-4o")),
        (
            "litellm",
            call(prompt_tokens=1, completion_tokens=1, endTime="2026-10-27T00:00:01.100000"),
            ("chatcmpl-1", "2026-10-27T00:00:01.100000+00:00", "gpt-4o"),
        ),
    ],
)
def test_identity_and_model_are_those_of_the_answer(source: str, record: Any, identity: tuple[Any, ...]) -> None:
    (event,) = SOURCES[source].events(record, NO_OPTIONS)
    assert tuple(event.get(name) for name in ("id", "timestamp", "model")) == identity


@pytest.mark.parametrize(("source", "record", "expected"), GOLDEN)
def test_every_event_is_one_we_take(source: str, record: Any, expected: list[Event]) -> None:
    raw = json.dumps(record).encode()
    records = read_record(SOURCES[source], NO_OPTIONS, raw, (T + 3_600) * 1000)
    assert [getattr(each, "kind", each) for each in records] != [] or expected == []
    assert len(records) == len(expected)
    assert all(hasattr(each, "identity") for each in records), records


BAD: dict[str, tuple[str, Any, str | None]] = {
    "no object": ("openai", [1], None),
    "nothing that tells the kind": ("openai", {"id": "x"}, "object"),
    "no usage": ("openai", CHAT, "usage"),
    "a count that is text": ("openai", chat(prompt_tokens="9k", completion_tokens=1), "usage.prompt_tokens"),
    "a count below 0": ("openai", chat(prompt_tokens=-1, completion_tokens=1), "usage.prompt_tokens"),
    "a count that is a truth": ("openai", chat(prompt_tokens=True, completion_tokens=1), "usage.prompt_tokens"),
    "details that are none": ("openai", chat(**ONE, prompt_tokens_details=[]), "usage.prompt_tokens_details"),
    "more cached than read": (
        "openai",
        chat(prompt_tokens=5, completion_tokens=1, prompt_tokens_details={"cached_tokens": 6}),
        "input_cached_tokens",
    ),
    "a misspelt field": ("openai", {"response": chat(**ONE), "user": "u"}, "user"),
    "a kind no answer is of": ("openai", {"response": chat(**ONE), "kind": "vector_stores"}, "kind"),
    "a timestamp that is none": ("openai", {"response": chat(**ONE), "timestamp": "soon"}, "timestamp"),
    "a name too long": ("openai", {"response": chat(**ONE), "user_id": "u" * 257}, "user_id"),
    "a model that is none": ("openai", chat(**ONE) | {"model": 5}, "response.model"),
    "a message without usage": ("anthropic", MESSAGE, "usage"),
    "not from the callback": ("litellm", {"id": "x", "usage": ONE}, "call_type"),
    "a call without a status": ("litellm", {"id": "x", "call_type": "acompletion"}, "status"),
    "speech without its text": ("litellm", call(call_type="aspeech"), "messages"),
    "speech whose text is kept back": (
        "litellm",
        call(call_type="aspeech", messages=[{"role": "user", "content": "redacted-by-litellm"}]),
        "messages",
    ),
    "a line of a batch without a time": ("openai", EMBEDDINGS_LINE, "response.body.created"),
    "a count with a fraction": ("openai", chat(prompt_tokens=1.5, completion_tokens=1), "usage.prompt_tokens"),
    "a count beyond all": ("openai", chat(prompt_tokens=1e300, completion_tokens=1), "usage.prompt_tokens"),
    "a session at no time": (
        "openai",
        response(output=[done("code_interpreter_call")]) | {"created_at": 1e300},
        "timestamp",
    ),
    "a clock far off": ("litellm", call(prompt_tokens=1, completion_tokens=1, endTime=T * 1000), "timestamp"),
}


def is_line(record: Any) -> bool:
    return isinstance(record, dict) and "custom_id" in record


@pytest.mark.parametrize(("source", "record", "field"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_told_by_its_field(source: str, record: Any, field: str | None) -> None:
    raw = json.dumps(record).encode()
    found = decode_records(SOURCES[source], NO_OPTIONS, b"[" + raw + b"]", (T + 3_600) * 1000, 10)
    assert (found.records, len(found.rejected)) == ([], 1)
    (rejected,) = found.rejected
    assert rejected.raw == raw
    assert rejected.faults[0].field == (field if is_line(record) or not field else field.removeprefix("response."))


@pytest.mark.parametrize("cost", [0.1, "0.1", Decimal("0.1"), 0.1 + 1e-17])
def test_a_gateways_own_cost_is_taken_if_the_operator_says_so(cost: Any) -> None:
    record = call(prompt_tokens=1, completion_tokens=1, response_cost=cost)
    assert "cost" not in SOURCES["litellm"].events(record, NO_OPTIONS)[0]
    (event,) = SOURCES["litellm"].events(record, Options(takes_costs=True))
    assert event["cost"]["currency"] == "usd"
    assert round(event["cost"]["value"], 15) == Decimal("0.1")


@pytest.mark.parametrize("cost", [1e10, 1e300, -1, "NaN", "free", True, None, Decimal("1e-30"), 10**12])
def test_a_cost_out_of_all_bounds_is_none_and_spoils_nothing(cost: Any) -> None:
    record = call(prompt_tokens=1, completion_tokens=1, response_cost=cost)
    (event,) = SOURCES["litellm"].events(record, Options(takes_costs=True))
    possible = [Decimal(10**10), Decimal(10**12), Decimal(0)]
    assert event.get("cost") is None or event["cost"]["value"] in possible


@pytest.mark.parametrize(
    ("spelled", "kept"),
    [(rb"a\ud83d", "a?"), (rb"a\ud83d\ude00", "a😀"), ("é".encode(), "é")],
    ids=["half a character", "a character", "plain"],
)
def test_a_text_that_was_cut_within_a_character_spoils_nothing(spelled: bytes, kept: str) -> None:
    """Whoever cuts texts to a length, as JavaScript does, sends halves of characters, mostly in what nobody reads."""
    answer = json.dumps({"response": chat(**ONE), "user_id": "USER", "request": {"input": "TEXT"}}).encode()
    body = answer.replace(b"USER", spelled) + b"\n" + answer.replace(b"TEXT", spelled)
    found = decode_records(SOURCES["openai"], NO_OPTIONS, body, (T + 3_600) * 1000, 10)
    assert found.rejected == []
    users = [dict(zip(record.kind.dimensions, record.dimensions, strict=True))["user_id"] for record in found.records]
    assert users == [kept, "USER"]


def test_what_no_reader_can_follow_is_told() -> None:
    deep = b"[" * 600 + rb'"\ud83d"' + b"]" * 600
    (fault,) = read_record(SOURCES["openai"], NO_OPTIONS, b'{"id": ' + deep + b"}", T * 1000)
    assert "nested" in str(fault) or "object" in str(fault)


def test_of_several_events_of_a_call_one_has_its_cost() -> None:
    used = ONE | {"server_tool_use": {"web_search_requests": 2}}
    record = call(metadata={"usage_object": used}, response_cost=0.5)
    tokens, searches = SOURCES["litellm"].events(record, Options(takes_costs=True))
    assert (tokens["cost"]["value"], searches["cost"]["value"]) == (Decimal("0.5"), 0)


def test_a_body_is_an_array_or_lines_or_one_record_whatever_it_is_called() -> None:
    one = json.dumps(chat(**ONE)).encode()
    for body in (one, b"[" + one + b"," + one + b"]", one + b"\n" + one + b"\n"):
        found = decode_records(SOURCES["openai"], NO_OPTIONS, body, (T + 3_600) * 1000, 10)
        assert len(found.records) == body.count(b"chatcmpl-1")
        assert found.rejected == []


NUMBERS = [
    "0",
    "-1",
    "1.5",
    "1e400",
    "-1e400",
    "1e30",
    "9" * 400,
    "null",
    "true",
    '"9"',
    '"\\ud83d"',
    "[]",
    "{}",
    "[[{}]]",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something else can stand in a record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, (*path, name))


@pytest.mark.parametrize(("source", "record", "expected"), GOLDEN)
def test_whatever_stands_in_a_field_is_an_event_or_a_fault(source: str, record: Any, expected: list[Event]) -> None:
    for path in places(record):
        for odd in NUMBERS:
            changed = json.loads(json.dumps(record))
            inner = changed
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = "HERE"
            body = json.dumps(changed).replace('"HERE"', odd).encode()
            for found in read_record(SOURCES[source], Options(takes_costs=True), body, (T + 3_600) * 1000):
                json.dumps(found, default=str)


def test_a_faulty_record_does_not_raise_beyond_its_own_kind() -> None:
    with pytest.raises(FaultyRecord):
        SOURCES["openai"].events({"object": "nothing"}, NO_OPTIONS)
