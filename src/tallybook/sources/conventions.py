"""How providers count: which parts are beside their whole instead of in it, and what proves it.

A reader turns the spelling of its dialect into `Counts`; `settled` puts them in order, and `event_fields` makes fields
of events of them. By the convention of most, cached and cache-write tokens are in the input, and reasoning tokens in
the output. Who counts otherwise stands in one table here, with what proves it. Without a proof the convention of the
reader holds; nothing is guessed.

Sources: the providers' documentation of their usage objects - xAI and Google's OpenAI-compatible address (reasoning
beside), Anthropic and Bedrock (cache beside) - and records of LiteLLM, whose prompt_tokens left out cache writes in
2025.
"""

from collections.abc import Mapping
from enum import Flag, auto
from typing import Final, NamedTuple

from tallybook.sources.record import Event

Counts = Mapping[str, int]
"""Tokens by the keys of `NAMES`; a count that the source does not give is absent."""

NAMES: Final = (
    "input",
    "output",
    "total",
    "cached",
    "write",
    "write_short",
    "write_long",
    "reasoning",
    "text input",
    "image input",
    "audio input",
    "text cached",
    "image cached",
    "audio cached",
    "text output",
    "image output",
    "audio output",
)
"""What is counted. Parts of the input by modality include their cached tokens; ``write_short`` and ``write_long`` are
what was written to a cache that lasts minutes, and hours."""


class Beside(Flag):
    """Which parts are counted beside their whole."""

    NOTHING = 0
    READ = auto()
    WRITE = auto()
    REASONING = auto()
    CACHE = READ | WRITE


class Family(NamedTuple):
    """Providers that count alike.

    Attributes:
        words: in the name of a provider, model or instrumentation.
        beside: what their API counts beside its whole, so that a part above its whole proves it.
        rest: what its total has beyond all it names is used as well: thoughts, and what tools put into the prompt.
    """

    words: tuple[str, ...]
    beside: Beside
    rest: bool = False


class Convention(NamedTuple):
    """What a reader knows of its dialect, whoever's counts it reads.

    Attributes:
        beside: what is counted beside its whole, always.
        has_reads: an input that has room for what was read from a cache includes it, also where it leaves writes out.
    """

    beside: Beside = Beside.NOTHING
    has_reads: bool = False


INSIDE: Final = Convention()
CACHE_BESIDE: Final = Convention(Beside.CACHE)
LITELLM: Final = Convention(has_reads=True)
FAMILIES: Final = (
    Family(("anthropic", "bedrock", "claude", "aws"), Beside.CACHE),
    Family(("gemini", "google", "gcp", "vertex"), Beside.REASONING, rest=True),
    Family(("x_ai", "xai", "grok"), Beside.REASONING),
)
"""The first that a name is of counts: Anthropic's models count as Anthropic's on Vertex, too."""
_NOBODY: Final = Family((), Beside.NOTHING)

SCOPES: Final[Mapping[str, Convention]] = {
    "opentelemetry.instrumentation.genai.bedrock": CACHE_BESIDE,
}
"""Instrumentations, by the name of their scope, that hand on a provider's counts as they are."""

_CACHED_PARTS: Final = ("text cached", "image cached", "audio cached")


def family_of(*names: object) -> Family:
    """Return how the makers of something count; `names` are of provider, model and instrumentation."""
    makers = " ".join(str(name) for name in names if name).lower()
    return next((family for family in FAMILIES if any(word in makers for word in family.words)), _NOBODY)


def beside_of(counts: Counts, family: Family, convention: Convention) -> tuple[int, int]:
    """Return what has to be added to input and output, because the source counts it beside them.

    Args:
        counts: as the source has them.
        family: whose they are, see `family_of`.
        convention: the reader's.
    """
    total_in, total_out = counts.get("input", 0), counts.get("output", 0)
    read, write, reasoning = counts.get("cached", 0), counts.get("write", 0), counts.get("reasoning", 0)
    if convention.beside:
        return _added(convention.beside, read, write, reasoning)
    beyond = counts.get("total", 0) - total_in - total_out
    if beyond > 0:
        # The total is made only with what is beside. Where two parts are of one size, the family's own comes first.
        for beside in (family.beside, *_PROVEN_BY_TOTAL):
            if beyond == sum(added := _added(beside, read, write, reasoning)):
                return added
        if family.rest and "input" in counts and beyond > reasoning:
            return (beyond - reasoning, reasoning) if reasoning else (0, beyond)
    found = Beside.NOTHING
    if Beside.CACHE in family.beside and read + write > total_in:
        found = Beside.WRITE if convention.has_reads and read <= total_in else Beside.CACHE
    if Beside.REASONING in family.beside and reasoning > total_out:
        found = Beside.REASONING
    return _added(found, read, write, reasoning)


_PROVEN_BY_TOTAL: Final = (
    Beside.CACHE,
    Beside.REASONING,
    Beside.CACHE | Beside.REASONING,
    Beside.WRITE,
    Beside.WRITE | Beside.REASONING,
)


def _added(beside: Beside, read: int, write: int, reasoning: int) -> tuple[int, int]:
    return (
        (read if Beside.READ in beside else 0) + (write if Beside.WRITE in beside else 0),
        reasoning if Beside.REASONING in beside else 0,
    )


def settled(counts: Counts, family: Family, convention: Convention = INSIDE) -> dict[str, int]:
    """Return counts whose wholes include all of their parts; arguments as of `beside_of`."""
    found = dict(counts)
    if "cached" not in found and (parts := [found[name] for name in _CACHED_PARTS if name in found]):
        found["cached"] = sum(parts)
    if not found.get("write") and (split := found.get("write_short", 0) + found.get("write_long", 0)):
        found["write"] = split
    more_in, more_out = beside_of(found, family, convention)
    if "input" in found:
        found["input"] += more_in
    if more_out:
        found["output"] = found.get("output", 0) + more_out
    return found


def event_fields(counts: Counts) -> Event:
    """Return settled counts as fields of an event; None for what is not known.

    Ours of text and image leave cached tokens out, where those of `Counts` include them.
    """
    image, cached_image = _uncached_image(counts)
    return {
        "input_tokens": counts.get("input"),
        "input_cached_tokens": counts.get("cached"),
        "input_cache_write_tokens": counts.get("write"),
        "input_cache_write_30m_tokens": counts.get("write_short"),
        "input_cache_write_12h_tokens": counts.get("write_long"),
        "input_audio_tokens": counts.get("audio input"),
        "input_image_tokens": image,
        "input_cached_audio_tokens": counts.get("audio cached"),
        "input_cached_image_tokens": cached_image,
        "output_tokens": counts.get("output"),
        "output_audio_tokens": counts.get("audio output"),
        "output_image_tokens": counts.get("image output"),
    }


def _uncached_image(counts: Counts) -> tuple[int | None, int | None]:
    """Return how many of the image tokens were not cached, and how many were.

    Where the source does not say how many were cached, the least is taken that makes the parts fit: text comes first,
    and so is cached first.
    """
    image, cached_image = counts.get("image input"), counts.get("image cached")
    if image is None:
        return None, cached_image
    if cached_image is None:
        cached = counts.get("cached", 0)
        room = counts.get("input", 0) - cached - counts.get("write", 0) - counts.get("audio input", 0)
        cached_image = min(max(0, image - max(0, room)), cached)
    return max(0, image - cached_image), cached_image or None
