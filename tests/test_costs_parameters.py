"""Every wrong question about costs is refused with what was wrong; every right one has exactly its buckets."""

import re
import time
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.costs_model import DIMENSIONS, GROUP_BY, LIMITS_DEFAULT, LIMITS_MAX
from tests.model import WIDTHS_S
from tests.support import Server
from tests.test_costs_exactness import COSTS, exactly
from tests.test_parameters import edges, refused

DAY = 1_748_822_400  # 2025-06-02T00:00:00Z
NOON = DAY + 43_200
START = f"start_time={DAY}"
WIDTHS = pytest.mark.parametrize("width", WIDTHS_S)
MODEL = "gpt-4o-2024-08-06"
DOLLAR = 400_000  # input tokens of the model for a dollar, at 2.50 per million


def url(query: str = START) -> str:
    return f"{COSTS}?{query}"


def page(api: httpx.Client, query: str = START) -> dict[str, Any]:
    answer = api.get(url(query))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = exactly(answer)
    assert body["object"] == "page"
    assert body["has_more"] is (body["next_page"] is not None)
    for bucket in body["data"]:
        assert bucket["object"] == "bucket"
        assert bucket["results"] == bucket["result"]
    return body


def spend(api: httpx.Client, *events: dict[str, Any]) -> None:
    receipt = api.post("/v1/organization/usage/events", json=events).json()
    assert receipt.get("accepted") == len(events), receipt


def worth(timestamp: float, dollars: int, **others: Any) -> dict[str, Any]:
    """A completion that costs so many dollars."""
    event = {"kind": "completions", "timestamp": timestamp, "model": MODEL, "input_tokens": dollars * DOLLAR}
    return event | others


def dollars(body: dict[str, Any]) -> list[Decimal]:
    """What every bucket costs, all its results together."""
    return [sum((Decimal(row["amount"]["value"]) for row in bucket["results"]), Decimal()) for bucket in body["data"]]


# query, parameter at fault, code (None: any), what the message must contain
REFUSED: list[tuple[str, str, str | None, tuple[str, ...]]] = [
    ("", "start_time", "missing_required_parameter", ("start_time",)),
    (f"end_time={DAY}", "start_time", "missing_required_parameter", ("start_time",)),
    ("start_time=", "start_time", None, ("start_time",)),
    ("start_time=-1", "start_time", None, ("-1", "0")),
    ("start_time=1748822400000", "start_time", None, ("1748822400000", "seconds")),
    (f"start_time={10**30}", "start_time", None, (str(10**30),)),
    ("start_time=yesterday", "start_time", None, ("yesterday", "integer")),
    ("start_time=1748822400.5", "start_time", None, ("1748822400.5", "integer")),
    (f"{START}&{START}", "start_time", None, ("start_time",)),
    (f"{START}&end_time={DAY}", "end_time", None, (str(DAY), "start_time")),
    (f"{START}&end_time={DAY - 1}", "end_time", None, (str(DAY - 1), str(DAY))),
    (f"{START}&end_time=now", "end_time", None, ("now",)),
    (f"{START}&bucket_width=2d", "bucket_width", "invalid_value", ("2d", "1m", "1h", "1d")),
    (f"{START}&bucket_width=1D", "bucket_width", "invalid_value", ("1D", "1d")),
    (f"{START}&bucket_width=1h&bucket_width=1d", "bucket_width", None, ("bucket_width",)),
    (f"{START}&group_by=colour", "group_by", "invalid_value", ("colour", "line_item")),
    (f"{START}&group_by[]=colour", "group_by", "invalid_value", ("colour", "service_tier")),
    (f"{START}&group_by=line_item,colour", "group_by", "invalid_value", ("colour", "user_id")),
    (f"{START}&group_by=size", "group_by", "invalid_value", ("size", "batch")),
    (f"{START}&group_by=organization_id", "group_by", "invalid_value", ("organization_id", "project_id")),
    (f"{START}&batch=maybe", "batch", "invalid_value", ("maybe", "true", "false")),
    (f"{START}&batch=true&batch=false", "batch", None, ("batch",)),
    (f"{START}&line_items={'m' * 700}", "line_items", None, ("line_items",)),
    (f"{START}&models={'m' * 300}", "models", None, ("256",)),
    (f"{START}&limit=0", "limit", "integer_below_min_value", ("0", "1")),
    (f"{START}&limit=ten", "limit", None, ("ten",)),
    (f"{START}&limit=1&limit=2", "limit", None, ("limit",)),
    (f"{START}&limit=181", "limit", "integer_above_max_value", ("181", "180")),
    (f"{START}&bucket_width=1h&limit=169", "limit", "integer_above_max_value", ("169", "168")),
    (f"{START}&bucket_width=1m&limit=1441", "limit", "integer_above_max_value", ("1441", "1440")),
    (f"{START}&page=nonsense", "page", "invalid_cursor", ("nonsense",)),
    (f"{START}&line_item=x", "line_item", "unknown_parameter", ("line_item", "line_items")),
    (f"{START}&model=x", "model", "unknown_parameter", ("model", "models")),
    (f"{START}&user_id=x", "user_id", "unknown_parameter", ("user_id", "user_ids")),
    (f"{START}&sizes=256x256", "sizes", None, ("sizes",)),
    (f"{START}&bucket_widht=1h", "bucket_widht", "unknown_parameter", ("bucket_width",)),
]


