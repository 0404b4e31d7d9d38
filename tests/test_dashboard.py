"""The dashboard in a real browser, against the real server: what it shows is what the API says."""

import ast
import csv
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tallybook.clock import now_s
from tallybook.kinds import KINDS
from tallybook.wire.params import COSTS
from tests.otlp_shaped import span, traces
from tests.support import COMMAND, Server

ROOT = Path(__file__).parents[1]
AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
EVENTS = "/v1/organization/usage/events"
DAY_S = 86_400
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://example.com","open")',
    "نموذج عربي",
    "m" * 256,
    'a "quoted", name',
]
MODELS = ["gpt-4o-2024-08-06", "gpt-4o-mini", "o3", *HOSTILE]
VIEWS = ["/", "/explore", "/live", "/manage"]
LOUD = ("error", "warning")
ELSEWHERE = "tally.test"
"""What the browser takes for another machine."""
NOTHING_BEFORE = "\N{EN DASH}"
READ, WRITE = "api.usage.read", "api.usage.write"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--no-first-run",
                f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser has to say against the page; a test that expects some empties it."""
    return []


@pytest.fixture
def page(browser: Browser, server: Server, complaints: list[str]) -> Iterator[Page]:
    context = browser.new_context(base_url=server.url, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(10_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type in LOUD else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((server.url, "blob:"))] == [], "it asks no other host"


def test_the_wheel_has_the_page_and_it_is_small(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as packed:
        found = {name: packed.read(name) for name in packed.namelist() if name.startswith("tallybook/dashboard/")}
    page = gzip.decompress(found["tallybook/dashboard/index.html.gz"]).decode()
    loaded = re.findall(r'(?:src|href)="/assets/([^"]+)"', page)
    assert {Path(name).suffix for name in loaded} == {".css", ".js", ".svg"}
    assert all(f"tallybook/dashboard/{name}.gz" in found for name in loaded)
    (told,) = [name for name in found if re.fullmatch(r"tallybook/dashboard/licences-[0-9A-F]{8}\.txt\.gz", name)]
    licences = gzip.decompress(found[told]).decode()
    assert all(f"{name}\n\n" in licences for name in ("preact", "chart.js", "@kurkle/color"))
    assert sum(map(len, found.values())) < 150_000


def sign_in(page: Page, key: str, path: str = "/") -> None:
    page.goto(path)
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def events(now: int) -> list[dict[str, object]]:
    """Six weeks of calls of every kind, none of them alike."""
    made: list[dict[str, object]] = []
    for number in range(400):
        timestamp = now - (number * number * 23) % (42 * DAY_S)
        who = {"project_id": f"proj_{number % 7}", "user_id": f"user_{number % 11}", "api_key_id": f"key_{number % 5}"}
        event = {"id": f"e{number}", "timestamp": timestamp, **who}
        tokens = {"input_tokens": 1_000 + 37 * number, "output_tokens": 100 + number}
        model = MODELS[number % len(MODELS)]
        priced = {"cost": {"value": f"0.0{number:03}1", "currency": "usd"}} if model in HOSTILE[:-1] else {}
        made.append({"kind": "completions", "model": model, **event, **tokens, **priced})
        if number % 8 == 0:
            made += [
                {"kind": "embeddings", "model": "text-embedding-3-small", "input_tokens": 50 + number, **event},
                {"kind": "images", "model": "dall-e-3", "images": 1 + number % 3, "size": "1024x1024", **event},
                {"kind": "web_search_calls", "model": "gpt-4o-2024-08-06", **event},
                {"kind": "code_interpreter_sessions", **event},
            ]
    return made


@pytest.fixture
def filled(api: httpx.Client) -> httpx.Client:
    answer = api.post(EVENTS, json=events(now_s() - 60)).raise_for_status().json()
    assert answer["faults"] == []
    return api


@pytest.fixture
def reader(filled: httpx.Client, server: Server, organization: str) -> str:
    """A key that may look, in an organization that has usage."""
    return server.key(organization, [READ])


def shown(page: Page, selector: str) -> list[str]:
    """The exact numbers of what is on screen."""
    return [str(value) for value in page.locator(f"{selector} data").evaluate_all("all => all.map(one => one.value)")]


def totals(page: Page) -> dict[str, Decimal]:
    """The amounts in the table of totals, by name."""
    rows = page.locator("section[aria-label=Numbers] tbody tr")
    rows.first.wait_for()
    found = rows.evaluate_all(
        "all => all.map(row => [row.querySelector('th').innerText, row.querySelector('data')?.value])"
    )
    return {name.strip(): Decimal(value) for name, value in found if value is not None}


def settled(page: Page) -> None:
    expect(page.locator("[aria-busy=true], .waiting")).to_have_count(0)


def answer(api: httpx.Client, path: str, parameters: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Every bucket of a question, with exact numbers."""
    found: list[dict[str, Any]] = []
    following: str | None = None
    while True:
        asked = [*parameters, *([("page", following)] if following else [])]
        page = json.loads(api.get(f"{path}?{urlencode(asked)}").raise_for_status().text, parse_float=Decimal)
        found += page["data"]
        following = page["next_page"]
        if not following:
            return found


def called(value: str | bool | None) -> str:
    return "(none)" if value is None else str(value).lower() if isinstance(value, bool) else value


