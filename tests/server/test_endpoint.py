"""Methods of a route, parameters of its path and query, and bodies that are not JSON."""

from __future__ import annotations

import httpx
import msgspec
import pytest
from starlette.routing import Route, Router

from tenon.server.app import build_app
from tenon.server.body import Bare, Form
from tenon.server.endpoint import Endpoint
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings


class Page(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = 20
    after: str | None = None


async def show(call):
    page = call.query(Page)
    await call.send_json({"id": call.path("id"), "limit": page.limit, "after": page.after})


async def remove(call):
    await call.send_json({"deleted": call.path("id")})


async def upload(call, form):
    file = form["file"]
    content = await file.read()
    await call.send_json({"name": file.filename, "size": len(content), "purpose": form.get("purpose")})


@pytest.fixture
async def http(engine):
    app = build_app(engine, ServerSettings(limits=Limits(body_bytes=4 << 20)))
    router = Router(
        [
            Route("/things/{id}", Endpoint(app, get=show, delete=remove)),
            Route("/things/{id}/stop", Endpoint(app, post=Bare(remove))),
            Route("/files", Endpoint(app, get=show, post=Form(upload))),
        ]
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(router), base_url="http://test") as client:
        yield client


async def test_methods_and_parameters_of_one_path(http):
    answer = await http.get("/things/t1", params={"limit": "3"})
    assert answer.json() == {"id": "t1", "limit": 3, "after": None}
    assert (await http.delete("/things/t1")).json() == {"deleted": "t1"}
    assert (await http.post("/things/t1/stop")).json() == {"deleted": "t1"}
    refused = await http.post("/things/t1")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, DELETE")


@pytest.mark.parametrize(("query", "param"), [("limit=x", "limit"), ("what=1", "what")])
async def test_a_wrong_parameter_is_named(http, query, param):
    answer = await http.get(f"/things/t1?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("size", [0, 10, 2 << 20])  # the last one goes to disk
async def test_a_file(http, size):
    answer = await http.post("/files", files={"file": ("a.jsonl", b"x" * size)}, data={"purpose": "batch"})
    assert answer.json() == {"name": "a.jsonl", "size": size, "purpose": "batch"}


async def test_a_form_is_bounded(http):
    answer = await http.post("/files", files={"file": ("a", b"x" * (5 << 20))})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    answer = await http.post("/files", files=[("file", ("a", b"x")), ("file", ("b", b"x"))])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")
    answer = await http.post("/files", data={"file": "x" * (2 << 20)}, files={"other": ("a", b"x")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"nonsense", 400),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--", 400),
    ],
)  # fmt: skip
async def test_what_is_no_form(http, kind, body, status):
    answer = await http.post("/files", content=body, headers={"content-type": kind})
    assert answer.status_code == status


async def test_either_header_brings_the_key(engine):
    app = build_app(engine, ServerSettings.with_keys(["secret"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for headers, status in (
            ({"x-api-key": "secret"}, 200),
            ({"x-api-key": "wrong"}, 401),
            ({"x-api-key": ""}, 401),
            ({"authorization": "Bearer wrong", "x-api-key": "secret"}, 401),
            ({"authorization": "Bearer secret", "x-api-key": "wrong"}, 200),
        ):
            assert (await client.get("/v1/models", headers=headers)).status_code == status, headers
