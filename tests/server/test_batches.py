"""/v1/batches with the `openai` client: statuses, results, errors, cancelling, expiry, restarts."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import openai
import pytest

from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine, echo_script
from tests.server.serving import serving

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
FINAL = {"completed", "failed", "expired", "cancelled"}


def chat(custom_id: str, content: str = "hi", **fields) -> dict:
    body = {"model": "fake", "messages": [{"role": "user", "content": content}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(*lines: dict | str) -> bytes:
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings.with_keys(["one", "two"], data_dir=tmp_path, batch_concurrency=4)


@pytest.fixture
async def url(engine, settings):
    async with serving(engine, settings) as (url, _):
        yield url


def client(url: str, key: str = "one") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url + "/v1", api_key=key, max_retries=0)


@pytest.fixture
async def api(url):
    async with client(url) as api:
        yield api


async def submit(api, *lines: dict | str, endpoint: str = CHAT, window: str = "24h", **fields):
    file = await api.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    return await api.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window=window, **fields
    )


async def ended(api, batch):
    while (batch := await api.batches.retrieve(batch.id)).status not in FINAL:
        await asyncio.sleep(0.01)
    return batch


async def results(api, file_id: str | None) -> list[dict]:
    if file_id is None:
        return []
    return [json.loads(line) for line in (await api.files.content(file_id)).text.splitlines()]


async def test_a_batch_from_upload_to_results(api):
    lines = [chat(f"request-{i}", f"question {i}") for i in range(20)]
    batch = await submit(api, *lines, metadata={"job": "nightly"})
    assert (batch.object, batch.status, batch.endpoint) == ("batch", "validating", CHAT)
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = await ended(api, batch)
    assert batch.status == "completed"
    assert batch.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
    assert batch.metadata == {"job": "nightly"}
    assert (batch.error_file_id, batch.errors) == (None, None)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    out = await results(api, batch.output_file_id)
    assert [r["custom_id"] for r in out] == [line["custom_id"] for line in lines]  # in the input's order
    for i, result in enumerate(out):
        assert set(result) == {"id", "custom_id", "response", "error"}
        assert result["error"] is None
        assert result["response"]["status_code"] == 200
        answer = result["response"]["body"]["choices"][0]["message"]["content"]
        assert answer == echo_script(f"<user>question {i}\n<assistant>", 0)
    assert len({r["id"] for r in out}) == 20
    file = await api.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_each_line_fails_alone(api):
    batch = await submit(
        api,
        chat("good"),
        chat("bad-field", temperature=-1),
        chat("unknown-model", model="gpt-5"),
        chat("streamed", stream=True),
        chat("also-good", "again"),
    )
    batch = await ended(api, batch)
    assert batch.status == "completed"
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 2, "failed": 3}
    assert [r["custom_id"] for r in await results(api, batch.output_file_id)] == ["good", "also-good"]
    errors = {r["custom_id"]: r["response"] for r in await results(api, batch.error_file_id)}
    assert {k: (r["status_code"], r["body"]["error"]["code"]) for k, r in errors.items()} == {
        "bad-field": (400, "invalid_value"),
        "unknown-model": (404, "model_not_found"),
        "streamed": (400, "not_supported"),
    }


async def test_completions(api):
    line = {"custom_id": "a", "method": "POST", "url": TEXT, "body": {"prompt": ["x", "y"], "n": 2}}
    batch = await ended(api, await submit(api, line, endpoint=TEXT))
    (result,) = await results(api, batch.output_file_id)
    assert len(result["response"]["body"]["choices"]) == 4


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ("not json", "invalid_json", None),
        ('["list"]', "invalid_value", None),
        ({"method": "POST", "url": CHAT, "body": {}}, "missing_field", "custom_id"),
        (chat("a") | {"custom_id": 7}, "invalid_value", "custom_id"),
        (chat(""), "invalid_value", "custom_id"),
        (chat("x" * 513), "invalid_value", "custom_id"),
        (chat("a") | {"method": "GET"}, "invalid_value", "method"),
        (chat("a") | {"url": TEXT}, "invalid_value", "url"),
        (chat("a") | {"url": "/v1/files"}, "invalid_value", "url"),
        (chat("a") | {"body": []}, "invalid_value", "body"),
        (chat("first"), "duplicate_custom_id", "custom_id"),
    ],
)
async def test_a_wrong_line_fails_the_batch_before_it_runs(api, engine, line, code, param):
    batch = await ended(api, await submit(api, chat("first"), "", line, chat("last")))
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert (error.code, error.param, error.line) == (code, param, 3)
    assert (batch.failed_at, batch.output_file_id, batch.error_file_id) != (None, None, None)
    assert batch.request_counts.total == 0
    assert engine.requests == []


async def test_an_empty_file_fails(api):
    batch = await ended(api, await submit(api, "", "  "))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "empty_file")


async def test_too_many_lines_and_too_many_errors(engine, tmp_path):
    settings = ServerSettings(data_dir=tmp_path, limits=Limits(batch_lines=3))
    async with serving(engine, settings) as (url, _), client(url) as api:
        batch = await ended(api, await submit(api, *(chat(str(i)) for i in range(4))))
        assert (batch.status, batch.errors.data[0].code) == ("failed", "too_many_lines")
        assert (await ended(api, await submit(api, *(chat(str(i)) for i in range(3))))).status == "completed"
        batch = await ended(api, await submit(api, *["x"] * 1000))
        assert len(batch.errors.data) == 100


async def test_a_line_too_long_for_a_request_is_no_line(engine, tmp_path):
    settings = ServerSettings(data_dir=tmp_path, limits=Limits(body_bytes=10_000))
    async with serving(engine, settings) as (url, _), client(url) as api:
        batch = await ended(api, await submit(api, chat("a"), chat("b", "x" * 50_000), chat("c")))
        assert batch.status == "failed"
        assert [error.line for error in batch.errors.data] == [2]


async def test_wrong_requests(api):
    file = await api.files.create(file=("in.jsonl", jsonl(chat("a"))), purpose="batch")
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for wrong, param in (
        ({"endpoint": "/v1/files"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"output_expires_after": {"anchor": "x", "seconds": 3600}}, "output_expires_after.anchor"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await api.batches.create(**{**good, **wrong})
        assert caught.value.param == param
    with pytest.raises(openai.NotFoundError):
        await api.batches.create(**{**good, "input_file_id": "file-nope"})
    with pytest.raises(openai.NotFoundError):
        await api.batches.retrieve("batch_nope")
    with pytest.raises(openai.BadRequestError):
        await api.batches.list(limit=101)


async def test_keys_see_their_own_batches_only(api, url):
    batch = await ended(api, await submit(api, chat("a")))
    async with client(url, "two") as other:
        assert [b.id async for b in other.batches.list()] == []
        for attempt in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await attempt(batch.id)
        with pytest.raises(openai.NotFoundError):
            await other.files.content(batch.output_file_id)
        with pytest.raises(openai.NotFoundError):
            await other.batches.create(
                input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
            )


async def test_lines_run_in_the_background_for_their_owner(api, engine):
    await ended(api, await submit(api, chat("a")))
    await api.chat.completions.create(model="fake", messages=[{"role": "user", "content": "hi"}])
    line, asked = engine.requests
    assert (line.background, asked.background) == (True, False)
    assert line.cache_salt == asked.cache_salt != ""


async def test_pages(api):
    ids = [(await submit(api, chat("a"))).id for _ in range(5)]
    assert [b.id async for b in api.batches.list(limit=2)] == ids[::-1]
    page = await api.batches.list(limit=2, after=ids[3])
    assert ([b.id for b in page.data], page.has_more) == ([ids[2], ids[1]], True)


async def test_at_most_so_many_lines_at_a_time(api, engine):
    engine.delay = 0.002
    running = []
    engine.script = lambda prompt, choice: running.append(engine.running) or "x" * 9
    for batch in [await submit(api, *(chat(str(i)) for i in range(12))) for _ in range(2)]:
        assert (await ended(api, batch)).request_counts.completed == 12
    assert max(running) == 3  # beside the one that begins


async def test_somebody_who_waits_comes_first(api, engine):
    """While a client's request is in flight, no more than one line is started beside those that run."""
    engine.script, engine.delay = (lambda prompt, choice: "x" * 1000), 0.005
    asked = await api.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "hi"}], stream=True, max_tokens=1000
    )
    await anext(aiter(asked))
    engine.script = lambda prompt, choice: "x" * 9
    batch = await submit(api, *(chat(str(i)) for i in range(6)))
    most = 0
    while len(engine.requests) < 5:
        most = max(most, engine.running)
        await asyncio.sleep(0.002)
    assert most == 2
    await asked.close()
    assert (await ended(api, batch)).status == "completed"