def explored(random: Random, end: int) -> str:
    """The address of some question."""
    of = random.choice(["costs", *(kind for kind in KINDS if kind != "vector_stores")])
    about = COSTS if of == "costs" else KINDS[of]
    measure = "amount" if of == "costs" else random.choice(KINDS[of].measures)
    days = random.choice([1, 7, 20, 41])
    asked = [("of", of), ("measure", measure), ("start", str(end - days * DAY_S)), ("end", str(end)), ("top", "50")]
    asked += [("width", width) for width in random.choice([["1d"], ["1h"], []]) if width]
    asked += [
        ("group_by", name) for name in random.sample(about.group_by, min(random.randrange(3), len(about.group_by)))
    ]
    known = {"model": MODELS, "project_id": ["proj_1", "proj_2", "proj_6"], "user_id": ["user_3", "user_10"]}
    offered = [name for name in known if name in {dimension.name for dimension in about.filters.values()}]
    if offered and random.random() < 0.5:
        name = random.choice(offered)
        asked += [(name, value) for value in random.sample(known[name], 2)]
    return f"/explore?{urlencode(asked)}"


def sums(api: httpx.Client, address: str) -> dict[str, Decimal]:
    """What the API says to the question that the address of Explore holds, by name."""
    asked = parse_qs(urlsplit(address).query)
    of, measure = asked["of"][0], asked["measure"][0]
    path = "/v1/organization/costs" if of == "costs" else f"/v1/organization/usage/{of}"
    group_by = asked.get("group_by", [])
    parameters = [("start_time", asked["start"][0]), ("end_time", asked["end"][0])]
    parameters += [("bucket_width", "1d"), ("limit", "31")]
    parameters += [("group_by", name) for name in group_by]
    filters = (COSTS if of == "costs" else KINDS[of]).filters
    parameters += [(name, value) for name, dimension in filters.items() for value in asked.get(dimension.name, [])]
    found: dict[str, Decimal] = {}
    for bucket in answer(api, path, parameters):
        for result in bucket["results"]:
            name = " · ".join(called(result[field]) for field in group_by) or "All"
            value = result["amount"]["value"] if measure == "amount" else result[measure]
            found[name] = found.get(name, Decimal(0)) + Decimal(value)
    return found


def test_who_has_no_key_sees_no_more_than_the_way_in(page: Page, reader: str, complaints: list[str]) -> None:
    page.goto("/explore?of=images")
    page.get_by_label("Admin key").fill("sk-admin-nobodys")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Incorrect API key provided")
    assert [text for text in complaints if "401" not in text] == []
    complaints.clear()
    page.get_by_label("Admin key").fill(reader)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Explore")
    assert page.url.endswith("/explore?of=images")
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Admin key").wait_for()
    page.reload()
    page.get_by_label("Admin key").wait_for()


def test_a_session_that_ended_says_so_and_goes_on_where_it_was(
    page: Page, filled: httpx.Client, server: Server, organization: str, complaints: list[str]
) -> None:
    sign_in(page, server.key(organization, [READ]), "/explore")
    settled(page)
    mine = page.evaluate("fetch('/session').then(answer => answer.json())")["key"]["id"]
    filled.delete(f"/v1/organization/admin_api_keys/{mine}").raise_for_status()
    page.get_by_role("combobox", name="Range", exact=True).select_option("7d")
    expect(page.get_by_role("status")).to_contain_text("Your session has ended")
    assert all("401" in text for text in complaints)
    complaints.clear()
    page.get_by_label("Admin key").fill(server.key(organization, [READ]))
    page.keyboard.press("Enter")
    expect(page.get_by_role("combobox", name="Range", exact=True)).to_have_value("7d")


def before(api: httpx.Client, paths: list[str], fields: list[str], days: int) -> Decimal:
    """What the API says of the time before a period, up to the same minute of the day."""
    now = now_s()
    start, end = now // DAY_S * DAY_S - (2 * days - 1) * DAY_S, (now - days * DAY_S) // 60 * 60
    window = [("start_time", str(start)), ("end_time", str(end)), ("bucket_width", "all")]
    results = [result for path in paths for bucket in answer(api, f"/v1/organization/{path}", window)
               for result in bucket["results"]]  # fmt: skip
    values = [
        result[field]["value"] if field == "amount" else result.get(field, 0) for result in results for field in fields
    ]
    return sum(map(Decimal, values), Decimal(0))


def changed(now: Decimal, earlier: Decimal) -> str:
    if not earlier:
        return NOTHING_BEFORE
    percent = ((now - earlier) / earlier * 100).quantize(Decimal(1), ROUND_HALF_UP)
    return ">+999%" if now / earlier - 1 >= Decimal("9.99") else f"{percent:+}%" if percent else "0%"


def test_the_overview_adds_up_to_what_the_api_says(page: Page, filled: httpx.Client, reader: str) -> None:
    sign_in(page, reader)
    settled(page)
    today = now_s() // DAY_S * DAY_S
    for label, path, fields in (
        ("Spend", "costs", ["amount"]),
        ("Requests", "usage", ["num_model_requests"]),
        ("Tokens", "usage", ["input_tokens", "output_tokens"]),
    ):
        expected = []
        for days in (1, 7, 30):
            window = [("start_time", str(today - (days - 1) * DAY_S)), ("limit", "31")]
            paths = (
                ["costs"] if path == "costs" else [f"usage/{kind}" for kind in ("completions", "embeddings", "images")]
            )
            results = [
                result
                for one in paths
                for bucket in answer(filled, f"/v1/organization/{one}", window)
                for result in bucket["results"]
            ]
            expected.append(
                sum(
                    (
                        Decimal(result[field]["value"] if field == "amount" else result[field])
                        for result in results
                        for field in fields
                        if field in result
                    ),
                    Decimal(0),
                )
            )
        assert [Decimal(value) for value in shown(page, f"section.card[aria-label={label}]")] == expected
        changes = page.locator(f"section.card[aria-label={label}] .change").all_inner_texts()
        assert [text.split()[0] for text in changes] == [
            changed(now, before(filled, [*paths], fields, days)) for now, days in zip(expected, (1, 7, 30), strict=True)
        ]
    models = page.locator("section[aria-label='Top models'] tbody tr")
    assert models.count() == 6, "five, and the others"
    expect(page.get_by_text("have no price")).to_be_visible()


