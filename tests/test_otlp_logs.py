"""Log records, and coding agents in every signal: what is counted once, what is rejected, what is passed over."""

import json
from collections.abc import Callable

import pytest

from tallybook.errors import InvalidRequest
from tallybook.ingest.decode import Decoded, read_record
from tallybook.ingest.otlp import Limits, decode_logs, decode_metrics, decode_traces
from tallybook.sources.record import Event, Options
from tallybook.sources.table import SOURCES
from tests.otlp_shaped import (
    END_NS,
    SERVICE,
    SPAN_END,
    SPAN_ID,
    TRACE_ID,
    Json,
    counter,
    in_protobuf,
    log,
    logs,
    metrics,
    point,
    span,
    traces,
)

NOW_MS = END_NS // 1_000_000 + 1_000
LIMITS = Limits(NOW_MS, 100_000)
ATTRIBUTES = {"project_id": ("service.name",), "user_id": ("user.id",)}
ENCODINGS = pytest.mark.parametrize("is_json", [True, False])

CLAUDE_COUNTS: Json = {"input_tokens": 838, "output_tokens": 813, "cache_read_tokens": 200, "cache_creation_tokens": 60}
CLAUDE: Json = {"model": "claude-sonnet-4-5", "session.id": "s1", "user.id": "u1", "speed": "normal", **CLAUDE_COUNTS}
REQUEST: Json = CLAUDE | {"event.name": "api_request", "event.sequence": 1, "cost_usd": 0.015}
CLAUDE_USED: Json = {
    "input_tokens": 1098,
    "input_cached_tokens": 200,
    "input_cache_write_tokens": 60,
    "output_tokens": 813,
}
CODEX: Json = {
    "event.name": "codex.sse_event",
    "event.kind": "response.completed",
    "event.timestamp": "2025-11-22T08:26:40.250Z",
    "conversation.id": "c1",
    "model": "gpt-5.1-codex",
    "auth_mode": "ApiKey",
    "input_token_count": "9000",
    "output_token_count": "400",
    "cached_token_count": 8000,
    "reasoning_token_count": 300,
    "tool_token_count": "9400",
}
CODEX_USED: Json = {"input_tokens": 9000, "input_cached_tokens": 8000, "output_tokens": 400}
GEMINI: Json = {
    "event.name": "gemini_cli.api_response",
    "event.timestamp": "2025-11-22T08:26:40.250Z",
    "session.id": "s1",
    "installation.id": "i1",
    "auth_type": "gemini-api-key",
    "model": "gemini-2.5-flash",
    "input_token_count": 1041,
    "output_token_count": 941,
    "cached_content_token_count": 50,
    "thoughts_token_count": 15,
    "tool_token_count": 7,
    "total_token_count": 2004,
}
GEMINI_USED: Json = {"input_tokens": 1048, "input_cached_tokens": 50, "output_tokens": 956}
DETAILS: Json = {
    "event.name": "gen_ai.client.inference.operation.details",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.usage.output_tokens": 2,
}
BOTH: Json = {"input_tokens": 9, "output_tokens": 2}

