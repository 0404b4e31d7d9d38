"""The command line for costs, prices and exports, as a user runs it: real processes, real files."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tallybook.cli.amounts import aligned, as_json, shown, total
from tests.support import COMMAND, STOP_S_MAX, Server
from tests.test_cli import run

DAY = 1_767_225_600  # 2026-01-01
DAY_S = 86_400
WINDOW = ("--since", "2026-01-01", "--until", "2026-01-03")
EVENTS = "/v1/organization/usage/events"
COSTS = "/v1/organization/costs"

PRICES = """model,counted,unit,price
house,input,1M tokens,{}
house,output,1M tokens,8
"""
MADE_UP_LIST: list[dict[str, Any]] = [
    {
        "id": "openai",
        "name": "OpenAI",
        "api_pattern": "https://api\\\\.openai\\\\.com",
        "model_match": {"starts_with": "gpt-"},
        "models": [{"id": "gpt-made-up", "match": {"equals": "gpt-made-up"}, "prices": {"input_mtok": 3}}],
    }
]


def words(*arguments: object, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Run a command that succeeds; return what it printed on standard output and on standard error."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, "COLUMNS": "160", **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def house(day: int, **others: Any) -> dict[str, Any]:
    """A completion of a model that only a file of the operator's has a price for: a million tokens in, none out."""
    event = {"kind": "completions", "model": "house", "timestamp": DAY + day * DAY_S, "input_tokens": 1_000_000}
    return event | others


def costing(value: str, day: int = 0, **others: Any) -> bytes:
    """An event that says itself what it cost."""
    event = {"kind": "images", "model": "painter", "timestamp": DAY + day * DAY_S, "images": 1, **others}
    return json.dumps(event)[:-1].encode() + b', "cost": {"currency": "usd", "value": ' + value.encode() + b"}}"


def send(api: httpx.Client, *events: bytes | dict[str, Any]) -> None:
    body = b"\n".join(event if isinstance(event, bytes) else json.dumps(event).encode() for event in events)
    assert api.post(EVENTS, content=body).json()["accepted"] == len(events)


@pytest.fixture
def served(server: Server, organization: str, api: httpx.Client) -> tuple[str, ...]:
    """Flags that reach the running server through its data directory, in an organization of the test's own."""
    return ("--data", str(server.data), "--organization", organization)


@pytest.fixture
def priced(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server of the test's own, and its price file: `house` costs 2 dollars a million tokens in, 8 out."""
    file = tmp_path / "prices.csv"
    file.write_text(PRICES.format(2))
    server = Server.start(tmp_path / "data", args=("--price-file", str(file)))
    yield server, file
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ("costs", ("unpriced", "rerate", "reratings")),
        ("prices", ("list", "show", "check", "update", "reload")),
        ("export", ("costs", "usage")),
    ],
)
def test_every_command_of_a_group_has_help_and_an_example(group: str, commands: tuple[str, ...]) -> None:
    listed = run(group, "--help")
    for command in commands:
        assert command in listed
        assert f"Example: tallybook {group} {command}" in run(group, command, "--help")
    assert group != "costs" or "Example: tallybook costs --group-by" in listed


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("0.000", "0.00"),
        ("1234567.125", "1,234,567.12"),
        ("12", "12.00"),
        ("0.5", "0.50"),
        ("0.999999", "1.00"),
        ("0.0123456", "0.0123"),
        ("0.00000000451", "0.00000000451"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("-0.04", "-0.04"),
        ("-1234.5", "-1,234.50"),
    ],
)
def test_a_table_rounds_an_amount_to_what_means_something_and_never_to_zero(amount: str, text: str) -> None:
    assert shown(Decimal(amount)) == text
    assert shown(Decimal(amount), signed=True) == ("+" if Decimal(amount) > 0 else "") + text


def test_amounts_stand_with_their_points_one_below_the_other() -> None:
    assert aligned(["1,234.50", "0.00000015", "-", "-3.10"]) == [
        "1,234.50      ",
        "    0.00000015",
        "    -         ",
        "   -3.10      ",
    ]
    assert aligned(["12", "3"]) == ["12", " 3"]


