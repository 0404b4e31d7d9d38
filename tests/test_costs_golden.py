"""Costs that a person can work out: each case says which price it takes, from where, and how often.

The sources are the pages of the providers. Their prices are taken as the library genai-prices 0.2.3 has read them, and
where it has none (images, embeddings, storage, sessions, moderation) as they have long been published.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.model import Event
from tests.support import Server
from tests.test_costs_exactness import COSTS, EVENTS, exactly, send, unpriced
from tests.test_exactness import fresh

DAY_S = 86_400
DAY = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())
NOON = DAY + 43_200

Line = tuple[str, int | None, str | None]
"""An amount in US dollars, the quantity, its unit."""


class Case(NamedTuple):
    """Events at noon of one day, and what the day costs by line item."""

    name: str
    events: list[Event]
    lines: dict[str, Line]


def completion(model: str, **fields: Any) -> Event:
    return {"kind": "completions", "model": model, **fields}


def image(model: str, size: str, quality: str | None, images: int = 1) -> Event:
    event: Event = {"kind": "images", "model": model, "size": size, "images": images}
    return event | ({"quality": quality} if quality else {})


SPOKEN = {
    "input_tokens": 1_000,
    "input_cached_tokens": 250,
    "input_image_tokens": 50,
    "input_audio_tokens": 600,
    "input_cached_audio_tokens": 100,
    "output_tokens": 300,
    "output_audio_tokens": 240,
}
WRITTEN = {
    "input_tokens": 10_000,
    "input_cached_tokens": 2_000,
    "input_cache_write_30m_tokens": 3_000,
    "input_cache_write_12h_tokens": 1_000,
    "output_tokens": 500,
}

CASES = [
    # Per million: input 2.50, cached input 1.25, output 10.00. Source: developers.openai.com/api/docs/pricing
    Case(
        "cached input is not input",
        [completion("gpt-4o-2024-08-06", input_tokens=1_000_000, input_cached_tokens=400_000, output_tokens=100_000)],
        {
            "gpt-4o-2024-08-06, input": ("1.50", 600_000, "tokens"),
            "gpt-4o-2024-08-06, cached input": ("0.50", 400_000, "tokens"),
            "gpt-4o-2024-08-06, output": ("1.00", 100_000, "tokens"),
        },
    ),
    # Per million: text 4 in, 0.40 cached, 16 out; audio 32 in, 0.40 cached, 64 out; image 5 in.
    # Source: developers.openai.com/api/docs/models/gpt-realtime. Text in: 1000 - 250 cached - 50 image - 500 audio.
    Case(
        "audio in, out and from the cache",
        [completion("gpt-realtime-2025-08-28", **SPOKEN)],
        {
            "gpt-realtime-2025-08-28, input": ("0.0008", 200, "tokens"),
            "gpt-realtime-2025-08-28, image input": ("0.00025", 50, "tokens"),
            "gpt-realtime-2025-08-28, audio input": ("0.016", 500, "tokens"),
            "gpt-realtime-2025-08-28, cached input": ("0.00006", 150, "tokens"),
            "gpt-realtime-2025-08-28, cached audio input": ("0.00004", 100, "tokens"),
            "gpt-realtime-2025-08-28, output": ("0.00096", 60, "tokens"),
            "gpt-realtime-2025-08-28, audio output": ("0.01536", 240, "tokens"),
        },
    ),
    # An image: standard 0.04, 0.08 when it is not square; hd 0.08, 0.12. Source: openai.com/api/pricing.
    # An image without a quality is a standard one, as in the provider's API.
    Case(
        "images by size and quality",
        [
            image("dall-e-3", "1024x1024", "standard", 2),  # 0.08
            image("dall-e-3", "1024x1024", None),  # 0.04
            image("dall-e-3", "1024x1792", "standard"),  # 0.08
            image("dall-e-3", "1024x1024", "hd"),  # 0.08
            image("dall-e-3", "1792x1024", "hd", 3),  # 0.36
        ],
        {"dall-e-3, images": ("0.64", 8, "images")},
    ),
    # An image: 0.016, 0.018 and 0.02 by size. Source: openai.com/api/pricing
    Case(
        "images by size",
        [
            image("dall-e-2", "256x256", None),
            image("dall-e-2", "512x512", None, 10),
            image("dall-e-2", "1024x1024", None),
        ],
        {"dall-e-2, images": ("0.216", 12, "images")},
    ),
    # A million characters: 15.00 and 30.00. Source: developers.openai.com/api/docs/pricing
    Case(
        "speech by characters",
        [
            {"kind": "audio_speeches", "model": "tts-1", "characters": 1_234},
            {"kind": "audio_speeches", "model": "tts-1-hd", "characters": 1},
        ],
        {
            "tts-1, characters": ("0.01851", 1_234, "characters"),
            "tts-1-hd, characters": ("0.00003", 1, "characters"),
        },
    ),
    # A minute: 0.006, billed by the second. Source: developers.openai.com/api/docs/models/whisper-1
    Case(
        "transcription by seconds, each recording rounded",
        [
            {"kind": "audio_transcriptions", "model": "whisper-1", "seconds": 61.5},  # 62
            {"kind": "audio_transcriptions", "model": "whisper-1", "seconds": 7.4},  # 7
        ],
        {"whisper-1, seconds": ("0.0069", 69, "duration_seconds")},
    ),
    # Per million: input 5, cached 0.50, output 30 up to 272,000 input tokens. Source: as the next
    Case(
        "as long as may be at the lower price",
        [completion("gpt-5.5-2026-04-23", input_tokens=272_000, input_cached_tokens=72_000, output_tokens=1_000)],
        {
            "gpt-5.5-2026-04-23, input": ("1", 200_000, "tokens"),
            "gpt-5.5-2026-04-23, cached input": ("0.036", 72_000, "tokens"),
            "gpt-5.5-2026-04-23, output": ("0.03", 1_000, "tokens"),
        },
    ),
    # Beyond, the full request: input and cached input twice, output one and a half times, by the page of the model,
    # developers.openai.com/api/docs/models/gpt-5.5.
    Case(
        "one token longer, and all of it is dearer",
        [completion("gpt-5.5-2026-04-23", input_tokens=272_001, input_cached_tokens=72_000, output_tokens=1_000)],
        {
            "gpt-5.5-2026-04-23, input": ("2.00001", 200_001, "tokens"),
            "gpt-5.5-2026-04-23, cached input": ("0.072", 72_000, "tokens"),
            "gpt-5.5-2026-04-23, output": ("0.045", 1_000, "tokens"),
        },
    ),
    # Flex: half of it, on either side. Source: developers.openai.com/api/docs/pricing, checked 2026-10-12
    Case(
        "flex, short and long",
        [
            completion("gpt-5.5", service_tier="flex", input_tokens=272_000, output_tokens=1_000),  # 0.68, 0.015
            completion("gpt-5.5", service_tier="flex", input_tokens=272_001, output_tokens=1_000),  # 1.360005, 0.0225
        ],
        {
            "gpt-5.5, input": ("2.040005", 544_001, "tokens"),
            "gpt-5.5, output": ("0.0375", 2_000, "tokens"),
        },
    ),
    # Batch: the same half. Source: developers.openai.com/api/docs/pricing, checked 2026-10-14
    Case(
        "batch, short and long",
        [
            completion("gpt-5.5", batch=True, input_tokens=272_000, output_tokens=1_000),
            completion("gpt-5.5", batch=True, input_tokens=272_001, output_tokens=1_000),
        ],
        {
            "gpt-5.5, input": ("2.040005", 544_001, "tokens"),
            "gpt-5.5, output": ("0.0375", 2_000, "tokens"),
        },
    ),
    # Priority: 12.50, 1.25, 75.00 per million. Source: developers.openai.com/api/docs/pricing, checked 2026-10-12
    Case(
        "priority, and the tier a response calls default",
        [
            completion(
                "gpt-5.5", service_tier="priority", input_tokens=1_000, input_cached_tokens=400, output_tokens=10
            ),
            completion(
                "gpt-5.5", service_tier="default", input_tokens=1_000, input_cached_tokens=400, output_tokens=10
            ),
        ],
        {
            "gpt-5.5, input": ("0.0105", 1_200, "tokens"),
            "gpt-5.5, cached input": ("0.0007", 800, "tokens"),
            "gpt-5.5, output": ("0.00105", 20, "tokens"),
        },
    ),
    # Per million: input 3, cache read 0.30, cache write 3.75 (5 minutes) and 6 (1 hour), output 15.
    # Source: platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing
    Case(
        "cache writes by how long they are kept",
        [completion("claude-sonnet-4-5", **WRITTEN)],
        {
            "claude-sonnet-4-5, input": ("0.012", 4_000, "tokens"),
            "claude-sonnet-4-5, cached input": ("0.0006", 2_000, "tokens"),
            "claude-sonnet-4-5, cache write 30m": ("0.01125", 3_000, "tokens"),
            "claude-sonnet-4-5, cache write 12h": ("0.006", 1_000, "tokens"),
            "claude-sonnet-4-5, output": ("0.0075", 500, "tokens"),
        },
    ),
    # A session: 0.03. Source: developers.openai.com/api/docs/pricing (containers of 1 GB)
    Case(
        "code interpreter sessions",
        [{"kind": "code_interpreter_sessions"}, {"kind": "code_interpreter_sessions", "num_sessions": 4}],
        {"code interpreter sessions": ("0.15", 5, None)},
    ),
    # 1,000 calls: web search 10.00, file search 2.50. Source: developers.openai.com/api/docs/pricing
    Case(
        "searches of the web and of files",
        [
            {"kind": "web_search_calls", "model": "gpt-5.5", "num_requests": 3, "context_level": "low"},
            {"kind": "web_search_calls", "model": "gpt-4o-2024-08-06"},
            {"kind": "file_search_calls", "vector_store_id": "vs", "num_requests": 7},
        ],
        {"web search tool calls": ("0.04", 4, None), "file search tool calls": ("0.0175", 7, None)},
    ),
    # Free of charge: a price of 0, not the absence of one. Source: developers.openai.com/api/docs/pricing
    Case(
        "moderations cost nothing, visibly",
        [{"kind": "moderations", "model": "omni-moderation-latest", "input_tokens": 1_000}],
        {"omni-moderation-latest, input": ("0", 1_000, "tokens")},
    ),
    # A million tokens: 0.02 and 0.13. Source: developers.openai.com/api/docs/pricing
    Case(
        "embeddings",
        [
            {"kind": "embeddings", "model": "text-embedding-3-small", "input_tokens": 500},
            {"kind": "embeddings", "model": "text-embedding-3-large", "input_tokens": 500},
        ],
        {
            "text-embedding-3-small, input": ("0.00001", 500, "tokens"),
            "text-embedding-3-large, input": ("0.000065", 500, "tokens"),
        },
    ),
]


def day_by_line_item(api: httpx.Client, day: int = DAY) -> dict[str, tuple[Decimal, Any, str | None]]:
    (found,) = days_by_line_item(api, day, 1)
    return found


def days_by_line_item(api: httpx.Client, start: int, days: int) -> list[dict[str, tuple[Decimal, Any, str | None]]]:
    query: dict[str, Any] = {
        "start_time": start,
        "end_time": start + days * DAY_S,
        "group_by": "line_item",
        "limit": days,
    }
    answer = api.get(COSTS, params=query)
    assert answer.status_code == 200, answer.text
    return [
        {
            row["line_item"]: (Decimal(row["amount"]["value"]), row["quantity"], row["quantity_unit"])
            for row in bucket["results"]
        }
        for bucket in exactly(answer)["data"]
    ]


def exact(lines: dict[str, Line]) -> dict[str, tuple[Decimal, int | None, str | None]]:
    return {name: (Decimal(amount), quantity, unit) for name, (amount, quantity, unit) in lines.items()}


def post(api: httpx.Client, events: Sequence[Event], when: float = NOON) -> None:
    receipt = send(api, [{"timestamp": when, **event} for event in events]).json()
    assert receipt.get("accepted") == len(events), receipt


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_list_prices(case: Case, api: httpx.Client) -> None:
    post(api, case.events)
    assert day_by_line_item(api) == exact(case.lines)
    assert unpriced(api) == []


def test_a_price_cut_holds_from_its_day_on(api: httpx.Client) -> None:
    """o3, per million: 10.00 in and 40.00 out, from 2025-06-10 on 2.00 and 8.00; cached input stayed at 0.50.

    Source: the provider's announcement of 2025-06-10.
    """
    cut = int(datetime(2025, 6, 10, tzinfo=UTC).timestamp())
    event = completion("o3-2025-04-16", input_tokens=1_000, input_cached_tokens=200, output_tokens=100)
    post(api, [event], cut - 0.001)
    post(api, [event], cut)
    assert days_by_line_item(api, cut - DAY_S, 2) == [
        exact(
            {
                "o3-2025-04-16, input": ("0.008", 800, "tokens"),
                "o3-2025-04-16, cached input": ("0.0001", 200, "tokens"),
                "o3-2025-04-16, output": ("0.004", 100, "tokens"),
            }
        ),
        exact(
            {
                "o3-2025-04-16, input": ("0.0016", 800, "tokens"),
                "o3-2025-04-16, cached input": ("0.0001", 200, "tokens"),
                "o3-2025-04-16, output": ("0.0008", 100, "tokens"),
            }
        ),
    ]


@pytest.mark.parametrize(
    ("date", "how"), [((2026, 10, 12), {"service_tier": "flex"}), ((2026, 10, 14), {"batch": True})], ids=str
)
def test_a_discount_is_given_from_the_day_it_is_known(
    date: tuple[int, int, int], how: dict[str, Any], api: httpx.Client
) -> None:
    """gpt-5.5 at half price; what is listed for the instant before is another price or none, and never half unsaid."""
    since = int(datetime(*date, tzinfo=UTC).timestamp())
    post(api, [completion("gpt-5.5", input_tokens=272_001, output_tokens=0, **how)], since)
    assert day_by_line_item(api, since) == exact({"gpt-5.5, input": ("1.360005", 272_001, "tokens")})

    post(api, [completion("gpt-5.5", input_tokens=1_000_000, output_tokens=0, user_id="early", **how)], since - 0.001)
    before = day_by_line_item(api, since - DAY_S)
    listed = exactly(api.get(f"{COSTS}/prices", params={"model": "gpt-5.5", "at": since - 1}))["data"]
    asked = [(entry["service_tier"], entry["batch"]) for entry in listed]
    priced = [
        entry
        for entry in listed
        if entry["counted"] == "input"
        and entry["above_input_tokens"] == 272_000
        and (entry["service_tier"], entry["batch"]) == (how.get("service_tier"), how.get("batch"))
    ]
    if not priced:
        assert before == {}, f"charged by a price that is not listed: {asked}"
        assert [row["line_item"] for row in unpriced(api)] == ["gpt-5.5, input"]
    else:
        amount = Decimal(priced[0]["price"])
        assert before == {"gpt-5.5, input": (amount, 1_000_000, "tokens")}


def test_a_store_costs_what_it_held_while_it_held_it(api: httpx.Client) -> None:
    """0.10 for a GiB-day, the organization's first GiB free. Source: developers.openai.com/api/docs/pricing.

    3 GiB for a day and a half, 5 GiB for a day and a half, then nothing: 3, 4 and 5 GiB-days.
    """
    level = {"kind": "vector_stores", "vector_store_id": "vs", "project_id": "p"}
    for hours, gib in ((0, 3), (36, 5), (72, 0)):
        post(api, [level | {"usage_bytes": gib * 2**30}], DAY + hours * 3_600)
    days = days_by_line_item(api, DAY, 4)
    name, free = "vector store storage", "vector store storage, free"
    assert [day.get(name) for day in days] == [
        (Decimal("0.3"), 72, "gibibyte_hours"),
        (Decimal("0.4"), 96, "gibibyte_hours"),
        (Decimal("0.5"), 120, "gibibyte_hours"),
        None,
    ]
    assert [day[free][0] for day in days[:3]] == [Decimal("-0.1")] * 3
    assert free not in days[3]


def test_one_gib_is_free_for_all_stores_of_an_organization_together(api: httpx.Client) -> None:
    """Half a GiB and half a GiB cost nothing; from noon on a third half costs 0.5 GiB x half a day x 0.10."""
    for number, hours in enumerate((0, 0, 12)):
        level = {"kind": "vector_stores", "vector_store_id": f"vs_{number}", "project_id": f"p{number}"}
        post(api, [level | {"usage_bytes": 2**29}], DAY + hours * 3_600)
        post(api, [level | {"usage_bytes": 0}], DAY + DAY_S)
    window = f"start_time={DAY}&end_time={DAY + DAY_S}"
    (bucket,) = exactly(api.get(f"{COSTS}?{window}&group_by=project_id"))["data"]
    spent = {row["project_id"]: Decimal(row["amount"]["value"]) for row in bucket["results"]}
    assert spent == {
        "p0": Decimal("0.05"),
        "p1": Decimal("0.05"),
        "p2": Decimal("0.025"),
        None: Decimal("-0.1"),
    }


@pytest.mark.parametrize(
    "event",
    [
        completion("riddle-9-preview", input_tokens=1_000),
        completion("gpt-4o-2024-08-06", input_tokens=1_000, service_tier="ultraslow"),
        {"kind": "images", "model": "riddle-image-9", "images": 1_000},
        {"kind": "audio_transcriptions", "model": "whisper-9", "seconds": 1_000},
    ],
    ids=lambda event: f"{event['model']} {event.get('service_tier', '')}",
)
def test_what_nobody_lists_is_unpriced_and_no_amount_is_made_up(event: Event, api: httpx.Client) -> None:
    post(api, [event], NOON)
    post(api, [event], NOON + 5)
    assert day_by_line_item(api) == {}
    (row,) = unpriced(api)
    told = ("kind", "model", "quantity", "events", "since", "until")
    assert [row[name] for name in told] == [event["kind"], event["model"], 2_000, 2, NOON, NOON + 5]
    assert row["line_item"].startswith(f"{event['model']}, ")


# ------------------------------------------------------------------------------------------- an operator's prices

OPERATORS = """\
# what we pay: our own machines, and what we agreed with the provider