@pytest.mark.parametrize(("query", "param", "code", "said"), REFUSED, ids=[row[0][:60] for row in REFUSED])
def test_a_wrong_question_is_refused_with_parameter_value_and_remedy(
    *, query: str, param: str, code: str | None, said: tuple[str, ...], api: httpx.Client
) -> None:
    refused(api.get(url(query)), param, code, *said)


# path and query, parameter at fault, what the message must contain
REFUSED_BESIDE = [
    (f"unpriced?start_time={DAY}&end_time={DAY}", "end_time", (str(DAY),)),
    ("unpriced?start_time=yesterday", "start_time", ("yesterday",)),
    ("unpriced?model=m", "model", ("model", "models")),
    ("unpriced?page=x", "page", ("page",)),
    ("unpriced?count_events=maybe", "count_events", ("maybe", "true", "false")),
    ("unpriced?group_by=colour", "group_by", ("colour", "project_id")),
    ("unpriced?bucket_width=2d", "bucket_width", ("2d", "1d")),
    ("unpriced?bucket_width=1m", "bucket_width", ("1m", "10000", "start_time")),
    (f"unpriced?start_time={DAY * 2}", "end_time", (str(DAY * 2),)),
    ("prices?at=yesterday", "at", ("yesterday",)),
    (f"prices?at={DAY}&at={DAY}", "at", ("at",)),
    ("prices?models=m", "models", ("model",)),
    ("reratings?limit=0", "limit", ("0",)),
    ("reratings?limit=1000000", "limit", ("1000000",)),
    ("reratings?order=up", "order", ("up", "asc", "desc")),
    ("reratings?when=now", "when", ("when",)),
]


@pytest.mark.parametrize(("path", "param", "said"), REFUSED_BESIDE, ids=[row[0] for row in REFUSED_BESIDE])
def test_a_wrong_question_beside_costs_is_refused(
    path: str, param: str, said: tuple[str, ...], api: httpx.Client
) -> None:
    refused(api.get(f"{COSTS}/{path}"), param, None, *said)


def test_amounts_lead_to_what_is_in_none_of_them(api: httpx.Client) -> None:
    """A header, since bodies are OpenAI's to the letter and files have the columns of others."""
    house = {"kind": "completions", "model": "house, (ä)", "timestamp": DAY, "input_tokens": 7}
    spend(api, house | {"project_id": "p>1"}, house | {"project_id": "p2"})
    asked = (
        f"{START}&end_time={DAY + 86_400}&project_ids[]=p%3E1&models=house%2C+(%C3%A4)&group_by[]=project_id&limit=1"
    )
    (row,) = linked(api, api.get(url(asked)))
    assert (row["project_id"], row["quantity"]) == ("p>1", 7)
    window = f"start_time={DAY}&end_time={DAY + 86_400}"
    for schema in ("focus-1.4", "openai"):
        with api.stream("GET", f"{COSTS}/export?{window}&schema={schema}") as export:
            assert [row["quantity"] for row in linked(api, export)] == [14]
    many = "&".join(f"models=m{'x' * 200}{number}" for number in range(50))
    answer = api.get(url(f"{START}&end_time={DAY + 86_400}&{many}"))
    assert answer.status_code == 200
    assert "link" not in answer.headers, "no proxy refuses the answer for its headers"


