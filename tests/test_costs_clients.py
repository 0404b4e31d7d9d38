"""The official clients, unmodified, get the right costs, typed as they expect them."""

import asyncio
import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
from openai.types.admin.organization.usage_costs_params import UsageCostsParams
from openai.types.admin.organization.usage_costs_response import UsageCostsResponse

from tests.costs_model import DIMENSIONS, FILTERS, GROUP_BY, Bucket, CostBook, CostQuestion
from tests.model import KINDS
from tests.support import Server
from tests.test_costs_exactness import assert_same_costs, bucket_of, send
from tests.test_openai_node import Ask, ask, packages  # noqa: F401  fixtures
from tests.test_openai_python import DAY, DAYS, VALUES, client_of, literals, some_events

# "model,*" is the model of the tests whose name has a comma, an ampersand and spaces.
PRICES = """\
model,kind,counted,service_tier,batch,above_input_tokens,unit,price,free
gpt-4o-2024-08-06,,input,,,,1M tokens,2.50,
gpt-4o-2024-08-06,,input,,,50000,1M tokens,5.00,
gpt-4o-2024-08-06,,input,flex,,,1M tokens,1.25,
gpt-4o-2024-08-06,,cached_input,,,,1M tokens,1.25,
gpt-4o-2024-08-06,,cached_input,,true,,1M tokens,0.625,
gpt-4o-2024-08-06,,audio_input,,,,1M tokens,40,
gpt-4o-2024-08-06,,cache_write_12h,,,,1M tokens,4,
gpt-4o-2024-08-06,,output,,,,1M tokens,10.00,
"model,*",,input,,,,1K tokens,0.0003,
"model,*",,output,,,,1K tokens,0.0007,
"model,*",completions,requests,,,,request,0.001,
gpt-4o-2024-08-06,,images,,,,image,0.04,
gpt-4o-2024-08-06,,characters,,,,1M characters,15,
gpt-4o-2024-08-06,,seconds,,,,minute,0.007,
,code_interpreter_sessions,sessions,,,,session,0.03,
,file_search_calls,searches,,,,1K calls,2.5,
,web_search_calls,searches,,,,1K calls,10,
,vector_stores,storage,,,,GiB-day,0.10,1
"""
OURS = ("model", "service_tier", "batch")  # group-bys that the client's types do not know, and lets through
THEIRS = tuple(name for name in GROUP_BY if name not in OURS)
QUESTION = CostQuestion(DAY, DAY + DAYS * 86_400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("clients")
    (directory / "prices.csv").write_text(PRICES)
    args = ["--price-file", str(directory / "prices.csv"), "--no-list-prices"]
    running = Server.start(directory / "data", args=args)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def book(server: Server) -> CostBook:
    """What the organization of these tests has used: some of every kind, some of it with a cost of its own."""
    book = CostBook(PRICES)
    with server.http(server.key(ORGANIZATION)) as api:
        for kind in KINDS:
            events = some_events(kind, 40)
            for event in events[::9]:
                event["cost"] = {"value": Decimal("0.123456789012345678"), "currency": "usd"}
            receipt = send(api, events).json()
            assert receipt["accepted"] == len(events), receipt
            assert {book.post(event) for event in events} == {"accepted"}
    return book


ORGANIZATION = "org-of-the-clients"


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server, server.key(ORGANIZATION)) as client:
        yield client


def groupings() -> Iterator[tuple[str, ...]]:
    yield ()
    yield from ((name,) for name in GROUP_BY)
    yield THEIRS
    yield GROUP_BY


def selections(book: CostBook) -> Iterator[dict[str, list[Any]]]:
    """Every filter with one value, with two, with one that nothing has; then all of them at once."""
    together: dict[str, list[Any]] = {}
    items = sorted({charge.line_item for charge in book.charges if "input" in charge.line_item})
    for name, dimension in FILTERS.items():
        if name == "batch":
            values: list[Any] = [True, False]
        else:
            values = items[:3] if name == "line_items" else [value for value in VALUES[dimension] if value]
        yield {name: values[:1]}
        yield {name: values[1:]}
        if name != "batch":
            yield {name: ["nothing has this"]}
            together[name] = values
    yield together