provider,model,kind,counted,service_tier,unit,price,factor,like,from,source
us,llama-70b llama-70b-chat,,input,,1M tokens,0.20,,,,the cost of our machines
us,llama-70b llama-70b-chat,,output,,1M tokens,0.60,,,,the cost of our machines
us,qwen*,completions,requests,,1K requests,4,,,,by the request only
us,qwen*,completions,input,,token,0,,,,
us,qwen*,completions,output,,token,0,,,,
,gpt-4o-2024-08-06,,,,,,0.9,,,our agreement
,gpt-4o-mini-2024-07-18,,input,,1M tokens,0.10,,,,our agreement
,gpt-4o-mini-2024-07-18,,cached_input,,1M tokens,0.05,,,,our agreement
,gpt-4o-mini-2024-07-18,,output,,1M tokens,0.40,,,,our agreement
,house-gpt,,,,,,,gpt-4.1-mini-2025-04-14,,our name for it
,,code_interpreter_sessions,sessions,,session,0.01,,,,our own sandbox
"""

OPERATORS_CASES = [
    Case(
        "a model of one's own, whatever the case of its name",
        [completion("Llama-70B-Chat", input_tokens=1_000_000, input_cached_tokens=250_000, output_tokens=1_000_000)],
        {
            "Llama-70B-Chat, input": ("0.15", 750_000, "tokens"),
            "Llama-70B-Chat, cached input": ("0.05", 250_000, "tokens"),  # no price of its own: that of input
            "Llama-70B-Chat, output": ("0.60", 1_000_000, "tokens"),
        },
    ),
    Case(
        "a price for the request",
        [completion("qwen3-32b", input_tokens=10, output_tokens=20), completion("qwen3-8b", input_tokens=10)],
        {
            "qwen3-32b, requests": ("0.004", 1, None),
            "qwen3-32b, input": ("0", 10, "tokens"),
            "qwen3-32b, output": ("0", 20, "tokens"),
            "qwen3-8b, requests": ("0.004", 1, None),
            "qwen3-8b, input": ("0", 10, "tokens"),
        },
    ),
    # 0.9 times 2.50, 1.25 and 10.00
    Case(
        "a discount on the list",
        [completion("gpt-4o-2024-08-06", input_tokens=1_000_000, input_cached_tokens=400_000, output_tokens=100_000)],
        {
            "gpt-4o-2024-08-06, input": ("1.35", 600_000, "tokens"),
            "gpt-4o-2024-08-06, cached input": ("0.45", 400_000, "tokens"),
            "gpt-4o-2024-08-06, output": ("0.90", 100_000, "tokens"),
        },
    ),
    Case(
        "a price agreed instead of the list's",
        [completion("gpt-4o-mini-2024-07-18", input_tokens=1_000, input_cached_tokens=400, output_tokens=100)],
        {
            "gpt-4o-mini-2024-07-18, input": ("0.00006", 600, "tokens"),
            "gpt-4o-mini-2024-07-18, cached input": ("0.00002", 400, "tokens"),
            "gpt-4o-mini-2024-07-18, output": ("0.00004", 100, "tokens"),
        },
    ),
    # As gpt-4.1-mini: 0.40, 0.10 and 1.60 per million. Source: developers.openai.com/api/docs/pricing
    Case(
        "another name for a listed model",
        [completion("house-gpt", input_tokens=1_000, input_cached_tokens=400, output_tokens=100)],
        {
            "house-gpt, input": ("0.00024", 600, "tokens"),
            "house-gpt, cached input": ("0.00004", 400, "tokens"),
            "house-gpt, output": ("0.00016", 100, "tokens"),
        },
    ),
    Case(
        "a tool of one's own, beside a listed one",
        [{"kind": "code_interpreter_sessions"}, {"kind": "file_search_calls", "num_requests": 4}],
        {"code interpreter sessions": ("0.01", 1, None), "file search tool calls": ("0.01", 4, None)},
    ),
]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an operator's file, that spells line items as the API's fields."""
    directory: Path = tmp_path_factory.mktemp("operator")
    (directory / "prices.csv").write_text(OPERATORS)
    running = Server.start(directory / "data", args=["--price-file", str(directory / "prices.csv")])
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize("case", OPERATORS_CASES, ids=[case.name for case in OPERATORS_CASES])
def test_an_operators_prices_come_before_the_list(case: Case, operator: Server) -> None:
    with fresh(operator) as api:
        post(api, case.events)
        assert day_by_line_item(api) == exact(case.lines)
        assert unpriced(api) == []


