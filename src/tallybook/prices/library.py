"""List prices of the providers, from the genai-prices library: its installed data, or newer data fetched since.

Only names that a provider calls its own are looked up (``gpt-4o``, ``claude-...``, ``gemini-...``), and those that say
who sells them (``groq/...``, ``us.anthropic...``; see `tallybook.spelling.offer`): what an operator serves under the
name of open weights is not what somebody else sells under it.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import httpx
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    TieredPrices,
    TimeOfDateConstraint,
    _providers_from_raw,  # the only reader of the data format the library has
)
from genai_prices.update_prices import DEFAULT_UPDATE_URL

from tallybook.errors import CommandFailed
from tallybook.rate import Price
from tallybook.spelling import Offer

FILE_NAME: Final = "library-prices.json"
_FETCH_S_MAX: Final = 30
_BYTES_MAX: Final = 64 * 1024 * 1024
_DECIMALS: Final = Decimal(1).scaleb(-12)
"""Of a price for a million: whole units of money for one. The library's prices have fewer."""

_KEYS: Final = {
    "input": (("input_text_mtok", "input_mtok"), "1M tokens"),
    "image_input": (("input_image_mtok",), "1M tokens"),
    "audio_input": (("input_audio_mtok",), "1M tokens"),
    "cached_input": (("cache_text_read_mtok", "cache_read_mtok"), "1M tokens"),
    "cached_image_input": (("cache_image_read_mtok",), "1M tokens"),
    "cached_audio_input": (("cache_audio_read_mtok",), "1M tokens"),
    # Retention is what a provider offers: shorter (5 or 30 minutes) or longer (1 or 12 hours).
    "cache_write_30m": (("cache_write_5m_mtok", "cache_write_mtok"), "1M tokens"),
    "cache_write_12h": (("cache_write_1h_mtok", "cache_write_mtok"), "1M tokens"),
    "output": (("output_text_mtok", "output_mtok"), "1M tokens"),
    "image_output": (("output_image_mtok",), "1M tokens"),
    "audio_output": (("output_audio_mtok",), "1M tokens"),
    "requests": (("requests_kcount",), "1K requests"),
    "characters": (("input_mchars",), "1M characters"),
    "seconds": (("input_audio_hours", "audio_hours"), "hour"),
    "web_searches": (("web_searches_kcount",), "1K calls"),
}
"""Part to the library's keys for it, the first that is there counts, and the unit of its price."""

_SOURCE: Final = "genai-prices"
_BEGINNINGS: Final = {"anthropic": "claude", "google": "gemini", "x-ai": "grok"}
"""How the names begin of providers whose names the library finds within others."""
_OPEN_WEIGHTS: Final = re.compile(r"gpt-oss|deepseek-(r1|v[23]|coder|ocr|vl|.*distill)")
"""Models the library has at the provider that published their weights, which does not sell them by these names."""
_OWN_BESIDES: Final = {"cohere": re.compile(r"embed-.+")}
"""Names that are a provider's own which the library finds only if it is given the provider."""
_AZURE_MADE_BY: Final = ("anthropic", "openai")
"""Whose models cost the same at Azure as they do by themselves."""
_FOUND_MAX: Final = 20_000
"""Names whose model is remembered, about 10 MB."""

Classes = list[tuple[int, dict[str, Price]]]
"""Prices by part for events with more input tokens than a number; -1 first, ascending."""


Found = tuple[Provider, ModelInfo]
"""Who sells a model, and the model."""


class LibraryData(NamedTuple):
    """What data there is: where from, and how many models it prices."""

    version: str
    models: int
    digest: str


