"""FOCUS: charges as rows of the FinOps Open Cost and Usage Specification, versions 1.2 and 1.4.

A row is a charge: one part of the usage of one kind, by everything it is known by, at one unit price, in one period.
One table, `FOCUS`, says which columns there are, what may stand in them and how it is found; writer, documentation and
the checks of the writer's own work go by it. All mandatory columns are there, and those conditional ones there is
something to say in.

How the rules of the specification are met where it is not plain:

- *Price x quantity = cost.* A price for 1,000 or a million of something leaves a quantity with a finite decimal. One
  for a minute, an hour or a day may not: 100 seconds are 1.666... minutes. Such a price is turned into one for the
  finest unit in which it is a decimal of at most 18 places: 0.006 a minute is 0.0001 a second, and PricingQuantity are
  the seconds. Where that still leaves quantities without end (0.10 for a GiB and day), PricingQuantity has 18 decimals,
  and the product is the cost when it is rounded to the 18 decimals of all amounts, for unit prices up to 1; for a
  higher one it is within half a unit price of the last decimal. As the price book has them, price and unit stand in
  x_Price and x_PriceUnit.
- *Reported cost* has no quantity and no unit price, but a usage row must have both. It is metered in what is known of
  it: dollars, at the price of 1.
- *Free storage* is a row of its own: ChargeCategory `Credit`, negative, without prices and quantities. SkuId says what
  it is credited for.
- *Who is who.* The provider is whose price it is. What nobody else's price is for (own models, reported cost) the
  platform provides itself. The platform also is the invoice issuer: the rows say what it charges those who use it, and
  do not stand in for a provider's invoice. An organization is a billing account, a project a sub account, a model a
  resource.
- *SkuPriceId* names what a price depends on, without its amount and dates, so that prices can be followed over time.
- *Corrections.* There are none: an export is always the whole of its window, and supersedes any before it (overwrite
  delivery). ChargeClass is null.
- *Negotiated prices.* One price is known of a charge: list, contracted and effective cost are equal.
- *Precision.* Decimals have up to 38 digits, 18 of them behind the point; none is a float anywhere.

Sources: the specification's column definitions and attributes (FOCUS_Spec, ``specification/columns`` of 1.2,
``specification/datasets/cost_and_usage`` of 1.4).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tallybook.export.charge import SCALE, WIDE, Charge

PLATFORM: Final = "Tallybook"
"""Who provides what is nobody else's, and issues the invoices, unless the caller knows a better name."""
TAG_PREFIX: Final = "tallybook/"
"""Begins the keys of all tags, as FOCUS wants it of tags that a provider defines."""
_ROWS_AT_ONCE: Final = 4_096

Type = Literal["String", "Decimal", "Date/Time", "JSON", "Boolean"]
Level = Literal["Mandatory", "Conditional", "Recommended", "Custom"]

_ARROW: Final[Mapping[str, pa.DataType]] = {
    "String": pa.string(),
    "Decimal": pa.decimal128(38, SCALE),
    "Date/Time": pa.timestamp("us", tz="UTC"),
    "JSON": pa.string(),
    "Boolean": pa.bool_(),
}
_QUANTUM: Final = Decimal(1).scaleb(-SCALE)
_LRU: Final = 4_096


class _Unit(NamedTuple):
    """A unit of price files.

    Attributes:
        measured: FOCUS's word for what is measured.
        ladder: FOCUS's words for units it can be priced in, and how many of what is measured each is, finest first;
            the last is the unit itself.
    """

    measured: str
    ladder: tuple[tuple[str, int], ...]


def _blocks(noun: str, *names: str) -> dict[str, _Unit]:
    """Units of one, a thousand and a million of something that is counted."""
    sizes = (1, 1_000, 1_000_000)
    labels = (noun if size == 1 else f"{size} {noun}" for size in sizes)
    return {name: _Unit(noun, ((label, size),)) for name, label, size in zip(names, labels, sizes, strict=False)}


_SECONDS: Final = (("Seconds", 1), ("Minutes", 60), ("Hours", 3_600))
_STORAGE: Final = (("GiB-Hours", 1), ("GiB-Days", 24))
_UNITS: Final[Mapping[str, _Unit]] = {
    **_blocks("Tokens", "token", "1K tokens", "1M tokens"),
    **_blocks("Characters", "character", "1K characters", "1M characters"),
    **_blocks("Requests", "request", "1K requests"),
    **_blocks("Calls", "call", "1K calls"),
    **_blocks("Images", "image"),
    **_blocks("Sessions", "session"),
    "second": _Unit("Seconds", _SECONDS[:1]),
    "minute": _Unit("Seconds", _SECONDS[:2]),
    "hour": _Unit("Seconds", _SECONDS),
    "GiB-hour": _Unit("GiB-Hours", _STORAGE[:1]),
    "GiB-day": _Unit("GiB-Hours", _STORAGE),
}
_DOLLARS: Final = "Dollars"