def test_line_items_can_be_named_after_the_fields(tmp_path: Path) -> None:
    running = Server.start(tmp_path, args=["--line-item-names", "fields"])
    try:
        with running.http() as api:
            post(api, CASES[0].events)
            model = "gpt-4o-2024-08-06"
            assert day_by_line_item(api) == exact(
                {
                    f"{model}, input_tokens": ("1.50", 600_000, "tokens"),
                    f"{model}, input_cached_tokens": ("0.50", 400_000, "tokens"),
                    f"{model}, output_tokens": ("1.00", 100_000, "tokens"),
                }
            )
            query: dict[str, Any] = {
                "start_time": DAY,
                "line_items": f"{model}, output_tokens",
                "end_time": DAY + DAY_S,
            }
            (bucket,) = exactly(api.get(COSTS, params=query))["data"]
            assert [row["amount"]["value"] for row in bucket["results"]] == [1]
    finally:
        assert running.stop() == 0


def test_without_list_prices_only_the_operators_count(tmp_path: Path) -> None:
    running = Server.start(tmp_path, args=["--no-list-prices"])
    try:
        with running.http() as api:
            post(api, [*CASES[0].events, {"kind": "code_interpreter_sessions"}])
            assert day_by_line_item(api) == {}
            assert {row["line_item"]: row["quantity"] for row in unpriced(api)} == {
                "gpt-4o-2024-08-06, input": 600_000,
                "gpt-4o-2024-08-06, cached input": 400_000,
                "gpt-4o-2024-08-06, output": 100_000,
                "code interpreter sessions": 1,
            }
    finally:
        assert running.stop() == 0


def test_a_cost_in_another_currency_is_rejected_and_kept_in_quarantine(api: httpx.Client) -> None:
    event = completion("m", input_tokens=1, timestamp=NOON, cost={"value": 1, "currency": "eur"})
    answer = api.post(EVENTS, json=event)
    assert answer.status_code == 400
    (fault,) = answer.json()["faults"]
    assert fault["field"].startswith("cost")
    assert "usd" in fault["message"]
    assert api.get("/v1/organization/usage/quarantine").json()["data"][0]["id"] == fault["quarantine_id"]
    assert day_by_line_item(api) == {}
