"""Anthropic's Usage and Cost Admin API.

Its usage has no count of requests, its input is without what came from the cache or went into it, and its costs are
cents without a quantity. What is on its priority tier is in the usage and in no cost. Source: its published reference
of ``usage_report/messages`` and ``cost_report``.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from tallybook.money import WIDE
from tallybook.parts import PARTS, line_item
from tallybook.providers.record import Cost, Provider, Report, amount, name, refuse_other_currency
from tallybook.sources.record import Event, Fields

_VERSION: Final = "2023-06-01"
_PARTS: Final = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cached_input",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_30m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_12h",
    "output_tokens": "output",
}
"""Its two periods a cache lasts are the shorter and the longer of ours."""
_TIERS: Final = {"standard": "default", "batch": "default"}


def _usage(result: Fields) -> list[Event]:
    periods = result.fields("cache_creation")
    short = periods.count("ephemeral_5m_input_tokens") or 0
    long = periods.count("ephemeral_1h_input_tokens") or 0
    if "cache_creation" not in result:  # nobody says for how long
        short = result.count("cache_creation_input_tokens") or 0
    cached = result.count("cache_read_input_tokens") or 0
    tokens = {
        "input_tokens": (result.count("uncached_input_tokens") or 0) + cached + short + long,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": short + long,
        "input_cache_write_30m_tokens": short,
        "input_cache_write_12h_tokens": long,
        "output_tokens": result.count("output_tokens") or 0,
    }
    tier = result.text("service_tier")
    common: Event = {
        "project_id": result.text("workspace_id"),
        "api_key_id": result.text("api_key_id"),
        "model": result.text("model"),
        "service_tier": _TIERS.get(tier, tier) if tier else None,
        "batch": tier == "batch" if tier else None,
        "num_model_requests": 0,  # it does not say how many
    }
    common = {field: value for field, value in common.items() if value is not None}
    searches = result.fields("server_tool_use").count("web_search_requests")
    return [
        *([{"kind": "completions", **common, **tokens}] if any(tokens.values()) else []),
        *([{"kind": "web_search_calls", **common, "num_requests": searches}] if searches else []),
    ]


def _costs(result: Fields) -> list[Cost]:
    refuse_other_currency(result)
    cents = amount(result, "amount")
    return [Cost(_line_item(result), result.text("workspace_id"), None, WIDE.multiply(cents, Decimal("0.01")))]


def _line_item(result: Fields) -> str | None:
    """Return a line item as we call it; what we have no name for, as Anthropic describes it."""
    if result.values.get("cost_type") == "web_search":
        return PARTS["web_searches"].label
    part = _PARTS.get(str(result.values.get("token_type")))
    model = result.text("model")
    if part and model:
        return line_item(PARTS[part], model)
    return name(result, "description", "cost_type")


def _window(start_s: int, end_s: int) -> dict[str, Any]:
    return {"starting_at": _rfc3339(start_s), "ending_at": _rfc3339(end_s)}


def _rfc3339(instant_s: int) -> str:
    return datetime.fromtimestamp(instant_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _start(bucket: Fields) -> int:
    text = bucket.text("starting_at")
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        raise bucket.wrong("starting_at", "must be an RFC 3339 time") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _headers(key: str) -> dict[str, str]:
    return {"x-api-key": key, "anthropic-version": _VERSION}


ANTHROPIC: Final = Provider(
    "anthropic",
    "https://api.anthropic.com",
    "ANTHROPIC_ADMIN_KEY",
    _headers,
    _window,
    _start,
    (
        Report(
            "/v1/organizations/usage_report/messages",
            ("workspace_id", "model"),
            ("workspace_id", "api_key_id", "model", "service_tier"),
            _usage,
        ),
    ),
    Report("/v1/organizations/cost_report", ("workspace_id", "description"), (), _costs),
)
