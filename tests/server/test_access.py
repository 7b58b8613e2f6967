"""Every route, however it is asked for, is closed to whoever has no key: on real sockets, byte for byte."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from tenon.server.app import App
from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

KEY = "the-only-good-key"

# What nobody is asked a key for: probes, the page's files (the page asks for the key), and what is the same
# for everybody. Another one must be added here, by somebody who has thought about it.
PUBLIC = {"/health", "/live", "/ready", "/version", "/openapi.json", "/", "/ui/{name:path}"}

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")

WITHOUT = [
    "",
    "Authorization: Bearer wrong",
    "Authorization: Bearer",
    "Authorization: Bearer ",
    f"Authorization: {KEY}",
    f"Authorization: Basic {KEY}",
    f"Authorization: Bearer {KEY}x",
    f"Authorization: Bearer {KEY[:-1]}",
    f"Authorization: Bearer {KEY.upper()}",
    f"Authorization: Bearer {KEY} {KEY}",
    f"Authorization: Bearer wrong\r\nAuthorization: Bearer {KEY}",
    f"Authorization: Bearer wrong\r\nX-Api-Key: {KEY}",
    f"Proxy-Authorization: Bearer {KEY}",
    f"Api-Key: {KEY}",
    f"X-Auth-Token: {KEY}",
    f"Cookie: api_key={KEY}; authorization={KEY}",
    f"X-Forwarded-For: 127.0.0.1\r\nX-Real-Ip: 127.0.0.1\r\nForwarded: for=127.0.0.1;by={KEY}",
    "X-Original-Url: /live\r\nX-Rewrite-Url: /live\r\nX-Forwarded-Path: /live",
    "X-Http-Method-Override: GET\r\nX-Forwarded-Host: localhost",
    "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Origin: http://localhost\r\nAccess-Control-Request-Method: POST",
]
HOSTS = ["localhost/health?", "localhost/live#", "a", "localhost:8000@evil.example", "/live"]


def paths(app: App, *, public: bool) -> Iterator[str]:
    for route in app.routes:
        assert route.app.public == (route.path in PUBLIC), f"{route.path}: public or not? see PUBLIC"
        if route.app.public == public:
            yield re.sub(r"\{\w+(:\w+)?\}", "thing", route.path)


def spellings(path: str) -> Iterator[str]:
    """Ways to write a path that some servers take for the same, or for a public one."""
    yield f"/{path}"
    yield f"/.{path}"
    yield f"/live/..{path}"
    yield f"/ui{path}"
    yield path.replace("/", "%2f")
    yield "/" + path[1:].replace("/", "%2F")
    yield "/" + path[1:].replace("/", "\\")
    yield path.upper()
    yield path + "/"
    yield path + "%00"
    yield path + ";/live"
    yield path + "/../../live"
    yield path + f"?api_key={KEY}&key={KEY}&token={KEY}"
    yield path + "?/live"
    yield "/%" + f"{ord(path[1]):02x}" + path[2:]
    yield f"http://localhost{path}"
    yield f"http://localhost/live?{path}"
    yield f"https://evil.example{path}"
    yield "*"


class Socket:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writer: asyncio.StreamWriter | None = None

    async def ask(
        self, method: str, target: str, *headers: str, host: str = "localhost"
    ) -> tuple[int, bytes]:
        """Status and body; -1 for a connection that is closed without a word."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *filter(None, headers), "\r\n"])
        self.writer.write(head.encode())
        try:
            head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode()
        except asyncio.IncompleteReadError:
            self.close()
            return -1, b""
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = b"" if method == "HEAD" or not length else await self.reader.readexactly(int(length[1]))
        if re.search("connection: close", head, re.IGNORECASE) or not length:
            self.close()
        return int(head.split(" ")[1]), body

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


@pytest.fixture
async def server():
    engine = FakeEngine()
    async with serving(engine, ServerSettings.with_keys([KEY])) as (url, app):
        socket = Socket(int(url.rpartition(":")[2]))
        yield socket, app
        socket.close()
        assert not engine.requests


