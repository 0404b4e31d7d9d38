"""LiteLLM itself as the sender: calls of every kind against a model server of our own, compared with what that said."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook.clock import now_s
from tests.openai_shaped import CREATED, model_server
from tests.support import Server

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-litellm" / "bin" / "python"  # `make test` makes it
USAGE = "/v1/organization/usage"
CHAT = {"num_model_requests": 1, "input_tokens": 120, "input_cached_tokens": 64, "output_tokens": 30}
EXPECTED: dict[str, list[dict[str, Any]]] = {
    "completions": [
        # an answer of the Messages API; the first of two equal chats, the second came from the cache
        {
            "model": "claude-sonnet-4-5",
            "num_model_requests": 1,
            "input_tokens": 510,
            "input_cached_tokens": 300,
            "input_cache_write_tokens": 200,
            "input_cache_write_30m_tokens": 150,
            "input_cache_write_12h_tokens": 50,
            "output_tokens": 7,
        },
        {
            "model": "gpt-4o-mini",
            "user_id": None,
            **CHAT,
        },
        # a chat, and a streamed one
        {"model": "gpt-4o-mini", "user_id": "ann", "project_id": "team-1", "api_key_id": "hash-1"}
        | {name: 2 * number for name, number in CHAT.items()},
    ],
    "embeddings": [{"model": "text-embedding-3-small", "input_tokens": 8}],
    "images": [{"model": "dall-e-3", "images": 2, "num_model_requests": 1, "source": "image.generation"}],
    "audio_transcriptions": [{"model": "whisper-1", "seconds": 12}],
    "audio_speeches": [{"model": "tts-1", "characters": len("hello world")}],
    "moderations": [{"model": "omni-moderation-latest", "num_model_requests": 1}],
    "web_search_calls": [
        {"model": "claude-sonnet-4-5", "num_requests": 2},
    ],
}
RESPONSE: dict[str, list[dict[str, Any]]] = {
    "completions": [
        {"model": "gpt-4o-mini", "num_model_requests": 1, "input_tokens": 50, "input_cached_tokens": 10}
        | {"output_tokens": 5},
    ],
    "web_search_calls": [{"model": "gpt-4o-mini", "num_requests": 1}],
}
"""Of one response, which is logged three times: when it was made, and twice when it was looked at."""


@pytest.mark.parametrize("log_format", ["json_array", "ndjson", "single"])
def test_every_call_is_counted_as_the_model_server_said(
    log_format: str, server: Server, organization: str, api: httpx.Client
) -> None:
    since_s = now_s() - 60
    with model_server() as models:
        endpoint = f"{server.url}{USAGE}/events/litellm"
        done = subprocess.run(
            [PYTHON, ROOT / "tests" / "litellm" / "sender.py", models, endpoint, server.key(organization), log_format],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert_found(api, EXPECTED, since_s)
    assert_found(api, RESPONSE, CREATED)
    assert api.get(f"{USAGE}/quarantine").json()["data"] == []


def assert_found(api: httpx.Client, everything: dict[str, list[dict[str, Any]]], start_s: int) -> None:
    for kind, expected in everything.items():
        grouped = ["model"] if kind == "web_search_calls" else ["model", "user_id", "project_id", "api_key_id"]
        question: dict[str, Any] = {
            "start_time": start_s,
            "limit": 2,
            "group_by": [*grouped, *(["source"] if kind == "images" else [])],
        }
        page = api.get(f"{USAGE}/{kind}", params=question).raise_for_status().json()
        found = [result for bucket in page["data"] for result in bucket["results"]]
        found.sort(key=lambda result: (result["model"], str(result.get("user_id") or "")))
        assert len(found) == len(expected), (kind, found)
        for result, wanted in zip(found, expected, strict=True):
            assert {name: result[name] for name in wanted} == wanted
