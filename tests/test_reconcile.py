"""Both books side by side: matched whatever the spelling, exact, and never judged by days nobody has read."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallybook.ingest.decode import decode
from tallybook.query import Query
from tallybook.spelling import aliases, read_name, same, undated
from tallybook.store.duckdb import DuckStore
from tallybook.store.protocol import Batch, BilledCost, Line, Reading
from tests.support import Server
from tests.test_cli import run
from tests.test_cli_costs import words
from tests.test_costs_store import MEMORY, book

DAY_S = 86_400
TODAY = int(time.time()) // DAY_S * DAY_S
DAY = TODAY - 9 * DAY_S
RECONCILIATION = "/v1/organization/reconciliation"
BOOKS = f"{RECONCILIATION}/books"
EVENTS = "/v1/organization/usage/events"
HEADER = "model,counted,unit,price,provider\n"
MODEL = "gpt-4o-2024-08-06"


@pytest.mark.parametrize(
    ("name", "part", "model"),
    [
        ("gpt-4o-2024-08-06, input", "input", "gpt-4o-2024-08-06"),
        ("gpt-6-astra, input_tokens", "input", "gpt-6-astra"),
        ("gpt-4o-2024-08-06, Input", "input", "gpt-4o-2024-08-06"),
        ("gpt-5, cached input", "cached_input", "gpt-5"),
        ("gpt-5, input_cached_tokens", "cached_input", "gpt-5"),
        ("gpt-5, output_tokens", "output", "gpt-5"),
        ("evals | gpt-4o-mini-2024-07-18, input", "input", "gpt-4o-mini-2024-07-18"),
        ("ft-gpt-4o-2024-08-06, output", "output", "ft-gpt-4o-2024-08-06"),
        ("ft:gpt-4o:acme, inc, output", "output", "ft:gpt-4o:acme, inc"),
        ("assistants api | file search", "file_searches", ""),
        ("web search tool calls", "web_searches", ""),
        ("Web search tool calls", "web_searches", ""),
        ("code interpreter sessions", "sessions", ""),
        ("vector store storage", "storage", ""),
        ("vector store storage, free", "free_storage", ""),
        ("m, cache write 12h", "cache_write_12h", "m"),
        ("m, reported cost", "reported", "m"),
    ],
)
def test_a_line_item_is_read_in_any_spelling(name: str, part: str, model: str) -> None:
    assert read_name(name) == (part, model)


@pytest.mark.parametrize(
    "name", ["", ", ", "input", "gpt-4o", "Image models", "gpt-4o, training", "GPT-4 Turbo", " | "]
)
def test_what_is_no_line_item_of_ours_is_none(name: str) -> None:
    assert read_name(name) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "read_as"),
    [
        ({"gpt-4o"}, {"gpt-4o-2024-08-06"}, {"gpt-4o": "gpt-4o", "gpt-4o-2024-08-06": "gpt-4o"}),
        ({"gpt-4o"}, {"gpt-4o"}, {}),
        ({"gpt-4o", "gpt-4o-2024-08-06"}, {"gpt-4o", "gpt-4o-2024-08-06"}, {}),
        ({"gpt-4o-2024-05-13"}, {"gpt-4o-2024-08-06"}, {}),
        ({"gpt-4o-2024-08-06"}, {"gpt-4o-mini-2024-07-18"}, {}),
        ({"gpt-4o"}, {"gpt-4o-mini-2024-07-18"}, {}),
        ({"claude-haiku-4-5"}, {"claude-haiku-4-5-20251001"}, ["claude-haiku-4-5", "claude-haiku-4-5-20251001"]),
        (
            {"claude-3-5-haiku-latest"},
            {"claude-3-5-haiku-20241022"},
            ["claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"],
        ),
        ({"gpt-4-0613", "gpt-4"}, {"gpt-4-0613"}, ["gpt-4-0613", "gpt-4"]),
        ({"gpt-4o"}, set(), {}),
    ],
)
def test_a_model_and_its_snapshots_are_one_only_where_a_side_does_not_tell_them_apart(
    ours: set[str], theirs: set[str], read_as: dict[str, str] | list[str]
) -> None:
    found = aliases(ours, theirs)
    if isinstance(read_as, list):
        assert set(found) == set(read_as)
        assert len(set(found.values())) == 1
    else:
        assert found == read_as


def test_a_fine_tuned_model_is_its_base_for_both() -> None:
    assert same("ft:GPT-4o-2024-08-06:acme::abc123") == same("ft-gpt-4o-2024-08-06")
    assert undated("gpt-3.5-turbo-0125") == "gpt-3.5-turbo"


def put(api: httpx.Client, provider: str, day_s: int, *, days: int = 1, **body: Any) -> httpx.Response:
    reading = {
        "start_time": day_s,
        "end_time": day_s + days * DAY_S,
        "read_at": TODAY,
        "usage": [],
        "costs": [],
        **body,
    }
    return api.put(f"{BOOKS}/{provider}", json=reading)


def cost(day_s: int, line_item: str | None, value: Any, **others: Any) -> dict[str, Any]:
    return {"start_time": day_s, "line_item": line_item, "amount": {"value": value, "currency": "usd"}, **others}


def used(day_s: int, **fields: Any) -> dict[str, Any]:
    return {"kind": "completions", "timestamp": day_s, "model": MODEL, "input_tokens": 1_000_000, **fields}


def asked(api: httpx.Client, provider: str = "openai", **parameters: Any) -> list[dict[str, Any]]:
    window = {"start_time": DAY, "end_time": DAY + DAY_S, "group_by": "line_item", **parameters}
    answer = api.get(RECONCILIATION, params={"provider": provider, **window})
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = json.loads(answer.text, parse_float=Decimal)["data"]
    return data


def lines(buckets: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Quantities and amounts of both sides, difference of amounts and ratio, by line item."""
    (bucket,) = buckets
    return {
        row["line_item"]: (
            *(
                value
                for side in ("recorded", "billed")
                for value in (row[side]["quantity"], row[side]["amount"] and row[side]["amount"]["value"])
            ),
            row["difference"]["amount"] and row["difference"]["amount"]["value"],
            row["difference"]["ratio"],
        )
        for row in bucket["results"]
    }


