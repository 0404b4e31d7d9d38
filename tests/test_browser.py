"""The page at /docs in a real browser: it shows the API and loads nothing from elsewhere."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support import Server


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        yield browser.new_page()
        browser.close()


def test_docs_page_shows_every_tag_and_asks_no_other_host(server: Server, page: Page) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{server.url}/docs")
    page.locator("#operations-usage-usage_completions").wait_for()
    assert page.title() == "Tallybook API"
    for tag in ("usage", "events", "quarantine", "keys", "maintenance", "operation"):
        assert page.locator(f"h3:has-text('{tag}')").count() == 1
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []
    assert complaints == []


def test_a_question_can_be_asked_from_the_docs_page(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/docs#/usage/usage_images")
    page.click("button.authorize")
    page.fill("input[aria-label='auth-bearer-value']", server.admin_key)
    page.click(".auth-btn-wrapper button.authorize")
    page.click(".btn-done")
    operation = page.locator("#operations-usage-usage_images")
    operation.locator(".try-out__btn").click()
    operation.locator("tr[data-param-name='start_time'] input").fill("1767225600")
    operation.locator(".execute").click()
    operation.locator(".live-responses-table .response-col_status:has-text('200')").wait_for()
