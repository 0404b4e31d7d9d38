"""Records of other software over HTTP: stored once, kept when they are bad, told apart by where they came from."""

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import Server

T = 1_763_800_000
USAGE = "/v1/organization/usage"
QUARANTINE = f"{USAGE}/quarantine"
WINDOW = {"start_time": T - 86_400, "end_time": T + 86_400}


def chat(number: int, **fields: Any) -> dict[str, Any]:
    used = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
    return {
        "object": "chat.completion",
        "id": f"chatcmpl-{number}",
        "created": T + number,
        "model": "gpt-4o",
        "usage": used | fields,
    }


def call(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number}",
        "call_type": "acompletion",
        "status": "success",
        "endTime": T + number + 0.5,
        "model": "gpt-4o",
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "metadata": {"user_api_key_user_id": "ann"},
        **fields,
    }


def failed(number: int) -> dict[str, Any]:
    """A call that came to nothing, with what LiteLLM reckons its prompt would have been."""
    return call(number, status="failure", completion_tokens=0)


def searched(number: int) -> dict[str, Any]:
    return {
        "object": "response",
        "id": f"resp_{number}",
        "created_at": T + number,
        "status": "completed",
        "model": "gpt-5",
        "usage": {"input_tokens": 9, "output_tokens": 3},
        "tool_usage": {"web_search": {"num_requests": 2}},
    }


def post(api: httpx.Client, source: str, content: Any) -> dict[str, Any]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = api.post(f"{USAGE}/events/{source}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    found: dict[str, Any] = answer.json()
    return {name: found[name] for name in ("accepted", "duplicates", "conflicts", "rejected", "ignored", "faults")}


def counts(receipt: dict[str, Any]) -> tuple[int, ...]:
    return tuple(receipt[name] for name in ("accepted", "duplicates", "conflicts", "rejected", "ignored"))


def used(api: httpx.Client, kind: str, measure: str) -> int:
    page = api.get(f"{USAGE}/{kind}", params=WINDOW | {"limit": 31}).raise_for_status().json()
    return sum(result[measure] for bucket in page["data"] for result in bucket["results"])


def test_records_are_counted_and_the_same_records_again_are_not(api: httpx.Client) -> None:
    records = [chat(1), chat(2), searched(3), {"custom_id": "a", "response": {"status_code": 500, "body": {}}}]
    assert counts(post(api, "openai", records)) == (4, 0, 0, 0, 1)
    assert counts(post(api, "openai", b"\n".join(json.dumps(each).encode() for each in records))) == (0, 4, 0, 0, 1)
    assert used(api, "completions", "input_tokens") == 209
    assert used(api, "completions", "input_cached_tokens") == 80
    assert used(api, "web_search_calls", "num_requests") == 2


@pytest.mark.parametrize("log_format", ["json_array", "ndjson", "single"])
def test_a_callbacks_body_is_told_by_itself(log_format: str, api: httpx.Client) -> None:
    records = [call(1), call(2), failed(3), call(4, cache_hit=True)]
    bodies = {
        "json_array": [json.dumps(records).encode()],
        "ndjson": [b"\n".join(json.dumps(each).encode() for each in records)],
        "single": [json.dumps(each).encode() for each in records],
    }[log_format]
    receipts = [post(api, "litellm", body) for body in bodies]
    assert [sum(column) for column in zip(*map(counts, receipts), strict=True)] == [2, 0, 0, 0, 2]


def test_only_failed_calls_are_no_fault(api: httpx.Client) -> None:
    answer = api.post(f"{USAGE}/events/litellm", json=[failed(1)])
    assert (answer.status_code, answer.json()["ignored"]) == (200, 1)


def test_a_bad_record_is_kept_whole_and_its_neighbours_are_stored(api: httpx.Client) -> None:
    bad = chat(2, prompt_tokens=10)  # more cached than read
    receipt = post(api, "openai", [chat(1), bad, chat(3)])
    assert counts(receipt) == (2, 0, 0, 1, 0)
    (fault,) = receipt["faults"]
    assert (fault["index"], fault["field"]) == (1, "input_cached_tokens")
    (entry,) = api.get(QUARANTINE).json()["data"]
    assert (entry["source"], entry["event"], entry["id"]) == ("openai", bad, fault["quarantine_id"])
    assert counts(api.post(f"{QUARANTINE}/replay").json()) == (0, 0, 0, 1, 0)
    mended = api.post(f"{QUARANTINE}/{entry['id']}/replay", json=chat(2))
    assert counts(mended.json()) == (1, 0, 0, 0, 0)
    assert api.get(QUARANTINE).json()["data"] == []
    assert used(api, "completions", "input_tokens") == 300


def test_of_a_record_of_several_events_all_are_stored_or_none(api: httpx.Client) -> None:
    bad = searched(1) | {
        "usage": {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 10}}
    }
    assert counts(post(api, "openai", bad)) == (0, 0, 0, 1, 0)
    assert used(api, "web_search_calls", "num_requests") == 0
    (entry,) = api.get(QUARANTINE).json()["data"]
    path = f"{QUARANTINE}/{entry['id']}/replay"
    assert counts(api.post(path, json=searched(1)).json()) == (2, 0, 0, 0, 0)
    assert api.post(path, json=searched(1)).status_code == 404
    assert used(api, "web_search_calls", "num_requests") == 2