_CATEGORY: Final = "AI and Machine Learning"
_SUBCATEGORIES: Final = {
    "completions": "Generative AI",
    "decisions": "Generative AI",
    "images": "Generative AI",
    "audio_speeches": "Generative AI",
    "embeddings": "Machine Learning",
    "moderations": "Natural Language Processing",
    "audio_transcriptions": "Natural Language Processing",
}
_OTHER_SUBCATEGORY: Final = "AI Platforms"
"""The tools around models: searches, sessions, stores."""

_CREDITS: Final = {"free_storage": "storage", "free storage": "storage"}
"""Parts that are taken off, and what of."""
_REPORTED: Final = "reported"


class _Terms(NamedTuple):
    """What a charge is priced by, the same for all charges of one price."""

    sku_id: str
    meter: str
    price_id: str
    details: str | None


class _Pricing(NamedTuple):
    """How a cost comes about, in words of FOCUS."""

    unit_price: Decimal
    quantity: Decimal
    unit: str
    consumed: Decimal
    consumed_unit: str


class _Row(NamedTuple):
    """A charge with what has to be worked out."""

    charge: Charge
    pricing: _Pricing | None
    terms: _Terms
    month: tuple[int, int]
    provider: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a FOCUS file.

    Attributes:
        name: its id.
        type: as FOCUS names it; `Boolean` only of columns of our own.
        level: whether it must be there, or `Custom`.
        nullable: whether it may be null.
        meaning: one phrase for the documentation.
        fill: its value, of a row.
        values: the only values it can have, None for any.
        versions: the versions that have it.
    """

    name: str
    type: Type
    level: Level
    nullable: bool
    meaning: str
    fill: Callable[[_Row], Any]
    values: tuple[str, ...] | None = None
    versions: tuple[str, ...] = ("1.2", "1.4")

    @property
    def field(self) -> "pa.Field[Any]":
        """The column in Arrow's terms."""
        return pa.field(self.name, _ARROW[self.type], nullable=self.nullable)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of FOCUS: its columns, in order; columns of our own stand last."""

    name: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The columns in Arrow's terms."""
        metadata: dict[bytes | str, bytes | str] = {"FocusVersion": self.name, "DataGenerator": PLATFORM}
        return pa.schema([column.field for column in self.columns], metadata=metadata)


def schema(version: str) -> pa.Schema:
    """Return the columns of a version.

    Raises:
        KeyError: there is no such version.
    """
    return FOCUS[version].schema


def focus_batches(
    charges: Iterable[Charge],
    version: str,
    *,
    platform: str = PLATFORM,
    providers: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[pa.RecordBatch]:
    """Yield charges as rows of FOCUS, in their order, a few thousand at once.

    Args:
        charges: any number of them.
        version: one of `FOCUS`.
        platform: name of who runs this platform: it invoices, and provides what is nobody else's.
        providers: display names of providers by id; an id without one is its own name.

    Raises:
        KeyError: there is no such version.
        pyarrow.ArrowInvalid: an amount or quantity has more than 20 digits before the point.
    """
    columns, fields = FOCUS[version].columns, FOCUS[version].schema
    rows = (_row(charge, platform, providers) for charge in charges)
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        made: dict[tuple[Callable[[_Row], Any], Type], Any] = {}  # several columns are the same, such as the four costs
        for column in columns:
            key = (column.fill, column.type)
            if key not in made:
                made[key] = pa.array([column.fill(row) for row in chunk], _ARROW[column.type])
            _assert_fits(column, made[key])
        yield pa.record_batch([made[column.fill, column.type] for column in columns], schema=fields)


def _assert_fits(column: Column, array: Any) -> None:
    assert column.nullable or not array.null_count, column.name
    if column.values is not None:
        found = {value for value in pc.unique(array).to_pylist() if value is not None}
        assert found <= set(column.values), (column.name, found)


def _row(charge: Charge, platform: str, providers: Mapping[str, str]) -> _Row:
    provider = charge.provider
    name = platform if provider in (None, "own") else providers.get(provider, provider)
    return _Row(
        charge,
        None if charge.part in _CREDITS else _pricing(charge),
        _terms(
            charge.kind,
            charge.model,
            charge.part,
            charge.quantity_unit == "tokens",
            charge.service_tier,
            charge.batch,
            charge.terms,
        ),
        _month(charge.start_s),
        name or platform,
        platform,
    )


def _pricing(charge: Charge) -> _Pricing:
    if charge.price is None or charge.unit is None or charge.quantity is None:
        return _Pricing(Decimal(1), charge.amount, _DOLLARS, charge.amount, _DOLLARS)
    unit_price, unit, size = _unit_price(charge.price, charge.unit)
    quantity = _decimal(charge.quantity, Decimal(size))
    if unit_price and _rounded(WIDE.multiply(unit_price, quantity)) != charge.amount:
        # A sum of amounts that were rounded for each event: that quantity which makes it.
        quantity = _decimal(charge.amount, unit_price)
    return _Pricing(unit_price, quantity, unit, charge.quantity, _UNITS[charge.unit].measured)


def _decimal(numerator: Decimal, denominator: Decimal) -> Decimal:
    return _rounded(WIDE.divide(numerator, denominator))


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_QUANTUM, ROUND_HALF_UP, WIDE)


