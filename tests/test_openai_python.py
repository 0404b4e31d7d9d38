"""The official Python client, unmodified, gets right answers to all it can ask, and its own exceptions."""

import asyncio
import importlib
import json
import random
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import httpx
import openai
import pytest
from openai.types.admin.organization.admin_api_key import AdminAPIKey
from openai.types.admin.organization.admin_api_key_create_response import AdminAPIKeyCreateResponse

from tests.model import FILTERS, KINDS, TOKENS, Book, Event, Question
from tests.support import Server

DAY = 1_748_822_400  # 2025-06-02T00:00:00Z
DAYS = 4
WINDOW = {"start_time": DAY, "end_time": DAY + DAYS * 86_400}
READ, WRITE, MANAGE = "api.usage.read", "api.usage.write", "api.management"
KIND_NAMES = pytest.mark.parametrize("kind", KINDS)
VALUES: dict[str, list[Any]] = {
    "project_id": ["proj_a", "proj_ü", None],
    "user_id": ["user-1", "user-2", None],
    "api_key_id": ["key_1", "key_2", None],
    "model": ["gpt-4o-2024-08-06", "model, with a comma & an ampersand", None],
    "batch": [True, False, None],
    "service_tier": ["default", "flex", None],
    "api_source": ["agents_api", "unlabeled", "some_other_api", None],
    "size": ["1024x1024", "2048x1152", None],
    "source": ["image.generation", "image.edit", "image.variation", None],
    "vector_store_id": ["vs_1", "vs_2", None],
    "context_level": ["low", "medium", "high", None],
}


def token_parts(rng: random.Random) -> Event:
    """Every part given, the whole their exact sum."""
    text, image, audio, cached_text, cached_audio, cached_image, write_30m, write_12h = (
        rng.randrange(10_000) for _ in range(8)
    )
    output_text, output_audio, output_image = (rng.randrange(10_000) for _ in range(3))
    cached, write = cached_text + cached_audio + cached_image, write_30m + write_12h
    return {
        "input_tokens": text + image + audio + cached + write,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        "input_cache_write_30m_tokens": write_30m,
        "input_cache_write_12h_tokens": write_12h,
        "input_uncached_tokens": text + image + audio,
        "input_text_tokens": text,
        "input_image_tokens": image,
        "input_audio_tokens": audio + cached_audio,
        "input_cached_text_tokens": cached_text,
        "input_cached_audio_tokens": cached_audio,
        "input_cached_image_tokens": cached_image,
        "output_tokens": output_text + output_audio + output_image,
        "output_text_tokens": output_text,
        "output_audio_tokens": output_audio,
        "output_image_tokens": output_image,
    }


def some_events(kind: str, count: int = 60) -> list[Event]:
    """The same events at every run, spread over the window and over every value of every dimension."""
    rng = random.Random(kind)
    events = []
    for number in range(count):
        dimensions = {name: rng.choice(VALUES[name]) for name in KINDS[kind].dimensions}
        if kind == "vector_stores":  # a store stays in its project: what it holds moves with it
            store = rng.randrange(5)
            dimensions = {"vector_store_id": f"vs_{store}", "project_id": VALUES["project_id"][store % 3]}
        measures = token_parts(rng) if "output_tokens" in KINDS[kind].measures else {}
        for name in KINDS[kind].measures:
            if name not in TOKENS or "output_tokens" not in KINDS[kind].measures:
                measures[name] = rng.randrange(2**31)
        given = {name: value for name, value in dimensions.items() if value is not None}
        when = rng.randrange(WINDOW["start_time"] * 1000, WINDOW["end_time"] * 1000) / 1000
        events.append({"kind": kind, "id": f"id-{number}", "timestamp": when, **given, **measures})
    return events


def posted(api: httpx.Client, kind: str) -> Book:
    """What the organization's book must say after its events were posted."""
    events, book = some_events(kind), Book()
    receipt = api.post("/v1/organization/usage/events", json=events).json()
    assert receipt["accepted"] == len(events), receipt
    assert {book.post(event) for event in events} == {"accepted"}
    return book


def groupings(kind: str) -> Iterator[tuple[str, ...]]:
    yield ()
    yield from ((name,) for name in KINDS[kind].dimensions)
    yield KINDS[kind].dimensions


def selections(kind: str) -> Iterator[dict[str, Any]]:
    """Every filter with one value, with two, with one that nothing has; then all of them at once."""
    together: dict[str, Any] = {}
    for name in KINDS[kind].filters:
        values = [value for value in VALUES[FILTERS[name]] if value is not None]
        many: list[Any] = values if name == "batch" else [values[:1], values[1:]]
        if name not in {"batch", "sources", "context_levels"}:
            many.append(["nothing has this"])
        yield from ({name: choice} for choice in many)
        together[name] = True if name == "batch" else values
    yield together


