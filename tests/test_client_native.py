"""Clients with a protocol of their own, tracked: each call is recorded once, and passed on as it is.

The classes here have the seam of the real ones, which the project does not install.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tallybook.client.tracking import track

USED = {"model": "llama3.2", "done": True, "prompt_eval_count": 9, "eval_count": 3}
CHUNKS = [{"model": "llama3.2", "done": False}, USED]
CONVERSED = {"usage": {"inputTokens": 9, "outputTokens": 3}, "ResponseMetadata": {"RequestId": "req-1"}}
EVENTS = [{"messageStart": {}}, {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 3}}}]


class Ollama:
    def _request(self, cls: Any, *args: Any, stream: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002  as the real one has it
        return iter(CHUNKS) if stream else cls(USED)


class AsyncOllama:
    async def _request(self, cls: Any, *args: Any, stream: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002  as the real one has it
        async def chunks() -> AsyncIterator[Any]:
            for chunk in CHUNKS:
                yield chunk

        return chunks() if stream else cls(USED)


class EventStream:
    def __iter__(self) -> Iterator[Any]:
        yield from EVENTS


class BedrockRuntime:
    def _make_api_call(self, operation_name: str, api_params: Any) -> Any:  # noqa: ARG002  as the real one has it
        if operation_name == "ConverseStream":
            return {"stream": EventStream(), "ResponseMetadata": {"RequestId": "req-2"}}
        return CONVERSED


class S3(BedrockRuntime):
    pass


for kind, package in ((Ollama, "ollama"), (AsyncOllama, "ollama"), (BedrockRuntime, "botocore"), (S3, "botocore")):
    kind.__module__ = f"{package}.client"


class Told:
    """Keeps what a recorder is told."""

    def __init__(self) -> None:
        self.pending: dict[str, Any] = {}
        self.answers: list[tuple[str, Any, Any]] = []
        self.missed = 0

    def who(self, request: Any) -> dict[str, str]:  # noqa: ARG002  as the real one has it
        return {"user_id": "ann"}

    def record_answer(self, dialect: str, response: Any, request: Any, told: Any) -> None:  # noqa: ARG002  as the real one has it
        self.answers.append((dialect, dict(response), dict(request)))

    def miss(self) -> None:
        self.missed += 1


@pytest.fixture
def told() -> Told:
    return Told()


def test_calls_of_ollama_are_recorded_streamed_or_not(told: Told) -> None:
    client = track(Ollama(), told, asks_for_usage=True)
    asked = {"model": "llama3.2", "messages": "SECRET"}
    assert client._request(dict, "POST", "/api/chat", json=asked) == USED
    assert list(client._request(dict, "POST", "/api/generate", json=asked, stream=True)) == CHUNKS
    client._request(dict, "GET", "/api/tags")
    assert told.answers == [("ollama", USED, {"model": "llama3.2"})] * 2


def test_calls_of_ollamas_other_client_are_recorded_too(told: Told) -> None:
    async def calls() -> list[Any]:
        client = track(AsyncOllama(), told, asks_for_usage=True)
        whole = await client._request(dict, "POST", "/api/chat", json={})
        return [
            whole,
            *[chunk async for chunk in await client._request(dict, "POST", "/api/chat", json={}, stream=True)],
        ]

    assert asyncio.run(calls()) == [USED, *CHUNKS]
    assert [answer[:2] for answer in told.answers] == [("ollama", USED)] * 2


def test_a_stream_that_is_left_is_counted_as_not_measured(told: Told) -> None:
    client = track(Ollama(), told, asks_for_usage=True)
    stream = client._request(dict, "POST", "/api/chat", json={}, stream=True)
    assert next(stream) == CHUNKS[0]
    stream.close()
    assert (told.answers, told.missed) == ([], 1)


def test_calls_of_bedrock_are_recorded_streamed_or_not(told: Told) -> None:
    client = track(BedrockRuntime(), told, asks_for_usage=True)
    assert client._make_api_call("Converse", {"modelId": "m", "messages": "SECRET"}) is CONVERSED
    result = client._make_api_call("ConverseStream", {"modelId": "m"})
    assert isinstance(result["stream"], EventStream)
    assert list(result["stream"]) == EVENTS
    client._make_api_call("ListAsyncInvokes", {})
    assert told.answers == [("bedrock", CONVERSED, {"modelId": "m"}), ("bedrock", EVENTS[1], {"modelId": "m"})]


def test_other_clients_of_aws_are_not_tracked(told: Told) -> None:
    with pytest.raises(TypeError, match="is not a client of OpenAI"):
        track(S3(), told, asks_for_usage=True)


def test_a_client_is_tracked_once(told: Told) -> None:
    client = track(Ollama(), told, asks_for_usage=True)
    assert track(client, told, asks_for_usage=True) is client
    client._request(dict, "POST", "/api/chat", json={})
    assert len(told.answers) == 1
