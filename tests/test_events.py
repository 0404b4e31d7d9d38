"""Every way to post events, every way to get one wrong, and what each of them becomes."""

import gzip
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tallybook.ingest.zstandard import zstd as zstandard
from tests.model import KINDS, TOKENS
from tests.support import Server

DAY = 1_748_822_400  # 2025-06-02T00:00:00Z
NOON = DAY + 43_200
EVENTS = "/v1/organization/usage/events"
RECEIPT = {"object", "accepted", "duplicates", "conflicts", "rejected", "ignored", "faults"}
COUNTS = ("accepted", "duplicates", "conflicts", "rejected")
GOOD = {"kind": "completions", "timestamp": NOON, "input_tokens": 10, "output_tokens": 5}
BODY_BYTES_MAX = 32 * 1024**2

Event = dict[str, Any]


def send(api: httpx.Client, body: Any, **headers: str) -> httpx.Response:
    """Post bytes or text as they are, anything else as JSON; header names with _ for -."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return api.post(EVENTS, content=content, headers={n.replace("_", "-"): v for n, v in headers.items()})


def receipt(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert body.keys() - {"error"} == RECEIPT, body
    assert body["object"] == "organization.usage.events.receipt"
    assert answer.status_code == (400 if "error" in body else 200)
    return body


def counts(answer: httpx.Response) -> tuple[int, ...]:
    """Accepted, duplicates, conflicts, rejected."""
    body = receipt(answer)
    return tuple(body[name] for name in COUNTS)


def refused(answer: httpx.Response, status: int, *said: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert all(part in error["message"] for part in said), error["message"]


def lines(*events: Any) -> str:
    return "\n".join(event if isinstance(event, str) else json.dumps(event) for event in events)


def results(api: httpx.Client, kind: str = "completions", query: str = "limit=1", start: int = DAY) -> list[Any]:
    """The results of the first bucket."""
    answer = api.get(f"/v1/organization/usage/{kind}?start_time={start}&{query}")
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["data"][0]["results"]
    return found


def summed(api: httpx.Client, name: str = "input_tokens", **query: Any) -> int:
    return sum(result[name] for result in results(api, **query))


# --- Shapes of a body ---------------------------------------------------------------------------------------

TWO = [GOOD, GOOD | {"input_tokens": 20}]
SHAPES: dict[str, tuple[str, int]] = {
    "one object": (json.dumps(GOOD), 10),
    "one object over several lines": (json.dumps(GOOD, indent=2), 10),
    "array": (json.dumps(TWO), 30),
    "array over several lines": (json.dumps(TWO, indent=2), 30),
    "array with white space around": (f" \r\n\t{json.dumps(TWO)}\n ", 30),
    "NDJSON": (lines(*TWO), 30),
    "NDJSON with a last newline": (lines(*TWO) + "\n", 30),
    "NDJSON with CRLF": (lines(*TWO).replace("\n", "\r\n"), 30),
    "NDJSON with empty lines": ("\n" + lines(*TWO).replace("\n", "\n\n") + "\n\n", 30),
}
CONTENT_TYPES = ["application/json", "application/x-ndjson", "text/plain", "application/octet-stream", ""]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_is_told_by_its_shape_not_its_content_type(shape: str, content_type: str, api: httpx.Client) -> None:
    body, total = SHAPES[shape]
    assert counts(send(api, body, Content_Type=content_type)) == (1 if total == 10 else 2, 0, 0, 0)
    assert summed(api) == total


def zstd(data: bytes) -> bytes:
    return zstandard.compress(data)


def streamed_zstd(data: bytes) -> bytes:
    """A frame without its content size, as streaming senders write it."""
    compressor = zstandard.ZstdCompressor()
    return compressor.compress(data) + compressor.flush()


PLAIN = lines(*TWO).encode()
GZIPPED = gzip.compress(PLAIN)
CODED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", GZIPPED),
    "gzip in capitals": ("GZIP", GZIPPED),
    "gzip of two members": ("gzip", gzip.compress(PLAIN[:50]) + gzip.compress(PLAIN[50:])),
    "zstd": ("zstd", zstd(PLAIN)),
    "zstd without its size": ("zstd", streamed_zstd(PLAIN)),
    "zstd of two frames": ("zstd", zstd(PLAIN[:50]) + zstd(PLAIN[50:])),
    "identity": ("identity", PLAIN),
}


@pytest.mark.parametrize("coding", CODED)
def test_compressed_bodies_are_read(coding: str, api: httpx.Client) -> None:
    name, body = CODED[coding]
    assert counts(send(api, body, Content_Encoding=name)) == (2, 0, 0, 0)
    assert summed(api) == 30


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", PLAIN, 415),
        ("deflate", PLAIN, 415),
        ("nonsense", PLAIN, 415),
        ("gzip", PLAIN, 400),
        ("gzip", b"", 400),
        ("gzip", GZIPPED[:-12], 400),
        ("gzip", GZIPPED[:-1], 400),
        ("gzip", GZIPPED[:40] + b"\0\0\0\0" + GZIPPED[44:], 400),
        ("gzip", GZIPPED + b"trailing garbage", 400),
        ("zstd", PLAIN, 400),
        ("zstd", zstd(PLAIN)[:-5], 400),
        ("zstd", streamed_zstd(PLAIN)[:-1], 400),
        ("identity", GZIPPED, 400),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_a_body_that_is_not_in_its_encoding_is_refused_whole(
    coding: str, body: bytes, status: int, api: httpx.Client
) -> None:
    refused(send(api, body, Content_Encoding=coding), status, coding if status == 415 else "")
    assert results(api) == []
    assert quarantined(api) == []


def quarantined(api: httpx.Client) -> list[Any]:
    found: list[Any] = api.get("/v1/organization/usage/quarantine?limit=100").json()["data"]
    return found


@pytest.mark.parametrize(
    "body",
    [
        "hello",
        "{",
        "[",
        '{"kind": "completions"',
        f"[{json.dumps(GOOD)},]",
        f"[{json.dumps(GOOD)}",
        f"[{json.dumps(GOOD)}] x",
        json.dumps(GOOD | {"input_tokens": math.nan}),
        json.dumps([GOOD, GOOD | {"input_tokens": math.inf}]),
        json.dumps(GOOD).replace('"', "'"),
        b"\xff\xfe\x00{",
        json.dumps(GOOD | {"model": "x"}).replace("x", "\xff").encode("latin-1"),
        "[" * 200_000,
        '{"a":' * 200_000,
        "[" * 200_000 + "]" * 200_000,
        "\0",
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_body_that_is_not_json_is_refused_and_nothing_is_kept(body: str | bytes, api: httpx.Client) -> None:
    refused(send(api, body), 400)
    assert results(api) == []


@pytest.mark.parametrize("body", ["", " \n ", "[]", "[ ]"], ids=repr)
def test_a_body_without_events_is_refused(body: str, api: httpx.Client) -> None:
    assert counts(send(api, body)) == (0, 0, 0, 0)
    refused(send(api, body), 400)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("identity", b" " * (BODY_BYTES_MAX + 1)),
        ("gzip", gzip.compress(b" " * (BODY_BYTES_MAX + 1), 1)),
        ("gzip", gzip.compress(b"[" + b" " * (8 * BODY_BYTES_MAX), 1)),
        ("zstd", zstd(b" " * (BODY_BYTES_MAX + 1))),
        ("zstd", streamed_zstd(b" " * (8 * BODY_BYTES_MAX))),
    ],
    ids=["plain", "gzip", "gzip bomb", "zstd", "zstd bomb"],
)
def test_a_body_too_large_once_decompressed_is_refused(coding: str, body: bytes, api: httpx.Client) -> None:
    refused(send(api, body, Content_Encoding=coding), 413, "32")
    assert counts(send(api, GOOD)) == (1, 0, 0, 0), "and the server goes on"


def test_a_body_too_large_that_did_not_say_its_length_is_refused(api: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 2**20 + 1):
            yield b" " * 2**20

    refused(api.post(EVENTS, content=chunks()), 413, "32")


def test_more_events_than_a_request_may_have_are_refused(api: httpx.Client) -> None:
    refused(send(api, "{}\n" * 100_001), 413, "100000")
    assert quarantined(api) == []


# --- Identity -----------------------------------------------------------------------------------------------

ONE = GOOD | {"id": "resp_1"}
PAIRS: list[tuple[str, Event, Event, str]] = [
    ("resent", ONE, ONE, "duplicates"),
    ("same instant in RFC 3339", ONE, ONE | {"timestamp": "2025-06-02T12:00:00Z"}, "duplicates"),
    ("same instant as a fraction", ONE, ONE | {"timestamp": NOON + 0.0}, "duplicates"),
    ("same with the derived parts spelt out", ONE, ONE | {"input_text_tokens": 10}, "duplicates"),
    ("same with the defaults spelt out", ONE, ONE | {"batch": False, "num_model_requests": 1}, "duplicates"),
    ("other measure", ONE, ONE | {"input_tokens": 11}, "conflicts"),
    ("other dimension", ONE, ONE | {"model": "m"}, "conflicts"),
    ("other id", ONE, ONE | {"id": "resp_2"}, "accepted"),
    ("id in other letters", ONE, ONE | {"id": "RESP_1"}, "accepted"),
    ("a millisecond later", ONE, ONE | {"timestamp": NOON + 0.001}, "accepted"),
    ("other kind", ONE, ONE | {"kind": "decisions"}, "accepted"),
    ("without an id", GOOD, GOOD, "accepted"),
    (
        "without a timestamp",
        {"kind": "completions", "id": "x", "input_tokens": 1},
        {"kind": "completions", "id": "x", "input_tokens": 1},
        "accepted",
    ),
]


@pytest.mark.parametrize("together", [True, False], ids=["in one body", "in two"])
@pytest.mark.parametrize(("first", "second", "outcome"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_an_event_is_itself_by_kind_id_and_instant(
    *, first: Event, second: Event, outcome: str, together: bool, api: httpx.Client
) -> None:
    if together:
        body = send(api, [first, second]).json()
    else:
        send(api, first)
        body = send(api, second).json()
    expected = dict.fromkeys(COUNTS, 0)
    expected["accepted"] += together
    expected[outcome] += 1
    assert {name: body[name] for name in COUNTS} == expected
    if outcome != "accepted":
        assert (summed(api), summed(api, "num_model_requests")) == (10, 1), "the first stands"
    conflicts = [fault for fault in body["faults"] if fault["outcome"] == "conflict"]
    assert bool(conflicts) is (outcome == "conflicts")
    assert all(fault["index"] == int(together) for fault in conflicts)


def test_other_organizations_have_identities_of_their_own(api: httpx.Client, organization: str, server: Server) -> None:
    with server.http(server.key(f"{organization}-other")) as other:
        assert counts(send(api, ONE)) == counts(send(other, ONE)) == (1, 0, 0, 0)


def test_a_batch_sent_again_whole_counts_once(api: httpx.Client) -> None:
    batch = [ONE | {"id": f"resp_{n}", "timestamp": NOON + n} for n in range(1000)]
    assert counts(send(api, batch)) == (1000, 0, 0, 0)
    assert counts(send(api, lines(*batch[::-1]))) == (0, 1000, 0, 0)
    assert (summed(api), summed(api, "num_model_requests")) == (10_000, 1000)


# --- Token parts --------------------------------------------------------------------------------------------


def parts(**given: int) -> Event:
    """Token measures by short names: `cached=8` is input_cached_tokens, `out_text=8` output_text_tokens."""

    def name(short: str) -> str:
        if short in {"input", "output"}:
            return f"{short}_tokens"
        return f"output_{short[4:]}_tokens" if short.startswith("out_") else f"input_{short}_tokens"

    return {name(short): value for short, value in given.items()}


DERIVED: list[tuple[Event, Event]] = [
    # The reference's example.
    (
        parts(input=1000, cached=800),
        parts(input=1000, cached=800, uncached=200, text=200, cached_text=800),
    ),
    (parts(input=100, output=20), parts(input=100, uncached=100, text=100, output=20, out_text=20)),
    (parts(output=5), parts(output=5, out_text=5)),
    (parts(input=0), {}),
    # Cache writes: by retention, in all, and text is without them.
    (
        parts(input=1000, cache_write=100),
        parts(input=1000, cache_write=100, cache_write_30m=100, uncached=900, text=900),
    ),
    (
        parts(input=1000, cache_write_30m=30, cache_write_12h=70),
        parts(input=1000, cache_write=100, cache_write_30m=30, cache_write_12h=70, uncached=900, text=900),
    ),
    (
        parts(input=1000, cached=600, cache_write=400),
        parts(input=1000, cached=600, cached_text=600, cache_write=400, cache_write_30m=400),
    ),
    # The whole from its parts.
    (
        parts(input=1000, cached_text=300, cached_audio=100),
        parts(input=1000, cached=400, uncached=600, cached_text=300, cached_audio=100, audio=100, text=600),
    ),
    (
        parts(input=1000, uncached=250),
        parts(input=1000, cached=750, cached_text=750, uncached=250, text=250),
    ),
    (
        parts(input=1000, uncached=250, cache_write_12h=50),
        parts(
            input=1000, cached=700, cached_text=700, uncached=250, text=250,
            cache_write=50, cache_write_12h=50,
        ),
    ),
    # Modalities: image is uncached, audio includes its cached part.
    (parts(input=1000, image=200), parts(input=1000, uncached=1000, image=200, text=800)),
    (parts(input=1000, audio=200), parts(input=1000, uncached=1000, audio=200, text=800)),
    (
        parts(input=1000, audio=400, cached=700),
        parts(input=1000, cached=700, uncached=300, audio=400, cached_audio=100, cached_text=600),
    ),
    (
        parts(input=1000, audio=300, cached=700),
        parts(input=1000, cached=700, uncached=300, audio=300, cached_text=700),
    ),
    (
        parts(input=1000, cached=800, cached_audio=100, cached_image=50),
        parts(
            input=1000, cached=800, cached_audio=100, cached_image=50, cached_text=650,
            audio=100, uncached=200, text=200,
        ),
    ),
    (
        parts(output=100, out_audio=60, out_image=30),
        parts(output=100, out_audio=60, out_image=30, out_text=10),
    ),
    # Parts that do not reach their whole stay as they were given.
    (
        parts(input=1000, cached=800, cached_text=500, cached_audio=200),
        parts(
            input=1000, cached=800, cached_text=500, cached_audio=200, audio=200, uncached=200, text=200
        ),
    ),
    (parts(output=100, out_text=1), parts(output=100, out_text=1)),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["completions", "decisions"])
@pytest.mark.parametrize(("given", "derived"), DERIVED, ids=[str(case[0])[1:-1] for case in DERIVED])
def test_what_follows_from_the_parts_is_derived(kind: str, given: Event, derived: Event, api: httpx.Client) -> None:
    assert counts(send(api, {"kind": kind, "timestamp": NOON, **given})) == (1, 0, 0, 0)
    (result,) = results(api, kind)
    assert {name: result[name] for name in TOKENS} == dict.fromkeys(TOKENS, 0) | derived


# What just fits, and one more, which is the usual sign of counting twice.
BOUNDARIES: list[tuple[Event, str]] = [
    (parts(input=10, cached=10), "input_cached_tokens"),
    (parts(input=10, cache_write=10), "input_cache_write_tokens"),
    (parts(input=10, cache_write=4, cache_write_30m=1, cache_write_12h=3), "input_cache_write_12h_tokens"),
    (parts(input=10, uncached=4, cached=4, cache_write=2), "input_uncached_tokens"),
    (parts(input=10, audio=10), "input_audio_tokens"),
    (parts(input=10, image=10), "input_image_tokens"),
    (parts(input=10, text=10), "input_text_tokens"),
    (parts(input=10, image=4, text=6), "input_text_tokens"),
    (parts(input=10, cached=4, cached_audio=4), "input_cached_audio_tokens"),
    (parts(input=10, cached=4, cached_text=1, cached_image=3), "input_cached_image_tokens"),
    (parts(input=10, cached_text=5, cached_audio=5), "input_cached_text_tokens"),
    (parts(input=10, cached=5, audio=5, cached_audio=5), "input_cached_audio_tokens"),
    (parts(input=10, uncached=10), "input_uncached_tokens"),
    (parts(output=5, out_audio=5), "output_audio_tokens"),
    (parts(output=5, out_image=2, out_text=3), "output_text_tokens"),
]


@pytest.mark.parametrize(("fits", "grown"), BOUNDARIES, ids=[f"{case[0]} {case[1]}" for case in BOUNDARIES])
def test_parts_never_exceed_their_whole(fits: Event, grown: str, api: httpx.Client) -> None:
    event = {"kind": "completions", "timestamp": NOON, **fits}
    assert counts(send(api, event)) == (1, 0, 0, 0)
    answer = send(api, event | {grown: event[grown] + 1})
    assert counts(answer) == (0, 0, 0, 1)
    message = receipt(answer)["faults"][0]["message"]
    assert sum(character.isdigit() for character in message) >= 2, "it quotes the two numbers that disagree"


# --- Faults -------------------------------------------------------------------------------------------------

# what is changed in a good event, the field at fault, what the message must contain
FAULTS: list[tuple[Event, str | None, tuple[str, ...]]] = [
    *(({"input_tokens": value}, "input_tokens", said) for value, said in [
        (-1, ("0",)), (1.5, ("integer",)), (True, ("integer",)), ("10", ("integer",)), ([], ("integer",)),
        ({}, ("integer",)), (2**53, (str(2**53 - 1),)), (2**64, ()), (10**30, ()),
        (1e300, ()), (1e18, ()),
    ]),
    ({"output_tokens": 0.5}, "output_tokens", ("integer",)),
    ({"num_model_requests": -1}, "num_model_requests", ("0",)),
    ({"num_model_requests": 1.5}, "num_model_requests", ("integer",)),
    ({"input_cached_tokens": 11}, "input_cached_tokens", ("11", "10", "input_tokens")),
    ({"input_cached_tokens": -1}, "input_cached_tokens", ("0",)),
    ({"output_audio_tokens": 6}, "output_audio_tokens", ("6", "5", "output_tokens")),
    *(({"model": value}, "model", said) for value, said in [
        ("", ("256",)), ("m" * 257, ("256",)), ("a\0b", ("control",)), ("a\x7fb", ("control",)),
        ("a\nb", ("control",)), ("a\x1b[31m", ("control",)), (5, ("string",)), (["m"], ("string",)),
        (True, ("string",)),
    ]),
    ({"project_id": "\0"}, "project_id", ("control",)),
    ({"user_id": "u" * 257}, "user_id", ("256",)),
    ({"id": "i" * 257}, "id", ("256",)),
    ({"id": ""}, "id", ("256",)),
    ({"id": 5}, "id", ("string",)),
    ({"id": "a\0"}, "id", ("control",)),
    ({"batch": "true"}, "batch", ("true", "false")),
    ({"batch": 1}, "batch", ("true", "false")),
    *(({"timestamp": value}, "timestamp", said) for value, said in [
        (1_420_070_399, ("2015",)), (1_420_070_399.999, ("2015",)), (0, ("2015",)), (-5, ("2015",)),
        ("2014-12-31T23:59:59.999Z", ("2015",)), (1_748_865_600_000, ("seconds",)), (10**30, ()), (1e300, ()),
        ("yesterday", ("RFC 3339",)), ("1748865600", ("RFC 3339",)), ("", ("RFC 3339",)),
        ("2025-06-02", ("RFC 3339",)),
        ("2025-06-02T12:00:00", ("offset",)), ("2025-06-31T12:00:00Z", ()), ("2025-06-02T25:00:00Z", ()),
        ("2025-06-02T12:00:00Z\0", ()), (True, ()), ([], ()), ({}, ()),
    ]),
    ({"kind": "completion"}, "kind", ("completion", "completions")),
    ({"kind": ""}, "kind", ("completions",)),
    ({"kind": 5}, "kind", ()),
    ({"kind": ["completions"]}, "kind", ()),
    ({"kind": "costs"}, "kind", ("completions",)),
    ({"input_token": 1}, "input_token", ("input_tokens",)),
    ({"modle": "m"}, "modle", ("model",)),
    ({"projectId": "p"}, "projectId", ("project_id",)),
    ({"zzz": 1}, "zzz", ("zzz",)),
    ({"": 1}, "", ()),
    ({"seconds": 5}, "seconds", ("completions",)),
    ({"size": "1024x1024"}, "size", ("completions",)),
    ({"vector_store_id": "vs"}, "vector_store_id", ("completions",)),
    ({"kind": "embeddings"}, "output_tokens", ("embeddings",)),
    ({"kind": "moderations", "input_cached_tokens": 5}, "input_cached_tokens", ("moderations",)),
    ({"cost": 5}, "cost", ()),
    ({"cost": []}, "cost", ()),
    ({"cost": {"currency": "usd"}}, "cost", ("value",)),
    ({"cost": {"value": "much", "currency": "usd"}}, "cost", ("decimal",)),
    ({"cost": {"value": True, "currency": "usd"}}, "cost", ()),
    ({"cost": {"value": 1, "currency": 5}}, "cost", ("currency",)),
    ({"cost": {"value": 1, "currency": ""}}, "cost", ("currency",)),
    ({"cost": {"value": 1, "currency": "usd", "valeu": 1}}, "cost", ("value",)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field", "said"), FAULTS, ids=[repr(case[0])[:60] for case in FAULTS])
def test_a_fault_names_index_field_value_and_remedy_and_spares_its_neighbours(
    change: Event, field: str, said: tuple[str, ...], api: httpx.Client
) -> None:
    faults = rejected_between_neighbours(api, GOOD | change)
    fault = next(fault for fault in faults if within(fault["field"], field))
    assert all(part in fault["message"] for part in said), fault
    if field in change and fault["field"] == field:
        assert is_value(fault["value"], change[field]), fault


def rejected_between_neighbours(api: httpx.Client, event: Any) -> list[dict[str, Any]]:
    """The faults of an event posted between two good ones, which must be stored."""
    good, between = json.dumps(GOOD), event if isinstance(event, str) else json.dumps(event)
    answer = send(api, f"[{good}, {between}, {good}]")
    assert counts(answer) == (2, 0, 0, 1), answer.text
    assert summed(api) == 20
    faults: list[dict[str, Any]] = receipt(answer)["faults"]
    for fault in faults:
        assert set(fault) == {"index", "outcome", "field", "value", "message", "quarantine_id"}
        assert (fault["index"], fault["outcome"]) == (1, "rejected")
        assert fault["quarantine_id"].startswith("quar_")
    return faults


def within(name: str | None, field: str) -> bool:
    """`cost.value` is a fault of the field cost."""
    return name is not None and (name == field or name.startswith(f"{field}."))


def is_value(shown: Any, given: Any) -> bool:
    """As given, of the same type; or as JSON text, cut where it is long, what not every reader could hold."""
    if isinstance(given, list | dict) or (isinstance(given, int) and given >= 2**53):
        text = json.dumps(given, separators=(",", ":"))
    elif isinstance(given, str) and len(given) > 256:
        text = given
    else:
        return type(shown) is type(given) and bool(shown == given)
    return shown == given or (isinstance(shown, str) and bool(shown) and text.startswith(shown.rstrip("\u2026")))


@pytest.mark.parametrize("event", [5, '"text"', None, True, [], [GOOD], 1.5], ids=repr)
def test_what_is_not_an_object_is_no_event(event: Any, api: httpx.Client) -> None:
    (fault,) = rejected_between_neighbours(api, event)
    assert fault["field"] is None
    assert "object" in fault["message"]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ('{"kind": "completions", "input_tokens": 1, "model": "a\\ud800b"}', "model"),
        ('{"kind": "completions", "input_tokens": 1, "id": "\\udc00"}', "id"),
        ('{"kind": "completions", "input_tokens": 1, "model": "\\u0000"}', "model"),
        ('{"kind": "completions", "input_tokens": 1, "model": "\\u007f"}', "model"),
        (f'{{"kind": "completions", "input_tokens": {"9" * 400}}}', "input_tokens"),
        (f'{{"kind": "completions", "input_tokens": {"9" * 5000}}}', None),
        ('{"kind": "completions", "input_tokens": 1e400}', None),
        (f'{{"kind": "completions", "input_tokens": 1, "timestamp": {"9" * 30}}}', "timestamp"),
        (f'{{"kind": "completions", "input_tokens": 1, "timestamp": -{"9" * 30}}}', "timestamp"),
        ('{"kind": "completions", "input_tokens": -0.5}', "input_tokens"),
        (f'{{"kind": "completions", "input_tokens": 1, "model": {"[" * 500}{"]" * 500}}}', "model"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_what_json_allows_and_nobody_expects_is_a_fault(raw: str, field: str | None, api: httpx.Client) -> None:
    """A number beyond what any reader of JSON can hold (field None) need not be told by its name."""
    fields = {fault["field"] for fault in rejected_between_neighbours(api, raw)}
    assert fields & {field, "input_tokens"}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "{",
        '{"a": 1} {"b": 2}',
        '{"kind": "images", "images": NaN}',
        '{"kind": "images", "images": 1, "model": "\\x"}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:60],
)
def test_a_line_that_is_not_json_is_one_rejected_event_of_ndjson(line: str, api: httpx.Client) -> None:
    answer = send(api, lines(GOOD, line, GOOD))
    assert counts(answer) == (2, 0, 0, 1)
    (fault,) = receipt(answer)["faults"]
    assert (fault["index"], fault["field"]) == (1, None)
    assert summed(api) == 20


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "kind"),
        ({"kind": "completions"}, "input_tokens"),
        ({"kind": "decisions"}, "input_tokens"),
        ({"kind": "completions", "output_tokens": 5, "input_cached_tokens": 0}, "input_cached_tokens"),
        ({"kind": "completions", "input_tokens": 5, "output_text_tokens": 0}, "output_text_tokens"),
        ({"kind": "embeddings"}, "input_tokens"),
        ({"kind": "moderations"}, "input_tokens"),
        ({"kind": "images"}, "images"),
        ({"kind": "audio_speeches"}, "characters"),
        ({"kind": "audio_transcriptions"}, "seconds"),
        ({"kind": "vector_stores", "vector_store_id": "vs"}, "usage_bytes"),
        ({"kind": "vector_stores", "usage_bytes": 5}, "vector_store_id"),
        ({"kind": "images", "images": 1, "source": "image.theft"}, "source"),
        ({"kind": "web_search_calls", "context_level": "huge"}, "context_level"),
        ({"kind": "audio_transcriptions", "seconds": -0.1}, "seconds"),
        ({"kind": "audio_transcriptions", "seconds": "5"}, "seconds"),
        ({"kind": "audio_transcriptions", "seconds": 1e300}, "seconds"),
        ({"kind": "vector_stores", "vector_store_id": "vs", "usage_bytes": 1, "model": "m"}, "model"),
        ({"kind": "code_interpreter_sessions", "num_requests": 1}, "num_requests"),
    ],
    ids=str,
)
def test_what_a_kind_needs_and_allows_is_checked(event: Event, field: str, api: httpx.Client) -> None:
    faults = {fault["field"]: fault for fault in rejected_between_neighbours(api, event)}
    assert field in faults, faults
    if field in event:
        assert is_value(faults[field]["value"], event[field])


def test_every_fault_of_an_event_is_named_at_once(api: httpx.Client) -> None:
    faults = rejected_between_neighbours(api, GOOD | {"input_tokens": -1, "model": "", "zzz": 1})
    assert {fault["field"] for fault in faults} >= {"input_tokens", "model", "zzz"}
    assert len({fault["quarantine_id"] for fault in faults}) == 1


def test_faults_are_listed_to_a_hundred_and_counted_to_the_last(api: httpx.Client) -> None:
    answer = send(api, [{"kind": "completions", "input_tokens": -n} for n in range(1, 151)] + [GOOD])
    assert counts(answer) == (1, 0, 0, 150)
    assert [fault["index"] for fault in receipt(answer)["faults"]] == list(range(100))


def test_a_body_in_which_nothing_is_valid_is_refused_and_quarantined(api: httpx.Client) -> None:
    answer = send(api, [GOOD | {"input_tokens": -1}, GOOD | {"input_tokens": -2}])
    assert counts(answer) == (0, 0, 0, 2)
    refused(answer, 400)
    assert len(quarantined(api)) == 2


# --- What is good -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": 2**53 - 1},
        {"input_tokens": 0, "output_tokens": 0},
        {"id": "i" * 256},
        {"model": "é" * 256},
        {"model": "m"},
        {"model": "模型 🦜 'x' \"y\" \\ % ; --"},
        {"num_model_requests": 0},
        {"timestamp": 1_420_070_400},
        {"cost": {"value": 0.0123456789, "currency": "usd"}},
        {"cost": {"value": "0.02100000000000000000000000000000000", "currency": "usd"}},
        {"cost": {"value": 0, "currency": "usd"}},
    ],
    ids=str,
)
def test_the_edges_of_what_is_allowed_are_allowed(change: Event, api: httpx.Client) -> None:
    event: Event = GOOD | change
    assert counts(send(api, event)) == (1, 0, 0, 0)
    (result,) = results(api, query="limit=1&group_by=model", start=event["timestamp"] // 86_400 * 86_400)
    expected = {name: event.get(name) for name in ("input_tokens", "output_tokens", "model")}
    assert {name: result[name] for name in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_counts_default_to_one(kind: str, api: httpx.Client) -> None:
    counted = [name for name in KINDS[kind].measures if name.startswith("num_")]
    needed: Event = {name: 3 for name in KINDS[kind].measures if name not in counted and name not in TOKENS[2:]}
    needed |= {"vector_store_id": "vs"} if kind == "vector_stores" else {}
    event = {"kind": kind, "timestamp": NOON, **needed}
    assert counts(send(api, [event, event | dict.fromkeys(counted, 5)])) == (2, 0, 0, 0)
    (result,) = results(api, kind)
    assert {result[name] for name in counted} <= {6}


@pytest.mark.parametrize(
    "timestamp",
    [
        NOON,
        NOON + 0.0,
        NOON + 0.999,
        "2025-06-02T12:00:00Z",
        "2025-06-02t12:00:00z",
        "2025-06-02T12:00:00.5Z",
        "2025-06-02T12:00:00.123456789Z",
        "2025-06-02T14:00:00+02:00",
        "2025-06-02T06:30:00-05:30",
        "2025-06-03T00:00:00+12:00",
        "2025-06-02T12:00:00-00:00",
    ],
)
def test_an_instant_may_be_written_in_many_ways(timestamp: Any, api: httpx.Client) -> None:
    assert counts(send(api, GOOD | {"timestamp": timestamp})) == (1, 0, 0, 0)
    query = f"bucket_width=1m&end_time={NOON + 1}"
    assert summed(api, query=query, start=NOON) == 10


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (NOON + 0.123, NOON + 0.123, True),
        (NOON + 0.123, "2025-06-02T12:00:00.123Z", True),
        (NOON + 0.123, "2025-06-02T14:00:00.123+02:00", True),
        (NOON + 0.5, "2025-06-02T12:00:00.500Z", True),
        (NOON + 0.123, NOON + 0.124, False),
        (NOON + 0.001, NOON, False),
        (NOON + 0.999, NOON + 1, False),
    ],
)
def test_instants_are_kept_to_the_millisecond(one: Any, other: Any, same: bool, api: httpx.Client) -> None:
    send(api, ONE | {"timestamp": one})
    assert counts(send(api, ONE | {"timestamp": other})) == ((0, 1, 0, 0) if same else (1, 0, 0, 0))


@pytest.mark.parametrize(("ahead_s", "good"), [(3500, True), (3700, False), (86_400, False)])
def test_an_event_may_be_an_hour_ahead(ahead_s: int, good: bool, api: httpx.Client) -> None:
    answer = send(api, GOOD | {"timestamp": int(time.time()) + ahead_s})
    assert counts(answer) == ((1, 0, 0, 0) if good else (0, 0, 0, 1))


def test_without_a_timestamp_an_event_counts_at_its_receipt(api: httpx.Client) -> None:
    before = int(time.time()) - 1
    assert counts(send(api, {"kind": "completions", "input_tokens": 7})) == (1, 0, 0, 0)
    assert summed(api, query="bucket_width=1d", start=before) == 7


@pytest.mark.parametrize(
    ("seconds", "total"),
    [
        ([1.5], 2), ([2.5], 3), ([0.5], 1), ([0.4], 0), ([1.4999], 1), ([0.49999999999999994], 0), ([7], 7),
        ([7.0], 7), ([0.5, 0.5], 2), ([0.4, 0.4, 0.4], 0), ([1.5, 2.5, 0.4], 5), ([0], 0),
    ],
)  # fmt: skip
def test_transcribed_seconds_are_rounded_half_up_for_each_event(
    seconds: list[float], total: int, api: httpx.Client
) -> None:
    batch = [{"kind": "audio_transcriptions", "timestamp": NOON, "seconds": each} for each in seconds]
    assert counts(send(api, batch)) == (len(seconds), 0, 0, 0)
    (result,) = results(api, "audio_transcriptions")
    assert (result["seconds"], result["num_model_requests"]) == (total, len(seconds))
