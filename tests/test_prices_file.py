"""A price file with any fault is refused whole, with line, value and remedy, and the running book stays."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from tallybook.prices.file import read
from tests.costs_model import CostQuestion
from tests.model import Row
from tests.support import Server
from tests.test_costs_exactness import COSTS, amounts, ask_costs, exactly, send
from tests.test_exactness import fresh

DAY = 1_748_822_400  # 2025-06-02T00:00:00Z
GOOD = "# the prices in force\nmodel,counted,unit,price\nm,input,token,2\n"
HEADER = "model,counted,unit,price"

OVERLAPPING = {
    "in part": "m,input,token,2,09:00-12:00,,,,\nm,input,token,3,10:00-14:00,,,,\n",
    "one in the other": "m,input,token,2,09:00-12:00,,,,\nm,input,token,3,10:00-11:00,,,,\n",
    "the same hours on a common weekday": (
        "m,input,token,2,09:00-12:00,mon-fri,,,\nm,input,token,3,09:00-12:00,fri sat,,,\n"
    ),
    "a whole day and hours": "m,input,token,2,,sat sun,,,\nm,input,token,3,22:00-24:00,,,,\n",
    "an open line and a later one": (
        "m,input,token,2,09:00-12:00,,,,\nm,input,token,3,10:00-14:00,,,2026-03-01,2026-04-01\n"
    ),
    "of two zones": (
        "m,input,token,2,09:00-10:00,,Europe/Berlin,,\nm,input,token,3,08:00-09:00,,,,\n"  # in winter
    ),
    "the same price": "m,input,token,2,09:00-12:00,,,,\nm,input,token,2,10:00-14:00,,,,\n",
    "among models": "m n,input,token,2,09:00-12:00,,,,\nn,input,token,3,10:00-14:00,,,,\n",
}
APART = {
    "one after the other": "m,input,token,2,09:00-12:00,,,,\nm,input,token,3,12:00-14:00,,,,\n",
    "on other days": "m,input,token,2,09:00-12:00,mon-fri,,,\nm,input,token,3,10:00-14:00,sat sun,,,\n",
    "in other years": "m,input,token,2,09:00-12:00,,,,2026-03-01\nm,input,token,3,10:00-14:00,,,2026-03-01,\n",
    "of other things": "m,input,token,2,09:00-12:00,,,,\nm,output,token,3,10:00-14:00,,,,\n",
    "of two zones": "m,input,token,2,09:00-10:00,,Asia/Shanghai,,\nm,input,token,3,02:00-09:00,,,,\n",
    "of two zones that meet in winter alone": (
        "m,input,token,2,09:00-10:00,,Europe/Berlin,2026-05-01,2026-09-01\nm,input,token,3,08:00-09:00,,,,\n"
    ),
    "beside one without hours": "m,input,token,2,,,,,\nm,input,token,3,10:00-14:00,,,,\n",
}

# name of the fault, the file, what the message must contain: the line, the value, what would be right
BAD: list[tuple[str, str, tuple[str, ...]]] = [
    ("unknown column", f"{HEADER},colour\nm,input,token,2,red\n", ("line 1", "colour")),
    ("misspelt column", "model,counted,unit,prise\nm,input,token,2\n", ("line 1", "prise", "price")),
    ("column twice", f"{HEADER},price\nm,input,token,2,3\n", ("line 1", "price")),
    ("more cells than columns", f"{HEADER}\nm,input,token,2,3\n", ("line 2", "5", "4")),
    ("fewer cells than columns", f"{HEADER}\nm,input,token\n", ("line 2",)),
    ("no header", "m,input,token,2\n", ("line 1",)),
    ("negative price", f"# ours\n\n{HEADER}\nm,input,token,-2\n", ("line 4", "-2")),
    ("no decimal", f"{HEADER}\nm,input,token,2\nm,output,token,two\n", ("line 3", "two")),
    ("comma for a point", f'{HEADER}\nm,input,token,"2,50"\n', ("line 2", "2,50")),
    ("currency sign", f"{HEADER}\nm,input,token,$2.50\n", ("line 2", "$2.50")),
    ("not a number", f"{HEADER}\nm,input,token,NaN\n", ("line 2", "NaN")),
    ("infinite", f"{HEADER}\nm,input,token,Infinity\n", ("line 2", "Infinity")),
    ("exponent", f"{HEADER}\nm,input,token,25e-7\n", ("line 2", "25e-7")),
    ("no price", f"{HEADER}\nm,input,token,\n", ("line 2", "price")),
    ("unknown unit", f"{HEADER}\nm,input,1B tokens,2\n", ("line 2", "1B tokens", "1M tokens")),
    ("no unit", f"{HEADER}\nm,input,,2\n", ("line 2", "unit")),
    ("unit of something else", f"{HEADER}\nm,input,minute,2\n", ("line 2", "minute", "1M tokens")),
    ("unit of another thing", f"{HEADER}\nm,seconds,GiB-day,2\n", ("line 2", "GiB-day", "minute")),
    ("unknown counted", f"{HEADER}\nm,inputs,token,2\n", ("line 2", "inputs", "input")),
    ("nothing counted", f"{HEADER}\nm,,token,2\n", ("line 2", "counted")),
    ("unknown kind", f"{HEADER},kind\nm,input,token,2,chats\n", ("line 2", "chats", "completions")),
    ("kind that has no such part", f"{HEADER},kind\nm,output,token,2,embeddings\n", ("line 2", "output", "embeddings")),
    ("no kind where nothing tells it", "counted,unit,price\nsearches,call,2\n", ("line 2", "kind")),
    ("no model", f"{HEADER}\n,input,token,2\n", ("line 2", "model")),
    ("another currency", f"{HEADER},currency\nm,input,token,2,eur\n", ("line 2", "eur", "usd")),
    ("batch that is no truth", f"{HEADER},batch\nm,input,token,2,maybe\n", ("line 2", "maybe", "true")),
    ("threshold that is no number", f"{HEADER},above_input_tokens\nm,input,token,2,many\n", ("line 2", "many")),
    ("negative threshold", f"{HEADER},above_input_tokens\nm,input,token,2,\nm,input,token,3,-1\n", ("line 3", "-1")),
    ("threshold without a base", f"{HEADER},above_input_tokens\nm,input,token,2,1000\n", ("line 2", "1000")),
    (
        "thresholds out of order",
        f"{HEADER},above_input_tokens\nm,input,token,2,\nm,input,token,4,2000\nm,input,token,3,1000\n",
        ("line 4", "1000"),
    ),
    (
        "base after its threshold",
        f"{HEADER},above_input_tokens\nm,input,token,3,1000\nm,input,token,2,\n",
        ("1000",),
    ),
    ("same row twice", f"{HEADER}\nm,input,token,2\nm,input,token,2\n", ("line 3", "line 2")),
    ("two prices for one thing", f"{HEADER}\nm,input,token,2\nm,input,token,3\n", ("line 3", "line 2")),
    ("same model in other letters", f"{HEADER}\nm,input,token,2\nM,input,token,3\n", ("line 3", "line 2")),
    ("same model among others", f"{HEADER}\nm n,input,token,2\nn,input,token,3\n", ("line 3", "line 2")),
    (
        "overlap in time",
        f"{HEADER},from,until\nm,input,token,2,,2026-02-01\nm,input,token,3,2026-01-01,\n",
        ("line 3", "2026-01-01"),
    ),
    (
        "gap in time",
        f"{HEADER},from,until\nm,input,token,2,,2026-01-01\nm,input,token,3,2026-02-01,\n",
        ("line 3", "2026-02-01", "2026-01-01"),
    ),
    *(
        (f"hours that overlap: {name}", f"{HEADER},hours,weekdays,timezone,from,until\n{rows}", ("line 3", "line 2"))
        for name, rows in OVERLAPPING.items()
    ),
    ("end before its start", f"{HEADER},from,until\nm,input,token,2,2026-02-01,2026-01-01\n", ("line 2", "2026-01-01")),
    ("end at its start", f"{HEADER},from,until\nm,input,token,2,2026-02-01,2026-02-01\n", ("line 2", "2026-02-01")),
    ("no date", f"{HEADER},from\nm,input,token,2,01.02.2026\n", ("line 2", "01.02.2026")),
    ("no such day", f"{HEADER},from\nm,input,token,2,2026-02-30\n", ("line 2", "2026-02-30")),
    (
        "instant without an offset",
        f"{HEADER},from\nm,input,token,2,2026-02-03T10:00:00\n",
        ("line 2", "2026-02-03T10:00"),
    ),
    ("free tokens", f"{HEADER},free\nm,input,token,2,1\n", ("line 2", "free")),
    ("negative free", "kind,counted,unit,price,free\nvector_stores,storage,GiB-day,2,-1\n", ("line 2", "-1")),
    ("factor that is no number", "model,factor\ngpt-4o,half\n", ("line 2", "half")),
    ("negative factor", "model,factor\ngpt-4o,-0.5\n", ("line 2", "-0.5")),
    ("factor and a price", f"{HEADER},factor\nm,input,token,2,0.5\n", ("line 2", "factor")),
    ("size of a text", f"{HEADER},size\nm,input,token,2,1024x1024\n", ("line 2", "size")),
    ("unclosed quote", f'{HEADER}\n"m,input,token,2\n', ("line 2",)),
]


@pytest.mark.parametrize("rows", APART.values(), ids=APART)
def test_hours_that_do_not_overlap_are_good(rows: str) -> None:
    read(f"{HEADER},hours,weekdays,timezone,from,until\n{rows}", "prices.csv")


CASES = pytest.mark.parametrize(("text", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])


@dataclass(frozen=True)
class Operator:
    """A server and the price file it reads."""

    server: Server
    file: Path


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    directory = tmp_path_factory.mktemp("operator")
    file = directory / "prices.csv"
    file.write_text(GOOD)
    running = Server.start(directory / "data", args=["--price-file", str(file)])
    yield Operator(running, file)
    assert running.stop() == 0


def spent(operator: Operator) -> int:
    """What three tokens of the model cost now, in dollars."""
    event = {"kind": "completions", "timestamp": DAY, "model": "m", "input_tokens": 3}
    with fresh(operator.server) as api:
        assert send(api, [event]).json()["accepted"] == 1
        (atto,) = amounts(ask_costs(api, CostQuestion(DAY, DAY + 60, "1m")))
    return atto // 10**18


@CASES
def test_a_bad_file_is_refused_whole_and_the_running_book_stays(
    text: str, said: tuple[str, ...], operator: Operator
) -> None:
    reloaded(operator, GOOD)
    operator.file.write_text(text)
    with operator.server.http() as api:
        before = api.get(f"{COSTS}/prices").json()["book"]
        answer = api.post(f"{COSTS}/prices/reload")
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert all(part in error["message"] for part in said), error["message"]
        assert len(error["message"]) > len("line 2: bad"), "what is wrong and what would be right"
        assert api.get(f"{COSTS}/prices").json()["book"] == before
        found = exactly(api.get(f"{COSTS}/prices", params={"model": "m"}))["data"]
        told = {(entry["counted"], Decimal(entry["price"])) for entry in found if entry["unit"] == "token"}
        assert told == {("input", Decimal(2))}


def reloaded(operator: Operator, text: str) -> Row:
    """Put a good file in force."""
    operator.file.write_text(text)
    with operator.server.http() as api:
        answer = api.post(f"{COSTS}/prices/reload")
    assert answer.status_code == 200, answer.text
    body: Row = answer.json()
    return body


def test_events_are_charged_by_the_last_good_file(operator: Operator) -> None:
    first = reloaded(operator, GOOD)
    operator.file.write_text(f"{HEADER}\nm,input,token,-7\n")
    with operator.server.http() as api:
        assert api.post(f"{COSTS}/prices/reload").status_code == 400
    assert spent(operator) == 6
    second = reloaded(operator, GOOD.replace(",2", ",5"))
    assert second["changed"] is True
    assert second["book"]["id"] != first["book"]["id"]
    assert spent(operator) == 15
    assert reloaded(operator, GOOD.replace(",2", ",5")) == second | {"changed": False}
    assert reloaded(operator, GOOD)["book"] == first["book"], "the same prices are the same book"
    assert spent(operator) == 6


@CASES
def test_a_bad_text_in_the_files_place_is_refused_alike(text: str, said: tuple[str, ...], operator: Operator) -> None:
    body = {"start_time": DAY, "end_time": DAY + 60, "dry_run": True, "prices": text}
    with operator.server.http() as api:
        answer = api.post(f"{COSTS}/rerate", json=body)
    assert answer.status_code == 400, answer.text
    assert all(part in answer.json()["error"]["message"] for part in said), answer.text


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n",
        f"\ufeff{HEADER}\nm,input,token,2\n",
        f"{HEADER}\r\nm,input,token,2\r\n",
        f'{HEADER}\n"m",input,"token","2"\n',
        f"{HEADER}\n m , input , token , 2 \n",
        "price,unit,counted,model\n2,token,input,m\n",
        f"{HEADER},currency,source,checked\nm,input,token,2,usd,a contract,2026-01-01\n",
        f"{HEADER},from,until\nm,input,token,2,,2026-01-01\nm,input,token,3,2026-01-01,\n",
        f"{HEADER},from\nm,input,token,2,\nm,input,token,3,2026-01-01T10:30:00+02:00\n",
        f"{HEADER},until\nm,input,token,2,2026-01-01\n",
        f"{HEADER},above_input_tokens\nm,input,token,2,\nm,input,token,3,1000\nm,input,token,4,2000\n",
        "model,like,factor\nm,gpt-4o-2024-08-06,0.5\n",
        "kind,counted,unit,price,context_level\nweb_search_calls,searches,1K calls,25,low\n",
        "kind,counted,unit,price,free\nvector_stores,storage,GiB-hour,0.005,0.5\n",
        f"{HEADER},service_tier,batch\nm,input,token,2,,\nm,input,token,1,flex,\nm,input,token,0,,true\n",
    ],
)
def test_a_good_file_is_taken(text: str, operator: Operator) -> None:
    body = {"start_time": DAY, "end_time": DAY + 60, "dry_run": True, "prices": text}
    with operator.server.http() as api:
        answer = api.post(f"{COSTS}/rerate", json=body)
    assert answer.status_code == 200, answer.text


def test_a_missing_file_is_refused_and_the_running_book_stays(operator: Operator) -> None:
    reloaded(operator, GOOD)
    operator.file.rename(operator.file.with_suffix(".away"))
    try:
        with operator.server.http() as api:
            answer = api.post(f"{COSTS}/prices/reload")
            assert answer.status_code == 400, answer.text
            assert operator.file.name in answer.json()["error"]["message"]
        assert spent(operator) == 6
    finally:
        operator.file.with_suffix(".away").rename(operator.file)


@pytest.mark.parametrize("text", ["", "\n", "# to be written\n"], ids=["empty", "blank", "comment"])
def test_a_file_without_a_header_is_no_file(text: str, operator: Operator) -> None:
    """Such as one that an editor is just saving: its prices must not be gone for the events of that moment."""
    reloaded(operator, GOOD)
    operator.file.write_text(text)
    with operator.server.http() as api:
        answer = api.post(f"{COSTS}/prices/reload")
    assert answer.status_code == 400, answer.text
    assert "line 1" in answer.json()["error"]["message"]
    assert spent(operator) == 6


def test_a_changed_file_is_noticed_by_itself(operator: Operator) -> None:
    """Within ten seconds, and asked for nothing; a bad one changes nothing and stops nothing."""
    book = reloaded(operator, GOOD)["book"]
    operator.file.write_text(f"{HEADER}\nm,input,token,-7\n")
    assert changed_book(operator, book, tries=4) is None
    operator.file.write_text(GOOD.replace(",2", ",11"))
    assert changed_book(operator, book, tries=24) is not None
    assert spent(operator) == 33


def changed_book(operator: Operator, book: object, tries: int) -> object | None:
    """The book once it is another one, looked for twice a second."""
    with operator.server.http() as api:
        for _ in range(tries):
            found: object = api.get(f"{COSTS}/prices").json()["book"]
            if found != book:
                return found
            time.sleep(0.5)
    return None


def test_a_server_does_not_start_on_a_bad_file(tmp_path: Path) -> None:
    """Without a running book there is none that could stay: nothing is charged by half a file."""
    (tmp_path / "prices.csv").write_text(f"{HEADER}\nm,input,token,-7\n")
    with pytest.raises(RuntimeError) as caught:
        Server.start(tmp_path / "data", args=["--price-file", str(tmp_path / "prices.csv")]).stop()
    assert "line 2" in str(caught.value)
    assert "-7" in str(caught.value)
    assert "Traceback" not in str(caught.value)