@pytest.mark.parametrize("kind", ["costs", *KINDS])
def test_everything_that_can_be_asked_is_offered(kind: str, page: Page, reader: str) -> None:
    sign_in(page, reader, f"/explore?of={kind}")
    options = (
        page.get_by_role("combobox", name="Group by", exact=True)
        .locator("option")
        .evaluate_all("all => all.map(one => one.value)")
    )
    filters = (
        page.get_by_role("combobox", name="Filter", exact=True)
        .locator("option")
        .evaluate_all("all => all.map(one => one.value)")
    )
    offered = COSTS.group_by if kind == "costs" else KINDS[kind].group_by
    selectable = COSTS.filters if kind == "costs" else KINDS[kind].filters
    assert set(options) == {"", *offered}
    assert set(filters) == {dimension.name for dimension in selectable.values()}
    if kind != "costs" and len(KINDS[kind].measures) > 1:
        measures = (
            page.get_by_role("combobox", name="Measure", exact=True)
            .locator("option")
            .evaluate_all("all => all.map(one => one.value)")
        )
        assert set(measures) == set(KINDS[kind].measures)


@pytest.mark.parametrize("number", range(20))
def test_explore_shows_what_the_api_says_and_the_others_add_up(
    number: int, page: Page, filled: httpx.Client, reader: str
) -> None:
    address = explored(Random(number), now_s() // DAY_S * DAY_S)
    sign_in(page, reader, address)
    settled(page)
    expected = sums(filled, address)
    lacking = unpriced(filled, address)
    names = expected.keys() | lacking.keys()
    whole = sum(expected.values())
    if not names:
        expect(page.get_by_text("Nothing in this range")).to_be_visible()
        return
    if len(names) <= 51:
        assert totals(page) == expected
        assert {name: set(text.split(", ")) for name, text in words_of(page, "td.lacking").items()} == lacking
    if expected:
        assert Decimal(shown(page, "section[aria-label=Numbers] tfoot")[0]) == whole
    page.get_by_role("combobox", name="Show", exact=True).select_option("5")
    assert sum(totals(page).values()) == whole
    assert page.locator("section[aria-label=Numbers] tbody tr").count() == min(len(names), 6)
    rows = downloaded(page)
    measure = parse_qs(urlsplit(address).query)["measure"][0]
    assert sum(Decimal(row[measure] or 0) for row in rows) == whole
    assert any(row.get("unpriced") for row in rows) == bool(lacking)
    page.get_by_role("button", name="Over time").click()
    cells = page.locator("section[aria-label='Numbers over time'] tbody tr td:nth-child(2) data")
    assert sum(Decimal(str(value)) for value in cells.evaluate_all("all => all.map(one => one.value)")) == whole


def unpriced(api: httpx.Client, address: str) -> dict[str, set[str]]:
    """What the API says has no price of the question that the address of Explore holds, by name, as it is shown."""
    asked = parse_qs(urlsplit(address).query)
    if asked["of"] != ["costs"]:
        return {}
    group_by = asked.get("group_by", [])
    parameters = {"start_time": asked["start"], "end_time": asked["end"], "bucket_width": "all", "group_by": group_by}
    parameters |= {name: asked[one.name] for name, one in COSTS.filters.items() if one.name in asked}
    found: dict[str, dict[str, int]] = {}
    for entry in api.get("/v1/organization/costs/unpriced", params=parameters).raise_for_status().json()["data"]:
        sums = found.setdefault(" · ".join(called(entry[field]) for field in group_by) or "All", {})
        unit = entry["quantity_unit"] or entry["line_item"]
        sums[unit] = sums.get(unit, 0) + entry["quantity"]
    return {name: {f"{brief(quantity)} {unit}" for unit, quantity in sums.items()} for name, sums in found.items()}


def brief(count: int) -> str:
    """A count as the page shows it."""
    if count < 10_000:
        return f"{count:,}"
    size, suffix = (1_000_000, "M") if count >= 999_950 else (1_000, "K")
    return f"{float((Decimal(count) / size).quantize(Decimal('0.1'), ROUND_HALF_UP)):g}{suffix}"


def words_of(page: Page, selector: str) -> dict[str, str]:
    """What a cell of the table of totals says, by name, where it says something."""
    rows = page.locator("section[aria-label=Numbers] tbody tr")
    found = rows.evaluate_all(
        "(all, cell) => all.map(row => [row.querySelector('th').innerText, row.querySelector(cell)?.innerText])",
        selector,
    )
    return {name.strip(): text.strip() for name, text in found if text}


def downloaded(page: Page) -> list[dict[str, str]]:
    """The rows of the file that CSV gives."""
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text(), newline="")))


