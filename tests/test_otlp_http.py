"""OTLP over HTTP: answers in its manner, stored once, nothing lost."""

import gzip
import json
from typing import Any

import httpx
import pytest
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.otlp_shaped import END_NS, Json, histogram, in_protobuf, log, logs, metrics, point, span, traces
from tests.support import Server

JSON, PROTOBUF = "application/json", "application/x-protobuf"
USAGE = "/v1/organization/usage"
CALL: Json = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
TOKENS: Json = {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2}
PLACES = pytest.mark.parametrize("media", [JSON, PROTOBUF])


def call(number: int, **fields: Any) -> Json:
    return span(CALL | TOKENS | {"gen_ai.response.id": f"resp_a{number}"} | fields)


def encoded(body: Json, media: str) -> bytes:
    return json.dumps(body).encode() if media == JSON else in_protobuf(body)


def post(api: httpx.Client, body: Json | bytes, media: str = JSON, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else encoded(body, media)
    return api.post("/v1/traces", content=content, headers={"content-type": media, **headers})


@PLACES
@pytest.mark.parametrize(
    ("path", "body", "items"),
    [
        ("/v1/logs", logs, ("rejectedLogRecords", "rejected_log_records")),
        ("/api/public/otel/v1/traces", traces, ("rejectedSpans", "rejected_spans")),
    ],
)
def test_other_addresses_answer_as_that_of_spans_does(
    api: httpx.Client, path: str, body: Any, items: tuple[str, str], media: str
) -> None:
    calls = [CALL | TOKENS | {"gen_ai.response.id": f"{path}-{number}"} for number in range(3)]
    bad = {"gen_ai.request.model": "gpt-4o", "app.tokens": 9}
    made = log if body is logs else span
    for _ in range(2):
        content = encoded(body(*map(made, [*calls, bad])), media)
        answer = api.post(path, content=content, headers={"content-type": media}).raise_for_status()
        if media == JSON:
            assert answer.json()["partialSuccess"][items[0]] == "1"
        else:
            response = ExportLogsServiceResponse if body is logs else ExportTraceServiceResponse
            success = response.FromString(answer.content).partial_success
            assert (getattr(success, items[1]), "app.tokens" in success.error_message) == (1, True)
    assert used(api) == 3
    (kept,) = api.get(f"{USAGE}/quarantine").json()["data"]
    assert kept["source"] == ("otlp-logs" if body is logs else "otlp")
    assert status(api.post(path, content=b"{", headers={"content-type": JSON}))[:2] == (400, Code.INVALID_ARGUMENT)


def test_a_log_record_in_quarantine_counts_once_it_is_mended(api: httpx.Client) -> None:
    bad = log({"event.name": "done", "llm.model": "gpt-4o", **TOKENS})
    api.post("/v1/logs", json=logs(bad)).raise_for_status()
    (kept,) = api.get(f"{USAGE}/quarantine").json()["data"]
    event = kept["event"]
    event["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"] += log(CALL)["attributes"]
    replayed = api.post(f"{USAGE}/quarantine/{kept['id']}/replay", json=event)
    assert (replayed.json()["accepted"], used(api)) == (1, 1)


def test_a_collectors_file_of_logs_is_taken(api: httpx.Client) -> None:
    lines = [logs(log(CALL | TOKENS | {"gen_ai.response.id": f"resp_{at}"}), log({})) for at in range(3)]
    content = "\n".join(map(json.dumps, lines))
    receipt = api.post(f"{USAGE}/events/otlp-logs", content=content).raise_for_status().json()
    assert (receipt["accepted"], receipt["ignored"], receipt["rejected"], used(api)) == (3, 3, 0, 3)


@pytest.mark.parametrize("first", ["spans", "logs"])
def test_of_a_session_without_request_ids_one_signal_counts(api: httpx.Client, first: str) -> None:
    counts = {"input_tokens": 5, "output_tokens": 2, "cache_read_tokens": 4}
    values = {"model": "claude-sonnet-4-5", "session.id": "s1", "event.name": "api_request"} | counts
    sent = {
        "spans": ("/v1/traces", traces(span(values, name="claude_code.llm_request"))),
        "logs": ("/v1/logs", logs(log(values))),
    }
    for signal in sorted(sent, key=lambda name: name != first):
        path, body = sent[signal]
        assert api.post(path, json=body).raise_for_status().json() == {}
    assert (used(api), used(api, "input_tokens")) == (1, 9)


def told(answer: httpx.Response) -> tuple[int, str]:
    """How many spans were rejected, and why, as an answer in either type has it."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == JSON:
        found = answer.json().get("partialSuccess")
        return (int(found["rejectedSpans"]), found["errorMessage"]) if found else (0, "")
    success = ExportTraceServiceResponse.FromString(answer.content)
    return success.partial_success.rejected_spans, success.partial_success.error_message


def status(answer: httpx.Response) -> tuple[int, int, str]:
    """Status of HTTP, status of gRPC and message of a refusal in either type."""
    if answer.headers["content-type"] == JSON:
        found = answer.json()
        assert set(found) == {"code", "message"}
        return answer.status_code, found["code"], found["message"]
    failure = Status.FromString(answer.content)
    return answer.status_code, failure.code, failure.message


def used(api: httpx.Client, measure: str = "num_model_requests") -> int:
    window = {"start_time": END_NS // 10**9 - 60, "end_time": END_NS // 10**9 + 60}
    page = api.get(f"{USAGE}/completions", params=window).raise_for_status().json()
    return sum(result[measure] for bucket in page["data"] for result in bucket["results"])


@PLACES
def test_spans_are_stored_when_they_are_acknowledged_and_once(api: httpx.Client, media: str) -> None:
    for _ in range(2):
        answer = post(api, traces(*(call(number) for number in range(100)), span({})), media)
        assert told(answer) == (0, "")
        assert answer.headers["content-type"] == media
        assert (used(api), used(api, "input_tokens")) == (100, 900)


def test_both_encodings_and_gzip_are_the_same_spans(api: httpx.Client) -> None:
    body = traces(*(call(number) for number in range(3)))
    for media in (JSON, PROTOBUF):
        for packed in (False, True):
            content = encoded(body, media)
            headers = {"content-encoding": "gzip"} if packed else {}
            answer = post(api, gzip.compress(content) if packed else content, f"{media}; charset=utf-8", **headers)
            assert told(answer) == (0, "")
    assert used(api) == 3


@PLACES
def test_spans_that_are_not_counted_are_told_kept_and_counted_once_mended(api: httpx.Client, media: str) -> None:
    bad = span(CALL | {"gen_ai.response.id": "resp_bad"}, name="chat of mine")
    for _ in range(2):
        rejected, message = told(post(api, traces(call(1), bad, call(2)), media))
        assert rejected == 1
        assert "Spans not counted: 1; in quarantine" in message
        assert "At index 1: chat of mine says no tokens" in message
    assert used(api) == 2
    (kept,) = api.get(f"{USAGE}/quarantine").json()["data"]
    assert (kept["source"], kept["faults"][0]["field"]) == ("otlp", "gen_ai.usage.input_tokens")
    path = f"{USAGE}/quarantine/{kept['id']}/replay"
    assert api.post(path).status_code == 400
    mended = kept["event"]
    mended["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] += call(1)["attributes"][2:4]
    assert api.post(path, json=mended).json()["accepted"] == 1
    assert api.get(f"{USAGE}/quarantine").json()["data"] == []
    assert used(api) == 3


@PLACES
def test_another_count_for_the_same_call_is_noticed_and_the_first_stands(api: httpx.Client, media: str) -> None:
    post(api, traces(call(1)), media)
    post(api, traces(call(2), call(1, **{"gen_ai.usage.input_tokens": 10})), media)
    assert used(api, "input_tokens") == 18
    (notice,) = api.get(f"{USAGE}/sources").json()["notices"]
    assert notice.pop("last_at") > 0
    assert notice == {"subject": "differing", "source": "otlp", "name": "otlp input_tokens"} | {
        "count": 1,
        "example": "resp_a1",
    }


@PLACES
def test_an_empty_body_is_a_success(api: httpx.Client, media: str) -> None:
    bodies: list[Json] = [{}, {"resourceSpans": []}, traces()]
    for body in bodies:
        assert told(post(api, body, media)) == (0, "")


@PLACES
def test_what_can_never_be_read_is_a_bad_request(api: httpx.Client, media: str) -> None:
    answer = post(api, b"\x0a\xff", media)
    assert status(answer)[:2] == (400, Code.INVALID_ARGUMENT)
    assert "ExportTraceServiceRequest" in status(answer)[2]
    assert answer.headers["content-type"] == media
    packed = post(api, b"no gzip", media, **{"content-encoding": "gzip"})
    assert status(packed)[:2] == (400, Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("media", ["image/png", "application/grpc", "application/json5"])
def test_another_type_is_refused(api: httpx.Client, media: str) -> None:
    answer = post(api, b"{}", media)
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "Content-Type")


@PLACES
def test_keys_are_asked_for_as_everywhere(server: Server, organization: str, media: str) -> None:
    cases = [("Bearer sk-admin-wrong", 401, Code.UNAUTHENTICATED), ("", 401, Code.UNAUTHENTICATED)]
    reader = f"Bearer {server.key(organization, ['api.usage.read'])}"
    for header, expected, code in [*cases, (reader, 403, Code.PERMISSION_DENIED)]:
        answer = httpx.post(
            f"{server.url}/v1/traces",
            content=encoded(traces(call(1)), media),
            headers={"authorization": header, "content-type": media},
            trust_env=False,
        )
        assert status(answer)[:2] == (expected, code)
        assert "retry-after" not in answer.headers
    writer = server.key(organization, ["api.usage.write"])
    with server.http(writer) as client:
        assert told(post(client, traces(call(1)), media)) == (0, "")


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with limits that are soon reached."""
    args = ["--body-bytes-max", "20000", "--events-max", "20", "--quarantine-max", "1", "--wrong-keys-max", "1"]
    running = Server.start(tmp_path_factory.mktemp("small"), args=args)
    yield running
    assert running.stop() == 0


def test_limits_are_told_in_its_manner_and_retry_only_where_it_helps(small: Server) -> None:
    with small.http() as api:
        for media in (JSON, PROTOBUF):
            large = encoded(traces(*(call(number) for number in range(200))), media)
            for content, headers in ((large, {}), (gzip.compress(large), {"content-encoding": "gzip"})):
                answer = post(api, content, media, **headers)
                assert status(answer)[:2] == (413, Code.INVALID_ARGUMENT)
                assert "retry-after" not in answer.headers
            many = post(api, traces(*(call(number) for number in range(21))), media)
            assert status(many)[:2] == (413, Code.INVALID_ARGUMENT)
            assert "more than 20 events" in status(many)[2]
        assert used(api) == 0
    with small.http("sk-admin-wrong") as stranger:
        answers = [post(stranger, traces(call(1)), PROTOBUF) for _ in range(3)]
        # Asked to come again later, a sender would do that with every batch, and its key would still be wrong.
        assert {status(answer)[:2] for answer in answers} == {(401, Code.UNAUTHENTICATED)}
        assert all("retry-after" not in answer.headers for answer in answers)


@PLACES
def test_a_full_quarantine_stops_no_good_spans(small: Server, media: str) -> None:
    bad = [span(CALL | {"gen_ai.response.id": f"bad_{number}"}) for number in range(2)]
    with small.http() as api:
        rejected, message = told(post(api, traces(call(1), *bad), media))
        assert (rejected, "Spans not counted: 2; not kept: quarantine is full" in message) == (2, True)
        assert (used(api), api.get(f"{USAGE}/quarantine").json()["data"]) == (1, [])
        lines = json.dumps(traces(call(2), *bad)).encode()  # whoever sends files has them still
        assert (api.post(f"{USAGE}/events/otlp", content=lines).status_code, used(api)) == (429, 1)


def test_attributes_that_say_who_are_a_setting(tmp_path: Any) -> None:
    names = ["--otlp-project-attributes", "team, service.name", "--otlp-user-attributes", ""]
    running = Server.start(tmp_path, args=[*names, "--otlp-key-attributes", "key"])
    try:
        with running.http() as api:
            post(api, traces(call(1, team="blue", key="key_1", **{"user.id": "ann"}), call(2)))
            window = {"start_time": END_NS // 10**9 - 60, "end_time": END_NS // 10**9 + 60}
            question = window | {"group_by": ["project_id", "user_id", "api_key_id"]}
            page = api.get(f"{USAGE}/completions", params=question).json()
            found = {
                (result["project_id"], result["user_id"], result["api_key_id"]) for result in page["data"][0]["results"]
            }
    finally:
        assert running.stop() == 0
    assert found == {("blue", None, "key_1"), ("search", None, None)}


def test_a_bad_span_of_a_collectors_file_is_kept_by_itself_without_prompts(api: httpx.Client) -> None:
    secret = {"gen_ai.input.messages": "secret" * 20_000}
    bad = span(CALL | {"gen_ai.response.id": "bad"} | secret)
    lines = [traces(call(1, **secret), bad), traces(span({}), call(2, **secret))]
    receipt = api.post(f"{USAGE}/events/otlp", content=b"\n".join(json.dumps(line).encode() for line in lines)).json()
    assert [receipt[name] for name in ("accepted", "rejected", "ignored")] == [2, 1, 1]
    assert receipt["faults"][0]["index"] == 1
    (kept,) = api.get(f"{USAGE}/quarantine").json()["data"]
    assert kept["id"] == receipt["faults"][0]["quarantine_id"]
    assert "secret" not in json.dumps(kept)
    mended = kept["event"]
    mended["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] += call(1)["attributes"][2:4]
    assert api.post(f"{USAGE}/quarantine/{kept['id']}/replay", json=mended).json()["accepted"] == 1
    assert used(api) == 3


def test_a_line_of_a_collectors_file_that_is_no_trace_is_told_and_not_kept(api: httpx.Client) -> None:
    lines = [traces(call(1)), {"resourceSpans": "secret"}, traces(call(2), call(3)), {}]
    content = b"\n".join(json.dumps(line).encode() for line in lines) + b'\n{"resourceSpans":["secret'
    receipt = api.post(f"{USAGE}/events/otlp", content=content).json()
    assert [receipt[name] for name in ("accepted", "rejected", "ignored")] == [3, 2, 1]
    assert [fault["index"] for fault in receipt["faults"]] == [1, 4]
    assert api.get(f"{USAGE}/quarantine").json()["data"] == []


def test_points_of_a_line_of_a_collectors_file_spoil_no_others(api: httpx.Client) -> None:
    def line(*totals: float) -> bytes:
        values = CALL | {"gen_ai.token.type": "input"}
        points = [point(values | {"server.port": port}, sum=total, count=1) for port, total in enumerate(totals)]
        return json.dumps(metrics(histogram("gen_ai.client.token.usage", *points))).encode()

    receipt = api.post(f"{USAGE}/events/otlp-metrics", content=line(9, 1.5) + b"\n" + line(1.5, 9, 8)).json()
    assert (receipt["accepted"], [fault["index"] for fault in receipt["faults"]]) == (3, [1, 2])
    assert used(api, "input_tokens") == 26


def test_a_collectors_file_can_be_sent_line_by_line(api: httpx.Client) -> None:
    lines = b"\n".join(json.dumps(traces(call(number), span({}))).encode() for number in range(3))
    receipt = api.post(f"{USAGE}/events/otlp", content=lines).json()
    assert (receipt["accepted"], receipt["rejected"]) == (3, 0)
    assert told(post(api, traces(*(call(number) for number in range(3))))) == (0, "")
    assert used(api) == 3
