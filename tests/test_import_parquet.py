"""Usage exports come back whole, and Parquet is imported like any other file: costs and counts to the last digit."""

import csv
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tallybook.clock import now_s
from tallybook.export.files import Format, stream
from tallybook.export.usage import usage_batches, usage_schema
from tallybook.ingest.decode import decode
from tallybook.kinds import DIMENSIONS, KINDS, MEASURES, TOKEN_MEASURES
from tallybook.tokens import Contradiction, complete
from tallybook.traffic import traffic
from tests.support import Server
from tests.test_cli import run

DAY = 1_767_225_600  # 2026-01-01
START = datetime.fromtimestamp(DAY, UTC)
WINDOW: dict[str, Any] = {"start_time": DAY, "end_time": DAY + 2 * 86_400, "bucket_width": "1h", "limit": 48}
FORMATS: tuple[Format, ...] = ("csv", "parquet")

Event = dict[str, Any]


@pytest.fixture
def served(server: Server, organization: str) -> tuple[str, ...]:
    return ("--data", str(server.data), "--organization", organization)


@pytest.fixture
def elsewhere(server: Server, organization: str) -> Iterator[httpx.Client]:
    """An organization that has nothing yet."""
    with server.http(server.key(f"{organization}-2")) as client:
        yield client


def some_of_everything() -> list[Event]:
    """A few hours of made-up traffic, and events at the edges of what there can be."""
    events = list(chain.from_iterable(traffic(START, START + timedelta(hours=2))))
    tiny, large = Decimal("0.000000000000000001"), Decimal("999999999999.999999999999999999")
    edges: list[Event] = [
        {"kind": "completions", "input_tokens": 2**53 - 1, "input_cached_audio_tokens": 7, "user_id": "=1+1"},
        {
            "kind": "completions",
            "output_tokens": 5,
            "output_text_tokens": 1,
            "cost": {"value": tiny, "currency": "usd"},
        },
        {"kind": "decisions", "input_tokens": 9, "input_cache_write_tokens": 4, "api_source": "agents_api"},
        {"kind": "images", "images": 0, "batch": True, "cost": {"value": large, "currency": "usd"}},
        {"kind": "audio_transcriptions", "seconds": 2.5, "model": 'a,"b"'},
        {"kind": "vector_stores", "usage_bytes": 0, "vector_store_id": "vs_é", "project_id": "-1"},
        {"kind": "web_search_calls", "context_level": "low", "cost": {"value": Decimal(0), "currency": "usd"}},
        {"kind": "file_search_calls"},
        {"kind": "code_interpreter_sessions", "project_id": "@p"},
    ]
    moment = DAY + 12 * 3_600
    return [
        *(event | {"id": f"e{number}"} for number, event in enumerate(events)),
        *(event | {"id": f"edge {n}", "timestamp": f"2026-01-01T12:00:0{n}.5{n}9Z"} for n, event in enumerate(edges)),
        {"kind": "moderations", "input_tokens": 3, "timestamp": moment},  # without an id
    ]


ENCODER = msgspec.json.Encoder(decimal_format="number")


def exported(events: Sequence[Event], path: Path, format_: Format) -> Path:
    """The export of events as the store has them: whole, and null where a kind has no such field."""
    decoded = decode(ENCODER.encode(events), now_s() * 1000, len(events))
    assert not decoded.rejected
    rows: list[Event] = [
        {"kind": record.kind.name, "id": record.id, "timestamp": record.timestamp_ms * 1000, "cost": record.cost}
        | dict(zip(record.kind.dimensions, record.dimensions, strict=True))
        | dict(zip(record.kind.measures, record.measures, strict=True))
        for record in decoded.records
    ]
    types = {field.name: field.type for field in usage_schema()} | {"timestamp": pa.timestamp("us")}
    batch = pa.record_batch({name: pa.array([row.get(name) for row in rows], type_) for name, type_ in types.items()})
    path.write_bytes(b"".join(stream(usage_batches([batch]), usage_schema(), format_)))
    return path


def answers(api: httpx.Client) -> dict[str, Any]:
    """Everything the Usage API can tell."""
    found = {}
    for name, kind in KINDS.items():
        for group_by in ([], list(kind.group_by)):
            answer = api.get(f"/v1/organization/usage/{name}", params={**WINDOW, "group_by": group_by}).json()
            found[f"{name} by {group_by}"] = [bucket["results"] for bucket in answer["data"]]
            assert any(found[f"{name} by {group_by}"])
    return found


OUTCOMES = ("accepted", "duplicates", "conflicts", "rejected", "ignored")


