"""Amazon Bedrock's answers: Converse, streamed or not, InvokeModel, lines of batches, and logs of invocations.

A record is an answer as it came, the events of one stream as a list, or either in an envelope that says who made the
call (see `tallybook.sources.envelope`). An answer does not name its model: the envelope does, or the request in it.

What was read from the cache and written to it is beside the input; ``totalTokens`` proves it, or the opposite. A body
of InvokeModel is what the model's maker writes: an Anthropic message is read as one.

Source: service model of ``bedrock-runtime`` in botocore 1.44; Bedrock's user guide for bodies, batches and logs.
"""

from collections.abc import Mapping
from typing import Any, Final

from tallybook.sources import anthropic
from tallybook.sources.envelope import common, note_fields, opened
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, made

_INPUT: Final = ("inputTokens", "inputTokenCount", "inputTextTokenCount", "prompt_token_count")
_OUTPUT: Final = ("outputTokens", "outputTokenCount", "generation_token_count")
_CACHE_READ: Final = ("cacheReadInputTokens", "cacheReadInputTokenCount")
_CACHE_WRITE: Final = ("cacheWriteInputTokens", "cacheWriteInputTokenCount")
_TOTAL: Final = ("totalTokens", "totalTokenCount")
_READ: Final = frozenset(
    {*_INPUT, *_OUTPUT, *_CACHE_READ, *_CACHE_WRITE, *_TOTAL, "cacheDetails"}
    | {"invocationLatency", "firstByteLatency", "serverToolUsage"}
)
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_LOG: Final = "ModelInvocationLog"
_STREAM: Final = frozenset(
    {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop"}
)
"""Events of a stream that have no usage: only its ``metadata`` has."""
_HEADERS: Final = {
    "inputTokens": "x-amzn-bedrock-input-token-count",
    "outputTokens": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokens": "x-amzn-bedrock-cache-write-input-token-count",
}
"""Counts that are in the headers of InvokeModel, as text, and not in every body."""
_TIERS: Final = {"standard": "default"}
_PERIODS: Final = {"5m": "input_cache_write_30m_tokens", "1h": "input_cache_write_12h_tokens"}
"""How long a cache lasts, the shorter and the longer, as `tallybook.sources.anthropic` has it."""


def is_answer(answer: Mapping[str, Any]) -> bool:
    """Return whether an object is an answer or an event of a stream of this source, whatever is in it."""
    if (
        answer.get("schemaType") == _LOG
        or "modelOutput" in answer
        or _METRICS in answer
        or "ResponseMetadata" in answer
    ):
        return True
    if (
        _STREAM.intersection(answer)
        or "recordId" in answer
        or "inputTextTokenCount" in answer
        or "generation_token_count" in answer
    ):
        return True
    metadata = answer.get("metadata")
    usage = metadata.get("usage") if isinstance(metadata, dict) else answer.get("usage")
    return isinstance(usage, dict) and any(name in usage for name in ("inputTokens", "outputTokens"))


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one record; none of a request that failed, or of an event of a stream without usage.

    Raises:
        FaultyRecord: it is none of these, nobody names the model, or a field has the wrong type.
    """
    envelope, answer = opened(record)
    if isinstance(answer, list):
        answer = _merged(answer)
    if _STREAM.intersection(answer) or ("recordId" in answer and not isinstance(answer.get("modelOutput"), dict)):
        return []
    is_batch = isinstance(answer.get("modelOutput"), dict)
    response = Fields(answer["modelOutput"] if is_batch else answer)
    if response.values.get("schemaType") == _LOG:
        return _logged(envelope, response, options)
    if response.values.get("type") == "message" and "usage" in response:
        return _message(envelope, response, is_batch=is_batch, options=options)
    outer = response
    if isinstance(response.values.get("metadata"), dict):  # of a stream
        response = response.fields("metadata")
    usage = _usage(response)
    note_fields(usage, _READ, options)
    return [_completion(envelope, outer, response, usage, is_batch=is_batch)]


def _completion(envelope: Fields, outer: Fields, response: Fields, usage: Fields, *, is_batch: bool) -> Event:
    kept = outer.fields("ResponseMetadata")
    asked = envelope.fields("request")
    model = _model(envelope.text("model") or asked.text("modelId", "model") or outer.text("modelId"))
    if model is None:
        raise FaultyRecord(
            "model", None, "model is missing; an answer of Bedrock does not name it: give it in an envelope"
        )
    shared = common(
        envelope,
        identity=kept.values.get("RequestId") or outer.values.get("requestId"),
        timestamp=outer.any("timestamp"),
        model=model,
        tier=_tier(response),
        is_batch=is_batch,
    )
    shared["model"] = model
    if "embedding" in response or "embeddings" in response or envelope.text("kind") == "embeddings":
        return made("embeddings", shared, input_tokens=usage.count(*_INPUT) or 0)
    return made("completions", shared, **token_fields(usage))


def token_fields(usage: Fields) -> Event:
    """Return the token counts of a ``usage`` object, cached and cache-write tokens put into the input."""
    fresh, output = usage.count(*_INPUT) or 0, usage.count(*_OUTPUT) or 0
    cached, write = usage.count(*_CACHE_READ), usage.count(*_CACHE_WRITE)
    periods: dict[str, int] = {}
    for detail in usage.each("cacheDetails"):
        field = _PERIODS.get(str(detail.values.get("ttl")))
        if field is None:
            raise detail.wrong("ttl", f"must be one of {', '.join(_PERIODS)}")
        periods[field] = periods.get(field, 0) + (detail.count("inputTokens") or 0)
    if write is None and periods:
        write = sum(periods.values())
    beside = (cached or 0) + (write or 0)
    is_inside = bool(beside) and usage.count(*_TOTAL) == fresh + output and beside <= fresh
    return {
        "input_tokens": fresh if is_inside else fresh + beside,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        **periods,
        "output_tokens": output,
    }


def _usage(response: Fields) -> Fields:
    """Return where an answer has its counts: its usage, the metrics of a stream, the body itself, or the headers."""
    for name in (_METRICS, "usage"):
        if name in response:
            return response.fields(name)
    if "inputTextTokenCount" in response:  # Titan
        results = [result.count("tokenCount") or 0 for result in response.each("results")]
        written = sum(results) if results else response.count("totalOutputTextTokenCount")
        return Fields({"inputTokens": response.values["inputTextTokenCount"], "outputTokens": written})
    if "generation_token_count" in response:  # Llama
        return Fields({name: response.values.get(name) for name in ("prompt_token_count", "generation_token_count")})
    headers = response.fields("ResponseMetadata").fields("HTTPHeaders").values
    counts = {name: text for name, header in _HEADERS.items() if (text := headers.get(header)) is not None}
    if not counts:
        raise response.wrong("usage", "is missing; send an answer as Bedrock returns it, a stream's last event")
    return Fields(counts)


def _message(envelope: Fields, response: Fields, *, is_batch: bool, options: Options) -> list[Event]:
    """Return the events of an Anthropic message, of the model that Bedrock was asked for if that is known."""
    asked = envelope.fields("request").text("modelId", "model")
    around = {name: value for name, value in envelope.values.items() if name not in ("request", "kind", "api_source")}
    model = _model(envelope.text("model") or asked)
    more = {"model": model, "batch": envelope.values.get("batch", is_batch or None)}
    known = {name: value for name, value in more.items() if value is not None}
    message = {name: value for name, value in response.values.items() if name != "ResponseMetadata"}
    return anthropic.events({**around, **known, "response": message}, options)


def _logged(envelope: Fields, log: Fields, options: Options) -> list[Event]:
    """Return the event of a line of Bedrock's log of invocations."""
    read, written = log.fields("input"), log.fields("output")
    if "errorCode" in log:
        return []
    body = written.values.get("outputBodyJson")
    usage = Fields(body).fields("usage") if isinstance(body, dict) else Fields({})
    counts = {
        **usage.values,
        **{name: count for name in _INPUT[:2] + _CACHE_READ + _CACHE_WRITE if (count := read.count(name)) is not None},
        **{name: count for name in _OUTPUT[:2] if (count := written.count(name)) is not None},
    }
    if not any(name in counts for name in (*_INPUT, *_OUTPUT)):
        raise log.wrong("input", "has no inputTokenCount, and output no outputTokenCount")
    kept = {name: counts.get(name) for name in _READ if counts.get(name) is not None}
    return [_completion(envelope, log, log, Fields(kept), is_batch=False)]


def _merged(found: list[Any]) -> dict[str, Any]:
    """Return the events of one stream as one answer: that with the usage; what says nothing of it if none does."""
    objects = [each for each in found if isinstance(each, dict)]
    if not objects:
        raise FaultyRecord(None, found, "a stream is a list of JSON objects")
    return next((each for each in reversed(objects) if "metadata" in each or _METRICS in each), objects[-1])


def _tier(response: Fields) -> str | None:
    if response.fields("performanceConfig").values.get("latency") == "optimized":
        return "optimized"  # has a price of its own
    tier = response.values.get("serviceTier")
    name = Fields(tier).text("type") if isinstance(tier, dict) else response.text("serviceTier")
    return _TIERS.get(name, name) if name else None


def _model(name: str | None) -> str | None:
    """Return a model by its id; of an ARN that ends with one, that."""
    if name and name.startswith("arn:") and (":foundation-model/" in name or ":inference-profile/" in name):
        return name.rpartition("/")[2]
    return name
