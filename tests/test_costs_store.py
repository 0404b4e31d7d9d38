"""What lies between prices and the store: upgrades, memory that is full, books that change, files that are cut off."""

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import httpx
import pytest

from tallybook.errors import InvalidRequest
from tallybook.ingest.decode import decode
from tallybook.kinds import KINDS
from tallybook.parts import PARTS, PARTS_OF
from tallybook.prices.book import PriceBook, load
from tallybook.query import Query
from tallybook.rate import UNITS
from tallybook.store import rates, storage
from tallybook.store.duckdb import FILE_NAME, DuckStore
from tallybook.store.protocol import Batch, Line
from tallybook.store.schema import MIGRATIONS
from tallybook.timegrid import ALL_S
from tests.support import Server

MEMORY = 256 * 1024 * 1024
DAY = 1_735_689_600  # 2025-01-01
NOW_MS = (DAY + 40 * 86_400) * 1000
HEADER = "model,counted,unit,price,factor,service_tier,above_input_tokens,from,until\n"


def book(directory: Path, text: str, *, list_prices: bool = False) -> PriceBook:
    return load(directory, text, list_prices=list_prices)


def charged(store: DuckStore, days: int = 30) -> dict[Line, Decimal]:
    """What an organization was charged, by line item, in 10^-18 dollars."""
    query = Query("org-a", DAY, DAY + days * 86_400, 86_400, NOW_MS // 1000, ("line_item",))
    found: dict[Line, Decimal] = {}
    for row in store.costs(query):
        (line,) = row.group
        assert isinstance(line, Line)
        found[line] = found.get(line, Decimal(0)) + row.amount
    return found


def post(store: DuckStore, *events: str) -> None:
    decoded = decode("\n".join(events).encode(), NOW_MS, 10_000)
    store.append([Batch("org-a", decoded.records, columns=decoded.columns)])


def completion(number: int, at_s: int, tokens: int = 10, more: str = "") -> str:
    return (
        f'{{"kind": "completions", "id": "{number}", "timestamp": {at_s}, "model": "m", "user_id": "u{number % 7}", '
        f'"input_tokens": {tokens}, "output_tokens": 1{more}}}'
    )


def held(store: int, at_s: int, size: int) -> str:
    """A report of a store, which is its user's alone."""
    return (
        f'{{"kind": "vector_stores", "vector_store_id": "v{store}", "user_id": "u{store}", "timestamp": {at_s}, '
        f'"usage_bytes": {size}}}'
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    opened = DuckStore(tmp_path, MEMORY, book(tmp_path, HEADER + "m,input,token,1,,,,,\nm,output,token,5,,,,,\n"))
    yield opened
    opened.close()


def test_rates_are_found_again_after_the_memory_of_them_is_gone(
    store: DuckStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by events of the very commit that fills it."""
    monkeypatch.setattr(rates, "_KNOWN_MAX", 5)
    for _ in range(3):
        post(store, *(completion(number, DAY + number % 20 * 86_400) for number in range(60)))
    assert charged(store) == {Line("input", "m"): 600 * 10**18, Line("output", "m"): 300 * 10**18}
    assert store.check(None) == []


def test_a_rate_is_the_same_after_a_restart(tmp_path: Path) -> None:
    text = HEADER + "m,input,1M tokens,0.15,,,,,\nm,output,1M tokens,0.6,,,,,\nm,input,1M tokens,0.3,,,1000,,\n"
    for _ in range(2):
        opened = DuckStore(tmp_path, MEMORY, book(tmp_path, text))
        post(opened, completion(1, DAY), completion(2, DAY, 2_000))
        before = charged(opened)
        opened.close()
    with duckdb.connect(str(tmp_path / FILE_NAME)) as connection:
        counted = connection.execute("SELECT count(*), count(DISTINCT rate_id) FROM rates").fetchone()
    assert counted == (22, 2)  # eleven parts each, below and above the threshold
    assert before[Line("input", "m")] == 10 * 15 * 10**10 + 2_000 * 3 * 10**11


def test_below_a_threshold_whose_base_has_ended_nothing_has_a_price(tmp_path: Path) -> None:
    lines = "m,input,token,1,,,,,2025-01-02\nm,input,token,2,,,100,,\nm,input,token,3,,,200,,\n"
    opened = DuckStore(tmp_path, MEMORY, book(tmp_path, HEADER + lines))
    post(opened, completion(1, DAY), completion(2, DAY + 86_400), completion(3, DAY + 86_400, 150))
    assert charged(opened) == {Line("input", "m"): (10 + 300) * 10**18}
    missing = opened.unpriced(Query("org-a", DAY, DAY + 10 * 86_400, ALL_S, NOW_MS // 1000))
    assert {(row.part.name, row.quantity) for row in missing} == {("input", 10), ("output", 3)}
    opened.close()


@pytest.mark.parametrize("group_by", [(), ("user_id",), ("user_id", "line_item")])
@pytest.mark.parametrize("at_once", [1, 10, 100_000])
@pytest.mark.parametrize("start_s", [DAY - 99 * 86_400, DAY + 3 * 86_400 + 5_040], ids=["before", "within"])
def test_storage_of_many_days_is_one_row(
    group_by: tuple[str, ...], at_once: int, start_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are read at a time: rows of a store and a day are not results."""
    monkeypatch.setattr(storage, "_AT_ONCE", at_once)
    prices = ",vector_stores,storage,GiB-day,0.1,1,\n,vector_stores,storage,GiB-day,0.7,1,2025-01-11T12:00:00Z\n"
    opened = DuckStore(tmp_path, MEMORY, book(tmp_path, "model,kind,counted,unit,price,free,from\n" + prices))
    post(opened, *(held(store, DAY + 86_400 * 2 + store * 1_001, 2**30 * 7 // (store + 3)) for store in range(3)))
    post(opened, *(held(0, DAY + number * 100_003, 2**31 // (number + 3)) for number in range(5, 15)))
    question = Query("org-a", start_s, DAY + 30 * 86_400 - 7_000, 86_400, NOW_MS // 1000, group_by)
    expected = Counter[object]()
    for row in opened.costs(question):
        expected[row.group] += row.amount
    assert len(expected) == (4 if group_by else 1)  # three users, and nobody, whose is what was free
    few = replace(question, width_s=ALL_S, rows_max=len(expected))
    rows = opened.costs(few)
    assert {row.start_s for row in rows} == {question.start_s}
    assert {row.group: row.amount for row in rows} == expected
    if group_by:
        with pytest.raises(InvalidRequest, match="more than 1 results"):
            opened.costs(replace(few, rows_max=1))
    opened.close()


@pytest.mark.parametrize(
    ("lines", "prices"),
    [
        ("gpt-4o,input output,,,0.5,,,2025-01-01,\ngpt-4o,input,,,0.6,,,2025-02-01,\n", ("1.5", "5")),
        ("gpt-4o,input,,,0.5,slow,,,\ngpt-4o,output,,,0.25,slow,,,\n", ("1.25", "2.5")),
        ("gpt-4o,,,,1.000001,,,,\n", ("2.5000025", "10.00001")),
    ],
    ids=["one part's factor changes", "a tier by its parts", "all digits"],
)
def test_factors_are_by_part(lines: str, prices: tuple[str, str], tmp_path: Path) -> None:
    found = book(tmp_path, HEADER + lines, list_prices=True)
    dimensions = {"model": "gpt-4o", "service_tier": "slow" if "slow" in lines else None, "batch": False}
    kind = KINDS["completions"]
    (rule,) = found.rules(kind, tuple(dimensions.get(name) for name in kind.dimensions), DAY + 60 * 86_400)
    assert rule.rate is not None
    by_part = {price.part: price.value for price in rule.rate.prices}
    assert (by_part["input"], by_part["output"]) == tuple(map(Decimal, prices))


def test_a_discount_counts_once_for_a_model_that_is_priced_like_another(tmp_path: Path) -> None:
    """Our own file has names that cost what another does; so may the operator's, whose own prices have no discount."""
    kind = KINDS["completions"]
    lines = "provider,model,factor,like\nopenai,,0.5,\n,mine,,gpt-4o\n"
    found = load(tmp_path, lines)
    prices = {}
    for model in ("gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-03-20", "gpt-4o", "mine"):
        (rule,) = found.rules(kind, tuple({"model": model}.get(name) for name in kind.dimensions), DAY)
        assert rule.rate is not None
        prices[model] = rule.rate.prices[0].value
    assert list(prices.values()) == [Decimal("0.3")] * 2 + [Decimal("1.25")] * 2


def test_what_a_store_of_the_first_version_holds_is_unpriced_but_for_costs_of_its_own(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / FILE_NAME)) as connection:
        connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL, applied_at_s BIGINT NOT NULL)")
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version VALUES (1, 0)")
        connection.execute(
            """INSERT INTO series (series_id, organization_id, kind, model, vector_store_id) VALUES
               (1, 'org-a', 'images', 'm', NULL), (2, 'org-a', 'vector_stores', NULL, 'vs')"""
        )
        at = datetime.fromtimestamp(DAY, UTC).replace(tzinfo=None)
        for number, cost in (("a", Decimal("0.5")), ("b", None)):
            connection.execute(
                """INSERT INTO events (id, "timestamp", has_identity, series_id, images, num_model_requests, cost)
                   VALUES (?, ?, true, 1, 3, 1, ?)""",
                [number, at, cost],
            )
        connection.execute(
            'INSERT INTO events (id, "timestamp", has_identity, series_id, usage_bytes) VALUES (?, ?, true, 2, ?)',
            ["c", at, 2**30],
        )
        connection.execute("INSERT INTO levels VALUES (?, 2, ?)", [at, 2**30])
        for table in ("usage_hours", "usage_days"):
            connection.execute(
                f"INSERT INTO {table} (start, series_id, images, num_model_requests) VALUES (?, 1, 6, 2)", [at]
            )
    prices = book(tmp_path, "model,kind,counted,unit,price\nm,,images,image,2\n,vector_stores,storage,GiB-day,1\n")
    opened = DuckStore(tmp_path, MEMORY)
    opened.use(prices, NOW_MS)
    opened.append([])
    assert opened.check(None) == []
    own = {Line("reported", "m"): 5 * 10**17}
    assert charged(opened) == own
    missing = opened.unpriced(Query("org-a", DAY, DAY + 86_400, ALL_S, NOW_MS // 1000))
    assert {(row.part.name, row.quantity) for row in missing} == {("images", 3), ("storage", 24)}
    changed = opened.rerate("org-a", DAY, prices, NOW_MS, dry_run=False)
    assert (changed.before, changed.after) == (5 * 10**17, 75 * 10**17)
    assert charged(opened, days=1) == own | {Line("images", "m"): 6 * 10**18, Line("storage", ""): 10**18}
    assert opened.check(None) == []
    opened.close()


def test_downloads_cut_off_by_their_clients_hold_nobody_up(server: Server, api: httpx.Client) -> None:
    events = [
        {"kind": "images", "id": str(number), "timestamp": DAY + number, "model": "dall-e-3", "images": 1}
        for number in range(20_000)
    ]
    for first in range(0, len(events), 10_000):
        assert api.post("/v1/organization/usage/events", json=events[first : first + 10_000]).is_success
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(6):
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.sendall(
                f"GET /v1/organization/usage/export HTTP/1.1\r\nHost: {host}\r\n"
                f"Authorization: {api.headers['authorization']}\r\n\r\n".encode()
            )
            assert client.recv(1_000)
    whole = api.get("/v1/organization/usage/export", timeout=30).text
    assert whole.count("\n") == 20_001


def test_every_part_has_a_unit_and_every_kind_its_parts() -> None:
    measured = {what for what, _ in UNITS.values()}
    for part in PARTS.values():
        assert not part.terms or part.measured in measured
        assert all(part.fallbacks.count(name) == 1 and name in PARTS for name in part.fallbacks)
    assert all(PARTS_OF[kind] for kind in KINDS)