def receipt(printed: str) -> list[int]:
    """Accepted, duplicates, conflicts, rejected."""
    (line,) = [
        line for line in printed.splitlines() if line.count("│") == len(OUTCOMES) + 1 and any(map(str.isdigit, line))
    ]
    *found, ignored = [int(cell.replace(",", "")) for cell in line.strip("│").split("│")]
    assert ignored == 0
    return found


@pytest.mark.parametrize("format_", FORMATS)
def test_an_export_imported_into_an_empty_store_gives_the_same_answers(
    format_: Format,
    tmp_path: Path,
    server: Server,
    organization: str,
    api: httpx.Client,
    elsewhere: httpx.Client,
) -> None:
    events = some_of_everything()
    api.post("/v1/organization/usage/events", content=ENCODER.encode(events)).raise_for_status()
    file = exported(events, tmp_path / f"usage.{format_}", format_)
    flags = ("--data", server.data, "--organization", f"{organization}-2")
    assert receipt(run("import", file, *flags)) == [len(events), 0, 0, 0]
    assert answers(elsewhere) == answers(api)
    # What comes with an id is the same event, its cost included, and not another of the same id.
    known = [event for event in events if "id" in event]
    again = elsewhere.post("/v1/organization/usage/events", content=ENCODER.encode(known)).json()
    assert (again["duplicates"], again["conflicts"], again["accepted"]) == (len(known), 0, 0)
    assert receipt(run("import", file, *flags)) == [0, len(events), 0, 0]


WHOLES = {"input_tokens": st.integers(20, 40), "output_tokens": st.none() | st.integers(9, 20)}
SOME = st.sampled_from([None, None, None, None, 0, 1, 3])


@settings(max_examples=1_000, deadline=None, derandomize=True)
@given(given_parts=st.tuples(*(WHOLES.get(name, SOME) for name in TOKEN_MEASURES)))
def test_all_parts_of_an_event_are_accepted_together(given_parts: tuple[int | None, ...]) -> None:
    try:
        whole = complete(given_parts)
    except Contradiction:
        assume(False)
    assert complete(whole) == whole


def posted(api: httpx.Client, kind: str, *measures: str) -> list[int]:
    answer = api.get(f"/v1/organization/usage/{kind}", params={**WINDOW, "bucket_width": "1d", "limit": 2}).json()
    (result,) = answer["data"][0]["results"]
    return [result[measure] for measure in measures]


