"""OpenAI's organization Usage and Costs APIs, and whoever answers as they do: another Tallybook.

Its costs come as numbers or as text of many decimals, its buckets under `results` or `result`, and its token counts do
not always agree with each other. Source: types of the official ``openai`` client 3.54, published answers.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from tallybook.kinds import DIMENSIONS, KINDS, TOKEN_MEASURES, UsageKind
from tallybook.money import WIDE
from tallybook.providers.record import Cost, Provider, Report, amount, decimal, name, refuse_other_currency
from tallybook.sources.record import Event, Fields
from tallybook.tokens import Contradiction, complete

_NEWER: Final = ("decisions", "file_search_calls", "web_search_calls")
"""Kinds that not every server has."""
_BOOK: Final = ("project_id", "model")
_WHOLES: Final = ("input_tokens", "input_cached_tokens", "output_tokens", "num_model_requests")
"""What is kept of token counts that contradict each other."""
_TIMES: Final[Mapping[str, int]] = {
    "tokens": 1,
    "1000_tokens": 1_000,
    "duration_seconds": 1,
    "duration_minutes": 60,
    "duration_hours": 3_600,
    "gibibyte_hours": 1,
    "images": 1,
    "characters": 1,
}
"""How many of our unit each of its units is."""


def _usage(kind: UsageKind) -> Callable[[Fields], list[Event]]:
    def read(result: Fields) -> list[Event]:
        measures = {field: count for field in kind.measures if (count := result.count(field)) is not None}
        if not any(measures.values()):
            return []
        dimensions = {field: value for field in kind.group_by if (value := _dimension(result, field)) is not None}
        return [{"kind": kind.name, **dimensions, **_agreeing(kind, measures)}]

    return read


def _dimension(result: Fields, field: str) -> str | bool | None:
    """Return a value of a dimension; none where it is none of those an event may have."""
    if field == "batch":
        value = result.values.get(field)
        return value if isinstance(value, bool) else None
    text = result.text(field)
    values = DIMENSIONS[field].values
    return None if values and text not in values else text


def _agreeing(kind: UsageKind, measures: dict[str, int]) -> dict[str, int]:
    """Return counts without those parts that make them contradict each other."""
    if "output_tokens" not in kind.measures:
        return measures
    for kept in (measures, _WHOLES, _WHOLES[:1] + _WHOLES[2:]):
        found = {field: count for field, count in measures.items() if field in kept}
        try:
            complete(tuple(found.get(field) for field in TOKEN_MEASURES))
        except Contradiction:
            continue
        return found
    # Nothing is left that could contradict: there are no tokens in it, only requests.
    return {"input_tokens": 0, "num_model_requests": measures.get("num_model_requests", 0)}


def _costs(result: Fields) -> list[Cost]:
    charged = result.fields("amount")
    refuse_other_currency(charged)
    quantity, unit = decimal(result, "quantity"), result.values.get("quantity_unit")
    times = 1 if unit is None else _TIMES.get(str(unit))
    return [
        Cost(
            name(result, "line_item"),
            result.text("project_id"),
            None if quantity is None or times is None else WIDE.multiply(quantity, Decimal(times)),
            amount(charged, "value"),
        )
    ]


def _window(start_s: int, end_s: int) -> dict[str, Any]:
    return {"start_time": start_s, "end_time": end_s}


def _start(bucket: Fields) -> int:
    start_s = bucket.count("start_time")
    if start_s is None:
        raise bucket.wrong("start_time", "is missing")
    return start_s


def _headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _provider(called: str, address: str | None, key_variable: str) -> Provider:
    return Provider(
        called,
        address,
        key_variable,
        _headers,
        _window,
        _start,
        tuple(
            Report(
                f"/v1/organization/usage/{kind.name}",
                tuple(field for field in _BOOK if field in kind.group_by),
                kind.group_by,
                _usage(kind),
                is_optional=kind.name in _NEWER,
            )
            for kind in KINDS.values()
            if not kind.is_level  # a mean is no report of how much is held; what that cost is among the costs
        ),
        Report("/v1/organization/costs", ("project_id", "line_item"), (), _costs),
    )


OPENAI: Final = _provider("openai", "https://api.openai.com", "OPENAI_ADMIN_KEY")
TALLYBOOK: Final = _provider("tallybook", None, "TALLYBOOK_SOURCE_KEY")
