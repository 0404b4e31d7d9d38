"""Spans of one call: in one line, beside each other, in one request or several; and counts under names nobody knows."""

import json
from itertools import permutations
from typing import Any

import pytest

from tallybook.ingest.decode import Decoded
from tallybook.ingest.otlp import Limits, decode_metrics, decode_traces
from tallybook.sources.record import Event, FaultyRecord, Options
from tallybook.sources.table import SOURCES
from tests.otlp_shaped import END_NS, Json, counter, in_protobuf, metrics, point, span, traces

LIMITS = Limits(END_NS // 1_000_000 + 1_000, 100_000)
MODEL: Json = {"gen_ai.request.model": "gpt-4o"}
CHAT: Json = {"gen_ai.operation.name": "chat", **MODEL}
USAGE: Json = {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2}
CALL = CHAT | USAGE
OTHER = CALL | {"gen_ai.request.model": "gpt-4o-2024-08-06"}
AGENT: Json = {"openinference.span.kind": "AGENT", "llm.model_name": "gpt-4o"}
AGENT |= {"llm.token_count.prompt": 9, "llm.token_count.completion": 2}
LLM = AGENT | {"openinference.span.kind": "LLM"}
STEP: Json = {"app.step": "1"}


def named(name: str, values: Json = CALL) -> Json:
    return values | {"gen_ai.response.id": name}


def tree(*levels: tuple[int, Json], **fields: Any) -> list[Json]:
    """Spans by the place of the one above, counted from 1; 0 for none."""
    return [
        span(values, spanId=f"{at + 1:016x}", parentSpanId=f"{above:016x}" if above else "", **fields)
        for at, (above, values) in enumerate(levels)
    ]


def decoded(body: Json, options: Options | None = None, *, is_json: bool = True) -> Decoded:
    content = json.dumps(body).encode() if is_json else in_protobuf(body)
    return decode_traces(content, options or Options(), LIMITS, is_json=is_json)


def ids(found: Decoded) -> list[str]:
    return sorted(
        str(record.id).removeprefix("5b8efff798038103d269b633813fc60c-").lstrip("0") for record in found.records
    )


LINES: dict[str, tuple[list[tuple[int, Json]], list[str]]] = {
    "an outer span without an id, an inner with one": ([(0, CALL), (1, named("a"))], ["a"]),
    "an outer span with an id, an inner without": ([(0, named("a")), (1, CALL)], ["a"]),
    "the same, with other names of the model": ([(0, named("a")), (1, OTHER)], ["a"]),
    "several levels between": ([(0, named("a")), (1, STEP), (2, STEP), (3, CALL)], ["a"]),
    "three reports of one call": ([(0, CALL), (1, named("a")), (2, CALL)], ["a"]),
    "two without an id above one with": ([(0, CALL), (1, CALL), (2, named("a"))], ["a"]),
    "one id twice: the inner one stands": ([(0, named("a")), (1, named("a"))], ["a"]),
    "two ids": ([(0, named("a")), (1, named("b"))], ["a", "b"]),
    "two ids and one without": ([(0, named("a")), (1, named("b")), (2, CALL)], ["a", "b"]),
    "one id above two calls alike: it is one of them": ([(0, named("a")), (1, CALL), (1, CALL)], ["3", "a"]),
    "siblings without ids": ([(0, STEP), (1, CALL), (1, CALL)], ["2", "3"]),
    "a span without tokens above": ([(0, CHAT), (1, named("a"))], ["a"]),
    "a span without tokens above, some levels": ([(0, CHAT), (1, STEP), (2, named("a"))], ["a"]),
    "a span without tokens below": ([(0, named("a")), (1, CHAT)], ["a"]),
    "a span without tokens that names the answer": ([(0, named("a")), (0, named("a", CHAT))], ["a"]),
    "an unknown operation with the total": (
        [(0, CALL | {"gen_ai.operation.name": "converse"}), (1, named("a"))],
        ["a"],
    ),
    "an unknown total above a call": ([(0, MODEL | {"my.tokens": 9}), (1, named("a"))], ["a"]),
    "an agent that is all there is": ([(0, AGENT), (1, STEP)], ["1"]),
    "an agent above its calls": ([(0, AGENT), (1, LLM), (1, LLM)], ["2", "3"]),
    "a chain above an agent that is all there is": (
        [(0, AGENT | {"openinference.span.kind": "CHAIN"}), (1, AGENT)],
        ["2"],
    ),
}


@pytest.mark.parametrize(("levels", "expected"), LINES.values(), ids=LINES)
@pytest.mark.parametrize("is_json", [True, False])
def test_spans_of_one_line_are_one_call_in_whatever_order(
    levels: list[tuple[int, Json]], expected: list[str], is_json: bool
) -> None:
    for spans in permutations(tree(*levels)):
        found = decoded(traces(*spans), is_json=is_json)
        assert len(found.records) == len(expected)
        assert {*ids(found)} <= {*expected, "2"}
        assert found.ignored + len(found.records) == len(levels)
        assert found.rejected == []


@pytest.mark.parametrize("ends", [-(10**9), 0, 3_000_000, 10**9])
def test_it_does_not_matter_when_they_end(ends: int) -> None:
    outer, inner = tree((0, CALL), (1, named("a")))
    found = decoded(traces(outer | {"endTimeUnixNano": str(END_NS + ends)}, inner))
    assert ids(found) == ["a"]


SEVERAL: dict[str, tuple[list[tuple[int, Json]], int]] = {
    "an empty span above a call": ([(0, CHAT), (1, CALL)], 1),
    "an empty span some levels above": ([(0, CHAT), (1, STEP), (2, CALL)], 1),
    "an agent's total": ([(0, AGENT), (1, STEP), (2, LLM)], 1),
    "an agent that is all there is": ([(0, AGENT), (1, STEP)], 1),
}


@pytest.mark.parametrize(("levels", "expected"), SEVERAL.values(), ids=SEVERAL)
def test_what_was_counted_in_an_earlier_request_is_known(levels: list[tuple[int, Json]], expected: int) -> None:
    options = Options(owner="org_a")
    found = [decoded(traces(one), options) for one in reversed(tree(*levels))]
    assert sum(len(each.records) for each in found) == expected
    assert [each.rejected for each in found if each.rejected] == []


MORE = CALL | {"gen_ai.usage.output_tokens": 3}
ALONE: dict[str, tuple[list[tuple[int, Json]], int]] = {
    "an outer span without an id, an inner with one": ([(0, CALL), (1, named("a"))], 1),
    "an outer span with an id, an inner without": ([(0, named("a")), (1, CALL)], 1),
    "neither has an id": ([(0, CALL), (1, CALL)], 1),
    "three reports of one call": ([(0, CALL), (1, CALL), (2, named("a"))], 1),
    "other names of the model": ([(0, CALL), (1, named("a", OTHER))], 1),
    "two ids": ([(0, named("a")), (1, named("b"))], 2),
    "other tokens": ([(0, MORE), (1, named("a"))], 2),
    "one id above two calls alike: it is one of them": ([(0, named("a")), (1, CALL), (1, CALL)], 2),
    "siblings": ([(0, STEP), (1, CALL), (1, named("a"))], 2),
}


@pytest.mark.parametrize(("levels", "expected"), ALONE.values(), ids=ALONE)
@pytest.mark.parametrize("is_inner_first", [True, False])
@pytest.mark.parametrize("times", [1, 2])
def test_spans_of_one_line_are_one_call_in_requests_of_their_own(
    levels: list[tuple[int, Json]], expected: int, is_inner_first: bool, times: int
) -> None:
    options = Options(owner="org_a")
    spans = tree(*levels)
    spans = spans[::-1] if is_inner_first else spans
    found = [decoded(traces(one), options) for one in spans for _ in range(times)]
    assert len({name for each in found for name in ids(each)}) == expected
    assert len([each for each in found if each.records]) == expected * times


def test_a_span_between_two_requests_carries_what_is_below_it() -> None:
    options = Options(owner="org_a")
    outer, step, inner = tree((0, CALL), (1, STEP), (2, named("a")))
    assert len(decoded(traces(inner), options).records) == 1
    assert decoded(traces(outer, step), options).records == []


def test_what_another_organization_counted_is_not() -> None:
    outer, inner = tree((0, CHAT), (1, CALL))
    first, second = Options(owner="org_a"), Options(owner="org_b")
    second = Options(above=first.above, owner="org_b")
    assert len(decoded(traces(inner), first).records) == 1
    assert len(decoded(traces(outer), second).rejected) == 1


def test_the_first_span_of_a_stream_of_logfire_is_passed_over_once() -> None:
    first = tree((9, CHAT), (9, CHAT))
    later = span(CALL, name="streaming response from 'gpt-4o' took 0.5s", parentSpanId=f"{9:016x}", spanId="a" * 16)
    found = decoded(traces(*first, later))
    assert (len(found.records), found.ignored, len(found.rejected)) == (1, 1, 1)


def scoped(*parts: tuple[str, Json]) -> Json:
    bodies = [traces(one, scope=scope)["resourceSpans"][0] for scope, one in parts]
    return {"resourceSpans": bodies}


@pytest.mark.parametrize(
    ("second", "fields", "scope", "expected"),
    [
        (CALL, {}, "b", {"a | b": 1}),
        (named("x"), {"endTimeUnixNano": str(END_NS + 50_000_000)}, "b", {"a | b": 1}),
        (CALL, {"endTimeUnixNano": str(END_NS + 51_000_000)}, "b", {}),
        (CALL, {}, "a", {}),
        (CALL | {"gen_ai.usage.input_tokens": 10}, {}, "b", {}),
        (OTHER, {}, "b", {}),
    ],
)
def test_reports_that_look_like_one_call_are_told(second: Json, fields: Json, scope: str, expected: Json) -> None:
    other = span(second, spanId="2" * 16, traceId="2" * 32, **fields)
    found = decoded(scoped(("a", span(CALL)), (scope, other)))
    assert len(found.records) == 2
    assert found.alike == expected


def test_two_ids_never_look_like_one_call() -> None:
    found = decoded(scoped(("a", span(named("x"))), ("b", span(named("y"), spanId="2" * 16))))
    assert (len(found.records), found.alike) == (2, {})


# counts under names nobody knows


@pytest.mark.parametrize(
    ("values", "unread"),
    [
        ({"gen_ai.usage.tool_tokens": 3}, {"gen_ai.usage.tool_tokens": 1}),
        ({"gen_ai.usage.details.image_tokens": "3"}, {"gen_ai.usage.details.image_tokens": 1}),
        ({"llm.token_count.prompt_details.video": 3, "ai.usage.videoTokens": 2.0}, {"ai.usage.videoTokens": 1}),
        ({"gen_ai.usage.tool_tokens": 0}, {}),
        ({"gen_ai.usage.tool_tokens": "many, and a secret"}, {}),
        ({"gen_ai.request.max_tokens": 512, "gen_ai.usage.details.thoughts_tokens": 1, "x.total_tokens": 11}, {}),
        ({"ai.usage.inputTokenDetails.noCacheTokens": 5, "tokens_per_second": 50.5, "access_token": "1"}, {}),
    ],
)
@pytest.mark.parametrize("is_json", [True, False])
def test_counts_of_a_call_that_nobody_reads_are_told(values: Json, unread: Json, is_json: bool) -> None:
    found = decoded(traces(span(CALL | values)), is_json=is_json)
    assert len(found.records) == 1
    assert {name: found.unread[name] for name in unread} == unread
    assert not {name for name in found.unread if name not in unread and "video" not in name}


UNKNOWN: dict[str, Json] = {
    "bare counts and a model": {"model": "gpt-4o", "input_tokens": 9, "output_tokens": 2},
    "counts as text": {"llm.model": "gpt-4o", "llm.tokens.in": "9"},
    "in camel case": {"modelId": "gpt-4o", "promptTokens": 9},
    "known counts, an unknown name of the model": {"app.model_name": "gpt-4o"} | USAGE,
    "an operation, and counts nobody knows": CHAT | {"app.tokens.prompt": 9},
}


@pytest.mark.parametrize("values", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("is_json", [True, False])
def test_a_span_that_names_a_model_and_has_unknown_counts_is_rejected_and_kept(values: Json, is_json: bool) -> None:
    found = decoded(traces(span(values | {"gen_ai.input.messages": "secret"})), is_json=is_json)
    (rejected,) = found.rejected
    assert rejected.is_mendable
    assert b"secret" not in rejected.raw
    assert "stream_options" not in rejected.faults[0].message


@pytest.mark.parametrize(
    "values",
    [
        {"input_tokens": 9, "output_tokens": 2},
        {"model": "gpt-4o", "max_tokens": 9, "tokens": "a secret"},
        {"model": "gpt-4o", "input_tokens": 0},
        {"model": "gpt-5", "codex.turn.token_usage.input_tokens": 9},
        {"model_name": "gpt-4o", "all_messages_events": "[]"} | USAGE,
    ],
)
def test_counts_without_a_model_and_a_model_without_counts_are_passed_over(values: Json) -> None:
    found = decoded(traces(span(values)))
    assert (found.records, found.rejected, found.ignored) == ([], [], 1)


@pytest.mark.parametrize(
    "values", [{"model": "m", "type": "input"}, {"model_name": "m"}, {"gen_ai.request.model": "m"}]
)
@pytest.mark.parametrize("name", ["app.llm.tokens", "prompt_tokens", "my.token_count"])
def test_a_point_that_names_a_model_and_counts_tokens_is_rejected(name: str, values: Json) -> None:
    body = json.dumps(metrics(counter(name, point(values, asInt="9")))).encode()
    (rejected,) = decode_metrics(body, Options(), LIMITS, is_json=True).rejected
    assert rejected.faults[0].field == name


@pytest.mark.parametrize("name", ["gen_ai.server.time_per_output_token", "tokens_per_second", "app.requests"])
def test_points_of_other_metrics_are_passed_over(name: str) -> None:
    body = json.dumps(metrics(counter(name, point({"model": "m"}, asInt="9")))).encode()
    found = decode_metrics(body, Options(), LIMITS, is_json=True)
    assert (found.records, found.rejected) == ([], [])


def test_an_unknown_type_of_tokens_is_rejected() -> None:
    points = [point(MODEL | {"gen_ai.token.type": name}, asInt="9") for name in ("input", "video")]
    body = json.dumps(metrics(counter("gen_ai.client.token.usage", *points))).encode()
    found = decode_metrics(body, Options(), LIMITS, is_json=True)
    assert (found.records, found.rejected[0].faults[0].value) == ([], "video")


# calls that are not counted in tokens


@pytest.mark.parametrize("name", ["ImagesResponse", "Transcription", "ModerationCreateResponse", "Speech"])
def test_an_image_a_transcription_or_a_moderation_without_tokens_is_passed_over(name: str) -> None:
    found = decoded(traces(span({"openinference.span.kind": "LLM", "llm.system": "openai"}, name=name)))
    assert (found.records, found.rejected, found.ignored) == ([], [], 1)


@pytest.mark.parametrize(
    ("values", "is_of_stream"),
    [(CHAT, True), (CHAT | {"gen_ai.operation.name": "embeddings"}, False), (CHAT | {"x.tokens": 5}, False)],
)
def test_only_chats_are_told_of_streams(values: Json, is_of_stream: bool) -> None:
    (rejected,) = decoded(traces(span(values))).rejected
    assert ("stream_options" in rejected.faults[0].message) == is_of_stream


# other senders


def langfuse(usage: Json, role: str = "generation", **values: Any) -> list[Event]:
    observed = {"langfuse.observation.type": role, "langfuse.observation.model.name": "gpt-4o"}
    observed |= {"langfuse.observation.usage_details": json.dumps(usage)}
    return SOURCES["otlp"].events(traces(span(observed | values)), Options(takes_costs=True))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
            {"input_tokens": 9, "input_cached_tokens": 4, "output_tokens": 2},
        ),
        (
            {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
            {"input_tokens": 9, "input_cached_tokens": 4, "output_tokens": 2},
        ),
        (
            {"input_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3, "output_tokens": 2},
            {"input_tokens": 9, "input_cached_tokens": 4, "input_cache_write_tokens": 3, "output_tokens": 2},
        ),
        (
            {
                "input": 2,
                "input_cache_read": 4,
                "input_cache_creation": 3,
                "output": 1,
                "output_reasoning": 1,
                "total": 11,
            },
            {"input_tokens": 9, "input_cached_tokens": 4, "input_cache_write_tokens": 3, "output_tokens": 2},
        ),
        (
            {"input": 9, "input_cached_tokens": 4, "output": 2, "total": 11},
            {"input_tokens": 9, "input_cached_tokens": 4, "output_tokens": 2},
        ),
        (
            {"input": 5, "input_audio": 4, "output": 1, "output_audio_tokens": 1},
            {"input_tokens": 9, "input_audio_tokens": 4, "output_tokens": 2, "output_audio_tokens": 1},
        ),
        # Both kinds of names, and spellings of other languages.
        (
            {"input": 2, "output": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3},
            {"input_tokens": 9, "input_cached_tokens": 4, "input_cache_write_tokens": 3, "output_tokens": 2},
        ),
        (
            {"input": 9, "output": 2, "cache_read_input_tokens": 4, "total": 11},
            {"input_tokens": 9, "input_cached_tokens": 4, "output_tokens": 2},
        ),
        (
            {"input": 2, "output": 2, "cache_read": 4, "cache_creation": 3},
            {"input_tokens": 9, "input_cached_tokens": 4, "input_cache_write_tokens": 3, "output_tokens": 2},
        ),
        (
            {"input": 2, "input_cache_creation_1h": 7, "output": 2},
            {
                "input_tokens": 9,
                "input_cache_write_tokens": 7,
                "input_cache_write_12h_tokens": 7,
                "output_tokens": 2,
            },
        ),
        ({"promptTokens": 9, "completionTokens": 2, "totalTokens": 11}, {"input_tokens": 9, "output_tokens": 2}),
        ({"inputTokens": 9, "outputTokens": 2}, {"input_tokens": 9, "output_tokens": 2}),
        ({"prompt_tokens": 9, "output": 2}, {"input_tokens": 9, "output_tokens": 2}),
        ({"input": 9, "completion_tokens": 2, "total_tokens": 11}, {"input_tokens": 9, "output_tokens": 2}),
        ({"input": 9, "output": 2, "output_tokens": 2}, {"input_tokens": 9, "output_tokens": 2}),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "cache_read_input_tokens": 4},
            {"input_tokens": 9, "input_cached_tokens": 4, "output_tokens": 2},
        ),
    ],
)
def test_a_generation_of_langfuse_is_counted(usage: Json, expected: Json) -> None:
    (event,) = langfuse(usage, **{"langfuse.observation.cost_details": '{"input": 0.25, "output": 0.5}'})
    measured = {name: event[name] for name in event if name.endswith("_tokens") and event[name]}
    assert (event["kind"], event["model"], measured) == ("completions", "gpt-4o", expected)
    assert float(event["cost"]["value"]) == 0.75


