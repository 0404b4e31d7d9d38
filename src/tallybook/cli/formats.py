"""What the rows of a file are: events of ours, or records of other software (see `tallybook.sources`)."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from tallybook.kinds import DIMENSIONS, KINDS, MEASURES
from tallybook.sources import (
    agent_sessions,
    answers,
    bedrock,
    claude_code,
    cohere,
    gemini,
    litellm,
    ollama,
    openai,
    openai_dashboard,
)
from tallybook.sources.record import Event, Options

FIELDS: Final = ("kind", "id", "timestamp", *DIMENSIONS, *MEASURES, "cost")
"""Every field of an event."""

Read = Callable[[Any, Options], list[Event]]


class Form(NamedTuple):
    """What the rows of a file may be.

    Attributes:
        reader: makes what reads the rows of one file, in their order; None if they are events already.
        reports_calls: an event that has an id is a call of a model, the same wherever else it is reported.
        repeats: a call may be in several rows, of which the fullest has all of it.
        groups: a row stands for all usage of a group, and its id for the group: two rows of one are both usage.
        columns: those that a table of it may have; None if its own check finds those that do not belong.
    """

    reader: Callable[[], Read] | None
    reports_calls: bool = False
    repeats: bool = False
    groups: bool = False
    columns: frozenset[str] | None = None


_SPEND_LOGS: Final = frozenset(
    {"request_id", "call_type", "status", "model", "spend", "api_key", "user", "team_id", "end_user", "startTime"}
    | {"endTime", "cache_hit", "prompt_tokens", "completion_tokens", "metadata", "messages", "response"}
    | {"completionStartTime", "total_tokens", "model_id", "model_group", "custom_llm_provider", "api_base"}
    | {"cache_key", "request_tags", "organization_id", "requester_ip_address", "session_id", "project_id"}
    | {"request_duration_ms", "mcp_namespaced_tool_name", "agent_id", "proxy_server_request"}
)
"""Columns of LiteLLM's table of spend logs that are read, or say nothing of usage."""


def _calls(read: Read, *, repeats: bool = False, columns: frozenset[str] | None = None) -> Form:
    return Form(lambda: read, reports_calls=True, repeats=repeats, columns=columns)


FORMATS: Final[Mapping[str, Form]] = {
    "events": Form(None),
    "openai": _calls(openai.events, repeats=True),
    "anthropic": _calls(claude_code.events, repeats=True),
    "gemini": _calls(gemini.events, repeats=True),
    "bedrock": _calls(bedrock.events),
    "ollama": _calls(ollama.events),
    "cohere": _calls(cohere.events),
    "response": _calls(answers.events, repeats=True),
    "claude-code": _calls(claude_code.events, repeats=True),
    "codex": Form(lambda: agent_sessions.CodexSession().events, reports_calls=True),
    "gemini-cli": _calls(agent_sessions.gemini_cli_events, repeats=True),
    "litellm": _calls(litellm.events, columns=_SPEND_LOGS),
    "openai-dashboard": Form(lambda: openai_dashboard.events, groups=True, columns=openai_dashboard.COLUMNS),
}
"""What `--format` takes."""


_SIGNS: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "codex": agent_sessions.is_codex,
    "gemini-cli": agent_sessions.is_gemini_cli,
    "litellm": lambda row: "call_type" in row,
    "openai-dashboard": lambda row: all(name in row for name in openai_dashboard.SIGNS),
}
"""How rows are known that are not answers of a provider."""


def detect(row: Mapping[str, Any]) -> str:
    """Return the format of a file by its first row."""
    if "kind" in row and not isinstance(row.get("response"), dict) and not agent_sessions.is_gemini_cli(row):
        return "events"
    if found := next((name for name, is_row in _SIGNS.items() if is_row(row)), None):
        return found
    if shape := answers.shape_of(row):
        return shape.name
    return "openai" if "custom_id" in row or isinstance(row.get("response"), dict) else "events"


def timed(line: dict[str, Any], timestamp: str | None) -> dict[str, Any]:
    """Return a line of OpenAI's batches in an envelope with the time it lacks: not all say when they were made."""
    response = line.get("response")
    body = response.get("body") if isinstance(response, dict) and "custom_id" in line else None
    if timestamp is None or not isinstance(body, dict) or body.get("created") or body.get("created_at"):
        return line
    return {"response": line, "timestamp": value_of("timestamp", timestamp)}


def event(row: Mapping[str, Any], columns: Mapping[str, str]) -> Event:
    """Return the event a row of a table stands for; what is wrong with it is for the server to say.

    Args:
        row: columns and their cells.
        columns: from which column each field comes; if empty, columns are fields.
    """
    if columns:
        row = {field: row[column] for field, column in columns.items() if column in row}
    return {field: value_of(field, value) for field, value in row.items() if not _is_absent(value)}


def add(found: Event, constants: Mapping[str, str]) -> None:
    """Give an event what it lacks of the fields that every event of a file has."""
    found.setdefault("kind", constants.get("kind"))
    kind = KINDS.get(found["kind"]) if isinstance(found["kind"], str) else None
    for field, value in constants.items():
        if kind is None or field not in DIMENSIONS or field in kind.dimensions:
            found.setdefault(field, value_of(field, value))
    if found["kind"] is None:
        del found["kind"]


def _is_absent(value: Any) -> bool:
    """Whether a cell is empty; tables that have no other word for it write "not a number"."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def value_of(field: str, value: Any) -> Any:
    """Return a cell as the type the event's field has; what cannot be read is passed on as it is, to be refused."""
    if field == "cost":
        return _cost(value)
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        return _read(field, value)
    if isinstance(value, float) and value.is_integer() and field in MEASURES:
        return int(value)  # tables without nullable integers hold counts as floats
    return value


def _read(field: str, value: str) -> Any:
    if field == "batch":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    if field == "timestamp":
        return _timestamp(value)
    if field in MEASURES:
        try:
            return float(value) if field == "seconds" else int(value)
        except ValueError:
            return value
    return value


def _cost(value: Any) -> Any:
    """Return the producer's own figure as events have it; a bare number is US dollars, to its last digit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return value
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return value
    return {"value": amount, "currency": "usd"} if amount.is_finite() else str(value)


def _timestamp(value: str) -> Any:
    try:
        return json.loads(value) if value.replace(".", "", 1).isdecimal() else _rfc3339(value)
    except ValueError:
        return value


def _rfc3339(value: str) -> str:
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
