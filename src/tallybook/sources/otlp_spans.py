"""Spans of model calls: what their attributes say was used.

Only a span that is one call of a model counts. Spans of agents, workflows and chains repeat what the calls below them
used, and are passed over with all that is no call. A span that names a model and carries counts under names nobody
knows is neither: it is rejected.
"""

import re
from typing import Any, Final

from tallybook.event import TEXT_MAX, shorten
from tallybook.sources import langfuse, livekit, mlflow, otlp_agents
from tallybook.sources.otlp import NotOtlp, Span, spans_of
from tallybook.sources.otlp_lines import key_of, settled
from tallybook.sources.otlp_names import RESPONSE_ID, TOTALS, Names
from tallybook.sources.otlp_tokens import (
    COMPLETIONS,
    EMBEDDINGS,
    EVIDENCE,
    MAKERS,
    MODELS,
    OPERATIONS,
    RAW,
    TOKEN_NAMES,
    counts_of,
    raw_events,
    token_fields,
)
from tallybook.sources.otlp_wire import Attributes, Plain
from tallybook.sources.record import (
    NO_OPTIONS,
    Elsewhere,
    Event,
    FaultyRecord,
    Fields,
    Options,
    Unsure,
    call_id,
    charged,
    cost,
    made,
)
from tallybook.sources.usage_objects import priced_by

_OPERATION: Final = "gen_ai.operation.name"
_REQUEST_TYPE: Final = "llm.request.type"
_ROLE: Final = "openinference.span.kind"
_ROLES: Final = {"LLM": COMPLETIONS, "EMBEDDING": EMBEDDINGS, "DECISION": "decisions"}
_TOTALS: Final = ("AGENT", "CHAIN")
"""Roles that may have the sum of what is below, or be all that is known of it."""
_ABOVE_CALLS: Final = ("traceloop.span.kind", "gen_ai.agent.name")
_STEP: Final = "ai.operationId"
_GENKIT: Final = "genkit:metadata:subtype"
_REQUEST_ID: Final = "gen_ai.request.id"
_CHOICES: Final = "gen_ai.request.n"
_TIERS: Final = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "openai.request.service_tier",
    "gen_ai.openai.request.service_tier",
)
_ANTHROPIC: Final = "anthropic.usage"
"""Before the fields of Anthropic's usage object that its SDK, and others, write as attributes of their own."""
_DEPENDS: Final = ("speed", "service_tier", "inference_geo")
_DEPENDS_NAMES: Final = tuple(f"{_ANTHROPIC}.{name}" for name in _DEPENDS)
_COMPACTION: Final = ("compaction.input_tokens", "compaction.output_tokens")
_COMPACTION_NAMES: Final = tuple(f"{_ANTHROPIC}.{name}" for name in _COMPACTION)
"""Sums of the requests that made a conversation shorter, which no other count includes."""
_COSTS: Final = (
    *("llm.cost.total", "gen_ai.usage.cost", "gen_ai.usage.cost.amount", "gen_ai.cost.total_cost"),
    "operation.cost",
)
_CURRENCY: Final = "gen_ai.usage.cost.currency"
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
    *(_OPERATION, _REQUEST_TYPE, _ROLE, _STEP, RESPONSE_ID, _REQUEST_ID, _CHOICES, _TOOL, _TOOL_TYPE),
    *(*_ABOVE_CALLS, *MODELS, *MAKERS, *_TIERS, *_COSTS, *_COST_PARTS, _CURRENCY),
    *(*otlp_agents.NAMES, *langfuse.NAMES, *mlflow.NAMES, livekit.METRICS, _GENKIT),
    *(*_DEPENDS_NAMES, *_COMPACTION_NAMES),
}
_ID: Final = re.compile(r"(?=.*[1-9a-f])[0-9a-f]{16,32}")
_MODELS: Final = (*MODELS, langfuse.MODEL)
_OTHER_KINDS: Final = re.compile(r"image|transcri|translation|moderation|speech|audio|whisper|dall-e|(?<![a-z])tts")
"""What calls are named, or their models, that are not counted in tokens."""


def names(options: Options) -> Names:
    """Return how attributes are read."""
    return Names(_READ.union(*options.attributes.values()))


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
        spans = list(spans_of(record, names(options)))
    except NotOtlp as error:
        raise FaultyRecord(None, record, f"a record is OTLP's TracesData in JSON: {error}") from None
    parents = {key_of(span): span.parent_id for span in spans if span.parent_id}
    found: list[Event] = []
    calls, unsure = [], []
    for span in spans:
        try:
            of_span = span_events(span, options)
        except Unsure as doubt:
            unsure.append((span, doubt))
            continue
        found += of_span
        calls += [(span, event) for event in of_span[:1]]
    for (_, problem), verdict in zip(unsure, settled(calls, unsure, parents, options), strict=True):
        if verdict is None:
            raise problem
        found += problem.events if verdict else ()
    return found