def test_a_total_is_exact_beyond_the_digits_decimals_have_by_default() -> None:
    amounts = [Decimal("1000000000000.000000000000000001")] * 3
    assert f"{total([*amounts, 1]):f}" == "3000000000001.000000000000000003"


def test_json_keeps_every_digit_and_steers_no_terminal() -> None:
    text = '{"a":[0.00000015,2.50,12,1e-7],"b":"\\u202e\\u009b\\u00e9"}'
    assert as_json(json.loads(text, parse_float=Decimal)) == text.replace("1e-7", "0.0000001")


def test_costs_are_a_table_with_a_total_and_exact_in_csv_and_json(api: httpx.Client, served: tuple[str, ...]) -> None:
    cost = "0.100000000000000003"
    send(api, costing(cost), costing("1234.5", 1), house(0))
    table, _ = words("costs", *WINDOW, *served)
    assert [line.split()[-2] for line in table.splitlines() if "│ 2026" in line] == ["0.10", "1,234.50"]
    assert "1,234.60" in next(line for line in table.splitlines() if "total" in line)
    printed, _ = words("costs", "--csv", "--group-by", "line_item,model", *WINDOW, *served)
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["amount_value"] for row in rows] == [cost, "1234.5"]
    assert {(row["line_item"], row["model"], row["amount_currency"]) for row in rows} == {
        ("painter, reported cost", "painter", "usd")
    }
    printed, _ = words("costs", "--json", *WINDOW, *served)
    assert f'"value": {cost},' in printed
    question = {"start_time": DAY, "end_time": DAY + 2 * DAY_S}
    assert (
        json.loads(printed, parse_float=str)
        == json.loads(api.get(COSTS, params=question).content, parse_float=str)["data"]
    )


def test_costs_are_drawn_and_narrowed_as_usage_is(api: httpx.Client, served: tuple[str, ...]) -> None:
    send(api, costing("3", project_id="p1"), costing("1", 1, project_id="p2"))
    bars, _ = words("costs", "-g", "project_id", "--plot", *WINDOW, *served)
    assert "█ p1" in bars
    drawn = [line.count("█") for line in bars.splitlines() if line.startswith("2026")]
    assert drawn[0] == pytest.approx(3 * drawn[1], abs=2)
    narrow, _ = words("costs", "--where", "project_id=p2", "--width", "1h", *WINDOW, *served)
    assert "1.00" in narrow
    assert "3.00" not in narrow
    assert "No costs in this window" in words("costs", "--since", "2025-01-01", "--until", "2025-01-02", *served)[0]


def test_more_days_than_a_page_has_are_all_shown(api: httpx.Client, served: tuple[str, ...]) -> None:
    send(api, costing("1"), costing("1", 200))
    table, _ = words("costs", "--since", "2026-01-01", "--until", "2026-12-31", *served)
    assert "2.00" in next(line for line in table.splitlines() if "total" in line)


