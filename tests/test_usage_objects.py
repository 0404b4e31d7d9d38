"""Usage objects of many providers: no field is ignored in silence, and those that change the bill are read."""

import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.ingest.decode import read_record
from tallybook.sources.record import (
    NO_OPTIONS,
    UNREAD_MAX,
    Event,
    FaultyRecord,
    Options,
    Watched,
    call_id,
    is_unique_id,
)
from tallybook.sources.table import SOURCES

T = 1_793_059_200
CHAT: Event = {"object": "chat.completion", "id": "chatcmpl-x", "created": T, "model": "m"}
MESSAGE: Event = {"type": "message", "id": "msg_1", "role": "assistant", "model": "claude-sonnet-4-5"}
TURN: Event = {"input_tokens": 21_000, "output_tokens": 900}
COMPACTION: Event = {"type": "compaction", "input_tokens": 150_000, "output_tokens": 3_000}


def chat(**usage: Any) -> Event:
    return CHAT | {"usage": {"prompt_tokens": 1000, "completion_tokens": 50} | usage}


def message(**usage: Any) -> Event:
    return MESSAGE | {"usage": {"input_tokens": 10, "output_tokens": 3} | usage}


def litellm(**usage: Any) -> Event:
    used = {"prompt_tokens": 1000, "completion_tokens": 50} | usage
    call = {"id": "c", "call_type": "acompletion", "status": "success", "model": "m", "endTime": T}
    return call | {"metadata": {"usage_object": used}}


MAKE = {"openai": chat, "anthropic": message, "litellm": litellm}


def unread(source: str, record: Any) -> dict[str, int]:
    options = Options()
    SOURCES[source].events(record, options)
    return dict(options.unread)


CACHED = [
    {"prompt_tokens_details": {"cached_tokens": 600}},
    {"input_tokens_details": {"cached_tokens": 600}},
    {"prompt_cache_hit_tokens": 600, "prompt_cache_miss_tokens": 400},
    {"cached_tokens": 600},
    {"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 600},
    {"prompt_tokens_details": {"cached_tokens": "600"}},
    {"cache_read_input_tokens": 600},
    {"prompt_tokens_details": None, "input_tokens_details": {"cached_tokens": 600}},
    {"prompt_tokens_details": {"audio_tokens": 0}, "input_tokens_details": {"cached_tokens": 600}},
]
WRITTEN = [
    {"prompt_tokens_details": {"cache_write_tokens": 200}},
    {"prompt_tokens_details": {"cache_creation_tokens": 200}},
    {"prompt_tokens_details": {"cache_creation_input_tokens": 200, "cache_type": "ephemeral"}},
    {"cache_creation_input_tokens": 200},
    {"prompt_tokens_details": {"cache_creation": {"ephemeral_5m_input_tokens": 200}}},
    {"prompt_tokens_details": {"cache_creation_token_details": {"ephemeral_5m_input_tokens": 200}}},
]


@pytest.mark.parametrize("source", ["openai", "litellm"])
@pytest.mark.parametrize("read", CACHED)
@pytest.mark.parametrize("written", WRITTEN)
def test_a_cache_is_read_under_every_name_it_has_had(source: str, read: Event, written: Event) -> None:
    record = MAKE[source](**copy.deepcopy(read) | {"prompt_tokens": 1000})
    used = record["usage"] if source == "openai" else record["metadata"]["usage_object"]
    for name, value in written.items():
        used[name] = {**(used.get(name) or {}), **value} if isinstance(value, dict) else value
    (event,) = SOURCES[source].events(record, NO_OPTIONS)
    assert (event["input_tokens"], event["output_tokens"]) == (1000, 50)
    assert (event["input_cached_tokens"], event["input_cache_write_tokens"]) == (600, 200)
    assert unread(source, record) == {}


SPELLINGS: list[tuple[Event, Event]] = [
    ({"prompt_tokens": 0, "completion_tokens": 0}, {"input_tokens": 30, "output_tokens": 20}),
    ({"prompt_tokens": 30, "completion_tokens": 20}, {"input_tokens": 0, "output_tokens": 0}),
    ({"prompt_tokens": 30, "completion_tokens": 0}, {"input_tokens": 0, "output_tokens": 20}),
    ({"prompt_tokens": None, "completion_tokens": "20"}, {"input_tokens": "30", "output_tokens": None}),
    ({"prompt_tokens": 30, "completion_tokens": 20}, {"input_tokens": 30, "output_tokens": 20}),
]


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
@pytest.mark.parametrize("source", ["openai", "litellm"])
def test_of_two_spellings_the_one_that_says_something_counts(source: str, first: Event, second: Event) -> None:
    for order in (first | second, second | first):
        (event,) = SOURCES[source].events(MAKE[source](**order), NO_OPTIONS)
        assert (event["input_tokens"], event["output_tokens"]) == (30, 20)


def test_usage_in_several_places_of_litellms_record_is_put_together() -> None:
    record = litellm(prompt_tokens=0, completion_tokens=0)
    record["hidden_params"] = {"usage_object": {"prompt_tokens": 30}}
    record["response"] = {"usage": {"completion_tokens": "20", "prompt_tokens_details": {"cached_tokens": 8}}}
    (event,) = SOURCES["litellm"].events(record, NO_OPTIONS)
    assert (event["input_tokens"], event["input_cached_tokens"], event["output_tokens"]) == (30, 8, 20)


NOTHINGS: list[Any] = [0, 0.0, "", "0", "0.0", None, False, [], {}, {"deep": 0}]


@pytest.mark.parametrize("source", list(MAKE))
@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"new_tokens": 5}, ["usage.new_tokens"]),
        ({"new_tokens": "5"}, ["usage.new_tokens"]),
        ({"priced": "double"}, ["usage.priced"]),
        ({"details_of_it": {"deep": {"deeper_tokens": 7}}}, ["usage.details_of_it.deep.deeper_tokens"]),
        ({"several": [{"tokens": 1}, {"tokens": 2}]}, ["usage.several.tokens"]),
        ({"x" * 500: 1}, [f"usage.{'x' * 500}"[:128]]),
        *(({"nothing": value}, []) for value in NOTHINGS),
    ],
)
def test_a_field_that_says_something_and_is_not_read_is_reported(source: str, fields: Event, names: list[str]) -> None:
    assert sorted(set(unread(source, MAKE[source](**fields)))) == names