@pytest.fixture
def partly(api: httpx.Client) -> httpx.Client:
    """Six days of a model without a price, the last three of them beside one that has one, and a user of the first."""
    day = now_s() // DAY_S * DAY_S - 6 * DAY_S
    own = {"kind": "completions", "model": "qwen3-32b", "input_tokens": 1_000_000, "output_tokens": 20_000}
    made: list[dict[str, Any]] = [
        {**own, "id": f"own {n}", "timestamp": day + n * DAY_S, "user_id": "ann"} for n in range(6)
    ]
    made += [
        {"kind": "images", "model": "painter", "images": 1, "id": f"paid {n}", "timestamp": day + n * DAY_S,
         "user_id": "bob", "cost": {"value": "1.25", "currency": "usd"}} for n in range(3, 6)
    ]  # fmt: skip
    made.append({**own, "id": "both", "timestamp": day + 5 * DAY_S, "user_id": "bob"})
    assert api.post(EVENTS, json=made).raise_for_status().json()["faults"] == []
    return api


WITHOUT = "Unpriced, and in no amount: "


@pytest.mark.parametrize(
    ("question", "total", "line", "amounts", "lacking"),
    [
        ("group_by=model", "$3.75", "7.1M tokens of qwen3-32b",
         {"painter": "$3.75", "qwen3-32b": "unpriced"}, {"qwen3-32b": "7.1M tokens"}),
        ("group_by=user_id", "$3.75", "7.1M tokens of qwen3-32b",
         {"bob": "$3.75", "ann": "unpriced"}, {"bob": "1M tokens", "ann": "6.1M tokens"}),
        ("group_by=model&user_id=ann", "unpriced", "6.1M tokens of qwen3-32b",
         {"qwen3-32b": "unpriced"}, {"qwen3-32b": "6.1M tokens"}),
        ("group_by=model&model=qwen3-32b&user_id=bob", "unpriced", "1M tokens of qwen3-32b",
         {"qwen3-32b": "unpriced"}, {"qwen3-32b": "1M tokens"}),
        ("group_by=model&model=painter", "$3.75", "", {"painter": "$3.75"}, {}),
        ("group_by=model&model=nobodys", "$0.00", "", {}, {}),
        ("group_by=line_item&line_item=qwen3-32b,%20output", "unpriced", "140K tokens of qwen3-32b",
         {"qwen3-32b, output": "unpriced"}, {"qwen3-32b, output": "140K tokens"}),
    ],
)  # fmt: skip
def test_explore_says_what_is_in_no_amount(
    question: str, total: str, line: str, amounts: dict[str, str], lacking: dict[str, str],
    page: Page, partly: httpx.Client, server: Server, organization: str,
) -> None:  # fmt: skip
    """Under exactly the amount that is shown: its window, its filters, its groups. Null is not 0."""
    sign_in(page, server.key(organization, [READ]), f"/explore?of=costs&range=7d&{question}")
    settled(page)
    assert page.locator(".total").inner_text().partition("+")[0].strip() == total
    said = page.locator("section[aria-label=Chart] p.lacking")
    expect(said).to_have_count(1 if line else 0)
    if line:
        assert said.inner_text().strip().startswith(f"{WITHOUT}{line}. ")
    expect(page.get_by_text("Nothing in this range")).to_have_count(0 if amounts else 1)
    if amounts:
        spent = words_of(page, "td")
        assert {name: text.partition("+")[0].strip() for name, text in spent.items()} == amounts
        assert words_of(page, "td.lacking") == lacking
    grouped = parse_qs(question)["group_by"][0]
    assert {row[grouped]: row["amount"] for row in downloaded(page)} == {
        name: "" if text == "unpriced" else text.removeprefix("$") for name, text in amounts.items()
    }
    page.get_by_role("button", name="Over time").click()
    days = page.locator("section[aria-label='Numbers over time'] tbody tr td:nth-child(2)").all_inner_texts()
    assert any("unpriced" in text or "+" in text for text in days) == bool(line)


@pytest.mark.parametrize("chart", ["bars", "lines", "share"])
def test_a_bar_without_height_says_what_has_no_price(
    chart: str, page: Page, partly: httpx.Client, server: Server, organization: str
) -> None:
    day = now_s() // DAY_S * DAY_S - 6 * DAY_S
    address = f"/explore?of=costs&start={day}&end={day + DAY_S}&width=1d&group_by=model&chart={chart}"
    sign_in(page, server.key(organization, [READ]), address)
    settled(page)
    warn = page.evaluate("getComputedStyle(document.querySelector('p.lacking')).color")
    drawn = page.evaluate(
        """() => { const {width, height, ...all} = document.querySelector('canvas');
          const canvas = document.querySelector('canvas');
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const found = new Set();
          for (let at = 0; at < data.length; at += 4)
            if (data[at + 3] === 255) found.add(`rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`);
          return [...found]; }"""
    )
    assert warn in drawn
    expect(page.get_by_role("img")).to_have_attribute("aria-label", re.compile("1M tokens without a price"))


def test_a_day_without_a_price_leads_into_its_hours(
    page: Page, partly: httpx.Client, server: Server, organization: str
) -> None:
    sign_in(page, server.key(organization, [READ]), "/explore?of=costs&range=7d&group_by=model&table=times&user_id=ann")
    settled(page)
    page.locator("section[aria-label='Numbers over time'] tbody button.into").first.click()
    expect(page.get_by_role("combobox", name="By", exact=True)).to_have_value("1h")
    settled(page)
    expect(page.locator("section[aria-label=Chart] p.lacking")).to_contain_text("1M tokens of qwen3-32b")


