"""Token metrics: what points of the conventions' counters and histograms say was used in a stretch of time.

Points that were measured together, of one sender and with the same attributes, make one event. Nothing in a point says
which calls it is of, so whether the same calls came as spans, too, cannot be told. And only what was added since the
point before (delta) can be counted without remembering every sender: cumulative points are refused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tallybook.sources import otlp_agents
from tallybook.sources.otlp import NotOtlp, Point, digest, points_of
from tallybook.sources.otlp_names import is_count
from tallybook.sources.otlp_spans import who
from tallybook.sources.otlp_tokens import COMPLETIONS, EMBEDDINGS, OPERATIONS, token_fields
from tallybook.sources.otlp_wire import DELTA
from tallybook.sources.record import (
    NO_OPTIONS,
    Elsewhere,
    Event,
    FaultyRecord,
    Fields,
    Options,
    cost,
    made,
    note_unread,
)

_HISTOGRAM: Final = "gen_ai.client.token.usage"
_REQUESTS: Final = "gen_ai.client.inference.operation.input_tokens"
"""Its sum repeats a counter's; its count says how many calls there were."""
_EMBEDDED: Final = "gen_ai.client.embeddings.operation.input_tokens"
_COUNTERS: Final = {
    _EMBEDDED: "input",
    "gen_ai.client.inference.usage.input_tokens": "input",
    "gen_ai.client.inference.usage.output_tokens": "output",
    "gen_ai.client.inference.usage.cache_read.input_tokens": "cached",
    "gen_ai.client.inference.usage.cache_write.input_tokens": "write",
    "gen_ai.client.inference.usage.reasoning.output_tokens": "reasoning",
}
_METRICS: Final = frozenset({_HISTOGRAM, _REQUESTS, *_COUNTERS})
_TYPE: Final = "gen_ai.token.type"
_TYPES: Final = {
    **dict.fromkeys(("input", "prompt"), "input"),
    **dict.fromkeys(("output", "completion"), "output"),
    **dict.fromkeys(("input_cache_read", "cache_read", "input_cached", "cached", "cached_input"), "cached"),
    **dict.fromkeys(("input_cache_write", "cache_write", "input_cache_creation", "cache_creation"), "write"),
    **dict.fromkeys(("output_reasoning", "reasoning", "reasoning_output", "thinking", "thought"), "reasoning"),
    "total": "",
}


class _Agent(NamedTuple):
    """The token metric of a coding agent.

    Attributes:
        name: of the agent.
        type: the attribute that says what is counted.
        types: the count of each of its values; "" for one that repeats others.
        apart: counts that its input leaves out, and those that its output does.
    """

    name: str
    type: str
    types: Mapping[str, str]
    apart: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


