"""The official clients, tracked: what a provider answered is what the Usage API tells, and calls go as ever."""

import asyncio
import base64
import gc
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from pydantic import BaseModel

from tallybook.client import Tallybook, attribute
from tests.scripted import Reply, Scripted, events, packed, scripted
from tests.support import Server

SECRET = "nobody is to know this"
NOW = int(time.time()) - 60
_numbers = itertools.count()

CHAT_USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 310,
    "total_tokens": 1510,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 50},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 20},
}
CHAT_MEASURES = {
    "input_tokens": 1200,
    "input_cached_tokens": 1024,
    "input_uncached_tokens": 176,
    "input_audio_tokens": 50,
    "output_tokens": 310,
    "output_audio_tokens": 20,
    "num_model_requests": 1,
}
EMBEDDING_USAGE = {"prompt_tokens": 8, "total_tokens": 8}


@pytest.fixture
def provider() -> Iterator[Scripted]:
    with scripted() as running:
        yield running


@pytest.fixture
def tallybook(server: Server, organization: str) -> Iterator[Tallybook]:
    with Tallybook(server.url, server.key(organization)) as made:
        yield made
        assert made.stats().rejected == made.stats().dropped == 0


@pytest.fixture
def client(provider: Scripted, tallybook: Tallybook) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model", max_retries=2) as made:
        yield tallybook.track(made)


def new(**fields: Any) -> dict[str, Any]:
    """An answer of its own."""
    return {"id": f"answer-{next(_numbers)}", "created": NOW, "model": "gpt-4o-2024-08-06", **fields}


def chat(**fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": SECRET, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return new(object="chat.completion", choices=[choice], usage=CHAT_USAGE, service_tier="flex", **fields)


def chunks(asked: Any, usage: dict[str, Any] = CHAT_USAGE) -> list[dict[str, Any]]:
    """A streamed chat as OpenAI sends it: with usage at its end if that was asked for."""
    is_told = (asked.body.get("stream_options") or {}).get("include_usage")
    more = {"usage": None} if is_told else {}
    first = new(object="chat.completion.chunk", service_tier="default", **more)
    deltas = [
        {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        for text in ("Größe ", "of ", '"usage": {"x": 1}', SECRET)
    ]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    told = [first | {"choices": [], "usage": usage}] if is_told else []
    return [*(first | {"choices": [delta]} for delta in (*deltas, end)), *told]


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"resp_{next(_numbers)}",
        "object": "response",
        "created_at": NOW,
        "status": status,
        "model": "gpt-5-2025-08-07",
        "service_tier": "default",
        "output": [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": SECRET, "annotations": []}],
            },
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": SECRET},
            },
            {
                "type": "web_search_call",
                "id": "ws_2",
                "status": "completed",
                "action": {"type": "open_page", "url": "x"},
            },
            {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": [SECRET], "results": None},
            {
                "type": "code_interpreter_call",
                "id": "ci_1",
                "status": "completed",
                "container_id": f"cntr_{next(_numbers)}",
                "code": SECRET,
                "outputs": None,
            },
            {
                "type": "image_generation_call",
                "id": f"ig_{next(_numbers)}",
                "status": "completed",
                "result": SECRET,
                "size": "1024x1024",
                "quality": "high",
            },
        ],
        "tools": [
            {"type": "web_search", "search_context_size": "high"},
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
            {"type": "image_generation", "model": "gpt-image-1"},
            {"type": "function", "name": SECRET, "parameters": {}, "strict": True},
        ],
        "usage": {
            "input_tokens": 500,
            "input_tokens_details": {"cached_tokens": 100},
            "output_tokens": 70,
            "output_tokens_details": {"reasoning_tokens": 60},
            "total_tokens": 570,
        },
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "metadata": {},
        **fields,
    }


RESPONSE_TOLD = {
    "completions": {"input_tokens": 500, "input_cached_tokens": 100, "output_tokens": 70, "num_model_requests": 1},
    "web_search_calls": {"num_requests": 1},
    "file_search_calls": {"num_requests": 1},
    "code_interpreter_sessions": {"num_sessions": 1},
    "images": {"images": 1},
}


def told(api: httpx.Client, kind: str, *groups: str) -> list[dict[str, Any]]:
    """All results of a kind, without what is zero or null."""
    parameters: dict[str, Any] = {"start_time": NOW - 7200, "group_by": groups, "limit": 2}
    page = api.get(f"/v1/organization/usage/{kind}", params=parameters).raise_for_status().json()
    results = [result for bucket in page["data"] for result in bucket["results"]]
    return [{name: value for name, value in result.items() if value} for result in results]


def only(api: httpx.Client, kind: str, *groups: str) -> dict[str, Any]:
    (result,) = told(api, kind, *groups)
    return result


def has(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: result.get(name) for name in expected} == expected


def delivered(tallybook: Tallybook) -> int:
    assert tallybook.flush()
    return tallybook.stats().delivered