async def test_cancelling_keeps_what_is_done(api, engine):
    engine.delay = 0.004
    batch = await submit(api, *(chat(str(i)) for i in range(200)))
    while (await api.batches.retrieve(batch.id)).request_counts.completed < 5:
        await asyncio.sleep(0.005)
    cancelled = await api.batches.cancel(batch.id)
    assert cancelled.status in ("cancelling", "cancelled")
    batch = await ended(api, batch)
    assert batch.status == "cancelled"
    assert batch.cancelling_at <= batch.cancelled_at
    out = await results(api, batch.output_file_id)
    assert len(out) == batch.request_counts.completed >= 5
    assert batch.request_counts.total == 200
    assert engine.running == 0
    assert (await api.batches.cancel(batch.id)).status == "cancelled"
    done = await ended(api, await submit(api, chat("a")))
    with pytest.raises(openai.ConflictError):
        await api.batches.cancel(done.id)


async def test_cancelling_at_once(api):
    batch = await submit(api, chat("a"))
    await api.batches.cancel(batch.id)
    assert (await ended(api, batch)).status == "cancelled"


async def test_cancelling_what_stands_still(api, monkeypatch, caplog):
    """A batch that a fault of the server has stopped is not stuck until the next start."""

    async def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("tenon.server.store.batches.Batches.record", broken)
    batch = await submit(api, chat("a"))
    while "stands still" not in caplog.text:
        await asyncio.sleep(0.01)
    assert (await api.batches.retrieve(batch.id)).status == "in_progress"
    await api.batches.cancel(batch.id)
    assert (await ended(api, batch)).status == "cancelled"


