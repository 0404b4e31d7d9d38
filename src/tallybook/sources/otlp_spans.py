"""Spans of model calls: what their attributes say was used.

Only a span that is one call of a model counts. Spans of agents, workflows and chains repeat what the calls below them
used, and are passed over with all that is no call.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tallybook.event import TEXT_MAX, shorten
from tallybook.sources.otlp import Attributes, NotOtlp, Plain, Span, spans_of
from tallybook.sources.otlp_tokens import (
    COMPLETIONS,
    EMBEDDINGS,
    EVIDENCE,
    MAKERS,
    MODELS,
    OPERATIONS,
    TOKEN_NAMES,
    counts_of,
    token_fields,
)
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Fields, Options, cost, made

_OPERATION: Final = "gen_ai.operation.name"
_REQUEST_TYPE: Final = "llm.request.type"
_ROLE: Final = "openinference.span.kind"
_ROLES: Final = {"LLM": COMPLETIONS, "EMBEDDING": EMBEDDINGS, "DECISION": "decisions"}
_ABOVE_CALLS: Final = ("traceloop.span.kind", "gen_ai.agent.name")
_STEP: Final = "ai.operationId"
_RESPONSE_ID: Final = "gen_ai.response.id"
_REQUEST_ID: Final = "gen_ai.request.id"
_CHOICES: Final = "gen_ai.request.n"
_TIERS: Final = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "openai.request.service_tier",
    "gen_ai.openai.request.service_tier",
)
_COSTS: Final = ("llm.cost.total", "gen_ai.usage.cost", "operation.cost")
_COST_PARTS: Final = ("llm.cost.prompt", "llm.cost.completion")
_TOOL: Final = "gen_ai.tool.name"
_TOOL_TYPE: Final = "gen_ai.tool.type"
_TOOLS: Final = {
    "web_search": "web_search_calls",
    "file_search": "file_search_calls",
    "code_interpreter": "code_interpreter_sessions",
}
_DATE: Final = re.compile(r"_\d{4}_\d{2}_\d{2}$")
"""What the API adds to the name of a version of a tool."""
_SESSION_S: Final = 20 * 60
"""A session of the code interpreter is billed for so long at a time."""
_READ: Final = TOKEN_NAMES | {
    *EVIDENCE,
    *(_OPERATION, _REQUEST_TYPE, _ROLE, _STEP, _RESPONSE_ID, _REQUEST_ID, _CHOICES, _TOOL, _TOOL_TYPE),
    *(*_ABOVE_CALLS, *MODELS, *MAKERS, *_TIERS, *_COSTS, *_COST_PARTS),
}
_ID: Final = re.compile(r"(?=.*[1-9a-f])[0-9a-f]{16,32}")
_LEVELS_MAX: Final = 32
"""How far above a call one is looked for that repeats it."""

SpanKey = tuple[str, str]
"""Trace and span id."""


def wanted(options: Options) -> frozenset[str]:
    """Return the names of all attributes that are looked at."""
    return _READ.union(*options.attributes.values())


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one ``TracesData`` in JSON.

    Args:
        record: what a collector writes a line of its files, or a span by itself.
        options: where spans say who used something, and whether their costs are taken.

    Returns:
        None of them where no span is a call of a model.

    Raises:
        FaultyRecord: it is no such thing, or an attribute is wrong.
    """
    try:
        return [event for span in spans_of(record, wanted(options)) for event in span_events(span, options)]
    except NotOtlp as error:
        raise FaultyRecord(None, record, f"a record is OTLP's TracesData in JSON: {error}") from None


def span_events(span: Span, options: Options) -> list[Event]:
    """Return the events of one span, as `events` does."""
    found = span.attributes
    if not found:
        return []
    if found.get(_OPERATION) == "execute_tool":
        return _tool_events(span, options)
    kind = _kind(span)
    if kind is None:
        return []
    counts = counts_of(found)
    tokens = token_fields(counts, found, span.scope)
    if kind == EMBEDDINGS:
        tokens = {"input_tokens": tokens["input_tokens"] or counts.get("total")}
    if not tokens["input_tokens"] and not tokens.get("output_tokens"):
        if span.is_error:
            return []
        raise FaultyRecord(
            "gen_ai.usage.input_tokens",
            counts.get("input"),
            f"{shorten(span.name or 'the span')} says no tokens that were used; of a stream the API tells them only if "
            "the request asks for stream_options.include_usage",
        )
    event = {"kind": kind, **_common(span, options), **tokens}
    if options.takes_costs and (told := _cost(found)):
        event["cost"] = told
    return [event]


def repeated(calls: Sequence[tuple[Span, Event]], parents: Mapping[SpanKey, str]) -> set[SpanKey]:
    """Return which calls are there twice: a framework's span, and below it the client's, of the same tokens.

    One that has the id of an answer stands nevertheless. That of Google's ADK does not need the same tokens: it may
    leave out thoughts.

    Args:
        calls: those of a body, with the event of each.
        parents: the id of the span above, for each span of the body that has one.
    """
    above = {(span.trace_id, span.span_id) for span, _ in calls if not span.attributes.get(_RESPONSE_ID)}
    if not above:
        return set()
    used = {(span.trace_id, span.span_id): _used(span, event) for span, event in calls if "input_tokens" in event}
    times = Counter(used.values())
    of_adk = {(span.trace_id, span.span_id) for span, _ in calls if _is_of_adk(span)} & above
    found = set()
    for key, usage in used.items():
        if times[usage] > 1 or of_adk:
            place = key
            for _ in range(_LEVELS_MAX):
                if not (parent := parents.get(place)):
                    break
                place = (key[0], parent)
                if place in above and place != key and (place in of_adk or used.get(place) == usage):
                    found.add(place)
                    break
    return found


