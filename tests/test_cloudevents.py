"""CloudEvents in all three modes, with the official SDK as the sender: stored once, refused by attribute."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_binary_event, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tallybook.sources.cloudevents import identity
from tallybook.sources.record import NO_OPTIONS
from tallybook.sources.table import SOURCES

T = 1_763_800_000
TIME = "2025-11-22T08:26:40.250Z"
EVENTS = "/v1/organization/usage/events"
QUARANTINE = "/v1/organization/usage/quarantine"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
USED = {"kind": "completions", "model": "gpt-4o", "user_id": "ann", "input_tokens": 9, "output_tokens": 2}
Json = dict[str, Any]


def envelope(number: int = 1, **attributes: Any) -> Json:
    made = {"specversion": "1.0", "id": str(number), "source": "/gateway", "type": "usage", "time": TIME, "data": USED}
    return {name: value for name, value in (made | attributes).items() if value is not None}


def post(api: httpx.Client, content: Any, media: str, **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return api.post(EVENTS, content=body, headers={"content-type": media, **headers})


def binary(api: httpx.Client, body: bytes, **attributes: str) -> httpx.Response:
    given = {"specversion": "1.0", "id": "1", "source": "/gateway", "type": "usage", "time": TIME} | attributes
    headers = {f"ce-{name}": value for name, value in given.items() if value}
    return api.post(EVENTS, content=body, headers=headers | {"content-type": "application/json"})


def counts(answer: httpx.Response) -> tuple[int, ...]:
    assert answer.status_code == 200, answer.text
    return tuple(answer.json()[name] for name in ("accepted", "duplicates", "conflicts", "rejected"))


def param(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    found: str = answer.json()["error"]["param"]
    return found


def stored(api: httpx.Client) -> list[Json]:
    question: Json = {
        "start_time": T - 60,
        "end_time": T + 86_400,
        "bucket_width": "1m",
        "group_by": ["model", "user_id"],
    }
    page = api.get("/v1/organization/usage/completions", params=question | {"limit": 1440}).json()
    return [
        {"minute_s": bucket["start_time"], **{name: result[name] for name in ("model", "user_id", "input_tokens")}}
        for bucket in page["data"]
        for result in bucket["results"]
    ]


SENT: Json = {"minute_s": T - T % 60, "model": "gpt-4o", "user_id": "ann", "input_tokens": 9}


def sdk_event(number: int, **attributes: Any) -> CloudEvent:
    moment = datetime(2025, 11, 22, 8, 26, 40, 250_000, tzinfo=UTC)
    given = {"id": str(number), "source": "/gateway", "type": "usage", "time": moment}
    return CloudEvent(given | {"datacontenttype": "application/json"} | attributes, USED)


def send(api: httpx.Client, message: HTTPMessage) -> httpx.Response:
    return api.post(EVENTS, content=message.body, headers=message.headers)


@pytest.mark.parametrize("attributes", [{}, {"source": "/ä%20/a%b", "subject": 'a "b" % ä'}])
def test_the_sdks_modes_are_the_same_event_and_counted_once(api: httpx.Client, attributes: Json) -> None:
    event = sdk_event(1, **attributes)
    messages = [to_structured(event, JSONFormat()), to_binary(event, JSONFormat()), to_binary_event(event)]
    batch = (
        b"[" + b",".join(to_structured(sdk_event(number, **attributes), JSONFormat()).body for number in (1, 2)) + b"]"
    )
    assert [counts(send(api, message)) for message in messages] == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 1, 0, 0)]
    assert counts(post(api, batch, BATCH)) == (1, 1, 0, 0)
    assert stored(api) == [SENT | {"input_tokens": 18}]


def test_headers_are_percent_decoded_once(api: httpx.Client) -> None:
    body = json.dumps(USED).encode()
    assert counts(binary(api, body, id="a%2520b%20%C3%A4", source='"/gate\\way"')) == (1, 0, 0, 0)
    assert counts(post(api, envelope(id="a%20b ä", source="/gateway"), STRUCTURED)) == (0, 1, 0, 0)
    assert param(binary(api, body, id="%ff")) == "ce-id"


def test_a_record_may_be_text_in_base64(api: httpx.Client) -> None:
    packed = base64.b64encode(json.dumps(USED).encode()).decode()
    assert counts(post(api, envelope(data=None, data_base64=packed), STRUCTURED)) == (1, 0, 0, 0)
    assert counts(post(api, envelope(), STRUCTURED)) == (0, 1, 0, 0)


def test_what_data_says_of_time_stands_and_its_id_does_not(api: httpx.Client) -> None:
    data = USED | {"timestamp": T + 120, "id": "resp_1"}
    assert counts(post(api, [envelope(1, data=data), envelope(2, data=data)], BATCH)) == (2, 0, 0, 0)
    assert [found["minute_s"] for found in stored(api)] == [SENT["minute_s"] + 120]
    assert counts(post(api, envelope(1, data=data, time=None), STRUCTURED)) == (0, 1, 0, 0)


def test_identity_is_source_and_id(api: httpx.Client) -> None:
    different = [envelope(), envelope(2), envelope(source="/other"), envelope(id="a b"), envelope(id="1" * 300)]
    assert counts(post(api, different, BATCH)) == (5, 0, 0, 0)
    assert counts(post(api, different, BATCH)) == (0, 5, 0, 0)
    assert counts(post(api, envelope(data=USED | {"input_tokens": 10}), STRUCTURED)) == (0, 0, 1, 0)


def test_long_ids_stay_different() -> None:
    assert identity("/a", "b" * 300) != identity("/a", "b" * 301)
    assert len(identity("/a", "b" * 300)) <= 256


def test_an_id_that_is_cut_within_a_character_has_an_identity() -> None:
    assert identity("/a", "b" * 300 + "\ud83d") != identity("/a", "b" * 300 + "\ud83e")


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"specversion": None}, "specversion"),
        ({"specversion": "0.3"}, "specversion"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"source": None}, "source"),
        ({"source": "a b"}, "source"),
        ({"type": None}, "type"),
        ({"time": None}, "time"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2025-11-22T08:26:40"}, "time"),
        ({"time": "2999-01-01T00:00:00Z"}, "timestamp"),
    ],
)
def test_a_wrong_attribute_is_named_in_structured_and_binary_mode(
    api: httpx.Client, attributes: Json, named: str
) -> None:
    assert param(post(api, envelope(**attributes), STRUCTURED)) == named
    headers = {name: value or "" for name, value in attributes.items()}
    assert param(binary(api, json.dumps(USED).encode(), **headers)) == named


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"data": None}, "data"),
        ({"data": [USED]}, "data"),
        ({"data": json.dumps(USED)}, "data"),
        ({"data": {"kind": "completion"}}, "kind"),
        ({"data": USED | {"input_tokens": -1}}, "input_tokens"),
        ({"data": None, "data_base64": "!"}, "data_base64"),
        ({"data": None, "data_base64": "e30"}, "data_base64"),
        ({"data_base64": "e30="}, "data_base64"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"id": 5}, "id"),
    ],
)
def test_wrong_data_is_named(api: httpx.Client, attributes: Json, named: str) -> None:
    assert param(post(api, envelope(**attributes), STRUCTURED)) == named


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        ([envelope()], STRUCTURED, 400),
        (envelope(), BATCH, 400),
        (b"{", STRUCTURED, 400),
        (b"", STRUCTURED, 400),
        (b"\xff", BATCH, 400),
        (b"5", STRUCTURED, 400),
        (envelope(), "application/cloudevents", 415),
        (envelope(), "application/cloudevents+avro", 415),
    ],
)
def test_a_body_that_is_not_what_its_type_says_is_refused(
    api: httpx.Client, content: Any, media: str, status: int
) -> None:
    assert post(api, content, media).status_code == status


def test_types_may_have_parameters_and_capitals_and_a_batch_may_be_empty(api: httpx.Client) -> None:
    assert counts(post(api, b"[]", BATCH)) == (0, 0, 0, 0)
    assert counts(post(api, envelope(), "Application/CloudEvents+JSON; charset=UTF-8")) == (1, 0, 0, 0)


def test_good_neighbours_are_stored_and_the_rest_is_kept_whole_and_replayed(api: httpx.Client) -> None:
    bad = envelope(2, data={"kind": "completions", "input_tokens": -1}, extra="kept")
    answer = post(api, [envelope(1), bad, envelope(3)], BATCH)
    assert counts(answer) == (2, 0, 0, 1)
    assert answer.json()["faults"][0]["index"] == 1
    (kept,) = api.get(QUARANTINE).json()["data"]
    assert (kept["source"], kept["event"]) == ("cloudevents", bad)
    mended = bad | {"data": USED}
    assert counts(api.post(f"{QUARANTINE}/{kept['id']}/replay", json=mended)) == (1, 0, 0, 0)
    assert counts(post(api, mended, STRUCTURED)) == (0, 1, 0, 0)


def test_half_a_character_in_an_event_spoils_no_other(api: httpx.Client) -> None:
    cut = envelope(2, subject="cut \ud83d", id="\ud83d" + "2" * 300)
    answer = post(api, [envelope(1), cut, envelope(3), 5], BATCH)
    assert counts(answer) == (3, 0, 0, 1)
    assert answer.json()["faults"][0]["index"] == 3


def test_what_was_sent_in_headers_is_kept_as_one_event(api: httpx.Client) -> None:
    assert param(binary(api, b"no JSON", id="7", extra="kept")) == "data_base64"
    (kept,) = api.get(QUARANTINE).json()["data"]
    packed = base64.b64encode(b"no JSON").decode()
    whole = envelope(7, data=None, extra="kept", datacontenttype="application/json", data_base64=packed)
    assert kept["event"] == whole


def test_a_plain_event_is_none(api: httpx.Client) -> None:
    plain = {**USED, "id": "resp_1", "timestamp": T}
    answer = api.post(EVENTS, json=plain, headers={"ce-extension-of-a-proxy": "x"})
    assert counts(answer) == (1, 0, 0, 0)


@pytest.mark.parametrize("record", [[], 5, "a", None])
def test_a_record_that_is_no_object_is_told(record: Any) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        SOURCES["cloudevents"].events(record, NO_OPTIONS)
