"""Vercel's AI SDK: what its spans say besides the counts that all share, which differs by version and provider.

Since version 6 the input includes the cache, with every provider, and ``ai.usage.inputTokenDetails`` shows it. Before,
the input is the provider's own figure: Anthropic's and Bedrock's leave the cache out. What was read from a cache, and
what was written, is in the provider's metadata.

Source: packages ``ai`` 4 to 6 with their providers' packages.
"""

from typing import Any, Final, NamedTuple

import msgspec

from tallybook.sources.conventions import CACHE_BESIDE, Beside, Convention, Counts, Family, event_fields, settled
from tallybook.sources.otlp_wire import Attributes
from tallybook.sources.record import Event, FaultyRecord, Fields
from tallybook.sources.usage_objects import ANTHROPIC, priced_by

METADATA: Final = "ai.response.providerMetadata"
"""What a provider said beside the counts, as JSON, by provider."""
CACHED: Final = "ai.usage.cachedInputTokens"
_DETAILS: Final = (
    "ai.usage.inputTokenDetails.noCacheTokens",
    "ai.usage.inputTokenDetails.cacheReadTokens",
    "ai.usage.inputTokenDetails.cacheWriteTokens",
)
NAMES: Final = frozenset({METADATA, *_DETAILS})
_BYTES_MAX: Final = 256 * 1024
"""Metadata may hold what a search found; what is longer is not looked at."""
_MORE: Final = (
    ("openai", (), "cachedPromptTokens", "cached"),
    ("azure", (), "cachedPromptTokens", "cached"),
    ("deepseek", (), "promptCacheHitTokens", "cached"),
    ("anthropic", (), "cacheReadInputTokens", "cached"),
    ("anthropic", (), "cacheCreationInputTokens", "write"),
    ("bedrock", ("usage",), "cacheReadInputTokens", "cached"),
    ("bedrock", ("usage",), "cacheWriteInputTokens", "write"),
)
"""Provider, where in its metadata, name of the field, and what it counts."""


class Told(NamedTuple):
    """What the metadata say.

    Attributes:
        usage: Anthropic's usage object, None if it is not there.
        counts: counts by the keys of `tallybook.sources.conventions.NAMES`.
    """

    usage: Fields | None
    counts: Counts


def told(attributes: Attributes) -> Told:
    """Return what a provider's metadata say of usage; nothing if there are none, or none that can be read."""
    text = attributes.get(METADATA)
    if not isinstance(text, str) or len(text) > _BYTES_MAX:
        return Told(None, {})
    try:
        metadata = Fields(msgspec.json.decode(text, type=dict[str, Any]), METADATA)
    except (msgspec.DecodeError, RecursionError):
        return Told(None, {})
    found: dict[str, int] = {}
    try:
        for provider, path, name, count in _MORE:
            where = metadata.fields(provider)
            for inner in path:
                where = where.fields(inner)
            if value := where.count(name):
                found[count] = value
        usage = metadata.fields("anthropic").fields("usage")
        is_whole = {"input", "output"}.issubset(ANTHROPIC.counts(usage))
    except FaultyRecord:
        return Told(None, found)
    return Told(usage if is_whole else None, found)


def of_anthropic(usage: Fields, family: Family) -> Event:
    """Return what Anthropic's usage object says, as fields of an event."""
    fields = event_fields(settled(ANTHROPIC.counts(usage), family, CACHE_BESIDE))
    return fields | {name: value for name, value in priced_by(usage).items() if value is not None}


def convention(attributes: Attributes, family: Family, more: Counts) -> Convention | None:
    """Return how a span counts where it is of a version before 6, and its provider leaves the cache out; else None."""
    is_earlier = (CACHED in attributes or bool(more)) and not any(name in attributes for name in _DETAILS)
    return CACHE_BESIDE if is_earlier and Beside.CACHE in family.beside else None
