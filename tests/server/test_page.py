"""The web page's files: what is served, how, and what may be in them."""

from __future__ import annotations

import re

import pytest

from tenon.server import page
from tenon.server.app import build_app
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client

NAMES = sorted(page.files())
SCRIPTS = [name for name in NAMES if name.endswith(".js")]
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


async def test_the_page(client):
    response = await client.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text == (page.FOLDER / "index.html").read_text()


@pytest.mark.parametrize("name", NAMES)
async def test_files(client, name):
    response = await client.http.get(f"/ui/{name}")
    assert response.status_code == 200
    assert response.content == (page.FOLDER / name).read_bytes()
    assert response.headers["content-type"] == TYPES[name.rpartition(".")[2]]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    policy = response.headers["content-security-policy"]
    assert "default-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy


async def test_a_file_is_sent_once(client):
    first = await client.http.get("/ui/main.js")
    for known in (first.headers["etag"], f'"x", W/{first.headers["etag"]}'):
        again = await client.http.get("/ui/main.js", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    other = await client.http.get("/ui/page.css", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/nope.js", "/ui/../page.py", "/ui/%2e%2e/page.py", "/ui//etc/passwd", "/ui/markdown"]
)
async def test_nothing_else_is_served(client, path):
    response = await client.http.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_no_key_is_needed_to_see_it(engine):
    client = Client(build_app(engine, ServerSettings.with_keys(["secret"])))
    for path in ("/", "/ui/main.js"):
        assert (await client.http.get(path)).status_code == 200
    assert (await client.http.post("/")).status_code == 405


def test_the_page_asks_nobody_else():
    """No address of another server stands in it, except the name of the SVG name space."""
    for name in NAMES:
        text = page.files()[name].content.decode().replace("http://www.w3.org/2000/svg", "")
        if name.startswith("markdown/"):
            text = "\n".join(line for line in text.splitlines() if "//" not in line or "import" in line)
        assert not re.search(r"https?://\w|[\"'(]//\w", text), name


@pytest.mark.parametrize("name", [*SCRIPTS, "index.html"])
def test_text_never_becomes_markup(name):
    text = page.files()[name].content.decode()
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|DOMParser"
    assert not re.search(sinks, text)
    if name == "index.html":  # the policy would refuse these
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_modules_are_small(name):
    assert len(page.files()[name].content.splitlines()) < 200
