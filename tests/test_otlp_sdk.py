"""OpenTelemetry's own SDK, exporter and instrumentation as the sender; what the model server answers is known."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook.clock import now_s
from tests import otlp_sender
from tests.openai_shaped import CHAT_USAGE, model_server
from tests.support import Server

ROOT = Path(__file__).parents[1]
USAGE = "/v1/organization/usage"
CHAT: dict[str, Any] = {
    "input_tokens": CHAT_USAGE["prompt_tokens"],
    "input_cached_tokens": 64,
    "output_tokens": CHAT_USAGE["completion_tokens"],
}
RESPONSE = {"input_tokens": 50, "input_cached_tokens": 10, "output_tokens": 5}
WHO = {"user_id": "ann", "project_id": "search"}
BATCHES = otlp_sender.BATCHES
DELTA = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}


def sender(server: Server, key: str, *args: str, **env: str) -> "subprocess.Popen[bytes]":
    """Start the sending program, set up as the documentation says."""
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{key}",
        "OTEL_SERVICE_NAME": "search",
        "OTEL_RESOURCE_ATTRIBUTES": "user.id=ann",
        "NO_PROXY": "127.0.0.1",
        **env,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.otlp_sender", *args],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(process: "subprocess.Popen[bytes]") -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()[-4000:]
    return output.decode()


def used(api: httpx.Client, kind: str, **question: Any) -> list[dict[str, Any]]:
    window: dict[str, Any] = {"start_time": now_s() - 86_400, "group_by": ["model", "user_id", "project_id"]}
    page = api.get(f"{USAGE}/{kind}", params=window | question).raise_for_status().json()
    results = [result for bucket in page["data"] for result in bucket["results"]]
    return sorted(results, key=lambda result: str(result["model"]))


def matches(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("names", ["", "gen_ai_latest_experimental"])
def test_traced_calls_are_counted_as_the_model_server_said(
    server: Server, organization: str, api: httpx.Client, names: str, compression: str
) -> None:
    environment = {"OTEL_SEMCONV_STABILITY_OPT_IN": names, "OTEL_EXPORTER_OTLP_COMPRESSION": compression}
    with model_server() as models:
        told = finished(sender(server, server.key(organization), "calls", models, **environment))
    # A chat, and a streamed one; neither the agent above them, nor the call that failed, nor the metrics beside them.
    chats, response = used(api, "completions")
    assert matches(chats, WHO | {"model": "gpt-4o-mini", "num_model_requests": 2})
    assert matches(chats, {name: 2 * count for name, count in CHAT.items()})
    assert matches(response, WHO | RESPONSE | {"model": "gpt-5", "num_model_requests": 1})
    (embeddings,) = used(api, "embeddings")
    assert matches(embeddings, WHO | {"model": "text-embedding-3-small", "num_model_requests": 1, "input_tokens": 8})
    # A stream that was not asked for its usage says none.
    (kept,) = api.get(f"{USAGE}/quarantine").json()["data"]
    assert (kept["source"], kept["faults"][0]["field"]) == ("otlp", "gen_ai.usage.input_tokens")
    assert "Exception" not in told


def test_metrics_alone_are_counted_as_the_model_server_said(
    server: Server, organization: str, api: httpx.Client
) -> None:
    with model_server() as models:
        finished(sender(server, server.key(organization), "calls", models, OTEL_TRACES_EXPORTER="none", **DELTA))
    chats, response = used(api, "completions")
    assert matches(chats, WHO | {"model": "gpt-4o-mini", "num_model_requests": 2})
    assert matches(chats, {name: 2 * CHAT[name] for name in ("input_tokens", "output_tokens")})
    assert matches(response, WHO | {"model": "gpt-5", "input_tokens": 50, "output_tokens": 5})
    (embeddings,) = used(api, "embeddings")
    assert matches(embeddings, WHO | {"model": "text-embedding-3-small", "num_model_requests": 1, "input_tokens": 8})


def test_a_sender_that_is_killed_and_begins_again_loses_and_doubles_nothing(
    server: Server, organization: str, api: httpx.Client, tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    key = server.key(organization)
    window = {"start_time": otlp_sender.START_NS // 10**9, "end_time": otlp_sender.START_NS // 10**9 + 86_400}
    for batches in (BATCHES // 4, BATCHES // 2):
        process = sender(server, key, "batches", str(progress))
        deadline = time.monotonic() + 60
        while not (progress.exists() and progress.read_text().count("\n") >= batches):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.communicate(timeout=60)
        # What was acknowledged and not noted will be sent again.
        progress.write_text("".join(progress.read_text().splitlines(keepends=True)[:-3]))
    finished(sender(server, key, "batches", str(progress)))
    count = BATCHES * otlp_sender.SPANS_IN_BATCH
    (result,) = used(api, "completions", **window)
    assert matches(result, {"num_model_requests": count, "input_tokens": count * (count + 1) // 2})
    assert matches(result, {"project_id": "batches", "output_tokens": count})
