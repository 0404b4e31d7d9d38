"""Log records: events that say what one call of a model used.

These are the event of OpenTelemetry's GenAI convention, those of coding agents (`tallybook.sources.otlp_agents`), and
any that has the convention's attributes. Bodies are not looked at. An event that names a model and carries counts under
names nobody knows is rejected; all others are passed over.
"""

from collections.abc import Callable
from typing import Any, Final

from tallybook.event import shorten
from tallybook.sources import otlp_agents
from tallybook.sources.otlp import Log, NotOtlp, Span, digest, logs_of
from tallybook.sources.otlp_names import RESPONSE_ID, Names
from tallybook.sources.otlp_spans import names as span_names
from tallybook.sources.otlp_spans import span_events, who
from tallybook.sources.otlp_tokens import MODELS, TOKEN_NAMES
from tallybook.sources.record import NO_OPTIONS, Event, FaultyRecord, Options, Unsure

_OPERATION: Final = "gen_ai.operation.name"
_DETAILS: Final = "gen_ai.client.inference.operation.details"
_ERROR: Final = "error.type"
_CLAUDE: Final = ("api_request", "claude_code.api_request")
_CODEX: Final = "codex.sse_event"
_API_RESPONSE: Final = ".api_response"
"""How events of Gemini CLI are called, and of the programs that were made from it."""


def names(options: Options) -> Names:
    """Return how attributes are read."""
    return Names((_ERROR, *span_names(options).read))


def events(record: Any, options: Options = NO_OPTIONS) -> list[Event]:
    """Return the events of one ``LogsData`` in JSON; none where no log record is of a call of a model.

    Raises:
        FaultyRecord: it is no such thing, or an attribute is wrong.
    """
    try:
        return [event for log in logs_of(record, names(options)) for event in log_events(log, options)]
    except NotOtlp as error:
        raise FaultyRecord(None, record, f"a record is OTLP's LogsData in JSON: {error}") from None


def log_events(log: Log, options: Options) -> list[Event]:
    """Return the events of one log record, as `events` does."""
    if not log.others and TOKEN_NAMES.isdisjoint(log.attributes):
        return []
    if not otlp_agents.is_chosen(log.resource, "logs"):
        return []
    read = _reader(log)
    if read is None:
        return _of_convention(log, options)
    event = read(log, options)
    if not event or not (event.get("input_tokens") or event.get("output_tokens")):
        return []
    return [event | who(log.attributes, log.resource, options)]


def _reader(log: Log) -> Callable[[Log, Options], Event | None] | None:
    """Return what reads a coding agent's record, None if it is none."""
    if log.name in _CLAUDE and "input_tokens" in log.others:
        return otlp_agents.claude_log
    if log.name == _CODEX:
        return otlp_agents.codex_log
    if log.name.endswith(_API_RESPONSE) and "input_token_count" in log.others:
        return otlp_agents.gemini_log
    return None


def _of_convention(log: Log, options: Options) -> list[Event]:
    """Return the event of a record that has the attributes of a span of a call."""
    found = dict(log.attributes)
    is_known = log.name == _DETAILS or not TOKEN_NAMES.isdisjoint(found)
    if not is_known or not any(name in found for name in MODELS):
        _refuse_unknown(log)
        return []
    found.setdefault(_OPERATION, "chat")
    if otlp_agents.is_of_gemini(log):
        counts = (found.get(f"gen_ai.usage.{side}_tokens") for side in ("input", "output"))
        found[RESPONSE_ID] = otlp_agents.gemini_id(log, *counts)
    elif not found.get(RESPONSE_ID) and not log.span_id:
        found[RESPONSE_ID] = f"otlp-log-{digest(log.name, found, log.time_ns).hex()}"
    time_ns = otlp_agents.time_of(log)
    is_error = _ERROR in found
    return span_events(
        Span(log.name, log.trace_id, log.span_id, "", time_ns, is_error, found, log.resource, log.others, log.scope),
        options,
    )


def _refuse_unknown(log: Log) -> None:
    """Refuse a record that names a model and has counts, where one of the two has a name that nobody knows.

    Raises:
        Unsure: always, then.
    """
    counts = {**log.others, **{name: log.attributes[name] for name in log.attributes if name in TOKEN_NAMES}}
    unknown = next((name for name, count in counts.items() if count and count is not True), None)
    is_model_named = any(name in log.attributes for name in (*MODELS, "model")) or any(
        there is True for there in log.others.values()
    )
    if unknown is None or not is_model_named:
        return
    raise Unsure(
        unknown,
        counts[unknown],
        f"the event {shorten(log.name or 'without a name')} names a model and has token counts such as {unknown}, but "
        "not under names that are known together: send gen_ai.request.model, gen_ai.usage.input_tokens and "
        "gen_ai.usage.output_tokens",
    )
