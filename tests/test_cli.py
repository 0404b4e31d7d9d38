"""The command line as a user runs it: real processes, real files."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook.ingest.zstandard import zstd
from tallybook.kinds import KINDS
from tests.support import COMMAND, Server

TRACES = sorted((Path(__file__).parents[2] / "shared" / "data").glob("azure-llm-inference-2023-conv.csv"))
"""A real trace, where it lies beside the project."""
DAY = 1_767_225_600  # 2026-01-01


def run(
    *arguments: object, code: int = 0, env: Mapping[str, str] | None = None, cwd: Path | None = None, typed: str = ""
) -> str:
    """Run the command, expect its exit code, and return what it printed."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, "COLUMNS": "160", **(env or {})},
        cwd=cwd,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + (done.stderr if code else "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that no server holds."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def served(server: Server, organization: str) -> tuple[str, ...]:
    """Flags that reach the running server through its data directory, in an organization of the test's own."""
    return ("--data", str(server.data), "--organization", organization)


def events_file(path: Path, count: int = 3) -> Path:
    lines = (
        f'{{"kind": "images", "id": "e{number}", "timestamp": {DAY + number}, "images": 2, "model": "m{number % 2}"}}'
        for number in range(count)
    )
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("command", ["", "serve", "usage", "import", "rebuild", "doctor", "demo", "keys create"])
def test_every_command_has_help(command: str) -> None:
    text = run(*command.split(), "--help")
    assert "Usage: tallybook" in text
    assert command == "" or "Example: tallybook" in text


@pytest.mark.parametrize("group", ["keys", "quarantine"])
def test_every_command_of_a_group_has_an_example(group: str) -> None:
    commands = {"keys": ("create", "list", "revoke"), "quarantine": ("list", "replay", "drop")}[group]
    assert all(command in run(group, "--help") for command in commands)
    assert all(f"Example: tallybook {group} {command}" in run(group, command, "--help") for command in commands)


def test_import_and_usage_work_without_a_server_and_beside_one(data: Path, served: tuple[str, ...]) -> None:
    file = events_file(data.parent / "events.ndjson")
    for target in (("--data", data), served):
        assert "3" in run("import", file, *target)
        answer = json.loads(run("usage", "images", "--since", "2026-01-01", "--until", "2026-01-02", "--json", *target))
        assert [result["images"] for bucket in answer for result in bucket["results"]] == [6]


def test_a_server_elsewhere_is_reached_with_url_and_key(server: Server, organization: str, tmp_path: Path) -> None:
    environment = {"TALLYBOOK_URL": server.url, "TALLYBOOK_ADMIN_KEY": server.key(organization)}
    run("import", events_file(tmp_path / "events.ndjson"), env=environment)
    assert "6" in run("usage", "images", "--since", "2026-01-01", "--until", "2026-01-02", env=environment)
    assert "needs an admin key" in run("usage", "images", code=1, env={"TALLYBOOK_URL": server.url})
    refused = run("usage", "images", code=1, env={**environment, "TALLYBOOK_ADMIN_KEY": "sk-admin-wrong"})
    assert "Incorrect API key" in refused
    unreachable = run("usage", "images", code=1, env={**environment, "TALLYBOOK_URL": "http://127.0.0.1:9"})
    assert "no answer from http://127.0.0.1:9" in unreachable


@pytest.mark.parametrize(
    "name", ["events.ndjson", "events.ndjson.gz", "events.ndjson.zst", "events.json", "events.csv"]
)
def test_each_file_format_is_imported(name: str, tmp_path: Path, served: tuple[str, ...]) -> None:
    plain = events_file(tmp_path / "plain").read_bytes()
    rows = [json.loads(line) for line in plain.splitlines()]
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain))
    elif name.endswith(".zst"):
        path.write_bytes(zstd.compress(plain))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=2))
    elif name.endswith(".csv"):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_bytes(plain)
    run("import", path, *served)
    (again,) = [line for line in run("import", path, *served).splitlines() if "3" in line]
    assert [cell.strip() for cell in again.strip("│").split("│")] == ["0", "3", "0", "0", "0"]