def linked(api: httpx.Client, answer: httpx.Response) -> list[dict[str, Any]]:
    link = answer.links["related"]
    assert link["title"] == "unpriced usage"
    return list(api.get(link["url"]).raise_for_status().json()["data"])


WINDOW = {"start_time": DAY, "end_time": DAY + 86_400}
# body, what the message must contain
REFUSED_RERATES: list[tuple[Any, tuple[str, ...]]] = [
    ({}, ("start_time",)),
    ({"start_time": DAY}, ("end_time",)),
    (WINDOW | {"start_time": "yesterday"}, ("start_time",)),
    (WINDOW | {"end_time": DAY}, ("end_time", str(DAY))),
    (WINDOW | {"end_time": DAY - 1}, ("end_time", str(DAY - 1))),
    (WINDOW | {"start_time": -1}, ("start_time",)),
    (WINDOW | {"dry_run": "yes"}, ("dry_run",)),
    (WINDOW | {"dryrun": True}, ("dryrun",)),
    (WINDOW | {"dry_run": True, "prices": 5}, ("prices",)),
    (WINDOW | {"dry_run": True, "prices": "model,counted,unit,price\nm,input,1M tokens,-2\n"}, ("line 2", "-2")),
    ([], ("object",)),
]


@pytest.mark.parametrize(("body", "said"), REFUSED_RERATES, ids=str)
def test_a_wrong_rerating_is_refused_and_nothing_is_done(body: Any, said: tuple[str, ...], api: httpx.Client) -> None:
    answer = api.post(f"{COSTS}/rerate", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert all(part in error["message"] for part in said), error["message"]
    assert api.get(f"{COSTS}/reratings").json()["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", f"?{START}", "api.usage.read"),
        ("GET", "/unpriced", "api.usage.read"),
        ("GET", "/prices", "api.usage.read"),
        ("GET", "/reratings", "api.usage.read"),
        ("GET", f"/export?{START}&end_time={DAY + 1}", "api.usage.read"),
        ("POST", "/prices/reload", "api.management"),
        ("POST", "/rerate", "api.management"),
    ],
)
def test_each_has_its_scope(method: str, path: str, scope: str, server: Server, organization: str) -> None:
    others = {"api.usage.read", "api.usage.write", "api.management"} - {scope}
    body: dict[str, Any] = {"json": {**WINDOW, "dry_run": True}} if path == "/rerate" else {}
    with server.http(server.key(organization, sorted(others))) as api:
        answer = api.request(method, f"{COSTS}{path}", **body)
        assert answer.status_code == 403, answer.text
        assert scope in answer.json()["error"]["message"]
    with server.http(server.key(organization, [scope])) as api:
        assert api.request(method, f"{COSTS}{path}", **body).status_code == 200
    with server.http("sk-admin-nobody") as api:
        assert api.request(method, f"{COSTS}{path}", **body).status_code == 401


@pytest.mark.parametrize("path", ["", "/unpriced", "/prices", "/reratings", "/export"])
def test_what_is_read_is_not_posted(path: str, api: httpx.Client) -> None:
    answer = api.post(f"{COSTS}{path}")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