def span_events(span: Span, options: Options) -> list[Event]:
    """Return the events of one span, as `events` does; raises `Unsure` where other spans decide."""
    is_usual = _UNUSUAL.isdisjoint(span.attributes)
    if not is_usual:
        span = _translated(span)
    found = span.attributes
    if not found and not span.others:
        return []
    if span.name == otlp_agents.CLAUDE_SPAN or (
        not is_usual and found.get("span.type") == "llm_request" and span.others
    ):
        return _claude_events(span, options)
    if not is_usual and langfuse.TYPE in found and langfuse.USAGE in found:
        return _langfuse_events(span, options)
    if found.get(_OPERATION) == "execute_tool":
        return _tool_events(span, options)
    kind = _kind(span)
    events = _call(span, kind, options, is_usual=is_usual) if kind else []
    if events:
        if _ROLE in found and str(found[_ROLE]).upper() in _TOTALS:
            raise Unsure(_ROLE, found[_ROLE], "it repeats what the calls below it used", events)
        return events
    if kind and not span.is_error:
        _refuse_empty(span, kind)
    return []


_UNUSUAL: Final = frozenset(
    {mlflow.TYPE, livekit.METRICS, langfuse.TYPE, "span.type", _GENKIT, RAW, "auth_mode", "auth_type"}
    | {*_DEPENDS_NAMES, *_COMPACTION_NAMES}
)
"""Attributes of single dialects: to look for them all at once takes a fourth of looking for each."""


def _translated(span: Span) -> Span:
    """Return a span of a dialect whose attributes are all its own with those that others have."""
    found = span.attributes
    if mlflow.TYPE in found:
        return span._replace(attributes=mlflow.translated(found))
    if livekit.METRICS in found and TOKEN_NAMES.isdisjoint(found):
        return span._replace(attributes=livekit.translated(found))
    return span


def _call(span: Span, kind: str, options: Options, *, is_usual: bool) -> list[Event]:
    """Return the events of a call by the names that all conventions share; none if it has no tokens."""
    found = span.attributes
    counts = counts_of(found)
    has_compaction = not is_usual and any(name in found for name in _COMPACTION_NAMES)
    if not counts and RAW not in found and not has_compaction:
        return []
    common = _common(span, options, is_usual=is_usual)
    events = raw_events(kind, common, counts, found, options) if RAW in found else []
    if not events:
        tokens = token_fields(counts, found, span.scope)
        if kind == EMBEDDINGS:
            tokens = {"input_tokens": tokens["input_tokens"] or counts.get("total")}
        if tokens["input_tokens"] or tokens.get("output_tokens"):
            events = [{"kind": kind, **common, **tokens}]
        if has_compaction:
            events += _compaction(span, common)
    if not events:
        return []
    if span.others:
        otlp_agents.note_others(span.others, (), options)
    is_billed = common["service_tier"] != otlp_agents.SUBSCRIPTION
    reported = _cost(found) if options.takes_costs and is_billed else None
    return charged(events, reported)


def _compaction(span: Span, common: Event) -> list[Event]:
    """Return the event of what was used to make a conversation shorter, which is a request of its own."""
    of_anthropic = Fields({name: span.attributes.get(f"{_ANTHROPIC}.{name}") for name in _COMPACTION}, _ANTHROPIC)
    total_in, total_out = (of_anthropic.count(name) for name in _COMPACTION)
    if not total_in and not total_out:
        return []
    own = common | {"id": call_id(f"{common['id']}#compaction-1")}
    return [made(COMPLETIONS, own, input_tokens=total_in, output_tokens=total_out)]


def _refuse_empty(span: Span, kind: str) -> None:
    """Say why a call without tokens is not counted.

    Calls that are not counted in tokens are passed over: no convention says what they used.

    Raises:
        Unsure: other spans decide whether something is lost.
    """
    found = span.attributes
    name = span.name or "the span"
    if unknown := _unknown_counts(span):
        raise Unsure(
            unknown,
            span.others[unknown],
            f"{shorten(name)} has token counts under names that are not known, such as {unknown}; "
            "gen_ai.usage.input_tokens and gen_ai.usage.output_tokens are counted",
        )
    is_named = bool(found.get(_OPERATION) or found.get(_REQUEST_TYPE))
    model = "" if is_named else str(Fields(found).any(*MODELS) or "")
    if kind == COMPLETIONS and not is_named and _OTHER_KINDS.search(f"{name} {model}".lower()):
        return
    hint = ""
    if kind == COMPLETIONS:
        hint = "; of a stream the API tells them only if the request asks for stream_options.include_usage"
    raise Unsure(
        "gen_ai.usage.input_tokens",
        counts_of(found).get("input"),
        f"{shorten(name)} says no tokens that were used{hint}. If another span of the call has them, drop this one",
    )


