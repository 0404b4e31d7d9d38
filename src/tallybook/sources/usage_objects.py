"""Usage objects: what answers of OpenAI's shape, Anthropic's messages and LiteLLM's records say was used.

Each dialect has a table of the names its counts have had with any provider; `tallybook.sources.conventions` settles
what is in what. A field that is not in these tables, not known to be irrelevant and not 0 is reported as unread.

Sources: types of the official clients ``openai`` 3.54 and ``anthropic`` 2.12; LiteLLM 1.106; the documentation of
DeepSeek, Moonshot, DashScope, xAI, OpenRouter, Perplexity, Groq, DeepInfra and Google's OpenAI-compatible address.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tallybook.sources.conventions import CACHE_BESIDE, INSIDE, LITELLM, Convention, event_fields, family_of, settled
from tallybook.sources.conventions import Counts as Settled
from tallybook.sources.record import (
    Event,
    Fields,
    Options,
    Watched,
    call_id,
    cost,
    irrelevant,
    made,
    note_unread,
    turn_id,
)

_INSIDE: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTSIDE: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_OPENAI_NAMES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "input": (("", "prompt_tokens"), ("", "input_tokens")),
    "output": (("", "completion_tokens"), ("", "output_tokens")),
    "total": (("", "total_tokens"),),
    "cached": (
        ("inside", "cached_tokens"),
        ("", "prompt_cache_hit_tokens"),
        ("", "cached_tokens"),
        ("", "cache_read_input_tokens"),
        ("inside", "cache_read_input_tokens"),
    ),
    "write": (
        ("inside", "cache_write_tokens"),
        ("inside", "cache_creation_tokens"),
        ("inside", "cache_creation_input_tokens"),
        ("", "cache_creation_input_tokens"),
        ("", "cache_write_tokens"),
    ),
    "write_short": (("writes", "ttl_30m_tokens"), ("writes", "ephemeral_5m_input_tokens")),
    "write_long": (("writes", "ttl_12h_tokens"), ("writes", "ephemeral_1h_input_tokens")),
    "reasoning": (("outside", "reasoning_tokens"), ("", "reasoning_tokens")),
    "text input": (("inside", "text_tokens"),),
    "image input": (("inside", "image_tokens"),),
    "audio input": (("inside", "audio_tokens"),),
    "image cached": (("reads", "image_tokens"), ("reads", "cached_image_tokens")),
    "audio cached": (("reads", "audio_tokens"), ("reads", "cached_audio_tokens")),
    "text output": (("outside", "text_tokens"),),
    "image output": (("outside", "image_tokens"),),
    "audio output": (("outside", "audio_tokens"),),
}
"""Where each count is: of which object, see `_openai_counts`, and what it is called. The first that is not 0 counts."""


def _openai_counts(usage: Fields) -> dict[str, int]:
    inside, outside = usage.fields(*_INSIDE), usage.fields(*_OUTSIDE)
    objects = {
        "": usage,
        "inside": inside,
        "outside": outside,
        "reads": _either(inside.fields("cached_tokens_details"), usage.fields("cached_tokens_details")),
        "writes": _either(
            inside.fields("cache_write_tokens_details", "cache_creation_token_details", "cache_creation"),
            usage.fields("cache_creation"),
        ),
    }
    found: dict[str, int] = {}
    for count, places in _OPENAI_NAMES.items():
        for where, name in places:
            value = objects[where].count(name)
            if value is not None and not found.get(count):
                found[count] = value
    return found


def _either(first: Fields, second: Fields) -> Fields:
    return first if first.values else second


def _anthropic_counts(usage: Fields) -> dict[str, int]:
    """Return the counts of a message: its two periods a cache lasts are the shorter and the longer of ours."""
    periods = usage.fields("cache_creation")
    found = {
        "input": usage.count("input_tokens"),
        "output": usage.count("output_tokens"),
        "cached": usage.count("cache_read_input_tokens"),
        "write": usage.count("cache_creation_input_tokens"),
        "write_short": periods.count("ephemeral_5m_input_tokens"),
        "write_long": periods.count("ephemeral_1h_input_tokens"),
    }
    return {count: value for count, value in found.items() if value is not None}


class Dialect(NamedTuple):
    """How usage objects of one origin are read.

    Attributes:
        counts: reads the counts.
        convention: what is beside what.
        irrelevant: paths of fields that change no count and no price.
    """

    counts: Callable[[Fields], dict[str, int]]
    convention: Convention
    irrelevant: re.Pattern[str]


_REPORTED: Final = {
    "usage.cost": "the source's own figure, which is taken if the operator says so",
    "usage.cost.*": "the source's own figure, which is taken if the operator says so",
    "usage.cost_details.*": "the source's own figure, which is taken if the operator says so",
    "usage.cost_in_usd_ticks": "the source's own figure, which is taken if the operator says so",
    "usage.estimated_cost": "the source's own figure, which is taken if the operator says so",
    "usage.is_byok": "whose key it was, which matters to the source's own figure only",
}
_OPENAI_IRRELEVANT: Final = _REPORTED | {
    "*.text_tokens": "what the other modalities leave over",
    "*.cached_text_tokens": "what the other modalities leave over",
    "*.accepted_prediction_tokens": "part of the output, at its price",
    "*.rejected_prediction_tokens": "part of the output, at its price",
    "*.thinking_tokens": "part of the output, at its price",
    "usage.prompt_cache_miss_tokens": "what the hits leave over",
    "*.cache_type": "the kind of a cache there is one kind of",
    "usage.type": "whether tokens or seconds are counted, which the counts show",
    "usage.queue_time": "a duration",
    "usage.prompt_time": "a duration",
    "usage.completion_time": "a duration",
    "usage.total_time": "a duration",
    "usage.x_details*": "the same counts again, as they are billed",
    "usage.server_tool_use.web_fetch_requests": "free of charge",
    "usage.server_tool_use.tool_search_requests": "free of charge",
}
_ANTHROPIC_IRRELEVANT: Final = {
    "*.thinking_tokens": "part of the output, at its price",
    "usage.server_tool_use.web_fetch_requests": "free of charge",
    "usage.server_tool_use.tool_search_requests": "free of charge",
}
_LITELLM_IRRELEVANT: Final = {
    "*.video_tokens": "priced as text by those who read videos",
    "*.character_count": "of an input whose tokens are counted",
    "*.image_count": "of an input whose tokens are counted",
}

OPENAI: Final = Dialect(_openai_counts, INSIDE, irrelevant(_OPENAI_IRRELEVANT))
ANTHROPIC: Final = Dialect(_anthropic_counts, CACHE_BESIDE, irrelevant(_ANTHROPIC_IRRELEVANT))
LITELLM_CALL: Final = Dialect(_openai_counts, LITELLM, irrelevant(_OPENAI_IRRELEVANT, _LITELLM_IRRELEVANT))

_ANTHROPICS_OWN: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
_OTHERS: Final = ("prompt_tokens", "completion_tokens", *_INSIDE)


def dialect_of(usage: Fields, default: Dialect) -> Dialect:
    """Return whose usage object it is: Anthropic's own has names for the cache that nobody writes beside input_tokens.

    Not if it has OpenAI's names as well, or a total without the cache: then somebody has added it already.
    """
    values = usage.values
    if values.get("input_tokens") is None or any(values.get(name) is not None for name in _OTHERS):
        return default
    is_own = any(values.get(name) is not None for name in _ANTHROPICS_OWN) and values.get("total_tokens") is None
    return ANTHROPIC if is_own else default


def watched(usage: Fields) -> Fields:
    """Return a usage object that remembers what was looked up in it."""
    return Fields(Watched(usage.values), usage.path)


def report_unread(usage: Fields, dialect: Dialect, options: Options, path: str = "usage") -> None:
    """Report the fields of a watched usage object that nobody looked up."""
    if isinstance(usage.values, Watched):
        for name in usage.values.unread(path):
            if not dialect.irrelevant.fullmatch(name):
                note_unread(options, name)


TIERS: Final = {"standard": "default", "batch": "default"}
"""Service tiers that others have another word for; a batch is told apart by itself."""
_ANYWHERE: Final = ("global", "not_available")


def priced_by(usage: Fields) -> Event:
    """Return what a usage object says that the price depends on: tier, place, and whether it was a batch job."""
    speed, tier, place = usage.text("speed"), usage.text("service_tier"), usage.text("inference_geo")
    if speed and speed != "standard":
        tier_found: str | None = speed
    else:
        tier_found = TIERS.get(tier, tier) if tier else None
    return {
        "service_tier": tier_found,
        "inference_geo": None if place is None or place.lower() in _ANYWHERE else place.lower(),
        "batch": True if tier == "batch" else None,
    }


def reported_cost(usage: Fields) -> Event | None:
    """Return what the provider says the call cost, in US dollars; None where it does not say.

    OpenRouter's ``cost`` is its own charge. With a key of one's own, the provider's charge is beside it. Perplexity's
    is an object, xAI counts ten thousand millions to a dollar, DeepInfra calls it an estimate.
    """
    reported = usage.values.get("cost")
    if isinstance(reported, Mapping):
        return cost(reported.get("total_cost"))
    if (ticks := usage.values.get("cost_in_usd_ticks")) is not None:
        amount = cost(ticks)
        return amount and cost(amount["value"] / _TICKS)
    if reported is None:
        return cost(usage.values.get("estimated_cost"))
    charge, upstream = cost(reported), usage.values.get("cost_details")
    providers = cost(upstream.get("upstream_inference_cost")) if isinstance(upstream, Mapping) else None
    if charge is None or providers is None:
        return charge
    # Without a word of whose key it was: the charge for using one's own is a fraction of the provider's.
    is_own_key = usage.values.get("is_byok", providers["value"] > charge["value"])
    return cost(charge["value"] + providers["value"]) if is_own_key else charge


_TICKS: Final = Decimal(10**10)


def token_events(
    kind: str,
    common: Event,
    usage: Fields,
    dialect: Dialect,
    *,
    maker: str | None = None,
    lacking: Settled | None = None,
) -> list[Event]:
    """Return the events of the tokens of one answer: one, and more where it was several requests.

    Args:
        kind: completions or decisions.
        common: what they have in common; what it lacks of tier and place is taken from the usage object.
        usage: the object, watched.
        dialect: how it is read.
        maker: name of the provider, if the record has it.
        lacking: counts to take where the object has none.
    """
    counts = counts_of(usage, dialect, common.get("model"), maker, lacking)
    depends = {name: value for name, value in priced_by(usage).items() if common.get(name) is None}
    common = common | depends
    return _requests(kind, common, usage, counts) or [made(kind, common, **event_fields(counts))]


def counts_of(
    usage: Fields, dialect: Dialect, model: str | None, maker: str | None = None, lacking: Settled | None = None
) -> dict[str, int]:
    """Return the counts of a usage object, settled; arguments as of `token_events`."""
    found = dialect.counts(usage)
    found |= {count: value for count, value in (lacking or {}).items() if not found.get(count)}
    return settled(found, family_of(maker, model), dialect.convention)


_LEAST_THRESHOLD: Final = 100_000
"""No price of a model that lists iterations depends on fewer tokens of input: below, its turns cost what they cost
together, and stay one event, as other reports of the call have it."""
_TURNS: Final = ("message", "fallback_message", None)
_COMPARED: Final = ("input", "output", "cached", "write", "write_long")


class _Request(NamedTuple):
    """One of several requests that an answer took."""

    type: str | None
    model: str | None
    counts: dict[str, int]


def _requests(kind: str, common: Event, usage: Fields, counts: Settled) -> list[Event]:
    """Return the events of an answer that lists its iterations; none if it lists none.

    What the counts at the top cover is one event, or one for each turn where a threshold may lie between; what they
    leave out, such as compaction, is an event each, with an id of its own.
    """
    requests = list(_listed(usage))
    if not requests:
        return []
    covered, is_proven = _covered(requests, counts, common.get("model"))
    is_split = is_proven and len(covered) > 1 and counts.get("input", 0) > _LEAST_THRESHOLD
    models = {requests[place].model for place in covered} - {None} if is_proven else set()
    if len(models) == 1:  # of a fallback, which model answered stands there alone
        common = common | {"model": models.pop()}
    found = [] if is_split else [made(kind, common, **event_fields(counts))]
    times: Counter[str] = Counter()
    for place, request in enumerate(requests):
        if not any(request.counts.values()) or (place in covered and not is_split):
            continue
        name = "turn" if place in covered else request.type or "message"
        times[name] += 1
        identity = _numbered(common.get("id"), name, times[name])
        own = common | {"id": identity, "model": request.model or common.get("model")}
        found.append(made(kind, own, **event_fields(request.counts)))
    return found


def _listed(usage: Fields) -> Iterator[_Request]:
    for item in usage.each("iterations"):
        model = item.text("model")
        counts = settled(_anthropic_counts(item), family_of(model), CACHE_BESIDE)
        yield _Request(item.text("type"), model, counts)


def _covered(requests: list[_Request], counts: Settled, model: str | None) -> tuple[set[int], bool]:
    """Return the places of the requests that the counts at the top are the sum of, and whether they prove to be.

    Where no sum fits, all turns are taken to be in the top, so that none is counted twice.
    """
    turns = {place for place, request in enumerate(requests) if request.type in _TURNS}
    own = {place for place in turns if requests[place].model in (None, model)}
    served = {place for place in turns if requests[place].type == "fallback_message"}
    wanted = [counts.get(name, 0) for name in _COMPARED]
    for group in (turns, own, served, set(sorted(turns)[-1:]), set(range(len(requests)))):
        if group and [sum(requests[place].counts.get(name, 0) for place in group) for name in _COMPARED] == wanted:
            return group, True
    return turns, False


def _numbered(identity: str | None, name: str, number: int) -> str | None:
    if not identity:
        return None
    return turn_id(identity, number) if name == "turn" else call_id(f"{identity}#{name}-{number}")


_BY_TOKENS: Final = "tokens"
"""The quality of pictures whose tokens are recorded: the price book has them for nothing beside those."""


def image_events(common: Event, usage: Fields, dialect: Dialect, **image: Any) -> list[Event]:
    """Return the events of pictures: how many, and the tokens they took where the provider bills those.

    OpenAI's models that are billed by tokens say of the input how much of it was text and pictures. What they put out
    is charged by its tokens then, and the pictures themselves cost nothing more. Others are billed by the picture.

    Args:
        common: what the events have in common.
        usage: the usage object of the answer, watched.
        dialect: how it is read.
        image: further fields of the event of the pictures.
    """
    counts = counts_of(usage, dialect, common.get("model"))
    pictures = made("images", common, **image)
    if "image input" not in counts and "text input" not in counts:
        return [pictures]
    if not counts.get("input") and not counts.get("output"):
        return [pictures]
    if output := counts.get("output", 0):
        counts.setdefault("image output", max(0, output - counts.get("text output", 0)))
        pictures["quality"] = _BY_TOKENS
    return [pictures, made("completions", common, **event_fields(counts))]
