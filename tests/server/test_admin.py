"""The operator's routes: on their own socket only, for their owner only."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat

import httpx
import pytest

from tenon.errors import ConfigError
from tenon.server.admin import Admin
from tenon.server.admin_socket import admin_socket
from tenon.server.app import build_app
from tenon.server.keys import Keys, add_key
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}


class Resettable(FakeEngine):
    resets = 0

    def reset_prefix_cache(self):
        self.resets += 1


@pytest.fixture
def engine():
    return Resettable(lambda prompt, choice: "x" * 2000, delay=0.005)


@pytest.fixture
async def admin(app):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(Admin(app)), base_url="http://localhost"
    ) as client:
        yield client


async def running(app, count):
    while len(app.live) < count:
        await asyncio.sleep(0.005)


# --- the routes


async def test_report(app, admin, engine):
    found = (await admin.get("/admin/report")).json()
    assert found["stopping"] is False
    assert found["requests"] == 0
    (model,) = found["models"]
    assert (model["name"], model["state"], model["stats"]["kv_blocks_total"]) == ("fake", "loaded", 100)
    assert model["engine_pid"] is None, "it is none of a process of its own"


async def test_requests_are_listed_and_ended(app, client, admin, engine):
    whole = asyncio.ensure_future(client.post(CHAT, BODY, x_request_id="one"))
    stream = asyncio.ensure_future(client.post(CHAT, BODY | {"stream": True}, x_request_id="two"))
    await running(app, 2)
    while min(request.steps for request in engine.requests) < 3:
        await asyncio.sleep(0.005)
    listed = (await admin.get("/admin/requests")).json()["data"]
    assert {each["id"] for each in listed} == {"one", "two"}
    assert all(each["path"] == CHAT and each["completion_tokens"] >= 2 for each in listed)
    assert (await admin.delete("/admin/requests/three")).status_code == 404
    assert (await admin.delete("/admin/requests/one")).json() == {"done": 1}
    ended = await whole
    assert (ended.status_code, ended.json()["error"]["code"]) == (503, "aborted")
    assert not stream.done()
    app.stopping = True  # while the server drains, too
    assert (await admin.delete("/admin/requests/two")).json() == {"done": 1}
    assert '"code":"aborted"' in (await stream).text
    assert engine.running == 0


async def test_prefix_cache_and_models(admin, engine):
    assert (await admin.post("/admin/prefix-cache/reset")).json() == {"done": 1}
    assert engine.resets == 1
    assert (await admin.post("/admin/models/fake/load")).json() == {"done": 1}
    refused = await admin.post("/admin/models/fake/unload")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_in_use")
    assert (await admin.post("/admin/models/other/load")).status_code == 404


async def test_log_level(admin):
    before = logging.getLogger().level
    try:
        assert (await admin.post("/admin/log-level", json={"level": "debug"})).json() == {"level": "debug"}
        assert logging.getLogger().level == logging.DEBUG
        assert (await admin.post("/admin/log-level", json={"level": "all"})).status_code == 400
    finally:
        logging.getLogger().setLevel(before)


async def test_reload(engine, tmp_path):
    path = tmp_path / "keys"
    add_key(path, "a")
    app = build_app(engine, ServerSettings(keys=Keys(path=path)))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(Admin(app)), base_url="http://localhost"
    ) as admin:
        assert (await admin.post("/admin/reload")).json() == {"done": 1}
        assert (await admin.get("/admin/report")).json()["keys"] == ["a"]
        path.write_text("nonsense\n")
        assert (await admin.post("/admin/reload")).status_code == 409
        assert (await admin.get("/admin/report")).json()["keys"] == ["a"]


async def test_what_is_not_there(admin):
    for path in ("/", "/v1/models", "/admin", "/admin/nope", "/metrics"):
        assert (await admin.get(path)).status_code == 404
    assert (await admin.get("/admin/reload")).status_code == 405


# --- where they are not


@pytest.mark.parametrize("keys", [(), ("k",)])
async def test_the_public_app_has_none_of_them(engine, keys):
    app = build_app(engine, ServerSettings.with_keys(list(keys)))
    client = Client(app)
    assert not {route.path for route in Admin(app).routes} & {route.path for route in app.routes}
    for route in Admin(app).routes:
        for method in ("GET", "POST", "DELETE"):
            found = await client.http.request(method, route.path, headers={"x-api-key": "k"})
            assert found.status_code == 404
            assert (await client.http.request(method, route.path)).status_code == (401 if keys else 404)


# --- the socket


def test_the_socket_is_its_owners(tmp_path):
    path = tmp_path / "admin.sock"
    with admin_socket(path) as sock:
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_uid == os.geteuid()
        assert not sock.get_inheritable()
        with pytest.raises(ConfigError, match="listens on"), admin_socket(path):
            pass
        assert path.exists(), "the second has not taken the first's away"
    assert not path.exists()


def test_what_stands_in_the_way(tmp_path):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with admin_socket(path):
        pass
    path.write_text("a file of somebody's")
    with pytest.raises(ConfigError, match="no socket"), admin_socket(path):
        pass
    assert path.read_text()
    with pytest.raises(ConfigError, match="cannot listen"), admin_socket(tmp_path / "none" / "a.sock"):
        pass
    with pytest.raises(ConfigError, match="cannot listen"), admin_socket(tmp_path / ("x" * 200)):
        pass
