"""Calls through LiteLLM's proxy, reported by its callbacks. Runs with the packages beside it, not with ours.

Standard input: JSON of `models` (address of the provider), `tracers` (the proxy's callbacks: `tallybook`, `otel`) and
`calls` ({api, model, stream} each). Where reports go is said by TALLYBOOK_ and OpenTelemetry's variables.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

ASKED = json.load(sys.stdin)
START_S_MAX = 120
REPORT_S = 8
"""After the last answer: callbacks work in the background, and batch what they send for five seconds."""
KEY = "sk-master"
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def config() -> dict[str, Any]:
    """The proxy's settings, as docs/sources/litellm.md has them."""
    return {
        "model_list": [
            {
                "model_name": call["model"],
                "litellm_params": {"model": f"{provider(call)}/{call['model']}", **where(call)},
            }
            for call in ASKED["calls"]
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"callbacks": ASKED["tracers"], "num_retries": 0},
        "callback_settings": {
            "tallybook": {
                "callback_type": "generic_api",
                "endpoint": f"{os.environ['TALLYBOOK_URL']}/v1/organization/usage/events/litellm",
                "headers": {"Authorization": "os.environ/TALLYBOOK_AUTHORIZATION"},
                "event_types": ["llm_api_success", "llm_api_failure"],
                "max_retries": 6,
                "retry_delay": 1,
            }
        },
    }


def provider(call: dict[str, Any]) -> str:
    return "anthropic" if call["api"] == "messages" else "openai"


def where(call: dict[str, Any]) -> dict[str, str]:
    base = ASKED["models"] if call["api"] == "messages" else f"{ASKED['models']}/v1"
    return {"api_base": base, "api_key": "sk-none"}


def asked(call: dict[str, Any]) -> dict[str, Any]:
    if call["api"] in ("responses", "embeddings"):
        return {"input": "hi"}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1_000}
    if call["api"] == "chat" and call["stream"]:
        body["stream_options"] = {"include_usage": True}
    return body


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main() -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory, "config.yaml")
        settings.write_text(json.dumps(config()))
        log = Path(directory, "log")
        environment = os.environ | {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OTEL_EXPORTER": "otlp_http",
            # It takes the value as it stands, other than OpenTelemetry's SDK, which has a space as %20.
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={os.environ['TALLYBOOK_AUTHORIZATION']}",
        }
        command = [
            Path(sys.executable).parent / "litellm",
            "--config",
            settings,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, cwd=directory, stdout=output, stderr=output)
        try:
            failed = call_all(f"http://127.0.0.1:{port}", process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        if failed or "-v" in sys.argv:
            sys.exit(log.read_text()[-6_000:] + "\n".join(failed))


def call_all(url: str, process: "subprocess.Popen[bytes]") -> list[str]:
    """Make the calls once the proxy is there; return what went wrong."""
    failed = []
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as http:
        deadline = time.monotonic() + START_S_MAX
        while not is_ready(http):
            if process.poll() is not None or time.monotonic() > deadline:
                return ["the proxy did not start"]
            time.sleep(0.2)
        for call in ASKED["calls"]:
            path = PATHS.get(call["api"], "/v1/embeddings")
            answer = http.post(path, json={"model": call["model"], "stream": call["stream"], **asked(call)})
            if not answer.is_success:
                failed.append(f"{call}: {answer.text}")
        time.sleep(REPORT_S)
    return failed


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/health/liveliness").is_success
    except httpx.HTTPError:
        return False


main()
