"""Files of other software, imported as they come: batches, spend logs, dashboards; folders, patterns, pipes."""

import csv
import gzip
import io
import json
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.progress import Progress

from tallybook.cli.importing import batches
from tallybook.cli.reading import Line
from tallybook.cli.rows import find, rows
from tests.support import COMMAND
from tests.test_cli import run

T = 1_763_800_000
DAY = T - T % 86_400
WINDOW = {"start_time": DAY, "end_time": DAY + 86_400}
HEADER = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,"
    "service_tier,input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens,input_text_tokens,"
    "output_text_tokens,input_audio_tokens,output_audio_tokens"
)


@pytest.fixture
def served(server: Any, organization: str) -> tuple[str, ...]:
    return ("--data", str(server.data), "--organization", organization)


def results(api: httpx.Client, kind: str, *group_by: str) -> list[dict[str, Any]]:
    parameters: dict[str, Any] = {**WINDOW, "group_by": list(group_by)}
    page = api.get(f"/v1/organization/usage/{kind}", params=parameters).raise_for_status().json()
    return [result for bucket in page["data"] for result in bucket["results"]]


def outcome(*arguments: object, code: int = 0, typed: str = "") -> list[int]:
    """Counts of the summary: accepted, duplicates, conflicts, rejected, ignored."""
    lines = run("import", *arguments, code=code, typed=typed).splitlines()
    row = lines[next(number for number, line in enumerate(lines) if "accepted" in line) + 2]
    return [int(cell.replace(",", "")) for cell in row.strip("│ ").split("│")]


def batch_line(number: int, **body: Any) -> str:
    answer = {
        "object": "chat.completion",
        "id": f"chatcmpl-{number}",
        "created": T + number,
        "model": "gpt-4o",
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }
    response = {"status_code": 200, "request_id": f"req_{number}", "body": answer | body}
    return json.dumps({"id": f"batch_req_{number}", "custom_id": f"c{number}", "response": response, "error": None})


def failed_line(number: int) -> str:
    response = {"status_code": 400, "body": {"error": {"message": "no"}}}
    return json.dumps({"id": f"batch_req_{number}", "custom_id": f"c{number}", "response": response})


def test_a_batchs_output_is_counted_once(tmp_path: Path, served: tuple[str, ...], api: httpx.Client) -> None:
    file = tmp_path / "batch.jsonl"
    file.write_text("\n".join([batch_line(1), failed_line(2), batch_line(3, usage={"prompt_tokens": "?"})]))
    told = run("import", file, "--set", "project_id=search", *served, code=1)
    assert "batch.jsonl row 3: response.body.usage.prompt_tokens must be an integer" in told
    file.write_text("\n".join([batch_line(1), failed_line(2), batch_line(3)]))
    assert outcome(file, "--set", "project_id=search", *served) == [1, 1, 0, 0, 1]
    (result,) = results(api, "completions", "project_id", "batch")
    assert (result["project_id"], result["batch"], result["input_tokens"]) == ("search", True, 20)


def test_lines_without_a_time_of_their_own_can_be_given_one(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    body = {"object": "list", "data": [{"object": "embedding"}], "usage": {"prompt_tokens": 3}, "created": None}
    file = tmp_path / "embeddings.jsonl"
    file.write_text("\n".join(batch_line(number, **body) for number in range(3)))
    assert "created is missing" in run("import", file, *served, code=1)
    for expected in ([3, 0, 0, 0, 0], [0, 3, 0, 0, 0]):
        assert outcome(file, "--set", f"timestamp={T}", *served) == expected
    assert [result["input_tokens"] for result in results(api, "embeddings")] == [9]


ANSWER = {
    "object": "chat.completion",
    "id": "a",
    "created": T,
    "model": "gpt-4o",
    "usage": {"prompt_tokens": 10, "completion_tokens": 2},
}
LINE = json.dumps(ANSWER)
MARK = "\ufeff"


@pytest.mark.parametrize(
    ("content", "accepted", "rejected"),
    [
        (json.dumps(ANSWER, indent=2), 1, 0),
        (json.dumps([ANSWER], indent=2), 1, 0),
        (f"{MARK}[{LINE}]", 1, 0),
        (f"{MARK}{LINE}\n", 1, 0),
        (f"{LINE}\r\n\n", 1, 0),
        (f"[{LINE}, null, 5]", 1, 2),
        (f'{{"half": "\\ud800"}}\n{LINE}', 1, 1),
        (f'{{"broken"\n{LINE}\n', 1, 1),
        (f'{{"beyond all measure": 1e99999999999999999999}}\n{LINE}\n', 1, 1),
        (f"{LINE}\n{'x' * 40_000_000}\n", 1, 1),
        ("", 0, 0),
    ],
)
def test_json_is_read_however_it_is_written(
    tmp_path: Path, served: tuple[str, ...], content: str, accepted: int, rejected: int
) -> None:
    file = tmp_path / "answers.json"
    file.write_text(content)
    expected = [accepted, 0, 0, rejected, 0]
    assert outcome(file, "--format", "openai", *served, code=int(rejected > 0)) == expected


def test_of_an_array_only_its_bytes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps([ANSWER] * 20_000))
    (file,) = find([path])
    with Progress(disable=True) as progress:
        task = progress.add_task("")
        tracemalloc.start()
        try:
            assert sum(row == ANSWER for row in rows(file, (), progress, task)) == 20_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 3 * file.size_bytes