def asked(question: CostQuestion) -> dict[str, Any]:
    """The arguments for the client's method; what it has no name for goes beside."""
    known = set(UsageCostsParams.__annotations__)
    query: dict[str, Any] = {"start_time": question.start, "end_time": question.end, "bucket_width": question.width}
    if question.group_by:
        query["group_by"] = list(question.group_by)
    beside: dict[str, Any] = {}
    for name, values in question.filters.items():
        (query if name in known else beside)[name] = values[0] if name == "batch" else list(values)
    return query | ({"extra_query": beside} if beside else {})


def strictly(body: str) -> dict[str, Any]:
    """The page as sent, after the client's own types have accepted it without any coercion."""
    parsed = UsageCostsResponse.model_validate_json(body, strict=True)
    module = importlib.import_module(UsageCostsResponse.__module__)
    for result in (result for bucket in parsed.data for result in bucket.results):
        assert type(result) is module.DataResultOrganizationCostsResult, "the wrong member of the union"
    page: dict[str, Any] = json.loads(body, parse_float=Decimal)
    return page


def buckets_of(pages: Sequence[dict[str, Any]], question: CostQuestion) -> list[Bucket]:
    return [bucket_of(bucket, question.group_by) for page in pages for bucket in page["data"]]


def expected(book: CostBook, question: CostQuestion) -> list[Bucket]:
    return book.answer(question, now_s=question.end)


def get(client: openai.OpenAI, question: CostQuestion, **more: Any) -> dict[str, Any]:
    answer = client.admin.organization.usage.with_raw_response.costs(**{"limit": 31, **asked(question), **more})
    assert type(answer.parse()) is UsageCostsResponse
    return strictly(answer.http_response.text)


def test_the_question_has_what_the_client_can_ask() -> None:
    hints = UsageCostsParams.__annotations__
    common = {"start_time", "end_time", "bucket_width", "group_by", "limit", "page"}
    assert set(hints) - common <= set(FILTERS)
    fields = importlib.import_module(UsageCostsResponse.__module__).DataResultOrganizationCostsResult.model_fields
    assert set(fields) - {"object", "amount", "quantity", "quantity_unit"} == set(THEIRS)
    assert set(literals(fields["api_source"].annotation)) == {"agents_api", "unlabeled"}


@pytest.mark.parametrize("group_by", [*groupings()], ids=lambda names: "+".join(names) or "none")
def test_every_grouping_is_right(group_by: tuple[str, ...], book: CostBook, client: openai.OpenAI) -> None:
    question = replace(QUESTION, group_by=group_by)
    page = get(client, question)
    assert_same_costs(question, buckets_of([page], question), expected(book, question))
    assert (page["object"], page["has_more"], page["next_page"]) == ("page", False, None)


def test_every_filter_selects_exactly_its_own(book: CostBook, client: openai.OpenAI) -> None:
    for filters in selections(book):
        question = replace(QUESTION, group_by=GROUP_BY, filters=filters)
        assert_same_costs(question, buckets_of([get(client, question)], question), expected(book, question))


@pytest.mark.parametrize(("width", "limit"), [("1d", 1), ("1d", 3), ("1h", 17)])
def test_pages_put_together_are_the_one_big_page(width: str, limit: int, book: CostBook, client: openai.OpenAI) -> None:
    question = replace(QUESTION, width=width, group_by=("line_item", "project_id"))
    pages = [get(client, question, limit=limit)]
    for _ in range(200):
        if pages[-1]["next_page"] is None:
            break
        pages.append(get(client, question, limit=limit, page=pages[-1]["next_page"]))
    assert all(len(page["data"]) == limit for page in pages[:-1])
    assert_same_costs(question, buckets_of(pages, question), expected(book, question))


def test_parsed_answers_carry_the_amounts(book: CostBook, client: openai.OpenAI) -> None:
    """What a program reads: attributes of the right class, not merely a body that parses."""
    answer = client.admin.organization.usage.costs(start_time=DAY, limit=DAYS, group_by=["line_item", "user_id"])
    results: list[Any] = [result for bucket in answer.data for result in bucket.results]
    assert results
    for result in results:
        assert result.object == "organization.costs.result"
        assert result.amount.currency == "usd"
        assert isinstance(result.amount.value, float | int)
        assert result.line_item
    cached = [result for result in results if result.line_item == "gpt-4o-2024-08-06, cached input"]
    assert cached
    assert {result.quantity_unit for result in cached} == {"tokens"}
    for result in cached:
        assert result.quantity * 0.5e-6 < result.amount.value < result.quantity * 1.5e-6