class TestCursor:
    QUESTION = f"{START}&end_time={DAY + 10 * 86_400}&limit=2"

    @pytest.fixture
    def cursor(self, api: httpx.Client) -> str:
        value = page(api, self.QUESTION)["next_page"]
        assert re.fullmatch(r"[A-Za-z0-9_=-]+", value), "clients paste it into the address unescaped"
        return str(value)

    def test_goes_on_where_the_page_ended_even_pasted_unescaped(self, cursor: str, api: httpx.Client) -> None:
        second = page(api, f"{self.QUESTION}&page={cursor}")
        assert edges(second) == [(DAY + n * 86_400, DAY + (n + 1) * 86_400) for n in (2, 3)]
        assert page(api, f"{self.QUESTION}&page={quote(cursor, safe='')}") == second

    def test_damaged_anywhere_is_refused(self, cursor: str, api: httpx.Client) -> None:
        for at in range(len(cursor)):
            damaged = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
            refused(api.get(url(f"{self.QUESTION}&page={damaged}")), "page", "invalid_cursor")

    @pytest.mark.parametrize(
        "query",
        [
            QUESTION.replace(START, f"start_time={DAY - 86_400}"),
            f"{START}&end_time={DAY + 9 * 86_400}&limit=2",
            f"{QUESTION}&bucket_width=1h",
            f"{QUESTION}&group_by=line_item",
            f"{QUESTION}&line_items=m",
            f"{QUESTION}&service_tier=flex",
            f"{QUESTION}&batch=false",
        ],
    )
    def test_of_another_question_is_refused(self, query: str, cursor: str, api: httpx.Client) -> None:
        refused(api.get(url(f"{query}&page={cursor}")), "page", "invalid_cursor")

    def test_of_usage_is_not_one_of_costs(self, cursor: str, api: httpx.Client) -> None:
        usage = "/v1/organization/usage/completions"
        refused(api.get(f"{usage}?{self.QUESTION}&page={cursor}"), "page", "invalid_cursor")
        other = api.get(f"{usage}?{self.QUESTION}").json()["next_page"]
        refused(api.get(url(f"{self.QUESTION}&page={other}")), "page", "invalid_cursor")

    def test_of_another_organization_is_refused(self, cursor: str, organization: str, server: Server) -> None:
        with server.http(server.key(f"{organization}-other")) as other:
            refused(other.get(url(f"{self.QUESTION}&page={cursor}")), "page", "invalid_cursor")

    def test_pins_the_end_that_was_now(self, api: httpx.Client) -> None:
        start = int(time.time()) // 60 * 60 - 300
        query = f"start_time={start}&bucket_width=1m&limit=2"
        first = page(api, query)
        latest = int(time.time()) + 1
        time.sleep(2.1)  # until now is later than any end the first page can have pinned
        last = first
        for _ in range(1000):
            if not last["has_more"]:
                break
            last = page(api, f"{query}&page={last['next_page']}")
        assert edges(last)[-1][1] <= latest


@pytest.mark.parametrize(
    "group_by",
    [
        "group_by=project_id&group_by=line_item",
        "group_by[]=project_id&group_by[]=line_item",
        "group_by%5B%5D=project_id&group_by%5B%5D=line_item",
        "group_by=project_id,line_item",
        "group_by=project_id%2Cline_item",
        "group_by[]=project_id,line_item",
        "group_by=line_item&group_by=project_id",
    ],
)
def test_every_encoding_of_group_by_is_the_same_question(group_by: str, api: httpx.Client) -> None:
    spend(api, worth(NOON, 1, project_id="p"), worth(NOON, 2, project_id="q", user_id="u"))
    results = page(api, f"{START}&limit=1&{group_by}")["data"][0]["results"]
    assert sorted((row["project_id"], row["line_item"], row["amount"]["value"]) for row in results) == [
        ("p", f"{MODEL}, input", 1),
        ("q", f"{MODEL}, input", 2),
    ]
    assert {row["user_id"] for row in results} == {None}


@pytest.mark.parametrize(
    "group_by", [pair for n in range(3) for pair in combinations(GROUP_BY, n)] + [GROUP_BY], ids=str
)
def test_a_result_names_what_it_is_grouped_by_and_nothing_else(
    group_by: tuple[str, ...], api: httpx.Client, organization: str
) -> None:
    """Costs by user and project, by tier and line item, by anything and anything."""
    values = {name: f"some {name}" for name in DIMENSIONS} | {"api_source": "agents_api", "batch": True}
    values |= {"model": MODEL, "service_tier": "default"}
    spend(api, worth(NOON, 0, **values) | {"cost": {"value": 3, "currency": "usd"}})
    query = "".join(f"&group_by={name}" for name in group_by)
    (result,) = page(api, f"{START}&limit=1{query}")["data"][0]["results"]
    expected = values | {"line_item": f"{MODEL}, reported cost"}
    assert result == {
        "object": "organization.costs.result",
        "amount": {"value": 3, "currency": "usd"},
        "quantity": None,
        "quantity_unit": None,
        "organization_id": organization,
        **{name: expected[name] if name in group_by else None for name in GROUP_BY},
    }


