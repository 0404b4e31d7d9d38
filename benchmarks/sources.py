"""The same calls of models as plain events, as OTLP's spans and as LiteLLM's records, through the real server.

Bodies are as large as these senders make them. Everything is made before anything is timed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from benchmarks.effort import Effort
from benchmarks.events import bodies as plain_bodies
from benchmarks.ingest import Post, fill_warm, post_events
from benchmarks.load import POSTS_PATH
from benchmarks.results import Result
from benchmarks.server import Client, connected, running
from benchmarks.times import Turns
from tallybook.clock import now_s

RECORDS_IN_BODY: Final = 512
"""What OpenTelemetry's SDK exports at once, and LiteLLM sends at once."""
LITELLM_SHARE: Final = 8
"""Its records are twenty times as long: of so many calls one is sent."""
HISTORY_S: Final = 3_600
MESSAGE: Final = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 90
"""What makes LiteLLM's records as long as they are: they carry messages, answers and what is known of the model."""

Item = TypeVar("Item")


class Way(NamedTuple):
    """One way to send calls.

    Attributes:
        name: as the table of benchmarks has it, after the comma.
        bodies: made of events.
        post: sends one.
        calls: how many are sent.
    """

    name: str
    bodies: Callable[[Sequence[dict[str, Any]]], list[bytes]]
    post: Post
    calls: int