COUNTED: dict[str, tuple[Json, Json]] = {
    "Claude Code": (REQUEST, CLAUDE_USED | {"model": "claude-sonnet-4-5", "user_id": "u1", "project_id": "search"}),
    "Claude Code, counts as text": (
        REQUEST | {name: str(count) for name, count in CLAUDE_COUNTS.items()},
        CLAUDE_USED,
    ),
    "Claude Code, fast": (REQUEST | {"speed": "fast"}, CLAUDE_USED | {"service_tier": "fast"}),
    "Claude Code, the request's id": (REQUEST | {"request_id": "req_1"}, CLAUDE_USED | {"id": "req_1"}),
    "Codex CLI": (CODEX, CODEX_USED | {"model": "gpt-5.1-codex", "service_tier": None}),
    "Codex CLI, signed in": (CODEX | {"auth_mode": "Chatgpt"}, CODEX_USED | {"service_tier": "subscription"}),
    "Gemini CLI": (GEMINI, GEMINI_USED | {"model": "gemini-2.5-flash", "service_tier": None}),
    "Gemini CLI, signed in": (
        GEMINI | {"auth_type": "oauth-personal"},
        GEMINI_USED | {"service_tier": "subscription"},
    ),
    "a program made from Gemini CLI, whose total has thoughts in the output": (
        GEMINI | {"event.name": "qwen-code.api_response", "total_token_count": 1982, "tool_token_count": 0},
        {"input_tokens": 1041, "input_cached_tokens": 50, "output_tokens": 941},
    ),
    "the convention's event": (DETAILS | {"gen_ai.response.id": "resp_1"}, BOTH | {"id": "resp_1"}),
    "the convention's attributes in another event": (
        DETAILS | {"event.name": "gen_ai.choice", "gen_ai.usage.reasoning.output_tokens": 1},
        BOTH,
    ),
}
IGNORED: dict[str, Json] = {
    "no attributes": {},
    "a log line": {"message": "done", "http.response.status_code": 200},
    "a prompt of Claude Code's": {"event.name": "user_prompt", "prompt_length": 8, "session.id": "s1"},
    "an answer of Claude Code's": {"event.name": "assistant_response", "model": "m", "response_length": 5},
    "an error of Claude Code's": {"event.name": "api_error", "model": "m", "status_code": 529, "attempt": 2},
    "a request that used nothing": REQUEST | dict.fromkeys(CLAUDE_COUNTS, 0),
    "another event of Codex CLI's stream": CODEX | {"event.kind": "response.created"},
    "a start of Codex CLI": {"event.name": "codex.conversation_starts", "model": "m", "context_window": 9}
    | {"auto_compact_token_limit": 5},
    "a request of Gemini CLI's": {"event.name": "gemini_cli.api_request", "model": "m", "prompt_id": "p"},
    "counts that name no model": {"event.name": "indexed", "input_tokens": 5000},
    "tokens that are no counts": {"event.name": "login", "model": "m", "access_token": "123", "token.type": "x"},
    "a model and settings": {"event.name": "config", "model": "m", "max_tokens": 512, "token_budget": 9},
}
REJECTED: dict[str, tuple[Json, str]] = {
    "counts under names nobody knows": (
        {"event.name": "done", "llm.model": "gpt-4o", "app.tokens_in": 9},
        "app.tokens_in",
    ),
    "known counts, and a model under a name nobody knows": (
        {"event.name": "done", "app.model": "gpt-4o", "gen_ai.usage.input_tokens": 9},
        "gen_ai.usage.input_tokens",
    ),
    "bare counts of another sender": ({"event.name": "done", "model": "m", "input_tokens": 9}, "input_tokens"),
    "the convention's event of a stream without usage": (
        {name: value for name, value in DETAILS.items() if "usage" not in name} | {"gen_ai.usage.foo_tokens": 3},
        "gen_ai.usage.foo_tokens",
    ),
    "a count below 0": (REQUEST | {"output_tokens": -1}, "output_tokens"),
    "more cached than read": (CODEX | {"cached_token_count": 9001}, "input_cached_tokens"),
}


def decoded(body: Json, *, is_json: bool = True, options: Options | None = None) -> Decoded:
    content = json.dumps(body).encode() if is_json else in_protobuf(body)
    return decode_logs(content, options or Options(attributes=ATTRIBUTES), LIMITS, is_json=is_json)


def events_of(body: Json, source: str = "otlp-logs", *, takes_costs: bool = False) -> list[Event]:
    return SOURCES[source].events(body, Options(takes_costs, ATTRIBUTES))


@pytest.mark.parametrize(("values", "expected"), COUNTED.values(), ids=COUNTED)
def test_an_event_of_a_call_is_counted(values: Json, expected: Json) -> None:
    (event,) = events_of(logs(log(values)))
    wanted = {"kind": "completions", "timestamp": SPAN_END} | expected
    measured = {name for name in event if name.endswith("tokens") and event[name] is not None}
    assert {name: event.get(name) for name in (*wanted, *measured)} == wanted


@pytest.mark.parametrize("values", [values for values, _ in COUNTED.values()], ids=COUNTED)
def test_both_encodings_are_the_same_event_each_time_it_is_sent(values: Json) -> None:
    in_json, protobuf = (decoded(logs(log(values)), is_json=is_json) for is_json in (True, False))
    assert in_json == protobuf
    assert (len(in_json.records), in_json.rejected) == (1, [])
    assert in_json.records[0].identity is not None