def test_the_asynchronous_client_gets_the_same_answers(server: Server, book: CostBook) -> None:
    questions = [replace(QUESTION, group_by=group_by) for group_by in groupings()]

    async def answers() -> list[Any]:
        key, url = server.key(ORGANIZATION), f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, admin_api_key=key, max_retries=0) as client:
            usage = client.admin.organization.usage.with_raw_response
            return await asyncio.gather(*(usage.costs(**asked(question), limit=31) for question in questions))

    for question, answer in zip(questions, asyncio.run(answers()), strict=True):
        page = strictly(answer.http_response.text)
        assert_same_costs(question, buckets_of([page], question), expected(book, question))


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI, server: Server) -> None:
    costs = client.admin.organization.usage.costs
    wrong: Any = ["colour"]
    with pytest.raises(openai.BadRequestError) as caught:
        costs(start_time=DAY, limit=181)
    assert (caught.value.param, caught.value.code) == ("limit", "integer_above_max_value")
    with pytest.raises(openai.BadRequestError) as caught:
        costs(start_time=DAY, group_by=wrong)
    assert caught.value.param == "group_by"
    with (
        client_of(server, server.key(ORGANIZATION, ["api.usage.write"])) as other,
        pytest.raises(openai.PermissionDeniedError),
    ):
        other.admin.organization.usage.costs(start_time=DAY)


# ---------------------------------------------------------------------------------------------------- Node


def test_the_npm_client_gets_the_same_answers(book: CostBook, server: Server, ask: Ask) -> None:  # noqa: F811
    questions = [replace(QUESTION, group_by=group_by) for group_by in groupings()]
    questions += [
        replace(QUESTION, group_by=DIMENSIONS, filters=filters)
        for filters in selections(book)
        if "batch" not in filters
    ]
    paged = replace(QUESTION, width="1h", group_by=("line_item", "project_id"))
    calls = [["usage.costs", {**asked_in_node(question), "limit": 31}] for question in questions]
    calls.append(["usage.costs", {**asked_in_node(paged), "limit": 7}])
    *answers, pages = ask(server.key(ORGANIZATION), *calls)
    for question, answer in zip(questions, answers, strict=True):
        assert in_doubles(answer["answer"]) == in_doubles_of(expected(book, question)), question
    assert len(pages["answer"]) == 14, "96 hours by 7"
    assert in_doubles(pages["answer"]) == in_doubles_of(expected(book, paged))


def asked_in_node(question: CostQuestion) -> dict[str, Any]:
    query = asked(question)
    beside: dict[str, Any] = query.pop("extra_query", {})
    return query | beside


Doubles = list[tuple[int, int, list[tuple[str, float, float | None, str | None]]]]


def in_doubles(pages: Sequence[dict[str, Any]]) -> Doubles:
    """What JavaScript reads: the double nearest to each amount."""
    return [
        (
            bucket["start_time"],
            bucket["end_time"],
            sorted(
                (
                    json.dumps([row[name] for name in GROUP_BY]),
                    float(row["amount"]["value"]),
                    None if row["quantity"] is None else round(float(row["quantity"]), 6),
                    row["quantity_unit"],
                )
                for row in bucket["results"]
            ),
        )
        for page in pages
        for bucket in page["data"]
    ]


def in_doubles_of(data: Sequence[Bucket]) -> Doubles:
    return [
        (
            low,
            high,
            sorted(
                (
                    json.dumps([value for _, value in key]),
                    float(Decimal(atto).scaleb(-18)),
                    None if quantity is None else round(float(quantity), 6),
                    unit,
                )
                for key, atto, quantity, unit in results
            ),
        )
        for low, high, results in data
    ]


def test_the_npm_clients_errors_are_its_own(server: Server, ask: Ask, organization: str) -> None:  # noqa: F811
    (got,) = ask(server.key(organization), ["usage.costs", {"start_time": DAY, "limit": 181}])
    error = got["error"]
    assert (error["class"], error["status"], error["param"]) == ("BadRequestError", 400, "limit")


def test_a_program_written_for_bodies_reads_them(book: CostBook, server: Server) -> None:
    """Tools that use no client: a plain GET, the list under either name."""
    with server.http(server.key(ORGANIZATION)) as api:
        answer: httpx.Response = api.get("/v1/organization/costs", params={"start_time": DAY, "limit": DAYS})
    for bucket in answer.raise_for_status().json()["data"]:
        assert bucket["results"] == bucket["result"]
        assert all(isinstance(row["amount"]["value"], float | int) for row in bucket["results"])