@pytest.mark.parametrize(
    ("chosen", "sums"),
    [
        (f"line_items={MODEL}%2C%20input", 3),
        (f"line_items[]={MODEL},+input", 3),
        (f"line_items%5B%5D={MODEL}%2C+input", 3),
        (f"line_items={MODEL}, input", 3),
        (f"line_items={MODEL}", 0),
        ("line_items=input", 0),
        (f"line_items={MODEL}, Input", 0),
        (f"line_items={MODEL}, input&line_items={MODEL}, output", 7),
        (f"line_items={MODEL}, input&line_items={MODEL}, input", 3),
        (f"line_items={MODEL}, input&user_ids=nobody", 0),
        (f"models={MODEL}", 7),
        (f"models={MODEL}&models=nothing", 7),
        ("models=gpt-4o", 0),
        ("user_ids=u", 4),
        ("user_ids[]=u&user_ids[]=v", 7),
        ("project_ids=p&user_ids=u", 4),
        ("project_ids=p&user_ids=v", 0),
        ("api_key_ids=k", 3),
        ("service_tier=default", 4),
        ("service_tier=flex", 0),
        ("batch=false", 7),
        ("batch=true", 0),
    ],
)
def test_filters_take_whole_values_and_are_never_split_at_commas(chosen: str, sums: int, api: httpx.Client) -> None:
    spend(
        api,
        worth(NOON, 3, user_id="v", api_key_id="k"),
        worth(NOON, 0, user_id="u", project_id="p", service_tier="default", output_tokens=DOLLAR),
    )
    assert dollars(page(api, f"{START}&limit=1&{chosen}")) == [sums]


# start_time, end_time, width and the edges that must follow
GRIDS = [
    (DAY, DAY + 3 * 86_400, "1d", [DAY, DAY + 86_400, DAY + 2 * 86_400, DAY + 3 * 86_400]),
    (NOON + 754, DAY + 86_400 + 61, "1d", [DAY, DAY + 86_400, DAY + 86_400 + 61]),
    (NOON + 59, NOON + 61, "1d", [DAY, NOON + 61]),
    (NOON + 59, NOON + 60, "1m", [NOON, NOON + 60]),
    (NOON + 754, NOON + 7201, "1h", [NOON, NOON + 3600, NOON + 7200, NOON + 7201]),
    (NOON + 754, NOON + 840, "1m", [NOON + 720, NOON + 780, NOON + 840]),
    (NOON + 3599, NOON + 3601, "1h", [NOON, NOON + 3600, NOON + 3601]),
    (0, 86_400, "1d", [0, 86_400]),
]


@pytest.mark.parametrize(("start", "end", "width", "marks"), GRIDS)
def test_the_first_bucket_starts_at_its_edge_and_the_last_ends_at_the_end(
    *, start: int, end: int, width: str, marks: list[int], api: httpx.Client
) -> None:
    body = page(api, f"start_time={start}&end_time={end}&bucket_width={width}")
    assert edges(body) == list(pairwise(marks))
    assert not body["has_more"]


@WIDTHS
def test_the_first_bucket_is_whole(width: str, api: httpx.Client) -> None:
    """It holds what was used before the start that was asked for, but not before its edge."""
    spend(api, worth(DAY - 0.001, 1), worth(DAY, 2), worth(DAY + 30, 4), worth(DAY + 59, 8))
    assert dollars(page(api, f"start_time={DAY + 30}&end_time={DAY + 60}&bucket_width={width}")) == [14]


@WIDTHS
def test_windows_are_half_open(width: str, api: httpx.Client) -> None:
    edge, end = DAY + WIDTHS_S[width], DAY + WIDTHS_S[width] + 1
    times = {DAY - 0.001: 1, DAY: 2, edge - 0.001: 4, edge: 8, end - 0.001: 16, end: 32}
    spend(api, *(worth(when, count) for when, count in times.items()))
    assert dollars(page(api, f"{START}&end_time={end}&bucket_width={width}")) == [6, 24]


def test_without_an_end_the_last_bucket_ends_now(api: httpx.Client) -> None:
    before = int(time.time())
    spend(api, {"kind": "code_interpreter_sessions", "cost": {"value": "0.5", "currency": "usd"}})
    body = page(api, f"start_time={before - 90_061}")
    assert edges(body)[0][0] == (before - 90_061) // 86_400 * 86_400
    assert before < edges(body)[-1][1] <= int(time.time()) + 1
    assert dollars(body)[-1] == Decimal("0.5"), "what was acknowledged is in the next answer"