class TestOpenAI:
    def test_a_chat_is_told_field_by_field(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", Reply(chat()))
        answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": SECRET}])
        assert answer.choices[0].message.content == SECRET
        assert delivered(tallybook) == 1
        result = only(api, "completions", "model", "service_tier")
        has(result, CHAT_MEASURES | {"model": "gpt-4o-2024-08-06", "service_tier": "flex"})

    def test_the_client_stays_what_it_was(self, client: openai.OpenAI, provider: Scripted) -> None:
        assert isinstance(client, openai.OpenAI)
        assert (type(client).__name__, type(client).__module__) == ("OpenAI", "openai")
        provider.on("/chat/completions", Reply(chat()))
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert provider.asked[0].headers["user-agent"].startswith("OpenAI/Python")

    def test_a_parsed_chat_is_recorded(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        class Shape(BaseModel):
            x: int

        answer = chat()
        answer["choices"][0]["message"]["content"] = '{"x": 1}'
        provider.on("/chat/completions", Reply(answer))
        parsed = client.chat.completions.parse(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}], response_format=Shape
        )
        assert parsed.choices[0].message.parsed == Shape(x=1)
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    def test_an_answer_that_fails_to_parse_was_paid_for_all_the_same(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        class Shape(BaseModel):
            x: int

        answer = chat()
        answer["choices"][0]["finish_reason"] = "length"
        provider.on("/chat/completions", Reply(answer))
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(
                model="gpt-4o", messages=[{"role": "user", "content": "x"}], response_format=Shape
            )
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    @pytest.mark.parametrize("is_packed", [False, True])
    @pytest.mark.parametrize("is_asked", [False, True])
    def test_a_streamed_chat_is_recorded_and_its_caller_sees_what_it_asked_for(
        self,
        provider: Scripted,
        client: openai.OpenAI,
        tallybook: Tallybook,
        api: httpx.Client,
        is_asked: bool,
        is_packed: bool,
    ) -> None:
        provider.on("/chat/completions", lambda asked: (packed if is_packed else Reply._make)(events(*chunks(asked))))
        options: Any = {"stream_options": {"include_usage": True}} if is_asked else {}
        with client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": SECRET}], stream=True, **options
        ) as stream:
            seen = list(stream)
        assert len(seen) == 5 + is_asked
        assert all(chunk.choices for chunk in seen) is not is_asked
        assert [chunk.usage.prompt_tokens for chunk in seen if chunk.usage] == [1200] * is_asked
        assert "".join(chunk.choices[0].delta.content or "" for chunk in seen[:5]).endswith(SECRET)
        assert delivered(tallybook) == 1
        has(only(api, "completions", "service_tier"), CHAT_MEASURES | {"service_tier": "default"})

    def test_the_helper_that_puts_a_stream_together_works_as_ever(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
        with client.chat.completions.stream(model="gpt-4o", messages=[{"role": "user", "content": "x"}]) as stream:
            kinds = {event.type for event in stream}
            whole = stream.get_final_completion()
        assert "content.done" in kinds
        assert whole.choices[0].message.content.endswith(SECRET)  # type: ignore[union-attr]
        assert whole.usage is None
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    def test_a_stream_arrives_piece_by_piece(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked))._replace(pause_s=0.1))
        began = time.monotonic()
        stream = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(stream)
        assert time.monotonic() - began < 0.35  # the whole takes 0.7 s
        assert len(list(stream)) == 4
        assert delivered(tallybook) == 1

    def test_a_server_that_knows_no_stream_options_is_asked_without(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        def answer(asked: Any) -> Reply:
            if "stream_options" in asked.body:
                return Reply({"error": {"message": "Unrecognized request argument supplied: stream_options"}}, 400)
            return events(*chunks(asked))

        provider.on("/chat/completions", answer)
        for calls in (2, 3):  # from the second call on it is known
            stream = client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
            )
            assert len(list(stream)) == 5
            assert len(provider.asked) == calls
        assert tallybook.stats().unmeasured == 2
        assert tallybook.stats().recorded == 0

    def test_whoever_says_no_is_not_asked_for_usage(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
        list(
            client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "x"}],
                stream=True,
                stream_options={"include_usage": False},
            )
        )
        assert provider.asked[0].body["stream_options"] == {"include_usage": False}
        assert tallybook.stats().unmeasured == 1

    def test_asking_for_usage_can_be_switched_off(self, provider: Scripted, tallybook: Tallybook) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
        client = tallybook.track(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model"), asks_for_usage=False)
        list(client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True))
        assert "stream_options" not in provider.asked[0].body
        assert tallybook.stats().unmeasured == 1

    def test_a_stream_left_early_is_counted_as_unmeasured(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked))._replace(pause_s=0.05))
        messages: Any = [{"role": "user", "content": "x"}]
        with client.chat.completions.create(model="gpt-4o", messages=messages, stream=True) as stream:
            next(stream)
        assert tallybook.stats().unmeasured == 1
        dropped = client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
        next(dropped)
        del dropped
        gc.collect()
        assert tallybook.stats().unmeasured == 2

    def test_a_stream_that_breaks_off_raises_what_it_did(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked)[:2], done=False)._replace(is_cut=True))
        with pytest.raises(openai.APIConnectionError):
            list(
                client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True)
            )
        assert tallybook.stats().unmeasured == 1

    def test_the_raw_bytes_of_a_stream_can_be_read(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
        with client.chat.completions.with_streaming_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
        ) as raw:
            lines = [line for line in raw.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert len(lines) == 6
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    @pytest.mark.parametrize("read", ["parse", "json", "read", "iter_bytes"])
    def test_answers_read_as_they_come_are_recorded_however_they_are_read(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client, read: str
    ) -> None:
        provider.on("/chat/completions", packed(Reply(chat())))
        with client.chat.completions.with_streaming_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}]
        ) as raw:
            found = getattr(raw, read)()
            assert SECRET in (b"".join(found).decode() if read == "iter_bytes" else str(found))
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    @pytest.mark.parametrize("is_parsed", [False, True])
    def test_raw_answers_are_recorded_once(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client, is_parsed: bool
    ) -> None:
        provider.on("/chat/completions", Reply(chat(), headers={"x-request-id": "req_1"}))
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}]
        )
        assert raw.request_id == "req_1"
        if is_parsed:
            assert raw.parse().usage.total_tokens == 1510  # type: ignore[union-attr]
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    def test_a_failed_attempt_is_not_billed(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        again = {"retry-after-ms": "1"}
        provider.on(
            "/chat/completions",
            [
                Reply({"error": {"message": "later"}, "usage": CHAT_USAGE}, 500, again),
                Reply({"error": {"message": "later"}}, 429, again),
                Reply(chat()),
            ],
        )
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        assert len(provider.asked) == 3
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    def test_a_call_that_fails_fails_as_it_did(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/chat/completions", Reply({"error": {"message": "no such model", "code": "x"}}, 404))
        with pytest.raises(openai.NotFoundError) as error:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True)
        assert error.value.code == "x"
        assert len(provider.asked) == 1
        assert tallybook.stats().recorded == tallybook.stats().unmeasured == 0

    def test_copies_with_other_options_are_tracked(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", lambda _: Reply(chat()))
        messages: Any = [{"role": "user", "content": "x"}]
        client.with_options(timeout=5).chat.completions.create(model="gpt-4o", messages=messages)
        with httpx2.Client() as other:
            client.copy(http_client=other).chat.completions.create(model="gpt-4o", messages=messages)
        assert delivered(tallybook) == 2
        assert only(api, "completions")["num_model_requests"] == 2

    def test_tracking_twice_is_tracking_once(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, server: Server
    ) -> None:
        provider.on("/chat/completions", Reply(chat()))
        assert tallybook.track(client) is client
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        assert delivered(tallybook) == 1
        with Tallybook(server.url, "sk-admin-x") as other, pytest.raises(ValueError, match="another Tallybook"):
            other.track(client)

    def test_what_is_no_client_is_refused_at_once(self, tallybook: Tallybook) -> None:
        with pytest.raises(TypeError, match=r"httpx\.Client is not a client of OpenAI"):
            tallybook.track(httpx.Client())

    def test_a_response_and_all_its_tools_are_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/responses", Reply(response()))
        assert client.responses.create(model="gpt-5", input=SECRET).output_text == SECRET
        assert delivered(tallybook) == 1
        for kind, expected in RESPONSE_TOLD.items():
            has(only(api, kind), expected)
        assert only(api, "web_search_calls", "context_level")["context_level"] == "high"
        assert only(api, "file_search_calls", "vector_store_id")["vector_store_id"] == "vs_1"
        has(only(api, "images", "model", "size"), {"model": "gpt-image-1", "size": "1024x1024"})

    @pytest.mark.parametrize("is_raw", [False, True])
    def test_a_streamed_response_is_told_the_same(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client, is_raw: bool
    ) -> None:
        whole = response()
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        delta = {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0}
        provider.on(
            "/responses",
            events(
                {"type": "response.created", "sequence_number": 0, "response": begun},
                {**delta, "sequence_number": 1, "delta": SECRET, "logprobs": []},
                {"type": "response.completed", "sequence_number": 2, "response": whole},
                names=True,
                done=False,
            ),
        )
        if is_raw:
            stream: Any = client.responses.with_raw_response.create(model="gpt-5", input="x", stream=True).parse()
        else:
            stream = client.responses.create(model="gpt-5", input="x", stream=True)
        assert [event.type for event in stream] == [
            "response.created",
            "response.output_text.delta",
            "response.completed",
        ]
        assert delivered(tallybook) == 1
        for kind, expected in RESPONSE_TOLD.items():
            has(only(api, kind), expected)

    def test_an_answer_made_in_the_background_is_told_to_its_caller_once(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        whole = response()
        provider.on("/responses", Reply({**whole, "status": "queued", "usage": None, "output": []}))
        provider.on(
            f"/responses/{whole['id']}",
            [Reply({**whole, "status": "in_progress", "usage": None, "output": []}), Reply(whole)],
        )
        with attribute(user_id="the-caller"):
            begun = client.responses.create(model="gpt-5", input="x", background=True)
        for status in ("in_progress", "completed", "completed"):
            assert client.responses.retrieve(begun.id).status == status
        assert delivered(tallybook) == 1
        has(only(api, "completions", "user_id"), RESPONSE_TOLD["completions"] | {"user_id": "the-caller"})

    def test_an_answer_made_in_the_background_is_told_though_its_stream_was_left(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        whole = response()
        begun = {**whole, "status": "queued", "output": [], "usage": None}
        delta = {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0}
        provider.on(
            "/responses",
            events(
                {"type": "response.created", "sequence_number": 0, "response": begun},
                *({**delta, "sequence_number": number, "delta": SECRET, "logprobs": []} for number in range(1, 20)),
                names=True,
                done=False,
            ),
        )
        provider.on(f"/responses/{whole['id']}", Reply(whole))
        for is_background in (False, True):  # what is not made in the background ends with its stream
            with client.responses.create(model="gpt-5", input="x", background=is_background, stream=True) as stream:
                next(iter(stream))
            assert tallybook.stats().unmeasured == 1
        assert client.responses.retrieve(whole["id"]).status == "completed"
        assert delivered(tallybook) == 1
        has(only(api, "completions"), RESPONSE_TOLD["completions"])

    def test_an_answer_made_in_the_background_may_be_retrieved_by_another_client_of_the_same_tallybook(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        whole = response()
        provider.on("/responses", Reply({**whole, "status": "queued", "usage": None, "output": []}))
        provider.on(f"/responses/{whole['id']}", Reply(whole))
        client.responses.create(model="gpt-5", input="x", background=True)
        other = tallybook.track(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model"))
        assert other.responses.retrieve(whole["id"]).status == "completed"
        assert delivered(tallybook) == 1
        assert tallybook.stats().unmeasured == 0

    def test_an_answer_made_in_the_background_that_nobody_retrieves_is_unmeasured_in_the_end(
        self, provider: Scripted
    ) -> None:
        provider.on("/responses", lambda _: Reply(response("queued", usage=None)))
        with Tallybook(provider.url, "sk-admin-x") as tallybook:
            client = tallybook.track(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model"))
            for _ in range(3):
                client.responses.create(model="gpt-5", input="x", background=True)
            assert tallybook.stats().unmeasured == 0
        assert tallybook.stats().unmeasured == 3

    def test_what_was_asked_in_the_background_is_not_kept(self, provider: Scripted, client: openai.OpenAI) -> None:
        long = 2_000_000

        def answer(_: Any) -> Reply:
            provider.asked.clear()
            return Reply(response("queued", usage=None))

        provider.on("/responses", answer)
        tracemalloc.start()
        try:
            for number in range(5):
                client.responses.create(model="gpt-5", input=str(number) * long, background=True)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < long
        finally:
            tracemalloc.stop()

    def test_calls_that_a_server_gives_the_same_short_id_are_two(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", lambda _: Reply(chat(id="chatcmpl-123")))
        for _ in range(2):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        assert delivered(tallybook) == 2
        assert only(api, "completions")["num_model_requests"] == 2

    def test_an_answer_that_comes_again_is_one(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on(
            "/chat/completions", Reply(chat(id="chatcmpl-CeG4Yp8dGoNWKbdDV5q7bc0yjbPpa"))
        )  # of a gateway's cache
        for _ in range(2):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        assert delivered(tallybook) == 2
        assert only(api, "completions")["num_model_requests"] == 1

    def test_looking_at_an_answer_again_is_no_usage(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/responses/resp_old", Reply(response(id="resp_old")))
        assert client.responses.retrieve("resp_old").status == "completed"
        assert tallybook.stats().recorded == tallybook.stats().unmeasured == 0

    def test_embeddings_are_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        vector = base64.b64encode(b"\0\0\x80?").decode()
        data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(3)]
        answer = {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": EMBEDDING_USAGE}
        provider.on("/embeddings", Reply(answer))
        for _ in range(2):  # they have no id, and are two calls
            found = client.embeddings.create(model="text-embedding-3-small", input=[SECRET] * 3)
            assert found.data[0].embedding == [1.0]
        client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=SECRET)
        assert delivered(tallybook) == 3
        expected = {"input_tokens": 24, "num_model_requests": 3, "model": "text-embedding-3-small"}
        has(only(api, "embeddings", "model"), expected)

    def test_images_are_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        answer = {"created": NOW, "data": [{"b64_json": "AAAA"}] * 2, "size": "1536x1024", "quality": "low"}
        provider.on("/images/generations", Reply(answer))
        provider.on("/images/edits", Reply({"created": NOW, "data": [{"b64_json": "AAAA"}]}))
        client.images.generate(model="gpt-image-1", prompt=SECRET, n=2, size="auto")
        client.images.edit(model="gpt-image-1", image=b"PNG", prompt=SECRET, size="1024x1024")
        assert delivered(tallybook) == 2
        generated, edited = sorted(
            told(api, "images", "source", "size", "model"), key=lambda result: -int(result["images"])
        )
        has(generated, {"images": 2, "size": "1536x1024", "source": "image.generation", "model": "gpt-image-1"})
        has(edited, {"images": 1, "size": "1024x1024", "source": "image.edit", "model": "gpt-image-1"})

    def test_streamed_images_are_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        shape = {"b64_json": "A" * 200_000, "created_at": NOW, "size": "1024x1024", "quality": "high"}
        usage = {"input_tokens": 9, "output_tokens": 100, "total_tokens": 109}
        done = {"type": "image_generation.completed", **shape, "usage": usage}
        provider.on(
            "/images/generations",
            events({"type": "image_generation.partial_image", **shape}, done, done, names=True, done=False),
        )
        seen = list(client.images.generate(model="gpt-image-1", prompt="x", n=2, stream=True))
        assert len(seen) == 3
        assert delivered(tallybook) == 2
        has(only(api, "images", "size", "model"), {"images": 2, "size": "1024x1024", "model": "gpt-image-1"})

    def test_audio_is_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/audio/transcriptions", Reply({"text": SECRET, "usage": {"type": "duration", "seconds": 12.4}}))
        provider.on("/audio/speech", Reply((b"ID3", b"audio"), headers={"content-type": "audio/mpeg"}))
        client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"ID3"))
        speech = client.audio.speech.create(model="tts-1", voice="alloy", input="Grüße")
        assert speech.read() == b"ID3audio"
        with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="four") as streamed:
            assert b"".join(streamed.iter_bytes()) == b"ID3audio"
        assert delivered(tallybook) == 3
        has(only(api, "audio_transcriptions", "model"), {"seconds": 12, "model": "whisper-1"})
        has(only(api, "audio_speeches", "model"), {"characters": 9, "num_model_requests": 2, "model": "tts-1"})

    def test_transcriptions_billed_by_tokens_are_told_as_tokens(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        usage = {"type": "tokens", "input_tokens": 40, "output_tokens": 9, "total_tokens": 49}
        details = {"input_token_details": {"audio_tokens": 40, "text_tokens": 0}}
        delta = {"type": "transcript.text.delta", "delta": SECRET}
        done = {"type": "transcript.text.done", "text": SECRET, "usage": usage | details}
        provider.on("/audio/transcriptions", events(delta, done, names=True, done=False))
        stream = client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("a.mp3", b"ID3"), stream=True, response_format="json"
        )
        assert len(list(stream)) == 2
        assert delivered(tallybook) == 1
        expected = {"input_tokens": 40, "input_audio_tokens": 40, "output_tokens": 9, "model": "gpt-4o-transcribe"}
        has(only(api, "completions", "model"), expected)

    def test_a_transcription_that_says_nothing_of_its_length_is_unmeasured(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook
    ) -> None:
        provider.on("/audio/transcriptions", Reply(b"hello", headers={"content-type": "text/plain"}))
        assert (
            client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"ID3"), response_format="text")
            == "hello"
        )
        assert tallybook.stats().unmeasured == 1

    def test_moderations_are_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
        provider.on("/moderations", lambda _: Reply(new(model="omni-moderation-latest", results=[result])))
        client.moderations.create(input=SECRET)
        assert delivered(tallybook) == 1
        has(only(api, "moderations", "model"), {"num_model_requests": 1, "model": "omni-moderation-latest"})

    def test_text_completions_are_told(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        choice = {"index": 0, "text": SECRET, "finish_reason": "stop", "logprobs": None}
        provider.on("/completions", Reply(new(object="text_completion", choices=[choice], usage=CHAT_USAGE)))
        client.completions.create(model="gpt-3.5-turbo-instruct", prompt=SECRET)
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    def test_azure_is_tracked_like_any_other(self, provider: Scripted, tallybook: Tallybook, api: httpx.Client) -> None:
        provider.on("/openai/deployments/mine/chat/completions", lambda _: Reply(chat()))
        client = tallybook.track(openai.AzureOpenAI(azure_endpoint=provider.url, api_key="x", api_version="2026-01-01"))
        client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "x"}])
        assert delivered(tallybook) == 1
        has(only(api, "completions"), CHAT_MEASURES)

    def test_other_calls_are_no_usage(self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook) -> None:
        provider.on("/models", Reply({"object": "list", "data": [{"id": "m", "object": "model"}]}))
        provider.on("/batches/b/cancel", Reply({"id": "b", "object": "batch", "usage": {"input_tokens": 7}}))
        assert [model.id for model in client.models.list()] == ["m"]
        client.batches.cancel("b")
        assert tallybook.stats().recorded == tallybook.stats().unmeasured == 0

    def test_no_text_leaves_the_process(self, provider: Scripted) -> None:
        """Of all kinds of answers, what is sent holds none of the texts that were asked and answered."""
        taken = {"object": "organization.usage.events.receipt", "rejected": 0, "faults": []}
        provider.on("/usage/events/openai", Reply(taken))
        provider.on(
            "/chat/completions", lambda asked: events(*chunks(asked)) if asked.body.get("stream") else Reply(chat())
        )
        provider.on("/responses", lambda _: Reply(response()))
        provider.on("/audio/transcriptions", Reply({"text": SECRET, "usage": {"type": "duration", "seconds": 1}}))
        provider.on("/audio/speech", Reply(b"ID3", headers={"content-type": "audio/mpeg"}))
        with Tallybook(provider.url, "sk-admin-x") as tallybook:
            client = tallybook.track(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model"))
            messages: Any = [{"role": "user", "content": SECRET}]
            client.chat.completions.create(model="gpt-4o", messages=messages, metadata={"note": SECRET})
            list(client.chat.completions.create(model="gpt-4o", messages=messages, stream=True))
            tool: Any = {"type": "function", "name": SECRET, "parameters": {}, "strict": True}
            client.responses.create(model="gpt-5", input=SECRET, instructions=SECRET, tools=[tool])
            client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"ID3"), prompt=SECRET)
            client.audio.speech.create(model="tts-1", voice="alloy", input=SECRET)
            assert delivered(tallybook) == 5
        sent = [asked.content for asked in provider.asked if asked.path.endswith("/usage/events/openai")]
        assert b"".join(sent).count(b"gpt-") >= 3
        assert SECRET.encode() not in b"".join(sent)


class TestWhoMadeTheCall:
    @pytest.mark.parametrize(
        ("given", "request_says", "code_says", "expected"),
        [
            ({}, {}, {}, {}),
            ({"user_id": "u0", "project_id": "p0"}, {}, {}, {"user_id": "u0", "project_id": "p0"}),
            ({"user_id": "u0"}, {"user": "u1"}, {}, {"user_id": "u1"}),
            ({}, {"safety_identifier": "u2", "user": "u1"}, {}, {"user_id": "u2"}),
            (
                {"project_id": "p0"},
                {"metadata": {"user_id": "u3", "project_id": "p3", "api_key_id": "k3", "x": "y"}, "user": "u1"},
                {},
                {"user_id": "u3", "project_id": "p3", "api_key_id": "k3"},
            ),
            ({"user_id": "u0"}, {"user": "u1"}, {"user_id": "u4"}, {"user_id": "u4"}),
            (
                {"project_id": "p0"},
                {},
                {"user_id": "u4", "api_key_id": "k4"},
                {"project_id": "p0", "user_id": "u4", "api_key_id": "k4"},
            ),
        ],
    )
    def test_the_nearest_word_counts(
        self,
        provider: Scripted,
        server: Server,
        organization: str,
        api: httpx.Client,
        given: dict[str, str],
        request_says: dict[str, Any],
        code_says: dict[str, str],
        expected: dict[str, str],
    ) -> None:
        provider.on("/chat/completions", Reply(chat()))
        with Tallybook(server.url, server.key(organization), **given) as tallybook:  # type: ignore[arg-type]
            client = tallybook.track(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model"))
            with attribute(**code_says):
                client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "x"}], **request_says
                )
            assert delivered(tallybook) == 1
        result = only(api, "completions", "user_id", "project_id", "api_key_id")
        assert {name: result[name] for name in ("user_id", "project_id", "api_key_id") if name in result} == expected

    def test_the_clients_own_project_counts_if_nothing_else_is_said(
        self, provider: Scripted, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", lambda _: Reply(chat()))
        client = tallybook.track(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="x", project="proj_theirs"))
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        assert delivered(tallybook) == 1
        assert only(api, "completions", "project_id")["project_id"] == "proj_theirs"

    def test_a_stream_belongs_to_who_began_it(
        self, provider: Scripted, client: openai.OpenAI, tallybook: Tallybook, api: httpx.Client
    ) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
        with attribute(user_id="began"):
            stream = client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
            )
        with attribute(user_id="read"):
            list(stream)
        assert delivered(tallybook) == 1
        assert only(api, "completions", "user_id")["user_id"] == "began"

    def test_each_task_has_its_own_user(self, provider: Scripted, tallybook: Tallybook, api: httpx.Client) -> None:
        provider.on("/chat/completions", lambda _: Reply(chat(), pause_s=0.02))

        async def all_at_once() -> None:
            async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk-model") as made:
                client = tallybook.track(made)

                async def one(user: str) -> None:
                    with attribute(user_id=user):
                        await asyncio.sleep(0.01)
                        await client.chat.completions.create(
                            model="gpt-4o", messages=[{"role": "user", "content": "x"}]
                        )

                await asyncio.gather(*(one(f"user-{number}") for number in range(10)))

        asyncio.run(all_at_once())
        assert delivered(tallybook) == 10
        users = [result["user_id"] for result in told(api, "completions", "user_id")]
        assert sorted(users) == [f"user-{number}" for number in range(10)]


