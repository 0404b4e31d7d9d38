"""Prices of a day, an hour, a tier and a place: boundary pairs, and only what is standard at the standard price."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tallybook.kinds import KINDS
from tallybook.prices.book import PriceBook, load
from tallybook.prices.file import FaultyPrices, read
from tallybook.prices.hours import read_hours

KIND = KINDS["completions"]
MILLION = 10**6


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return load(tmp_path_factory.mktemp("data"), None)


def cost(book: PriceBook, when: str, tokens: int = MILLION, part: str = "input", **dimensions: Any) -> str | None:
    """What tokens of one part cost in one request, as the store charges it: by the rules of their day."""
    at = datetime.fromisoformat(when)
    day_s = int(at.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    named = dict.fromkeys(KIND.dimensions) | {"batch": False} | dimensions
    rules = book.rules(KIND, tuple(named[name] for name in KIND.dimensions), day_s)
    at_ms = round(at.timestamp() * 1000)
    *_, rule = (rule for rule in rules if rule.since_ms <= at_ms and tokens > rule.above)
    prices = {price.part: price.value for price in rule.rate.prices} if rule.rate else {}
    return f"{(prices[part] * tokens / MILLION).normalize():f}" if part in prices else None


@pytest.mark.parametrize(
    ("model", "when", "price"),
    [
        # Peak hours began at midnight in Beijing, on every day, at twice the price of that time.
        ("deepseek-v4-pro", "2026-08-16T02:00:00Z", "0.435"),
        ("deepseek-v4-pro", "2026-08-16T15:59:59Z", "0.435"),
        ("deepseek-v4-pro", "2026-08-16T16:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-08-17T00:59:59Z", "0.66"),
        ("deepseek-v4-pro", "2026-08-17T01:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-17T03:59:59Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-17T04:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-08-17T06:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-17T09:59:59Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-17T10:00:00Z", "0.66"),
        ("deepseek-v4-flash", "2026-08-20T02:00:00Z", "0.44"),
        ("deepseek-v4-flash", "2026-08-20T12:00:00Z", "0.22"),
        # Weekends are free of them since 23 August, a Sunday.
        ("deepseek-v4-pro", "2026-08-22T02:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-08-23T02:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-08-24T02:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-10-10T02:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-10-11T02:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-10-12T02:00:00Z", "1.32"),
        ("deepseek:deepseek-v4-pro", "2026-10-12T02:00:00Z", "1.32"),
        # So are public holidays: the National Day's week.
        ("deepseek-v4-pro", "2026-09-30T02:00:00Z", "1.32"),
        ("deepseek-v4-pro", "2026-10-01T02:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-10-07T02:00:00Z", "0.66"),
        ("deepseek-v4-pro", "2026-10-08T02:00:00Z", "1.32"),
        # The model behind the name changed.
        ("deepseek-v4-flash", "2026-09-09T02:00:00Z", "0.44"),
        ("deepseek-v4-flash", "2026-09-09T15:59:59Z", "0.22"),
        ("deepseek-v4-flash", "2026-09-09T16:00:00Z", "0.15"),
        ("deepseek-v4-flash", "2026-09-10T02:00:00Z", "0.3"),
        ("deepseek-flash", "2026-09-11T02:00:00Z", "0.3"),
        ("deepseek-flash", "2026-09-12T02:00:00Z", "0.15"),
        # Discounted hours of the older names ended.
        ("deepseek-chat", "2025-09-01T17:00:00Z", "0.135"),
        ("deepseek-chat", "2025-09-05T15:59:59Z", "0.27"),
        ("deepseek-chat", "2025-09-05T16:00:00Z", "0.56"),
        ("deepseek-reasoner", "2025-09-28T23:59:59Z", "0.56"),
        ("deepseek-reasoner", "2025-09-29T00:00:00Z", "0.28"),
        ("deepseek-chat", "2026-04-24T00:00:00Z", "0.14"),
    ],
)
def test_an_event_has_the_price_of_its_hour(book: PriceBook, model: str, when: str, price: str) -> None:
    assert cost(book, when, model=model) == price


def test_long_contexts_of_sonnet_4_cost_more_since_there_are_any(book: PriceBook) -> None:
    def of(when: str, tokens: int, **dimensions: Any) -> str | None:
        return cost(book, when, tokens, model="claude-sonnet-4-20250514", **dimensions)

    assert of("2025-10-01T00:00:00Z", 200_000) == "0.6"
    assert of("2025-10-01T00:00:00Z", 200_001) == "1.200006"
    assert of("2025-10-01T00:00:00Z", 200_001, batch=True) == "0.600003"


OCTOBER = "2026-10-26T12:00:00Z"


@pytest.mark.parametrize(
    ("model", "dimensions", "price"),
    [
        ("claude-opus-4-8", {"service_tier": "fast"}, "10"),
        ("claude-opus-5", {"service_tier": "fast"}, "10"),
        ("claude-opus-4-6", {"service_tier": "fast"}, "30"),
        ("claude-opus-4-7", {"service_tier": "fast"}, "30"),
        ("claude-opus-4-6", {"inference_geo": "us"}, "5.5"),
        ("claude-sonnet-4-6", {"inference_geo": "us"}, "3.3"),
        ("anthropic/claude-opus-4.6", {"inference_geo": "us"}, "5.5"),
        ("claude-opus-5", {"service_tier": "fast", "inference_geo": "us"}, "11"),
        ("claude-opus-5", {"batch": True, "inference_geo": "us"}, "2.75"),
        # Words for the standard.
        *(("claude-opus-5", {"service_tier": tier}, "5") for tier in ("standard", "default", "auto")),
        *(("claude-opus-5", {"inference_geo": geo}, "5") for geo in ("global", "not_available")),
        ("gpt-5", {"service_tier": "batch"}, "0.625"),
        # Nothing is known of these.
        ("claude-opus-4-5", {"service_tier": "fast"}, None),
        ("claude-opus-4-5", {"inference_geo": "us"}, None),
        ("claude-opus-5", {"inference_geo": "eu"}, None),
        ("claude-opus-5", {"service_tier": "priority"}, None),
        ("gpt-5", {"inference_geo": "eu"}, None),
        ("gpt-4o", {"service_tier": "turbo"}, None),
        ("us.anthropic.claude-opus-5", {"service_tier": "fast"}, None),
        ("us.anthropic.claude-opus-5", {"batch": True}, None),
        ("chatgpt-4o-latest", {}, "5"),
        ("chatgpt-4o-latest", {"service_tier": "priority"}, None),
        ("chatgpt-4o-latest", {"inference_geo": "eu"}, None),
        # A subscription is not billed by what was used.
        ("claude-opus-5", {"service_tier": "subscription"}, "0"),
        ("gpt-99-nova", {"service_tier": "subscription"}, "0"),
    ],
)
def test_a_tier_or_place_has_its_own_price_or_none(
    book: PriceBook, model: str, dimensions: dict[str, Any], price: str | None
) -> None:
    assert cost(book, OCTOBER, model=model, **dimensions) == price


def test_fast_mode_multiplies_the_cache_and_the_long_contexts_of_its_day(book: PriceBook) -> None:
    for part, price in {
        "cached_input": "3",
        "cache_write_30m": "37.5",
        "cache_write_12h": "60",
        "output": "150",
    }.items():
        dimensions = {"model": "claude-opus-4-6", "service_tier": "fast"}
        assert cost(book, OCTOBER, MILLION, part, **dimensions) == price
    before = "2026-03-01T00:00:00Z"  # a million tokens still cost twice
    assert cost(book, before, 200_000, model="claude-opus-4-6", service_tier="fast") == "6"
    assert cost(book, before, 300_000, model="claude-opus-4-6", service_tier="fast") == "18"


PEAKS = """model,counted,unit,price,hours,weekdays,timezone,from,until
m,input,1M tokens,1,,,,,
m,input,1M tokens,2,09:00-12:00 14:00-18:00,mon-fri,{zone},{since},
"""


@pytest.mark.parametrize(
    ("zone", "when", "price"),
    [
        ("Asia/Shanghai", "2026-10-26T00:59:59Z", "1"),
        ("Asia/Shanghai", "2026-10-26T01:00:00Z", "2"),
        ("Asia/Shanghai", "2026-10-26T04:00:00Z", "1"),
        ("Asia/Shanghai", "2026-10-25T01:00:00Z", "1"),
        # New York is 4 hours behind until 1 November 2026, 06:00 UTC, then 5.
        ("America/New_York", "2026-10-30T13:00:00Z", "2"),
        ("America/New_York", "2026-10-30T12:59:59Z", "1"),
        ("America/New_York", "2026-11-02T13:00:00Z", "1"),
        ("America/New_York", "2026-11-02T14:00:00Z", "2"),
        # A day there that is another day in UTC.
        ("Pacific/Auckland", "2026-10-25T20:00:00Z", "2"),
        ("Pacific/Auckland", "2026-10-30T20:00:00Z", "1"),
        ("", "2026-10-26T09:00:00Z", "2"),
    ],
)
def test_a_price_file_knows_hours_days_and_zones(
    tmp_path_factory: pytest.TempPathFactory, zone: str, when: str, price: str
) -> None:
    book = load(tmp_path_factory.mktemp("data"), PEAKS.format(zone=zone, since=""))
    assert cost(book, when, model="m") == price


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_rules_of_a_day_say_the_same_as_the_clock_at_every_minute(zone: str) -> None:
    hours = read_hours("02:00-02:45 09:10-24:00", "sat sun", zone)
    assert hours
    for day in ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"):
        day_ms = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        edges = sorted({day_ms, *hours.changes_ms(day_ms)})
        for at_ms in range(day_ms, day_ms + 86_400_000, 60_000):
            since = max(edge for edge in edges if edge <= at_ms)
            assert hours.holds(at_ms) == hours.holds(since), (day, at_ms)


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ("9-12,,", "hours"),
        ("12:00-09:00,,", "hours"),
        ("09:00-24:30,,", "hours"),
        (",monday,", "weekdays"),
        (",fri-mon,", "weekdays"),
        (",mon-fri,Asia/Nowhere", "timezone"),
        (",,UTC", "timezone"),
    ],
)
def test_hours_that_are_none_are_refused_with_what_would_be_right(cells: str, column: str) -> None:
    text = f"model,counted,unit,price,hours,weekdays,timezone\nm,input,1M tokens,1,{cells}\n"
    with pytest.raises(FaultyPrices) as refused:
        read(text, "test")
    assert [fault.column for fault in refused.value.faults] == [column]


def test_a_line_of_the_operator_prices_a_subscription_and_no_other_does(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    text = "model,counted,service_tier,unit,price\nm,input,,1M tokens,1\nn,input,subscription,1M tokens,3\n"
    book = load(tmp_path_factory.mktemp("data"), text)
    assert cost(book, OCTOBER, model="m") == "1"
    assert cost(book, OCTOBER, model="m", service_tier="subscription") == "0"
    assert cost(book, OCTOBER, model="n", service_tier="subscription") == "3"


def test_a_factor_says_what_a_subscription_would_cost_at_list_prices(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = "provider,service_tier,factor\nanthropic,subscription,1\n"
    book = load(tmp_path_factory.mktemp("data"), text)
    assert cost(book, OCTOBER, model="claude-opus-5", service_tier="subscription") == "5"
    assert cost(book, OCTOBER, model="claude-opus-5") == "5"
    assert cost(book, OCTOBER, model="gpt-5", service_tier="subscription") == "0"


def test_an_image_whose_tokens_are_recorded_is_charged_once(book: PriceBook) -> None:
    dimensions = {"model": "gpt-image-1", "size": "1024x1024", "quality": "tokens", "service_tier": None}
    (_, prices), *_ = book.classes("images", {**dimensions, "batch": False}, 1_793_059_200_000)
    assert prices["images"].value == Decimal(0)
    assert cost(book, OCTOBER, 1_056, "image_output", model="gpt-image-1") == "0.04224"
    assert cost(book, OCTOBER, 3_200, "image_input", model="gpt-image-1") == "0.032"