@pytest.mark.parametrize("name", ["prompt_tokens_details", "completion_tokens_details", "cache_creation"])
def test_a_field_among_the_details_is_reported_by_its_path(name: str) -> None:
    assert unread("openai", chat(**{name: {"foo_tokens": 3}})) == {f"usage.{name}.foo_tokens": 1}


KNOWN: list[tuple[str, Event]] = [
    ("openai", chat(total_tokens=1050, completion_tokens_details={"accepted_prediction_tokens": 4, "text_tokens": 50})),
    ("openai", chat(queue_time=0.1, prompt_time=0.2, completion_time=0.3, total_time=0.6)),
    ("openai", chat(cost=0.5, is_byok=True, cost_details={"upstream_inference_cost": 1}, cost_in_usd_ticks=5)),
    ("anthropic", message(output_tokens_details={"thinking_tokens": 2}, server_tool_use={"web_fetch_requests": 2})),
    ("anthropic", message(service_tier="standard", speed="standard", inference_geo="global")),
    ("litellm", litellm(prompt_tokens_details={"text_tokens": 9}, total_tokens=1050)),
]


@pytest.mark.parametrize(("source", "record"), KNOWN)
def test_what_is_known_to_be_irrelevant_is_not_reported(source: str, record: Event) -> None:
    assert unread(source, record) == {}


def test_so_many_names_are_told_apart_in_a_request() -> None:
    options = Options()
    for number in range(UNREAD_MAX + 9):
        SOURCES["openai"].events(chat(**{f"tokens_{number}": 1}), options)
        SOURCES["openai"].events(chat(tokens_0=1), options)
    assert len(options.unread) == UNREAD_MAX
    assert options.unread["usage.tokens_0"] == UNREAD_MAX + 10