class TestAsync:
    def test_every_way_to_call_is_recorded(self, provider: Scripted, tallybook: Tallybook, api: httpx.Client) -> None:
        provider.on(
            "/chat/completions", lambda asked: events(*chunks(asked)) if asked.body.get("stream") else Reply(chat())
        )
        messages: Any = [{"role": "user", "content": "x"}]

        async def calls() -> None:
            async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk-model") as made:
                client = tallybook.track(made)
                assert isinstance(client, openai.AsyncOpenAI)
                answer = await client.chat.completions.create(model="gpt-4o", messages=messages)
                assert answer.choices[0].message.content == SECRET
                stream = await client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
                assert [bool(chunk.choices) async for chunk in stream] == [True] * 5
                copy = client.with_options(timeout=5)
                raw = await copy.chat.completions.with_raw_response.create(model="gpt-4o", messages=messages)
                assert raw.parse().usage is not None
                async with client.chat.completions.with_streaming_response.create(
                    model="gpt-4o", messages=messages
                ) as streamed:
                    assert SECRET in str(await streamed.json())
                async with client.chat.completions.with_streaming_response.create(
                    model="gpt-4o", messages=messages, stream=True
                ) as streamed:
                    assert len([line async for line in streamed.iter_lines() if line]) == 6
                async with client.chat.completions.stream(model="gpt-4o", messages=messages) as helper:
                    await helper.until_done()

        asyncio.run(calls())
        assert delivered(tallybook) == 6
        has(only(api, "completions"), {name: 6 * value for name, value in CHAT_MEASURES.items()})

    def test_a_stream_left_early_is_counted_as_unmeasured(self, provider: Scripted, tallybook: Tallybook) -> None:
        provider.on("/chat/completions", lambda asked: events(*chunks(asked))._replace(pause_s=0.05))

        async def call() -> None:
            async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk-model") as made:
                stream = await tallybook.track(made).chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
                )
                async with stream:
                    async for _ in stream:
                        break

        asyncio.run(call())
        assert tallybook.stats().unmeasured == 1

    def test_a_server_that_knows_no_stream_options_is_asked_without(
        self, provider: Scripted, tallybook: Tallybook
    ) -> None:
        def answer(asked: Any) -> Reply:
            if "stream_options" in asked.body:
                return Reply({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]}, 422)
            return events(*chunks(asked))

        provider.on("/chat/completions", answer)

        async def call() -> int:
            async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk-model") as made:
                stream = await tallybook.track(made).chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
                )
                return len([chunk async for chunk in stream])

        assert asyncio.run(call()) == 5