@lru_cache(_LRU)
def _unit_price(price: Decimal, unit: str) -> tuple[Decimal, str, int]:
    """Return a price for the finest unit in which it is a finite decimal, the unit, and how many of the measured it is.

    The last unit is the price's own, in which it is as it was given.
    """
    ladder = _UNITS[unit].ladder
    own = Decimal(ladder[-1][1])
    for label, size in ladder:
        found = _decimal(WIDE.multiply(price, Decimal(size)), own)
        if WIDE.multiply(found, own) == WIDE.multiply(price, Decimal(size)):
            return found, label, size
    raise ValueError(f"the price {price} has more than {SCALE} decimals")


@lru_cache(_LRU)
def _terms(
    kind: str,
    model: str | None,
    part: str,
    is_tokens: bool,
    tier: str | None,
    batch: bool | None,
    more: tuple[tuple[str, str], ...],
) -> _Terms:
    part = _CREDITS.get(part, part)
    words = part.split("_")
    sku_id = "/".join(filter(None, (kind, model, part)))
    details: dict[str, str | bool | None] = {"x_ModelId": model}
    if is_tokens:
        is_output = words[-1] == "output"
        details["x_TokenDirection"] = "Output" if is_output else "Input"
        details["x_Modality"] = next((word.capitalize() for word in words if word in ("audio", "image")), "Text")
        if not is_output:
            is_write = words[:2] == ["cache", "write"]
            details["x_TokenCacheAction"] = "Write" if is_write else "Read" if words[0] == "cached" else "Uncached"
            details["x_CacheRetention"] = words[2] if is_write else None
    details |= {"x_ServiceTier": tier, "x_Batch": batch}
    details |= {"x_" + "".join(word.capitalize() for word in name.split("_")): value for name, value in more}
    priced_by = (tier or "standard", *(("batch",) if batch else ()), *(f"{name}={value}" for name, value in more))
    meter = "Reported Cost" if part == _REPORTED else " ".join(word.capitalize() for word in words)
    return _Terms(sku_id, f"{meter} Tokens" if is_tokens else meter, "/".join((sku_id, *priced_by)), _json(details))