def test_the_overview_and_live_say_what_is_in_no_amount(
    page: Page, partly: httpx.Client, server: Server, organization: str
) -> None:
    key = server.key(organization, [READ])
    sign_in(page, key)
    settled(page)
    spend = page.locator("section.card[aria-label=Spend]")
    expect(spend.locator(".headline").first).to_have_text("$0.00")  # nothing was used today
    expect(spend).to_contain_text(f"{WITHOUT}7.1M tokens in 30 days")
    users = page.locator("section[aria-label='Top users'] tbody tr")
    assert [row.split("\t")[0].strip() for row in users.all_inner_texts()] == ["bob", "ann"]
    expect(users.nth(1)).to_contain_text("unpriced")
    expect(page.locator("section[aria-label='Spend by day and model'] p.lacking")).to_contain_text("qwen3-32b")
    page.get_by_role("link", name="Live").click()
    expect(page.locator(".total").last).to_have_text("$0.00")
    own = {"kind": "completions", "model": "qwen3-32b", "input_tokens": 5, "timestamp": now_s()}
    partly.post(EVENTS, json=own).raise_for_status()
    expect(page.locator(".total").last).to_have_text("unpriced", timeout=4_000)
    expect(page.locator("p.lacking")).to_contain_text(f"{WITHOUT}5 tokens of qwen3-32b")
    page.emulate_media(media="print")
    expect(page.locator("p.lacking")).to_be_visible()


def test_what_is_taken_along_of_costs_says_what_has_no_price(
    page: Page, partly: httpx.Client, server: Server, organization: str
) -> None:
    key = server.key(organization, [READ])
    sign_in(page, key, "/explore?of=costs&range=7d&group_by=user_id&user_id=ann")
    settled(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name, command in (("Copy as curl", ["sh", "-c"]), ("Copy as Python", [sys.executable, "-c"])):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        expect(page.get_by_role("button", name=name)).to_be_visible()
        text = page.evaluate("navigator.clipboard.readText()")
        done = subprocess.run(
            [*command, text], env=os.environ | {"TALLYBOOK_ADMIN_KEY": key}, capture_output=True, text=True, timeout=60,
            check=True,
        )  # fmt: skip
        assert "qwen3-32b, input" in done.stderr
        assert "qwen3" not in done.stdout, "what reads the answer reads nothing else"


def test_what_a_source_did_stands_there_with_what_to_do(
    page: Page, api: httpx.Client, server: Server, organization: str
) -> None:
    asked = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.response.id": "resp_68f0a1b2"}
    for count in (9, 10):
        call = span({**asked, "gen_ai.usage.input_tokens": count, "gen_ai.usage.output_tokens": 2})
        api.post("/v1/traces", json=traces(call)).raise_for_status()
    sign_in(page, server.key(organization, [READ]), "/manage#sources")
    settled(page)
    (said,) = page.locator("section[aria-label=Sources] li").all_inner_texts()
    assert "OpenTelemetry: calls were reported with another input_tokens than before. The first report stands." in said
    assert "switch off" in said
    assert "such as resp_68f0a1b2" in said


NOTICES = [
    ("unread", "openai", "usage.magic_tokens", "the field usage.magic_tokens is not read"),
    ("repeated", "otlp", "litellm", "OpenTelemetry and LiteLLM: both report the same calls"),
    (
        "differing",
        "otlp",
        "litellm output_tokens",
        "another output_tokens than LiteLLM had reported. The first report stands",
    ),
    ("alike", "otlp", "a, b", "OpenTelemetry: reports without a response id look like one call each (a, b)"),
    ("later", "<b>x</b>", "y", "<b>x</b>: y"),
]


@pytest.mark.parametrize("has_notices", [True, False])
def test_the_sources_and_what_they_need_are_listed(has_notices: bool, page: Page, reader: str) -> None:
    """Also those of a server that knows no notices."""

    def answered(route: Route) -> None:
        body = route.fetch().json()
        body.pop("notices", None)
        if has_notices:
            body["notices"] = [
                {"subject": subject, "source": source, "name": name, "count": 1 + place, "last_at": now_s(),
                 "example": f"call_{place}" if place else None}
                for place, (subject, source, name, _) in enumerate(NOTICES)
            ]  # fmt: skip
        route.fulfill(json=body)

    page.route("**/v1/organization/usage/sources", answered)
    sign_in(page, reader, "/manage")
    settled(page)
    sources = page.locator("section[aria-label=Sources]")
    expect(sources.get_by_role("row", name="Tallybook's own events Completions")).to_be_visible()
    said = sources.locator("li").all_inner_texts()
    assert len(said) == (len(NOTICES) if has_notices else 0)
    for (_, _, _, text), found in zip(NOTICES, said, strict=False):
        assert text in found
    if has_notices:
        assert "Once, last" in said[0]
        assert "2 times" in said[1]
        assert "call_1" in said[1]


def test_what_is_held_is_told_as_its_mean_over_time(page: Page, api: httpx.Client, reader: str) -> None:
    day = now_s() // DAY_S * DAY_S - 3 * DAY_S
    held = [
        {"kind": "vector_stores", "vector_store_id": "vs_1", "usage_bytes": n * 4096, "timestamp": day + n * DAY_S // 4}
        for n in (1, 2)
    ]
    api.post(EVENTS, json=[{"project_id": "proj_1", **event} for event in held]).raise_for_status()
    sign_in(page, reader, f"/explore?of=vector_stores&measure=usage_bytes&start={day}&end={day + DAY_S}&width=1h")
    settled(page)
    mean = Decimal(4096 * 6 + 8192 * 12) / 24
    assert totals(page) == {"All": mean}
    expect(page.locator(".total")).to_contain_text("on average")


def test_the_address_is_the_question(page: Page, reader: str) -> None:
    sign_in(page, reader, "/explore")
    settled(page)
    page.get_by_role("combobox", name="Of", exact=True).select_option("completions")
    page.get_by_role("combobox", name="Measure", exact=True).select_option("output_tokens")
    page.get_by_role("combobox", name="Range", exact=True).select_option("7d")
    page.get_by_role("combobox", name="Group by", exact=True).select_option("project_id")
    page.get_by_label("and by").select_option("user_id")
    page.get_by_role("button", name="Lines").click()
    settled(page)
    address, before = page.url, totals(page)
    other = page.context.new_page()
    other.goto(address)
    settled(other)
    assert totals(other) == before
    other.close()
    page.go_back()
    expect(page.get_by_role("button", name="Bars")).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.get_by_label("and by")).to_have_value("")
    page.go_forward()
    page.go_forward()
    assert page.url == address


def test_a_filter_is_completed_from_what_is_there_and_taken_off_again(page: Page, reader: str) -> None:
    sign_in(page, reader, "/explore?of=completions&range=90d&group_by=model")
    settled(page)
    before = totals(page)
    field = page.get_by_label("Model to show")
    field.focus()
    expect(page.locator("datalist option")).to_have_count(len(MODELS))
    field.fill("o3")
    field.press("Enter")
    expect(page.get_by_role("button", name="Remove the filter Model o3")).to_be_visible()
    settled(page)
    assert totals(page) == {"o3": before["o3"]}
    page.get_by_role("button", name="Remove the filter Model o3").click()
    settled(page)
    assert totals(page) == before


def test_a_bar_leads_into_its_day_and_a_stretch_into_its_days(page: Page, reader: str) -> None:
    sign_in(page, reader, "/explore?of=completions&range=30d&group_by=model")
    settled(page)
    box = page.locator("canvas").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("combobox", name="Range", exact=True)).to_have_value("own")
    expect(page.get_by_role("combobox", name="By", exact=True)).to_have_value("1h")
    settled(page)
    page.go_back()
    settled(page)
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 100, steps=4)
    page.mouse.up()
    expect(page.get_by_role("combobox", name="Range", exact=True)).to_have_value("own")
    asked = parse_qs(urlsplit(page.url).query)
    assert 7 * DAY_S <= int(asked["end"][0]) - int(asked["start"][0]) <= 12 * DAY_S
    settled(page)
    page.locator("button[title='Only o3']").click()
    settled(page)
    assert list(totals(page)) == ["o3"]