def test_other_observations_of_langfuse() -> None:
    assert langfuse({"input": 9}, "embedding")[0]["kind"] == "embeddings"
    assert langfuse({"input": 9}, "agent")[0]["kind"] == "completions"
    assert langfuse({"input": 0}) == []


@pytest.mark.parametrize("usage", [{"tokens_in": 9}, {"total": 9}, {"a": {"b": 1}}])
@pytest.mark.parametrize("role", ["generation", "embedding", "agent"])
def test_counts_of_langfuse_that_nobody_knows_are_rejected(usage: Json, role: str) -> None:
    with pytest.raises(FaultyRecord, match=r"not known|integer"):
        langfuse(usage, role)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"gen_ai.response.input_tokens": 9, "gen_ai.response.output_tokens": 2}, {}),
        ({"ai.usage.inputTokens": 9, "ai.usage.outputTokens": 2, "ai.operationId": "ai.streamText.doStream"}, {}),
        ({"ai.usage.promptTokens": 9, "ai.usage.completionTokens": 2}, {}),
        (
            USAGE | {"gen_ai.usage.input_audio_tokens": 5, "gen_ai.usage.input_cached_tokens": 3},
            {"input_audio_tokens": 5, "input_cached_tokens": 3},
        ),
    ],
)
def test_names_of_before_are_counted(values: Json, expected: Json) -> None:
    (event,) = SOURCES["otlp"].events(traces(span(CHAT | values)), Options())
    expected = expected | {"input_tokens": 9, "output_tokens": 2}
    assert {name: event.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"gen_ai.usage.cost.amount": 0.25}, 0.25),
        ({"gen_ai.usage.cost.amount": 0.25, "gen_ai.usage.cost.currency": "USD"}, 0.25),
        ({"gen_ai.usage.cost.amount": 0.25, "gen_ai.usage.cost.currency": "EUR"}, None),
        ({"gen_ai.cost.total_cost": 0.25, "gen_ai.cost.input_cost": 0.125}, 0.25),
    ],
)
def test_costs_under_other_names(values: Json, expected: float | None) -> None:
    (event,) = SOURCES["otlp"].events(traces(span(CALL | values)), Options(takes_costs=True))
    assert (float(event["cost"]["value"]) if "cost" in event else None) == expected