VALUES = st.recursive(
    st.integers(0, 3) | st.sampled_from(["", "0", "7", "fast", None, False]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def leaves(value: Any, path: str) -> set[str]:
    if isinstance(value, dict):
        return {leaf for name, inner in value.items() for leaf in leaves(inner, f"{path}.{name}")}
    return {path} if value not in (0, "", "0", None) else set()


@given(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3))
def test_every_leaf_that_was_not_looked_up_is_unread(values: dict[str, Any]) -> None:
    watched = Watched(values)
    assert set(watched.unread("u")) == leaves(values, "u")
    watched.get("a")
    kept = {name: value for name, value in values.items() if name != "a" or isinstance(value, dict)}
    assert set(watched.unread("u")) == leaves(kept, "u")
    assert watched == values


PRICED: list[tuple[Event, str | None, str | None]] = [
    ({}, None, None),
    ({"speed": "standard", "inference_geo": "global"}, None, None),
    ({"speed": "fast"}, "fast", None),
    ({"speed": "fast", "service_tier": "standard"}, "fast", None),
    ({"speed": "faster still", "service_tier": "priority"}, "faster still", None),
    ({"service_tier": "standard", "inference_geo": "not_available"}, "default", None),
    ({"service_tier": "priority", "inference_geo": "US"}, "priority", "us"),
]


@pytest.mark.parametrize("source", list(MAKE))
@pytest.mark.parametrize(("fields", "tier", "place"), PRICED)
def test_what_the_price_depends_on_is_read_from_every_usage_object(
    source: str, fields: Event, tier: str | None, place: str | None
) -> None:
    (event,) = SOURCES[source].events(MAKE[source](**fields), NO_OPTIONS)
    assert event.get("service_tier") == tier
    assert event.get("inference_geo") == place


def iterated(*iterations: Event, **top: Any) -> Event:
    return message(**TURN | top, iterations=list(iterations))


def of(event: Event) -> tuple[Any, ...]:
    return event["id"], event.get("model"), event["input_tokens"], event["output_tokens"]


OWN = "claude-sonnet-4-5"
ITERATED: dict[str, tuple[Event, list[tuple[Any, ...]]]] = {
    "one turn": (iterated({"type": "message", **TURN}), [("msg_1", OWN, 21_000, 900)]),
    "none": (iterated(), [("msg_1", OWN, 21_000, 900)]),
    "compaction": (
        iterated(COMPACTION, {"type": "message", **TURN}),
        [("msg_1", OWN, 21_000, 900), ("msg_1#compaction-1", OWN, 150_000, 3_000)],
    ),
    "two compactions": (
        iterated(COMPACTION, COMPACTION, {"type": "message", **TURN}),
        [
            ("msg_1", OWN, 21_000, 900),
            ("msg_1#compaction-1", OWN, 150_000, 3_000),
            ("msg_1#compaction-2", OWN, 150_000, 3_000),
        ],
    ),
    "a compaction of nothing": (
        iterated({"type": "compaction", "input_tokens": 0}, {"type": "message", **TURN}),
        [("msg_1", OWN, 21_000, 900)],
    ),
    "turns below every threshold": (
        iterated(
            {"type": "message", "input_tokens": 1_000, "output_tokens": 400},
            {"type": "message", "input_tokens": 20_000, "output_tokens": 500},
        ),
        [("msg_1", OWN, 21_000, 900)],
    ),
    "turns that only together exceed a threshold": (
        iterated(
            {"type": "message", "input_tokens": 150_000, "output_tokens": 400},
            {"type": "message", "input_tokens": 150_500, "output_tokens": 500},
            input_tokens=300_500,
        ),
        [("msg_1#turn-1", OWN, 150_000, 400), ("msg_1#turn-2", OWN, 150_500, 500)],
    ),
    "an advisor of another model": (
        iterated(
            {"type": "message", **TURN},
            {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 700, "output_tokens": 70},
        ),
        [("msg_1", OWN, 21_000, 900), ("msg_1#advisor_message-1", "claude-opus-4-8", 700, 70)],
    ),
    "a fallback, whose counts the top has alone": (
        iterated(
            {"type": "message", "model": "claude-opus-4-8", "input_tokens": 20_000, "output_tokens": 10},
            {"type": "fallback_message", "model": OWN, **TURN},
        ),
        [("msg_1", OWN, 21_000, 900), ("msg_1#message-1", "claude-opus-4-8", 20_000, 10)],
    ),
    "turns that nothing is the sum of": (
        iterated({"type": "message", "input_tokens": 5, "output_tokens": 5}),
        [("msg_1", OWN, 21_000, 900)],
    ),
}


@pytest.mark.parametrize(("record", "expected"), ITERATED.values(), ids=ITERATED)
def test_each_request_that_an_answer_took_is_billed_once(record: Event, expected: list[tuple[Any, ...]]) -> None:
    assert [of(event) for event in SOURCES["anthropic"].events(record, NO_OPTIONS)] == expected
    line = {"custom_id": "a", "result": {"type": "succeeded", "message": record}}
    for source in ("anthropic", "openai"):
        found = SOURCES[source].events(line, NO_OPTIONS)
        assert [of(event) for event in found] == expected
        assert all(event["batch"] is True for event in found)


@given(st.lists(st.tuples(st.integers(1, 200_000), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5))
def test_the_events_of_turns_add_up_to_the_top(turns: list[tuple[int, int, int]]) -> None:
    items = [
        {"type": "message", "input_tokens": i, "output_tokens": o, "cache_read_input_tokens": c} for i, o, c in turns
    ]
    top = {name: sum(int(item[name]) for item in items) for name in items[0] if name != "type"}  # type: ignore[call-overload]
    found = SOURCES["anthropic"].events(message(**top, iterations=items), NO_OPTIONS)
    assert sum(event["input_tokens"] for event in found) == top["input_tokens"] + top["cache_read_input_tokens"]
    assert sum(event["output_tokens"] for event in found) == top["output_tokens"]
    assert len({event["id"] for event in found}) == len(found)


ANTHROPICS = [
    message(cache_read_input_tokens=5, cache_creation_input_tokens=0),
    {"response": message(cache_read_input_tokens=5), "timestamp": T, "request": {"input": "x"}, "user_id": "ann"},
    {"id": "msg_1", "model": OWN, "created": T}
    | {"usage": {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": 5}},
    {"custom_id": "a", "result": {"type": "succeeded", "message": message(cache_read_input_tokens=5)}},
]


@pytest.mark.parametrize("record", ANTHROPICS)
def test_a_message_of_anthropics_is_recognised_at_the_address_of_openais_answers(record: Event) -> None:
    (event,) = SOURCES["openai"].events(record, NO_OPTIONS)
    assert (event["input_tokens"], event["input_cached_tokens"], event["output_tokens"]) == (15, 5, 3)
    assert event["model"] == OWN


def test_a_total_without_the_cache_says_that_somebody_added_it_already() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": 5, "total_tokens": 13}
    (event,) = SOURCES["openai"].events(CHAT | {"usage": usage}, NO_OPTIONS)
    assert (event["input_tokens"], event["input_cached_tokens"]) == (10, 5)


BATCH: Event = {"object": "batch", "id": "batch_1", "created_at": T, "model": "gpt-5"}
CHUNK: Event = {"object": "chat.completion.chunk", "id": "c", "created": T, "model": "m"}
USED: Event = {"usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}
GOING: Event = {"choices": [{"index": 0, "finish_reason": None}]}
ENDED: Event = {"choices": [{"index": 0, "finish_reason": "stop"}]}
NOT_ANSWERS: dict[str, tuple[str, Event, str]] = {
    "a finished batch": ("openai", BATCH | USED | {"status": "completed"}, "rejected"),
    "a batch that goes on": ("openai", BATCH | {"status": "in_progress", "usage": None}, "nothing"),
    "a batch that goes on, without counts": (
        "openai",
        BATCH | {"status": "validating", "usage": {}},
        "nothing",
    ),
    "a chunk on the way": ("openai", CHUNK | GOING, "nothing"),
    "a chunk on the way with counts": ("openai", CHUNK | GOING | USED, "rejected"),
    "the chunk of the usage": ("openai", CHUNK | {"choices": []} | USED, "counted"),
    "a last chunk with counts": ("openai", CHUNK | ENDED | USED, "counted"),
    "a last chunk before that of the usage": ("openai", CHUNK | ENDED | {"usage": None}, "nothing"),
    "a last chunk of a stream that has no usage": ("openai", CHUNK | ENDED, "rejected"),
    "a response that goes on": (
        "openai",
        {"object": "response", "id": "r", "created_at": T, "status": "in_progress", "usage": None},
        "nothing",
    ),
    "a response that goes on, with counts": (
        "openai",
        {"object": "response", "id": "r", "created_at": T, "status": "in_progress"} | USED,
        "rejected",
    ),
    "a piece of a stream of responses": (
        "openai",
        {"type": "response.created", "response": {"object": "response", "status": "in_progress"}},
        "nothing",
    ),
    "the end of a stream of responses": (
        "openai",
        {"type": "response.completed", "response": {"object": "response", "id": "r", "created_at": T} | USED},
        "counted",
    ),
    "a finished run": (
        "openai",
        {"object": "thread.run", "id": "run_1", "created_at": T, "status": "completed", "model": "m"} | USED,
        "counted",
    ),
    "a run that goes on": (
        "openai",
        {"object": "thread.run", "id": "run_1", "created_at": T, "status": "in_progress", "usage": None},
        "nothing",
    ),
    "a step of a run": ("openai", {"object": "thread.run.step", "id": "s", "created_at": T} | USED, "rejected"),
    "a list of files": ("openai", {"object": "list", "data": [{"object": "file", "id": "f"}]}, "rejected"),
    "a list of models": ("openai", {"object": "list", "data": [{"object": "model", "id": "m"}]}, "rejected"),
    "a list of Anthropic's": ("openai", {"data": [{"type": "model"}], "has_more": False}, "rejected"),
    "an error": ("openai", {"error": {"message": "no", "type": "server_error"}}, "nothing"),
    "a first event of Anthropic's stream": ("anthropic", {"type": "message_start", "message": message()}, "rejected"),
    "a last event of Anthropic's stream": ("anthropic", {"type": "message_delta"} | USED, "rejected"),
    "a piece of Anthropic's stream": ("anthropic", {"type": "content_block_delta", "index": 0}, "nothing"),
    "an error of Anthropic's": ("anthropic", {"type": "error", "error": {"type": "overloaded_error"}}, "nothing"),
    "an answer of OpenAI's": ("anthropic", CHAT | USED, "rejected"),
    "a line of a batch that failed": (
        "openai",
        {"custom_id": "a", "result": {"type": "errored", "error": {}}},
        "nothing",
    ),
}


@pytest.mark.parametrize(("source", "record", "outcome"), NOT_ANSWERS.values(), ids=NOT_ANSWERS)
def test_what_is_not_a_finished_answer_is_refused_if_it_carries_counts(
    source: str, record: Event, outcome: str
) -> None:
    try:
        found = "counted" if SOURCES[source].events(record, NO_OPTIONS) else "nothing"
    except FaultyRecord:
        found = "rejected"
    assert found == outcome


COSTS: list[tuple[Event, str | None]] = [
    ({"cost": 0.00123, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}, "0.00123"),
    ({"cost": 0.00123, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.00123}}, "0.00123"),
    ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02895}}, "0.02895"),
    ({"cost": 0.0015, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.03}}, "0.0315"),
    ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, "19.95"),
    ({"cost": 0.00123, "cost_details": {"upstream_inference_cost": 0.00123}}, "0.00123"),
    ({"cost_in_usd_ticks": 37_756_000}, "0.0037756"),
    ({"cost": {"input_tokens_cost": 0.1, "total_cost": 0.3}}, "0.3"),
    ({"estimated_cost": 0.0000268}, "0.0000268"),
    ({"cost": "free"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("usage", "amount"), COSTS)
def test_what_a_provider_says_a_call_cost_is_taken_if_the_operator_says_so(usage: Event, amount: str | None) -> None:
    assert all("cost" not in event for event in SOURCES["openai"].events(chat(**usage), NO_OPTIONS))
    (event,) = SOURCES["openai"].events(chat(**usage), Options(takes_costs=True))
    assert (event["cost"]["value"] if "cost" in event else None) == (amount and Decimal(amount))


def image(**usage: Any) -> Event:
    return {"created": T, "data": [{}, {}], "model": "gpt-image-1", "size": "1024x1024", "usage": usage}


def test_pictures_that_are_billed_by_tokens_are_charged_by_them_alone() -> None:
    used = {
        "input_tokens": 3344,
        "output_tokens": 1056,
        "input_tokens_details": {"text_tokens": 144, "image_tokens": 3200},
    }
    pictures, tokens = SOURCES["openai"].events(image(**used), NO_OPTIONS)
    assert (pictures["kind"], pictures["images"], pictures["quality"]) == ("images", 2, "tokens")
    assert (tokens["kind"], tokens["input_tokens"], tokens["input_image_tokens"]) == ("completions", 3344, 3200)
    assert (tokens["output_tokens"], tokens["output_image_tokens"]) == (1056, 1056)


def test_the_tokens_of_pictures_drawn_in_a_response_are_charged_once() -> None:
    drawn = {"type": "image_generation_call", "status": "completed", "quality": "high"}
    used = {"input_tokens": 20, "output_tokens": 30, "input_tokens_details": {"text_tokens": 20, "image_tokens": 0}}
    answer = {
        "object": "response",
        "id": "r",
        "created_at": T,
        "model": "gpt-5",
        "output": [drawn | {"id": "ig_1"}, drawn | {"id": "ig_2"}],
        "tools": [{"type": "image_generation", "model": "gpt-image-1"}],
        "tool_usage": {"image_gen": used, "new_tool": {"num_requests": 1}},
        "usage": {"input_tokens": 5, "output_tokens": 1},
    }
    options = Options()
    own, first, second, tokens = SOURCES["openai"].events(answer, options)
    assert (own["id"], own["input_tokens"], own["model"]) == ("r", 5, "gpt-5")
    assert [(each["kind"], each["id"], each["quality"]) for each in (first, second)] == [
        ("images", "ig_1", "tokens"),
        ("images", "ig_2", "tokens"),
    ]
    assert (tokens["id"], tokens["model"], tokens["input_tokens"]) == ("r#image_generation", "gpt-image-1", 20)
    assert tokens["output_image_tokens"] == 30
    assert dict(options.unread) == {"tool_usage.new_tool.num_requests": 1}


@pytest.mark.parametrize("usage", [{}, {"generated_images": 2, "output_tokens": 4096}])
def test_other_pictures_are_charged_as_pictures(usage: Event) -> None:
    (event,) = SOURCES["openai"].events(image(**usage), NO_OPTIONS)
    assert (event["kind"], event["images"], event.get("quality")) == ("images", 2, None)


def call(**fields: Any) -> Event:
    return {"id": "c", "call_type": "acompletion", "status": "success", "model": "m", "endTime": T} | fields


FAILED: Event = {"status": "failure", "metadata": {"usage_object": None}}
PARTIAL: Event = {"status": "failure", "metadata": {"usage_object": {"prompt_tokens": 9, "completion_tokens": 4}}}
CALLS: dict[str, tuple[Event, str, str]] = {
    # what was reported; with costs taken; without
    "OCR": (call(call_type="aocr", response_cost=0.012), "0.012", "rejected"),
    "a reranker": (call(call_type="rerank", response_cost=0.002), "0.002", "rejected"),
    "a video": (call(call_type="acreate_video", response_cost=1.5), "1.5", "rejected"),
    "a search": (call(call_type="asearch", response_cost="0.005"), "0.005", "rejected"),
    "a type of call to come": (call(call_type="adream", response_cost=0.5), "0.5", "rejected"),
    "a list of files": (call(call_type="afile_list", response_cost=0), "nothing", "nothing"),
    "no cost at all": (call(call_type="afile_list"), "nothing", "nothing"),
    "a failed call": (call(**FAILED, response_cost=0, prompt_tokens=9), "nothing", "nothing"),
    "a failed call that cost something": (call(**FAILED, response_cost=0.1), "0.1", "rejected"),
    "a failed call with partial usage": (call(**PARTIAL, response_cost=0.1), "0.1", "counted"),
    "a failed picture that cost something": (
        call(**FAILED, call_type="aimage_generation", response_cost=0.04),
        "0.04",
        "rejected",
    ),
}


@pytest.mark.parametrize(("record", "taken", "not_taken"), CALLS.values(), ids=CALLS)
def test_a_call_that_cost_something_is_never_ignored(record: Event, taken: str, not_taken: str) -> None:
    outcomes = []
    for options in (Options(takes_costs=True), NO_OPTIONS):
        try:
            events = SOURCES["litellm"].events(record, options)
        except FaultyRecord as error:
            outcomes.append("rejected" if "--reported-costs" in str(error) else str(error))
            continue
        told = events[0].get("cost") if events else None
        outcomes.append("nothing" if not events else "counted" if told is None else f"{told['value'].normalize():f}")
    assert outcomes == [taken, not_taken]


def test_what_a_reranker_used_without_a_cost_is_reported_as_unread() -> None:
    record = call(call_type="arerank", response={"meta": {"billed_units": {"search_units": 1}}})
    assert unread("litellm", record) == {"response.meta.billed_units.search_units": 1}


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("openrouter/anthropic/claude-x", "openrouter", "openrouter/anthropic/claude-x"),
        ("groq/llama-3.3-70b-versatile", "groq", "groq/llama-3.3-70b-versatile"),
        ("openai/gpt-4o-mini", None, "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini", "azure", "openai/gpt-4o-mini"),
    ],
)
def test_the_maker_before_a_model_is_not_part_of_its_name(model: str, provider: str | None, name: str) -> None:
    record = litellm() | {"model": model, "custom_llm_provider": provider}
    assert SOURCES["litellm"].events(record, NO_OPTIONS)[0]["model"] == name


