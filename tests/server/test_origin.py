"""Which names the server answers to, and which pages may use it."""

from __future__ import annotations

import pytest

from tenon.errors import ConfigError
from tenon.server.app import build_app
from tenon.server.origin import check_cors_origin, hosts_for, is_loopback, settings_at
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}
EVIL = "https://evil.example"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False), ("10.0.0.1", False), ("fe80::1%eth0", False), ("::ffff:8.8.8.8", False), ("", False),
        ("localhost", False),
    ],
)  # fmt: skip
def test_loopback(address, expected):
    assert is_loopback(address) == expected


# --- where it listens


def test_beyond_this_machine_a_key_is_needed():
    for address in ("0.0.0.0", "::", "192.168.1.5"):
        with pytest.raises(ConfigError, match="--insecure-no-auth"):
            settings_at(address, ServerSettings())
        settings_at(address, ServerSettings.with_keys(["k"]))
        settings_at(address, ServerSettings(insecure=True))
    for address in ("127.0.0.1", "::1"):
        settings_at(address, ServerSettings())


def test_names_by_address():
    assert hosts_for("127.0.0.1", ()) == ("localhost",)
    assert hosts_for("127.0.0.1", ("Box.lan",)) == ("localhost", "box.lan")
    assert hosts_for("127.0.0.1", ("*",)) == ()
    assert hosts_for("0.0.0.0", ()) == ()
    assert hosts_for("0.0.0.0", ("api.example",)) == ("localhost", "api.example")


@pytest.mark.parametrize("name", ["", "a:80", "http://a", "a/b", "a b", "[::1]:80"])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="--allowed-host"):
        hosts_for("127.0.0.1", (name,))


def local(engine, **settings) -> Client:
    return Client(build_app(engine, settings_at("127.0.0.1", ServerSettings(**settings))))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "",
        "localhost:", "10.0.0.1", "0.0.0.0", "[::2]:8000", "localhost@evil.example", "localhost:80:80",
        "localhost,evil.example", "a/localhost", "2130706433", "0x7f.1", "localhost/health?",
        "evil.example#localhost",
    ],
)  # fmt: skip
async def test_names_of_elsewhere(engine, host):
    """DNS rebinding: on every path, public or not, with and without a key."""
    plain, keyed = local(engine), local(engine, keys=ServerSettings.with_keys(["k"]).keys)
    for path in ("/", "/live", "/v1/models", "/nope", "/metrics", "/openapi.json"):
        for client in (plain, keyed):
            response = await client.http.get(path, headers={"host": host, "authorization": "Bearer k"})
            assert response.status_code == 421, path
            assert response.json()["error"]["code"] == "host_not_allowed"
    assert (await plain.post(CHAT, BODY, host=host)).status_code == 421
    assert not engine.requests


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:9", "[::1]:8000", "127.3.2.1", "my.name:80"],
)
async def test_names_of_this_machine(engine, host):
    client = local(engine, allowed_hosts=("my.name",))
    assert (await client.post(CHAT, BODY, host=host)).status_code == 200


# --- pages of elsewhere


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:3000", "file://", "//"])
async def test_a_page_of_elsewhere_changes_nothing(engine, origin):
    client = local(engine)
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        for path in (CHAT, "/v1/files", "/v1/batches/b/cancel", "/nope"):
            response = await client.post(path, BODY, origin=origin, content_type=kind, host="localhost")
            assert response.status_code == 403, path
            assert response.json()["error"]["code"] == "origin_not_allowed"
    deleted = await client.http.delete("/v1/files/f", headers={"origin": origin, "host": "localhost"})
    assert deleted.status_code == 403
    assert not engine.requests
    # It may send a GET, as an image would be asked for, but not read the answer.
    read = await client.http.get("/v1/models", headers={"origin": origin, "host": "localhost"})
    assert read.status_code == 200
    assert not [name for name in read.headers if name.startswith("access-control")]


async def test_the_own_page_may(engine):
    client = local(engine)
    for origin in ("http://localhost:8000", "https://localhost:8000"):  # behind a proxy with TLS
        answer = await client.post(CHAT, BODY, origin=origin, host="localhost:8000")
        assert answer.status_code == 200


async def test_with_a_key_the_key_decides(engine):
    """Applications that are web pages inside send an Origin; no browser adds a key by itself."""
    client = local(engine, keys=ServerSettings.with_keys(["k"]).keys)
    headers = {"origin": "app://notes", "host": "localhost"}
    assert (await client.post(CHAT, BODY, **headers)).status_code == 401
    assert (await client.post(CHAT, BODY, authorization="Bearer k", **headers)).status_code == 200


# --- CORS

PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


async def test_cors_is_off(engine):
    client = local(engine)
    response = await client.http.options(CHAT, headers={"origin": EVIL, "host": "localhost", **PREFLIGHT})
    assert response.status_code in (403, 405)
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_cors_for_one_origin(engine):
    keys = ServerSettings.with_keys(["k"]).keys
    client = local(engine, keys=keys, cors_origins=("https://app.example",))
    good = {"origin": "https://app.example", "host": "localhost"}
    preflight = await client.http.options(CHAT, headers={**good, **PREFLIGHT})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "origin" in preflight.headers["vary"].lower()
    assert "access-control-allow-credentials" not in preflight.headers
    answer = await client.post(CHAT, BODY, authorization="Bearer k", **good)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    refused = await client.post(CHAT, BODY, **good)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example", "pages must read errors"
    for origin in (EVIL, "https://app.example.evil.example", "http://app.example", "null"):
        foreign = {"origin": origin, "host": "localhost"}
        preflight = await client.http.options(CHAT, headers={**foreign, **PREFLIGHT})
        assert preflight.status_code == 403
        assert preflight.json()["error"]["code"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in preflight.headers
        answer = await client.post(CHAT, BODY, authorization="Bearer k", **foreign)
        assert "access-control-allow-origin" not in answer.headers


async def test_cors_lets_a_page_use_a_server_without_keys(engine):
    client = local(engine, cors_origins=("https://app.example",))
    headers = {"origin": "https://app.example", "host": "localhost"}
    assert (await client.post(CHAT, BODY | {"stream": True}, **headers)).status_code == 200
    assert (await client.post(CHAT, BODY, origin=EVIL, host="localhost")).status_code == 403
    anybody = local(engine, cors_origins=("*",))
    answer = await anybody.post(CHAT, BODY, origin=EVIL, host="localhost")
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_preflight_gets_past_no_host(engine):
    client = local(engine, cors_origins=("https://app.example",))
    headers = {"origin": "https://app.example", "host": "evil.example"}
    assert (await client.post(CHAT, BODY, **headers)).status_code == 421


@pytest.mark.parametrize("origin", ["app.example", "https://a/", "https://a/b", "https://", "null", ""])
def test_origins_that_are_none(origin):
    with pytest.raises(ConfigError, match="--cors-origin"):
        check_cors_origin(origin)


def test_origins():
    for origin in ("*", "https://app.example", "http://localhost:3000", "app://notes"):
        assert check_cors_origin(origin) == origin
