"""The page of a server with a scripted engine, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Page

from tests.browser import browser, context, faults, tab  # noqa: F401  (fixtures)
from tests.server.serving import in_thread

Site = Callable[..., str]


@pytest.fixture
def site() -> Iterator[Site]:
    """Starts a server for an engine; its URL."""
    with ExitStack() as servers:
        yield lambda engine, settings=None: servers.enter_context(in_thread(engine, settings))


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Type a message and send it; `wait`: until the answer is over."""
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    if wait:
        page.locator(".assistant footer .quiet").first.wait_for()
        page.locator("body:not(.answering)").wait_for()