@pytest.mark.parametrize("values", [values for values, _ in COUNTED.values()], ids=COUNTED)
def test_two_requests_alike_are_two(values: Json) -> None:
    later = {"event.timestamp": "2025-11-22T08:26:41.250Z", "event.sequence": 2}
    if "gen_ai.usage.input_tokens" in values or "request_id" in values:
        later = {"gen_ai.response.id": "resp_2", "request_id": "req_2"}
    first, second = events_of(logs(log(values), log(values | later)))
    assert first["id"] != second["id"]


@pytest.mark.parametrize("values", IGNORED.values(), ids=IGNORED)
@ENCODINGS
def test_what_is_no_call_is_passed_over(values: Json, is_json: bool) -> None:
    assert decoded(logs(log(values)), is_json=is_json) == Decoded([], [], [], (), 1)


@pytest.mark.parametrize(("values", "field"), REJECTED.values(), ids=REJECTED)
@ENCODINGS
def test_what_is_not_understood_is_rejected_and_kept_by_itself(values: Json, field: str, is_json: bool) -> None:
    found = decoded(logs(log(REQUEST), log(values), log({})), is_json=is_json)
    assert (len(found.records), found.indexes, found.ignored) == (1, [0], 1)
    (rejected,) = found.rejected
    assert (rejected.index, rejected.faults[0].field) == (1, field)
    assert read_record(SOURCES["otlp-logs"], Options(attributes=ATTRIBUTES), rejected.raw, NOW_MS) == rejected.faults


@ENCODINGS
def test_bodies_prompts_and_answers_are_not_kept(is_json: bool) -> None:
    secrets = {"prompt": "secret", "gen_ai.input.messages": "secret", "response_text": "secret", "tokens": "secret"}
    (rejected,) = decoded(logs(log(REQUEST | {"output_tokens": -1} | secrets)), is_json=is_json).rejected
    assert b"secret" not in rejected.raw


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"resourceLogs":5}'])
def test_what_is_no_body_of_logs_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="ExportLogsServiceRequest in JSON"):
        decode_logs(body, Options(), LIMITS, is_json=True)


def test_the_name_of_an_event_may_be_a_field_of_its_own() -> None:
    unnamed = {name: value for name, value in CODEX.items() if name != "event.name"}
    assert events_of(logs(log(unnamed, eventName="codex.sse_event"))) == events_of(logs(log(CODEX)))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, SPAN_END),
        ({"timeUnixNano": "0"}, 1_763_800_000.25),
        ({"timeUnixNano": "0", "observedTimeUnixNano": str(END_NS + 10**9)}, 1_763_800_000.25),
    ],
)
def test_an_event_counts_when_it_happened(times: Json, expected: float) -> None:
    (event,) = events_of(logs(log(CODEX, **times)))
    assert event["timestamp"] == expected


def test_an_event_of_the_convention_is_the_call_of_its_span() -> None:
    place = {"traceId": TRACE_ID, "spanId": SPAN_ID}
    values = {name: value for name, value in DETAILS.items() if name != "event.name"}
    for answered in ({}, {"gen_ai.response.id": "resp_1"}):
        (of_log,) = events_of(logs(log(DETAILS | answered, **place)))
        (of_span,) = events_of(traces(span(values | answered)), "otlp")
        assert of_log == of_span


def test_the_two_records_of_a_request_of_gemini_cli_have_one_id() -> None:
    details = {name: value for name, value in GEMINI.items() if not name.endswith("count") and name != "model"}
    details |= DETAILS | {"gen_ai.response.id": "r1", "gen_ai.request.model": "gemini-2.5-flash"}
    details |= {"gen_ai.usage.input_tokens": 1041, "gen_ai.usage.output_tokens": 941}
    whole, part = events_of(logs(log(GEMINI), log(details), scope="gemini-cli"))
    assert (whole["id"], whole["input_tokens"]) == (part["id"], 1048)