def test_what_one_side_has_and_what_both_have_is_shown(api: httpx.Client) -> None:
    events = [used(DAY + 5, id="a", output_tokens=0), used(DAY + 5, id="b", model="llama-at-home", output_tokens=4)]
    assert api.post(EVENTS, json=events).json()["accepted"] == 2
    costs = [
        cost(DAY, f"{MODEL}, input_tokens", "3.125"),
        cost(DAY, "gpt-4o-mini, output", "0E-6176", quantity="12"),
        cost(DAY, "Sora minutes", "0.1"),
        cost(DAY, None, "-1"),
    ]
    answer = put(api, "openai", DAY, usage=[used(DAY, input_tokens=1_250_000, output_tokens=0)], costs=costs)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["usage"], answer.json()["costs"]) == (1, 4)
    assert lines(asked(api)) == {
        f"{MODEL}, input": (1_000_000, Decimal("2.5"), 1_250_000, Decimal("3.125"), Decimal("-0.625"), Decimal("-0.2")),
        "gpt-4o-mini, output": (None, None, 12, 0, 0, None),
        "Sora minutes": (None, None, None, Decimal("0.1"), Decimal("-0.1"), -1),
        None: (None, None, None, -1, 1, -1),
    }, "and what is no provider's is in no comparison with one"
    (day,) = asked(api, group_by=[])
    assert day["results"][0]["recorded"]["amount"]["value"] == Decimal("2.5")
    assert day["results"][0]["billed"]["amount"]["value"] == Decimal("2.225")
    assert day["results"][0]["recorded"]["quantity"] is None