@pytest.mark.parametrize("source", ["openai", "anthropic", "litellm"])
@pytest.mark.parametrize("length", [1, 256, 257, 441])
def test_a_long_id_is_an_id(source: str, length: int) -> None:
    (event,) = SOURCES[source].events(MAKE[source]() | {"id": "i" * length}, NO_OPTIONS)
    assert event["id"] == call_id("i" * length)
    assert len(event["id"]) <= 256


@pytest.mark.parametrize("text", ["chatcmpl-7", "chatcmpl-998", "cmpl-12", "resp_123456", "chatcmpl-A1", "", " ", "0"])
def test_ids_of_servers_that_use_them_again_are_known(text: str) -> None:
    assert not is_unique_id(text)


@pytest.mark.parametrize("text", ["chatcmpl-1793059200", "chatcmpl-Abc123", "msg_01", "gen-1-a", "0193-0"])
def test_other_ids_are_unique(text: str) -> None:
    assert is_unique_id(text)


SPLITS = [
    (4000, 3000, 1000, (3000, 1000)),
    (4000, 100, 0, (4000, 0)),
    (4000, 0, 1000, (3000, 1000)),
    (4000, 3000, 2000, None),
]


@pytest.mark.parametrize(("whole", "short", "long", "split"), SPLITS)
@pytest.mark.parametrize("source", ["openai", "openai, ttl", "anthropic", "litellm"])
def test_a_split_of_a_cache_write_may_fall_short_and_not_exceed_it(
    source: str, whole: int, short: int, long: int, split: tuple[int, int] | None
) -> None:
    periods = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    record = {
        "openai": chat(
            prompt_tokens=9000, prompt_tokens_details={"cache_write_tokens": whole, "cache_creation": periods}
        ),
        "openai, ttl": chat(
            prompt_tokens=9000,
            prompt_tokens_details={
                "cache_write_tokens": whole,
                "cache_write_tokens_details": {"ttl_30m_tokens": short, "ttl_12h_tokens": long},
            },
        ),
        "anthropic": {"response": message(cache_creation_input_tokens=whole, cache_creation=periods), "timestamp": T},
        "litellm": litellm(
            prompt_tokens=9000,
            cache_creation_input_tokens=whole,
            prompt_tokens_details={"cache_creation_token_details": periods},
        ),
    }[source]
    found = read_record(SOURCES[source.partition(",")[0]], NO_OPTIONS, json.dumps(record).encode(), (T + 60) * 1000)
    if split is None:
        assert found[0].field == "input_cache_write_tokens"  # type: ignore[union-attr]
        return
    names = found[0].kind.measures  # type: ignore[union-attr]
    measures = dict(zip(names, found[0].measures, strict=True))  # type: ignore[union-attr]
    assert (measures["input_cache_write_30m_tokens"], measures["input_cache_write_12h_tokens"]) == split