def expected(
    book: Book, kind: str, *, width: str = "1d", group_by: tuple[str, ...] = (), **chosen: Any
) -> list[dict[str, Any]]:
    filters = {name: [value] if name == "batch" else value for name, value in chosen.items()}
    question = Question(kind, WINDOW["start_time"], WINDOW["end_time"], width, group_by, filters)
    return ordered(book.answer(question, now_s=WINDOW["end_time"]))


def ordered(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The buckets as they are, their rows (which have no promised order) sorted."""

    def rows(bucket: dict[str, Any], name: str) -> list[Any]:
        return sorted(bucket[name], key=lambda row: json.dumps(row, sort_keys=True))

    return [bucket | {name: rows(bucket, name) for name in ("results", "result")} for bucket in data]


def package(kind: str, what: Literal["params", "response"]) -> Any:
    """The client package's own type of a kind's question or answer."""
    module = importlib.import_module(f"openai.types.admin.organization.usage_{kind}_{what}")
    return getattr(module, f"Usage{kind.title().replace('_', '')}{what.title()}")


def result_model(kind: str) -> Any:
    """The member of the package's union of results that a kind's results must become."""
    module = importlib.import_module(package(kind, "response").__module__)
    name = f"organization.usage.{KINDS[kind].object}.result"
    fields = [(model, model.model_fields) for model in vars(module).values() if hasattr(model, "model_fields")]
    return next(model for model, by in fields if "object" in by and [*literals(by["object"].annotation)] == [name])


def literals(hint: Any) -> Iterator[str]:
    """The values of every Literal inside a type."""
    for inner in get_args(hint):
        if get_origin(hint) is Literal:
            yield inner
        else:
            yield from literals(inner)


def strictly(kind: str, body: str) -> dict[str, Any]:
    """The page as sent, after the client's own types have accepted it without any coercion."""
    parsed = package(kind, "response").model_validate_json(body, strict=True)
    for result in (result for bucket in parsed.data for result in bucket.results):
        assert type(result) is result_model(kind), "the wrong member of the union"
    page: dict[str, Any] = json.loads(body)
    return page


def ask(client: openai.OpenAI, kind: str, **query: Any) -> dict[str, Any]:
    usage = client.admin.organization.usage
    answer = getattr(usage.with_raw_response, kind)(**{**WINDOW, "limit": 31, **query})
    assert type(answer.parse()) is package(kind, "response")
    return strictly(kind, answer.http_response.text)


def client_of(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", admin_api_key=key, max_retries=0)


@pytest.fixture
def client(server: Server, organization: str) -> Iterator[openai.OpenAI]:
    with client_of(server, server.key(organization)) as client:
        yield client


@KIND_NAMES
def test_kinds_are_those_of_the_client(kind: str) -> None:
    """The table these tests rest on has exactly the parameters, dimensions and measures of the package."""
    hints = get_type_hints(package(kind, "params"))
    common = {"start_time", "end_time", "bucket_width", "group_by", "limit", "page"}
    assert set(hints) - common == set(KINDS[kind].filters)
    assert set(literals(hints["group_by"])) == set(KINDS[kind].dimensions)
    fields = {"object", *KINDS[kind].dimensions, *KINDS[kind].measures}
    assert set(result_model(kind).model_fields) == fields


@KIND_NAMES
def test_every_grouping_adds_up_to_what_was_posted(kind: str, api: httpx.Client, client: openai.OpenAI) -> None:
    book = posted(api, kind)
    for group_by in groupings(kind):
        page = ask(client, kind, group_by=list(group_by)) if group_by else ask(client, kind)
        assert ordered(page["data"]) == expected(book, kind, group_by=group_by), group_by
        assert (page["object"], page["has_more"], page["next_page"]) == ("page", False, None)


@KIND_NAMES
def test_every_filter_selects_exactly_its_own(kind: str, api: httpx.Client, client: openai.OpenAI) -> None:
    book = posted(api, kind)
    every = KINDS[kind].dimensions
    for chosen in selections(kind):
        page = ask(client, kind, group_by=list(every), **chosen)
        assert ordered(page["data"]) == expected(book, kind, group_by=every, **chosen), chosen


@KIND_NAMES
def test_pages_put_together_are_the_one_big_page(kind: str, api: httpx.Client, client: openai.OpenAI) -> None:
    book = posted(api, kind)
    for width, limit in (("1d", 1), ("1d", 3), ("1h", 17)):
        query = {"bucket_width": width, "group_by": ["project_id"]}
        data, cursor = [], None
        for _ in range(200):
            page = ask(client, kind, limit=limit, **query, **({"page": cursor} if cursor else {}))
            assert len(page["data"]) <= limit
            data += page["data"]
            cursor = page["next_page"]
            assert page["has_more"] is (cursor is not None)
            if cursor is None:
                break
        whole = ask(client, kind, limit=31 if width == "1d" else 168, **query)
        assert data == whole["data"]
        assert ordered(data) == expected(book, kind, width=width, group_by=("project_id",))


def test_the_asynchronous_client_gets_the_same_answers(server: Server, organization: str, api: httpx.Client) -> None:
    books = {kind: posted(api, kind) for kind in KINDS}
    questions = [(kind, group_by) for kind in KINDS for group_by in groupings(kind)]

    async def answers() -> list[Any]:
        key, url = server.key(organization), f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, admin_api_key=key, max_retries=0) as client:
            usage = client.admin.organization.usage.with_raw_response
            return await asyncio.gather(
                *(getattr(usage, kind)(**WINDOW, limit=31, group_by=list(names)) for kind, names in questions)
            )

    for (kind, group_by), answer in zip(questions, asyncio.run(answers()), strict=True):
        page = strictly(kind, answer.http_response.text)
        assert ordered(page["data"]) == expected(books[kind], kind, group_by=group_by), (kind, group_by)


def test_parsed_answers_carry_the_measures(api: httpx.Client, client: openai.OpenAI) -> None:
    """What a program reads: attributes of the right class, not merely a body that parses."""
    posted(api, "web_search_calls")
    answer = client.admin.organization.usage.web_search_calls(start_time=DAY, group_by=["context_level"], limit=DAYS)
    results = [result for bucket in answer.data for result in bucket.results]
    assert results
    for result in results:
        assert result.object == "organization.usage.web_searches.result"
        assert result.context_level in {"low", "medium", "high", None}
        assert result.num_requests > 0


@pytest.mark.parametrize(
    ("error", "scopes", "path", "expected"),
    [
        (openai.AuthenticationError, None, "usage/completions", {"code": "invalid_api_key"}),
        (openai.PermissionDeniedError, [WRITE], "usage/completions", {"type": "invalid_request_error"}),
        (
            openai.BadRequestError,
            [READ],
            "usage/completions",
            {"param": "limit", "code": "integer_above_max_value"},
        ),
        (openai.NotFoundError, [READ], "usage/nonsense", {"type": "invalid_request_error"}),
    ],
)
def test_errors_are_the_clients_own_exceptions(
    *,
    error: type[openai.APIStatusError],
    scopes: list[str] | None,
    path: str,
    expected: dict[str, str],
    server: Server,
    organization: str,
) -> None:
    key = server.key(organization, scopes) if scopes else "sk-admin-nobody"
    with client_of(server, key) as client, pytest.raises(error) as caught:
        client.get(f"/organization/{path}", cast_to=object, options={"params": {"start_time": DAY, "limit": 32}})
    assert {name: getattr(caught.value, name) for name in expected} == expected
    assert caught.value.request_id
    assert caught.value.message


def test_keys_are_created_listed_retrieved_and_deleted(client: openai.OpenAI) -> None:
    keys = client.admin.organization.admin_api_keys
    answer = keys.with_raw_response.create(name="laptop", expires_in_seconds=3600).http_response.text
    created = AdminAPIKeyCreateResponse.model_validate_json(answer, strict=True)
    assert created.name == "laptop"
    assert created.expires_at == created.created_at + 3600
    later = keys.create(name="later")
    assert later.expires_at is None

    body = keys.with_raw_response.retrieve(created.id).http_response.text
    retrieved = AdminAPIKey.model_validate_json(body, strict=True)
    assert retrieved.to_dict() == {name: value for name, value in created.to_dict().items() if name != "value"}

    listed = [key.id for key in keys.list(limit=1, order="asc")]  # walks every page
    assert len(listed) == len(set(listed))
    assert [key for key in listed if key in {created.id, later.id}] == [created.id, later.id]
    assert [key.id for key in keys.list(order="desc", limit=1)] == listed[::-1]

    deleted = keys.delete(created.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (
        created.id,
        True,
        "organization.admin_api_key.deleted",
    )
    with pytest.raises(openai.NotFoundError):
        keys.retrieve(created.id)


def test_a_created_key_works_until_it_is_deleted(server: Server, client: openai.OpenAI) -> None:
    created = client.admin.organization.admin_api_keys.create(name="short-lived")
    with client_of(server, created.value) as other:
        other.admin.organization.usage.completions(start_time=DAY)
        client.admin.organization.admin_api_keys.delete(created.id)
        with pytest.raises(openai.AuthenticationError):
            other.admin.organization.usage.completions(start_time=DAY)