def test_batches_are_no_larger_than_a_body_may_be() -> None:
    lines = (Line("f", number, b"x" * 60_000) for number in range(600))
    found = list(batches(lines))
    assert sum(map(len, found)) == 600
    assert all(sum(len(line.event) for line in batch) < 16 * 1024 * 1024 for batch in found)


def test_anthropics_batches_are_known_by_their_result(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    message = {"type": "message", "id": "msg_1", "model": "claude-sonnet-4-5"}
    used = {"input_tokens": 1, "cache_read_input_tokens": 9, "output_tokens": 2}
    line = {"custom_id": "a", "result": {"type": "succeeded", "message": message | {"usage": used}}}
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(line))
    assert outcome(file, "--set", f"timestamp={T}", *served) == [1, 0, 0, 0, 0]
    (result,) = results(api, "completions", "batch")
    assert (result["input_tokens"], result["input_cached_tokens"], result["batch"]) == (10, 9, True)


def spend_rows() -> list[dict[str, Any]]:
    details = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 60}}
    common = {
        "call_type": "acompletion",
        "api_key": "hash",
        "spend": 0.25,
        "total_tokens": 105,
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "endTime": "2025-11-22 09:00:00.123",
        "model": "gpt-4o",
        "user": "ann",
        "team_id": "team",
        "cache_hit": "False",
        "metadata": json.dumps({"usage_object": details}),
    }
    return [
        common | {"request_id": "chatcmpl-1"},
        common | {"request_id": "chatcmpl-2", "metadata": "{}"},
        common | {"request_id": "chatcmpl-3", "cache_hit": "True"},
        common
        | {"request_id": "chatcmpl-4", "status": "failure", "metadata": "{}", "spend": 0, "completion_tokens": 0},
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tsv"])
def test_litellms_spend_logs_are_calls(suffix: str, tmp_path: Path, served: tuple[str, ...], api: httpx.Client) -> None:
    rows = spend_rows()
    rows[0]["messages"] = "x" * 200_000  # prompts are logged as well, if the gateway is told to
    file = tmp_path / f"spend.{suffix}"
    if suffix == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = csv.DictWriter(text, columns, delimiter="\t" if suffix == "tsv" else ",")
        table.writeheader()
        table.writerows(rows)
        file.write_text(text.getvalue())
    assert outcome(file, "--reported-costs", *served) == [2, 0, 0, 0, 2]
    (result,) = results(api, "completions", "project_id", "user_id", "api_key_id")
    who = (result["project_id"], result["user_id"], result["api_key_id"])
    assert (who, result["input_tokens"], result["input_cached_tokens"]) == (("team", "ann", "hash"), 200, 60)
    page = api.get("/v1/organization/costs", params=WINDOW).json()
    assert [result["amount"]["value"] for bucket in page["data"] for result in bucket["results"]] == [0.5]


def test_the_dashboards_usage_is_an_event_a_bucket_and_group(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    window = f"{DAY},{DAY + 3600},2025-11-22T00:00:00+00:00,2025-11-22T01:00:00+00:00"
    empty = f"{DAY + 3600},{DAY + 7200},2025-11-22T01:00:00+00:00,2025-11-22T02:00:00+00:00" + "," * 15
    rows = [
        f"{window},proj,3.0,user,key_a,gpt-4o,False,default,4212,1673,1280,2932,2932,1673,0,0",
        f"{window},proj,1.0,user,key_b,gpt-4o,True,default,5904,1419,0,5904,5904,1419,0,0",
    ]
    file = tmp_path / "completions_usage_2025-11-22_2025-11-22.csv"
    file.write_text("\n".join([HEADER, *rows, empty]))
    for expected in ([2, 0, 0, 0, 1], [0, 2, 0, 0, 1]):
        assert outcome(file, *served) == expected
    first, second = sorted(results(api, "completions", "api_key_id", "batch"), key=lambda row: str(row["api_key_id"]))
    assert (first["num_model_requests"], first["input_tokens"], first["input_cached_tokens"]) == (3, 4212, 1280)
    assert (second["num_model_requests"], second["batch"], second["output_tokens"]) == (1, True, 1419)
    costs = tmp_path / "cost_2025-11-22_2025-11-22.csv"
    costs.write_text(f"start_time,end_time,start_time_iso,end_time_iso,amount_value\n{window},0.5\n")
    assert "an export of costs" in run("import", costs, *served, code=1)


def test_the_kind_of_a_dashboards_file_is_in_its_name(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    file = tmp_path / "embeddings_usage_2025-11-22_2025-11-22.csv"
    window = f"{DAY},{DAY + 3600},2025-11-22T00:00:00+00:00,2025-11-22T01:00:00+00:00"
    header = "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,input_tokens"
    file.write_text(f"{header}\n{window},proj,2,text-embedding-3-small,50\n")
    renamed = file.rename(tmp_path / "june.csv")
    assert "say which kind" in run("import", renamed, *served, code=1)
    assert results(api, "embeddings") == []
    assert outcome(renamed, "--kind", "embeddings", *served) == [1, 0, 0, 0, 0]
    assert outcome(renamed.rename(file), "--name", "june", *served) == [0, 1, 0, 0, 0]
    assert [result["input_tokens"] for result in results(api, "embeddings")] == [50]


def test_folders_patterns_and_pipes_are_read(tmp_path: Path, served: tuple[str, ...], api: httpx.Client) -> None:
    event = '{"kind": "images", "images": 1, "timestamp": %d}'
    for folder, number in (("a", 1), ("b", 2)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "events.ndjson").write_text(event % (T + number))
    (tmp_path / "in" / "more.ndjson.gz").write_bytes(gzip.compress((event % T).encode()))
    (tmp_path / "in" / "readme.md").write_text("no events")
    assert outcome(tmp_path / "in", *served) == [3, 0, 0, 0, 0]
    assert outcome(tmp_path / "in", *served) == [0, 3, 0, 0, 0]
    assert outcome(tmp_path / "in" / "*.gz", *served) == [0, 1, 0, 0, 0], "its name is the same"
    assert "need --name" in run("import", "-", *served, code=1, typed=event % T)
    for expected in ([1, 0, 0, 0, 0], [0, 1, 0, 0, 0]):
        assert outcome("-", "--name", "pipe", *served, typed=event % T) == expected
    assert "no file is called like" in run("import", tmp_path / "*.none", *served, code=1)
    (tmp_path / "empty").mkdir()
    assert "there is no file to import" in run("import", tmp_path / "empty", *served, code=1)
    assert [result["images"] for result in results(api, "images")] == [4]


def test_what_is_wrong_is_told_by_file_and_what_came_before_is_stored(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    for name, images in (("a", -1), ("b", 2), ("c", -3)):
        event = {"kind": "images", "timestamp": T}
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(event | {"images": n}) for n in (1, images)))
    told = run("import", tmp_path, *served, code=1)
    assert "a.jsonl row 2: " in told
    assert "c.jsonl row 2: " in told
    assert "b.jsonl" not in told
    (tmp_path / "d.jsonl").write_text(json.dumps({"kind": "images", "timestamp": T, "images": 7}))
    (tmp_path / "e.csv").write_bytes(b"kind,timestamp,images\nimages,\xff,1\n")
    told = run("import", tmp_path, *served, code=1)
    assert "cannot read" in told
    (result,) = results(api, "images")
    assert result["images"] == 1 + 1 + 2 + 1 + 7


def test_a_dry_run_shows_what_would_be_stored_and_stores_nothing(tmp_path: Path) -> None:
    file = tmp_path / "batch.jsonl"
    file.write_text("\n".join([batch_line(1), failed_line(2), batch_line(3, usage={"prompt_tokens": -1})]))
    told = run("import", file, "--dry-run", "--data", tmp_path / "nowhere", code=1)
    sample = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    assert (sample["kind"], sample["id"], sample["input_tokens"]) == ("completions", "chatcmpl-1", 10)
    assert "row 3: response.body.usage.prompt_tokens" in told
    assert "completions" in told
    assert not (tmp_path / "nowhere").exists()


def test_an_import_that_was_broken_off_is_begun_again_and_stores_the_rest(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    file = tmp_path / "events.ndjson"
    lines = [f'{{"kind": "images", "images": 1, "timestamp": {T + number % 3600}}}' for number in range(12_000)]
    file.write_text("\n".join(lines[:6_000]) + '\n{"kind": ')
    told = run("import", file, *served, code=1)
    assert "6,000" in told or "6000" in told
    file.write_text("\n".join(lines))
    assert outcome(file, *served) == [6_000, 6_000, 0, 0, 0]
    assert [result["images"] for result in results(api, "images")] == [12_000]


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows))


def dashboard(*rows: dict[str, Any], **more: Any) -> str:
    """An export of the dashboard, of one day, project, user, key and model."""
    group = {
        "start_time": DAY,
        "end_time": DAY + 86_400,
        "start_time_iso": "x",
        "end_time_iso": "x",
        "project_id": "p",
        "user_id": "u",
        "api_key_id": "k",
        "model": "gpt-5",
        "batch": "FALSE",
        "service_tier": "default",
    }
    made = [{**group, "num_model_requests": 1, "input_tokens": 0, "output_tokens": 0, **row, **more} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, made[0])
    writer.writeheader()
    writer.writerows(made)
    return text.getvalue()


@pytest.mark.parametrize("count", [2, 3, 5_100])
def test_rows_of_one_group_are_all_usage_and_the_same_file_is_the_same_usage(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client, count: int
) -> None:
    file = tmp_path / "completions_usage_2025.csv"
    file.write_text(dashboard(*({"input_tokens": number % 2} for number in range(count)), {"model": "gpt-4o"}))
    assert outcome(file, *served) == [count + 1, 0, 0, 0, 0]
    assert outcome(file, *served) == [0, count + 1, 0, 0, 0]
    (result,) = results(api, "completions")
    assert (result["num_model_requests"], result["input_tokens"]) == (count + 1, count // 2)


def noted(*arguments: object) -> str:
    """What an import says beside its summary."""
    done = subprocess.run(
        [*COMMAND, "import", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stderr


def test_columns_that_nothing_reads_are_reported_once_by_name(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "completions_usage_2025.csv"
    file.write_text(dashboard({}, {}, context="long", project_name="Search"))
    told = noted(file, *served)
    assert told.count("completions_usage_2025.csv: columns that are not read: context\n") == 1
    mapped = tmp_path / "trace.csv"
    mapped.write_text(f"when,tokens,cached\n{T},5,3\n")
    told = noted(mapped, "--kind", "embeddings", "--map", "timestamp=when", "--map", "input_tokens=tokens", *served)
    assert "trace.csv: columns that are not read: cached" in told


def test_fields_of_usage_that_nothing_reads_are_reported(tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "gemini.jsonl"
    file.write_text(lines({**GEMINI, "usageMetadata": {"promptTokenCount": 9, "dreamTokenCount": 4}}))
    assert "Fields of usage that are not read: usageMetadata.dreamTokenCount (1)" in noted(file, *served)


GEMINI: dict[str, Any] = {
    "modelVersion": "gemini-2.5-flash",
    "responseId": "gem-1",
    "createTime": "2025-11-22T08:26:40Z",
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
}
INSTANT = {"timestamp": "2025-11-22T08:26:40.100Z"}


def transcript(written: int, **fields: Any) -> dict[str, Any]:
    message = {"type": "message", "id": "msg_1", "model": "claude-sonnet-4-5"}
    counts = {"usage": {"input_tokens": 9, "output_tokens": written}}
    return {"type": "assistant", "uuid": "u", "sessionId": "s", "message": message | counts} | INSTANT | fields


def codex(kind: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, "payload": payload} | INSTANT


def counted(read: int, cached: int, written: int) -> dict[str, int]:
    total = read + written
    return {"input_tokens": read, "cached_input_tokens": cached, "output_tokens": written, "total_tokens": total}


def token_count(total: dict[str, int] | None, last: dict[str, int] | None = None) -> dict[str, Any]:
    info = {name: usage for name, usage in (("total_token_usage", total), ("last_token_usage", last)) if usage}
    return codex("event_msg", type="token_count", info=info or None)


def spoken(written: int, name: str = "m1") -> dict[str, Any]:
    tokens = {"input": 9, "output": written, "cached": 0, "thoughts": 2, "tool": 0, "total": 11 + written}
    return {"id": name, "type": "gemini", "model": "gemini-2.5-pro", "tokens": tokens if written else None} | INSTANT


SESSION = {"sessionId": "s", "projectHash": "h", "kind": "main"}


@pytest.mark.parametrize(
    ("rows", "model", "expected"),
    [
        ([GEMINI], "gemini-2.5-flash", (9, 3, 1)),
        ([{"usage": {"inputTokens": 9, "outputTokens": 3}, "ResponseMetadata": {"RequestId": "r"}}], "m", (9, 3, 1)),
        (
            [{"model": "llama3.2", "created_at": INSTANT["timestamp"], "done": True, "eval_count": 3}],
            "llama3.2",
            (0, 3, 1),
        ),
        ([{"id": "c", "usage": {"billed_units": {"input_tokens": 9, "output_tokens": 3}}}], "m", (9, 3, 1)),
        (
            [{"type": "summary", "summary": "x", "leafUuid": "u"}, transcript(1), transcript(1), transcript(3)],
            "claude-sonnet-4-5",
            (9, 3, 1),
        ),
        (
            [
                codex("session_meta", id="s"),
                codex("turn_context", model="gpt-5-codex"),
                token_count(None),
                token_count(counted(9, 4, 3), counted(9, 4, 3)),
                token_count(counted(9, 4, 3), counted(9, 4, 3)),
                token_count(counted(30, 13, 8), counted(21, 9, 5)),
                token_count(counted(40, 20, 10)),
            ],
            "gpt-5-codex",
            (40, 10, 3),
        ),
        ([SESSION | {"messages": [spoken(3), spoken(4, "m2")]}], "gemini-2.5-pro", (18, 11, 2)),
        (
            [SESSION, spoken(0), spoken(3), {"$set": {"messages": [spoken(3)]}}, {"$rewindTo": "m1"}],
            "gemini-2.5-pro",
            (9, 5, 1),
        ),
    ],
    ids=["gemini", "bedrock", "ollama", "cohere", "claude-code", "codex", "gemini-cli json", "gemini-cli jsonl"],
)
def test_answers_and_sessions_are_recognised_and_counted_once(
    tmp_path: Path,
    served: tuple[str, ...],
    api: httpx.Client,
    rows: list[dict[str, Any]],
    model: str,
    expected: tuple[int, int, int],
) -> None:
    file = tmp_path / "session.jsonl"
    file.write_text(lines(*rows))
    known = () if model != "m" else ("--set", "model=m", "--set", f"timestamp={T}")
    if rows[0].get("ResponseMetadata"):
        file.write_text(lines({"response": rows[0], "model": model}))
    assert outcome(file, *known, *served)[:4] == [expected[2], 0, 0, 0]
    assert outcome(file, *known, *served)[:4] == [0, expected[2], 0, 0]
    (result,) = results(api, "completions", "model")
    assert result["model"] == model
    assert (result["input_tokens"], result["output_tokens"], result["num_model_requests"]) == expected


def test_a_fork_of_a_session_does_not_count_what_it_begins_with_again(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    begun = [codex("turn_context", model="gpt-5-codex"), token_count(counted(9, 4, 3), counted(9, 4, 3))]
    (tmp_path / "rollout-1.jsonl").write_text(lines(codex("session_meta", id="a"), *begun))
    fork = codex("session_meta", id="b", forked_from_id="a")
    (tmp_path / "rollout-2.jsonl").write_text(lines(fork, *begun, token_count(counted(19, 4, 6), counted(10, 0, 3))))
    assert outcome(tmp_path, *served)[:4] == [2, 1, 0, 0]
    assert [result["input_tokens"] for result in results(api, "completions")] == [19]


def test_files_of_calls_and_of_events_can_be_imported_together(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    (tmp_path / "a.jsonl").write_text(lines({"kind": "embeddings", "id": "e", "timestamp": T, "input_tokens": 5}))
    (tmp_path / "b.jsonl").write_text("not json\n" + lines(GEMINI))
    (tmp_path / "c.jsonl").write_text(lines({"kind": "embeddings", "id": "f", "timestamp": T, "input_tokens": 5}))
    assert outcome(tmp_path, *served, code=1)[:4] == [3, 0, 0, 1]
    assert [result["input_tokens"] for result in results(api, "embeddings")] == [10]