def test_usage_without_a_price_of_anybodys_is_the_providers_that_names_its_model(api: httpx.Client) -> None:
    fine_tuned = "ft:gpt-made-up:acme::1"
    events = [used(DAY, id=name, model=name, output_tokens=0) for name in (fine_tuned, "openai/new-model", "other")]
    assert api.post(EVENTS, json=events).json()["accepted"] == 3
    costs = [cost(DAY, "ft-gpt-made-up, input", 1), cost(DAY, "new-model-2026-11-01, input", 2)]
    put(api, "openai", DAY, costs=costs).raise_for_status()
    assert lines(asked(api)) == {
        f"{fine_tuned}, input": (1_000_000, None, None, 1, -1, -1),
        "new-model, input": (1_000_000, None, None, 2, -2, -1),
    }


def test_a_cost_of_its_own_is_compared_by_model(api: httpx.Client) -> None:
    event = used(DAY, id="a", output_tokens=0) | {"cost": {"value": 7, "currency": "usd"}}
    api.post(EVENTS, json=event).raise_for_status()
    put(api, "openai", DAY, costs=[cost(DAY, f"{MODEL}, input", 7)]).raise_for_status()
    assert lines(asked(api)) == {
        f"{MODEL}, input": (1_000_000, None, None, 7, -7, -1),
        f"{MODEL}, reported cost": (None, 7, None, None, 7, None),
    }
    (day,) = asked(api, group_by="model")
    (row,) = day["results"]
    assert (row["model"], row["difference"]["amount"]["value"], row["difference"]["ratio"]) == (MODEL, 0, 0)


def test_tools_are_told_apart_although_they_count_alike(api: httpx.Client) -> None:
    events = [
        {"kind": "web_search_calls", "id": "a", "timestamp": DAY, "model": "gpt-4o", "num_requests": 3},
        {"kind": "file_search_calls", "id": "b", "timestamp": DAY, "num_requests": 5},
        {"kind": "code_interpreter_sessions", "id": "c", "timestamp": DAY, "num_sessions": 2},
    ]
    assert api.post(EVENTS, json=events).json()["accepted"] == 3
    usage = [{name: value for name, value in event.items() if name != "id"} for event in events]
    put(api, "openai", DAY, usage=usage).raise_for_status()
    found = {name: (row[0], row[2]) for name, row in lines(asked(api)).items()}
    assert found == {
        "web search tool calls": (3, 3),
        "file search tool calls": (5, 5),
        "code interpreter sessions": (2, 2),
    }


def test_a_day_that_was_never_read_is_no_difference(api: httpx.Client) -> None:
    api.post(EVENTS, json=[used(DAY, id="a"), used(DAY + DAY_S, id="b"), used(TODAY, id="c")]).raise_for_status()
    put(api, "openai", DAY + DAY_S).raise_for_status()
    put(api, "openai", TODAY, read_at=TODAY + 60).raise_for_status()
    first, second, *_, last = asked(api, end_time=TODAY + 1, limit=31)
    assert (first["read_at"], first["complete"]) == (None, False)
    assert first["results"][0]["recorded"]["amount"]["value"] == Decimal("2.5")
    assert first["results"][0]["difference"] == {"quantity": None, "amount": None, "ratio": None}
    assert (second["read_at"], second["complete"]) == (TODAY, True)
    assert second["results"][0]["difference"]["amount"]["value"] == Decimal("2.5")
    assert (last["complete"], last["end_time"]) == (False, TODAY + DAY_S), "days are whole"