def _json(pairs: Mapping[str, object]) -> str | None:
    """Return what is not null as a JSON object, None if nothing is."""
    known = {key: value for key, value in pairs.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")) if known else None


def _month(instant_s: int) -> tuple[int, int]:
    """Return beginning and end of a calendar month, Unix microseconds."""
    return _month_of_day(instant_s // 86_400)


@lru_cache(_LRU)
def _month_of_day(day: int) -> tuple[int, int]:
    first = datetime.fromtimestamp(day * 86_400, UTC).replace(day=1)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return _micros(int(first.timestamp())), _micros(int(following.timestamp()))


def _micros(instant_s: int) -> int:
    return instant_s * 1_000_000


def _amount(row: _Row) -> Decimal:
    return row.charge.amount


def _unit_price_of(row: _Row) -> Decimal | None:
    return row.pricing and row.pricing.unit_price


def _description(row: _Row) -> str:
    charge = row.charge
    if charge.price is None or row.pricing is None:
        return charge.line_item
    return f"{charge.line_item} at {_plain(charge.price)} USD per {charge.unit}"


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tags(row: _Row) -> str | None:
    charge = row.charge
    tags: dict[str, object] = {
        "user_id": charge.user_id,
        "api_key_id": charge.api_key_id,
        "model": charge.model,
        "service_tier": charge.service_tier,
        "batch": None if charge.batch is None else str(charge.batch).lower(),
        "api_source": charge.api_source,
    }
    return _json({TAG_PREFIX + key: value for key, value in tags.items()})


def _provider(row: _Row) -> str:
    return row.provider


def _issuer(row: _Row) -> str:
    return row.issuer


def _null(row: _Row) -> None:
    """Nothing: a column that must be there although there is nothing to say in it."""


def _always(value: object) -> Callable[[_Row], Any]:
    """Fill a column that is the same on every row."""
    return lambda _: value


def _of_usage(value: object) -> Callable[[_Row], Any]:
    """Fill a column of usage that is null on credits."""
    return lambda row: None if row.pricing is None else value


_COLUMNS: Final = (
    Column("BilledCost", "Decimal", "Mandatory", False, "what the charge costs, US dollars", _amount),
    Column(
        "BillingAccountId", "String", "Mandatory", False, "the organization", lambda row: row.charge.organization_id
    ),
    Column("BillingAccountName", "String", "Mandatory", True, "null: organizations have no names", _null),
    Column("BillingAccountType", "String", "Conditional", False, "`Organization`", _always("Organization")),
    Column("BillingCurrency", "String", "Mandatory", False, "`USD`", _always("USD"), ("USD",)),
    Column(
        "BillingPeriodEnd",
        "Date/Time",
        "Mandatory",
        False,
        "end of the calendar month, exclusive",
        lambda row: row.month[1],
    ),
    Column("BillingPeriodStart", "Date/Time", "Mandatory", False, "the calendar month, UTC", lambda row: row.month[0]),
    Column(
        "ChargeCategory",
        "String",
        "Mandatory",
        False,
        "`Usage`; `Credit` for free storage",
        lambda row: "Credit" if row.pricing is None else "Usage",
        ("Usage", "Credit"),
    ),
    Column("ChargeClass", "String", "Mandatory", True, "null: nothing is a correction", _null, ("Correction",)),
    Column("ChargeDescription", "String", "Mandatory", True, "line item and price", _description),
    Column(
        "ChargeFrequency",
        "String",
        "Recommended",
        False,
        "`Usage-Based`",
        _always("Usage-Based"),
        ("One-Time", "Recurring", "Usage-Based"),
    ),
    Column(
        "ChargePeriodEnd",
        "Date/Time",
        "Mandatory",
        False,
        "end of the day or hour, exclusive",
        lambda row: _micros(row.charge.end_s),
    ),
    Column(
        "ChargePeriodStart",
        "Date/Time",
        "Mandatory",
        False,
        "the day or hour, UTC",
        lambda row: _micros(row.charge.start_s),
    ),
    Column(
        "ConsumedQuantity",
        "Decimal",
        "Conditional",
        True,
        "what was used",
        lambda row: row.pricing and row.pricing.consumed,
    ),
    Column(
        "ConsumedUnit",
        "String",
        "Conditional",
        True,
        "`Tokens`, `Images`, `Characters`, `Seconds`, `Requests`, `Sessions`, `Calls`, `GiB-Hours`, `Dollars`",
        lambda row: row.pricing and row.pricing.consumed_unit,
    ),
    Column("ContractedCost", "Decimal", "Mandatory", False, "as BilledCost", _amount),
    Column("ContractedUnitPrice", "Decimal", "Conditional", True, "as ListUnitPrice", _unit_price_of),
    Column("EffectiveCost", "Decimal", "Mandatory", False, "as BilledCost", _amount),
    Column("HostProviderName", "String", "Mandatory", False, "as ServiceProviderName", _provider, versions=("1.4",)),
    Column(
        "InvoiceId",
        "String",
        "Recommended",
        True,
        "null: there are no invoices",
        _null,
        versions=("1.2",),
    ),
    Column("InvoiceIssuerName", "String", "Mandatory", False, "who runs the platform", _issuer),
    Column("ListCost", "Decimal", "Mandatory", False, "as BilledCost", _amount),
    Column("ListUnitPrice", "Decimal", "Conditional", True, "US dollars for one PricingUnit", _unit_price_of),
    Column(
        "PricingCategory",
        "String",
        "Conditional",
        True,
        "`Standard`; null on credits",
        _of_usage("Standard"),
        ("Standard", "Dynamic", "Committed", "Other"),
    ),
    Column(
        "PricingQuantity",
        "Decimal",
        "Mandatory",
        True,
        "what was used, in PricingUnit",
        lambda row: row.pricing and row.pricing.quantity,
    ),
    Column(
        "PricingUnit",
        "String",
        "Mandatory",
        True,
        "what the unit price is for, such as `1000000 Tokens`",
        lambda row: row.pricing and row.pricing.unit,
    ),
    Column(
        "ProviderName", "String", "Mandatory", False, "whose price it is, or the platform", _provider, versions=("1.2",)
    ),
    Column("PublisherName", "String", "Mandatory", False, "as ProviderName", _provider, versions=("1.2",)),
    Column("ResourceId", "String", "Conditional", True, "the model", lambda row: row.charge.model),
    Column("ResourceName", "String", "Conditional", True, "null: models have no other name", _null),
    Column(
        "ResourceType",
        "String",
        "Conditional",
        True,
        "`Model`",
        lambda row: None if row.charge.model is None else "Model",
    ),
    Column("ServiceCategory", "String", "Mandatory", False, f"`{_CATEGORY}`", _always(_CATEGORY), (_CATEGORY,)),
    Column(
        "ServiceName",
        "String",
        "Mandatory",
        False,
        "the usage kind, such as `Completions`",
        lambda row: row.charge.kind.replace("_", " ").title(),
    ),
    Column(
        "ServiceProviderName",
        "String",
        "Mandatory",
        False,
        "whose price it is, or the platform",
        _provider,
        versions=("1.4",),
    ),
    Column(
        "ServiceSubcategory",
        "String",
        "Recommended",
        False,
        "`Generative AI`, `Machine Learning`, `Natural Language Processing`, `AI Platforms`",
        lambda row: _SUBCATEGORIES.get(row.charge.kind, _OTHER_SUBCATEGORY),
        (*sorted(set(_SUBCATEGORIES.values())), _OTHER_SUBCATEGORY),
    ),
    Column(
        "SkuId",
        "String",
        "Conditional",
        True,
        "kind, model and part: `completions/gpt-4o/input`",
        lambda row: row.terms.sku_id,
    ),
    Column(
        "SkuMeter",
        "String",
        "Conditional",
        True,
        "the part, such as `Cached Input Tokens`",
        lambda row: row.terms.meter,
    ),
    Column(
        "SkuPriceDetails",
        "JSON",
        "Conditional",
        True,
        "what the price depends on: model, direction, modality, cache action, tier, batch, ...",
        lambda row: row.pricing and row.terms.details,
    ),
    Column(
        "SkuPriceId",
        "String",
        "Conditional",
        True,
        "SkuId, tier and whatever else the price depends on: `completions/gpt-4o/input/standard/batch`",
        lambda row: row.pricing and row.terms.price_id,
    ),
    Column("SubAccountId", "String", "Conditional", True, "the project", lambda row: row.charge.project_id),
    Column("SubAccountName", "String", "Conditional", True, "the project", lambda row: row.charge.project_id),
    Column(
        "SubAccountType",
        "String",
        "Conditional",
        True,
        "`Project`",
        lambda row: None if row.charge.project_id is None else "Project",
    ),
    Column(
        "Tags",
        "JSON",
        "Conditional",
        True,
        f"user, key, model, tier, batch and API, each key with the prefix `{TAG_PREFIX}`",
        _tags,
    ),
    Column("x_ApiKeyId", "String", "Custom", True, "the API key", lambda row: row.charge.api_key_id),
    Column("x_ApiSource", "String", "Custom", True, "the API it came through", lambda row: row.charge.api_source),
    Column("x_Batch", "Boolean", "Custom", True, "whether it ran as a batch job", lambda row: row.charge.batch),
    Column("x_LineItem", "String", "Custom", False, "line item, as Costs has it", lambda row: row.charge.line_item),
    Column("x_ModelId", "String", "Custom", True, "the model", lambda row: row.charge.model),
    Column("x_Price", "Decimal", "Custom", True, "the price as the book has it", lambda row: row.charge.price),
    Column("x_PriceBookId", "String", "Custom", True, "the price book", lambda row: row.charge.book_id),
    Column("x_PriceUnit", "String", "Custom", True, "the price's unit as the book has it", lambda row: row.charge.unit),
    Column(
        "x_RateId", "String", "Custom", False, "the store's number of the rate", lambda row: str(row.charge.rate_id)
    ),
    Column("x_ServiceTier", "String", "Custom", True, "service tier", lambda row: row.charge.service_tier),
    Column("x_UsageKind", "String", "Custom", False, "usage kind", lambda row: row.charge.kind),
    Column("x_UsagePart", "String", "Custom", False, "part of the usage", lambda row: row.charge.part),
    Column("x_UserId", "String", "Custom", True, "the user", lambda row: row.charge.user_id),
)

FOCUS: Final[Mapping[str, Version]] = {
    name: Version(name, tuple(column for column in _COLUMNS if name in column.versions)) for name in ("1.2", "1.4")
}
"""The versions there are."""