def _is_of_adk(span: Span) -> bool:
    return span.attributes.get("gen_ai.system") == "gcp.vertex.agent" and _OPERATION not in span.attributes


def _used(span: Span, event: Event) -> tuple[object, ...]:
    return span.trace_id, event["kind"], event["input_tokens"], event.get("output_tokens")


def _kind(span: Span) -> str | None:
    """Return what a span is counted as; None if it is not one call of a model."""
    found = span.attributes
    kind = None
    role = str(found.get(_ROLE) or "UNKNOWN").upper()
    if role != "UNKNOWN":
        kind = _ROLES.get(role)
        if kind is None:
            return None
    operation = found.get(_OPERATION) or found.get(_REQUEST_TYPE)
    if operation and operation != "unknown":
        operation = str(operation).lower()
        if operation in OPERATIONS:
            named = OPERATIONS[operation]
            return named and (kind or named)
        return kind or _unknown(operation, found)
    return kind or _unnamed(found)


def _unknown(operation: str, found: Attributes) -> str | None:
    """Return what an operation there is no word for is counted as."""
    if TOKEN_NAMES.isdisjoint(found):
        return None
    if found.get(_RESPONSE_ID):
        return COMPLETIONS  # only a model's answer has one
    raise FaultyRecord(
        _OPERATION,
        operation,
        f"{_OPERATION} is not known, and without gen_ai.response.id it cannot be told whether these tokens are of one "
        "call, or a total of calls that have spans of their own; chat, text_completion, generate_content and "
        "embeddings are counted",
    )


def _unnamed(found: Attributes) -> str | None:
    """Return what a span without an operation is counted as: vLLM's, and those of early instrumentations."""
    if TOKEN_NAMES.isdisjoint(found) or not any(name in found for name in (*MODELS, _REQUEST_ID)):
        return None
    step = str(found.get(_STEP, ".do"))
    if any(name in found for name in _ABOVE_CALLS) or ".do" not in step:
        return None
    is_embedding = step.endswith(".doEmbed") or str(found.get(_REQUEST_ID, "")).startswith("embd-")
    return EMBEDDINGS if is_embedding else COMPLETIONS


def _common(span: Span, options: Options) -> Event:
    if not span.end_ns:
        raise FaultyRecord("endTimeUnixNano", span.end_ns, "endTimeUnixNano is missing; a span counts when it ends")
    fields = Fields(span.attributes)
    tier = fields.text(*_TIERS)
    return {
        "id": _identity(span),
        "timestamp": span.end_ns // 1_000_000 / 1000,
        "model": fields.text(*MODELS) or Fields(span.resource).text(*MODELS),  # vLLM does not name it
        "service_tier": None if tier == "auto" else tier,  # as asked for; nobody said what it came to
        **who(span.attributes, span.resource, options),
    }


def who(attributes: Attributes, resource: Attributes, options: Options) -> Event:
    """Return who used something: of each, the first attribute that is there, the nearest one first."""
    found: Event = {}
    for field, names in options.attributes.items():
        for name in names:
            value = attributes.get(name) or resource.get(name)
            if value and not (name == "service.name" and str(value).startswith("unknown_service")):
                found[field] = str(value)[: TEXT_MAX + 1]  # which is too long all the same
                break
    return found


def _identity(span: Span) -> str:
    """Return what stays the same when a span is sent again: the answer's id, else the span's own."""
    found = span.attributes
    answer = found.get(_RESPONSE_ID)
    if not answer and found.get(_CHOICES, 1) == 1:  # else there is a span for each choice
        answer = found.get(_REQUEST_ID)
    if isinstance(answer, str) and 0 < len(answer) <= TEXT_MAX:
        return answer
    if not _ID.fullmatch(span.trace_id) or not _ID.fullmatch(span.span_id):
        raise FaultyRecord(
            "traceId",
            f"{span.trace_id} {span.span_id}",
            "without gen_ai.response.id a span needs a traceId and a spanId, hexadecimal, to be recognised when it is "
            "sent again",
        )
    return f"{span.trace_id}-{span.span_id}"


def _cost(found: Attributes) -> Event | None:
    told: Plain | None = next((found[name] for name in _COSTS if name in found), None)
    if told is None:
        parts = [found[name] for name in _COST_PARTS if isinstance(found.get(name), int | float)]
        told = sum(float(part) for part in parts) if parts else None
    return cost(told)


def _tool_events(span: Span, options: Options) -> list[Event]:
    """Return the event of a tool of the provider's; one of the caller's own costs nothing there."""
    found = span.attributes
    name = _DATE.sub("", str(found.get(_TOOL, ""))).removesuffix("_call").removesuffix("_preview")
    kind = _TOOLS.get(name)
    if kind is None or found.get(_TOOL_TYPE) not in ("extension", "datastore") or span.is_error:
        return []
    common = _common(span, options)
    if kind == "code_interpreter_sessions":
        # What a trace makes of it within the time that is billed is one session.
        session = span.trace_id if _ID.fullmatch(span.trace_id) else common["id"]
        common |= {"id": session, "timestamp": common["timestamp"] // _SESSION_S * _SESSION_S}
    return [made(kind, common)]