def test_a_mended_record_that_turns_out_to_be_no_usage_leaves_quarantine(api: httpx.Client) -> None:
    post(api, "litellm", call(1, prompt_tokens="many"))
    (entry,) = api.get(QUARANTINE).json()["data"]
    answer = api.post(f"{QUARANTINE}/{entry['id']}/replay", json=failed(1))
    assert (answer.status_code, counts(answer.json())) == (200, (0, 0, 0, 0, 1))
    assert api.get(QUARANTINE).json()["data"] == []


def test_records_of_several_sources_are_replayed_together(api: httpx.Client) -> None:
    post(api, "litellm", call(1, prompt_tokens=-1))
    post(api, "openai", chat(2, prompt_tokens=-1))
    api.post(f"{USAGE}/events", json={"kind": "images", "images": -1})
    assert counts(api.post(f"{QUARANTINE}/replay").json()) == (0, 0, 0, 3, 0)
    sources = [entry["source"] for entry in api.get(QUARANTINE).json()["data"]]
    assert sources == ["litellm", "openai", "events"]


@pytest.mark.parametrize("source", ["litellm", "openai", "anthropic"])
@pytest.mark.parametrize("body", [b"", b"nonsense", b"5", b"[]", b"[1, null]", b"{}", b"\xff", b"[" * 5000])
def test_nonsense_is_refused_and_told(source: str, body: bytes, api: httpx.Client) -> None:
    answer = api.post(f"{USAGE}/events/{source}", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_an_unknown_source_is_no_address(api: httpx.Client) -> None:
    assert api.post(f"{USAGE}/events/langfuse", json={}).status_code == 404


def test_large_bodies_are_read_beside_the_event_loop_and_packed_ones_unpacked(api: httpx.Client) -> None:
    records = [call(number, messages="x" * 12_000) for number in range(500)]
    assert counts(post(api, "litellm", records)) == (500, 0, 0, 0, 0)
    packed = gzip.compress(json.dumps(records).encode())
    answer = api.post(f"{USAGE}/events/litellm", content=packed, headers={"content-encoding": "gzip"})
    assert counts(answer.json()) == (0, 500, 0, 0, 0)


def test_a_call_that_two_sources_report_is_noticed(api: httpx.Client) -> None:
    post(api, "openai", [chat(1), chat(2)])
    post(api, "litellm", [call(2), call(3)])
    api.post(f"{USAGE}/events", json=[{"kind": "images", "id": "i", "timestamp": T + n, "images": 1} for n in (1, 2)])
    found = api.get(f"{USAGE}/sources", params=WINDOW).raise_for_status().json()
    assert [(each["source"], each["kind"], each["events"]) for each in found["sources"]] == [
        ("events", "images", 2),
        ("litellm", "completions", 1),
        ("openai", "completions", 2),
    ]
    assert found["repeated"] == []
    (notice,) = api.get(f"{USAGE}/sources").json()["notices"]
    assert notice.pop("last_at") > T
    assert notice == {
        "subject": "differing",
        "source": "litellm",
        "name": "openai input_cached_tokens",
        "count": 1,
        "example": "chatcmpl-2",
    }
    assert api.get(f"{USAGE}/sources", params=WINDOW | {"end_time": T}).json()["sources"] == []


def test_who_does_not_send_again_after_429_gets_503(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", args=["--queue-bytes-max", "1000", "--quarantine-max", "0"])
    try:
        with server.http() as client:
            bad = {"kind": "images", "images": -1}
            assert client.post(f"{USAGE}/events", json=bad).status_code == 429
            assert client.post(f"{USAGE}/events/openai", json=chat(1, prompt_tokens=-1)).status_code == 429
            answer = client.post(f"{USAGE}/events/litellm", json=call(1, prompt_tokens=-1))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "quarantine_full")
            assert int(answer.headers["retry-after"]) > 0
    finally:
        assert server.stop() == 0


def test_what_a_call_cost_is_the_gateways_word_if_the_operator_says_so(tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data", env={"TALLYBOOK_REPORTED_COSTS": "true"})
    try:
        with server.http() as client:
            assert counts(post(client, "litellm", call(1, response_cost=0.125))) == (1, 0, 0, 0, 0)
            page = client.get("/v1/organization/costs", params=WINDOW | {"group_by": "line_item"}).json()
            costs = [result for bucket in page["data"] for result in bucket["results"]]
            assert [(cost["line_item"], cost["amount"]["value"]) for cost in costs] == [
                ("gpt-4o, reported cost", 0.125)
            ]
    finally:
        assert server.stop() == 0
