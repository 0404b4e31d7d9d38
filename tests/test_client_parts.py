"""The client's parts by themselves: what goes by in a stream, what lies in a spool, what is taken of an answer."""

import asyncio
import json
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.client.answer import counts, dialect_of, envelope, essentials, fields
from tallybook.client.attribution import attribute, attributed
from tallybook.client.spool import Spool
from tallybook.client.stream import Watch
from tallybook.sources.record import NO_OPTIONS
from tallybook.sources.table import SOURCES

USAGE = b'{"choices":[],"usage":{"x":1}}'
CREATED = b'{"type": "response.created"}'
LINES = (b"data: {}", b": stay", b"event: x", b'data: {"usage":null}', b'data: {"t":"\xe2\x80\xa8\xc2\x85"}', b"")
BREAKS = (b"\n", b"\r\n", b"\r")


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[start:end] for start, end in pairwise(edges) if start < end]


def watched(pieces: list[bytes], *, may_hide: bool, is_async: bool = False) -> tuple[bytes, list[bytes], int]:
    """What a receiver gets of a stream, what is seen of it, and how often its end."""
    seen: list[bytes] = []
    ends: list[bytes] = []

    def see(data: bytes) -> bool:
        seen.append(data.strip())
        return False

    response = httpx.Response(200, stream=Pieces(pieces))
    Watch(see, ends.append, is_stream=True, may_hide=may_hide).attach(response)
    if is_async:

        async def read() -> bytes:
            return b"".join([piece async for piece in response.aiter_bytes()])

        return asyncio.run(read()), seen, len(ends)
    return b"".join(response.iter_bytes()), seen, len(ends)


@st.composite
def streams(draw: Any) -> tuple[bytes, bytes]:
    """A stream of events with the one event that nobody asked for somewhere, and the stream without it."""
    end = draw(st.sampled_from(BREAKS))
    before, after = (draw(st.lists(st.lists(st.sampled_from(LINES[:5]), min_size=1), max_size=4)) for _ in range(2))

    def text(found: list[list[bytes]]) -> bytes:
        return b"".join(b"".join(line + end for line in event) + end for event in found)

    hidden = [[*draw(st.sampled_from(([], [b"event: x"], [b": c"]))), b"data: " + USAGE]]
    return text(before) + text(hidden) + text(after), text(before) + text(after)


@given(streams(), st.lists(st.integers(min_value=0), max_size=12), st.booleans())
def test_however_a_stream_is_cut_its_receiver_gets_what_it_asked_for(
    stream: tuple[bytes, bytes], places: list[int], is_async: bool
) -> None:
    whole, wanted = stream
    assert watched(cut(whole, places), may_hide=False, is_async=is_async) == (whole, [USAGE], 1)
    assert watched(cut(whole, places), may_hide=True, is_async=is_async) == (wanted, [USAGE], 1)


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=12), st.booleans())
def test_whatever_comes_goes_on(content: bytes, places: list[int], may_hide: bool) -> None:
    assert watched(cut(content, places), may_hide=may_hide)[0] == content


def test_the_beginning_of_an_answer_is_seen() -> None:
    text = b'data: {"delta":"\\"type\\":\\"response.created\\""}\n\n'
    whole = b"data: " + CREATED + b"\n\n" + text
    assert watched([whole], may_hide=False) == (whole, [CREATED], 1)


def test_events_go_on_as_soon_as_they_are_whole() -> None:
    response = httpx.Response(200, stream=Pieces([b"data: 1\n", b"\ndata", b": 2\n\n", b"data: 3"]))
    Watch(lambda _: False, lambda _: None, is_stream=True, may_hide=True).attach(response)
    assert list(response.iter_bytes()) == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3"]


def test_a_look_that_fails_is_no_affair_of_the_receiver() -> None:
    def see(_: bytes) -> bool:
        raise RuntimeError("a fault of ours")

    def end(_: bytes) -> None:
        raise RuntimeError("another")

    content = b"data: " + USAGE + b"\n\n"
    response = httpx.Response(200, stream=Pieces([content]))
    Watch(see, end, is_stream=True, may_hide=True).attach(response)
    assert b"".join(response.iter_bytes()) == content