@pytest.mark.parametrize("question", ["range=7d", "range=90d&width=1h", "range=30d&model=it%27s+%24(id)+%22x%22"])
def test_a_question_can_be_taken_along(
    question: str, page: Page, filled: httpx.Client, server: Server, reader: str
) -> None:
    """What is pasted asks for all that is on screen, page by page."""
    filled.post(EVENTS, json={"kind": "completions", "model": 'it\'s $(id) "x"', "input_tokens": 5}).raise_for_status()
    sign_in(page, reader, f"/explore?of=completions&measure=input_tokens&group_by=model&{question}")
    settled(page)
    whole = int(shown(page, "section[aria-label=Numbers] tfoot")[0])
    assert whole > 0
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def copied(name: str) -> str:
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        expect(page.get_by_role("button", name=name)).to_be_visible()
        return str(page.evaluate("navigator.clipboard.readText()"))

    command, program = copied("Copy as curl"), copied("Copy as Python")
    environment = os.environ | {"TALLYBOOK_ADMIN_KEY": reader}

    def run(*words: str) -> str:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    pages = [json.loads(line) for line in run("sh", "-c", command).splitlines()]
    assert (
        sum(result["input_tokens"] for one in pages for bucket in one["data"] for result in bucket["results"]) == whole
    )
    printed = run(sys.executable, "-c", program).splitlines()
    assert sum(ast.literal_eval(line.split(" ", 1)[1])["input_tokens"] for line in printed) == whole


def test_where_the_browser_copies_nothing_it_is_copied_by_hand(browser: Browser, server: Server, reader: str) -> None:
    """As on plain HTTP from another machine."""
    context = browser.new_context(base_url=f"http://{ELSEWHERE}:{urlsplit(server.url).port}")
    page = context.new_page()
    sign_in(page, reader, "/explore?of=completions")
    settled(page)
    page.get_by_role("button", name="Copy as curl").click()
    by_hand = page.get_by_role("dialog", name="Copy by hand")
    assert by_hand.get_by_label("Text to copy").input_value().startswith(f"curl -s 'http://{ELSEWHERE}:")
    page.keyboard.press("Escape")
    expect(by_hand).to_have_count(0)
    context.close()


def test_names_that_mean_harm_do_none(page: Page, filled: httpx.Client, reader: str) -> None:
    sign_in(page, reader, "/explore?of=completions&range=90d&group_by=model&top=20")
    settled(page)
    assert set(HOSTILE) <= set(totals(page))
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text(), newline="")))
    names = {row[0] for row in rows[1:]}
    assert names == {*MODELS, f"'{HOSTILE[1]}"} - {HOSTILE[1]}