class TestAnthropic:
    USAGE = {  # noqa: RUF012  it is never changed
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
        "output_tokens": 7,
        "server_tool_use": {"web_search_requests": 2},
        "service_tier": "priority",
    }
    MEASURES = {  # noqa: RUF012
        "input_tokens": 510,
        "input_cached_tokens": 300,
        "input_cache_write_tokens": 200,
        "input_cache_write_30m_tokens": 150,
        "input_cache_write_12h_tokens": 50,
        "output_tokens": 7,
        "num_model_requests": 1,
        "service_tier": "priority",
        "user_id": "the-user",
        "model": "claude-opus-4",
    }

    def message(self) -> dict[str, Any]:
        return {
            "id": f"msg_{next(_numbers)}",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-4",
            "content": [{"type": "text", "text": SECRET}],
            "stop_reason": "end_turn",
            "usage": self.USAGE,
        }

    def stream(self) -> Reply:
        begun = {**self.message(), "content": [], "usage": {**self.USAGE, "output_tokens": 1, "server_tool_use": None}}
        end = {"output_tokens": 7, "server_tool_use": {"web_search_requests": 2}, "input_tokens": None}
        return events(
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SECRET}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": end},
            {"type": "message_stop"},
            names=True,
            done=False,
        )

    @pytest.mark.parametrize("way", ["plain", "streamed", "helper", "raw", "async"])
    def test_messages_are_told_field_by_field(
        self, provider: Scripted, tallybook: Tallybook, api: httpx.Client, way: str
    ) -> None:
        provider.on("/v1/messages", lambda asked: self.stream() if asked.body.get("stream") else Reply(self.message()))
        client = tallybook.track(anthropic.Anthropic(base_url=provider.url, api_key="x"))
        options: Any = {
            "model": "claude-opus-4",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": SECRET}],
            "metadata": {"user_id": "the-user"},
        }
        if way == "plain":
            assert client.messages.create(**options).content[0].text == SECRET
        elif way == "streamed":
            assert len(list(client.messages.create(**options, stream=True))) == 6
        elif way == "helper":
            with client.messages.stream(**options) as stream:
                assert stream.get_final_text() == SECRET
        elif way == "raw":
            assert client.messages.with_raw_response.create(**options).parse().usage.output_tokens == 7
        else:

            async def call() -> None:
                async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="x") as made:
                    await tallybook.track(made).messages.create(**options)

            asyncio.run(call())
        assert delivered(tallybook) == 1
        has(only(api, "completions", "service_tier", "user_id", "model"), self.MEASURES)
        assert only(api, "web_search_calls")["num_requests"] == 2

    def test_a_stream_left_early_is_counted_as_unmeasured(self, provider: Scripted, tallybook: Tallybook) -> None:
        provider.on("/v1/messages", self.stream()._replace(pause_s=0.05))
        client = tallybook.track(anthropic.Anthropic(base_url=provider.url, api_key="x"))
        messages: Any = [{"role": "user", "content": SECRET}]
        with client.messages.create(model="claude-opus-4", max_tokens=9, messages=messages, stream=True) as stream:
            next(iter(stream))
        assert (tallybook.stats().recorded, tallybook.stats().unmeasured) == (0, 1)

    def test_counting_tokens_is_no_usage(self, provider: Scripted, tallybook: Tallybook) -> None:
        provider.on("/v1/messages/count_tokens", Reply({"input_tokens": 12}))
        client = tallybook.track(anthropic.Anthropic(base_url=provider.url, api_key="x"))
        assert client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "x"}]).input_tokens == 12
        assert tallybook.stats().recorded == tallybook.stats().unmeasured == 0