async def test_every_route_in_every_way_without_a_key(server):
    """And all answers are the same: nobody without a key learns what is here."""
    socket, app = server
    said: dict[str, set[bytes]] = {}
    found = [
        *paths(app, public=False),
        "/nope",
        "/v1/nope",
        "/v1/models/org/name",
        "/v1/files/../models",
        "//",
    ]
    asked = 0
    for path in found:
        wire = "anthropic" if path.startswith("/v1/messages") else "openai"
        for method in METHODS:
            for headers in WITHOUT:
                status, body = await socket.ask(method, path, headers)
                assert status == 401, (method, path, headers)
                said.setdefault(wire, set()).add(re.sub(rb'"request_id":"\w+"', b"", body))
                asked += 1
        for host in HOSTS:
            status, _ = await socket.ask("GET", path, host=host)
            assert status in (400, 401), (path, host)
            asked += 1
    assert all(len(bodies - {b""}) == 1 for bodies in said.values()), said
    assert asked > 5000


async def test_every_spelling_of_every_route(server):
    socket, app = server
    for path in [*paths(app, public=False), "/v1/models/fake"]:
        for target in spellings(path):
            for method in ("GET", "POST", "HEAD"):
                status, body = await socket.ask(method, target)
                if target.startswith("/ui/"):  # public: any name below it that is no file of the page
                    assert status in (401, 404, 405), (method, target)
                else:
                    assert status in (400, 401), (method, target)
                assert b"fake" not in body.replace(target.encode(), b"")
                assert b"tenon:" not in body


async def test_public_routes_answer_only_what_they_are_for(server):
    socket, app = server
    for path in paths(app, public=True):
        for method in METHODS:
            status, body = await socket.ask(method, path)
            assert status == (404 if path == "/ui/thing" else 200) or method not in ("GET", "HEAD"), path
            assert method in ("GET", "HEAD") or status == 405, (method, path)
            assert b"fake" not in body, "the models' names are behind the key"


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_do_not_tell_what_failed(path):
    """A model that cannot be loaded is named, with its file, to those who have a key."""
    from tenon.server.errors import ApiError
    from tenon.server.models import Fixed

    why = ApiError(503, "the model secret-name cannot be loaded: /models/secret.gguf", code="model_failed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fixed, "error", why)
        async with serving(FakeEngine(), ServerSettings.with_keys([KEY])) as (url, _):
            socket = Socket(int(url.rpartition(":")[2]))
            status, body = await socket.ask("GET", path)
            socket.close()
    assert status == 503
    assert b"model_failed" in body
    assert b"secret" not in body


async def test_the_key_opens_every_route(server):
    """The other way round: what is refused above is refused for want of a key, and for nothing else."""
    socket, app = server
    for path in set(paths(app, public=False)) - {"/health_generate"}:  # its engine is asked for something
        for header in (f"Authorization: Bearer {KEY}", f"X-Api-Key: {KEY}", f"authorization: bearer  {KEY} "):
            for method in ("GET", "DELETE", "OPTIONS"):
                status, _ = await socket.ask(method, path, header)
                assert status not in (-1, 401), (method, path)


async def test_what_others_have_stored_is_not_there():
    """A wrong key and somebody else's say the same of things that exist and of things that do not."""
    engine = FakeEngine()
    async with serving(engine, ServerSettings.with_keys(["one", "two"])) as (url, _):
        import httpx

        async with httpx.AsyncClient(base_url=url) as client:
            mine = {"authorization": "Bearer one"}
            made = await client.post("/v1/responses", json={"input": "hi"}, headers=mine)
            name = made.json()["id"]
            assert (await client.get(f"/v1/responses/{name}", headers=mine)).status_code == 200
            for key, expected in (("two", 404), ("three", 401)):
                other = {"authorization": f"Bearer {key}"}
                there = await client.get(f"/v1/responses/{name}", headers=other)
                absent = await client.get(f"/v1/responses/{name[:-1]}x", headers=other)
                assert there.status_code == absent.status_code == expected
                assert there.text.replace(name, "?") == absent.text.replace(name[:-1] + "x", "?")
