"""FOCUS exports against the specification: a table of columns and rules written from it, not from our own.

Source: FOCUS_Spec, column definitions and attributes of 1.2 (``specification/columns``) and of 1.4
(``specification/datasets/cost_and_usage``).
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallybook.export.charge import Charge
from tallybook.export.files import stream
from tallybook.export.focus import FOCUS, focus_batches, schema
from tallybook.export.formulas import defuse

VERSIONS = ("1.2", "1.4")
WIDE = Context(prec=100)
ULP = Decimal("1E-18")
JANUARY = 1_767_225_600
DAY = 86_400

# Column, data type, feature level, allows nulls. Of conditional columns those whose condition holds here: usage is
# measured, unit prices and price lists exist, projects are sub accounts, models resources, and there are tags.
BOTH = """
BilledCost          Decimal   Mandatory   False
BillingAccountId    String    Mandatory   False
BillingAccountName  String    Mandatory   True
BillingAccountType  String    Conditional False
BillingCurrency     String    Mandatory   False
BillingPeriodEnd    Date/Time Mandatory   False
BillingPeriodStart  Date/Time Mandatory   False
ChargeCategory      String    Mandatory   False
ChargeClass         String    Mandatory   True
ChargeDescription   String    Mandatory   True
ChargeFrequency     String    Recommended False
ChargePeriodEnd     Date/Time Mandatory   False
ChargePeriodStart   Date/Time Mandatory   False
ConsumedQuantity    Decimal   Conditional True
ConsumedUnit        String    Conditional True
ContractedCost      Decimal   Mandatory   False
ContractedUnitPrice Decimal   Conditional True
EffectiveCost       Decimal   Mandatory   False
InvoiceIssuerName   String    Mandatory   False
ListCost            Decimal   Mandatory   False
ListUnitPrice       Decimal   Conditional True
PricingCategory     String    Conditional True
PricingQuantity     Decimal   Mandatory   True
PricingUnit         String    Mandatory   True
ResourceId          String    Conditional True
ResourceName        String    Conditional True
ResourceType        String    Conditional True
ServiceCategory     String    Mandatory   False
ServiceName         String    Mandatory   False
ServiceSubcategory  String    Recommended False
SkuId               String    Conditional True
SkuMeter            String    Conditional True
SkuPriceDetails     JSON      Conditional True
SkuPriceId          String    Conditional True
SubAccountId        String    Conditional True
SubAccountName      String    Conditional True
SubAccountType      String    Conditional True
Tags                JSON      Conditional True
"""
ONLY = {
    "1.2": """
InvoiceId           String    Recommended True
ProviderName        String    Mandatory   False
PublisherName       String    Mandatory   False
""",
    "1.4": """
