"""Coding agents: what Claude Code, Codex CLI and Gemini CLI say of one request, in log records and in spans.

They say it several times: in logs, in spans and in metrics. Logs count, and so do spans, which name the same request.
Metrics name none, so they count only where the sender says that they are its signal (`SIGNAL`). An agent that runs on
a subscription is not billed by the token: such usage has the service tier `subscription`, and what it would have cost
is not taken as its cost.

Sources: Claude Code's documentation of its monitoring, October 2026; `codex-rs/otel` of Codex CLI; telemetry of
Gemini CLI 0.30 and of its descendants.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tallybook.event import rfc3339_to_ms
from tallybook.sources.otlp import Log, Span, digest
from tallybook.sources.otlp_names import is_irrelevant
from tallybook.sources.otlp_tokens import COMPLETIONS
from tallybook.sources.otlp_wire import Attributes
from tallybook.sources.record import Event, FaultyRecord, Fields, Options, call_id, cost, note_unread

SIGNAL: Final = "tallybook.signal"
"""An attribute of the sender: which of its signals counts, `logs`, `spans` or `metrics`."""
TIER: Final = "tallybook.service_tier"
"""An attribute of the sender: the tier of all it uses, such as `subscription`."""
SUBSCRIPTION: Final = "subscription"
CLAUDE_SPAN: Final = "claude_code.llm_request"
GEMINI: Final = "gemini-cli"
_MODEL: Final = "model"
_TIME: Final = "event.timestamp"
_REQUEST_IDS: Final = ("request_id", "client_request_id", "gen_ai.response.id")
"""Claude Code's names of a request, in logs and in spans alike."""
_COST: Final = "cost_usd"
_SEQUENCE: Final = ("session.id", "prompt.id", "event.sequence", _TIME)
_SUBSCRIBED: Final = (("auth_mode", ("chatgpt", "chatgptauthtokens")), ("auth_type", ("oauth-personal",)))
"""How Codex CLI and Gemini CLI say that somebody is signed in, and no key is billed."""
NAMES: Final = frozenset(
    {SIGNAL, TIER, _MODEL, *_REQUEST_IDS, _COST, *_SEQUENCE, "speed", "span.type"}
    | {"event.name", "event.kind", "conversation.id", "auth_mode", "auth_type", "installation.id"}
)
"""Attributes that are looked at; the counts are numbers that nobody else asks for."""


def is_chosen(resource: Attributes, signal: str) -> bool:
    """Return whether a sender's signal counts: it does unless the sender chose another."""
    return resource.get(SIGNAL, signal) == signal


def tier_of(attributes: Attributes, resource: Attributes, reported: object = None) -> str | None:
    """Return at what tier something was used: as the sender says of itself, by subscription, or as reported."""
    chosen = resource.get(TIER)
    if isinstance(chosen, str):
        return chosen
    for name, values in _SUBSCRIBED:
        if str(attributes.get(name, "")).lower() in values:
            return SUBSCRIPTION
    return reported if isinstance(reported, str) else None


def is_of_gemini(log: Log) -> bool:
    """Return whether a log record is Gemini CLI's, or of a program made from it."""
    return log.scope == GEMINI or ("installation.id" in log.attributes and _TIME in log.attributes)


def claude_request(record: Span | Log, signal: str, own_id: str, time_ns: int, options: Options) -> Event | None:
    """Return the event of a request of Claude Code, which counts the cache beside the input.

    Where the API gave the request no id, logs and spans cannot be matched: of a session the signal counts that it came
    by first, and None is returned for the other.
    """
    counts = Fields(record.others)
    cached, write = counts.count("cache_read_tokens"), counts.count("cache_creation_tokens")
    fresh = counts.count("input_tokens")
    read = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    named = next((value for name in _REQUEST_IDS if (value := record.attributes.get(name))), None)
    session = record.attributes.get("session.id")
    is_unmatched = not named and session and options.owner
    if is_unmatched and options.sessions.note((options.owner, session), signal) != signal:
        return None
    speed = "fast" if record.attributes.get("speed") == "fast" else None
    return _event(
        record,
        options,
        str(named) if named else own_id,
        time_ns,
        speed,
        read,
        input_tokens=None if fresh is None else fresh + (cached or 0) + (write or 0),
        input_cached_tokens=cached,
        input_cache_write_tokens=write,
        output_tokens=counts.count("output_tokens"),
    )