class Library:
    """The library's prices, by model.

    Args:
        directory: where `update` has put newer data, if it has.

    Raises:
        CommandFailed: that data cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        file = directory / FILE_NAME
        if file.exists():
            try:
                content, fetched_s = file.read_bytes(), file.stat().st_mtime
            except OSError as error:
                raise CommandFailed(f"cannot read the list prices {file}: {error.strerror}") from error
            providers, day = _parse(content, str(file)), datetime.fromtimestamp(fetched_s, UTC).date()
            self._snapshot = DataSnapshot(providers, from_auto_update=False)
            label = f"fetched {day.isoformat()}"
            digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        else:
            self._snapshot = get_snapshot()
            label = digest = f"genai-prices {version('genai-prices')}"
        self._providers = {provider.id: provider for provider in self._snapshot.providers}
        self._found = lru_cache(maxsize=_FOUND_MAX)(self._find)
        self.data = LibraryData(label, sum(len(provider.models) for provider in self._snapshot.providers), digest)

    def find(self, offer: Offer | None) -> Found | None:
        """Return the model that is offered, and who sells it; None if the list has none."""
        return self._found(offer) if offer else None

    def _find(self, offer: Offer) -> Found | None:
        if offer.is_own:
            own = self._own(offer.model)
            return own if own and offer.provider in (None, own[0].id) else None
        # The library has memories of its own that only grow, so its models are asked themselves.
        provider = self._providers.get(offer.provider or "")
        model = provider and provider.find_model(offer.model, all_providers=self._snapshot.providers)
        if not provider or not model or not self._is_sold(offer, model):
            return None
        return provider, model

    def _own(self, name: str) -> Found | None:
        """Return a model by a name that a provider calls its own."""
        if _OPEN_WEIGHTS.match(name):
            return None
        for provider in self._snapshot.providers:
            besides = _OWN_BESIDES.get(provider.id)
            is_own = provider.model_match is not None and provider.model_match.is_match(name)
            if is_own or (besides and besides.fullmatch(name)):
                model = provider.find_model(name, all_providers=self._snapshot.providers)
                return (provider, model) if model and name.startswith(_BEGINNINGS.get(provider.id, "")) else None
        return None

    def _is_sold(self, offer: Offer, model: ModelInfo) -> bool:
        """Whether a model of a cloud is the one that is offered: its list has them by region, or by whole names."""
        if offer.provider == "azure":
            own = self._own(offer.model)
            return own is not None and own[0].id in _AZURE_MADE_BY
        in_gov = (offer.region or "").startswith("us-gov")
        if offer.provider != "aws" or offer.region is None or (offer.region.startswith("us-") and not in_gov):
            return True
        listed = str(model.match)
        if f"='{offer.region}." in listed:
            return True
        is_one_price = model.id.startswith("regional.anthropic.claude-3")
        return offer.region == "us" or (is_one_price and offer.region in ("apac", "eu")) or _is_regional(offer, model)

    def models(self) -> Iterator[tuple[Provider, ModelInfo]]:
        """Yield every model that `find` finds by its id."""
        for provider in self._snapshot.providers:
            for model in provider.models:
                if (found := self._own(model.id.lower())) and found[1] is model:
                    yield provider, model


def _is_regional(offer: Offer, model: ModelInfo) -> bool:
    """Whether a name without a geography ran in a region of a model that has one price for all of them."""
    is_region = (offer.region or "-")[-1].isdigit() and not offer.model.startswith("global.")
    return is_region and model.id.startswith("regional.")


def prices(
    provider: Provider, model: ModelInfo, instant_ms: int, tier: str | None = None, *, batch: bool = False
) -> Classes | None:
    """Return what a model costs at an instant.

    Args:
        provider: whose model.
        model: one of the library's.
        instant_ms: Unix milliseconds.
        tier: service tier, None for the standard one.
        batch: as a batch job.

    Returns:
        None if there is no price for the tier, or for batch jobs. (The library itself would take the standard one.)
    """
    at = datetime.fromtimestamp(instant_ms / 1000, UTC)
    context = {"processing": "batch"} if batch else _TIERS.get(tier or "", {"service_tier": tier}) if tier else {}
    in_force = [variant for variant in model.price_variants or () if _is_active(variant, at)]
    if context and not any(variant.when and variant.when.items() <= context.items() for variant in in_force):
        return None
    found = model.get_prices(at, context)
    keyed = {
        part: (value, unit)
        for part, (keys, unit) in _KEYS.items()
        if (value := next((value for key in keys if (value := getattr(found, key, None)) is not None), None))
        is not None
    }
    starts = {tier.start for value, _ in keyed.values() if isinstance(value, TieredPrices) for tier in value.tiers}
    return [
        (
            above,
            {
                part: Price(part, _at(value, above), unit, provider.id, source=_SOURCE)
                for part, (value, unit) in keyed.items()
            },
        )
        for above in (-1, *sorted(starts))
    ]


_TIERS: Final = {"fast": {"service_tier": "fast", "speed": "fast"}}
"""What the list calls a tier, where that is not its name: Anthropic's fast mode is a speed there."""


