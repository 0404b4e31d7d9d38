"""Names of models and line items as others spell them: which of them mean the same.

A provider's book and what was recorded here name one thing differently: `gpt-4o, input` and `gpt-4o, input_tokens`, a
model by its alias and by its dated snapshot, a fine-tuned model by what it came from. Gateways, clouds and frameworks
put the provider before the model; `offer` reads from a name who sells the model, and under which name. Source of the
spellings: published answers of the providers' usage and cost APIs, and the lists of models of LiteLLM, Amazon Bedrock,
Vertex AI, Azure and OpenRouter.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from typing import Final, NamedTuple

from tallybook.parts import PARTS

_DATE: Final = re.compile(r"-(latest|\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
"""What a snapshot's name has after the model's."""
_FINE_TUNED: Final = re.compile(r"ft:([^:]+)(:.*)?")
_SURFACE: Final = " | "
"""Between what a model was used through, such as evaluations, and the line item."""

_LABELS: Final[Mapping[str, str]] = {
    label.lower(): part.name for part in PARTS.values() if part.has_model for label in (part.label, part.field)
} | {"input tokens": "input", "cached input tokens": "cached_input", "output tokens": "output"}
_TOOLS: Final[Mapping[str, str]] = {part.label.lower(): part.name for part in PARTS.values() if not part.has_model} | {
    "code interpreter": "sessions",
    "file search": "file_searches",
    "file search calls": "file_searches",
    "web search": "web_searches",
    "web search calls": "web_searches",
}


_OWN: Final[Mapping[str, str]] = {
    "openai": "openai",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "text-completion-openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "google-gla": "google",
    "google_genai": "google",
    "gemini": "google",
    "xai": "x-ai",
    "x-ai": "x-ai",
    "deepseek": "deepseek",
    "mistral": "mistral",
    "mistralai": "mistral",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "moonshot": "moonshotai",
}
"""What stands before a model that its own provider serves, and the provider's name in the list prices."""
_SELLERS: Final[Mapping[str, str]] = {
    "cerebras": "cerebras",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "groq": "groq",
    "novita": "novita",
    "perplexity": "perplexity",
    "together": "together",
    "together_ai": "together",
    "voyage": "voyageai",
    "zai": "zai",
}
"""The same of providers that sell under names of their own: what they sell, others sell as well, at other prices."""
_PROXIES: Final = re.compile(r"(litellm_proxy|litellm)/")
_RESOLD: Final = re.compile(r"mistralai/|deepseek/deepseek-v\d")
"""Names of open weights on OpenRouter, where others sell them as well, that look like a provider's own."""
_BEFORE: Final = re.compile(r"([a-z0-9_.-]+)[/:](.+)")
"""A provider before a model: LiteLLM and others write a slash, pydantic-ai and LangChain a colon."""
_ARN: Final = re.compile(r"arn:aws[a-z-]*:bedrock:([a-z0-9-]*):\d*:(?:foundation-model|inference-profile)/(.+)")
_BEDROCK: Final = re.compile(
    r"(?:(?P<geo>[a-z]{2,6}(?:-gov)?)\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshotai"
    r"|nvidia|openai|qwen|stability|writer|zai)\.[a-z0-9].*"
)
_VERTEX: Final = re.compile(
    r"(?:projects/[^/]+/)?(?:locations/(?P<location>[^/]+)/)?(?:publishers/[^/]+/)?(?:models/)?(?P<model>[^/]+)"
)
_REGION: Final = re.compile(r"([a-z]{2}(?:-gov)?-[a-z]+-\d)/(.+)")
_ROUTE: Final = re.compile(r"(converse|converse_like|invoke|responses|global|global-standard)/")
_SAME_PRICE: Final = re.compile(r":(thinking|nitro|floor|exacto|beta)$")
"""Endings of OpenRouter that choose how a model runs, or who of several runs it."""
_FAST: Final = re.compile(r"(claude-.+?)-fast(-\d{8})?")
_ONE_PRICE: Final = re.compile(r"gemini-[12]\.\d-|claude-3-|claude-(opus|sonnet)-4@|claude-opus-4-1@")
"""Models of Vertex AI that cost the same in every location; later ones cost more outside the global one."""


class Offer(NamedTuple):
    """Who sells a model, and what it is called there.

    Attributes:
        provider: name in the list prices; None: the one that calls it its own.
        model: its name there, in lower case.
        is_own: the provider serves a model of its own, so whatever stands of the model holds.
        region: where it runs, as far as the name says; prices may differ by it.
        service_tier: the tier its name says it ran in.
    """

    provider: str | None
    model: str
    is_own: bool = True
    region: str | None = None
    service_tier: str | None = None


@lru_cache(maxsize=20_000)
def offer(model: str) -> Offer | None:
    """Return whose model a name stands for, as far as the name proves it; None if it proves nothing.

    It says nothing of whether anybody sells such a model.
    """
    name = _PROXIES.sub("", model.strip().lower(), count=1)
    for form, read in _FORMS:
        if form.fullmatch(name):
            return read(name)
    before = _BEFORE.fullmatch(name)
    if _RESOLD.match(name):
        return None
    if before and (reader := _READERS.get(before[1])):
        return reader(before[2])
    # What stands before a model may be anybody: only these two providers have such names themselves.
    is_bare = before is None or name.startswith(("ft:", "@cf/", "accounts/fireworks/"))
    return _bare(name) if is_bare else None


