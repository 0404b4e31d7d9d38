"""Token metrics: what points are counted, once, and which are refused."""

import json
from typing import Any

import httpx
import pytest

from tallybook.errors import BodyTooLarge, InvalidRequest
from tallybook.ingest.decode import Decoded, read_record
from tallybook.ingest.otlp import Limits, decode_metrics
from tallybook.sources.otlp_metrics import CUMULATIVE
from tallybook.sources.record import Event, Options
from tallybook.sources.table import SOURCES
from tests.otlp_shaped import END_NS, SPAN_END, Json, counter, histogram, in_protobuf, metrics, point

LIMITS = Limits(END_NS // 1_000_000 + 1_000, 100_000)
OPTIONS = Options(attributes={"project_id": ("service.name",)})
CALLS: Json = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.response.model": "gpt-4o"}
OLD = "gen_ai.client.token.usage"
NEW = "gen_ai.client.inference.usage"
EMBEDDED = "gen_ai.client.embeddings.operation.input_tokens"
PER_CALL = "gen_ai.client.inference.operation.input_tokens"
OLDER_NS = END_NS - 60 * 10**9


def measured(kind: str, total: float, count: int, values: Json = CALLS, **times: int) -> Json:
    """A point of the histogram that was before."""
    return point(values | {"gen_ai.token.type": kind}, sum=total, count=str(count), **times)


def counted(total: int, modality: str = "text", values: Json = CALLS, **times: int) -> Json:
    """A point of one of the counters of today."""
    return point(values | {"gen_ai.token.modality": modality}, asInt=str(total), **times)


INPUT = measured("input", 90, 3)
OUTPUT = measured("output", 20.0, 3)
BOTH: Json = {"kind": "completions", "input_tokens": 90, "output_tokens": 20, "num_model_requests": 3}
EMBEDDING = CALLS | {"gen_ai.operation.name": "embeddings"}
EMBEDDINGS: Json = {"kind": "embeddings", "input_tokens": 90, "num_model_requests": 3}
COUNTED: dict[str, tuple[list[Json], list[Json]]] = {
    "the histogram": ([histogram(OLD, INPUT, OUTPUT)], [BOTH]),
    "a histogram with exponential buckets": (
        [{"name": OLD, "exponentialHistogram": histogram(OLD, INPUT, OUTPUT)["histogram"]}],
        [BOTH],
    ),
    "output alone": ([histogram(OLD, OUTPUT)], [{"output_tokens": 20, "num_model_requests": 0}]),
    "the same point twice in a body": ([histogram(OLD, INPUT, OUTPUT), histogram(OLD, INPUT)], [BOTH]),
    "counters": (
        [
            counter(f"{NEW}.input_tokens", counted(80), counted(10, "image")),
            counter(f"{NEW}.output_tokens", counted(20)),
            counter(f"{NEW}.cache_read.input_tokens", counted(40)),
            counter(f"{NEW}.cache_write.input_tokens", counted(5)),
            counter(f"{NEW}.reasoning.output_tokens", counted(7, "unknown")),
            histogram(PER_CALL, point(CALLS, sum=90.0, count="3")),
        ],
        [BOTH | {"input_cached_tokens": 40, "input_cache_write_tokens": 5, "input_image_tokens": 10}],
    ),
    "counters without a number of calls": (
        [counter(f"{NEW}.input_tokens", counted(90)), counter(f"{NEW}.output_tokens", counted(20))],
        [BOTH | {"num_model_requests": 0}],
    ),
    "counters and the histogram beside each other": (
        [
            histogram(OLD, INPUT, OUTPUT),
            counter(f"{NEW}.input_tokens", counted(90)),
            counter(f"{NEW}.output_tokens", counted(20)),
            histogram(PER_CALL, point(CALLS, sum=90, count=3)),
        ],
        [BOTH],
    ),
    "embeddings": (
        [histogram(OLD, measured("input", 90, 3, EMBEDDING))],
        [EMBEDDINGS],
    ),
    "embeddings of today": ([histogram(EMBEDDED, point(EMBEDDING, sum=90, count=3))], [EMBEDDINGS]),
    "embeddings of today, without an operation": (
        [histogram(EMBEDDED, point({"gen_ai.request.model": "m"}, sum=90, count=3))],
        [EMBEDDINGS],
    ),
    "embeddings of today and before": (
        [histogram(OLD, measured("input", 90, 3, EMBEDDING)), histogram(EMBEDDED, point(EMBEDDING, sum=90, count=3))],
        [EMBEDDINGS],
    ),
    "counters that read the clock one after the other": (
        [
            counter(f"{NEW}.cache_read.input_tokens", counted(40, until_ns=END_NS - 9)),
            counter(f"{NEW}.input_tokens", counted(90)),
            counter(f"{NEW}.output_tokens", counted(20, until_ns=END_NS - 5)),
        ],
        [{"input_tokens": 90, "input_cached_tokens": 40, "output_tokens": 20, "timestamp": SPAN_END}],
    ),
    "counters that say more than the histogram beside them": (
        [histogram(OLD, INPUT, OUTPUT), counter(f"{NEW}.input_tokens", counted(90, values=CALLS | {"server.port": 1}))],
        [{"input_tokens": 90}],
    ),
    "points that have nothing to say any more": (
        [
            histogram(OLD, INPUT, OUTPUT, measured("input", 0, 0, since_ns=END_NS) | {"flags": 1}),
            counter(f"{NEW}.output_tokens", point(CALLS, flags=1)),
        ],
        [BOTH],
    ),
    "two models": (
        [histogram(OLD, INPUT, measured("input", 1, 1, CALLS | {"gen_ai.response.model": "gpt-5"}))],
        [{"model": "gpt-4o", "input_tokens": 90}, {"model": "gpt-5", "input_tokens": 1}],
    ),
    "two stretches of time": (
        [histogram(OLD, INPUT, measured("input", 1, 1, since_ns=END_NS, until_ns=END_NS + 60 * 10**9))],
        [{"input_tokens": 90, "timestamp": SPAN_END}, {"input_tokens": 1, "timestamp": SPAN_END + 60}],
    ),
    "agents repeat what their calls used": (
        [histogram(OLD, measured("input", 90, 1, CALLS | {"gen_ai.operation.name": "invoke_agent"}))],
        [],
    ),
    "calls that all failed": ([counter(f"{NEW}.input_tokens", counted(0, "unknown"))], []),
    "another metric": ([histogram("gen_ai.client.operation.duration", point(CALLS, sum=1.5, count="3"))], []),
}


def decoded(*measured: Json, is_json: bool = True) -> Decoded:
    body = metrics(*measured)
    content = json.dumps(body).encode() if is_json else in_protobuf(body)
    return decode_metrics(content, OPTIONS, LIMITS, is_json=is_json)


def events_of(*measured: Json) -> list[Event]:
    return SOURCES["otlp-metrics"].events(metrics(*measured), OPTIONS)


@pytest.mark.parametrize(("body", "expected"), COUNTED.values(), ids=COUNTED)
def test_points_are_counted(body: list[Json], expected: list[Json]) -> None:
    found = events_of(*body)
    assert [{name: event.get(name) for name in wanted} for event, wanted in zip(found, expected, strict=True)] == (
        expected
    )
    assert all(event["project_id"] == "search" for event in found)


@pytest.mark.parametrize("body", [body for body, _ in COUNTED.values()], ids=COUNTED)
def test_both_encodings_are_the_same_events_and_ones_we_take(body: list[Json]) -> None:
    in_json, protobuf = (decoded(*body, is_json=is_json) for is_json in (True, False))
    assert in_json == protobuf
    assert (len(in_json.records), in_json.rejected) == (len(events_of(*body)), [])


def identities(*measured: Json) -> set[object]:
    return {record.identity for record in decoded(*measured).records}


def test_a_point_sent_again_is_the_same_and_any_other_is_not() -> None:
    first = identities(histogram(OLD, INPUT))
    assert identities(histogram(OLD, INPUT)) == first
    others = [
        histogram(OLD, measured("input", 90, 3, since_ns=OLDER_NS)),
        histogram(OLD, measured("input", 90, 3, until_ns=END_NS + 1)),
        histogram(OLD, measured("input", 90, 3, CALLS | {"server.port": 443})),
        histogram(OLD, OUTPUT),
    ]
    assert len(first.union(*map(identities, others))) == 1 + len(others)
    elsewhere = decode_metrics(
        json.dumps(metrics(histogram(OLD, INPUT), resource={"service.name": "other"})).encode(),
        OPTIONS,
        LIMITS,
        is_json=True,
    )
    assert elsewhere.records[0].identity not in first


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("temporality", [0, 2])
def test_cumulative_points_are_refused_with_the_setting_to_use(temporality: int, is_json: bool) -> None:
    found = decoded(histogram(OLD, INPUT, OUTPUT, temporality=temporality), is_json=is_json)
    assert (found.records, [rejected.index for rejected in found.rejected]) == ([], [0, 1])
    assert not any(rejected.is_mendable or rejected.raw for rejected in found.rejected)
    assert CUMULATIVE in found.rejected[0].faults[0].message


def test_a_temporality_may_be_told_by_name() -> None:
    named = histogram(OLD, INPUT, OUTPUT)
    for name, rejected in (("AGGREGATION_TEMPORALITY_DELTA", 0), ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2)):
        named["histogram"]["aggregationTemporality"] = name
        assert len(decoded(named).rejected) == rejected


