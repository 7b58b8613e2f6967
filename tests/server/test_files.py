"""/v1/files with the `openai` client over real sockets, and what no client of good will sends."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import httpx
import openai
import pytest

from tenon.errors import ConfigError
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tenon.server.store.store import Store
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}\n'


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    keys = ["one", "two"]
    return ServerSettings.with_keys(
        keys, data_dir=tmp_path / "data", limits=Limits(file_bytes=100_000, stored_bytes=250_000)
    )


@pytest.fixture
async def url(settings):
    async with serving(FakeEngine(), settings) as (url, _):
        yield url


@pytest.fixture
async def one(url):
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="one", max_retries=0) as client:
        yield client


@pytest.fixture
async def two(url):
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="two", max_retries=0) as client:
        yield client


async def upload(client, data: bytes = LINE, name: str = "in.jsonl", **fields):
    return await client.files.create(file=(name, data), purpose="batch", **fields)


async def test_a_file_comes_back_as_it_was(one, tmp_path):
    data = os.urandom(90_000)
    file = await upload(one, data)
    assert (file.bytes, file.filename, file.purpose, file.status) == (
        90_000,
        "in.jsonl",
        "batch",
        "processed",
    )
    assert await one.files.retrieve(file.id) == file
    assert (await one.files.content(file.id)).content == data
    assert (tmp_path / "data/files" / file.id).read_bytes() == data
    assert (await one.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await one.files.retrieve(file.id)
    assert list((tmp_path / "data/files").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 90_000])
async def test_a_download_ends_with_its_last_byte(one, size, caplog):
    caplog.set_level("INFO", "tenon.server")
    file = await upload(one, bytes(size))
    for _ in range(5):
        assert (await one.files.content(file.id)).content == bytes(size)
    assert "the client left" not in caplog.text


async def test_keys_see_their_own_files_only(one, two):
    file = await upload(one)
    assert [f.id async for f in one.files.list()] == [file.id]
    assert [f.id async for f in two.files.list()] == []
    for attempt in (two.files.retrieve, two.files.content, two.files.delete):
        with pytest.raises(openai.NotFoundError):
            await attempt(file.id)
    with pytest.raises(openai.BadRequestError):
        await two.files.list(after=file.id)


async def test_pages(one):
    ids = [(await upload(one, name=f"{i}.jsonl")).id for i in range(5)]
    assert [f.id async for f in one.files.list(limit=2)] == ids[::-1]
    assert [f.id async for f in one.files.list(limit=2, order="asc")] == ids
    page = await one.files.list(limit=2, order="asc", after=ids[1])
    assert ([f.id for f in page.data], page.has_more) == (ids[2:4], True)
    assert not (await one.files.list(limit=2, order="asc", after=ids[2])).has_more
    assert (await one.files.list(purpose="batch_output")).data == []
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}, {"after": "file-x"}):
        with pytest.raises(openai.BadRequestError) as caught:
            await one.files.list(**wrong)
        assert caught.value.param == next(iter(wrong))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "é 漢.jsonl"])
async def test_names_are_only_names(one, name, tmp_path):
    file = await upload(one, name=name)
    assert file.filename == name
    assert [p.name for p in (tmp_path / "data/files").iterdir()] == [file.id]


@pytest.mark.parametrize("path", ["..%2f..%2ftenon.sqlite", "..", "%00", "file-x", "../tenon.sqlite"])
async def test_ids_are_never_paths(url, one, path):
    await upload(one)
    async with httpx.AsyncClient(headers={"authorization": "Bearer one"}) as client:
        for suffix in ("", "/content"):
            response = await client.get(f"{url}/v1/files/{path}{suffix}")
            assert response.status_code in (404, 405), response.text
            assert b"SQLite" not in response.content


async def test_limits(one, url):
    with pytest.raises(openai.APIStatusError) as caught:
        await upload(one, bytes(100_001))
    assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")
    for _ in range(2):
        await upload(one, bytes(100_000))
    with pytest.raises(openai.APIStatusError) as caught:
        await upload(one, bytes(100_000))
    assert (caught.value.status_code, caught.value.code) == (413, "storage_full")
    try:
        response = await httpx.AsyncClient().post(
            url + "/v1/files",
            headers={"authorization": "Bearer one"},
            files={"file": ("x", bytes(1 << 20))},
            data={"purpose": "batch"},
        )
        assert response.status_code == 413
    except httpx.TransportError:
        pass  # hung up on, in the middle of what is too much


async def test_uploads_at_once_are_bounded_together(one):
    """Each of them sees room for itself before it is copied; it is looked at again when it is kept."""
    made = await asyncio.gather(*(upload(one, bytes(100_000)) for _ in range(8)), return_exceptions=True)
    codes = [file.code for file in made if isinstance(file, openai.APIStatusError)]
    assert codes == ["storage_full"] * 6
    kept = [file async for file in one.files.list()]
    assert [file.bytes for file in kept] == [100_000] * 2


async def test_wrong_forms(url):
    async with httpx.AsyncClient(headers={"authorization": "Bearer one"}) as client:

        async def refused(**kwargs) -> tuple[int, str | None]:
            response = await client.post(url + "/v1/files", **kwargs)
            return response.status_code, response.json()["error"]["param"]

        file = {"file": ("in.jsonl", io.BytesIO(LINE))}
        assert await refused(data={"purpose": "batch"}, files={"other": b"x"}) == (400, "file")
        assert await refused(data={"purpose": "batch", "file": "text"}, files={"other": b"x"}) == (
            400,
            "file",
        )
        assert await refused(files=file) == (400, "purpose")
        assert await refused(data={"purpose": "fine-tune"}, files=file) == (400, "purpose")
        assert (await refused(json={"purpose": "batch"}))[0] == 415
        long = {"file": ("n" * 256, b"x")}
        assert await refused(data={"purpose": "batch"}, files=long) == (400, "file")
        for seconds in ("1", "x", "99999999999999"):
            expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
            status, param = await refused(data={"purpose": "batch", **expiry}, files=file)
            assert (status, param) == (400, "expires_after.seconds")


async def test_files_expire(one, monkeypatch):
    file = await upload(one, expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at == file.created_at + 3600
    monkeypatch.setattr("tenon.server.store.files.time.time", lambda: file.created_at + 3599)
    assert (await one.files.retrieve(file.id)).id == file.id
    monkeypatch.setattr("tenon.server.store.files.time.time", lambda: file.created_at + 3600)
    with pytest.raises(openai.NotFoundError):
        await one.files.retrieve(file.id)
    assert (await one.files.list()).data == []


async def test_a_directory_belongs_to_one_server(settings, one):
    await upload(one)
    with pytest.raises(ConfigError, match=f"in use by another server .process {os.getpid()}."):
        Store(settings.data_dir)
    async with serving(FakeEngine(), settings) as (url, app):
        response = await httpx.AsyncClient().get(url + "/v1/files", headers={"authorization": "Bearer one"})
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "no_data_dir"
        with pytest.raises(ConfigError):
            await app.archive.resume()


async def test_halves_of_files_are_swept(tmp_path):
    store = Store(tmp_path)
    kept = await store.files.add("me", "a", "batch", io.BytesIO(b"x"))
    store.files.write("b", "batch", lambda out: out.write(b"no row"))
    (tmp_path / "files/file-1.part").write_bytes(b"half")
    await store.files.sweep()
    assert [path.name for path in (tmp_path / "files").iterdir()] == [kept.id]
    store.close()
    store = Store(tmp_path)
    assert await store.files.get("me", kept.id) == kept
    store.close()


def test_a_file_that_is_no_database_is_explained(tmp_path):
    (tmp_path / "tenon.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(tmp_path)
    (tmp_path / "tenon.sqlite").unlink()
    Store(tmp_path).close()
    import sqlite3

    connection = sqlite3.connect(tmp_path / "tenon.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="another version"):
        Store(tmp_path)


@pytest.mark.parametrize("charset", ["idna", "punycode", "hex", "utf-16", '"latin-1"', "nothing"])
async def test_a_form_is_utf_8(url, charset):
    headers = {
        "authorization": "Bearer one",
        "content-type": f"multipart/form-data; boundary=b; charset={charset}",
    }
    response = await httpx.AsyncClient().post(url + "/v1/files", content=b"--b--\r\n", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_form")


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF8"'])
async def test_a_form_that_says_so(url, charset):
    headers = {"authorization": "Bearer one", "content-type": f"multipart/form-data; boundary=b{charset}"}
    response = await httpx.AsyncClient().post(url + "/v1/files", content=b"--b--\r\n", headers=headers)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")


async def test_a_form_of_large_parts(url):
    """Names, headers and fields are bounded; only files may be large."""
    large = "x" * 100_000
    for part in (
        f'--b\r\nContent-Disposition: form-data; name="{large}"\r\n\r\na\r\n--b--\r\n',
        f"--b\r\n{large}: a\r\n\r\na\r\n--b--\r\n",
        f'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{large}\r\n--b--\r\n',
        "--b\r\n" + 'Content-Disposition: form-data; name="a"\r\n\r\na\r\n--b\r\n' * 200,
    ):
        headers = {"authorization": "Bearer one", "content-type": "multipart/form-data; boundary=b"}
        response = await httpx.AsyncClient().post(url + "/v1/files", content=part, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_form"), part[:100]