def test_pages_follow_each_other(api: httpx.Client) -> None:
    for number in range(5):
        day_s = DAY + number * DAY_S
        put(api, "openai", day_s, costs=[cost(day_s, "gpt-4o, input", number)]).raise_for_status()
    window: dict[str, Any] = {
        "provider": "openai",
        "start_time": DAY + 3_600,
        "end_time": DAY + 5 * DAY_S - 60,
        "limit": 2,
    }
    found: list[Any] = []
    page = None
    while True:
        body = api.get(RECONCILIATION, params=window | ({"page": page} if page else {})).json()
        found += [(bucket["start_time"], bucket["results"][0]["billed"]["amount"]["value"]) for bucket in body["data"]]
        page = body["next_page"]
        if not body["has_more"]:
            break
    assert found == [(DAY + number * DAY_S, number) for number in range(5)]
    cursor = api.get(RECONCILIATION, params=window).json()["next_page"]
    refused = api.get(RECONCILIATION, params=window | {"provider": "anthropic", "page": cursor})
    assert refused.json()["error"]["code"] == "invalid_cursor"


def test_projects_can_be_told_apart_and_selected(api: httpx.Client) -> None:
    api.post(EVENTS, json=[used(DAY, id="a", project_id="p1"), used(DAY, id="b", project_id="p2")]).raise_for_status()
    costs = [cost(DAY, f"{MODEL}, input", 2, project_id="p1"), cost(DAY, f"{MODEL}, input", 9, project_id="p3")]
    put(api, "openai", DAY, costs=costs).raise_for_status()
    (day,) = asked(api, group_by="project_id")
    assert [
        (row["project_id"], *(row[side]["amount"] and row[side]["amount"]["value"] for side in ("recorded", "billed")))
        for row in day["results"]
    ] == [("p1", Decimal("2.5"), 2), ("p2", Decimal("2.5"), None), ("p3", None, 9)]
    assert lines(asked(api, project_ids=["p1", "p2"]))[f"{MODEL}, input"][:4] == (2_000_000, 5, None, 2)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({}, "provider"),
        ({"provider": ["a", "b"]}, "provider"),
        ({"provider": "No Name"}, "provider"),
        ({"provider": "openai", "group_by": "user_id"}, "group_by"),
        ({"provider": "openai", "bucket_width": "1h"}, "bucket_width"),
        ({"provider": "openai", "limit": 181}, "limit"),
        ({"provider": "openai", "user_ids": "u"}, "user_ids"),
        ({"provider": "openai", "end_time": 5}, "end_time"),
        ({"provider": "openai", "page": "page_x"}, "page"),
        ({"provider": "openai", "start_time": "x"}, "start_time"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(api: httpx.Client, parameters: dict[str, Any], param: str) -> None:
    answer = api.get(RECONCILIATION, params={"start_time": DAY, **parameters})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "half a day": ({"end_time": DAY + 3_600}, "end_time"),
    "not at midnight": ({"start_time": DAY + 1, "end_time": DAY + DAY_S + 1}, "end_time"),
    "no day": ({"end_time": DAY}, "end_time"),
    "too many days": ({"start_time": DAY - 400 * DAY_S}, "end_time"),
    "the future": ({"end_time": TODAY + 2 * DAY_S}, "end_time"),
    "a cost of another day": ({"costs": [cost(DAY + DAY_S, "m, input", 1)]}, "start_time"),
    "a cost of half a day": ({"costs": [cost(DAY + 60, "m, input", 1)]}, "start_time"),
    "usage of another day": ({"usage": [used(DAY - DAY_S)]}, "start_time"),
    "usage without a day": ({"usage": [{"kind": "images", "images": 1}]}, "start_time"),
    "a level": (
        {"usage": [{"kind": "vector_stores", "timestamp": DAY, "vector_store_id": "v", "usage_bytes": 1}]},
        "usage",
    ),
    "counts that contradict": ({"usage": [used(DAY, input_cached_tokens=2_000_000)]}, "usage"),
    "too many digits": ({"costs": [cost(DAY, "m, input", "0." + "3" * 70)]}, "costs"),
    "no number": ({"costs": [cost(DAY, "m, input", "NaN")]}, "costs"),
    "too large": ({"costs": [cost(DAY, "m, input", "1E+99999")]}, "costs"),
    "a quantity too large": ({"costs": [cost(DAY, "m, input", 1, quantity="1E+99999")]}, "costs"),
    "euros": ({"costs": [{"start_time": DAY, "amount": {"value": 1, "currency": "eur"}}]}, ""),
    "an unknown field": ({"more": 1}, ""),
    "an unknown kind": ({"usage": [{"kind": "dreams", "timestamp": DAY}]}, ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_reading_is_refused_whole(api: httpx.Client, name: str) -> None:
    put(api, "openai", DAY, costs=[cost(DAY, "gpt-4o, input", 5)]).raise_for_status()
    body, param = WRONG[name]
    good = {"costs": [cost(DAY, "gpt-4o, output", 1)]}
    answer = put(api, "openai", DAY, **{**good, **body})
    assert answer.status_code == 400, answer.text
    assert not param or answer.json()["error"]["param"] == param
    assert list(lines(asked(api))) == ["gpt-4o, input"]


def test_more_rows_than_a_request_may_have_are_refused(api: httpx.Client) -> None:
    answer = put(api, "openai", DAY, costs=[cost(DAY, "m, input", 1)] * 100_001)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_rows")


def test_scopes(server: Server, organization: str, api: httpx.Client) -> None:
    put(api, "openai", DAY).raise_for_status()
    with server.http(server.key(organization, ["api.usage.read"])) as reader:
        assert asked(reader) == asked(api)
        assert put(reader, "openai", DAY).status_code == 403
        assert reader.delete(f"{BOOKS}/openai").status_code == 403
    with server.http(server.key(organization, ["api.usage.write"])) as writer:
        assert writer.get(BOOKS).status_code == 403
        assert put(writer, "openai", DAY).status_code == 200


def metric(server: Server, name: str, provider: str) -> float | None:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    prefix = f'{name}{{provider="{provider}"}} '
    return next((float(line.removeprefix(prefix)) for line in text.splitlines() if line.startswith(prefix)), None)


def test_doctor_and_metrics_warn_of_what_is_beyond_the_settings(
    server: Server, organization: str, api: httpx.Client
) -> None:
    """Judged by the last seven settled days: one read too early, and one long before, do not count."""
    provider = organization  # one of its own: metrics do not tell organizations apart
    key = {"TALLYBOOK_ADMIN_KEY": server.key(organization)}  # a data directory is looked at with all its organizations
    days = [TODAY - number * DAY_S for number in range(9, 1, -1)]
    for day_s in days:
        put(api, provider, day_s, costs=[cost(day_s, "m, input", 10)]).raise_for_status()
    put(api, provider, TODAY, read_at=TODAY, costs=[cost(TODAY, "m, input", 1_000)]).raise_for_status()
    put(api, provider, days[0] - 60 * DAY_S, costs=[cost(days[0] - 60 * DAY_S, "m, input", 1_000)]).raise_for_status()
    events = [
        {"kind": "images", "id": str(day_s), "timestamp": day_s, "model": "m", "images": 1}
        | {"cost": {"value": 9 if day_s == days[-1] else 10, "currency": "usd"}}
        for day_s in days
    ]
    api.post(EVENTS, json=events).raise_for_status()
    put(api, provider, days[-1], costs=[cost(days[-1], "m, input", 10)]).raise_for_status()
    (verdict,) = api.get(BOOKS).json()["data"]
    assert (verdict["start_time"], verdict["end_time"], verdict["days"]) == (days[1], days[-1] + DAY_S, 10)
    assert (verdict["recorded"]["value"], verdict["billed"]["value"], verdict["ratio"]) == (69, 70, -0.014286)
    assert verdict["beyond"] is False, "beyond a percent, but not beyond a dollar"
    assert metric(server, "tallybook_reconciliation_difference_ratio", provider) == -0.014286
    assert metric(server, "tallybook_reconciliations_beyond", provider) == 0
    told = run("doctor", "--url", server.url, env=key)
    assert f"{provider} charged 70.00 USD" in told.replace("\n", " ")

    put(api, provider, days[-1], costs=[cost(days[-1], "m, input", "10.01")]).raise_for_status()
    assert api.get(BOOKS).json()["data"][0]["beyond"] is True
    assert metric(server, "tallybook_reconciliations_beyond", provider) == 1
    assert metric(server, "tallybook_reconciliation_read_timestamp_seconds", provider) == TODAY
    told = run("doctor", "--url", server.url, env=key)
    assert "warn" in next(line for line in told.splitlines() if f"{provider} charged 70.01 USD" in line)
    assert api.delete(f"{BOOKS}/{provider}").json()["deleted"] == 10
    assert metric(server, "tallybook_reconciliation_difference_ratio", provider) is None


def test_the_command_shows_both_books(server: Server, organization: str, api: httpx.Client) -> None:
    flags = ("--data", server.data, "--organization", organization, "--since", DAY, "--until", DAY + 2 * DAY_S)
    assert "no provider was read yet" in run("reconcile", *flags, code=1)
    api.post(
        EVENTS, json=[used(DAY, id="a", output_tokens=0), used(DAY, id="b", model="gpt-4o", output_tokens=0)]
    ).raise_for_status()
    costs = [cost(DAY, f"{MODEL}, input", "3.00000000000000000000000000000000001"), cost(DAY, "gpt-4o, input", "2.5")]
    put(
        api, "openai", DAY, costs=costs, usage=[used(DAY, output_tokens=0), used(DAY, model="gpt-4o", output_tokens=0)]
    ).raise_for_status()
    put(api, "anthropic", DAY).raise_for_status()
    shown = run("reconcile", *flags)
    assert "openai" in shown
    assert "anthropic: nothing in this window" in shown
    assert "-16.67%" in shown
    assert "1,000,000" in shown
    differing = run("reconcile", *flags, "--differing", "--csv", "--provider", "openai")
    header, row = differing.splitlines()
    assert dict(zip(header.split(","), row.replace(f'"{MODEL}, input"', "item").split(","), strict=True)) == {
        "start_time": str(DAY),
        "end_time": str(DAY + DAY_S),
        "read_at": str(TODAY),
        "complete": "true",
        "provider": "openai",
        "line_item": "item",
        "model": "",
        "project_id": "",
        "quantity_unit": "tokens",
        "recorded_quantity": "1000000",
        "recorded_amount": "2.5",
        "billed_quantity": "1000000",
        "billed_amount": "3.00000000000000000000000000000000001",
        "difference_quantity": "0",
        "difference_amount": "-0.50000000000000000000000000000000001",
        "ratio": "-0.166667",
    }
    buckets = json.loads(run("reconcile", *flags, "--json", "--group-by", "model"), parse_float=Decimal)
    assert {bucket["provider"] for bucket in buckets} == {"openai", "anthropic"}
    assert "write project_id=VALUE" in run("reconcile", *flags, "--where", "user_id=u", code=1)


def test_the_command_names_what_is_in_no_recorded_amount(server: Server, organization: str, api: httpx.Client) -> None:
    """Of what the provider's book is about; what others served is not compared."""
    flags = ("--data", server.data, "--organization", organization, "--since", DAY, "--until", DAY + DAY_S)
    api.post(EVENTS, json=[used(DAY, id=name, model=name) for name in ("house", "elsewhere")]).raise_for_status()
    put(api, "openai", DAY, usage=[used(DAY, model="house")]).raise_for_status()
    for more in ((), ("--group-by", ""), ("--group-by", "project_id"), ("--csv",)):
        told = words("reconcile", *flags, *more)[1]
        assert "unpriced: house; no amount includes this usage" in told
    assert "unpriced" not in words("reconcile", *flags, "--where", "project_id=nobodys")[1]


def test_a_killed_server_has_what_it_answered_for_and_a_backup_has_it_too(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data")
    with server.http() as api:
        for number in range(20):
            day_s = DAY - number * DAY_S
            put(api, "openai", day_s, costs=[cost(day_s, "gpt-4o, input", "1.25")]).raise_for_status()
    server.kill()
    server = Server.start(tmp_path / "data")
    try:
        with server.http() as api:
            expected = asked(api, start_time=DAY - 30 * DAY_S, limit=40)
            assert sum(len(bucket["results"]) for bucket in expected) == 20
        run("backup", tmp_path / "backup", "--data", tmp_path / "data")
    finally:
        assert server.stop() == 0
    run("restore", tmp_path / "backup", "--data", tmp_path / "other")
    server = Server.start(tmp_path / "other")
    try:
        with server.http() as api:
            assert asked(api, start_time=DAY - 30 * DAY_S, limit=40) == expected
    finally:
        assert server.stop() == 0


def test_a_store_whose_log_lost_a_reading_that_was_acknowledged_is_refused(tmp_path: Path) -> None:
    server = Server.start(tmp_path)
    with server.http() as api:
        put(api, "openai", DAY).raise_for_status()
        log = (tmp_path / "tallybook.duckdb.wal").read_bytes()
        put(api, "openai", DAY, costs=[cost(DAY, "gpt-4o, input", 1)]).raise_for_status()
    server.kill()
    (tmp_path / "tallybook.duckdb.wal").write_bytes(log)
    with pytest.raises(RuntimeError, match="lacks the last 1 of"):
        Server.start(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    prices = (
        HEADER + "a,input,token,3,openai\na-2026-01-02,input,token,4,openai\nb,input,token,5,\nc,input,token,7,other\n"
    )
    opened = DuckStore(tmp_path, MEMORY, book(tmp_path, prices))
    yield opened
    opened.close()


MODELS = ("a", "a-2026-01-02", "b", "b-2026-01-02", "c", "nobody")
PRICED = {"a": (3, "openai"), "a-2026-01-02": (4, "openai"), "b": (5, None), "c": (7, "other")}
SPELLINGS = ("{}, input", "{}, input_tokens", "evals | {}, Input")
DAYS = (DAY, DAY + DAY_S)

recorded_ = st.tuples(
    st.sampled_from(DAYS), st.sampled_from(MODELS), st.sampled_from((None, "p", "q")), st.integers(1, 10**12)
)
costs_ = st.tuples(
    st.sampled_from(DAYS),
    st.sampled_from(MODELS),
    st.sampled_from(SPELLINGS),
    st.sampled_from((None, "p")),
    st.decimals(-1_000, 10**9, places=30) | st.decimals(0, 1, places=12),
    st.none() | st.integers(0, 10**9),
)
usage_ = st.tuples(st.sampled_from(DAYS), st.sampled_from(MODELS), st.sampled_from((None, "p")), st.integers(1, 10**12))
Key = tuple[int, str | None, str]


def plainly(
    provider: str, recorded: list[Any], costs: list[Any], usage: list[Any], read: set[int]
) -> dict[Key, list[Fraction | None]]:
    """Both sides by day, project and model: quantity and amount recorded, quantity and amount billed."""
    costs, usage = ([row for row in rows if row[0] in read] for rows in (costs, usage))
    family = {model: model.removesuffix("-2026-01-02") for model in MODELS}
    named = {family[row[1]] for row in (*costs, *usage)}
    mine = []
    for day, model, project, tokens in recorded:
        price, owner = PRICED.get(model, (None, None))
        if provider in ("tallybook", owner) or (owner is None and family[model] in named):
            mine.append((day, model, project, tokens, None if price is None else Fraction(price) * tokens))
    billed_quantities: dict[Key, Fraction] = defaultdict(Fraction)
    for day, model, project, tokens in usage:
        billed_quantities[day, project, model] += tokens
    charged: dict[Key, Fraction] = defaultdict(Fraction)
    for day, model, _, project, _, quantity in costs:
        if quantity is not None and not any(row[:3] == (day, model, project) for row in usage):
            charged[day, project, model] += quantity
    billed_quantities |= charged
    found: dict[Key, list[Fraction | None]] = {}

    def add(day: int, project: str | None, model: str, place: int, value: Any) -> None:
        ours = {row[1] for row in mine if row[0] == day}
        theirs = {row[1] for row in (*costs, *usage) if row[0] == day}
        one, other = ({name for name in side if family[name] == family[model]} for side in (ours, theirs))
        if one and other and one != other and family[model] in one | other:
            model = family[model]
        row = found.setdefault((day, project, model), [None] * 4)
        row[place] = (row[place] or 0) + Fraction(value)

    for day, model, project, tokens, amount in mine:
        add(day, project, model, 0, tokens)
        if amount is not None:
            add(day, project, model, 1, amount)
    for (day, project, model), tokens in billed_quantities.items():
        add(day, project, model, 2, tokens)
    for day, model, _, project, value, _ in costs:
        add(day, project, model, 3, value)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    provider=st.sampled_from(("openai", "tallybook")),
    recorded=st.lists(recorded_, max_size=8),
    costs=st.lists(costs_, max_size=8),
    usage=st.lists(usage_, max_size=6),
    stale=st.lists(costs_, max_size=3),
    read=st.sets(st.sampled_from(DAYS)),
    number=st.integers(0, 10**18),
)
def test_both_books_are_what_a_few_lines_say(
    store: DuckStore,
    provider: str,
    recorded: list[Any],
    costs: list[Any],
    usage: list[Any],
    stale: list[Any],
    read: set[int],
    number: int,
) -> None:
    organization = f"org-{number}-{time.monotonic_ns()}"
    events = [
        {"kind": "completions", "timestamp": day + place, "model": model, "input_tokens": tokens}
        | ({"project_id": project} if project else {})
        for place, (day, model, project, tokens) in enumerate(recorded)
    ]
    records = decode(json.dumps(events).encode(), TODAY * 1000, 1_000).records if events else []
    store.append([Batch(organization, records)])
    told = [
        {"kind": "completions", "timestamp": day, "model": model, "input_tokens": tokens}
        | ({"project_id": project} if project else {})
        for day, model, project, tokens in usage
    ]
    rows = decode(json.dumps(told).encode(), TODAY * 1000, 1_000).records if told else []

    def keep(day: int, kept: list[Any], used: list[Any]) -> None:
        costs_of_day = [
            BilledCost(day, spelling.format(model), project, None if quantity is None else Decimal(quantity), value)
            for at, model, spelling, project, value, quantity in kept
            if at == day
        ]
        usage_of_day = [row for row in used if row.timestamp_ms == day * 1000]
        store.keep_reading(organization, Reading(provider, day, day + DAY_S, TODAY, usage_of_day, costs_of_day))

    for day in read:
        keep(day, stale, [])
    for day in read:
        keep(day, costs, rows)
    query = Query(organization, DAYS[0], DAYS[-1] + DAY_S, DAY_S, TODAY, ("line_item", "project_id"))
    found: dict[Key, list[Fraction | None]] = {}
    for row in store.reconcile(query, provider):
        line, project = row.group
        assert isinstance(line, Line)
        assert line.part == "input"
        sides = [*row.recorded, *row.billed]
        assert isinstance(project, str | None)
        found[row.start_s, project, line.model] = [None if value is None else Fraction(value) for value in sides]
    assert found == plainly(provider, recorded, costs, usage, read)
    totals = store.reconcile(Query(organization, DAYS[0], DAYS[-1] + DAY_S, DAY_S, TODAY), provider)
    for place, side in ((1, "recorded"), (3, "billed")):
        whole = sum((Fraction(getattr(row, side).amount or 0) for row in totals), Fraction())
        assert whole == sum((row[place] or 0 for row in found.values()), Fraction()), "groups add up to the total"
