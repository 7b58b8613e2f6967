"""Chromium for tests of the web page: Debian's, without a window, able to reach this machine only.

Fixtures to import. They last for one module: while Playwright runs, asyncio cannot be used in its thread.
Without Chromium the tests are skipped; with TENON_REQUIRE_BROWSER=1 they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
expect.set_options(timeout=20_000)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (path := chromium()):
        message = "needs Chromium: apt-get install chromium"
        if os.environ.get("TENON_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Faults(list[str]):
    """What must not happen on any page: errors of scripts, of the policy, requests to elsewhere."""

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("console", lambda message: message.type == "error" and self.append(message.text))
        page.on("request", lambda request: self.check(request.url))

    def check(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")):
            self.append(f"asked for {url}")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["clipboard-read"])
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def faults() -> Faults:
    """Checked at the end of a test by `tab`; a test that provokes errors clears it."""
    return Faults()


@pytest.fixture
def tab(context: BrowserContext, faults: Faults) -> Iterator[Page]:
    page = context.new_page()
    faults.watch(page)
    yield page
    assert not faults
