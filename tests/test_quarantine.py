"""What was rejected is kept with its reason until it is mended or thrown away."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support import Server

USAGE = "/v1/organization/usage"
QUARANTINE = f"{USAGE}/quarantine"
EVENTS = f"{USAGE}/events"
GOOD = {"kind": "completions", "timestamp": 1_748_865_600, "input_tokens": 10}
BAD = GOOD | {"input_tokens": -1}


@pytest.fixture
def other(server: Server, organization: str) -> Iterator[httpx.Client]:
    """A client of another organization."""
    with server.http(server.key(f"{organization}-other")) as client:
        yield client


def reject(api: httpx.Client, *events: Any) -> list[str]:
    """Post events that must be rejected; the ids of their entries, in order."""
    body = api.post(f"{USAGE}/events", json=events).json()
    assert body["rejected"] == len(events), body
    return list(dict.fromkeys(fault["quarantine_id"] for fault in body["faults"]))


def entries(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = api.get(QUARANTINE, params={"limit": 100, **query})
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def tokens(api: httpx.Client) -> int:
    page = api.get(f"{USAGE}/completions?start_time=1748822400&limit=1").json()
    return sum(result["input_tokens"] for result in page["data"][0]["results"])


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body


def test_a_rejected_event_is_kept_as_it_came_with_its_faults(api: httpx.Client) -> None:
    event = {"zzz": [{"deep": None}, 1.5], **BAD, "model": "", "id": "1"}
    (entry_id,) = reject(api, event)
    (entry,) = entries(api)
    assert set(entry) == {"object", "id", "created_at", "source", "event", "faults"}
    assert (entry["object"], entry["id"]) == ("organization.usage.quarantined_event", entry_id)
    assert isinstance(entry["created_at"], int)
    assert list(entry["event"].items()) == list(event.items()), "in the order of its fields, too"
    assert {fault["field"] for fault in entry["faults"]} >= {"input_tokens", "model", "zzz"}
    assert all(set(fault) == {"field", "value", "message"} for fault in entry["faults"])
    assert api.get(f"{QUARANTINE}/{entry_id}").json() == entry


@pytest.mark.parametrize("event", [5, "text", None, [1, 2], True])
def test_what_is_no_object_is_kept_too(event: Any, api: httpx.Client) -> None:
    (entry_id,) = reject(api, event)
    assert api.get(f"{QUARANTINE}/{entry_id}").json()["event"] == event


@pytest.mark.parametrize("line", ["nonsense é", '{"kind": "images", "images": NaN}', '{"a": 1} {"b": 2}'])
def test_a_line_that_is_not_json_is_kept_as_text(line: str, api: httpx.Client) -> None:
    body = api.post(f"{USAGE}/events", content=f"{json.dumps(GOOD)}\n{line}\n").json()
    assert (body["accepted"], body["rejected"]) == (1, 1)
    assert [entry["event"] for entry in entries(api)] == [line]


def test_numbers_too_large_for_any_field_come_back_unchanged(api: httpx.Client) -> None:
    (entry_id,) = reject(api, GOOD | {"input_tokens": 10**40})
    assert str(10**40) in api.get(f"{QUARANTINE}/{entry_id}").text


def test_the_same_bad_event_is_one_entry_however_often_it_comes(api: httpx.Client) -> None:
    first = reject(api, BAD, BAD)
    assert len(first) == 1
    assert reject(api, BAD) == first
    assert [entry["id"] for entry in entries(api)] == first
    assert len(reject(api, BAD | {"input_tokens": -2})) == 1
    assert len(entries(api)) == 2


def test_lists_are_paged_in_the_order_of_arrival(api: httpx.Client) -> None:
    made = reject(api, *(BAD | {"input_tokens": -n} for n in range(1, 6)))
    assert len(made) == 5
    assert [entry["id"] for entry in api.get(QUARANTINE).json()["data"]] == made, "oldest first by default"
    for order, expected in (("asc", made), ("desc", made[::-1])):
        for at in range(0, 5, 2):
            query = {"after": expected[at - 1]} if at else {}
            body = api.get(QUARANTINE, params={"limit": 2, "order": order, **query}).json()
            ids = expected[at : at + 2]
            assert [entry["id"] for entry in body["data"]] == ids
            assert (body["object"], body["first_id"], body["last_id"]) == ("list", ids[0], ids[-1])
            assert body["has_more"] is (at + 2 < 5)


def test_a_page_has_twenty_entries_and_at_most_a_hundred(api: httpx.Client) -> None:
    reject(api, *(BAD | {"input_tokens": -n} for n in range(1, 102)))
    for query, count in (({}, 20), ({"limit": 1}, 1), ({"limit": 100}, 100)):
        body = api.get(QUARANTINE, params=query).json()
        assert (len(body["data"]), body["has_more"]) == (count, True)


def test_an_empty_quarantine_is_an_empty_list(api: httpx.Client) -> None:
    body = api.get(QUARANTINE).json()
    assert body == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=quar_none", "after"),
        ("before=x", "before"),
    ],
)
def test_a_wrong_question_is_refused(query: str, param: str, api: httpx.Client) -> None:
    assert refused(api.get(f"{QUARANTINE}?{query}"), 400)["error"]["param"] == param


def test_an_entry_is_thrown_away(api: httpx.Client) -> None:
    first, second = reject(api, BAD, BAD | {"input_tokens": -2})
    assert api.delete(f"{QUARANTINE}/{first}").json() == {
        "object": "organization.usage.quarantined_event.deleted",
        "id": first,
        "deleted": True,
    }
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/replay")):
        refused(api.request(method, f"{QUARANTINE}/{first}{path}"), 404)
    assert [entry["id"] for entry in entries(api)] == [second]


def test_a_mended_event_is_stored_once_and_its_entry_gone(api: httpx.Client) -> None:
    (entry_id,) = reject(api, BAD)
    answer = api.post(f"{QUARANTINE}/{entry_id}/replay", json=GOOD)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["object"], answer.json()["accepted"]) == ("organization.usage.events.receipt", 1)
    assert (tokens(api), entries(api)) == (10, [])
    refused(api.post(f"{QUARANTINE}/{entry_id}/replay", json=GOOD), 404)
    assert tokens(api) == 10


@pytest.mark.parametrize("body", [None, BAD, BAD | {"input_tokens": -3}, {}, 5], ids=str)
def test_an_event_still_faulty_stays(body: Any, api: httpx.Client) -> None:
    (entry_id,) = reject(api, BAD)
    before = entries(api)
    content = b"" if body is None else json.dumps(body).encode()
    answer = refused(api.post(f"{QUARANTINE}/{entry_id}/replay", content=content), 400)
    assert (answer["accepted"], answer["rejected"]) == (0, 1)
    assert answer["faults"]
    assert entries(api) == before, "and no second entry appears"


@pytest.mark.parametrize("content", [b"nonsense", b"{", json.dumps([GOOD, GOOD]).encode()])
def test_a_mended_event_is_one_event(content: bytes, api: httpx.Client) -> None:
    (entry_id,) = reject(api, BAD)
    refused(api.post(f"{QUARANTINE}/{entry_id}/replay", content=content), 400)
    assert ([entry["id"] for entry in entries(api)], tokens(api)) == ([entry_id], 0)


def notices(api: httpx.Client, subject: str) -> dict[str, int]:
    """How often each name was noticed."""
    listed = api.get(f"{USAGE}/sources").json()["notices"]
    return {notice["name"]: notice["count"] for notice in listed if notice["subject"] == subject}


def test_what_a_replay_leaves_unread_is_noticed_as_of_any_request(api: httpx.Client) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "frobs": 3}
    good = {"object": "chat.completion", "id": f"chatcmpl-{'a' * 22}", "model": "gpt-4o", "usage": usage}
    body = api.post(f"{EVENTS}/openai", json=[good | {"created": "never"}]).json()
    assert body["rejected"] == 1, body
    before = notices(api, "unread").get("usage.frobs", 0)
    path = f"{QUARANTINE}/{body['faults'][0]['quarantine_id']}/replay"
    assert api.post(path, json=good | {"created": 1_748_865_600}).json()["accepted"] == 1
    assert notices(api, "unread").get("usage.frobs", 0) == before + 1


def test_a_mended_event_already_stored_is_a_duplicate(api: httpx.Client) -> None:
    known = GOOD | {"id": "resp_1"}
    assert api.post(f"{USAGE}/events", json=known).json()["accepted"] == 1
    (entry_id,) = reject(api, known | {"input_tokens": -1})
    answer = api.post(f"{QUARANTINE}/{entry_id}/replay", json=known)
    assert (answer.status_code, answer.json()["duplicates"]) == (200, 1)
    assert (tokens(api), entries(api)) == (10, [])


def test_replaying_all_keeps_what_is_still_faulty(api: httpx.Client) -> None:
    made = reject(api, BAD, BAD | {"model": ""})
    answer = api.post(f"{QUARANTINE}/replay").json()
    assert (answer["accepted"], answer["rejected"]) == (0, 2)
    assert {fault["quarantine_id"] for fault in answer["faults"]} == set(made)
    assert [entry["id"] for entry in entries(api)] == made


def test_an_entry_of_another_organization_does_not_exist(api: httpx.Client, other: httpx.Client) -> None:
    (entry_id,) = reject(api, BAD)
    assert entries(other) == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/replay")):
        refused(other.request(method, f"{QUARANTINE}/{entry_id}{path}", json=None), 404)
    refused(other.get(QUARANTINE, params={"after": entry_id}), 400)
    other.post(f"{QUARANTINE}/replay")
    assert [entry["id"] for entry in entries(api)] == [entry_id]


def test_the_same_bad_event_of_two_organizations_is_two_entries(api: httpx.Client, other: httpx.Client) -> None:
    assert reject(api, BAD) != reject(other, BAD)
    assert (len(entries(api)), len(entries(other))) == (1, 1)


def test_replaying_at_the_same_time_stores_once(server: Server, organization: str, api: httpx.Client) -> None:
    entry = api.post(EVENTS, json={"kind": "images", "image": 1}).json()["faults"][0]["quarantine_id"]
    key = server.key(organization)

    def replay(_: int) -> int:
        with server.http(key) as client:
            answer = client.post(f"{QUARANTINE}/{entry}/replay", json={"kind": "images", "images": 1})
            return int(answer.json().get("accepted", 0))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(replay, range(8))) == 1
    assert api.get(QUARANTINE).json()["data"] == []


def test_an_event_too_large_to_be_one_is_told_but_not_kept(api: httpx.Client) -> None:
    answer = api.post(EVENTS, json=[{"kind": "images", "images": 1}, {"kind": "images", "images": "x" * 70_000}])
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, 1)
    assert answer.json()["faults"][0]["quarantine_id"] is None
    assert api.get(QUARANTINE).json()["data"] == []


def test_an_event_of_thousands_of_wrong_fields_is_told_in_a_few_faults(api: httpx.Client) -> None:
    answer = api.post(EVENTS, json={"kind": "images", "images": 1} | {f"wrong_{number}": 1 for number in range(2_000)})
    assert answer.status_code == 400
    assert len(answer.json()["faults"]) == 20


def test_an_event_without_a_timestamp_counts_when_it_was_received(api: httpx.Client) -> None:
    before = int(time.time())
    api.post(EVENTS, json={"kind": "images", "images": "1"})
    received = int(time.time())
    time.sleep(1.1)
    (entry,) = api.get(QUARANTINE).json()["data"]
    assert api.post(f"{QUARANTINE}/{entry['id']}/replay", json={"kind": "images", "images": 1}).json()["accepted"] == 1
    window: dict[str, str | int] = {"start_time": before, "end_time": received + 1, "bucket_width": "1m"}
    data = api.get("/v1/organization/usage/images", params=window).json()["data"]
    assert sum(result["images"] for bucket in data for result in bucket["results"]) == 1