_AGENTS: Final = {
    "claude_code.token.usage": _Agent(
        "Claude Code",
        "type",
        {"input": "input", "output": "output", "cacheRead": "cached", "cacheCreation": "write"},
        (("cached", "write"), ()),
    ),
    "codex.turn.token_usage": _Agent(
        "Codex CLI",
        "token_type",
        {"input": "input", "output": "output", "cached_input": "cached", "cache_write_input": "write"}
        | {"reasoning_output": "reasoning", "total": "", "non_cached_input": ""},
    ),
    "gemini_cli.token.usage": _Agent(
        "Gemini CLI",
        "type",
        {"input": "input", "output": "output", "cache": "cached", "thought": "reasoning", "tool": "tool"},
        (("tool",), ("reasoning",)),
    ),
}
_AGENT_COSTS: Final = {"claude_code.cost.usage": "claude_code.token.usage"}
_MODELS_OF_ANY: Final = re.compile(r"(?:^|[._])model(?:[._]?(?:name|id))?$")
_MODALITY: Final = "gen_ai.token.modality"
_OPERATION: Final = "gen_ai.operation.name"
_MODELS: Final = ("gen_ai.response.model", "gen_ai.request.model")
_PLAIN_MODEL: Final = "model"
_SECOND_NS: Final = 10**9
"""Points that are measured together are so within a second: each counter reads the clock for itself."""
CUMULATIVE: Final = (
    "only points of delta temporality are counted: set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta where "
    "they are made, or OTEL_METRICS_EXPORTER=none if spans are sent as well"
)


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one ``MetricsData`` in JSON.

    Raises:
        FaultyRecord: it is no such thing, a point is cumulative, or says no count.
    """
    try:
        points = list(points_of(record, is_read))
    except NotOtlp as error:
        raise FaultyRecord(None, record, f"a record is OTLP's MetricsData in JSON: {error}") from None
    groups = ([points[place] for place in places] for places in grouped(points))
    return [event for group in groups for event in group_events(group, options)]


def is_read(metric: str) -> bool:
    """Return whether the points of a metric are looked at: those that are known, and all whose name is of tokens."""
    return metric in _METRICS or metric in _AGENTS or metric in _AGENT_COSTS or is_count(metric)


def grouped(points: Sequence[Point]) -> list[list[int]]:
    """Return the places of points that were measured together, in the order of the first of each group.

    Of a sender who has both, the counters of today are taken and not the histogram of before, for each operation and
    model: the two need not have the same attributes besides.
    """
    today = {_calls(point) for point in points if point.metric in _COUNTERS}
    groups: dict[bytes, list[int]] = {}
    for place, point in enumerate(points):
        if point.metric == _HISTOGRAM and today and _calls(point) in today:
            continue
        agent = _AGENTS.get(_AGENT_COSTS.get(point.metric, point.metric))
        apart = (_TYPE, _MODALITY) if agent is None else (agent.type,)
        shared = {name: value for name, value in point.attributes.items() if name not in apart}
        groups.setdefault(digest(point.sender, shared, point.time_ns // _SECOND_NS), []).append(place)
    return list(groups.values())


def _calls(point: Point) -> tuple[object, ...]:
    model = next((point.attributes[name] for name in _MODELS if name in point.attributes), None)
    return point.sender, point.attributes.get(_OPERATION), model


def group_events(points: Sequence[Point], options: Options) -> list[Event]:
    """Return the event of points that were measured together; none if they are of no calls, or nothing was used.

    Raises:
        FaultyRecord: one is cumulative, says no count, or counts something that is not known.
        Elsewhere: they are a coding agent's, whose log records count.
    """
    first = points[0]
    agent = next((found for point in points if (found := _AGENTS.get(point.metric))), None)
    if agent is None and first.metric not in _METRICS:
        _refuse_unknown(points)
        return []
    is_of_agent = agent is not None or first.scope == otlp_agents.GEMINI
    if is_of_agent and not _is_chosen(first, agent, options):
        return []
    kind = _kind(first)
    if kind is None:
        return []
    for point in points:
        if point.temporality != DELTA:
            raise FaultyRecord("aggregationTemporality", point.temporality, f"{point.metric}: {CUMULATIVE}")
    points = _distinct(points)
    counts = _counts(points)
    if agent is not None:
        for whole, parts in zip(("input", "output"), agent.apart, strict=True):
            counts[whole] += sum(counts[part] for part in parts)
        counts.pop("tool", None)
    tokens = token_fields(counts, first.attributes if agent is None else {})
    if kind == EMBEDDINGS:
        tokens = {"input_tokens": tokens["input_tokens"]}
    if not any(tokens.values()):
        return []
    tier = otlp_agents.tier_of(first.attributes, first.resource)
    common = {
        "id": f"otlp-{digest(*sorted(map(_identity, points))).hex()}",
        "timestamp": max(point.time_ns for point in points) // 1_000_000 / 1000,
        "model": Fields(first.attributes).text(*_MODELS, *((_PLAIN_MODEL,) if agent else ())),
        "service_tier": tier,
        **who(first.attributes, first.resource, options),
    }
    requests = 0 if agent else sum(point.measured or 0 for point in points if _count(point) in (None, "input"))
    reported = [point.total for point in points if point.metric in _AGENT_COSTS and options.takes_costs]
    is_billed = tier != otlp_agents.SUBSCRIPTION
    figure = cost(reported[0]) if reported and is_billed else None
    return [made(kind, common, num_model_requests=requests, cost=figure, **tokens)]


def _is_chosen(point: Point, agent: _Agent | None, options: Options) -> bool:
    """Return whether a coding agent's metrics are the signal that counts.

    Raises:
        Elsewhere: its sender does not say which signal counts: log records do then.
    """
    if otlp_agents.SIGNAL in point.resource:
        # Of its two metrics, the convention's leaves thoughts out.
        return otlp_agents.is_chosen(point.resource, "metrics") and agent is not None
    note_unread(options, point.metric)
    name = agent.name if agent else "Gemini CLI"
    raise Elsewhere(
        point.metric,
        point.total,
        f"{point.metric}: of {name} log records are counted, since metrics name no requests and would count them "
        "again; send its logs to /v1/logs. Or count its metrics alone: "
        f"OTEL_RESOURCE_ATTRIBUTES={otlp_agents.SIGNAL}=metrics; {otlp_agents.SIGNAL}=logs leaves them out in silence",
    )


def _refuse_unknown(points: Sequence[Point]) -> None:
    """Refuse points of a metric nobody knows that name a model.

    Raises:
        FaultyRecord: they do, and are not all 0.
    """
    for point in points:
        is_model_named = any(_MODELS_OF_ANY.search(name) for name in point.attributes)
        if is_model_named and point.total and point.metric not in _AGENT_COSTS:
            raise FaultyRecord(
                point.metric,
                point.total,
                f"{point.metric} names a model and counts tokens, and is not known; the gen_ai.client metrics of "
                "OpenTelemetry are counted",
            )


def _distinct(points: Iterable[Point]) -> list[Point]:
    """Return each point once; beside the histogram of before, which says the number of calls, no other says it."""
    found = {_identity(point): point for point in points}
    left_out = _REQUESTS if any(point.metric == _HISTOGRAM for point in found.values()) else None
    return [point for point in found.values() if point.metric != left_out]


def _kind(point: Point) -> str | None:
    attributes = Fields(point.attributes)
    operation = attributes.text(_OPERATION)
    if operation is None:
        return EMBEDDINGS if point.metric == _EMBEDDED else COMPLETIONS
    if operation.lower() not in OPERATIONS:
        known = ", ".join(name for name, kind in OPERATIONS.items() if kind)
        raise attributes.wrong(_OPERATION, f"is not known, and cannot be counted; those that are: {known}")
    return OPERATIONS[operation.lower()]


def _counts(points: Iterable[Point]) -> dict[str, int]:
    """Return the sums of points by count, see `tallybook.sources.otlp_tokens`."""
    sums: Counter[str] = Counter()
    for point in points:
        count = _count(point)
        if not count or point.metric in _AGENT_COSTS:
            continue
        total = Fields({point.metric: point.total}).count(point.metric)
        if total is None:
            raise FaultyRecord(point.metric, None, f"{point.metric} has a point that says no sum")
        sums[count] += total
        modality = _MODALITIES.get((count, str(point.attributes.get(_MODALITY))))
        if modality:
            sums[modality] += total
    return sums


def _count(point: Point) -> str | None:
    """Return what a point adds to: None if only to the number of requests, "" if to nothing."""
    agent = _AGENTS.get(point.metric)
    if point.metric != _HISTOGRAM and agent is None:
        return _COUNTERS.get(point.metric)
    name, types = (_TYPE, _TYPES) if agent is None else (agent.type, agent.types)
    found = str(point.attributes.get(name))
    if found not in types and point.total:
        raise FaultyRecord(name, found, f"{name} is not known; those that are: {', '.join(types)}")
    return types.get(found, "")


_MODALITIES: Final = {
    **{("input", modality): f"{modality} input" for modality in ("text", "image", "audio")},
    **{("cached", modality): f"{modality} cached" for modality in ("image", "audio")},
    **{("output", modality): f"{modality} output" for modality in ("image", "audio")},
}


def _identity(point: Point) -> bytes:
    """Return what tells a point from every other: whose it is, and of which stretch of time, to the nanosecond."""
    return digest(point.metric, point.sender, point.attributes, point.start_ns, point.time_ns)