def _is_active(variant: PriceVariant, at: datetime) -> bool:
    return variant.constraint is None or variant.constraint.active(at)


def _at(value: Decimal | TieredPrices, above: int) -> Decimal:
    if isinstance(value, TieredPrices):
        value = next((tier.price for tier in reversed(value.tiers) if tier.start <= above), value.base)
    return value.quantize(_DECIMALS, ROUND_HALF_UP).normalize()


def tiers(model: ModelInfo) -> list[str]:
    """Return the service tiers a model has prices for at some time, besides the standard one."""
    named = (variant.when.get("service_tier", variant.when.get("speed")) for variant in model.price_variants or ())
    return sorted({tier for tier in named if tier and tier != "default"})


def times_of_day_ms(model: ModelInfo) -> set[int]:
    """Return when within a day a model's prices change, milliseconds after midnight UTC."""
    conditions = model.prices if not isinstance(model.prices, ModelPrice) else []
    constraints = [price.constraint for price in conditions] + [v.constraint for v in model.price_variants or ()]
    times = [
        time
        for constraint in constraints
        if isinstance(constraint, TimeOfDateConstraint)
        for time in (constraint.start_time, constraint.end_time)
    ]
    instants = (datetime.combine(datetime(1970, 1, 2, tzinfo=UTC), time, time.tzinfo or UTC) for time in times)
    return {int(instant.timestamp() * 1000) % 86_400_000 for instant in instants}


def update(directory: Path, source: str | None = None) -> LibraryData:
    """Fetch the library's newest prices and put them where `Library` finds them.

    Args:
        directory: the data directory.
        source: a file, or an address, that has the library's data. Default: where the library has it published.

    Raises:
        CommandFailed: it cannot be fetched, or is no such data; what was there stays.
    """
    content = _fetch(source or DEFAULT_UPDATE_URL)
    _parse(content, source or "what was fetched")
    written = directory / f"{FILE_NAME}.new"
    written.write_bytes(content)
    written.replace(directory / FILE_NAME)
    return Library(directory).data


def _fetch(source: str) -> bytes:
    try:
        if "://" not in source:
            return Path(source).read_bytes()
        content = bytearray()
        with httpx.stream("GET", source, timeout=_FETCH_S_MAX, follow_redirects=True) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _BYTES_MAX:
                    raise CommandFailed(f"the prices at {source} are larger than {_BYTES_MAX} bytes; check the address")
        return bytes(content)
    except (OSError, httpx.HTTPError) as error:
        raise CommandFailed(f"cannot fetch prices from {source}: {error}; those installed stay in force") from error


def _parse(content: bytes, name: str) -> list[Provider]:
    with contextlib.suppress(ValueError):  # of JSON and of the library's types alike
        raw = json.loads(content)
        if isinstance(raw, list) and raw:
            return _providers_from_raw(raw)
    raise CommandFailed(f"{name} holds no prices of the library's format; leave out --from to fetch the published ones")