async def test_a_window_that_ends(api, engine, monkeypatch):
    engine.delay = 0.004
    monkeypatch.setattr("tenon.server.batches._SECONDS", {"m": 1})
    batch = await submit(api, *(chat(str(i)) for i in range(300)), window="1m")
    batch = await ended(api, batch)
    assert batch.status == "expired"
    out = await results(api, batch.output_file_id)
    errors = await results(api, batch.error_file_id)
    assert len(out) + len(errors) == 300
    assert len(out) == batch.request_counts.completed
    assert len(errors) == batch.request_counts.failed > 0
    assert all(r["response"] is None and r["error"]["code"] == "batch_expired" for r in errors)
    assert sorted(int(r["custom_id"]) for r in out + errors) == list(range(300))


async def test_output_files_expire(api):
    after = {"anchor": "created_at", "seconds": 3600}
    batch = await ended(api, await submit(api, chat("a"), output_expires_after=after))
    file = await api.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 3600


async def test_an_input_in_use_is_not_deleted(api, engine):
    engine.delay = 0.005
    batch = await submit(api, *(chat(str(i)) for i in range(20)))
    with pytest.raises(openai.ConflictError):
        await api.files.delete(batch.input_file_id)
    await ended(api, batch)
    assert (await api.files.delete(batch.input_file_id)).deleted


async def test_lines_wait_for_a_model_that_loads(api, engine):
    engine.ready = False
    batch = await submit(api, chat("a"))
    while (await api.batches.retrieve(batch.id)).status == "validating":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    engine.ready = True
    batch = await ended(api, batch)
    assert batch.request_counts.completed == 1


async def test_an_engine_that_dies_again_and_again_ends_in_an_error(api, engine, monkeypatch):
    sleep = asyncio.sleep
    monkeypatch.setattr("tenon.server.line.asyncio.sleep", lambda seconds: sleep(0))
    engine.die_after = 0
    batch = await ended(api, await submit(api, chat("a")))
    (error,) = await results(api, batch.error_file_id)
    assert error["response"]["body"]["error"]["code"] == "engine_dead"


async def test_internal_errors_of_a_line_tell_nothing(api, engine):
    engine.fail_after = 0
    batch = await ended(api, await submit(api, chat("a")))
    (error,) = await results(api, batch.error_file_id)
    assert error["response"]["status_code"] == 500
    assert "secret" not in json.dumps(error)