def test_a_body_beyond_all_measure_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallybook.client.stream._HELD_BYTES_MAX", 100)
    line = b"data: " + b"x" * 300
    assert watched([line[:80], line[80:160], line[160:], b"\n\n"], may_hide=True) == (line + b"\n\n", [], 1)


class TestSpool:
    def test_it_gives_back_what_it_was_given_oldest_first(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "a" / "spool", 10**6)
        assert spool.append("", [b"1", b"2"])
        assert spool.append("openai", [b"3"])
        assert spool.append("", [b"4"])
        found = []
        while (first := spool.first()) is not None:
            found.append((first[0].dialect, first[1]))
            spool.remove(first[0])
        assert found == [("", [b"1", b"2", b"4"]), ("openai", [b"3"])]
        spool.append("", [b"5"])
        spool.append("openai", [b"6"])
        for line in (b"5", b"6", b"5"):  # what is postponed lets others go first
            first = spool.first()
            assert first is not None
            assert first[1] == [line]
            spool.postpone(first[0])
        while (first := spool.first()) is not None:
            spool.remove(first[0])
        assert (spool.records, spool.size_bytes) == (0, 0)

    def test_segments_end_where_they_are_large(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 10**8)
        for number in range(5):
            assert spool.append("", [b"x" * 500_000 + b"%d" % number])
        found = []
        while (first := spool.first()) is not None:
            found.append([line[-1:] for line in first[1]])
            spool.remove(first[0])
        assert found == [[b"0", b"1", b"2"], [b"3", b"4"]]

    def test_nobody_takes_what_belongs_to_the_living(self, tmp_path: Path) -> None:
        living, other = Spool(tmp_path, 10**6), Spool(tmp_path, 10**6)
        living.append("", [b"1"])
        other.append("anthropic", [b"2"])
        assert (living.adopt(), other.adopt()) == (0, 0)
        living.close()
        assert other.adopt() == 1
        assert other.records == 2
        assert living.adopt() == 0  # it is taken
        other.close()

    def test_a_line_that_was_being_written_was_never_there(self, tmp_path: Path) -> None:
        dead = Spool(tmp_path, 10**6)
        dead.append("", [b"1", b"2"])
        (path,) = tmp_path.rglob("*.ndjson")
        with path.open("ab") as file:
            file.write(b'{"half')
        dead.close()
        heir = Spool(tmp_path, 10**6)
        assert heir.adopt() == 2
        first = heir.first()
        assert first is not None
        assert first[1] == [b"1", b"2"]
        heir.remove(first[0])
        heir.close()
        assert list(tmp_path.iterdir()) == []

    def test_what_does_not_fit_on_the_disk_is_not_half_there(self, tmp_path: Path) -> None:
        script = """
import sys
from pathlib import Path
from tallybook.client.spool import Spool
spool = Spool(Path(sys.argv[1]), 10**9)
assert spool.append("", [b"x" * 1000])
try:
    spool.append("", [b"y" * 1000] * 9)
except OSError:
    assert spool.records == 1
    assert spool.append("", [b"z" * 1000])
    print(spool.first()[1] == [b"x" * 1000, b"z" * 1000])
"""

        def limits() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

        command = [sys.executable, "-B", "-c", script, str(tmp_path)]
        ended = subprocess.run(command, preexec_fn=limits, capture_output=True, text=True, check=True, timeout=60)
        assert ended.stdout == "True\n"

    def test_only_its_user_can_read_it(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "spool", 10**6)
        spool.append("", [b"1"])
        modes = [path.stat().st_mode & 0o077 for path in (tmp_path / "spool", *(tmp_path / "spool").rglob("*"))]
        assert len(modes) == 4
        assert set(modes) == {0}
        spool.close()

    def test_a_forked_process_leaves_its_parents_files_alone(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 10**6)
        spool.append("", [b"1"])
        held = len(list(Path("/proc/self/fd").iterdir()))
        spool.forget()
        assert spool.records == 0
        assert len(list(Path("/proc/self/fd").iterdir())) == held - 2
        assert len(list(tmp_path.rglob("*.ndjson"))) == 1


