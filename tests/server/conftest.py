"""An app over a scripted engine, and a client for it that needs no socket."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from tenon.server.app import App, build_app
from tenon.server.codes import CODES
from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine

# What only the inside of a program knows: addresses, paths, tracebacks. No answer may hold any of it.
INTERNALS = re.compile(r"0x[0-9a-f]{6,}|/home/|/root/|site-packages|Traceback|File \"")


async def check_answer(response: httpx.Response) -> None:
    """Of every answer in these tests: an error has a code from the list, and nothing internal is told."""
    await response.aread()
    if response.status_code < 400:
        return
    if response.request.method != "HEAD":
        error = response.json()["error"]
        assert not INTERNALS.search(error["message"]), error
        if "code" in error:
            statuses, _ = CODES[error["code"]]
            assert response.status_code in statuses, error
    assert response.status_code not in (501, 502), response.text


class Client:
    """Requests to an ASGI app, and the parts of answers that tests compare."""

    def __init__(self, app: App) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        hooks = {"response": [check_answer]}
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test", event_hooks=hooks)

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.http.post(path, content=content, headers=names)

    async def events(self, path: str, body: dict) -> list[dict]:
        """The data of every event of a stream; checks that exactly [DONE] ends it."""
        response = await self.post(path, body | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, done, rest = response.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    async def error(self, path: str, body: object, **headers: str) -> tuple[int, dict]:
        response = await self.post(path, body, **headers)
        return response.status_code, response.json()["error"]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def app(engine: FakeEngine) -> App:
    return build_app(engine, ServerSettings(), engine.served_model_names)


@pytest.fixture
async def client(app: App) -> AsyncIterator[Client]:
    client = Client(app)
    yield client
    await client.http.aclose()