def test_an_event_is_seen_live_within_two_seconds(page: Page, filled: httpx.Client, reader: str) -> None:
    sign_in(page, reader, "/live")
    calls = page.locator("[data-live=calls] data")
    calls.wait_for()
    before = int(calls.get_attribute("value") or 0)
    filled.post(EVENTS, json={"kind": "file_search_calls", "user_id": "now"}).raise_for_status()
    posted = time.monotonic()
    expect(calls).to_have_attribute("value", str(before + 1), timeout=4_000)
    assert time.monotonic() - posted < 2
    expect(page.get_by_role("row", name="File searches")).to_be_visible()


@pytest.mark.parametrize("behind_s", [90, -3_600])
def test_the_servers_clock_counts(behind_s: int, page: Page, filled: httpx.Client, reader: str) -> None:
    page.clock.install(time=float(now_s() - behind_s))
    sign_in(page, reader, "/live")
    calls = page.locator("[data-live=calls] data")
    calls.wait_for()
    before = int(calls.get_attribute("value") or 0)
    filled.post(EVENTS, json={"kind": "file_search_calls", "user_id": "now"}).raise_for_status()
    expect(calls).to_have_attribute("value", str(before + 1), timeout=4_000)


def test_a_key_is_made_shown_once_used_and_revoked(page: Page, server: Server, organization: str) -> None:
    sign_in(page, server.key(organization), "/manage")
    page.get_by_label("Name of a new key").fill("<b>laptop</b>")
    page.get_by_label("Write").check()
    page.get_by_label("Expires").select_option("7")
    page.get_by_role("button", name="Create").click()
    value = page.locator(".secret").inner_text()
    with server.http(value) as client:
        assert client.get("/v1/organization/costs?start_time=1767225600").status_code == 200
        page.get_by_role("button", name="Done").click()
        assert value not in page.content()
        page.get_by_role("button", name="Revoke <b>laptop</b>").click()
        expect(page.get_by_role("row", name="<b>laptop</b>")).to_have_count(0)
        assert client.get("/v1/organization/costs?start_time=1767225600").status_code == 401


def test_an_event_in_quarantine_is_mended_and_another_dropped(
    page: Page, filled: httpx.Client, server: Server, organization: str
) -> None:
    wrong = (
        '[{"kind": "completion", "input_tokens": 5, "cost": 1.10000000000000000001}, {"kind": "images", "images": -1}]'
    )
    filled.post(EVENTS, content=wrong)
    sign_in(page, server.key(organization, [READ, WRITE]))
    expect(page.get_by_text("2 events are in quarantine")).to_be_visible()
    page.get_by_role("link", name="Mend and replay").click()
    entries = page.locator("details.entry")
    expect(entries).to_have_count(2)
    entry = entries.filter(has_text="unknown kind")
    entry.locator("summary").click()
    expect(entry.get_by_role("textbox")).to_have_value(
        re.compile(r'"input_tokens": 5,\s+"cost": 1\.10000000000000000001')
    )
    entry.get_by_role("textbox").fill('{"kind": "completions", "input_tokens": 5')
    entry.get_by_role("button", name="Replay").click()
    expect(entry.get_by_role("alert")).to_contain_text("This is not JSON")
    entry.get_by_role("textbox").fill('{"kind": "completions", "input_tokens": 5}')
    entry.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_contain_text("1 accepted")
    expect(entries).to_have_count(1)
    entries.locator("summary").click()
    entries.get_by_role("button", name="Drop").click()
    expect(page.get_by_text("Empty: every event")).to_be_visible()


def test_what_has_no_price_makes_a_price_file(
    page: Page, api: httpx.Client, server: Server, organization: str, tmp_path: Path
) -> None:
    calls = [("own-1", "default"), ("own-1", "flex"), ("gpt-4.1-mini-2025-04-14", "flex"), ("two words", None),
             ("@cf/llama", None)]  # fmt: skip
    made = [{"kind": "completions", "model": model, "service_tier": tier, "input_tokens": 9, "output_tokens": 1}
            for model, tier in calls]  # fmt: skip
    made.append({"kind": "embeddings", "model": "own-2", "input_tokens": 9})
    made.append({"kind": "audio_transcriptions", "model": "own-3", "seconds": 9})
    api.post(EVENTS, json=[{k: v for k, v in event.items() if v} for event in made]).raise_for_status()
    sign_in(page, server.key(organization, [READ]), "/manage")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as a price file").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    rows = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    assert {(row["model"], row["counted"], row["service_tier"]) for row in rows} == {
        ("own-1", "input", ""), ("own-1", "output", ""), ("own-1", "input", "flex"), ("own-1", "output", "flex"),
        ("gpt-4.1-mini-2025-04-14", "", "flex"), ("own-2", "input", ""), ("own-3", "seconds", ""),
        ("@cf/llama", "input", ""), ("@cf/llama", "output", ""),
    }  # fmt: skip
    for row in rows:
        row["price" if row["counted"] else "factor"] = "0.5"
    file = tmp_path / "prices.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    checked = subprocess.run([*COMMAND, "prices", "check", str(file)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_empty_store_shows_how_to_begin(page: Page, server: Server, organization: str) -> None:
    sign_in(page, server.key(organization, [READ]))
    expect(page.get_by_role("heading", name="Nothing has been recorded")).to_be_visible()
    expect(page.locator("pre")).to_contain_text(f"curl -s {server.url}{EVENTS}")


