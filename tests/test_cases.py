"""What real senders and providers write, each counted and charged as `tests/cases` says it is right."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook.kinds import KINDS
from tests.support import COMMAND, Server

Json = dict[str, Any]
CASES = {
    file.stem: json.loads(file.read_text()) for file in sorted(Path(__file__, "../cases").resolve().glob("*.json"))
}
SETTINGS = sorted({tuple(case.get("settings", ())) for case in CASES.values()})
USAGE, COSTS = "/v1/organization/usage", "/v1/organization/costs"
WINDOW = {"start_time": "1420070400", "bucket_width": "all"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[tuple[str, ...], Server]]:
    """A server for each set of settings."""
    started = {
        settings: Server.start(tmp_path_factory.mktemp("cases") / str(number), args=settings)
        for number, settings in enumerate(SETTINGS)
    }
    yield started
    for server in started.values():
        server.stop()


@pytest.mark.parametrize("name", CASES)
def test_it_is_counted_and_charged_right(servers: Mapping[tuple[str, ...], Server], tmp_path: Path, name: str) -> None:
    case = CASES[name]
    server = servers[tuple(case.get("settings", ()))]
    key = server.key(f"org-{name}")
    with server.http(key) as api:
        sent = [send(api, key, tmp_path, parcel) for parcel in case["send"] for _ in range(parcel.get("times", 1))]
        seen = observe(api, sent)
    wrong = [list(differences(wanted, seen)) for wanted in alternatives(case["expect"])]
    assert [] in wrong, f"{case['title']}: {case['why']}\n{wrong}"


def send(api: httpx.Client, key: str, folder: Path, parcel: Json) -> tuple[int, str]:
    """Send something; return how many records were not taken, and what was said of them."""
    if parcel["to"] == "import":
        (folder / parcel["file_name"]).write_text(parcel["text"])
        command = [*COMMAND, "import", parcel["file_name"], "--url", str(api.base_url)]
        environment = {**os.environ, "TALLYBOOK_ADMIN_KEY": key}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout + done.stderr
    content = parcel["text"].encode() if "text" in parcel else json.dumps(parcel["body"]).encode()
    kind = parcel.get("content_type", "application/json")
    answer = api.post(parcel["to"], content=content, headers={"content-type": kind})
    found = answer.json()
    if "rejected" in found:  # a receipt
        return found["rejected"], answer.text
    assert answer.status_code == 200, answer.text
    partial = found.get("partialSuccess", {})
    return sum(int(count) for field, count in partial.items() if field.startswith("rejected")), answer.text


def observe(api: httpx.Client, sent: list[tuple[int, str]]) -> Json:
    """What the server says of all that was sent."""
    kept = api.get(f"{USAGE}/quarantine", params={"limit": 100}).json()["data"]
    usage = {kind: results(api, f"{USAGE}/{kind}") for kind in KINDS}
    charges = results(api, COSTS)
    missing = api.get(f"{COSTS}/unpriced").json()["data"]
    return {
        "rejected": sum(count for count, _ in sent) or len(kept),
        "said": " ".join(text for _, text in sent) + json.dumps([entry["faults"] for entry in kept]),
        "usage": {kind: found[0] for kind, found in usage.items() if found and any(map(is_count, found[0].values()))},
        "by_model": {
            kind: {result["model"]: result for result in results(api, f"{USAGE}/{kind}", group_by="model")}
            for kind in ("completions",)
        },
        "cost": sum((charge["amount"]["value"] for charge in charges), Decimal()),
        "unpriced": sorted(row["line_item"] for row in missing),
    }


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def results(api: httpx.Client, path: str, **group: str) -> list[Json]:
    answer = api.get(path, params=WINDOW | group).raise_for_status()
    found: list[Json] = json.loads(answer.text, parse_float=Decimal)["data"][0]["results"]
    return found


def alternatives(expect: Json) -> Iterator[Json]:
    """Yield what is right, and what is right as well."""
    main = {field: value for field, value in expect.items() if field != "or"}
    if main:
        yield main
    for other in expect.get("or", []):
        if other == "rejected":
            yield {"usage": {}, "cost": "0", "rejected": "some"}
        elif other == "unpriced":
            yield main | {"cost": "0", "unpriced": "any"}
        else:
            yield other


def differences(wanted: Json, seen: Json) -> Iterator[str]:
    """Say what is not as wanted."""
    if "usage" in wanted:
        for kind in {*wanted["usage"], *seen["usage"]}:
            yield from unlike(kind, wanted["usage"].get(kind), seen["usage"].get(kind))
    for kind, models in wanted.get("usage_by_model", {}).items():
        for model, fields in models.items():
            yield from unlike(f"{kind} of {model}", fields, seen["by_model"][kind].get(model))
    if "cost" in wanted and seen["cost"] != Decimal(wanted["cost"]):
        yield f"cost {seen['cost']}, right {wanted['cost']}"
    unpriced = wanted.get("unpriced", [] if "cost" in wanted else None)
    if unpriced == "any" and not seen["unpriced"]:
        yield "nothing is unpriced"
    if isinstance(unpriced, list) and sorted(unpriced) != seen["unpriced"]:
        yield f"unpriced {seen['unpriced']}, right {unpriced}"
    rejected = wanted.get("rejected", 0)
    if rejected == "some" and not seen["rejected"]:
        yield "nothing rejected"
    if isinstance(rejected, int) and rejected != seen["rejected"]:
        yield f"rejected {seen['rejected']}, right {rejected}: {seen['said']}"
    if "unsaid" in wanted and wanted["unsaid"] in seen["said"]:
        yield f"{wanted['unsaid']} in a reason"


def unlike(what: str, fields: Json | str | None, found: Json | None) -> Iterator[str]:
    if fields == "any":
        return
    if not isinstance(fields, dict):
        yield f"{what} counted"
    elif found is None:
        yield f"no {what} counted"
    else:
        yield from (
            f"{what}.{field} {found[field]}, right {value}" for field, value in fields.items() if found[field] != value
        )