@WIDTHS
def test_an_end_in_the_future_gives_empty_buckets(width: str, api: httpx.Client) -> None:
    now, step = int(time.time()), WIDTHS_S[width]
    start, end = now // step * step, now // step * step + 4 * step
    spend(api, worth(now - 1 if now - 1 >= start else now, 5))
    body = page(api, f"start_time={start}&end_time={end}&bucket_width={width}")
    assert edges(body) == [(start + n * step, start + (n + 1) * step) for n in range(4)]
    assert [len(bucket["results"]) for bucket in body["data"]] == [1, 0, 0, 0]


@WIDTHS
def test_limits_have_a_default_and_a_maximum(width: str, api: httpx.Client) -> None:
    longest, query = LIMITS_MAX[width], f"{START}&bucket_width={width}"
    end = DAY + (longest + 1) * WIDTHS_S[width]
    assert len(page(api, f"{query}&end_time={end}")["data"]) == LIMITS_DEFAULT[width]
    for limit in (1, longest):
        body = page(api, f"{query}&end_time={end}&limit={limit}")
        assert (len(body["data"]), body["has_more"]) == (limit, True)
    whole = page(api, f"{query}&end_time={end - WIDTHS_S[width]}&limit={longest}")
    assert (len(whole["data"]), whole["has_more"], whole["next_page"]) == (longest, False, None)


class TestPrices:
    """What a model costs, and where that is from."""

    def test_every_entry_tells_all_of_itself(self, api: httpx.Client) -> None:
        body = exactly(api.get(f"{COSTS}/prices", params={"model": MODEL}))
        assert set(body) >= {"object", "book", "data"}
        assert body["object"] == "list"
        assert isinstance(body["book"]["id"], str)
        assert body["book"]["sources"]
        assert all(set(source) >= {"name", "version", "entries"} for source in body["book"]["sources"])
        fields = "object provider model kind counted service_tier batch above_input_tokens size quality context_level"
        fields += " inference_geo hours unit price free from until source checked"
        for entry in body["data"]:
            assert set(entry) == set(fields.split())
            assert entry["object"] == "organization.costs.price"
        standard = {
            entry["counted"]: per_million(entry)
            for entry in body["data"]
            if entry["kind"] == "completions" and entry["service_tier"] in {None, "default"} and not entry["batch"]
        }
        assert {name: standard[name] for name in ("input", "cached_input", "output")} == {
            "input": Decimal("2.5"),
            "cached_input": Decimal("1.25"),
            "output": Decimal(10),
        }

    def test_are_those_of_the_time_asked_for(self, api: httpx.Client) -> None:
        cut = DAY + 8 * 86_400  # 2025-06-10, when o3 became cheaper
        for at, price in ((cut - 1, 10), (cut, 2), (cut + 1, 2)):
            body = exactly(api.get(f"{COSTS}/prices", params={"model": "o3-2025-04-16", "at": at}))
            found = {
                per_million(entry)
                for entry in body["data"]
                if entry["counted"] == "input" and entry["service_tier"] is None and not entry["batch"]
            }
            assert found == {Decimal(price)}, at

    def test_of_a_model_nobody_knows_are_none(self, api: httpx.Client) -> None:
        """But a search costs the same whoever asks for it; stores and sessions are nobody's."""
        body = api.get(f"{COSTS}/prices", params={"model": "riddle-9-preview"}).json()
        assert {entry["kind"] for entry in body["data"]} <= {"web_search_calls"}, body

    def test_without_a_model_are_the_whole_book(self, api: httpx.Client) -> None:
        body = exactly(api.get(f"{COSTS}/prices"))
        known = {entry["model"] for entry in body["data"]}
        assert len(body["data"]) > 100
        assert {entry["kind"] for entry in body["data"]} >= {"images", "code_interpreter_sessions", "vector_stores"}
        assert any("dall-e-3" in (name or "") for name in known)
        assert all(Decimal(entry["price"]) >= 0 for entry in body["data"])


def per_million(entry: dict[str, Any]) -> Decimal:
    return Decimal(entry["price"]) * {"token": 10**6, "1K tokens": 1_000, "1M tokens": 1}[entry["unit"]]


class TestReload:
    def test_says_which_book_is_in_force(self, api: httpx.Client) -> None:
        body = api.post(f"{COSTS}/prices/reload").json()
        assert body["object"] == "organization.costs.prices"
        assert body["changed"] is False
        assert body["book"] == api.get(f"{COSTS}/prices").json()["book"]