ENVELOPES = (
    (
        {"object": "chat.completion", "id": "c", "created": 1_763_800_000, "choices": [{"message": "SECRET"}]},
        {"id": "c", "timestamp": 1_763_800_000, "response": {"object": "chat.completion", "id": "c"}},
    ),
    (
        {
            "id": "e",
            "created": 5,
            "usage": {"a": 1, "b": None, "c": {"d": 2, "e": "SECRET"}, "f": ["SECRET"], "g": True},
        },
        {"id": "e", "timestamp": 2e9, "response": {"id": "e", "usage": {"a": 1, "c": {"d": 2}}}},
    ),
    (
        {"id": "SECRET" * 100, "model": "m", "text": "SECRET", "duration": "3.5"},
        {
            "id": "given",
            "timestamp": 2e9,
            "kind": "audio_transcriptions",
            "response": {"model": "m", "duration": "3.5"},
        },
    ),
    (
        {"id": "r", "object": "response", "output": [{"type": "message"}, {"type": "web_search_call", "action": "x"}]},
        {
            "id": "r",
            "timestamp": 2e9,
            "response": {"id": "r", "object": "response", "output": [{"type": "web_search_call", "action": "x"}]},
        },
    ),
)


@pytest.mark.parametrize(("answer", "expected"), ENVELOPES)
def test_of_an_answer_only_counts_and_names_are_taken(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    told = {} if "id" in expected and expected["id"] != "given" else {"id": "given"}
    made = envelope("openai", answer, {}, told, now_s=2e9)
    assert made == expected
    assert "SECRET" not in json.dumps(made)


FAST = {
    "input_tokens": 9,
    "output_tokens": 3,
    "speed": "fast",
    "inference_geo": "us",
    "service_tier": "standard",
    "iterations": [{"type": "compaction", "input_tokens": 5, "note": "SECRET"}, {"type": "message", "input_tokens": 4}],
}
ROUTED = {"prompt_tokens": 9, "cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.5}}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            FAST,
            {**FAST, "iterations": [{"type": "compaction", "input_tokens": 5}, {"type": "message", "input_tokens": 4}]},
        ),
        (ROUTED, ROUTED),
        ({"speed": "SECRET words of a prompt", "inference_geo": "x" * 65, "type": ["x"]}, None),
        ({"a": ["SECRET", b"SECRET", {"text": "SECRET"}], "is_byok": "SECRET"}, None),
        ({"parts": [{"type": "x", "n": 1}] * 100}, {"parts": [{"type": "x", "n": 1}] * 64}),
    ],
)
def test_of_usage_all_its_price_depends_on_is_taken_and_no_text(usage: Any, expected: Any) -> None:
    assert counts(usage) == expected
    assert counts(SimpleNamespace(**usage)) == expected


NATIVE: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "gemini": (
        "gemini",
        {
            "response_id": "gem-1",
            "model_version": "gemini-3-pro-preview",
            "candidates": [
                {
                    "content": "SECRET",
                    "finish_reason": "STOP",
                    "grounding_metadata": {"web_search_queries": ["SECRET a", "SECRET b"]},
                }
            ],
            "usage_metadata": {
                "prompt_token_count": 9,
                "candidates_token_count": 3,
                "thoughts_token_count": 20,
                "total_token_count": 32,
                "traffic_type": "ON_DEMAND_FLEX",
                "prompt_tokens_details": [{"modality": "AUDIO", "token_count": 4}],
            },
        },
        {},
        [
            {"input_tokens": 9, "output_tokens": 23, "input_audio_tokens": 4, "service_tier": "flex"},
            {"kind": "web_search_calls", "num_requests": 2, "service_tier": "flex"},
        ],
    ),
    "bedrock": (
        "bedrock",
        {
            "output": {"message": "SECRET"},
            "usage": {
                "inputTokens": 9,
                "outputTokens": 3,
                "cacheWriteInputTokens": 5,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 5}],
            },
            "serviceTier": {"type": "flex"},
            "ResponseMetadata": {"RequestId": "req-1", "HTTPHeaders": {"x": "SECRET"}},
        },
        {"modelId": "m", "messages": "SECRET"},
        [
            {
                "id": "req-1",
                "model": "m",
                "input_tokens": 14,
                "input_cache_write_tokens": 5,
                "input_cache_write_12h_tokens": 5,
                "output_tokens": 3,
                "service_tier": "flex",
            }
        ],
    ),
    "bedrock, a stream": (
        "bedrock",
        {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 3}, "performanceConfig": {"latency": "optimized"}}},
        {"modelId": "m"},
        [{"input_tokens": 9, "output_tokens": 3, "service_tier": "optimized"}],
    ),
    "ollama": (
        "ollama",
        {"model": "llama3.2", "message": "SECRET", "done": True, "prompt_eval_count": 9, "eval_count": 3},
        {},
        [{"model": "llama3.2", "input_tokens": 9, "output_tokens": 3}],
    ),
    "ollama, embeddings": (
        "ollama",
        {"model": "m", "embeddings": [[0.5]], "prompt_eval_count": 9},
        {},
        [{"kind": "embeddings", "input_tokens": 9}],
    ),
    "cohere": (
        "cohere",
        {"id": "co-1", "message": "SECRET", "usage": {"billed_units": {"input_tokens": 9.0, "output_tokens": 3.0}}},
        {"model": "command-a-03-2025"},
        [{"id": "co-1", "model": "command-a-03-2025", "input_tokens": 9, "output_tokens": 3}],
    ),
}