def test_points_have_a_limit_whatever_becomes_of_them() -> None:
    for temporality in (1, 2):
        body = json.dumps(metrics(histogram(OLD, *[INPUT] * 11, temporality=temporality))).encode()
        decode_metrics(body, OPTIONS, LIMITS._replace(events_max=11), is_json=True)
        with pytest.raises(BodyTooLarge, match="more than 10 data points"):
            decode_metrics(body, OPTIONS, LIMITS._replace(events_max=10), is_json=True)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (histogram(OLD, measured("input", 1.5, 1)), OLD),
        (histogram(OLD, measured("input", -1, 1)), OLD),
        (histogram(OLD, point(CALLS | {"gen_ai.token.type": "input"}, count="1")), OLD),
        (counter(f"{NEW}.cache_read.input_tokens", counted(1)), "input_tokens"),
        (
            histogram(OLD, measured("input", 1, 1, CALLS | {"gen_ai.operation.name": "converse"})),
            "gen_ai.operation.name",
        ),
        (histogram(OLD, measured("input", 1, 1, until_ns=0)), "timestamp"),
    ],
)
def test_what_is_wrong_is_told_and_kept(bad: Json, field: str) -> None:
    good = measured("input", 1, 1, CALLS | {"gen_ai.response.model": "gpt-5"})
    found = decoded(histogram(OLD, good), bad, is_json=False)
    (rejected,) = found.rejected
    assert (len(found.records), rejected.index, rejected.faults[0].field) == (1, 1, field)
    assert read_record(SOURCES["otlp-metrics"], OPTIONS, rejected.raw, LIMITS.now_ms) == rejected.faults