def claude_log(log: Log, options: Options) -> Event | None:
    """Return the event of Claude Code's ``api_request``."""
    parts = [log.attributes.get(name) for name in _SEQUENCE]
    own_id = f"claude-code-{digest(parts, log.time_ns).hex()}"
    return claude_request(log, "logs", own_id, time_of(log), options)


def codex_log(log: Log, options: Options) -> Event | None:
    """Return the event of a ``codex.sse_event`` that ends a response, whose whole counts hold all parts."""
    if log.attributes.get("event.kind") != "response.completed":
        return None
    counts = Fields(log.others)
    # What it calls tool_token_count is the sum of all.
    read = ("input_token_count", "output_token_count", "cached_token_count", "cache_write_token_count")
    parts = [log.attributes.get(name) for name in ("conversation.id", _TIME, _MODEL)]
    own_id = f"codex-{digest(parts, log.time_ns, [log.others.get(name) for name in read]).hex()}"
    return _event(
        log,
        options,
        own_id,
        time_of(log),
        None,
        (*read, "tool_token_count"),
        input_tokens=counts.count("input_token_count"),
        input_cached_tokens=counts.count("cached_token_count"),
        input_cache_write_tokens=counts.count("cache_write_token_count"),
        output_tokens=counts.count("output_token_count"),
    )


def gemini_log(log: Log, options: Options) -> Event:
    """Return the event of an ``api_response``: thoughts and what tools put into the prompt are apart, as in the API."""
    counts = Fields(log.others)
    prompt, answer = counts.count("input_token_count") or 0, counts.count("output_token_count") or 0
    thoughts, tools = counts.count("thoughts_token_count") or 0, counts.count("tool_token_count") or 0
    total = counts.count("total_token_count")
    if total == prompt + answer:  # as programs say that hand on what OpenAI's API answers
        thoughts = tools = 0
    read = ("input_token_count", "output_token_count", "cached_content_token_count", "thoughts_token_count")
    return _event(
        log,
        options,
        gemini_id(log, prompt, answer),
        time_of(log),
        None,
        (*read, "tool_token_count", "total_token_count"),
        input_tokens=prompt + tools,
        input_cached_tokens=counts.count("cached_content_token_count"),
        output_tokens=answer + thoughts,
    )


def gemini_id(log: Log, prompt: object, answer: object) -> str:
    """Return what the two log records have in common that Gemini CLI makes of one request."""
    return f"gemini-cli-{digest(log.attributes.get('session.id'), log.attributes.get(_TIME), prompt, answer).hex()}"


def time_of(log: Log) -> int:
    """Return when something happened, Unix nanoseconds; raises `FaultyRecord` if no field says it."""
    if log.time_ns:
        return log.time_ns
    try:
        return rfc3339_to_ms(str(log.attributes.get(_TIME))) * 1_000_000
    except ValueError:
        pass
    if not log.observed_ns:
        raise FaultyRecord("timeUnixNano", log.time_ns, "timeUnixNano is missing; a log record counts when it happened")
    return log.observed_ns


def _event(
    record: Span | Log,
    options: Options,
    identity: str,
    time_ns: int,
    reported_tier: str | None,
    read: Iterable[str],
    **tokens: int | None,
) -> Event:
    tier = tier_of(record.attributes, record.resource, reported_tier)
    event: Event = {
        "kind": COMPLETIONS,
        "id": call_id(identity),
        "timestamp": time_ns // 1_000_000 / 1000,
        "model": Fields(record.attributes).text(_MODEL, "gen_ai.request.model"),
        "service_tier": tier,
        **tokens,
    }
    note_others(record.others, read, options)
    if options.takes_costs and tier != SUBSCRIPTION and (reported := cost(record.attributes.get(_COST))):
        event["cost"] = reported
    return event


def note_others(others: Mapping[str, Any], read: Iterable[str], options: Options) -> None:
    """Note counts that nobody reads and that are not known to repeat others."""
    for name in others.keys() - set(read):
        if others[name] and others[name] is not True and not is_irrelevant(name):
            note_unread(options, name)
