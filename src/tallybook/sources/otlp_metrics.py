"""Token metrics: what points of the conventions' counters and histograms say was used in a stretch of time.

Points that were measured together, of one sender and with the same attributes, make one event. Nothing in a point says
which calls it is of, so whether the same calls came as spans, too, cannot be told. And only what was added since the
point before (delta) can be counted without remembering every sender: cumulative points are refused.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tallybook.sources.otlp import DELTA, NotOtlp, Point, digest, points_of
from tallybook.sources.otlp_spans import who
from tallybook.sources.otlp_tokens import COMPLETIONS, EMBEDDINGS, OPERATIONS, token_fields
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, made

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
METRICS: Final = frozenset({_HISTOGRAM, _REQUESTS, *_COUNTERS})
_TYPE: Final = "gen_ai.token.type"
_TYPES: Final = {"input": "input", "output": "output", "completion": "output", "prompt": "input"}
_MODALITY: Final = "gen_ai.token.modality"
_OPERATION: Final = "gen_ai.operation.name"
_MODELS: Final = ("gen_ai.response.model", "gen_ai.request.model")
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
        points = list(points_of(record, METRICS))
    except NotOtlp as error:
        raise FaultyRecord(None, record, f"a record is OTLP's MetricsData in JSON: {error}") from None
    groups = ([points[place] for place in places] for places in grouped(points))
    return [event for group in groups for event in group_events(group, options)]


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
        shared = {name: value for name, value in point.attributes.items() if name not in (_TYPE, _MODALITY)}
        groups.setdefault(digest(point.sender, shared, point.time_ns // _SECOND_NS), []).append(place)
    return list(groups.values())


def _calls(point: Point) -> tuple[object, ...]:
    model = next((point.attributes[name] for name in _MODELS if name in point.attributes), None)
    return point.sender, point.attributes.get(_OPERATION), model


def group_events(points: Sequence[Point], options: Options) -> list[Event]:
    """Return the event of points that were measured together; none if they are of no calls, or nothing was used.

    Raises:
        FaultyRecord: one is cumulative, or says no count.
    """
    first = points[0]
    attributes = Fields(first.attributes)
    kind = _kind(first)
    if kind is None:
        return []
    for point in points:
        if point.temporality != DELTA:
            raise FaultyRecord("aggregationTemporality", point.temporality, f"{point.metric}: {CUMULATIVE}")
    points = _distinct(points)
    tokens = token_fields(_counts(points), {})  # whoever made it: metrics follow the convention
    if kind == EMBEDDINGS:
        tokens = {"input_tokens": tokens["input_tokens"]}
    if not any(tokens.values()):
        return []
    common = {
        "id": f"otlp-{digest(*sorted(map(_identity, points))).hex()}",
        "timestamp": max(point.time_ns for point in points) // 1_000_000 / 1000,
        "model": attributes.text(*_MODELS),
        **who(first.attributes, first.resource, options),
    }
    requests = sum(point.measured or 0 for point in points if _count(point) in (None, "input"))
    return [made(kind, common, num_model_requests=requests, **tokens)]


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
        if not count:
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
    if point.metric == _HISTOGRAM:
        return _TYPES.get(str(point.attributes.get(_TYPE)), "")
    return _COUNTERS.get(point.metric)


_MODALITIES: Final = {
    **{("input", modality): f"{modality} input" for modality in ("text", "image", "audio")},
    **{("cached", modality): f"{modality} cached" for modality in ("image", "audio")},
    **{("output", modality): f"{modality} output" for modality in ("image", "audio")},
}


def _identity(point: Point) -> bytes:
    """Return what tells a point from every other: whose it is, and of which stretch of time, to the nanosecond."""
    return digest(point.metric, point.sender, point.attributes, point.start_ns, point.time_ns)