@pytest.mark.parametrize(("dialect", "answer", "request_", "expected"), NATIVE.values(), ids=NATIVE)
@pytest.mark.parametrize("is_object", [False, True])
def test_a_native_answer_is_recognised_and_counted_without_its_texts(
    dialect: str, answer: dict[str, Any], request_: dict[str, Any], expected: list[dict[str, Any]], is_object: bool
) -> None:
    seen = fields(SimpleNamespace(**answer) if is_object else answer)
    assert dialect_of(seen) == dialect
    made = envelope(dialect, seen, request_, {"user_id": "ann", "source": None}, now_s=2e9)
    assert "SECRET" not in json.dumps(made)
    found = SOURCES[dialect].events(json.loads(json.dumps(made)), NO_OPTIONS)
    assert len(found) == len(expected)
    for event, wanted in zip(found, expected, strict=True):
        assert event["user_id"] == "ann"
        assert {name: event.get(name) for name in wanted} == wanted


def test_of_a_request_only_its_tools_and_sizes_are_taken() -> None:
    request = {
        "model": "m",
        "input": "SECRET",
        "size": "1024x1024",
        "tools": [
            {"type": "web_search_preview", "search_context_size": "low", "user_location": {"city": "SECRET"}},
            {"type": "file_search", "vector_store_ids": ["vs_1", "vs_2", "vs_3"], "filters": "SECRET"},
            {"type": "mcp", "server_url": "SECRET"},
        ],
        "web_search_options": {"search_context_size": "high", "user_location": "SECRET"},
    }
    made = envelope("openai", {"id": "x", "object": "response"}, request, {}, now_s=2e9)
    assert made["request"] == {
        "size": "1024x1024",
        "tools": [
            {"type": "web_search_preview", "search_context_size": "low"},
            {"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]},
        ],
        "web_search_options": {"search_context_size": "high"},
    }
    assert made["model"] == "m"
    assert "SECRET" not in json.dumps(made)
    kept = essentials(request)
    assert "SECRET" not in json.dumps(kept)
    assert envelope("openai", {"id": "x", "object": "response"}, kept, {}, now_s=2e9) == made


def test_attributions_add_up_and_end() -> None:
    with attribute(user_id="u1", project_id="p1"):
        with attribute(user_id="u2"):
            assert attributed() == {"user_id": "u2", "project_id": "p1"}
        assert attributed() == {"user_id": "u1", "project_id": "p1"}
    assert attributed() == {}


def test_an_attribution_ended_elsewhere_raises_nothing() -> None:
    """As a generator that is closed in another context than it began in."""

    async def begun() -> Any:
        found = attribute(user_id="u1")
        found.__enter__()
        return found

    found = asyncio.run(begun())
    assert found.__exit__(None, None, None) in (None, False)