def test_addresses_that_make_no_sense_are_questions_all_the_same(page: Page, reader: str) -> None:
    sign_in(
        page, reader, "/explore?of=constructor&range=toString&width=valueOf&start=1&end=1e20&chart=x&top=-1&measure=1"
    )
    settled(page)
    expect(page.get_by_role("combobox", name="Of", exact=True)).to_have_value("costs")
    expect(page.get_by_role("combobox", name="Range", exact=True)).to_have_value("30d")


def test_a_range_that_is_none_is_told(page: Page, reader: str) -> None:
    day = now_s() // DAY_S * DAY_S
    sign_in(page, reader, f"/explore?of=completions&start={day - 9 * DAY_S}&end={day - 8 * DAY_S}")
    settled(page)
    page.get_by_label("To (UTC)").fill("2020-01-01T00:00")
    page.get_by_label("To (UTC)").press("Enter")
    page.get_by_label("To (UTC)").blur()
    expect(page.get_by_role("alert")).to_contain_text("From before To")


def test_what_is_held_today_is_its_mean_so_far(page: Page, api: httpx.Client, reader: str) -> None:
    """Hours to come do not dilute it, whatever the chart shows of them."""
    day = now_s() // DAY_S * DAY_S
    held = {"kind": "vector_stores", "vector_store_id": "vs_1", "usage_bytes": 1000, "timestamp": day - 60}
    api.post(EVENTS, json=held).raise_for_status()
    sign_in(page, reader, f"/explore?of=vector_stores&measure=usage_bytes&start={day}&end={day + DAY_S}&width=1h")
    settled(page)
    assert totals(page) == {"All": Decimal(1000)}


@pytest.fixture
def special(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with settings of its own."""
    started: list[Server] = []

    def start(*args: str) -> Server:
        started.append(Server.start(tmp_path / "data", args=args))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def test_where_events_are_not_kept_the_page_tells_what_it_can(browser: Browser, special: Callable[..., Server]) -> None:
    server = special("--keep-events-days", "2")
    now = now_s()
    with server.http() as client:
        old = [{"kind": "completions", "model": "gpt-4o-2024-08-06", "timestamp": now - 60 - day * DAY_S // 2,
                "id": str(day), "input_tokens": 100 + day} for day in range(4)]  # fmt: skip
        client.post(EVENTS, json=old).raise_for_status()
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        sign_in(page, server.admin_key)
        settled(page)
        assert page.get_by_role("alert").count() == 0
        assert sum(map(int, shown(page, "section.card[aria-label=Tokens]")[1:2])) > 0
        context.close()


def test_an_answer_too_large_for_a_page_is_asked_for_in_smaller_ones(
    browser: Browser, special: Callable[..., Server]
) -> None:
    server = special("--rows-max", "25")
    now = now_s()
    made = [{"kind": "completions", "user_id": f"u{user}", "id": f"{day} {user}", "input_tokens": 1,
             "timestamp": now - 60 - day * DAY_S} for day in range(20) for user in range(20)]  # fmt: skip
    with server.http() as client:
        client.post(EVENTS, json=made).raise_for_status()
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    sign_in(page, server.admin_key, "/explore?of=completions&measure=input_tokens&range=30d&group_by=user_id&top=50")
    settled(page)
    assert totals(page) == {f"u{user}": Decimal(20) for user in range(20)}
    context.close()


def test_a_session_expires(browser: Browser, special: Callable[..., Server]) -> None:
    server = special("--session-s-max", "3")
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    sign_in(page, server.admin_key, "/live")
    expect(page.get_by_role("status")).to_contain_text("Your session has ended", timeout=10_000)
    page.get_by_label("Admin key").fill(server.admin_key)
    page.keyboard.press("Enter")
    page.locator("[data-live=calls]").wait_for()
    context.close()


def test_the_page_outlives_a_restart_of_the_server(browser: Browser, tmp_path: Path) -> None:
    server = Server.start(tmp_path / "data")
    port = int(server.url.rpartition(":")[2])
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    sign_in(page, server.admin_key, "/live")
    page.locator("[data-live=calls]").wait_for()
    assert server.stop() == 0
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    server = Server.start(tmp_path / "data", port=port)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("[data-live=calls]")).to_be_visible()
    context.close()
    assert server.stop() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "view",
    ["sign in", "empty", *VIEWS, "/explore?of=completions&table=times&models=o3", "/explore?of=costs&table=times"],
)
def test_everyone_can_use_it(view: str, scheme: Any, browser: Browser, filled: httpx.Client, server: Server,
                             organization: str) -> None:  # fmt: skip
    filled.post(EVENTS, json={"kind": "completion", "input_tokens": 5})
    # The policy of the page keeps the checker out, which is put into it.
    context = browser.new_context(base_url=server.url, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    if view == "sign in":
        page.goto("/")
        page.get_by_label("Admin key").wait_for()
    else:
        key = server.key(f"{organization}-empty" if view == "empty" else organization)
        sign_in(page, key, "/" if view == "empty" else view)
        page.get_by_role("heading", level=1).wait_for()
        settled(page)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run()")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    context.close()


@pytest.mark.parametrize("width", [360, 800, 1_600])
@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_the_screen(
    view: str, width: int, browser: Browser, filled: httpx.Client, server: Server, organization: str
) -> None:
    context = browser.new_context(base_url=server.url, viewport={"width": width, "height": 800})
    page = context.new_page()
    sign_in(page, server.key(organization), view)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