def test_tables_of_other_tools_are_read_as_they_come(
    tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    instants = [DAY * 10**9 + 123_456_789, (DAY + 1) * 10**9, (DAY + 2) * 10**9]
    columns: dict[str, Any] = {
        "when": pa.array(instants, pa.timestamp("ns", tz="Europe/Berlin")),
        "who": pa.array(["ann", "bob", None]).dictionary_encode(),
        "in": pa.array([10.0, 20.0, float("nan")]),  # how tables without nullable integers write them
        "out": pa.array([1, 2, 3], pa.uint8()),
        "model": pa.array([b"gpt-4o", b"gpt-4o", b"gpt-4o"], pa.binary()),
        "price": pa.array([0.1, 0.2, None]),
        "more": pa.array([[1], [2], [3]]),
    }
    table = pa.table(columns)
    file = tmp_path / "trace.parquet"
    pq.write_table(table, file, row_group_size=2)
    fields = {"timestamp": "when", "user_id": "who", "input_tokens": "in", "output_tokens": "out", "model": "model"}
    options = [f"--map={field}={column}" for field, column in (fields | {"cost": "price"}).items()]
    command = ("import", file, "--kind", "completions", *options, "--set", "batch=true", *served)
    assert receipt(run(*command)) == [3, 0, 0, 0]
    assert receipt(run(*command)) == [0, 3, 0, 0]
    assert posted(api, "completions", "input_tokens", "output_tokens") == [30, 6]
    same: Event = {
        "kind": "completions",
        "id": "trace.parquet:1",
        "timestamp": DAY + 0.123,
        "user_id": "ann",
        "batch": True,
    }
    same |= {"input_tokens": 10, "output_tokens": 1, "model": "gpt-4o", "cost": {"value": 0.1, "currency": "usd"}}
    assert api.post("/v1/organization/usage/events", json=same).json()["duplicates"] == 1


@pytest.mark.parametrize(
    ("column", "instant"),
    [
        (pa.array([DAY]), DAY),
        (pa.array([DAY + 0.25]), DAY + 0.25),
        (pa.array(["2026-01-01T00:00:00Z"]), DAY),
        (pa.array([datetime(2026, 1, 1)]), DAY),  # noqa: DTZ001  a time without an offset is UTC
        (pa.array([datetime(2026, 1, 1).date()]), DAY),  # noqa: DTZ001
        (pa.array([DAY], pa.timestamp("s", tz="America/New_York")), DAY),
    ],
)
def test_instants_of_every_type_are_read(
    column: Any, instant: float, tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    pq.write_table(pa.table({"timestamp": column, "id": ["a"], "images": [1]}), tmp_path / "t.parquet")
    run("import", tmp_path / "t.parquet", "--kind", "images", *served)
    same = {"kind": "images", "id": "a", "timestamp": instant, "images": 1}
    assert api.post("/v1/organization/usage/events", json=same).json()["duplicates"] == 1


COSTS = ["0.1", "0.000000000000000001", "123456789012.123456789012345678", "0", "1E-18"]


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind_of_file", ["csv", "ndjson", "json", "parquet", "whole.ndjson", "whole.parquet"])
def test_a_cost_is_imported_to_its_last_digit(
    kind_of_file: str, cost: str, tmp_path: Path, served: tuple[str, ...], api: httpx.Client
) -> None:
    file = tmp_path / f"costs.{kind_of_file}"
    whole: Any = {"value": Decimal(cost), "currency": "usd"}
    row: Event = {"kind": "images", "id": "a", "timestamp": DAY, "images": 1, "cost": Decimal(cost)}
    if kind_of_file == "csv":
        with file.open("w", newline="") as stream_:
            csv.writer(stream_).writerows([row, row.values()])
    elif kind_of_file.endswith("parquet"):
        type_ = pa.decimal128(38, 18)
        struct = pa.struct([("value", type_), ("currency", pa.string())])
        column = pa.array([whole], struct) if "whole" in kind_of_file else pa.array([row["cost"]], type_)
        pq.write_table(pa.table({**{name: [row[name]] for name in row if name != "cost"}, "cost": column}), file)
    else:
        line = ENCODER.encode(row | {"cost": whole} if "whole" in kind_of_file else row)
        file.write_bytes(b"[%s]" % line if kind_of_file == "json" else line)
    run("import", file, *served)
    same = ENCODER.encode(row | {"cost": whole})
    assert api.post("/v1/organization/usage/events", content=same).json()["duplicates"] == 1


@pytest.mark.parametrize("cost", ["-1", "1,5", "NaN", "Infinity", "free", "0.0000000000000000001"])
def test_a_cost_that_is_none_is_refused_and_kept(cost: str, tmp_path: Path, served: tuple[str, ...]) -> None:
    file = tmp_path / "costs.csv"
    file.write_text(f'kind,timestamp,images,cost\nimages,{DAY},1,"{cost}"\n')
    told = run("import", file, *served, code=1)
    assert receipt(told) == [0, 0, 0, 1]
    assert "cost" in told
    (kept,) = run("quarantine", "list", "--json", *served).splitlines()
    assert json.loads(kept)["event"]["images"] == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.parquet", b"kind,timestamp\n", "cannot read"),
        ("empty.parquet", b"", "cannot read"),
        ("usage.parquet.gz", b"PAR1", "unpack it first"),
    ],
)
def test_a_file_that_is_no_parquet_is_told_in_a_line(
    name: str, content: bytes, said: str, tmp_path: Path, served: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in run("import", tmp_path / name, "--kind", "images", *served, code=1)


def test_a_file_that_broke_off_is_told_in_a_line(tmp_path: Path, served: tuple[str, ...]) -> None:
    whole = exported(some_of_everything(), tmp_path / "usage.parquet", "parquet").read_bytes()
    (tmp_path / "usage.parquet").write_bytes(whole[: len(whole) // 2])
    assert "cannot read" in run("import", tmp_path / "usage.parquet", *served, code=1)


def test_a_column_that_is_not_there_is_named(tmp_path: Path, served: tuple[str, ...]) -> None:
    pq.write_table(pa.table({"timestamp": [DAY], "images": [1]}), tmp_path / "usage.parquet")
    told = run("import", tmp_path / "usage.parquet", "--map=cost=price", "--kind", "images", *served, code=1)
    assert "there is no column 'price'; the file has timestamp, images" in told


def test_an_export_has_a_column_for_every_field_the_importer_takes() -> None:
    fields = {"kind", "id", "timestamp", "cost", *DIMENSIONS, *MEASURES}
    assert set(usage_schema().names) == fields
