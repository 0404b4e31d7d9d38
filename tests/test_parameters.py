"""Every wrong question is refused with what was wrong; every right one has exactly its buckets."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.model import KINDS, LIMITS_MAX, WIDTHS_S
from tests.support import Server

DAY = 1_748_822_400  # 2025-06-02T00:00:00Z
NOON = DAY + 43_200
LIMITS_DEFAULT = {"1m": 60, "1h": 24, "1d": 7, "all": 1}
WIDTHS = pytest.mark.parametrize("width", WIDTHS_S)
START = f"start_time={DAY}"


def url(kind: str, query: str = START) -> str:
    return f"/v1/organization/usage/{kind}?{query}"


def page(api: httpx.Client, kind: str = "completions", query: str = START) -> dict[str, Any]:
    answer = api.get(url(kind, query))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["object"] == "page"
    assert body["has_more"] is (body["next_page"] is not None)
    for bucket in body["data"]:
        assert bucket["object"] == "bucket"
        assert bucket["results"] == bucket["result"]
    return body


def edges(body: dict[str, Any]) -> list[tuple[int, int]]:
    return [(bucket["start_time"], bucket["end_time"]) for bucket in body["data"]]


def post(api: httpx.Client, *events: dict[str, Any]) -> None:
    receipt = api.post("/v1/organization/usage/events", json=events).json()
    assert receipt.get("accepted") == len(events), receipt


def completion(timestamp: float, tokens: int, **others: Any) -> dict[str, Any]:
    return {"kind": "completions", "timestamp": timestamp, "input_tokens": tokens, **others}


def tokens(body: dict[str, Any]) -> list[int]:
    """The input tokens of every bucket, all its results together."""
    return [sum(result["input_tokens"] for result in bucket["results"]) for bucket in body["data"]]


# kind, query, parameter at fault, code (None: any), what the message must contain
REFUSED: list[tuple[str, str, str, str | None, tuple[str, ...]]] = [
    ("completions", "", "start_time", "missing_required_parameter", ("start_time",)),
    ("completions", f"end_time={DAY}", "start_time", "missing_required_parameter", ("start_time",)),
    ("completions", "start_time=", "start_time", None, ("start_time",)),
    ("completions", "start_time=-1", "start_time", None, ("-1", "0")),
    ("completions", "start_time=1748822400000", "start_time", None, ("1748822400000", "seconds")),
    ("completions", f"start_time={10**30}", "start_time", None, (str(10**30),)),
    ("completions", "start_time=9223372036854775808", "start_time", None, ("9223372036854775808",)),
    ("completions", "start_time=yesterday", "start_time", None, ("yesterday", "integer")),
    ("completions", "start_time=2025-06-02", "start_time", None, ("2025-06-02", "integer")),
    ("completions", "start_time=1748822400.5", "start_time", None, ("1748822400.5", "integer")),
    ("completions", "start_time=1e9", "start_time", None, ("1e9",)),
    ("completions", "start_time=1_748_822_400", "start_time", None, ("1_748_822_400",)),
    ("completions", "start_time=%EF%BC%91%EF%BC%92", "start_time", None, ("start_time",)),  # full-width 12
    ("completions", "start_time=NaN", "start_time", None, ("NaN",)),
    ("completions", "start_time=%00", "start_time", None, ("start_time",)),
    ("completions", f"{START}&{START}", "start_time", None, ("start_time",)),
    ("completions", f"{START}&end_time={DAY}", "end_time", None, (str(DAY), "start_time")),
    ("completions", f"{START}&end_time={DAY - 1}", "end_time", None, (str(DAY - 1), str(DAY))),
    ("completions", f"{START}&end_time=-5", "end_time", None, ("-5",)),
    ("completions", f"{START}&end_time=1748908800000", "end_time", None, ("1748908800000", "seconds")),
    ("completions", f"{START}&end_time=now", "end_time", None, ("now",)),
    ("completions", f"{START}&end_time={10**30}", "end_time", None, (str(10**30),)),
    ("completions", f"{START}&end_time={DAY + 1}&end_time={DAY + 2}", "end_time", None, ("end_time",)),
    ("completions", f"{START}&bucket_width=2d", "bucket_width", "invalid_value", ("2d", "1m", "1h", "1d")),
    ("completions", f"{START}&bucket_width=", "bucket_width", None, ("1m", "1h", "1d")),
    ("completions", f"{START}&bucket_width=1D", "bucket_width", "invalid_value", ("1D", "1d")),
    ("completions", f"{START}&bucket_width=1h&bucket_width=1d", "bucket_width", None, ("bucket_width",)),
    ("completions", f"{START}&group_by=colour", "group_by", "invalid_value", ("colour", "api_source")),
    ("completions", f"{START}&group_by[]=colour", "group_by", "invalid_value", ("colour", "project_id")),
    ("completions", f"{START}&group_by=model,colour", "group_by", "invalid_value", ("colour", "model")),
    ("completions", f"{START}&group_by=size", "group_by", "invalid_value", ("size", "service_tier")),
    ("completions", f"{START}&group_by=line_item", "group_by", "invalid_value", ("line_item", "batch")),
    ("embeddings", f"{START}&group_by=batch", "group_by", "invalid_value", ("batch", "api_key_id")),
    ("vector_stores", f"{START}&group_by=model", "group_by", "invalid_value", ("model", "project_id")),
    ("completions", f"{START}&batch=maybe", "batch", "invalid_value", ("maybe", "true", "false")),
    ("completions", f"{START}&batch=true&batch=false", "batch", None, ("batch",)),
    ("embeddings", f"{START}&batch=true", "batch", None, ("batch",)),
    ("images", f"{START}&sources=image.theft", "sources", "invalid_value", ("image.theft", "image.edit")),
    ("web_search_calls", f"{START}&context_levels[]=huge", "context_levels", None, ("huge", "medium")),
    ("completions", f"{START}&sizes=256x256", "sizes", None, ("sizes", "models")),
    ("vector_stores", f"{START}&models=m", "models", None, ("models", "project_ids")),
    ("vector_stores", f"{START}&vector_store_ids=v", "vector_store_ids", None, ("vector_store_ids",)),
    ("completions", f"{START}&models={'m' * 300}", "models", None, ("256",)),
    ("completions", f"{START}&limit=0", "limit", "integer_below_min_value", ("0", "1")),
    ("completions", f"{START}&limit=-1", "limit", "integer_below_min_value", ("-1", "1")),
    ("completions", f"{START}&limit=ten", "limit", None, ("ten",)),
    ("completions", f"{START}&limit=1.5", "limit", None, ("1.5",)),
    ("completions", f"{START}&limit={10**30}", "limit", None, ("31",)),
    ("completions", f"{START}&limit=1&limit=2", "limit", None, ("limit",)),
    ("completions", f"{START}&limit=32", "limit", "integer_above_max_value", ("32", "31")),
    ("embeddings", f"{START}&bucket_width=1h&limit=169", "limit", "integer_above_max_value", ("169", "168")),
    ("images", f"{START}&bucket_width=1m&limit=1441", "limit", "integer_above_max_value", ("1441", "1440")),
    ("completions", f"{START}&page=nonsense", "page", "invalid_cursor", ("nonsense",)),
    ("completions", f"{START}&page=page_AAAAAGdGxdEiJdKOAAAA=", "page", "invalid_cursor", ("page_AAAA",)),
    ("completions", f"{START}&page=%F0%9F%92%A5", "page", "invalid_cursor", ("page",)),
    ("completions", f"{START}&group=model", "group", "unknown_parameter", ("group", "group_by")),
    ("completions", f"{START}&groupby[]=model", "groupby", "unknown_parameter", ("groupby", "group_by")),
    ("completions", f"{START}&project_id=p", "project_id", "unknown_parameter", ("project_ids",)),
    ("completions", f"{START}&starttime={DAY}", "starttime", "unknown_parameter", ("start_time",)),
    ("completions", f"{START}&bucket_widht=1h", "bucket_widht", "unknown_parameter", ("bucket_width",)),
    ("completions", f"{START}&zzz=1", "zzz", "unknown_parameter", ("zzz",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "query", "param", "code", "said"), REFUSED, ids=[f"{row[0]}?{row[1][:60]}" for row in REFUSED]
)
def test_a_wrong_question_is_refused_with_parameter_value_and_remedy(
    *, kind: str, query: str, param: str, code: str | None, said: tuple[str, ...], api: httpx.Client
) -> None:
    refused(api.get(url(kind, query)), param, code, *said)


def refused(answer: httpx.Response, param: str, code: str | None, *said: str) -> None:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] == code if code else isinstance(error["code"], str | None)
    assert all(part in error["message"] for part in said), error["message"]


@pytest.mark.parametrize("kind", ["chat", "completion", "Completions", "costs", "vector-stores", "events2"])
def test_an_unknown_kind_is_not_found(kind: str, api: httpx.Client) -> None:
    answer = api.get(url(kind))
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert kind in answer.json()["error"]["message"]


class TestCursor:
    QUESTION = f"{START}&end_time={DAY + 10 * 86_400}&limit=2"

    @pytest.fixture
    def cursor(self, api: httpx.Client) -> str:
        value = page(api, query=self.QUESTION)["next_page"]
        assert re.fullmatch(r"[A-Za-z0-9_=-]+", value), "clients paste it into the address unescaped"
        return str(value)

    def test_goes_on_where_the_page_ended_even_pasted_unescaped(self, cursor: str, api: httpx.Client) -> None:
        second = page(api, query=f"{self.QUESTION}&page={cursor}")
        assert edges(second) == [(DAY + n * 86_400, DAY + (n + 1) * 86_400) for n in (2, 3)]
        assert page(api, query=f"{self.QUESTION}&page={quote(cursor, safe='')}") == second

    def test_damaged_anywhere_is_refused(self, cursor: str, api: httpx.Client) -> None:
        for at in range(len(cursor)):
            damaged = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
            refused(api.get(url("completions", f"{self.QUESTION}&page={damaged}")), "page", "invalid_cursor")
        for damaged in (cursor[:-4], cursor[4:], cursor * 2, cursor[::-1]):
            refused(api.get(url("completions", f"{self.QUESTION}&page={damaged}")), "page", "invalid_cursor")

    @pytest.mark.parametrize(
        ("kind", "query"),
        [
            ("embeddings", QUESTION),
            ("decisions", QUESTION),
            ("completions", QUESTION.replace(START, f"start_time={DAY - 86_400}")),
            ("completions", f"{START}&end_time={DAY + 9 * 86_400}&limit=2"),
            ("completions", f"{QUESTION}&bucket_width=1h"),
            ("completions", f"{QUESTION}&group_by=model"),
            ("completions", f"{QUESTION}&models=m"),
            ("completions", f"{QUESTION}&batch=false"),
        ],
    )
    def test_of_another_question_is_refused(self, kind: str, query: str, cursor: str, api: httpx.Client) -> None:
        refused(api.get(url(kind, f"{query}&page={cursor}")), "page", "invalid_cursor")

    def test_of_another_organization_is_refused(self, cursor: str, organization: str, server: Server) -> None:
        with server.http(server.key(f"{organization}-other")) as other:
            answer = other.get(url("completions", f"{self.QUESTION}&page={cursor}"))
        refused(answer, "page", "invalid_cursor")

    def test_belongs_to_the_question_however_its_lists_are_written(self, api: httpx.Client) -> None:
        first = page(api, query=f"{self.QUESTION}&group_by=model,batch&models=a&models=b")
        again = f"models[]=a&models[]=b&group_by[]=model&group_by[]=batch&{self.QUESTION}"
        page(api, query=f"{again}&page={first['next_page']}")

    def test_pins_the_end_that_was_now(self, api: httpx.Client) -> None:
        start = int(time.time()) - 300
        first = page(api, query=f"start_time={start}&bucket_width=1m&limit=2")
        latest = int(time.time()) + 1
        time.sleep(2.1)  # until now is later than any end the first page can have pinned
        *_, last = walk(api, f"start_time={start}&bucket_width=1m&limit=2", first)
        assert edges(last)[-1][1] <= latest


def walk(api: httpx.Client, query: str, first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield first
    for _ in range(1000):
        if not first["has_more"]:
            return
        first = page(api, query=f"{query}&page={first['next_page']}")
        yield first


@pytest.mark.parametrize(
    "group_by",
    [
        "group_by=project_id&group_by=model",
        "group_by[]=project_id&group_by[]=model",
        "group_by%5B%5D=project_id&group_by%5B%5D=model",
        "group_by=project_id,model",
        "group_by=project_id%2Cmodel",
        "group_by[]=project_id,model",
        "group_by=model&group_by=project_id",
    ],
)
def test_every_encoding_of_group_by_is_the_same_question(group_by: str, api: httpx.Client) -> None:
    post(api, completion(NOON, 1, model="m", project_id="p"), completion(NOON, 2, model="n", project_id="p"))
    results = page(api, query=f"{START}&limit=1&{group_by}")["data"][0]["results"]
    assert sorted((row["project_id"], row["model"], row["input_tokens"]) for row in results) == [
        ("p", "m", 1),
        ("p", "n", 2),
    ]
    assert {row["user_id"] for row in results} == {None}


@pytest.mark.parametrize(
    ("chosen", "sums"),
    [
        ("models=a&models=b", 3),
        ("models[]=a&models[]=b", 3),
        ("models%5B%5D=a&models%5B%5D=b", 3),
        ("models=a,b", 4),
        ("models=a%2Cb", 4),
        ("models=a%2Cb&models=a", 5),
        ("models=c%20d", 8),
        ("models=c+d", 8),
        ("models=a&project_ids=nobody", 0),
    ],
)
def test_lists_of_filters_are_never_split_at_commas(chosen: str, sums: int, api: httpx.Client) -> None:
    names = {"a": 1, "b": 2, "a,b": 4, "c d": 8}
    post(api, *(completion(NOON, tokens, model=model) for model, tokens in names.items()))
    assert tokens(page(api, query=f"{START}&limit=1&{chosen}")) == [sums]


@pytest.mark.parametrize(("chosen", "sums"), [("", 7), ("&batch=true", 1), ("&batch=false", 6)])
def test_batch_selects_batch_jobs_or_the_others_and_absent_is_no_batch_job(
    chosen: str, sums: int, api: httpx.Client
) -> None:
    post(api, completion(NOON, 1, batch=True), completion(NOON, 2, batch=False), completion(NOON, 4))
    assert tokens(page(api, query=f"{START}&limit=1{chosen}")) == [sums]


@pytest.mark.parametrize("kind", KINDS)
def test_an_ungrouped_result_names_every_dimension_as_null(kind: str, api: httpx.Client) -> None:
    event: dict[str, Any] = dict.fromkeys(KINDS[kind].measures, 0) | {"kind": kind, "timestamp": NOON}
    event |= {"vector_store_id": "vs", "usage_bytes": 5} if kind == "vector_stores" else {}
    post(api, event | dict.fromkeys(set(KINDS[kind].dimensions) & {"project_id", "user_id", "model"}, "x"))
    (result,) = page(api, kind, f"{START}&limit=1")["data"][0]["results"]
    assert result["object"] == f"organization.usage.{KINDS[kind].object}.result"
    assert set(result) == {"object", *KINDS[kind].measures, *KINDS[kind].dimensions}
    assert {result[name] for name in KINDS[kind].dimensions} == {None}


# start_time, end_time, width and the edges that must follow
GRIDS = [
    (DAY, DAY + 3 * 86_400, "1d", [DAY, DAY + 86_400, DAY + 2 * 86_400, DAY + 3 * 86_400]),
    (NOON + 754, DAY + 86_400 + 61, "1d", [NOON + 720, DAY + 86_400, DAY + 86_400 + 61]),
    (NOON + 59, NOON + 61, "1d", [NOON, NOON + 61]),
    (NOON + 60, NOON + 61, "1d", [NOON + 60, NOON + 61]),
    (NOON + 59, NOON + 60, "1m", [NOON, NOON + 60]),
    (NOON + 754, NOON + 7201, "1h", [NOON + 720, NOON + 3600, NOON + 7200, NOON + 7201]),
    (NOON + 754, NOON + 840, "1m", [NOON + 720, NOON + 780, NOON + 840]),
    (NOON + 754, NOON + 755, "1m", [NOON + 720, NOON + 755]),
    (0, 86_400, "1d", [0, 86_400]),
]


@pytest.mark.parametrize(("start", "end", "width", "marks"), GRIDS)
def test_the_first_bucket_starts_at_the_minute_and_the_last_ends_at_the_end(
    *, start: int, end: int, width: str, marks: list[int], api: httpx.Client
) -> None:
    body = page(api, query=f"start_time={start}&end_time={end}&bucket_width={width}")
    assert edges(body) == list(pairwise(marks))
    assert not body["has_more"]


@WIDTHS
def test_windows_are_half_open(width: str, api: httpx.Client) -> None:
    edge, end = DAY + WIDTHS_S[width], DAY + WIDTHS_S[width] + 1
    times = {DAY - 0.001: 1, DAY: 2, edge - 0.001: 4, edge: 8, end - 0.001: 16, end: 32}
    post(api, *(completion(when, count) for when, count in times.items()))
    assert tokens(page(api, query=f"{START}&end_time={end}&bucket_width={width}")) == [6, 24]


def test_without_an_end_the_last_bucket_ends_now(api: httpx.Client) -> None:
    before = int(time.time())
    post(api, {"kind": "completions", "input_tokens": 5})
    body = page(api, query=f"start_time={before - 90_061}")
    assert edges(body)[0][0] == (before - 90_061) // 60 * 60
    assert before < edges(body)[-1][1] <= int(time.time()) + 1
    assert tokens(body)[-1] == 5, "what was acknowledged is in the next answer"


@WIDTHS
def test_an_end_in_the_future_gives_empty_buckets(width: str, api: httpx.Client) -> None:
    now, step = int(time.time()), WIDTHS_S[width]
    start, end = now // step * step, now // step * step + 4 * step
    post(api, completion(now - 1 if now - 1 >= start else now, 5))
    body = page(api, query=f"start_time={start}&end_time={end}&bucket_width={width}")
    assert edges(body) == [(start + n * step, start + (n + 1) * step) for n in range(4)]
    assert [len(bucket["results"]) for bucket in body["data"]] == [1, 0, 0, 0]


@WIDTHS
def test_limits_have_a_default_and_a_maximum(width: str, api: httpx.Client) -> None:
    longest, query = LIMITS_MAX[width], f"{START}&bucket_width={width}"
    end = DAY + (longest + 1) * WIDTHS_S[width]
    assert len(page(api, query=f"{query}&end_time={end}")["data"]) == LIMITS_DEFAULT[width]
    for limit in (1, longest):
        body = page(api, query=f"{query}&end_time={end}&limit={limit}")
        assert (len(body["data"]), body["has_more"]) == (limit, True)
    whole = page(api, query=f"{query}&end_time={end - WIDTHS_S[width]}&limit={longest}")
    assert (len(whole["data"]), whole["has_more"], whole["next_page"]) == (longest, False, None)
