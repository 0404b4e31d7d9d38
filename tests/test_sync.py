"""`tallybook sync`: a second book of what a provider says, read as it is, kept whole, never mixed with ours."""

import itertools
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook.cli.provider import Reader, TooFarBack, reading
from tallybook.errors import CommandFailed
from tallybook.providers.table import PROVIDERS
from tallybook.sources.record import Fields
from tests.crash import SINCE_S, UNTIL_S, made, ndjson
from tests.provider_shaped import DAY_S, KEY, Answer, Anthropic, OpenAI, iso, refusal, serving
from tests.support import COMMAND, STOP_S_MAX, Server
from tests.test_cli import run

EVENTS = "/v1/organization/usage/events"
RECONCILIATION = "/v1/organization/reconciliation"
BOOKS = f"{RECONCILIATION}/books"
TODAY = int(time.time()) // DAY_S * DAY_S
DAY = TODAY - 10 * DAY_S
WAIT_S = 30
ENV = {"OPENAI_ADMIN_KEY": KEY, "ANTHROPIC_ADMIN_KEY": KEY}
LONG = "0.1739150000000000000000000000123456"


@pytest.fixture
def openai() -> Iterator[OpenAI]:
    with serving(OpenAI()) as provider:
        yield provider


@pytest.fixture
def anthropic() -> Iterator[Anthropic]:
    with serving(Anthropic()) as provider:
        yield provider


@pytest.fixture
def served(server: Server, organization: str, api: httpx.Client) -> tuple[str, ...]:
    """Flags that reach the running server through its data directory, in an organization of the test's own."""
    return ("--data", str(server.data), "--organization", organization)


def sync(provider: OpenAI | Anthropic, served: tuple[str, ...], *flags: str, code: int = 0, since_s: int = DAY) -> str:
    name = "openai" if isinstance(provider, OpenAI) else "anthropic"
    return run("sync", name, "--from-url", provider.url, "--since", since_s, *flags, *served, code=code, env=ENV)


def compared(
    api: httpx.Client, provider: str, start_s: int = DAY, days: int = 1, **parameters: Any
) -> list[dict[str, Any]]:
    """The buckets of a reconciliation by line item, numbers with all their digits."""
    window: dict[str, Any] = {
        "start_time": start_s,
        "end_time": start_s + days * DAY_S,
        "limit": 180,
        "group_by": "line_item",
    }
    answer = api.get(RECONCILIATION, params={"provider": provider, **window, **parameters})
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = json.loads(answer.text, parse_float=Decimal)["data"]
    return data


def billed(api: httpx.Client, provider: str, start_s: int = DAY, days: int = 1) -> dict[str, tuple[Any, Any]]:
    """What a provider says: quantity and amount by line item, over all days."""
    found: dict[str, tuple[Any, Any]] = {}
    for bucket in compared(api, provider, start_s, days):
        for result in bucket["results"]:
            side = result["billed"]
            assert result["line_item"] not in found
            found[result["line_item"]] = (side["quantity"], side["amount"] and side["amount"]["value"])
    return found


def days_read(api: httpx.Client, provider: str) -> dict[int, int]:
    return {day["start_time"]: day["read_at"] for day in api.get(f"{BOOKS}/{provider}").json()["data"]}