def test_logs_and_spans_of_claude_code_name_the_same_request() -> None:
    named = CLAUDE | {"request_id": "req_1"}
    (of_log,) = events_of(logs(log(REQUEST | {"request_id": "req_1"})))
    request = span(named | {"span.type": "llm_request"}, name="claude_code.llm_request")
    (of_span,) = events_of(traces(request, scope="com.anthropic.claude_code.tracing"), "otlp")
    assert of_log["id"] == of_span["id"] == "req_1"
    assert {name: of_span[name] for name in CLAUDE_USED} == {name: of_log[name] for name in CLAUDE_USED} == CLAUDE_USED


# which signal counts

Decode = Callable[..., Decoded]


def claude_metrics(resource: Json) -> Json:
    values = {"model": "claude-sonnet-4-5", "session.id": "s1"}
    types = {"input": 838, "output": 813, "cacheRead": 200, "cacheCreation": 60}
    points = [point(values | {"type": name}, asDouble=float(count)) for name, count in types.items()]
    cost = counter("claude_code.cost.usage", point(values, asDouble=0.015))
    return metrics(counter("claude_code.token.usage", *points), cost, resource=resource)


SIGNALS: dict[str, tuple[Decode, Callable[[Json], Json]]] = {
    "logs": (decode_logs, lambda resource: logs(log(REQUEST), resource=resource)),
    "spans": (
        decode_traces,
        lambda resource: traces(span(CLAUDE, name="claude_code.llm_request"), resource=resource),
    ),
    "metrics": (decode_metrics, claude_metrics),
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("chosen", [None, *SIGNALS])
@ENCODINGS
def test_the_chosen_signal_of_an_agent_counts_and_metrics_only_if_chosen(
    signal: str, chosen: str | None, is_json: bool
) -> None:
    decode, made = SIGNALS[signal]
    body = made(SERVICE | ({"tallybook.signal": chosen} if chosen else {}))
    content = json.dumps(body).encode() if is_json else in_protobuf(body)
    found = decode(content, Options(), LIMITS, is_json=is_json)
    if chosen is None and signal == "metrics":
        assert found.records == []
        assert "send its logs to /v1/logs" in found.rejected[0].faults[0].message
        assert not any(rejected.is_mendable for rejected in found.rejected)
        assert found.unread == {"claude_code.token.usage": 1}
        return
    assert found.rejected == []
    assert len(found.records) == (chosen is None or chosen == signal)


@pytest.mark.parametrize(
    ("name", "key", "types", "expected"),
    [
        (
            "claude_code.token.usage",
            "type",
            {"input": 838, "output": 813, "cacheRead": 200, "cacheCreation": 60},
            CLAUDE_USED,
        ),
        (
            "codex.turn.token_usage",
            "token_type",
            {"input": 9000, "cached_input": 8000, "output": 400, "reasoning_output": 300, "total": 9400},
            CODEX_USED,
        ),
        (
            "gemini_cli.token.usage",
            "type",
            {"input": 1041, "output": 941, "cache": 50, "thought": 15, "tool": 7},
            GEMINI_USED,
        ),
    ],
)
def test_metrics_of_an_agent_say_what_its_logs_say(name: str, key: str, types: Json, expected: Json) -> None:
    points = [point({"model": "m", key: type_}, asInt=str(count)) for type_, count in types.items()]
    chosen = SERVICE | {"tallybook.signal": "metrics"}
    (event,) = events_of(metrics(counter(name, *points), resource=chosen), "otlp-metrics")
    measured = {name: event[name] for name in event if name.endswith("_tokens") and event[name] is not None}
    assert measured == expected
    assert (event["model"], event["num_model_requests"]) == ("m", 0)


# costs and subscriptions


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("tier", [None, "subscription"])
@pytest.mark.parametrize("takes_costs", [True, False])
def test_what_a_subscription_covers_has_no_cost_of_its_own(signal: str, tier: str | None, takes_costs: bool) -> None:
    source = {"logs": "otlp-logs", "spans": "otlp", "metrics": "otlp-metrics"}[signal]
    resource = SERVICE | {"tallybook.signal": signal} | ({"tallybook.service_tier": tier} if tier else {})
    (event,) = events_of(SIGNALS[signal][1](resource), source, takes_costs=takes_costs)
    assert event.get("service_tier") == tier
    is_told = takes_costs and tier is None and signal != "spans"
    assert (float(event["cost"]["value"]) if "cost" in event else None) == (0.015 if is_told else None)
