"""Too many requests, and requests that take too long, as a client sees them."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tenon.server.app import build_app
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine
from tests.server.pooling_engine import EMBED, PoolingEngine
from tests.server.serving import serving

CHAT, TEXT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
SAID = [{"role": "user", "content": "hi"}]
BODIES = {
    CHAT: {"messages": SAID},
    TEXT: {"prompt": "hi", "max_tokens": 500},
    MESSAGES: {"messages": SAID, "max_tokens": 500, "model": "fake"},
    RESPONSES: {"input": "hi"},
}


def limited(engine: FakeEngine, keys: tuple[str, ...] = (), **limits) -> Client:
    return Client(build_app(engine, ServerSettings.with_keys(keys, limits=Limits(**limits))))


class Blocked(FakeEngine):
    """Takes nothing up until `go` is set; then each step is `delay` long."""

    def __init__(self, delay: float = 0.0, script=lambda prompt, choice: "abc") -> None:
        super().__init__(script, delay)
        self.go = asyncio.Event()

    def generate(self, *args, **fields):
        stream = super().generate(*args, **fields)
        once = stream.__anext__

        async def after_go():
            await self.go.wait()
            return await once()

        stream.step = after_go
        return _Waits(stream)


class _Waits:
    def __init__(self, stream) -> None:
        self._stream = stream
        self.aclose = stream.aclose

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self._stream.step()


async def waiting(client: Client, engine: FakeEngine, count: int, path: str = TEXT, **headers) -> list:
    """So many requests that have got as far as the engine."""
    tasks = [asyncio.ensure_future(client.post(path, BODIES[path], **headers)) for _ in range(count)]
    while engine.running < count:
        await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("path", BODIES)
async def test_a_full_queue_answers_429(path):
    engine = Blocked()
    client = limited(engine, queued_requests=2)
    tasks = await waiting(client, engine, 2)
    refused = await client.post(path, BODIES[path])
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["type"] == "rate_limit_error"
    if path != MESSAGES:
        assert error["code"] == "overloaded"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["retry-after-ms"] == "1000"
    assert len(engine.requests) == 2
    ready = await client.http.get("/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "queue_full")
    engine.go.set()
    assert {(await task).status_code for task in tasks} == {200}
    assert (await client.post(path, BODIES[path])).status_code == 200
    assert (await client.http.get("/ready")).status_code == 200
    metrics = (await client.http.get("/metrics")).text
    assert 'tenon:requests_refused_total{model_name="fake",reason="requests"} 1.0' in metrics
    assert 'tenon:queued_requests{model_name="fake",queue="foreground"} 0.0' in metrics


async def test_choices_and_prompts_count(client, engine):
    client = limited(engine := Blocked(), queued_requests=5)
    tasks = [
        asyncio.ensure_future(client.post(TEXT, {"prompt": ["a", "b"], "n": 2})),
        asyncio.ensure_future(client.post(CHAT, {"messages": SAID})),
    ]
    while engine.running < 3:
        await asyncio.sleep(0)
    assert (await client.post(CHAT, {"messages": SAID})).status_code == 429
    engine.go.set()
    assert [(await task).status_code for task in tasks] == [200, 200]


async def test_who_is_refused_has_not_been_tokenised(monkeypatch):
    engine = Blocked()
    client = limited(engine, queued_requests=1)
    (task,) = await waiting(client, engine, 1)
    monkeypatch.setattr(engine.tokenizer, "encode", None)
    for path, body in BODIES.items():
        assert (await client.post(path, body)).status_code == 429
    engine.go.set()
    await task


async def test_a_refused_vector(monkeypatch):
    engine = PoolingEngine(EMBED)
    engine.delay = 30.0
    client = limited(engine, queued_tokens=10, first_token_seconds=0.05)
    task = asyncio.ensure_future(client.post("/v1/embeddings", {"input": "abc" * 12}))
    while not engine.asked:
        await asyncio.sleep(0)
    engine.delay = 0.0
    # The engine has taken the first one up, so that it is not in the queue any more.
    assert (await client.post("/v1/embeddings", {"input": "abc"})).status_code == 200
    task.cancel()
    app = client.http._transport.app
    place = app.admission.ask("fake", "", size=400)
    assert (await client.post("/v1/embeddings", {"input": "abc"})).status_code == 429
    place.close()


async def test_keys_share_the_queue():
    engine = Blocked()
    client = limited(engine, ("one", "two"), queued_requests=4)
    await waiting(client, engine, 4, authorization="Bearer one")
    assert (await client.post(TEXT, BODIES[TEXT], authorization="Bearer one")).status_code == 429
    await asyncio.sleep(0)
    task = asyncio.ensure_future(client.post(TEXT, BODIES[TEXT], authorization="Bearer two"))
    while engine.running < 5:
        await asyncio.sleep(0)
    shares = [request.share for request in engine.requests]
    assert len(set(shares[:4])) == 1
    assert shares[4] not in shares[:4]
    assert "one" not in shares[0]
    engine.go.set()
    assert (await task).status_code == 200


async def test_what_has_not_happened_counts_zero(client):
    metrics = (await client.http.get("/metrics")).text
    for reason in ("requests", "tokens", "wait", "key_requests", "key_tokens"):
        assert f'tenon:requests_refused_total{{model_name="fake",reason="{reason}"}} 0.0' in metrics
    for deadline in ("queue", "first_token", "total"):
        assert f'tenon:deadlines_expired_total{{deadline="{deadline}",model_name="fake"}} 0.0' in metrics


# --- deadlines


@pytest.mark.parametrize("path", BODIES)
async def test_a_deadline_in_the_queue(path):
    client = limited(engine := Blocked(), queue_seconds=0.02)
    answer = await client.post(path, BODIES[path])
    assert answer.status_code == 503
    assert "as long as this one may wait" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "1"
    assert len(engine.aborted) == 1
    metrics = (await client.http.get("/metrics")).text
    assert 'tenon:deadlines_expired_total{deadline="queue",model_name="fake"} 1.0' in metrics


@pytest.mark.parametrize("path", BODIES)
async def test_a_deadline_before_the_first_token(path):
    """Taken up, and nothing more: as in a long prefill."""
    client = limited(engine := FakeEngine(delay=30.0), first_token_seconds=0.02)
    answer = await client.post(path, BODIES[path])
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    assert len(engine.aborted) == 1


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_while_tokens_come(path, stream):
    client = limited(engine := FakeEngine(lambda prompt, choice: "x" * 2000, delay=0.005))
    body = BODIES[path] | {"stream": stream}
    async with client.http.stream("POST", path, json=body, headers={"x-request-timeout-ms": "300"}) as answer:
        text = (await answer.aread()).decode()
    assert len(engine.aborted) == 1
    if not stream:
        assert answer.status_code == 504
        assert "after 0.3 s" in json.loads(text)["error"]["message"]
        return
    assert answer.status_code == 200
    *_, last, rest = text.split("\n\n")
    assert rest == ""
    data = json.loads(last.split("data: ")[1])
    if path == RESPONSES:
        assert data["type"] in ("response.failed", "error")
    assert "0.3 s" in json.dumps(data)
    assert "[DONE]" not in text


async def test_a_deadline_that_is_no_time(client):
    answer = await client.post(CHAT, BODIES[CHAT], x_request_timeout_ms="soon")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-request-timeout-ms"


async def test_downloads_have_no_deadline(client, app):
    limits = Limits(total_seconds=0.001)
    client = Client(build_app(FakeEngine(), ServerSettings(limits=limits)))
    assert (await client.http.get("/v1/models")).status_code == 200
    assert (await client.post(CHAT, BODIES[CHAT])).status_code == 504


# --- streams that wait


async def test_a_stream_that_waits_gets_comments():
    engine = Blocked()
    settings = ServerSettings(sse_keep_alive_seconds=0.02)
    async with serving(engine, settings) as (url, _), httpx.AsyncClient(base_url=url) as http:
        async with http.stream("POST", TEXT, json=BODIES[TEXT] | {"stream": True}) as answer:
            lines = answer.aiter_lines()
            assert [await anext(lines) for _ in range(4)] == [": keep-alive", ""] * 2
            engine.go.set()
            rest = [line async for line in lines]
        assert answer.status_code == 200
        assert rest[-2:] == ["data: [DONE]", ""]
        text = "".join(
            json.loads(line[6:])["choices"][0]["text"] for line in rest if line.startswith("data: {")
        )
        assert text == "abc"


@pytest.mark.parametrize("path", BODIES)
async def test_a_deadline_after_a_comment_is_an_event(path):
    settings = ServerSettings(sse_keep_alive_seconds=0.02, limits=Limits(queue_seconds=0.2))
    async with serving(Blocked(), settings) as (url, _), httpx.AsyncClient(base_url=url) as http:
        answer = await http.post(path, json=BODIES[path] | {"stream": True})
    assert answer.status_code == 200
    assert answer.text.startswith(": keep-alive\n\n")
    *_, last, rest = answer.text.split("\n\n")
    assert rest == ""
    data = json.loads(last.split("data: ")[1])
    assert "as long as this one may wait" in json.dumps(data)
    if path == TEXT:
        assert data["error"]["code"] == "queue_timeout"


async def test_comments_can_be_turned_off():
    engine = Blocked()
    client = Client(build_app(engine, ServerSettings(sse_keep_alive_seconds=0)))
    task = asyncio.ensure_future(client.post(TEXT, BODIES[TEXT] | {"stream": True}))
    await asyncio.sleep(0.05)
    engine.go.set()
    assert "keep-alive" not in (await task).text