def _bare(name: str) -> Offer:
    if name.startswith("claude-") and "@" in name:
        return Offer("google", _versioned(name), is_own=False)
    if fast := _FAST.fullmatch(name):
        return Offer("anthropic", fast[1], service_tier="fast")
    return Offer(None, name.removesuffix("-latest") if name.startswith("claude-") else name)


def _own(provider: str, rest: str) -> Offer | None:
    name = _SAME_PRICE.sub("", rest)
    if "/" in name or (":" in name and not name.startswith("ft:")):
        return None
    return _bare(name)._replace(provider=provider)


def _bedrock(rest: str) -> Offer | None:
    """Read an identifier or an ARN, perhaps after a route and a region."""
    rest, region = _ROUTE.sub("", rest, count=1), None
    if found := _ARN.fullmatch(rest) or _REGION.fullmatch(rest):
        region, rest = found[1] or None, found[found.re.groups]
    identifier = _BEDROCK.fullmatch(rest)
    return Offer("aws", rest, is_own=False, region=identifier["geo"] or region) if identifier else None


def _vertex(rest: str) -> Offer | None:
    found = _VERTEX.fullmatch(rest)
    if not found or not found["model"].startswith(("claude-", "gemini-")):
        return None
    name = _versioned(found["model"])
    if found["location"] not in (None, "global") and not _ONE_PRICE.match(name):
        return None
    return Offer("google", name, is_own=name.startswith("gemini-"))


def _versioned(name: str) -> str:
    """Return a name of Vertex AI as the list has it: `@` stands before the version."""
    name = re.sub(r"@(default|latest)$", "", name)
    return name.replace("@", "-") if name.startswith("gemini-") else name


def _azure(rest: str) -> Offer | None:
    """A deployment is called what its operator likes: only a model's whole name says which it is."""
    rest = _ROUTE.sub("", rest, count=1)
    return None if "/" in rest else Offer("azure", rest, is_own=False)


def _openrouter(rest: str) -> Offer | None:
    author, _, name = rest.partition("/")
    if _OWN.get(author) in ("anthropic", "google", "openai", "x-ai"):
        rest = f"{author}/{_SAME_PRICE.sub('', name)}"
    return Offer("openrouter", rest.removesuffix(":thinking"), is_own=False)


def _sold_by(provider: str, rest: str) -> Offer:
    return Offer(provider, rest, is_own=False)


_FORMS: Final = (
    (_ARN, _bedrock),
    (_BEDROCK, _bedrock),
    (re.compile(r"(projects|publishers)/.+"), _vertex),
    (re.compile(r"models/[^/]+"), lambda name: _own("google", name.removeprefix("models/"))),
)
"""Names that say by their form what they are."""
_CLOUDS: Final = {
    _bedrock: "aws aws.bedrock aws_bedrock amazon-bedrock amazon_bedrock bedrock bedrock_converse",
    _vertex: "google-vertex google_vertexai vertex vertex_ai vertex_ai_beta vertexai",
    _azure: "azure azure_ai azure_openai",
    _openrouter: "openrouter",
}
_READERS: Final[Mapping[str, Callable[[str], Offer | None]]] = {
    **{before: partial(_own, provider) for before, provider in _OWN.items()},
    **{before: partial(_sold_by, provider) for before, provider in _SELLERS.items()},
    **{before: read for read, names in _CLOUDS.items() for before in names.split()},
}
"""What stands before a model, and what reads the rest."""


def read_name(name: str) -> tuple[str, str] | None:
    """Return part and model (empty where the part has none) of a provider's line item, None if it is none of ours.

    The model is as it is spelled there; see `same`.
    """
    item = name.rpartition(_SURFACE)[2].strip()
    if item.lower() in _TOOLS:
        return _TOOLS[item.lower()], ""
    model, comma, label = item.rpartition(", ")
    part = _LABELS.get(label.strip().lower())
    return (part, model) if comma and part else None


def same(model: str) -> str:
    """Return what is the same for all spellings of a model's name."""
    found = offer(model)
    lower = found.model if found and found.is_own and found.provider else model.lower()
    fine_tuned = _FINE_TUNED.fullmatch(lower)
    return f"ft-{fine_tuned[1]}" if fine_tuned else lower


def undated(model: str) -> str:
    """Return the name of a snapshot without what tells it from others of its model."""
    return _DATE.sub("", model)


def aliases(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Return the names that have to be read as one, each with that one.

    Where one side names a model without a date that the other only knows by its snapshots, all of them are compared
    together: nobody can tell which snapshot stood behind the name. What both sides name alike stays apart.

    Args:
        ours: models of one side, as `same` has them.
        theirs: those of the other.
    """
    families: dict[str, tuple[set[str], set[str]]] = {}
    for side, names in enumerate((ours, theirs)):
        for name in names:
            families.setdefault(undated(name), (set(), set()))[side].add(name)
    found: dict[str, str] = {}
    for model, (one, other) in families.items():
        names = one | other
        has_alias = bool(names & {model, f"{model}-latest"})
        if one and other and one != other and has_alias:
            found |= dict.fromkeys(names, model)
    return found
