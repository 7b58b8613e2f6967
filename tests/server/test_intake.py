"""Bodies that are in flight, together."""

from __future__ import annotations

import asyncio
import random

import pytest

from tenon.server.app import build_app
from tenon.server.errors import ApiError
from tenon.server.intake import Intake
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine

PATH = "/v1/completions"


class Sender:
    """A client that has sent `part` of a body, and goes on when it is told to."""

    def __init__(self, app, part: bytes, rest: bytes, **headers: str) -> None:
        self.messages: list[dict] = []
        self.go_on = asyncio.Event()
        self._parts = [part, rest]
        given = {"content-type": "application/json", **headers}
        scope = {
            "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }  # fmt: skip
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict:
        if len(self._parts) == 1:
            await self.go_on.wait()
        if not self._parts:
            return await asyncio.get_running_loop().create_future()
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

    async def _send(self, message: dict) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]


@pytest.fixture
def app():
    limits = Limits(bodies_bytes=1000, body_bytes=4000)
    return build_app(FakeEngine(), ServerSettings(limits=limits), ("fake",))


def text(size: int) -> bytes:
    """A good body of so many bytes."""
    return b'{"prompt": "x", "max_tokens": 1}'.ljust(size)


@pytest.mark.parametrize("declared", [True, False])
async def test_one_beyond_the_bound_is_told_to_come_again(app, declared):
    body = text(800)
    said = {"content-length": "800"} if declared else {}
    sender = Sender(app, body[:700], body[700:], **said)
    await asyncio.sleep(0)
    client = Client(app)
    response = await client.post(PATH, text(400))
    assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert (await client.post(PATH, text(200))).status_code == 200
    sender.go_on.set()
    await sender.task
    assert sender.status == 200
    assert app.intake.held == 0
    assert (await client.post(PATH, text(400))).status_code == 200


async def test_one_alone_may_have_all_that_its_own_limit_allows(app):
    client = Client(app)
    assert (await client.post(PATH, text(3000))).status_code == 200
    assert (await client.post(PATH, text(4001))).status_code == 413
    assert app.intake.held == 0


async def test_a_client_that_leaves_gives_its_bytes_back(app):
    sender = Sender(app, text(900)[:500], b"", **{"content-length": "900"})
    await asyncio.sleep(0)
    assert app.intake.held == 900
    sender.task.cancel()
    await asyncio.wait({sender.task})
    assert app.intake.held == 0


def test_what_is_held_is_the_sum_of_all(seed):
    rng, intake = random.Random(seed), Intake(1000)
    own = [0] * 5
    for _ in range(2000):
        caller, more = rng.randrange(5), rng.randrange(400)
        if rng.random() < 0.3:
            intake.give(own[caller])
            own[caller] = 0
            continue
        others = sum(own) - own[caller]
        if others and sum(own) + more > 1000:
            with pytest.raises(ApiError):
                intake.take(own[caller], more)
        else:
            intake.take(own[caller], more)
            own[caller] += more
        assert intake.held == sum(own)