def _unknown_counts(span: Span) -> str | None:
    """Return a name of counts that nobody knows, None if there are none that are not 0."""
    return next((name for name, count in span.others.items() if count and count is not True), None)


def _claude_events(span: Span, options: Options) -> list[Event]:
    """Return the event of a request of Claude Code's; none if it came to nothing."""
    if not otlp_agents.is_chosen(span.resource, "spans") or not _unknown_counts(span):
        return []
    event = otlp_agents.claude_request(span, "spans", _own_id(span), _end_ns(span), options)
    return [event | who(span.attributes, span.resource, options)] if event else []


def _langfuse_events(span: Span, options: Options) -> list[Event]:
    """Return the event of an observation of Langfuse's SDK; only generations and embeddings are calls."""
    role = str(span.attributes[langfuse.TYPE])
    kind = langfuse.KINDS.get(role.lower())
    tokens = langfuse.token_fields(span.attributes, options)
    if not tokens.get("input_tokens") and not tokens.get("output_tokens"):
        is_call = kind is not None or any(name in span.attributes for name in _MODELS)
        if is_call and (unknown := langfuse.uncounted(span.attributes)):
            raise Unsure(
                langfuse.USAGE,
                unknown,
                f"{langfuse.USAGE} has counts under names that are not known, such as {shorten(unknown)}; input, "
                "output and input_cached_tokens are counted, and the names of OpenAI's and Anthropic's usage objects",
            )
        return []
    if kind == EMBEDDINGS:
        tokens = {"input_tokens": tokens["input_tokens"] or tokens.get("output_tokens")}
    event = {"kind": kind or COMPLETIONS, **_common(span, options), **tokens}
    if options.takes_costs and (reported := langfuse.cost_of(span.attributes)):
        event["cost"] = reported
    if kind is None:
        if not event["model"]:
            return []
        raise Unsure(langfuse.TYPE, role, "it repeats what the observations below it used", [event])
    return [event]


def _of_genkit(span: Span) -> Unsure:
    """Return what is wrong with a span of Genkit's: its counts are inside the answer's text, which is not read."""
    name = shorten(span.name or "the span")
    return Unsure(
        _GENKIT,
        "model",
        f"{name} is Genkit's, which writes what was used into the answer's text only, and that is not read; send the "
        "provider's answers, or instrument its client",
    )


def _kind(span: Span) -> str | None:
    """Return what a span is counted as; None if it is not one call of a model."""
    found = span.attributes
    if _GENKIT in found and found[_GENKIT] == "model" and TOKEN_NAMES.isdisjoint(found):
        raise _of_genkit(span)
    kind = None
    role = str(found.get(_ROLE) or "UNKNOWN").upper()
    if role != "UNKNOWN":
        kind = _ROLES.get(role) or _total(role, found)
        if kind is None:
            return None
        if role in _TOTALS:
            return kind
    operation = found.get(_OPERATION) or found.get(_REQUEST_TYPE)
    if operation and operation != "unknown":
        operation = str(operation).lower()
        if operation == "llm_call" and found.get("gen_ai.agent.name") == otlp_agents.GEMINI:
            return _of_gemini(span)
        if operation in OPERATIONS:
            named = OPERATIONS[operation]
            return named and (kind or named)
        return kind or _unknown(operation, found)
    return kind or _unnamed(span)


def _total(role: str, found: Attributes) -> str | None:
    """Return what a span is counted as that is all there is of the calls below it: it has tokens and names a model."""
    if role not in _TOTALS or TOKEN_NAMES.isdisjoint(found) or not any(name in found for name in MODELS):
        return None
    return COMPLETIONS if any(counts_of(found).values()) else None


def _of_gemini(span: Span) -> str | None:
    """Refuse a request of Gemini CLI's, whose log records have all counts, unless its spans are chosen."""
    if TOKEN_NAMES.isdisjoint(span.attributes):
        return None
    if otlp_agents.SIGNAL not in span.resource:
        raise Elsewhere(
            _OPERATION,
            "llm_call",
            "Gemini CLI's log records count: send them to /v1/logs. To count its spans instead, which leave out "
            f"thoughts, set OTEL_RESOURCE_ATTRIBUTES={otlp_agents.SIGNAL}=spans",
        )
    return COMPLETIONS if otlp_agents.is_chosen(span.resource, "spans") else None