def test_what_has_no_price_is_told_beside_the_costs_and_listed(api: httpx.Client, served: tuple[str, ...]) -> None:
    send(api, house(0), house(1, model="house-2", output_tokens=5), costing("1"))
    shown_, told = words("costs", "--csv", *WINDOW, *served)
    assert "unpriced" not in shown_
    assert re.search(r"unpriced: house(-2)?, house(-2)?; ", told)
    assert "tallybook costs unpriced --since 2026-01-01" in told
    assert "unpriced: house;" in words("costs", "--where", "model=house", *WINDOW, *served)[1]
    assert words("costs", "--where", "model=painter", *WINDOW, *served)[1] == ""
    assert words("costs", "--since", "2025-01-01", "--until", "2025-01-02", *served)[1] == ""
    listed, remedy = words("costs", "unpriced", *served)
    assert "1,000,000" in listed
    assert "tallybook costs rerate --from 2026-01-01" in remedy
    printed, _ = words("costs", "unpriced", "--json", "--since", "2026-01-02", *served)
    entries = [json.loads(line) for line in printed.splitlines()]
    assert {(entry["line_item"], entry["quantity"]) for entry in entries} == {
        ("house-2, input", 1_000_000),
        ("house-2, output", 5),
    }
    assert "Nothing is unpriced" in words("costs", "unpriced", "--until", "2025-01-01", *served)[0]


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (("project_id=p1",), "house"),
        (("user_id=u2",), "house-2"),
        (("api_key_id=k1",), "house"),
        (("line_item=house, input",), "house"),
        (("project_id=p1", "user_id=u2"), ""),
        (("service_tier=flex",), ""),
        (("batch=true",), ""),
    ],
)
def test_the_line_below_costs_is_about_what_was_asked_for(
    where: tuple[str, ...], named: str, api: httpx.Client, served: tuple[str, ...]
) -> None:
    send(
        api,
        house(0, project_id="p1", user_id="u1", api_key_id="k1"),
        house(0, model="house-2", project_id="p2", user_id="u2", api_key_id="k2"),
    )
    conditions = [word for condition in where for word in ("--where", condition)]
    table, told = words("costs", *conditions, *WINDOW, *served)
    assert ("Nothing in this window has a price" if named else "No costs in this window") in table
    assert told.partition(";")[0] == (f"unpriced: {named}" if named else "")


