"""Spans of LiveKit's agents whose counts are in JSON only: read as the attributes that later versions write.

Source: ``livekit-agents`` 1, ``metrics/base.py`` and ``telemetry/trace_types.py``.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallybook.sources.otlp_wire import Attributes, Plain

METRICS: Final = "lk.llm_metrics"
_COUNTS: Final[Mapping[str, str]] = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "prompt_cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
_BYTES_MAX: Final = 16 * 1024


def translated(attributes: Attributes) -> Attributes:
    """Return the attributes of a span with its metrics as the convention has them; as they are if those are no JSON."""
    text = attributes.get(METRICS)
    if not isinstance(text, str) or len(text) > _BYTES_MAX:
        return attributes
    try:
        metrics = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return attributes
    metadata = metrics.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    more: dict[str, Plain] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.id": _text(metrics.get("request_id")),
        "gen_ai.request.model": _text(metadata.get("model_name")),
        "gen_ai.provider.name": _text(metadata.get("model_provider")),
        **{name: value for key, name in _COUNTS.items() if isinstance(value := metrics.get(key), int)},
    }
    return {name: value for name, value in more.items() if value} | dict(attributes)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