def measure(place: Path, effort: Effort) -> Iterator[Result]:
    """Send calls in each way, and the same calls as plain events, each to a new store, by turns."""
    events = _calls(effort.source_records)
    everything = len(events)
    plain = Way("plain", _plain, post_events, everything)
    ways = (
        Way("OTLP in protobuf", _protobuf, _poster("application/x-protobuf"), everything),
        Way("OTLP in JSON", _json, _poster("application/json"), everything),
        Way("LiteLLM", _litellm, _post_litellm, max(everything // LITELLM_SHARE, 2 * RECORDS_IN_BODY)),
    )
    rates: dict[str, list[float]] = {way.name: [] for way in (plain, *ways)}
    sizes: dict[str, float] = {}
    for way in (plain, *ways):
        made = way.bodies(events[: way.calls])
        sizes[way.name] = sum(map(len, made)) / way.calls
        for turn in range(effort.turns):
            with running(place / f"{way.name}-{turn}") as server:
                rates[way.name].append(fill_warm(server, iter(made), way.post))
                with connected(server) as client:
                    seen = _seen(client)
            assert seen == way.calls, f"{way.name}: {way.calls} were acknowledged, {seen} are in the next page"
    reference = Turns(rates[plain.name]).middle
    for way in ways:
        found = Turns(rates[way.name])
        note = f"medians of {effort.turns}, {way.calls:,} calls each, {sizes[way.name]:,.0f} bytes a call"
        yield Result(
            name=f"sources, {way.name}", ours=found.middle, reference=reference, spread=found.spread, note=note
        )


def _calls(count: int) -> list[dict[str, Any]]:
    """Return plain events of calls of models, in whole bodies."""
    end_s = now_s()
    count = max(count // RECORDS_IN_BODY, 2) * RECORDS_IN_BODY
    made = plain_bodies(2 * count, 2 * count, (end_s - HISTORY_S) * 1000, end_s * 1000)
    lines = (line for body in made for line in body.splitlines() if b'"kind":"completions"' in line)
    return [msgspec.json.decode(line) for line in lines][:count]


def _seen(client: Client) -> int:
    page = msgspec.json.decode(
        client.ask("GET", f"/v1/organization/usage/completions?start_time={now_s() - 2 * HISTORY_S}&bucket_width=1d")
    )
    return sum(int(result["num_model_requests"]) for bucket in page["data"] for result in bucket["results"])


def _plain(events: Sequence[dict[str, Any]]) -> list[bytes]:
    return [b"\n".join(map(msgspec.json.encode, part)) for part in _in_bodies(events)]


def _in_bodies(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    return (items[at : at + RECORDS_IN_BODY] for at in range(0, len(items), RECORDS_IN_BODY))


def _attributes(event: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return what an instrumentation of today says of a call, with a few things that are not looked at."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": event["model"],
        "gen_ai.response.model": event["model"],
        "gen_ai.response.id": event["id"],
        "openai.response.service_tier": event["service_tier"],
        "gen_ai.usage.input_tokens": event["input_tokens"],
        "gen_ai.usage.cache_read.input_tokens": event["input_cached_tokens"],
        "gen_ai.usage.output_tokens": event["output_tokens"],
        "user.id": event["user_id"],
        "tallybook.project_id": event["project_id"],
        "tallybook.api_key_id": event["api_key_id"],
        "server.address": "api.openai.com",
        "server.port": 443,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.conversation.id": event["id"],
    }


def _span_ids(events: Sequence[object]) -> Iterable[tuple[bytes, bytes]]:
    random = Random(1)
    return ((random.randbytes(16), random.randbytes(8)) for _ in events)


def _end_ns(event: Mapping[str, Any]) -> int:
    return round(float(event["timestamp"]) * 1000) * 1_000_000


def _protobuf(events: Sequence[dict[str, Any]]) -> list[bytes]:
    made = []
    for part in _in_bodies(list(zip(events, _span_ids(events), strict=True))):
        spans = [
            Span(
                trace_id=trace_id,
                span_id=span_id,
                name=f"chat {event['model']}",
                kind=Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=_end_ns(event) - 10**9,
                end_time_unix_nano=_end_ns(event),
                attributes=[KeyValue(key=key, value=_value(value)) for key, value in _attributes(event).items()],
            )
            for event, (trace_id, span_id) in part
        ]
        made.append(TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]))
    return [data.SerializeToString() for data in made]


def _value(value: str | float) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)


def _json(events: Sequence[dict[str, Any]]) -> list[bytes]:
    names = {str: "stringValue", int: "intValue", float: "doubleValue"}
    made = []
    for part in _in_bodies(list(zip(events, _span_ids(events), strict=True))):
        spans = [
            {
                "traceId": trace_id.hex(),
                "spanId": span_id.hex(),
                "name": f"chat {event['model']}",
                "kind": 3,
                "startTimeUnixNano": str(_end_ns(event) - 10**9),
                "endTimeUnixNano": str(_end_ns(event)),
                "attributes": [
                    {"key": key, "value": {names[type(value)]: str(value) if isinstance(value, int) else value}}
                    for key, value in _attributes(event).items()
                ],
            }
            for event, (trace_id, span_id) in part
        ]
        made.append(msgspec.json.encode({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}))
    return made


def _litellm(events: Sequence[dict[str, Any]]) -> list[bytes]:
    return [msgspec.json.encode([_record(event) for event in part]) for part in _in_bodies(events)]


def _record(event: Mapping[str, Any]) -> dict[str, object]:
    usage = {
        "prompt_tokens": event["input_tokens"],
        "completion_tokens": event["output_tokens"],
        "total_tokens": event["input_tokens"] + event["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": event["input_cached_tokens"]},
    }
    return {
        "id": event["id"],
        "call_type": "acompletion",
        "status": "success",
        "cache_hit": False,
        "startTime": event["timestamp"] - 1,
        "endTime": event["timestamp"],
        "model": event["model"],
        "prompt_tokens": event["input_tokens"],
        "completion_tokens": event["output_tokens"],
        "response_cost": 0.001,
        "metadata": {
            "user_api_key_hash": event["api_key_id"],
            "user_api_key_team_id": event["project_id"],
            "user_api_key_user_id": event["user_id"],
            "usage_object": usage,
        },
        "messages": [{"role": "user", "content": MESSAGE}],
        "response": {"id": event["id"], "choices": [{"message": {"role": "assistant", "content": MESSAGE}}]}
        | {"usage": usage, "model": event["model"]},
        "model_parameters": {"temperature": 0.2, "stream": False},
    }


def _poster(content_type: str) -> Post:
    def post(client: Client, body: bytes) -> int:
        answer = client.ask("POST", "/v1/traces", body, content_type)
        if answer not in (b"", b"{}"):
            raise RuntimeError(f"not every span was counted: {answer!r}")
        return RECORDS_IN_BODY

    return post


def _post_litellm(client: Client, body: bytes) -> int:
    receipt = msgspec.json.decode(client.ask("POST", f"{POSTS_PATH}/litellm", body))
    if receipt["accepted"] != RECORDS_IN_BODY:
        raise RuntimeError(f"not every record was accepted: {receipt}")
    return int(receipt["accepted"])