@pytest.mark.parametrize("schema", ["focus-1.4", "focus-1.2", "openai"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_of_costs_names_what_is_in_no_row(
    schema: str, form: str, api: httpx.Client, served: tuple[str, ...], tmp_path: Path
) -> None:
    window = ("--from", "2026-01-01", "--to", "2026-01-03", "--schema", schema)
    send(api, costing("1"))
    whole, part = tmp_path / f"whole.{form}", tmp_path / f"part.{form}"
    assert "unpriced" not in words("export", "costs", *window, "--output", whole, *served)[1]
    send(api, house(0))
    told = words("export", "costs", *window, "--output", part, *served)[1]
    assert "unpriced: house; no amount includes this usage" in told
    if form == "csv":
        assert part.read_bytes() == whole.read_bytes(), "the file has the columns and rows its readers know"


def test_an_import_names_what_it_brought_that_has_no_price(
    api: httpx.Client, served: tuple[str, ...], tmp_path: Path
) -> None:
    send(api, house(0, model="before"))
    file = tmp_path / "more.ndjson"
    file.write_text(json.dumps(house(1, id="e1")) + "\n" + costing("1", 1).decode() + "\n")
    told = words("import", file, *served)[1]
    assert "unpriced: house; no amount includes this usage. See 'tallybook costs unpriced --since 2026-01-02'" in told
    assert "unpriced" not in words("import", file, *served)[1], "the second time it brings nothing"


def test_a_free_model_is_not_unpriced(api: httpx.Client, served: tuple[str, ...]) -> None:
    send(api, {"kind": "moderations", "model": "omni-moderation-latest", "timestamp": DAY, "input_tokens": 9})
    table, told = words("costs", *WINDOW, *served)
    assert "0.00" in table
    assert told == ""


def test_doctor_warns_of_unpriced_usage_and_tells_the_price_book(priced: tuple[Server, Path]) -> None:
    server, file = priced
    with server.http() as api:
        send(api, house(0), house(0, model="house-2"))
    told, _ = words("doctor", "--data", server.data)
    (warning,) = [line for line in told.splitlines() if line.startswith("warn")]
    assert "unpriced: house-2, since 2026-01-01" in warning
    assert "tallybook costs rerate --from 2026-01-01 --organization org-default" in warning
    assert re.search(r"ok    prices: book_\w+: 2 of operator", told)
    file.write_text(PRICES.format(-1))
    told = run("doctor", "--data", server.data, code=1)
    assert re.search(r"FAIL  prices: .*line 2.*'-1'", told)
    file.write_text(PRICES.format(2))


def test_charging_anew_is_tried_done_once_and_recorded(priced: tuple[Server, Path]) -> None:
    server, file = priced
    flags = ("--data", server.data)
    with server.http() as api:
        send(api, house(0), house(1, output_tokens=1_000_000), house(2))
    january = ("--from", "2026-01-01T12:00:00Z", "--to", "2026-01-03", *flags)
    assert "Nothing changed." in words("costs", "rerate", *january)[0]
    file.write_text(PRICES.format("2.5"))  # in force at once, although the server may not have noticed yet

    def spent() -> list[float]:
        with server.http() as api:
            return _by_day(api, 3)

    table, _ = words("costs", "rerate", *january, "--dry-run")
    changes = [line.split() for line in table.splitlines() if "house, input" in line]
    assert [line[-6:-1:2] for line in changes] == [["2.00", "2.50", "+0.50"]] * 2 + [["4.00", "5.00", "+1.00"]]
    assert "house, output" not in table
    assert "2 events would change: these days would cost 13.00 USD in all, not 12.00. Nothing was changed." in table
    assert spent() == [2, 10, 2]
    assert words("costs", "reratings", *flags)[0] == "Nothing was charged anew yet.\n"

    done = json.loads(words("costs", "rerate", *january, "--json")[0])
    assert not done["dry_run"]
    assert [(day["before"], day["after"]) for day in done["days"]] == [(2, 2.5), (10, 10.5)]
    assert spent() == [2.5, 10.5, 2]
    assert "Nothing changed." in words("costs", "rerate", *january)[0]
    assert spent() == [2.5, 10.5, 2]

    listed, _ = words("costs", "reratings", *flags)
    assert [line.split()[4] for line in listed.splitlines() if "book_" in line] == ["2026-01-02", "2026-01-01"]
    entries = [json.loads(line) for line in words("costs", "reratings", "--json", *flags)[0].splitlines()]
    assert [entry["after"] for entry in entries] == [10.5, 2.5]
    assert {entry["book_id"] for entry in entries} == {done["book_id"]}
    assert len(words("costs", "reratings", "--json", "--limit", "1", *flags)[0].splitlines()) == 1


def test_what_it_would_have_cost_by_another_file_changes_nothing(priced: tuple[Server, Path]) -> None:
    server, file = priced
    flags = ("--from", "2026-01-01", "--to", "2026-01-02", "--data", server.data)
    with server.http() as api:
        send(api, house(0))
    other = file.with_name("other.csv")
    other.write_text(PRICES.format(5))
    table, _ = words("costs", "rerate", "--dry-run", "--book", other, *flags)
    assert "these days would cost 5.00 USD in all, not 2.00" in table
    assert "Nothing would change." in words("costs", "rerate", "--dry-run", *flags)[0]
    other.write_text(PRICES.format("free"))
    assert "line 2" in run("costs", "rerate", "--dry-run", "--book", other, *flags, code=1)


def test_charging_anew_that_is_stopped_says_which_days_are_done(priced: tuple[Server, Path]) -> None:
    days = 40
    server, file = priced
    with server.http() as api:
        send(api, *(house(day) for day in range(days)))
        file.write_text(PRICES.format(3))
        command = [*COMMAND, "costs", "rerate", "--from", "2026-01-01", "--to", str(DAY + days * DAY_S)]
        with subprocess.Popen(
            [*command, "--data", str(server.data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as rerating:
            deadline = time.monotonic() + STOP_S_MAX
            while len(api.get(f"{COSTS}/reratings").json()["data"]) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            rerating.send_signal(signal.SIGINT)
            _, told = rerating.communicate(timeout=STOP_S_MAX)
        assert rerating.returncode == 130
        (last, next_) = re.findall(r"to (2026-\d\d-\d\d) are charged anew; (2026-\d\d-\d\d) was under way", told)[0]
        assert f"--from {next_} goes on" in told
        amounts = _by_day(api, days)
        done = (date.fromisoformat(last) - date(2026, 1, 1)).days + 1
        assert 0 < done < days
        assert amounts[:done] == [3] * done
        assert amounts[done] in (2, 3)
        assert amounts[done + 1 :] == [2] * (days - done - 1)
        words(*command[len(COMMAND) : -3], next_, *command[-2:], "--data", server.data)
        assert _by_day(api, days) == [3] * days


def _by_day(api: httpx.Client, days: int) -> list[float]:
    found: list[float] = []
    while len(found) < days:
        question = {"start_time": DAY + len(found) * DAY_S, "end_time": DAY + days * DAY_S, "limit": 180}
        data = api.get(COSTS, params=question).json()["data"]
        found += [result["amount"]["value"] for bucket in data for result in bucket["results"]]
    return found


def test_a_command_without_a_server_charges_by_the_prices_of_the_settings(tmp_path: Path) -> None:
    file, events, data = tmp_path / "prices.csv", tmp_path / "events.ndjson", tmp_path / "data"
    file.write_text(PRICES.format(2))
    events.write_text(json.dumps(house(0)))
    data.mkdir()
    run("import", events, "--data", data, env={"TALLYBOOK_PRICE_FILE": str(file)})
    assert "2.00" in words("costs", *WINDOW, "--data", data)[0]
    (tmp_path / "tallybook.toml").write_text('price-file = "prices.csv"\norganization = "org-default"\n')
    assert "2" in run("prices", "show", "house", "--data", data, cwd=tmp_path)
    assert "has no price of its own" in run("prices", "show", "house", "--data", data, code=1)


def test_prices_are_listed_by_pattern_and_date(priced: tuple[Server, Path]) -> None:
    server, file = priced
    flags = ("--data", server.data)
    file.write_text("model,counted,unit,price,from\nhouse,input,1M tokens,2,\nhouse,input,1M tokens,1.50,2026-02-01\n")
    words("prices", "reload", *flags)
    for day, price in (("2026-01-31", 2), ("2026-02-01", 1.5)):
        printed, _ = words("prices", "list", "HOUSE", "--json", "--at", day, *flags)
        entries = [json.loads(line) for line in printed.splitlines()]
        assert {entry["model"] for entry in entries} == {"house"}
        assert {entry["price"] for entry in entries} == {price}
    listed, book = words("prices", "list", "dall-e-*", *flags)
    assert "dall-e-3" in listed
    assert "house" not in listed
    assert re.match(r"book_\w+: operator", book)
    assert "no price is for 'nothing-like-it'" in run("prices", "list", "nothing-like-it", *flags, code=1)


def test_all_that_prices_a_model_is_shown(priced: tuple[Server, Path]) -> None:
    server, file = priced
    flags = ("--data", server.data)
    file.write_text(
        "model,counted,service_tier,above_input_tokens,unit,price,from\n"
        "house,input,,,1M tokens,2,\n"
        "house,input,,200000,1M tokens,4,\n"
        "house,input,flex,,1M tokens,1,2026-02-01\n"
    )
    words("prices", "reload", *flags)
    assert "They are as the server read them last. book_" in words("prices", "reload", *flags)[0]
    table, _ = words("prices", "show", "house", *flags)
    assert "above 200,000 input tokens" in table
    assert "tier flex" in table
    for day, prices in (("2026-01-31", set()), ("2026-02-01", {1})):
        printed, _ = words("prices", "show", "house", "--json", "--at", day, *flags)
        entries = [json.loads(line) for line in printed.splitlines()]
        wanted = {"kind": "completions", "counted": "input", "service_tier": "flex", "batch": None}
        assert {entry["price"] for entry in entries if wanted.items() <= entry.items()} == prices
    assert "nobody-knows has no price of its own now" in run("prices", "show", "nobody-knows", *flags, code=1)


def test_a_price_file_is_tried_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("# ours\nmodel,counted,unit,price\nhouse own-*,input,1M tokens,-1\nhouse,outptu,1M tokens,2\n")
    told = run("prices", "check", file, code=1)
    assert f"{file}: line 3, price: " in told
    assert "'-1'" in told
    assert "line 4, counted: " in told
    assert "did you mean output?" in told
    assert "2 faults" in told
    assert "line 3" in run("prices", "check", "-", code=1, typed=file.read_text())
    file.write_text(PRICES.format(2))
    assert "2 entries for 1 models, no fault" in run("prices", "check", file)
    assert "cannot read" in run("prices", "check", tmp_path / "missing.csv", code=1)
    file.write_bytes("model,counted,unit,price\nü,input,1M tokens,2\n".encode("latin-1"))
    assert "it is not UTF-8" in run("prices", "check", file, code=1)


def test_newer_list_prices_are_in_force_at_once_and_the_changes_told(priced: tuple[Server, Path]) -> None:
    server, file = priced
    flags = ("--data", server.data)
    fetched = file.with_name("list.json")
    for price in (3, 2):
        MADE_UP_LIST[0]["models"][0]["prices"]["input_mtok"] = price
        fetched.write_text(json.dumps(MADE_UP_LIST))
        told, _ = words("prices", "update", "--from", fetched, *flags)
        assert "List prices of 1 models" in told
    assert "0 prices are new, 0 gone, 1 changed" in told
    assert "gpt-made-up, input: 3 to 2 USD per 1M tokens" in told
    assert "gpt-made-up" in words("prices", "show", "gpt-made-up", *flags)[0]
    fetched.write_text("no prices")
    assert "prices" in run("prices", "update", "--from", fetched, *flags, code=1)
    assert "gpt-made-up" in words("prices", "show", "gpt-made-up", *flags)[0]
    empty = file.with_name("empty")
    empty.mkdir()
    fetched.write_text(json.dumps(MADE_UP_LIST))
    assert "List prices of 1 models" in words("prices", "update", "--from", fetched, "--data", empty)[0]


@pytest.mark.parametrize("name", ["costs.csv", "costs.parquet"])
def test_costs_are_exported_to_a_file_or_standard_output(
    name: str, api: httpx.Client, served: tuple[str, ...], tmp_path: Path
) -> None:
    send(api, costing("0.100000000000000003"), costing("5", 1))
    window = ("--from", "2026-01-01", "--to", "2026-01-03", *served)
    output = tmp_path / name
    printed, told = words("export", "costs", *window, "--output", output)
    assert printed == ""
    assert f"Wrote {output}" in told.replace("\n", "")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith(".parquet"):
        rows = pq.read_table(output).to_pylist()
    else:
        rows = list(csv.DictReader(io.StringIO(output.read_text(encoding="utf-8-sig"))))
        assert words("export", "costs", *window)[0] == output.read_text()
    assert {Decimal(row["BilledCost"]) for row in rows} == {Decimal("0.100000000000000003"), 5}
    dashboard, _ = words("export", "costs", "--schema", "openai", *window)
    assert [row["amount_value"] for row in csv.DictReader(io.StringIO(dashboard))] == ["0.100000000000000003", "5"]


def test_usage_is_exported_so_that_it_can_be_imported(
    api: httpx.Client, served: tuple[str, ...], server: Server, tmp_path: Path
) -> None:
    send(api, house(0, id="a"), costing("0.100000000000000003", id="b"), house(5, id="c"))
    window = ("--from", "2026-01-01", "--to", "2026-01-03")
    for name in ("usage.csv", "usage.parquet"):
        organization = f"{served[-1]}-{name}"
        words("export", "usage", *window, "--output", tmp_path / name, *served)
        run("import", tmp_path / name, "--data", server.data, "--organization", organization)
        with server.http(server.key(organization)) as other:
            for path in (f"{COSTS}?group_by=line_item&", "/v1/organization/usage/completions?group_by=model&"):
                url = f"{path}start_time={DAY}&end_time={DAY + 3 * DAY_S}"
                assert other.get(url).text.replace(organization, served[-1]) == api.get(url).text
    images, _ = words("export", "usage", *window, "--kind", "images", *served)
    assert [row["id"] for row in csv.DictReader(io.StringIO(images))] == ["b"]


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server that answers as a handler does; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@contextmanager
def breaking() -> Iterator[str]:
    """A server whose connection breaks in the middle of every answer; yields its address."""

    class Half(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhalf,\r\n")
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the standard library
            pass

    with answering(Half) as url:
        yield url


def test_an_export_that_breaks_leaves_no_file_and_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "costs.csv"
    output.write_text("of yesterday")
    with breaking() as url:
        environment = {"TALLYBOOK_URL": url, "TALLYBOOK_ADMIN_KEY": "sk-admin-not-told"}
        told = run("export", "costs", "--from", "2026-01-01", "--output", output, code=1, env=environment)
    assert "no whole answer" in told
    assert "sk-admin-not-told" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["costs.csv"]
    assert output.read_text() == "of yesterday"


def test_an_export_stays_whole_if_the_question_for_unpriced_usage_fails(tmp_path: Path) -> None:
    class Exporting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_export = self.path.startswith("/v1/organization/costs/export")
            content = b"a,b\n1,2\n" if is_export else b"{}"
            self.send_response(200 if is_export else 503)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the standard library
            pass

    output = tmp_path / "costs.csv"
    with answering(Exporting) as url:
        environment = {"TALLYBOOK_URL": url, "TALLYBOOK_ADMIN_KEY": "sk-admin-x"}
        said = words("export", "costs", "--from", "2026-01-01", "--output", output, env=environment)[1]
    assert "The export is complete, but" in said
    assert output.read_text() == "a,b\n1,2\n"


def test_an_export_whose_reader_stops_ends_quietly(api: httpx.Client, served: tuple[str, ...]) -> None:
    send(api, *(house(0, id=str(number)) for number in range(2_000)))
    command = [*COMMAND, "export", "usage", "--from", "2026-01-01", "--to", "2026-01-02", *served]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as exporting:
        assert exporting.stdout is not None
        assert exporting.stderr is not None
        exporting.stdout.readline()
        exporting.stdout.close()
        assert b"Traceback" not in exporting.stderr.read()
        assert exporting.wait(STOP_S_MAX) in (0, 141)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("costs", "--where", "nope=1"), "write FIELD=VALUE with one of line_item"),
        (("costs", "--since", "yesterday"), "is no time"),
        (("costs", "-g", "nope"), "Supported values are"),
        (("costs", "rerate", "--from", "2026-02-01", "--to", "2026-01-01"), "is not after --from 2026-02-01"),
        (("costs", "rerate", "--from", "2026-01-01", "--book", "missing.csv"), "cannot read missing.csv"),
        (("costs", "--data", "missing"), "there is no data directory missing"),
        (("prices", "update", "--data", "missing"), "there is no data directory missing"),
        (("prices", "update", "--from", "missing.json"), "missing.json"),
        (
            ("export", "costs", "--from", "2026-01-01", "--output", "no/such/folder.csv"),
            "cannot write no/such/folder.csv",
        ),
        (("export", "usage", "--from", "2026-02-01", "--to", "2026-01-01"), "end_time"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    told = run(*arguments, code=1, env={"TALLYBOOK_DATA": str(tmp_path / "data")}, cwd=tmp_path)
    assert said in told
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_names_that_look_like_markup_or_steer_a_terminal_do_no_harm(api: httpx.Client, served: tuple[str, ...]) -> None:
    names = ["[/x]", "[red]x", "\u202ex"]
    send(api, *(house(0, model=name, id=name) for name in names), *(costing("1", model=name) for name in names))
    table, told = words("costs", "-g", "line_item,model", *WINDOW, *served)
    listed, _ = words("costs", "unpriced", *served)
    for text in (table, told, listed):
        assert "[/x]" in text
        assert "[red]x" in text
        assert "\u202e" not in text
    assert "\u202e" not in words("costs", "unpriced", "--json", *served)[0]