def test_rows_without_id_get_one_from_file_and_row(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "trace.csv"
    rows = ["when,who,tokens", "2026-01-01 10:00:00.1234567,ann,10", "2026-01-01 10:00:01,bob,20"]
    options = (
        "--kind",
        "embeddings",
        "--map",
        "timestamp=when",
        "--map",
        "user_id=who",
        "--map",
        "input_tokens=tokens",
    )
    file.write_text("\n".join(rows))
    run("import", file, *options, "--set", "model=e5", *served)
    file.write_text("\n".join([*rows, "2026-01-01 10:00:02,ann,40"]))  # the file has grown
    run("import", file, *options, "--set", "model=e5", *served)
    table = run(
        "usage", "embeddings", "-g", "user_id,model", "--since", "2026-01-01", "--until", "2026-01-02", "--csv", *served
    )
    found = {row["user_id"]: (row["model"], row["input_tokens"]) for row in csv.DictReader(table.splitlines())}
    assert found == {"ann": ("e5", "50"), "bob": ("e5", "20")}


def bad_file(path: Path) -> Path:
    """A good event, a line that is not JSON, a bad event, a good event."""
    rows: list[Any] = [{"kind": "images", "images": images, "timestamp": DAY} for images in (1, -1, 1)]
    path.write_text("\n".join([json.dumps(rows[0]), "nonsense", json.dumps(rows[1]), json.dumps(rows[2])]))
    return path


def test_bad_rows_are_told_by_row_and_the_good_ones_stored(tmp_path: Path, served: tuple[str, ...]) -> None:
    told = run("import", bad_file(tmp_path / "events.ndjson"), *served, code=1)
    assert "row 2: the item is not JSON" in told
    assert "row 3: images must be an integer" in told
    assert "2 events in quarantine" in run("doctor", *served[:2], code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.csv",), "cannot read"),
        (("plain.csv", "--map", "input_tokens=nope"), "there is no column 'nope'; the file has a, b"),
        (("plain.csv", "--map", "nope=a"), "write FIELD=..."),
        (("broken.ndjson.gz",), "cannot read"),
        (("latin.csv",), "cannot read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, served: tuple[str, ...]
) -> None:
    (tmp_path / "plain.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.ndjson.gz").write_bytes(gzip.compress(b'{"kind": "images", "images": 1}\n' * 1000)[:60])
    (tmp_path / "latin.csv").write_bytes("a,b\nü,2\n".encode("latin-1"))
    assert said in run("import", *arguments, *served, code=1, cwd=tmp_path)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name)
def test_a_real_trace_is_counted_to_the_last_token_and_once(path: Path, data: Path) -> None:
    columns = ("timestamp=TIMESTAMP", "input_tokens=ContextTokens", "output_tokens=GeneratedTokens")
    options = ("--kind", "completions", *(word for column in columns for word in ("--map", column)), "--data", data)
    for _ in range(2):
        run("import", path, *options)
        table = run("usage", "completions", "--since", "2023-11-16", "--until", "2023-11-17", "--csv", "--data", data)
        (row,) = csv.DictReader(table.splitlines())
        counted = (row["num_model_requests"], row["input_tokens"], row["output_tokens"])
        assert counted == ("19366", "22361870", "4088665")


def test_usage_as_table_bars_and_csv(tmp_path: Path, served: tuple[str, ...]) -> None:
    run("import", events_file(tmp_path / "events.ndjson", count=5), *served)
    window = ("--since", "2026-01-01", "--until", "2026-01-02")
    table = run("usage", "images", "-g", "model", *window, *served)
    assert [line.split()[-2] for line in table.splitlines() if "m0" in line or "m1" in line] == [
        "3",
        "2",
    ] or "6" in table
    bars = run("usage", "images", "-g", "model", "--plot", *window, *served)
    assert "█ m0" in bars
    assert "10" in bars
    narrow = run("usage", "images", "--where", "model=m1", "--width", "1h", *window, *served)
    assert "4" in narrow
    assert "No images usage" in run("usage", "images", "--since", "2025-01-01", "--until", "2025-01-02", *served)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usage", "images", "--since", "yesterday"), "is no time"),
        (("usage", "images", "--where", "nope=1"), "write FIELD=VALUE with one of project_id"),
        (("usage", "images", "--measure", "tokens"), "it has images, num_model_requests"),
        (("usage", "images", "-g", "nope"), "Supported values are"),
        (("quarantine", "replay", "quar_none"), "No quarantined event"),
        (("quarantine", "drop"), "name one entry, or --all"),
        (("keys", "revoke", "key_none"), "has no key key_none"),
        (("keys", "create", "x\n"), "printable"),
        (("keys", "create", "x", "--expires", "2020-01-01"), "lies in the past"),
        (("usage", "images", "--data", "missing"), "there is no data directory missing"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(arguments: tuple[str, ...], said: str, data: Path) -> None:
    assert said in run(*arguments, code=1, env={"TALLYBOOK_DATA": str(data)}, cwd=data.parent)


def test_an_unknown_kind_is_refused_with_the_nearest(data: Path) -> None:
    assert 'Did you mean "completions"?' in run("usage", "completion", "--data", data, code=2)


def test_keys_work_at_once_on_the_running_server(server: Server, organization: str) -> None:
    flags = ("--data", server.data, "--organization", organization)
    value = run("keys", "create", "reader", "--scope", "read", "--expires", "1d", *flags).strip()

    def status() -> int:
        headers = {"authorization": f"Bearer {value}"}
        return httpx.get(
            f"{server.url}/v1/organization/usage/images?start_time={DAY}", headers=headers, trust_env=False
        ).status_code

    assert status() == 200
    listed = run("keys", "list", *flags)
    assert "reader" in listed
    assert value not in listed
    (key_id,) = [word for word in listed.split() if word.startswith("key_")]
    run("keys", "revoke", key_id, *flags)
    assert status() == 401


def test_quarantine_is_listed_mended_replayed_and_dropped(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "events.ndjson"
    wrong = [{"kind": "image", "images": 1, "timestamp": DAY}, {"kind": "images", "image": 1, "timestamp": DAY}]
    file.write_text("\n".join(['{"kind":"images","images":1,"timestamp":1}', *map(json.dumps, wrong), "nonsense"]))
    run("import", file, *served, code=1)
    entries = [json.loads(line) for line in run("quarantine", "list", "--json", *served).splitlines()]
    assert len(entries) == 4
    assert "did you mean images?" in run("quarantine", "list", *served)
    mended = json.dumps(entries[1]["event"] | {"kind": "images"})
    assert "accepted 1" in run("quarantine", "replay", entries[1]["id"], "--event", "-", *served, typed=mended)
    run("quarantine", "drop", entries[2]["id"], *served)
    assert "still rejected 2" in run("quarantine", "replay", *served, code=1)
    assert "Dropped 2." in run("quarantine", "drop", "--all", *served)
    assert run("quarantine", "list", "--json", *served) == ""


def test_doctor_and_rebuild_say_what_they_did(data: Path) -> None:
    run("import", events_file(data.parent / "events.ndjson"), "--data", data)
    assert "Rebuilt 1 days." in run("rebuild", "--since", "2026-01-01", "--until", "2026-01-02", "--data", data)
    assert "3 events in 2 series" in run("doctor", "--data", data)


def test_a_setting_is_taken_from_flag_then_environment_then_file(tmp_path: Path) -> None:
    (tmp_path / "tallybook.toml").write_text('events-max = 2\nrows-max = 3\nlog-level = "nonsense"\n')
    wrong = run("serve", "--data", tmp_path / "data", code=2, cwd=tmp_path)
    assert "nonsense" in wrong
    (tmp_path / "tallybook.toml").write_text("no-such-setting = 2\n")
    assert "no-such-setting" in run("serve", "--data", tmp_path / "data", code=2, cwd=tmp_path)
    (tmp_path / "settings.toml").write_text("events-max = 1\n")
    event = b'{"kind": "images", "images": 1}'
    for env, flags, most in (
        ({}, (), 1),
        ({"TALLYBOOK_EVENTS_MAX": "2"}, (), 2),
        ({"TALLYBOOK_EVENTS_MAX": "2"}, ("--events-max", "3"), 3),
    ):
        environment = {"TALLYBOOK_CONFIG": str(tmp_path / "settings.toml"), **env}
        server = Server.start(tmp_path / "data", env=environment, args=flags)
        with server.http() as client:
            path = "/v1/organization/usage/events"
            assert client.post(path, content=b"\n".join([event] * most)).status_code == 200
            assert client.post(path, content=b"\n".join([event] * (most + 1))).status_code == 413
        assert server.stop() == 0


def test_the_first_key_is_printed_once_or_taken_from_the_environment(tmp_path: Path) -> None:
    given = "sk-admin-" + "x" * 40
    printed = Server.start(tmp_path / "printed")
    assert printed.stop() == 0
    log = (tmp_path / "printed" / "server.log").read_text()
    assert log.count("Admin key (shown once): sk-admin-") == 1
    again = Server.start(tmp_path / "printed")
    assert again.stop() == 0
    assert (tmp_path / "printed" / "server.log").read_text().count("Admin key") == 1
    chosen = Server.start(tmp_path / "chosen", env={"TALLYBOOK_ADMIN_KEY": given})
    with chosen.http(given) as client:
        assert client.get("/v1/organization/usage/check").status_code == 200
    assert chosen.stop() == 0
    assert given not in (tmp_path / "chosen" / "server.log").read_text()
    weak = run("serve", "--data", tmp_path / "weak", "--port", 0, code=1, env={"TALLYBOOK_ADMIN_KEY": "secret-123"})
    assert "must start with sk-admin-" in weak
    assert "secret-123" not in weak


def test_a_port_that_is_taken_is_one_line(server: Server, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    assert f"port {port}: Address already in use" in run("serve", "--data", tmp_path / "x", "--port", port, code=1)


def test_the_demo_never_clears_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    assert "is not a demo" in run("demo", "--data", tmp_path / "precious", "--port", 0, code=1)


def test_the_demo_fills_a_new_store_and_prints_questions_that_work(tmp_path: Path) -> None:
    command = [*COMMAND, "demo", "--data", str(tmp_path / "demo"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        try:
            assert demo.stdout is not None
            printed = "".join(iter(demo.stdout.readline, "Ctrl-C stops it.\n"))
            (snippet,) = re.findall(r"<<'END'\n(.*?)\nEND\n", printed, re.DOTALL)
            asked = subprocess.run(
                [sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True
            )
            assert "gpt-5" in asked.stdout
            (address,) = re.findall(r"^curl -s (\".*?\")", printed, re.MULTILINE)
            expanded = subprocess.run(["sh", "-c", f"echo {address}"], capture_output=True, text=True, check=True)
            (key,) = set(re.findall(r"sk-admin-[\w-]+", printed))
            page = httpx.get(expanded.stdout.strip(), headers={"authorization": f"Bearer {key}"}, trust_env=False)
            assert page.json()["data"][1]["results"]
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+(?= with)", printed)
            month_ago = int(time.time()) - 30 * 86_400
            with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as client:
                for kind in KINDS:
                    question = {"start_time": month_ago, "limit": 31}
                    data = client.get(f"/v1/organization/usage/{kind}", params=question).json()["data"]
                    assert sum(len(bucket["results"]) for bucket in data) > 25, kind
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0


@pytest.mark.parametrize(
    "flag",
    ["--queries-max=0", "--compact-every-s=-1", "--port=99999", "--memory-bytes-max=0", "--body-bytes-max=1"],
)
def test_a_setting_out_of_bounds_is_refused(flag: str, tmp_path: Path) -> None:
    assert "Must be" in run("serve", "--data", tmp_path / "data", flag, code=2)


def test_a_settings_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert "which is no file" in run("doctor", code=1, env={"TALLYBOOK_CONFIG": missing})


def test_a_file_of_no_kind_is_refused_before_anything_is_sent(tmp_path: Path, served: tuple[str, ...]) -> None:
    (tmp_path / "trace.csv").write_text("input_tokens\n5\n")
    assert "say which with --kind" in run("import", tmp_path / "trace.csv", *served, code=1)
    assert run("quarantine", "list", "--json", *served) == ""


def test_a_new_data_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    run("keys", "create", "x", "--data", tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert (tmp_path / "data" / "keys.sqlite3").stat().st_mode & 0o077 == 0


def test_rows_without_a_timestamp_are_told_and_not_imported(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(f'{{"kind":"images","images":1,"timestamp":{DAY}}}\n{{"kind":"images","images":1}}')
    for outcome in ("accepted", "duplicates"):
        told = run("import", file, *served, code=1)
        assert "row 2: it has no timestamp" in told
        assert outcome in told
    assert run("quarantine", "list", "--json", *served) == ""


def test_files_of_the_same_name_need_names_of_their_own(tmp_path: Path, served: tuple[str, ...]) -> None:
    paths = [tmp_path / region / "usage.csv" for region in ("eu", "us")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"timestamp,images\n{DAY},1\n")
    assert "one by one, each with --name" in run("import", *paths, "--kind", "images", *served, code=1)
    for path in paths:
        run("import", path, "--kind", "images", "--name", path.parent.name, *served)
    table = run("usage", "images", "--since", "2026-01-01", "--until", "2026-01-02", "--csv", *served)
    assert [row["images"] for row in csv.DictReader(table.splitlines())] == ["2"]


def test_a_row_wider_than_the_header_is_one_fault(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "usage.csv"
    file.write_text(f"timestamp,images\n{DAY},1\n{DAY},1,surprise\n")
    told = run("import", file, "--kind", "images", *served, code=1)
    assert "row 2: images events have no beyond the header" in told


def test_names_that_look_like_markup_or_steer_a_terminal_do_no_harm(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "events.ndjson"
    names = ["[/x]", "[red]x", "[bold", "\u202ex"]
    rows = [
        {"kind": "images", "images": 1, "id": name, "timestamp": DAY, "model": name, "user_id": name} for name in names
    ]
    rows.append({"kind": "images", "images": 1, "timestamp": DAY, "[/b]\x1b]0;owned": 1})
    file.write_text("\n".join(map(json.dumps, rows)))
    told = run("import", file, *served, code=1)
    assert "\x1b]0;" not in told
    window = ("--since", "2026-01-01", "--until", "2026-01-02")
    table = run("usage", "images", "-g", "model,user_id", *window, *served)
    assert all(name in table for name in names[:3])
    assert "[/x] / [/x]" in run("usage", "images", "-g", "model,user_id", "--plot", *window, *served)
    assert "[/b]" in run("quarantine", "list", *served)


def test_an_organization_misspelt_is_not_made(server: Server) -> None:
    flags = ("--data", server.data, "--organization", "org-tyop")
    assert "there is no organization org-tyop" in run("usage", "images", *flags, code=1)
    assert "org-tyop" not in run("keys", "list", "--data", server.data)


def test_damaged_keys_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "keys.sqlite3").write_bytes(b"no keys" * 1000)
    assert "cannot open the keys" in run("keys", "list", "--data", tmp_path, code=1)
    assert "cannot open the keys" in run("serve", "--data", tmp_path, "--port", 0, code=1)
