"""The dashboard in a browser: from the address to the moment nothing is on its way any more."""

import shutil
from collections.abc import Iterator, Mapping
from typing import Final

from playwright.sync_api import Browser, StorageState, expect, sync_playwright

from benchmarks.effort import Effort
from benchmarks.results import Result
from benchmarks.server import running
from benchmarks.stores import Store
from benchmarks.times import Times
from tests.support import Server

VIEWS: Final[Mapping[str, str]] = {"overview": "/", "explore": "/explore", "live": "/live", "manage": "/manage"}
UNDER_WAY: Final = "[aria-busy=true], .waiting"
QUIET_MS: Final = 300
"""Nothing more comes after so long."""
NOTE_LAST_CHANGE: Final = """
new MutationObserver(() => window.changed_ms = performance.now())
  .observe(document, {subtree: true, childList: true, attributes: true})
"""


def measure(store: Store, effort: Effort) -> Iterator[Result]:
    """Open each view as somebody who signed in before, with nothing in the browser's cache.

    The reference is the page that asks for a key: the same script, and no numbers.
    """
    with running(store.data) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        cookie = _sign_in(browser, server)
        nobody = _times(browser, server, "/", None, effort.views)
        for name, path in VIEWS.items():
            found = _times(browser, server, path, cookie, effort.views)
            yield Result(
                name=f"dashboard, {name}",
                ours=found.p50,
                reference=nobody.p50,
                events=store.filled.events,
                spread=(found.p50, found.p99),
                note=f"{effort.views} times, 1280 x 900",
            )
        browser.close()


def _sign_in(browser: Browser, server: Server) -> StorageState:
    page = browser.new_page(base_url=server.url)
    page.goto("/")
    page.get_by_label("Admin key").fill(server.admin_key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    expect(page.locator(UNDER_WAY)).to_have_count(0, timeout=60_000)
    state = page.context.storage_state()
    page.context.close()
    return state


def _times(browser: Browser, server: Server, path: str, cookie: StorageState | None, count: int) -> Times:
    times = Times()
    for _ in range(count):
        context = browser.new_context(
            base_url=server.url, storage_state=cookie, viewport={"width": 1280, "height": 900}
        )
        page = context.new_page()
        page.add_init_script(NOTE_LAST_CHANGE)
        page.goto(path)
        page.get_by_role("heading", level=1).wait_for()
        expect(page.locator(UNDER_WAY)).to_have_count(0, timeout=60_000)
        page.wait_for_timeout(QUIET_MS)
        assert page.get_by_role("alert").count() == 0, "an error was measured"
        times.ms.append(float(page.evaluate("window.changed_ms")))
        context.close()
    return times
