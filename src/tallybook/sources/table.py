"""The table of sources: what records may be sent as."""

from collections.abc import Mapping
from typing import Final

from tallybook.sources import anthropic, cloudevents, litellm, openai, otlp_metrics, otlp_spans, sync
from tallybook.sources.record import Source

SOURCES: Final[Mapping[str, Source]] = {
    source.name: source
    for source in (
        Source("litellm", litellm.events, heeds_429=False, reports_calls=True),
        Source("openai", openai.events, reports_calls=True),
        Source("anthropic", anthropic.events, reports_calls=True),
        Source("otlp", otlp_spans.events, reports_calls=True),
        Source("otlp-metrics", otlp_metrics.events),
        Source("cloudevents", cloudevents.events),
        Source("sync", sync.events),
    )
}