HostProviderName    String    Mandatory   False
ServiceProviderName String    Mandatory   False
""",
}
ALLOWED = {
    "BillingCurrency": {"USD"},
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {
        "AI Platforms",
        "Bots",
        "Generative AI",
        "Machine Learning",
        "Natural Language Processing",
        "Other (AI and Machine Learning)",
    },
}
TYPES = {
    "String": pa.string(),
    "JSON": pa.string(),
    "Decimal": pa.decimal128(38, 18),
    "Date/Time": pa.timestamp("us", tz="UTC"),
}
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
UNIT = re.compile(r"([1-9]\d* )?([A-Z][a-z]+s|[KMGTPE]?i?B)(-[A-Z][a-z]+s)?", re.ASCII)


def table(version: str) -> dict[str, tuple[str, str, bool]]:
    """The columns of a version: data type, feature level, whether null is allowed."""
    lines = (line.split() for line in (BOTH + ONLY[version]).strip().splitlines() if line)
    return {name: (kind, level, nulls == "True") for name, kind, level, nulls in lines}


CHARGE = Charge(
    start_s=JANUARY + 30 * DAY,
    end_s=JANUARY + 31 * DAY,
    organization_id="org-1",
    kind="completions",
    part="cached_input",
    line_item="gpt-4o-2024-08-06, cached input",
    project_id="proj_1",
    user_id="=user",
    api_key_id="key_1",
    model="gpt-4o-2024-08-06",
    service_tier="flex",
    batch=False,
    api_source="unlabeled",
    quantity=Decimal(123_457),
    quantity_unit="tokens",
    amount=Decimal("0.15432125"),
    price=Decimal("1.25"),
    unit="1M tokens",
    provider="openai",
    book_id="book_1",
    rate_id=7,
)
FREE = CHARGE._replace(
    kind="vector_stores",
    part="free_storage",
    line_item="vector store storage, free",
    project_id=None,
    user_id=None,
    api_key_id=None,
    model=None,
    service_tier=None,
    batch=None,
    api_source=None,
    quantity=Decimal("-3.6"),
    quantity_unit="gibibyte_hours",
    amount=Decimal("-0.015"),
    price=Decimal("0.1"),
    unit="GiB-day",
)
REPORTED = CHARGE._replace(
    part="reported",
    line_item="gpt-4o-2024-08-06, reported cost",
    quantity=None,
    quantity_unit=None,
    amount=Decimal("0.000000000000000001"),
    price=None,
    unit=None,
    provider=None,
    book_id=None,
)

# Kind, parts, unit on the wire; units a price may be for and how many of the quantity each is.
TOKENS = {"token": 1, "1K tokens": 1_000, "1M tokens": 1_000_000}
INPUTS = ["input", "image_input", "audio_input", "cached_input", "cached_image_input", "cached_audio_input"]
METERS: list[tuple[str, list[str], str | None, dict[str, int]]] = [
    ("completions", [*INPUTS, "cache_write_30m", "cache_write_12h", "output", "audio_output"], "tokens", TOKENS),
    ("embeddings", ["input"], "tokens", TOKENS),
    ("moderations", ["input"], "tokens", TOKENS),
    ("decisions", ["requests"], None, {"request": 1, "1K requests": 1_000}),
    ("images", ["images"], "images", {"image": 1}),
    ("audio_speeches", ["characters"], "characters", {"character": 1, "1K characters": 1_000, "1M characters": 10**6}),
    ("audio_transcriptions", ["seconds"], "duration_seconds", {"second": 1, "minute": 60, "hour": 3_600}),
    ("vector_stores", ["storage"], "gibibyte_hours", {"GiB-hour": 1, "GiB-day": 24}),
    ("code_interpreter_sessions", ["sessions"], None, {"session": 1}),
    ("file_search_calls", ["file_searches"], None, {"call": 1, "1K calls": 1_000}),
    ("web_search_calls", ["web_searches"], None, {"call": 1, "1K calls": 1_000}),
]
names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
optional = st.none() | names


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    """Any charge there can be: priced usage, reported cost, free storage."""
    start_s = draw(st.integers(1_420_070_400 // 3_600, 4_000_000_000 // 3_600)) * 3_600
    charge = CHARGE._replace(
        start_s=start_s,
        end_s=start_s + 3_600,
        organization_id=draw(names),
        batch=draw(st.none() | st.booleans()),
        api_source=draw(st.sampled_from([None, "agents_api", "unlabeled"])),
        provider=draw(st.sampled_from(["openai", "own", None])),
        rate_id=draw(st.integers(1, 2**31 - 1)),
        project_id=draw(optional),
        user_id=draw(optional),
        api_key_id=draw(optional),
        model=draw(optional),
        service_tier=draw(optional),
    )
    amount = draw(st.decimals(0, 10**12, places=18))
    what = draw(st.sampled_from(["priced"] * 8 + ["reported", "free"]))
    if what == "reported":
        return REPORTED._replace(amount=amount)
    if what == "free":
        return FREE._replace(amount=-amount)
    kind, parts, quantity_unit, units = draw(st.sampled_from(METERS))
    unit = draw(st.sampled_from(list(units)))
    price = draw(st.decimals(0, 1_000, places=draw(st.integers(0, 12))))
    quantity = Decimal(draw(st.integers(1, 2**53)))
    if quantity_unit == "gibibyte_hours":
        quantity = (quantity / 2**30).quantize(ULP, context=WIDE)
    return charge._replace(
        kind=kind,
        part=draw(st.sampled_from(parts)),
        quantity=quantity,
        quantity_unit=quantity_unit,
        amount=cost(quantity, price, units[unit]),
        price=price,
        unit=unit,
    )


def cost(quantity: Decimal, price: Decimal, size: int) -> Decimal:
    """Quantity times price, rounded half up to 18 decimals."""
    return WIDE.divide(WIDE.multiply(quantity, price), Decimal(size)).quantize(ULP, ROUND_HALF_UP, WIDE)


def as_csv(rows: list[Charge], version: str) -> list[dict[str, str]]:
    content = b"".join(stream(focus_batches(rows, version), schema(version), "csv"))
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def as_parquet(rows: list[Charge], version: str) -> pa.Table:
    content = b"".join(stream(focus_batches(rows, version), schema(version), "parquet"))
    return pq.read_table(io.BytesIO(content))


@pytest.mark.parametrize("version", VERSIONS)
def test_all_columns_are_there_typed_and_in_order(version: str) -> None:
    expected = table(version)
    mandatory = [name for name, (_, level, _) in expected.items() if level == "Mandatory"]
    assert len(mandatory) == 21
    own = [name for name in schema(version).names if name.startswith("x_")]
    assert schema(version).names == [*sorted(expected), *own]
    assert own == sorted(own)
    assert {"x_ApiKeyId", "x_Batch", "x_LineItem", "x_PriceBookId", "x_ServiceTier", "x_UserId"} <= set(own)
    assert all(re.fullmatch(r"(x_)?[A-Z][A-Za-z0-9]{1,47}", name) for name in schema(version).names)
    for name, (kind, _, nulls) in expected.items():
        field = schema(version).field(name)
        assert (field.type, field.nullable) == (TYPES[kind], nulls), name


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_of_columns_says_what_the_specification_says(version: str) -> None:
    columns = {column.name: column for column in FOCUS[version].columns if column.level != "Custom"}
    assert {name: (column.type, column.level, column.nullable) for name, column in columns.items()} == table(version)
    for name, column in columns.items():
        if name in ALLOWED:
            assert set(column.values or ()) <= ALLOWED[name]
            assert column.values, name


def faults(row: dict[str, str], version: str) -> Iterator[str]:
    """Every rule of the specification that a row breaks. An empty cell is a null."""
    for name, (kind, _, nulls) in table(version).items():
        value = row[name]
        if not value:
            if not nulls:
                yield f"{name} is null"
        elif kind == "Decimal" and not NUMBER.fullmatch(value):
            yield f"{name} is no plain number: {value}"
        elif kind == "Date/Time" and not INSTANT.fullmatch(value):
            yield f"{name} is no instant: {value}"
        elif kind == "JSON":
            yield from json_faults(name, value)
        elif name in ALLOWED and value not in ALLOWED[name]:
            yield f"{name} may not be {value}"
    yield from null_faults(row)
    yield from cost_faults(row)
    for name in ("ConsumedUnit", "PricingUnit"):
        if row[name] and not UNIT.fullmatch(row[name]):
            yield f"{name} is no unit: {row[name]}"
    if not row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["BillingPeriodEnd"]:
        yield "the charge is not in its billing period"
    if not re.fullmatch(r"\d{4}-\d\d-01T00:00:00Z", row["BillingPeriodStart"]):
        yield "the billing period is no calendar month"


def json_faults(name: str, value: str) -> Iterator[str]:
    pairs = json.loads(value, object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys) or any(isinstance(item, list | dict) for _, item in pairs):
        yield f"{name} is no key-value object: {value}"
    prefix = "tallybook/" if name == "Tags" else "x_"
    if not all(key.startswith(prefix) for key in keys):
        yield f"{name} has a key without its prefix: {value}"


def null_faults(row: dict[str, str]) -> Iterator[str]:
    """Which columns are null with which."""
    of_a_price = ("ListUnitPrice", "ContractedUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit")
    if row["ChargeCategory"] == "Usage":
        for name in (*of_a_price, "SkuId", "SkuPriceId", "SkuMeter", "ConsumedQuantity", "ConsumedUnit"):
            if not row[name]:
                yield f"{name} is null on usage"
    else:
        yield from (f"{name} on no usage" for name in ("ConsumedQuantity", "ConsumedUnit") if row[name])
    if not row["SkuPriceId"]:
        yield from (f"{name} without SkuPriceId" for name in (*of_a_price, "SkuPriceDetails") if row[name])
    pairs = [("SkuMeter", "SkuId"), ("SubAccountName", "SubAccountId"), ("SubAccountType", "SubAccountId")]
    pairs += [("ResourceType", "ResourceId"), ("PricingUnit", "PricingQuantity"), ("ConsumedUnit", "ConsumedQuantity")]
    yield from (f"{one} without {other}" for one, other in pairs if bool(row[one]) != bool(row[other]))
    if row["ChargeClass"]:
        yield "nothing here is a correction"


def cost_faults(row: dict[str, str]) -> Iterator[str]:
    """Costs are prices times quantities; where that is no finite decimal, at the precision of amounts."""
    for price_name, cost_name in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
        if not row[price_name]:
            if row[cost_name] != row["BilledCost"]:
                yield f"{cost_name} without a price is not BilledCost"
            continue
        price, found = Decimal(row[price_name]), Decimal(row[cost_name])
        product = WIDE.multiply(price, Decimal(row["PricingQuantity"]))
        if price < 0:
            yield f"{price_name} is negative"
        if product != found and row["PricingUnit"] not in ("Minutes", "Hours", "GiB-Hours", "GiB-Days"):
            yield f"{price} x {row['PricingQuantity']} is not {found}"
        if abs(WIDE.subtract(product, found)) > max(price, Decimal(1)) * ULP / 2:
            yield f"{price} x {row['PricingQuantity']} is not {found}, not even nearly"
    if row["EffectiveCost"] != row["BilledCost"]:
        yield "EffectiveCost is not BilledCost, although nothing is committed"


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(charge=charges())
def test_every_row_keeps_every_rule(version: str, charge: Charge) -> None:
    (row,) = as_csv([charge], version)
    assert not list(faults(row, version))


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.lists(charges(), max_size=20))
def test_csv_and_parquet_say_the_same_and_amounts_add_up(version: str, rows: list[Charge]) -> None:
    cells = as_csv(rows, version)
    columns = as_parquet(rows, version)
    assert columns.num_rows == len(cells) == len(rows)
    for cell, value in zip(cells, columns.to_pylist(), strict=True):
        for name, text in cell.items():
            assert text == as_text(value[name]), name
    total = sum_of(charge.amount for charge in rows)
    for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum_of(Decimal(cell[name]) for cell in cells) == total


def sum_of(amounts: Iterator[Decimal]) -> Decimal:
    total = Decimal(0)
    for amount in amounts:
        total = WIDE.add(total, amount)
    return total


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        text = f"{value:f}".rstrip("0").rstrip(".")
        return text or "0"
    return defuse(value) if isinstance(value, str) else f"{value:%Y-%m-%dT%H:%M:%SZ}"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=st.lists(charges(), min_size=2, max_size=20))
def test_a_sku_price_has_one_sku_and_says_the_same_of_it_on_every_row(rows: list[Charge]) -> None:
    seen: dict[str, tuple[str, str, str]] = {}
    for row in as_csv(rows, "1.4"):
        if row["SkuPriceId"]:
            found = (row["SkuId"], row["SkuMeter"], row["SkuPriceDetails"])
            kind_and_part = found[0].split("/")[0], found[0].rsplit("/", maxsplit=1)[-1]
            assert kind_and_part == (row["x_UsageKind"], row["x_UsagePart"])
            assert seen.setdefault(row["SkuPriceId"], found)[0] == found[0]


GOLDEN = {
    "BilledCost": "0.15432125",
    "BillingAccountId": "org-1",
    "BillingAccountName": "",
    "BillingAccountType": "Organization",
    "BillingCurrency": "USD",
    "BillingPeriodEnd": "2026-02-01T00:00:00Z",
    "BillingPeriodStart": "2026-01-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "gpt-4o-2024-08-06, cached input at 1.25 USD per 1M tokens",
    "ChargeFrequency": "Usage-Based",
    "ChargePeriodEnd": "2026-02-01T00:00:00Z",
    "ChargePeriodStart": "2026-01-31T00:00:00Z",
    "ConsumedQuantity": "123457",
    "ConsumedUnit": "Tokens",
    "ContractedCost": "0.15432125",
    "ContractedUnitPrice": "1.25",
    "EffectiveCost": "0.15432125",
    "HostProviderName": "OpenAI",
    "InvoiceIssuerName": "Example Platform",
    "ListCost": "0.15432125",
    "ListUnitPrice": "1.25",
    "PricingCategory": "Standard",
    "PricingQuantity": "0.123457",
    "PricingUnit": "1000000 Tokens",
    "ResourceId": "gpt-4o-2024-08-06",
    "ResourceName": "",
    "ResourceType": "Model",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "Completions",
    "ServiceProviderName": "OpenAI",
    "ServiceSubcategory": "Generative AI",
    "SkuId": "completions/gpt-4o-2024-08-06/cached_input",
    "SkuMeter": "Cached Input Tokens",
    "SkuPriceDetails": '{"x_ModelId":"gpt-4o-2024-08-06","x_TokenDirection":"Input","x_Modality":"Text",'
    '"x_TokenCacheAction":"Read","x_ServiceTier":"flex","x_Batch":false}',
    "SkuPriceId": "completions/gpt-4o-2024-08-06/cached_input/flex",
    "SubAccountId": "proj_1",
    "SubAccountName": "proj_1",
    "SubAccountType": "Project",
    "Tags": '{"tallybook/user_id":"=user","tallybook/api_key_id":"key_1","tallybook/model":"gpt-4o-2024-08-06",'
    '"tallybook/service_tier":"flex","tallybook/batch":"false","tallybook/api_source":"unlabeled"}',
    "x_ApiKeyId": "key_1",
    "x_ApiSource": "unlabeled",
    "x_Batch": "false",
    "x_LineItem": "gpt-4o-2024-08-06, cached input",
    "x_ModelId": "gpt-4o-2024-08-06",
    "x_Price": "1.25",
    "x_PriceBookId": "book_1",
    "x_PriceUnit": "1M tokens",
    "x_RateId": "7",
    "x_ServiceTier": "flex",
    "x_UsageKind": "completions",
    "x_UsagePart": "cached_input",
    "x_UserId": "'=user",  # no formula
}


def test_a_row_by_hand() -> None:
    # 123,457 tokens at 1.25 US dollars a million: 123457 x 1.25 / 1000000 = 0.15432125
    batches = focus_batches([CHARGE], "1.4", platform="Example Platform", providers={"openai": "OpenAI"})
    content = b"".join(stream(batches, schema("1.4"), "csv")).decode()
    (row,) = csv.DictReader(io.StringIO(content))
    assert row == GOLDEN
    assert list(row) == list(GOLDEN)


def test_version_1_2_names_providers_in_its_own_columns() -> None:
    (row,) = as_csv([CHARGE], "1.2")
    assert (row["ProviderName"], row["PublisherName"], row["InvoiceId"]) == ("openai", "openai", "")
    assert {name for name in GOLDEN if name not in row} == {"HostProviderName", "ServiceProviderName"}


def test_own_models_are_provided_by_the_platform() -> None:
    batches = focus_batches([CHARGE._replace(provider="own"), REPORTED], "1.4", platform="Example Platform")
    for batch in batches:
        assert batch.column("ServiceProviderName").to_pylist() == ["Example Platform"] * 2


def test_free_storage_is_a_credit_that_says_what_for() -> None:
    (row,) = as_csv([FREE], "1.4")
    assert (row["ChargeCategory"], row["BilledCost"], row["ListCost"]) == ("Credit", "-0.015", "-0.015")
    assert (row["SkuId"], row["SkuMeter"], row["SkuPriceId"], row["Tags"]) == (
        "vector_stores/storage",
        "Storage",
        "",
        "",
    )
    (same,) = as_csv([FREE._replace(part="free storage")], "1.4")
    assert same["ChargeCategory"] == "Credit"


def test_reported_cost_is_metered_in_dollars() -> None:
    (row,) = as_csv([REPORTED], "1.4")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == ("0.000000000000000001", "Dollars")
    assert (row["ListUnitPrice"], row["PricingUnit"], row["SkuMeter"]) == ("1", "Dollars", "Reported Cost")
    assert (row["x_Price"], row["x_PriceUnit"], row["x_PriceBookId"]) == ("", "", "")


@pytest.mark.parametrize(
    ("price", "unit", "quantity", "priced"),
    [
        # price and unit of the book, quantity used -> unit price, pricing quantity, pricing unit
        ("0.006", "minute", 100, ("0.0001", "100", "Seconds")),  # 0.006 / 60 is finite
        ("0.36", "hour", 100, ("0.0001", "100", "Seconds")),  # 0.36 / 3600 is finite
        ("2.49", "hour", 120, ("0.0415", "2", "Minutes")),  # 2.49 / 3600 is not, 2.49 / 60 is
        ("0.111", "hour", 1, ("0.00185", "0.016666666666666667", "Minutes")),  # 0.111 / 3600 = 0.0000308333...
        ("0.1", "hour", 10, ("0.1", "0.002777777777777778", "Hours")),  # 0.1 / 60 = 0.001666...
        ("15", "1M characters", 3, ("15", "0.000003", "1000000 Characters")),
        ("2.5", "1K calls", 1, ("2.5", "0.001", "1000 Calls")),
        ("0.03", "session", 2, ("0.03", "2", "Sessions")),
        ("0", "hour", 7, ("0", "7", "Seconds")),
    ],
)
def test_price_times_quantity_is_the_cost(price: str, unit: str, quantity: int, priced: tuple[str, str, str]) -> None:
    units = {name: size for *_, sizes in METERS for name, size in sizes.items()}
    amount = cost(Decimal(quantity), Decimal(price), units[unit])
    charge = CHARGE._replace(price=Decimal(price), unit=unit, quantity=Decimal(quantity), amount=amount)
    (row,) = as_csv([charge], "1.4")
    assert (row["ListUnitPrice"], row["PricingQuantity"], row["PricingUnit"]) == priced
    assert (row["x_Price"], row["x_PriceUnit"], Decimal(row["BilledCost"])) == (price, unit, amount)
    product = WIDE.multiply(Decimal(priced[0]), Decimal(priced[1]))
    assert product.quantize(ULP, ROUND_HALF_UP, WIDE) == amount


def test_amounts_rounded_event_by_event_keep_their_sum() -> None:
    # Three events of a second at 0.1 an hour: 0.1 / 3600 = 0.00002777..., rounded 0.000027777777777778 each.
    amount = 3 * Decimal("0.000027777777777778")
    charge = CHARGE._replace(price=Decimal("0.1"), unit="hour", quantity=Decimal(3), amount=amount)
    (row,) = as_csv([charge], "1.4")
    assert (row["BilledCost"], row["ConsumedQuantity"]) == ("0.000083333333333334", "3")
    product = WIDE.multiply(Decimal(row["ListUnitPrice"]), Decimal(row["PricingQuantity"]))
    assert product.quantize(ULP, ROUND_HALF_UP, WIDE) == amount


def test_what_else_a_price_depends_on_tells_prices_of_a_sku_apart() -> None:
    small = CHARGE._replace(kind="images", part="images", quantity_unit="images", unit="image", batch=True)
    sizes = [small._replace(terms=(("size", size), ("quality", "hd"))) for size in ("256x256", "512x512")]
    rows = as_csv(sizes, "1.4")
    assert len({row["SkuId"] for row in rows}) == 1
    assert [row["SkuPriceId"].split("/flex/")[1] for row in rows] == [
        "batch/size=256x256/quality=hd",
        "batch/size=512x512/quality=hd",
    ]
    assert json.loads(rows[0]["SkuPriceDetails"])["x_Size"] == "256x256"


def test_cache_writes_audio_and_output_are_told_apart() -> None:
    parts = ["cache_write_12h", "cached_audio_input", "output", "image_output"]
    details = [
        json.loads(row["SkuPriceDetails"]) for row in as_csv([CHARGE._replace(part=part) for part in parts], "1.2")
    ]
    told = [
        [item.get(f"x_{key}") for key in ("TokenDirection", "Modality", "TokenCacheAction", "CacheRetention")]
        for item in details
    ]
    assert told == [
        ["Input", "Text", "Write", "12h"],
        ["Input", "Audio", "Read", None],
        ["Output", "Text", None, None],
        ["Output", "Image", None, None],
    ]


def test_the_twelfth_month_ends_with_the_year() -> None:
    december = 1_798_675_200  # 2026-12-31
    (row,) = as_csv([CHARGE._replace(start_s=december, end_s=december + DAY)], "1.4")
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")


def test_a_version_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError):
        schema("1.3")


def test_parquet_says_which_version_it_is() -> None:
    metadata = as_parquet([CHARGE], "1.4").schema.metadata
    assert (metadata[b"FocusVersion"], metadata[b"DataGenerator"]) == (b"1.4", b"Tallybook")