@pytest.mark.parametrize("body", [b"{", b'{"resourceMetrics":5}'])
def test_what_is_no_otlp_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="ExportMetricsServiceRequest"):
        decode_metrics(body, OPTIONS, LIMITS, is_json=True)


def test_over_http_points_are_stored_once(api: httpx.Client) -> None:
    body = metrics(histogram(OLD, INPUT, OUTPUT))
    answers = [api.post("/v1/metrics", json=body) for _ in range(2)]
    answers.append(api.post("/v1/metrics", content=in_protobuf(body), headers={"content-type": PROTOBUF}))
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"{}"), (200, b"{}"), (200, b"")]
    assert used(api) == {"input_tokens": 90, "output_tokens": 20, "num_model_requests": 3}


def test_over_http_what_is_not_counted_is_told(api: httpx.Client) -> None:
    cumulative = histogram(OLD, INPUT, OUTPUT, temporality=2)
    told = api.post("/v1/metrics", json=metrics(cumulative)).json()["partialSuccess"]
    assert told["rejectedDataPoints"] == "2"
    assert "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta" in told["errorMessage"]
    assert api.get("/v1/organization/usage/quarantine").json()["data"] == []
    api.post("/v1/metrics", json=metrics(histogram(OLD, measured("input", 1.5, 1))))
    (kept,) = api.get("/v1/organization/usage/quarantine").json()["data"]
    assert kept["source"] == "otlp-metrics"


PROTOBUF = "application/x-protobuf"


def used(api: httpx.Client) -> dict[str, Any]:
    window = {"start_time": END_NS // 10**9 - 60, "end_time": END_NS // 10**9 + 60}
    page = api.get("/v1/organization/usage/completions", params=window).raise_for_status().json()
    (result,) = page["data"][0]["results"]
    return {name: result[name] for name in ("input_tokens", "output_tokens", "num_model_requests")}