def _unknown(operation: str, found: Attributes) -> str | None:
    """Return what an operation there is no word for is counted as."""
    if TOKEN_NAMES.isdisjoint(found):
        return None
    if found.get(RESPONSE_ID):
        return COMPLETIONS  # only a model's answer has one
    raise Unsure(
        _OPERATION,
        operation,
        f"{_OPERATION} is not known, and without gen_ai.response.id it cannot be told whether these tokens are of one "
        "call, or a total of calls that have spans of their own; chat, text_completion, generate_content and "
        "embeddings are counted",
    )


def _unnamed(span: Span) -> str | None:
    """Return what a span without an operation is counted as: vLLM's, and those of early instrumentations."""
    found = span.attributes
    if not span.others and TOKEN_NAMES.isdisjoint(found):
        return None
    step = str(found.get(_STEP, ".do"))
    if any(name in found for name in _ABOVE_CALLS) or ".do" not in step or not TOTALS.isdisjoint(span.others):
        return None
    is_known = any(name in found for name in (*MODELS, _REQUEST_ID))
    if not is_known or TOKEN_NAMES.isdisjoint(found):
        _refuse_unknown(span)
        return None
    is_embedding = step.endswith(".doEmbed") or str(found.get(_REQUEST_ID, "")).startswith("embd-")
    return EMBEDDINGS if is_embedding else COMPLETIONS


def _refuse_unknown(span: Span) -> None:
    """Refuse a span that names a model and has counts, where one of the two has a name that nobody knows.

    Raises:
        Unsure: other spans decide whether something is lost.
    """
    found = span.attributes
    is_model_named = any(name in found for name in (*MODELS, "model")) or any(
        there is True for there in span.others.values()
    )
    known = next((name for name in found if name in TOKEN_NAMES and found[name]), None)
    unknown = known or _unknown_counts(span)
    if not is_model_named or unknown is None or unknown.startswith(_SUMS):
        return
    raise Unsure(
        unknown,
        span.others.get(unknown, found.get(unknown)),
        f"{shorten(span.name or 'the span')} names a model and has token counts such as {unknown}, but not under names "
        "that are known together: send gen_ai.operation.name, gen_ai.request.model, gen_ai.usage.input_tokens and "
        "gen_ai.usage.output_tokens",
    )


_SUMS: Final = ("codex.turn.", "codex.usage.")
"""Counts of a whole turn, whose requests are in log records."""


def _end_ns(span: Span) -> int:
    if not span.end_ns:
        raise FaultyRecord("endTimeUnixNano", span.end_ns, "endTimeUnixNano is missing; a span counts when it ends")
    return span.end_ns


def _common(span: Span, options: Options, *, is_usual: bool = False) -> Event:
    fields = Fields(span.attributes)
    tier = fields.text(*_TIERS)
    if not is_usual or otlp_agents.TIER in span.resource:
        tier = otlp_agents.tier_of(span.attributes, span.resource, tier)
    common: Event = {
        "id": _identity(span),
        "timestamp": _end_ns(span) // 1_000_000 / 1000,
        "model": fields.text(*_MODELS) or Fields(span.resource).text(*MODELS),  # vLLM does not name it
        "service_tier": None if tier == "auto" else tier,  # as asked for; nobody said what it came to
        **who(span.attributes, span.resource, options),
    }
    if not is_usual and any(name in span.attributes for name in _DEPENDS_NAMES):
        told = Fields({name: span.attributes.get(f"{_ANTHROPIC}.{name}") for name in _DEPENDS}, _ANTHROPIC)
        priced = priced_by(told)
        common["service_tier"] = common["service_tier"] or priced["service_tier"]
        common |= {name: priced[name] for name in ("inference_geo", "batch") if priced[name]}
    return common


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
    answer = found.get(RESPONSE_ID)
    if not answer and found.get(_CHOICES, 1) == 1:  # else there is a span for each choice
        answer = found.get(_REQUEST_ID)
    if isinstance(answer, str) and answer:
        return answer if len(answer) <= TEXT_MAX else call_id(answer)
    return _own_id(span)


def _own_id(span: Span) -> str:
    if not _ID.fullmatch(span.trace_id) or not _ID.fullmatch(span.span_id):
        raise FaultyRecord(
            "traceId",
            f"{span.trace_id} {span.span_id}",
            "without gen_ai.response.id a span needs a traceId and a spanId, hexadecimal, to be recognised when it is "
            "sent again",
        )
    return f"{span.trace_id}-{span.span_id}"


def _cost(found: Attributes) -> Event | None:
    if str(found.get(_CURRENCY, "usd")).lower() != "usd":
        return None
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