class TestRecordResponse:
    """What was returned by an untracked client, or read elsewhere."""

    @pytest.mark.parametrize("made", [dict, openai.types.chat.ChatCompletion.model_validate])
    def test_a_chat_as_object_or_dict(
        self, tallybook: Tallybook, api: httpx.Client, made: Callable[[dict[str, Any]], Any]
    ) -> None:
        answer = made(chat())
        for _ in range(2):  # the same answer counts once
            tallybook.record_response(answer, user_id="u1", project_id="p1")
        assert delivered(tallybook) == 2
        result = only(api, "completions", "user_id", "project_id", "service_tier")
        has(result, CHAT_MEASURES | {"user_id": "u1", "project_id": "p1", "service_tier": "flex"})

    def test_a_message_of_anthropic(self, tallybook: Tallybook, api: httpx.Client) -> None:
        tallybook.record_response(TestAnthropic().message(), user_id="the-user", timestamp=NOW)
        assert delivered(tallybook) == 1
        has(only(api, "completions", "service_tier", "user_id", "model"), TestAnthropic.MEASURES)

    def test_an_event_of_the_realtime_api(self, tallybook: Tallybook, api: httpx.Client) -> None:
        usage = {
            "input_tokens": 100,
            "output_tokens": 40,
            "total_tokens": 140,
            "input_token_details": {"text_tokens": 20, "audio_tokens": 80, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 10, "audio_tokens": 30},
        }
        done = {"id": f"resp_{next(_numbers)}", "object": "realtime.response", "status": "completed", "usage": usage}
        tallybook.record_response({"type": "response.done", "event_id": "e", "response": done}, model="gpt-realtime")
        assert delivered(tallybook) == 1
        expected = {"input_tokens": 100, "input_audio_tokens": 80, "output_audio_tokens": 30, "model": "gpt-realtime"}
        has(only(api, "completions", "model"), expected)

    def test_what_the_answer_does_not_say(self, tallybook: Tallybook, api: httpx.Client) -> None:
        tallybook.record_response(b"ID3", kind="audio_speeches", characters=11, model="tts-1")
        tallybook.record_response({"text": SECRET}, seconds=3.6, model="whisper-1")
        tallybook.record_response(new(results=[{"flagged": False}]), input_tokens=5)
        image = {"created": NOW, "data": [{"url": "x"}] * 2}
        tallybook.record_response(
            image, request={"model": "dall-e-3", "size": "1024x1024", "prompt": SECRET}, batch=True
        )
        assert delivered(tallybook) == 4
        assert only(api, "audio_speeches")["characters"] == 11
        assert only(api, "audio_transcriptions")["seconds"] == 4
        assert only(api, "moderations")["input_tokens"] == 5
        has(only(api, "images", "model", "size"), {"images": 2, "model": "dall-e-3", "size": "1024x1024"})