async def test_restarts_at_any_moment_lose_and_repeat_nothing(settings, seed):
    """Servers that stop again and again, and batches that all the same come to their end, once."""
    rng = random.Random(seed)
    written = {i: [f"{i}-{j}" for j in range(rng.randint(1, 40))] for i in range(3)}
    batches: dict[int, str] = {}
    for _ in range(100):
        engine = FakeEngine(delay=rng.choice([0.0, 0.001, 0.003]))
        async with serving(engine, settings) as (url, app), client(url) as api:
            await app.archive.resume()
            for i, ids in written.items():
                if i not in batches and rng.random() < 0.5:
                    lines = (chat(x, x, temperature=-1 if x.endswith("7") else 1) for x in ids)
                    batches[i] = (await submit(api, *lines)).id
            until = time.monotonic() + rng.uniform(0, 0.15)
            while time.monotonic() < until:
                await asyncio.sleep(0.001)
            states = [(await api.batches.retrieve(b)).status for b in batches.values()]
            if len(batches) == 3 and set(states) == {"completed"}:
                break
    else:
        raise AssertionError(states)
    async with serving(FakeEngine(), settings) as (url, _), client(url) as api:
        for i, ids in written.items():
            batch = await api.batches.retrieve(batches[i])
            out = await results(api, batch.output_file_id)
            errors = await results(api, batch.error_file_id)
            assert [r["custom_id"] for r in out] == [x for x in ids if not x.endswith("7")]
            assert [r["custom_id"] for r in errors] == [x for x in ids if x.endswith("7")]
            for result in out:
                text = result["response"]["body"]["choices"][0]["message"]["content"]
                assert text == echo_script(f"<user>{result['custom_id']}\n<assistant>", 0)
        names = {path.name for path in (settings.data_dir / "files").iterdir()}
        assert names == {file.id async for file in api.files.list()}


async def test_nothing_on_disk_before_it_is_asked_for(engine, tmp_path):
    directory = tmp_path / "data"
    async with serving(engine, ServerSettings(data_dir=directory)) as (url, _), client(url) as api:
        await api.chat.completions.create(model="fake", messages=[{"role": "user", "content": "hi"}])
        assert not directory.exists()
        await api.files.list()
        assert directory.stat().st_mode & 0o777 == 0o700


# --- bounds


async def test_a_key_has_so_many_batches_that_have_not_ended(engine, tmp_path):
    engine.delay, engine.script = 0.01, lambda prompt, choice: "x" * 1500
    limits = Limits(key_batches=2)
    settings = ServerSettings.with_keys(["one", "two"], data_dir=tmp_path, limits=limits)
    async with serving(engine, settings) as (url, _), client(url) as api, client(url, "two") as other:
        batches = [await submit(api, chat("a")) for _ in range(2)]
        with pytest.raises(openai.RateLimitError) as caught:
            await submit(api, chat("a"))
        assert caught.value.code == "too_many_batches"
        await submit(other, chat("a"))
        await api.batches.cancel(batches[0].id)
        await ended(api, batches[0])
        await submit(api, chat("a"))


async def test_batches_are_forgotten_long_after_their_end(engine, tmp_path, monkeypatch):
    settings = ServerSettings.with_keys(["one"], data_dir=tmp_path, limits=Limits(batch_seconds=7200))
    async with serving(engine, settings) as (url, app), client(url) as api:
        old = await ended(api, await submit(api, chat("a")))
        output = await api.files.retrieve(old.output_file_id)
        assert output.expires_at == output.created_at + 7200
        failed = await ended(api, await submit(api, "no line"))
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        kept = await ended(api, await submit(api, chat("a")))
        monkeypatch.setattr(time, "time", lambda: now + 7300)
        await app.archive.forget()
        assert [batch.id for batch in (await api.batches.list()).data] == [kept.id]
        with pytest.raises(openai.NotFoundError):
            await api.batches.retrieve(failed.id)
        with pytest.raises(openai.NotFoundError):
            await api.files.content(output.id)
        await results(api, kept.output_file_id)


async def test_results_count_as_stored(engine, tmp_path):
    settings = ServerSettings.with_keys(["one"], data_dir=tmp_path, limits=Limits(stored_bytes=6000))
    engine.delay, engine.script = 0.001, lambda prompt, choice: "x" * 1000
    async with serving(engine, settings) as (url, app), client(url) as api:
        store = await app.archive.store()
        before = await store.files.total_bytes()
        file = await api.files.create(
            file=("in.jsonl", jsonl(*(chat(str(i)) for i in range(4)))), purpose="batch"
        )
        assert await store.files.total_bytes() == before + file.bytes
        create = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        await ended(api, await api.batches.create(**create))
        assert await store.files.total_bytes() > before + file.bytes + 4000
        while await store.files.total_bytes() < 6000:
            await api.files.create(file=("in.jsonl", jsonl(chat("a"))), purpose="batch")
            await ended(api, await api.batches.create(**create))
        with pytest.raises(openai.APIStatusError) as caught:
            await api.batches.create(**create)
        assert (caught.value.status_code, caught.value.code) == (413, "storage_full")
