"""Make the pictures of docs/web-page.md: start `tenon serve`, then `python scripts/page_screenshots.py URL`.

Needs Chromium and Playwright (`make test` installs them). The page uses fonts of the machine; the pictures
were made with Inter and JetBrains Mono (Debian: fonts-inter, fonts-jetbrains-mono).
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs" / "images"
LARGEST = 150_000
CODE = "Explain recursion with a small Python example."
CAPITAL = "What is the capital of France?"
POEM = "Write a short poem about rain."


def opened(
    browser: Browser, url: str, scheme: str, size: tuple[int, int], *, panel: bool = False, **settings: object
) -> Page:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    stored = {
        "tenon.panel": "open" if panel else "closed",
        "tenon.settings": json.dumps({"temperature": "0", "max_tokens": "220"} | settings),
    }
    page.add_init_script(f"Object.assign(localStorage, {json.dumps(stored)})")
    page.set_default_timeout(120_000)
    page.goto(url)
    page.locator("#state[data-state=ready]").wait_for()
    return page


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    page.locator("#prompt").fill(text)
    page.keyboard.press("Enter")
    if wait:
        page.locator(".assistant").last.locator(".figures").wait_for()


def shoot(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    size = path.stat().st_size
    print(f"{path.name} {size // 1000} kB")
    assert size < LARGEST
    page.close()


def load(url: str, requests: int) -> None:
    """Several requests at once, so that the live view has something to show."""

    def one(number: int) -> None:
        messages = [{"role": "user", "content": f"{POEM} Number {number}."}]
        body = json.dumps({"messages": messages, "max_tokens": 400, "ignore_eos": True}).encode()
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", body, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request).read()

    for number in range(requests):
        threading.Thread(target=one, args=(number,), daemon=True).start()


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = opened(browser, url, "light", (1120, 720))
        ask(page, CAPITAL)
        ask(page, CODE)
        page.locator("#conversation").evaluate("element => { element.scrollTop = 30; }")
        shoot(page, "page-light")

        page = opened(browser, url, "dark", (1120, 720), panel=True)
        ask(page, CODE)
        page.locator("#conversation").evaluate("element => { element.scrollTop = 0; }")
        shoot(page, "page-dark")

        page = opened(browser, url, "light", (1120, 560), probabilities=True, max_tokens="70")
        ask(page, "Why is the sky blue?")
        page.locator("#conversation").evaluate("element => { element.scrollTop = 0; }")
        page.locator(".token").nth(1).hover()
        shoot(page, "page-probabilities")

        page = opened(browser, url, "light", (1120, 560), panel=True)
        page.wait_for_timeout(3000)
        load(url, 6)
        page.wait_for_timeout(3000)
        ask(page, CAPITAL, wait=False)
        page.wait_for_timeout(6000)
        shoot(page, "page-engine")

        page = opened(browser, url, "dark", (360, 640))
        ask(page, CAPITAL)
        shoot(page, "page-small")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
