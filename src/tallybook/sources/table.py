"""The table of sources: what records may be sent as."""

from collections.abc import Mapping
from typing import Final

from tallybook.sources import (
    answers,
    bedrock,
    claude_code,
    cloudevents,
    cohere,
    gemini,
    litellm,
    ollama,
    openai,
    otlp_logs,
    otlp_metrics,
    otlp_spans,
    sync,
)
from tallybook.sources.record import Source

SOURCES: Final[Mapping[str, Source]] = {
    source.name: source
    for source in (
        Source("litellm", litellm.events, heeds_429=False, reports_calls=True),
        Source("openai", openai.events, reports_calls=True),
        Source("anthropic", claude_code.events, reports_calls=True),
        Source("gemini", gemini.events, reports_calls=True),
        Source("bedrock", bedrock.events, reports_calls=True),
        Source("ollama", ollama.events, reports_calls=True),
        Source("cohere", cohere.events, reports_calls=True),
        Source("response", answers.events, reports_calls=True),
        Source("otlp", otlp_spans.events, reports_calls=True),
        Source("otlp-metrics", otlp_metrics.events),
        Source("otlp-logs", otlp_logs.events, reports_calls=True),
        Source("cloudevents", cloudevents.events),
        Source("sync", sync.events),
        Source("calls", sync.events, reports_calls=True),
    )
}
