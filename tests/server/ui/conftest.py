"""The page of a server with a scripted engine, in a real browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from tenon.server.settings import ServerSettings
from tests.browser import browser, context, faults, tab  # noqa: F401  (fixtures)
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

Site = Callable[..., str]


class Background:
    """A server in a thread of its own, until `close`."""

    def __init__(self, engine: FakeEngine, settings: ServerSettings | None) -> None:
        self.url = ""
        self._engine = engine
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self._engine, self._settings) as (url, _):
            self.url = url
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)


@pytest.fixture
def site() -> Iterator[Site]:
    """Starts a server for an engine; its URL."""
    running: list[Background] = []

    def start(engine: FakeEngine, settings: ServerSettings | None = None) -> str:
        running.append(Background(engine, settings))
        return running[-1].url

    yield start
    for server in running:
        server.close()


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Type a message and send it; `wait`: until the answer is over."""
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    if wait:
        page.locator(".assistant footer .quiet").first.wait_for()
        page.locator("body:not(.answering)").wait_for()