def test_a_time_that_cannot_be_is_not_believed(tallybook: Tallybook, api: httpx.Client) -> None:
    """Some servers answer no time of creation, or one in milliseconds."""
    for created in (0, NOW * 1000, -1, None, "yesterday"):
        tallybook.record_response(chat() | {"created": created})
    assert delivered(tallybook) == 5
    assert only(api, "completions")["num_model_requests"] == 5


def test_objects_of_every_generation_of_httpx_can_be_watched(
    provider: Scripted, tallybook: Tallybook, api: httpx.Client
) -> None:
    """Clients of OpenAI before its third version are built on httpx, and the present one may still be given one."""
    provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
    with httpx.Client() as http:
        made = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model", http_client=http)  # type: ignore[arg-type]
        stream = tallybook.track(made).chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert len(list(stream)) == 5
    assert delivered(tallybook) == 1
    has(only(api, "completions"), CHAT_MEASURES)


def test_what_is_asked_is_sent_to_the_last_byte(provider: Scripted, tallybook: Tallybook) -> None:
    """A tracked call and one that is not differ in nothing but the question for usage."""
    provider.on("/chat/completions", lambda asked: events(*chunks(asked)))
    for track in (False, True):
        client = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-model")
        if track:
            tallybook.track(client)
        list(
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True, seed=3)
        )
    plain, tracked = provider.asked
    assert json.loads(tracked.content) == {**plain.body, "stream_options": {"include_usage": True}}
    volatile = {"content-length", "host", "x-stainless-retry-count"}
    assert {name: value for name, value in plain.headers.items() if name not in volatile} == {
        name: value for name, value in tracked.headers.items() if name not in volatile
    }