def test_openai_is_read_page_by_page_with_every_digit_of_its_amounts(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    first = TODAY - 39 * DAY_S
    openai.cost(first, "gpt-4o-2024-08-06, input", LONG, quantity="1000.0", quantity_unit="tokens")
    openai.cost(first, "gpt-4o-2024-08-06, input", "0E-6176", project_id="proj_a")
    openai.cost(TODAY, "web search tool calls", 0.25, quantity=25)
    openai.cost(TODAY, "assistants api | file search", "0.02100000000000000000000000000000000")
    openai.cost(TODAY, None, "-3")
    openai.cost(TODAY, "whisper-1, seconds", "0.6", quantity="1.5", quantity_unit="duration_minutes")
    openai.used(
        "completions", first, model="gpt-4o-2024-08-06", input_tokens=1200, input_cached_tokens=200.0, output_tokens=7
    )
    openai.used("embeddings", TODAY, model="text-embedding-3-small", input_tokens=5, num_model_requests=1)
    told = sync(openai, served, since_s=first)
    assert told == ""
    assert billed(api, "openai", first) == {
        "gpt-4o-2024-08-06, input": (1000, Decimal(LONG)),
        "gpt-4o-2024-08-06, cached input": (200, None),
        "gpt-4o-2024-08-06, output": (7, None),
    }
    assert billed(api, "openai", TODAY) == {
        "text-embedding-3-small, input": (5, None),
        "web search tool calls": (25, Decimal("0.25")),
        "file search tool calls": (None, Decimal("0.021")),
        "whisper-1, seconds": (90, Decimal("0.6")),
        None: (None, -3),
    }
    assert list(days_read(api, "openai")) == list(range(first, TODAY + 1, DAY_S))
    paths = {asked.path for asked in openai.asked}
    assert len(paths) == 11, "costs and ten kinds; of a level there is nothing but its costs"
    assert all(int(asked.one("end_time")) - int(asked.one("start_time")) <= 31 * DAY_S for asked in openai.asked)
    assert openai.asked[0].parameters["group_by"] == ["project_id", "line_item"]


def test_anthropic_is_read_in_dollars_and_with_inclusive_counts(
    anthropic: Anthropic, api: httpx.Client, served: tuple[str, ...]
) -> None:
    model = "claude-sonnet-4-5-20250929"
    anthropic.used(
        DAY,
        model=model,
        workspace_id="wrkspc_1",
        uncached_input_tokens=100,
        cache_read_input_tokens=40,
        cache_creation={"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 3},
        output_tokens=9,
        server_tool_use={"web_search_requests": 2},
    )
    anthropic.used(DAY, model=model, workspace_id=None, output_tokens=1)
    anthropic.used(DAY, model="idle")
    tokens = {"cost_type": "tokens", "model": model}
    anthropic.cost(
        DAY, "123.7891200000000000001", token_type="uncached_input_tokens", description="Usage - Input", **tokens
    )
    anthropic.cost(DAY, "1", token_type="output_tokens", service_tier="batch", **tokens)
    anthropic.cost(DAY, "2", token_type="output_tokens", service_tier="standard", **tokens)
    anthropic.cost(DAY, "4", token_type="cache_creation.ephemeral_5m_input_tokens", **tokens)
    anthropic.cost(DAY, "8", token_type="cache_creation.ephemeral_1h_input_tokens", **tokens)
    anthropic.cost(DAY, "16", token_type="cache_read_input_tokens", workspace_id="wrkspc_1", **tokens)
    anthropic.cost(DAY, "2", cost_type="web_search", description="Web Search Usage")
    anthropic.cost(DAY, "5.5", cost_type="code_execution", description="Code Execution Usage")
    sync(anthropic, served)
    assert billed(api, "anthropic") == {
        f"{model}, input": (100, Decimal("1.237891200000000000001")),
        f"{model}, output": (10, Decimal("0.03")),
        f"{model}, cache write 30m": (20, Decimal("0.04")),
        f"{model}, cache write 12h": (3, Decimal("0.08")),
        f"{model}, cached input": (40, Decimal("0.16")),
        "web search tool calls": (2, Decimal("0.02")),
        "Code Execution Usage": (None, Decimal("0.055")),
    }
    (by_project,) = compared(api, "anthropic", group_by="project_id")
    assert {row["project_id"]: row["billed"]["amount"]["value"] for row in by_project["results"]} == {
        "wrkspc_1": Decimal("0.16"),
        None: Decimal("1.462891200000000000001"),
    }
    assert {asked.path for asked in anthropic.asked} == {anthropic.costs_path, anthropic.usage_path}
    assert anthropic.asked[0].one("starting_at") == iso(DAY)


def test_what_a_tallybook_says_of_itself_is_what_another_recorded_to_the_last_digit(
    tmp_path: Path, api: httpx.Client, server: Server, served: tuple[str, ...]
) -> None:
    rng = random.Random(5)
    events = [made(rng, f"p{number % 4}", number) for number in range(1_500)]
    for event in events:
        if "model" in event:
            event["model"] = rng.choice(["gpt-4o", "gpt-4o-2024-08-06", "nobody's", "dall-e-3", "whisper-1"])
    assert api.post(EVENTS, content=ndjson(events)).json()["rejected"] == 0
    other = Server.start(tmp_path / "other")
    try:
        with other.http() as there:
            assert there.post(EVENTS, content=ndjson(events)).json()["rejected"] == 0
        env = {"TALLYBOOK_SOURCE_KEY": other.admin_key}
        run("sync", "tallybook", "--from-url", f"{other.url}/v1/", "--since", SINCE_S, *served, env=env)
        rows = 0
        for bucket in compared(api, "tallybook", SINCE_S, 7, group_by="line_item,project_id"):
            assert bucket["complete"]
            for result in bucket["results"]:
                rows += 1
                assert result["recorded"] == result["billed"], result
                assert not result["difference"]["quantity"], result
                assert result["difference"]["amount"] is None or result["difference"]["amount"]["value"] == 0
        assert rows > 300
        page = httpx.get(
            f"{other.url}/v1/organization/costs",
            params={"start_time": SINCE_S, "end_time": UNTIL_S, "limit": 8},
            headers={"authorization": f"Bearer {other.admin_key}"},
            trust_env=False,
        )
        costs = [
            row["amount"]["value"]
            for bucket in json.loads(page.text, parse_float=Decimal)["data"]
            for row in bucket["results"]
        ]
        by_day = [
            result["billed"]["amount"]["value"]
            for bucket in compared(api, "tallybook", SINCE_S, 7, group_by=[])
            for result in bucket["results"]
        ]
        assert by_day == costs
    finally:
        assert other.stop() == 0


def test_history_of_another_tallybook_becomes_events_once(
    tmp_path: Path, api: httpx.Client, served: tuple[str, ...]
) -> None:
    rng = random.Random(6)
    kinds = (
        "completions",
        "embeddings",
        "images",
        "web_search_calls",
        "code_interpreter_sessions",
        "audio_transcriptions",
    )
    events = [event for number in range(600) if (event := made(rng, f"p{number % 3}", number))["kind"] in kinds]
    other = Server.start(tmp_path / "other")
    try:
        with other.http() as there:
            assert there.post(EVENTS, content=ndjson(events)).json()["rejected"] == 0
            env = {"TALLYBOOK_SOURCE_KEY": other.admin_key}
            flags = ("--from-url", other.url, "--since", SINCE_S, "--until", UNTIL_S, "--as-events")
            run("sync", "tallybook", *flags, *served, env=env)
            for kind in kinds:
                for width, group_by in (("1d", "model"), ("1h", "project_id")):
                    asked: dict[str, Any] = {
                        "start_time": SINCE_S,
                        "end_time": UNTIL_S,
                        "bucket_width": width,
                        "limit": 31,
                    }
                    if kind != "code_interpreter_sessions" or group_by == "project_id":
                        asked["group_by"] = group_by
                    path = f"/v1/organization/usage/{kind}"
                    assert api.get(path, params=asked).json()["data"] == there.get(path, params=asked).json()["data"]
        stored = api.get("/v1/organization/usage/check").json()["events"]
        assert stored > 100
        run("sync", "tallybook", *flags, *served, env=env)
        assert api.get("/v1/organization/usage/check").json()["events"] == stored
    finally:
        assert other.stop() == 0


def test_a_day_read_again_is_replaced_whole_and_others_stay(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    for number in range(4):
        openai.cost(DAY + number * DAY_S, "gpt-4o, input", f"{number + 1}.5")
        openai.used("completions", DAY + number * DAY_S, model="gpt-4o", input_tokens=10)
    sync(openai, served, "--until", str(DAY + 4 * DAY_S))
    before = [billed(api, "openai", DAY + number * DAY_S) for number in range(4)]
    assert before[3] == {"gpt-4o, input": (10, Decimal("4.5"))}
    openai.told.clear()
    openai.cost(DAY + 2 * DAY_S, "gpt-4o, output", "9")
    sync(openai, served, "--until", str(DAY + 4 * DAY_S), since_s=DAY + DAY_S)
    after = [billed(api, "openai", DAY + number * DAY_S) for number in range(4)]
    assert after == [before[0], {}, {"gpt-4o, output": (None, 9)}, {}], "what shrank to nothing is gone"
    assert len(days_read(api, "openai")) == 4


def test_nothing_of_it_is_usage(openai: OpenAI, api: httpx.Client, served: tuple[str, ...]) -> None:
    openai.cost(DAY, "gpt-4o, input", 5)
    openai.used("completions", DAY, model="gpt-4o", input_tokens=10)
    sync(openai, served)
    window = {"start_time": DAY, "end_time": DAY + DAY_S}
    for path in ("usage/completions", "costs"):
        (bucket,) = api.get(f"/v1/organization/{path}", params=window).json()["data"]
        assert bucket["results"] == []
    assert api.get("/v1/organization/usage/check").json()["events"] == 0


def test_another_organization_sees_nothing_of_it(
    openai: OpenAI, api: httpx.Client, server: Server, organization: str, served: tuple[str, ...]
) -> None:
    openai.cost(DAY, "gpt-4o, input", 5)
    sync(openai, served)
    with server.http(server.key(f"{organization}-other")) as other:
        assert days_read(other, "openai") == {}
        assert other.get(BOOKS).json()["data"] == []
        assert billed(other, "openai") == {}
        assert other.delete(f"{BOOKS}/openai").status_code == 404
    assert billed(api, "openai") == {"gpt-4o, input": (None, 5)}


def test_a_dry_run_shows_and_keeps_nothing(openai: OpenAI, api: httpx.Client, served: tuple[str, ...]) -> None:
    openai.cost(DAY, "gpt-4o, input", "2.5")
    shown = sync(openai, served, "--dry-run")
    assert "2.50" in shown
    assert days_read(api, "openai") == {}


def test_what_was_read_can_be_forgotten(openai: OpenAI, api: httpx.Client, served: tuple[str, ...]) -> None:
    openai.cost(DAY, "gpt-4o, input", "2.5")
    sync(openai, served)
    asked = len(openai.asked)
    run("sync", "openai", "--forget", *served)
    assert days_read(api, "openai") == {}
    assert billed(api, "openai") == {}
    assert len(openai.asked) == asked
    assert "Nothing was read of openai" in run("sync", "openai", "--forget", *served, code=1)


def test_days_beyond_what_a_provider_still_tells_are_left_out_and_told(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    openai.earliest_s = DAY
    openai.cost(DAY, "gpt-4o, input", 5)
    sync(openai, served, since_s=DAY - 40 * DAY_S)
    assert min(days_read(api, "openai")) == DAY
    assert billed(api, "openai") == {"gpt-4o, input": (None, 5)}


def test_reports_that_not_every_server_has_may_be_missing_and_others_may_not(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    openai.lacking = {
        f"/v1/organization/usage/{kind}" for kind in ("decisions", "file_search_calls", "web_search_calls")
    }
    sync(openai, served)
    read = days_read(api, "openai")
    openai.lacking = {openai.costs_path}
    assert "404" in sync(openai, served, code=1), "an outage is no day without costs"
    assert days_read(api, "openai") == read


@pytest.mark.parametrize("echo", [f"Bearer {KEY}", KEY])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_and_never_repeated(
    openai: OpenAI, served: tuple[str, ...], status: int, echo: str
) -> None:
    openai.instead.append(refusal(status, f"Missing scopes: api.usage.read, in {echo}"))
    told = sync(openai, served, code=1)
    assert "Missing scopes" in told
    assert "OPENAI_ADMIN_KEY" in told
    assert KEY not in told
    assert len(openai.asked) == 1, "waiting does not mend it"


def test_a_wrong_key_is_refused_by_both_shapes(openai: OpenAI, anthropic: Anthropic, served: tuple[str, ...]) -> None:
    for name, provider in (("openai", openai), ("anthropic", anthropic)):
        env = {"OPENAI_ADMIN_KEY": "sk-wrong-1", "ANTHROPIC_ADMIN_KEY": "sk-wrong-1"}
        told = run("sync", name, "--from-url", provider.url, *served, code=1, env=env)
        assert "401" in told
        assert "sk-wrong-1" not in told


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("openai",), "set OPENAI_ADMIN_KEY"),
        (("tallybook",), "--from-url"),
        (("openai", "--every", "soon"), "'soon' is no span"),
        (("openai", "--every", "0s"), "'0s' is no span"),
        (("openai", "--as-events", "--every", "5m"), "--as-events"),
        (("openai", "--force"), "--as-events"),
        (("openai", "--since", "2026-01-02", "--until", "2026-01-01"), "not after --since"),
    ],
)
def test_what_cannot_be_meant_is_refused(served: tuple[str, ...], arguments: tuple[str, ...], problem: str) -> None:
    env = {"OPENAI_ADMIN_KEY": "" if problem.startswith("set") else KEY}
    assert problem in run("sync", *arguments, *served, code=1, env=env)


PAGE: dict[str, Any] = {"object": "page", "has_more": False, "next_page": None}
BUCKET: dict[str, Any] = {"object": "bucket", "start_time": DAY, "end_time": DAY + DAY_S}


def page(*results: Any, **others: Any) -> bytes:
    return json.dumps(PAGE | {"data": [BUCKET | {"results": list(results)}]} | others).encode()


def cost(value: Any, **others: Any) -> dict[str, Any]:
    return {"amount": {"value": value, "currency": "usd"}, "line_item": "gpt-4o, input", **others}


GARBAGE = {
    "no JSON": b"<html>Log in</html>",
    "nothing": b"",
    "no object": b"[]",
    "a number that is none": b'{"data": NaN}',
    "half": page()[:-9],
    "depth": b"[" * 100_000,
    "no data": json.dumps(PAGE).encode(),
    "data that is none": json.dumps(PAGE | {"data": {}}).encode(),
    "no results": json.dumps(PAGE | {"data": [BUCKET]}).encode(),
    "no start": json.dumps(PAGE | {"data": [{"results": []}]}).encode(),
    "a start that is none": json.dumps(PAGE | {"data": [BUCKET | {"start_time": "x", "results": []}]}).encode(),
    "no amount": page({"line_item": "gpt-4o, input"}),
    "an amount that is none": page(cost("five")),
    "a true amount": page(cost(True)),
    "not a number": page(cost("NaN")),
    "without an end": page(cost("Infinity")),
    "too large": page(cost("1E+999999999")),
    "too small": page(cost("1E-6176")),
    "too many digits": page(cost("0." + "1" * 90)),
    "euros": page({"amount": {"value": 1, "currency": "eur"}, "line_item": "gpt-4o, input"}),
    "a quantity that is none": page(cost(1, quantity="many")),
    "a name that is none": page(cost(1, line_item={"gpt": 4})),
    "a name without an end": page(cost(1, line_item="x" * 600)),
    "a number beyond all measure": page(cost(1)).replace(b'"value": 1', b'"value": 1e99999999999999999999'),
    "half of a character": page(cost(1, line_item="\ud800")),
    "a large amount": page(cost(1e20)),
    "more, and nothing that leads there": json.dumps(PAGE | {"data": [], "has_more": True}).encode(),
    "a cursor that leads nowhere": json.dumps(PAGE | {"data": [], "has_more": True, "next_page": 5}).encode(),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_told_and_changes_nothing(openai: OpenAI, name: str) -> None:
    openai.instead.append(Answer(200, {}, GARBAGE[name]))
    with pytest.raises(CommandFailed) as refused:
        read_costs(openai)
    assert "openai" in str(refused.value)
    assert len(str(refused.value)) < 1_000


def read_costs(openai: OpenAI) -> list[Any]:
    """Costs of ten days, as a provider's reader has them."""
    provider = PROVIDERS["openai"]
    with reading(provider, openai.url, KEY) as reader:
        buckets = reader.buckets(provider.costs, DAY, TODAY, "1d", provider.costs.group_by)
        return [item for bucket in buckets for item in reader.read(provider.costs, bucket)]


@pytest.mark.parametrize("told", [12.5, 1e20, 1e30, 10**30, -1, True, "x", [1], {"x": 1.5}])
def test_a_count_that_is_none_is_told_and_named(openai: OpenAI, told: Any) -> None:
    openai.used("audio_transcriptions", DAY, seconds=told, num_model_requests=1)
    provider = PROVIDERS["openai"]
    report = next(report for report in provider.usage if report.path.endswith("audio_transcriptions"))
    with reading(provider, openai.url, KEY) as reader:
        (bucket,) = (found for found in buckets(reader, report) if found.results)
        with pytest.raises(CommandFailed, match="seconds must be an integer"):
            reader.read(report, bucket)


def test_an_answer_that_cannot_be_unpacked_is_asked_for_again(openai: OpenAI) -> None:
    openai.cost(DAY, "gpt-4o, input", "0.5")
    openai.instead.append(Answer(200, {"Content-Encoding": "gzip"}, b"nothing of the kind"))
    assert [found.amount for found in read_costs(openai)] == [Decimal("0.5")]


@pytest.mark.parametrize(
    ("told", "short", "long"),
    [
        ({"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 5}}, 0, 5),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 5}}, 5, 0),
        ({}, 5, 0),
    ],
)
def test_what_anthropic_put_into_caches_is_counted_once(told: dict[str, Any], short: int, long: int) -> None:
    (report,) = PROVIDERS["anthropic"].usage
    (event,) = report.read(Fields({"uncached_input_tokens": 1, "cache_creation_input_tokens": 5, **told}))
    assert (event["input_tokens"], event["input_cache_write_tokens"]) == (6, 5)
    assert (event["input_cache_write_30m_tokens"], event["input_cache_write_12h_tokens"]) == (short, long)


def test_pages_that_lead_in_a_circle_end(openai: OpenAI) -> None:
    again = json.dumps(PAGE | {"data": [], "has_more": True, "next_page": "page_1"}).encode()
    openai.instead.extend([Answer(200, {}, again)] * 5)
    with pytest.raises(CommandFailed, match="next_page"):
        read_costs(openai)
    assert len(openai.asked) == 2


def test_a_bucket_told_twice_is_not_counted_twice(openai: OpenAI) -> None:
    openai.instead.append(Answer(200, {}, json.dumps(PAGE | {"data": [BUCKET | {"results": []}] * 2}).encode()))
    with pytest.raises(CommandFailed, match="told twice"):
        read_costs(openai)


def test_buckets_outside_of_what_was_asked_are_passed_over(openai: OpenAI) -> None:
    outside = [
        BUCKET | {"start_time": start_s, "results": [cost(1)]} for start_s in (DAY - DAY_S, TODAY, TODAY + DAY_S)
    ]
    openai.instead.append(Answer(200, {}, json.dumps(PAGE | {"data": outside}).encode()))
    assert read_costs(openai) == []


def test_both_names_of_the_list_are_read(openai: OpenAI) -> None:
    openai.list_name = "result"
    openai.cost(DAY, "gpt-4o, input", "0.5")
    assert [found.amount for found in read_costs(openai)] == [Decimal("0.5")]


def test_a_provider_that_is_busy_or_broken_is_asked_again_when_it_says(openai: OpenAI) -> None:
    openai.cost(DAY, "gpt-4o, input", "0.5")
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    openai.instead.extend(
        [
            refusal(429, "Rate limit reached", Retry_After="1"),
            refusal(503, "Overloaded", Retry_After=soon),
            Answer(502, {"Retry-After": "0"}, b"<html>"),
            Answer(0, {}, b""),
            Answer(500, {"Retry-After": "nan"}, b""),
        ]
    )
    begun = time.monotonic()
    assert len(read_costs(openai)) == 1
    assert time.monotonic() - begun >= 1
    assert len(openai.asked) == 7, "five that failed, the page, and the one after it"


@pytest.mark.parametrize(("retry_after", "tries"), [("0", 8), ("100000", 1)])
def test_patience_has_an_end(openai: OpenAI, retry_after: str, tries: int) -> None:
    openai.instead.extend([refusal(429, "Rate limit reached", Retry_After=retry_after)] * 20)
    with pytest.raises(CommandFailed, match="429: Rate limit reached"):
        read_costs(openai)
    assert len(openai.asked) == tries


def test_a_provider_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tallybook.cli.provider.time.sleep", waits.append)
    nowhere = OpenAI()
    with serving(nowhere):
        pass
    with pytest.raises(CommandFailed, match="no answer"):
        read_costs(nowhere)
    assert len(waits) == 7
    assert all(wait <= 60 for wait in waits)


def test_too_far_back_names_the_day(openai: OpenAI) -> None:
    openai.earliest_s = DAY + DAY_S
    with pytest.raises(TooFarBack) as refused:
        read_costs(openai)
    assert refused.value.since_s == DAY + DAY_S


def test_token_counts_that_contradict_each_other_lose_what_contradicts(openai: OpenAI) -> None:
    provider = PROVIDERS["openai"]
    report = next(report for report in provider.usage if report.path.endswith("completions"))
    openai.used(
        "completions", DAY, model="a", input_tokens=100, input_cached_tokens=40, input_image_tokens=90, output_tokens=5
    )
    openai.used("completions", DAY, model="b", input_tokens=10, input_cached_tokens=40, output_tokens=5)
    openai.used("completions", DAY, model="c", num_model_requests=3)
    openai.used("completions", DAY, model="d", input_tokens=0, output_tokens=0, num_model_requests=0)
    with reading(provider, openai.url, KEY) as reader:
        (bucket,) = (found for found in buckets(reader, report) if found.results)
        events = reader.read(report, bucket)
    assert events == [
        {"kind": "completions", "model": "a", "input_tokens": 100, "input_cached_tokens": 40, "output_tokens": 5},
        {"kind": "completions", "model": "b", "input_tokens": 10, "output_tokens": 5},
        {"kind": "completions", "model": "c", "input_tokens": 0, "num_model_requests": 3},
    ]


def buckets(reader: Reader, report: Any) -> Iterator[Any]:
    return reader.buckets(report, DAY, DAY + 2 * DAY_S, "1d", report.group_by)


def start(provider: OpenAI, served: tuple[str, ...], *flags: str) -> "subprocess.Popen[str]":
    command = [*COMMAND, "sync", "openai", "--from-url", provider.url, *flags, *served]
    return subprocess.Popen(command, env={**os.environ, **ENV}, stderr=subprocess.PIPE, text=True)


def wait_until(is_so: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_killed_half_way_whole_days_are_kept_and_the_next_run_goes_on(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    first = TODAY - 60 * DAY_S
    for day_s in range(first, TODAY + 1, DAY_S):
        openai.cost(day_s, "gpt-4o, input", "1.5")
        openai.used("completions", day_s, model="gpt-4o", input_tokens=10)
    pages = 12  # of 31 days: costs have one page more than they need
    openai.instead.extend([None] * (pages + 3) + [refusal(429, "slow down", Retry_After="600")])
    process = start(openai, served, "--since", str(first), "--every", "1h")
    try:
        wait_until(lambda: not openai.instead)
    finally:
        process.kill()
        process.communicate(timeout=STOP_S_MAX)
    kept = days_read(api, "openai")
    assert len(kept) == 31
    for day_s in kept:
        assert billed(api, "openai", day_s) == {"gpt-4o, input": (10, Decimal("1.5"))}
    openai.asked.clear()
    process = start(openai, served, "--since", str(first), "--every", "1h")
    try:
        wait_until(lambda: len(days_read(api, "openai")) == 61)
    finally:
        process.terminate()
        told = process.communicate(timeout=STOP_S_MAX)[1]
    assert process.returncode == 0, told
    assert min(int(asked.one("start_time")) for asked in openai.asked) == first + 31 * DAY_S, (
        "what was read is not read again"
    )
    assert all(billed(api, "openai", day_s) for day_s in range(first, TODAY + 1, DAY_S))


def test_it_goes_on_until_it_is_stopped_and_reads_only_what_may_change(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    openai.cost(TODAY, "gpt-4o, input", "1")
    process = start(openai, served, "--since", str(DAY), "--every", "1s")
    try:
        wait_until(lambda: billed(api, "openai", TODAY) == {"gpt-4o, input": (None, 1)})
        openai.instead.append(refusal(401, "Incorrect API key provided"))  # exchanged just now
        openai.told.clear()
        openai.cost(TODAY, "gpt-4o, input", "2")
        wait_until(lambda: billed(api, "openai", TODAY) == {"gpt-4o, input": (None, 2)})
    finally:
        process.terminate()
        told = process.communicate(timeout=STOP_S_MAX)[1]
    assert process.returncode == 0, told
    assert "trying again in 1 s" in told
    assert "Traceback" not in told
    starts = [int(asked.one("start_time")) for asked in openai.asked]
    assert min(starts) == DAY
    later = list(itertools.dropwhile(lambda start_s: start_s == DAY, starts))
    assert set(later) == {TODAY - 3 * DAY_S}
    left = api.get("/v1/organization/admin_api_keys", params={"limit": 100}).json()["data"]
    assert [key["name"] for key in left if key["name"] == "command line"] == [], "the key of each round is given back"


def test_with_a_wrong_key_it_does_not_go_on(openai: OpenAI, served: tuple[str, ...]) -> None:
    openai.instead.append(refusal(401, "Incorrect API key provided"))
    assert "Incorrect API key" in sync(openai, served, "--every", "1s", code=1)


def test_history_is_imported_once_by_the_hour_and_not_over_what_was_recorded(
    openai: OpenAI, api: httpx.Client, served: tuple[str, ...]
) -> None:
    hour = DAY + 5 * 3_600
    used = {"model": "gpt-4o", "project_id": "p", "user_id": "u", "batch": True, "service_tier": "default"}
    openai.used("completions", hour, width="1h", **used, input_tokens=400_000, output_tokens=7, num_model_requests=3)
    openai.used(
        "completions",
        hour,
        width="1h",
        **used | {"batch": False},
        input_tokens=1,
        output_tokens=7,
        num_model_requests=1,
    )
    openai.used("images", hour, width="1h", images=4, num_model_requests=2, size="1024x1024", source="image.edit")
    openai.used(
        "completions", TODAY + (int(time.time()) - TODAY) // 3_600 * 3_600, width="1h", input_tokens=5, output_tokens=1
    )
    sync(openai, served, "--as-events")
    window: dict[str, Any] = {"start_time": DAY, "end_time": TODAY + DAY_S, "limit": 31, "group_by": "batch"}
    answer = api.get("/v1/organization/usage/completions", params=window).json()["data"]
    rows = [row for bucket in answer for row in bucket["results"]]
    assert [(row["batch"], row["input_tokens"], row["num_model_requests"]) for row in rows] == [
        (False, 1, 1),
        (True, 400_000, 3),
    ]
    assert (
        api.get("/v1/organization/usage/sources", params={"start_time": DAY, "end_time": TODAY}).json()["sources"][0][
            "source"
        ]
        == "sync"
    )
    sync(openai, served, "--as-events")
    assert api.get("/v1/organization/usage/check").json()["events"] == 3
    assert api.get(BOOKS).json()["data"] == [], "events are no second book"
    openai.told["/v1/organization/usage/images", "1h"][hour][0]["images"] = 5
    assert "something else" in sync(openai, served, "--as-events", code=1)

    api.post(EVENTS, json={"kind": "images", "id": "here", "timestamp": hour + 7_200, "images": 1}).raise_for_status()
    told = sync(openai, served, "--as-events", code=1)
    assert "would count twice" in told
    assert "(events)" in told
    openai.used("images", hour + 3_600, width="1h", images=1)
    sync(openai, served, "--as-events", "--until", iso(hour + 7_200), since_s=hour + 3_600)
    assert api.get("/v1/organization/usage/check").json()["events"] == 5
    openai.used("images", hour + 7_200, width="1h", images=1)
    sync(openai, served, "--as-events", "--force", since_s=hour + 7_200)
    assert api.get("/v1/organization/usage/check").json()["events"] == 6


def test_a_dry_run_of_an_import_counts(openai: OpenAI, api: httpx.Client, served: tuple[str, ...]) -> None:
    openai.used("images", DAY, width="1h", images=4)
    sync(openai, served, "--as-events", "--dry-run")
    assert api.get("/v1/organization/usage/check").json()["events"] == 0


def test_anthropic_history_has_no_requests_and_is_not_taken_for_long_ones(
    anthropic: Anthropic, api: httpx.Client, served: tuple[str, ...]
) -> None:
    """An hour of a model is millions of tokens; above 200,000 in one request it would cost twice as much."""
    model = "claude-sonnet-4-5-20250929"
    anthropic.used(DAY, width="1h", model=model, service_tier="batch", uncached_input_tokens=1_000_000, output_tokens=0)
    anthropic.used(DAY, width="1h", model=model, service_tier="batch", uncached_input_tokens=1_000_000, output_tokens=0)
    anthropic.used(DAY, width="1h", model=model, service_tier="standard", uncached_input_tokens=1_000_000)
    sync(anthropic, served, "--as-events")
    window: dict[str, Any] = {"start_time": DAY, "end_time": DAY + DAY_S, "group_by": "batch"}
    (day,) = api.get("/v1/organization/usage/completions", params=window).json()["data"]
    assert [(row["batch"], row["input_tokens"], row["num_model_requests"]) for row in day["results"]] == [
        (False, 1_000_000, 0),
        (True, 2_000_000, 0),
    ]
    (day,) = api.get("/v1/organization/costs", params=window).json()["data"]
    assert [row["amount"]["value"] for row in day["results"]] == [3, 3], "3 USD a million, half of it for batch jobs"


def test_an_event_of_several_requests_is_priced_by_their_mean(api: httpx.Client, served: tuple[str, ...]) -> None:
    model = "claude-sonnet-4-5-20250929"
    common = {"kind": "completions", "timestamp": DAY, "model": model, "input_tokens": 600_000, "output_tokens": 0}
    for number, requests in enumerate((1, 2, 3, 4)):
        event = common | {"id": str(number), "num_model_requests": requests, "project_id": f"p{requests}"}
        api.post(EVENTS, json=event).raise_for_status()
    window: dict[str, Any] = {"start_time": DAY, "end_time": DAY + DAY_S, "group_by": "project_id"}
    (day,) = api.get("/v1/organization/costs", params=window).json()["data"]
    amounts = [round(row["amount"]["value"], 2) for row in day["results"]]
    assert amounts == [3.6, 3.6, 1.8, 1.8], "300,000 tokens a request are above 200,000, and 200,000 are not"
