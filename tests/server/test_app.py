"""Routes, keys, limits, probes, and what becomes of a request whose client or engine goes away."""

from __future__ import annotations

import asyncio
import json

import pytest

from tenon import errors
from tenon.core.messages import EngineStats
from tenon.server.app import build_app
from tenon.server.limits import Limits
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client
from tests.server.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}
PUBLIC = ["/health", "/live", "/ready", "/version", "/", "/ui/main.js"]
PRIVATE = [CHAT, "/v1/completions", "/v1/models", "/v1/models/fake", "/metrics", "/nope", "//v1/models"]


def keyed(engine: FakeEngine) -> Client:
    return Client(build_app(engine, ServerSettings.with_keys(["secret-1", "secret-2"])))


# --- routes


async def test_models(client):
    models = (await client.http.get("/v1/models")).json()
    assert [m["id"] for m in models["data"]] == ["fake", "org/alias"]
    assert models["data"][0]["max_model_len"] == 2048
    assert (await client.http.get("/v1/models/org/alias")).json()["id"] == "org/alias"
    response = await client.http.get("/v1/models/nope")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_model_name(client):
    status, error = await client.error(CHAT, BODY | {"model": "gpt-4"})
    assert (status, error["param"], error["code"]) == (404, "model", "model_not_found")
    assert "fake" in error["message"]
    answer = (await client.post(CHAT, BODY | {"model": "org/alias"})).json()
    assert answer["model"] == "org/alias"


@pytest.mark.parametrize("path", ["/ui", "/v1", "/v1/chat/completions/", "/v1/nope", "/docs"])
async def test_unknown_paths(client, path):
    for method in ("GET", "POST", "DELETE"):
        response = await client.http.request(method, path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


async def test_methods(client):
    for method, path in [("GET", CHAT), ("PUT", CHAT), ("POST", "/v1/models"), ("OPTIONS", CHAT)]:
        response = await client.http.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] in ("POST", "GET, HEAD")
        assert response.json()["error"]["code"] == "method_not_allowed"


async def test_version_and_probes(client):
    for path in PUBLIC:
        assert (await client.http.get(path)).status_code == 200
    assert (await client.http.get("/version")).json()["version"]


# --- keys


@pytest.mark.parametrize("path", PRIVATE)
async def test_routes_need_a_key(engine, path):
    client = keyed(engine)
    wrong = [
        {},
        {"authorization": "Bearer nope"},
        {"authorization": "secret-1"},
        {"authorization": "Basic secret-1"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer secret-1 secret-2"},
        {"api-key": "secret-1"},
        {"host": "localhost/health?", "x-forwarded-for": "127.0.0.1"},
    ]
    for headers in wrong:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT"):
            response = await client.http.request(method, path, headers=headers)
            assert response.status_code == 401, (method, headers)
            assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    for key in ("secret-1", "secret-2"):
        response = await client.http.get(path, headers={"authorization": f"Bearer {key}"})
        assert response.status_code != 401


async def test_public_routes_need_none(engine):
    client = keyed(engine)
    for path in PUBLIC:
        assert (await client.http.get(path)).status_code == 200


def test_settings_never_show_keys():
    assert "secret" not in repr(ServerSettings.with_keys(["secret-1"]))


# --- the request's head and body


async def test_request_id(client):
    response = await client.post(CHAT, BODY, x_request_id="my-id.1")
    assert response.headers["x-request-id"] == "my-id.1"
    made = [
        (await client.post(CHAT, BODY, x_request_id=bad)).headers["x-request-id"]
        for bad in ("a b", "", "x" * 200)
    ]
    assert len(set(made)) == 3
    assert all(len(i) == 32 for i in made)
    assert (await client.http.get("/nope", headers={"x-request-id": "e1"})).headers["x-request-id"] == "e1"


async def test_two_requests_may_share_an_id(client, engine):
    engine.delay = 0.001
    responses = await asyncio.gather(*[client.post(CHAT, BODY, x_request_id="same") for _ in range(3)])
    assert [r.status_code for r in responses] == [200] * 3
    assert len({r.request_id for r in engine.requests}) == 3


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_content_type(client, kind):
    response = await client.post(CHAT, BODY, content_type=kind)
    assert response.status_code == 415
    assert response.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"]
)
async def test_json_content_types(client, kind):
    assert (await client.post(CHAT, BODY, content_type=kind)).status_code == 200


async def test_body_limit(engine):
    client = Client(build_app(engine, ServerSettings(limits=Limits(body_bytes=1000))))
    status, error = await client.error(CHAT, b" " * 1001)
    assert (status, error["code"]) == (413, "body_too_large")
    assert (await client.post(CHAT, json.dumps(BODY).encode().ljust(1000))).status_code == 200


async def test_body_limit_while_streaming(engine):
    """Without a Content-Length, reading ends as soon as the limit is passed."""
    app = build_app(engine, ServerSettings(limits=Limits(body_bytes=1000)))
    reads = 0

    async def receive():
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"x" * 400, "more_body": True}

    sent = await call(app, receive)
    assert sent[0]["status"] == 413
    assert reads == 3


# --- the client goes away


async def call(app, receive, body=BODY, path=CHAT) -> list[dict]:
    """Run one ASGI request; what was sent."""
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_disconnect_aborts(app, engine, stream, path):
    engine.delay = 0.005
    gone = asyncio.Event()
    body = {"stream": stream, "n": 2, "max_tokens": 1000}
    body |= BODY if path == CHAT else {"prompt": ["a", "b", "c"]}
    engine.script = lambda prompt, choice: "x" * 1000
    first = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive():
        if first:
            return first.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    task = asyncio.ensure_future(call(app, receive, path=path))
    await asyncio.sleep(0.05)
    assert engine.running == (1 if path == CHAT else 3)
    gone.set()
    sent = await asyncio.wait_for(task, 1)
    assert engine.running == 0
    assert len(engine.aborted) == len(engine.requests)
    assert not app.live
    if not stream:
        assert sent == []
    assert 'finished_reason="abort"' in app.metrics.render().decode()


async def test_disconnect_within_the_body(app, engine):
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b'{"mess', "more_body": True}]

    async def receive():
        return messages.pop()

    assert await call(app, receive) == []
    assert not engine.requests


# --- the engine goes away


async def test_engine_death(client, engine):
    engine.die_after = 3
    status, error = await client.error(CHAT, BODY)
    assert (status, error["code"], error["type"]) == (503, "engine_restarted", "server_error")
    for path in ("/health", "/ready"):
        assert (await client.http.get(path)).status_code == 503
    assert (await client.http.get("/live")).status_code == 200
    status, error = await client.error(CHAT, BODY)
    assert (status, error["code"]) == (503, "engine_dead")


async def test_engine_death_ends_a_stream_with_an_error(client, engine):
    engine.die_after = 3
    response = await client.post(CHAT, BODY | {"stream": True})
    *events, rest = response.text.split("\n\n")
    assert rest == ""
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_restarted"
    assert "[DONE]" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_internal_errors_tell_nothing(client, engine, stream, caplog):
    engine.fail_after = 0 if not stream else 2
    response = await client.post(CHAT, BODY | {"stream": stream}, x_request_id="find-me")
    text = response.text
    assert "internal_error" in text
    assert "find-me" in text
    assert "secret" not in text
    assert "0xdead" not in text
    assert "find-me" in caplog.text
    assert "secret internals" in caplog.text
    engine.fail_after = None
    assert (await client.post(CHAT, BODY)).status_code == 200


async def test_one_failed_prompt_ends_the_others(client, engine):
    engine.fail_after = 2
    status, _ = await client.error("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 50})
    assert status == 500
    assert engine.running <= 1  # the one that raised never said that it ended


async def test_request_failed_is_not_shown(client, engine):
    def generate(*args, **kwargs):
        raise errors.RequestFailed("internals")

    engine.generate = generate
    status, error = await client.error(CHAT, BODY)
    assert (status, error["code"]) == (500, "request_failed")
    assert "internals" not in error["message"]


async def test_loading(client, engine):
    engine.ready = False
    response = await client.post(CHAT, BODY)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "model_loading"
    assert (await client.http.get("/live")).status_code == 200
    for path in ("/ready", "/health"):
        assert (await client.http.get(path)).status_code == 503
    assert (await client.http.get("/v1/models")).json()["data"][0]["max_model_len"] is None
    assert "tenon:num_requests_running{" not in (await client.http.get("/metrics")).text


async def test_stopping(app, client):
    app.stopping = True
    status, error = await client.error(CHAT, BODY)
    assert (status, error["code"]) == (503, "shutting_down")
    assert (await client.http.get("/ready")).status_code == 503
    assert (await client.http.get("/health")).status_code == 200


async def test_stop_ends_what_is_in_flight(app, client, engine, caplog):
    engine.delay = 0.01
    engine.script = lambda prompt, choice: "x" * 1000
    stream = asyncio.ensure_future(client.post(CHAT, BODY | {"stream": True}))
    whole = asyncio.ensure_future(client.post(CHAT, BODY))
    while len(engine.requests) < 2 or min(request.steps for request in engine.requests) < 3:
        await asyncio.sleep(0.005)
    app.stop_live()
    assert (await whole).status_code == 503
    last = (await stream).text.split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert sum(" 503 prompt_tokens=" in record.getMessage() for record in caplog.records) == 2
    assert engine.running == 0


# --- metrics


async def test_metrics(client, engine):
    await client.post(CHAT, BODY | {"max_tokens": 5, "n": 2})
    engine.stats = EngineStats(
        num_requests_running=3, num_requests_waiting=4, kv_blocks_total=10, kv_blocks_used=5,
        prefix_cache_queries=20, prefix_cache_hits=8, num_preemptions=1,
    )  # fmt: skip
    response = await client.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    values = {
        line.split(" ")[0]: float(line.split(" ")[1])
        for line in response.text.splitlines()
        if not line.startswith("#")
    }
    label = '{model_name="fake"}'
    expected = {
        "num_requests_running": 3, "num_requests_waiting": 4, "kv_cache_usage_perc": 0.5,
        "prefix_cache_queries_total": 20, "prefix_cache_hits_total": 8, "num_preemptions_total": 1,
        "prompt_tokens_total": 20, "generation_tokens_total": 10, "time_to_first_token_seconds_count": 1,
        "inter_token_latency_seconds_count": 8, "time_per_output_token_seconds_count": 8,
        "request_time_per_output_token_seconds_count": 1, "e2e_request_latency_seconds_count": 1,
        "request_prompt_tokens_sum": 20, "request_generation_tokens_sum": 10, "request_params_n_sum": 2,
        "request_params_max_tokens_sum": 5, "request_max_num_generation_tokens_sum": 5,
        "request_queue_time_seconds_count": 1, "request_prefill_time_seconds_count": 1,
        "request_decode_time_seconds_count": 1, "request_inference_time_seconds_count": 1,
    }  # fmt: skip
    assert {name: values[f"tenon:{name}{label}"] for name in expected} == expected
    whole, queue, prefill, decode, inference = (
        values[f"tenon:{name}_seconds_sum{label}"]
        for name in (
            "e2e_request_latency",
            "request_queue_time",
            "request_prefill_time",
            "request_decode_time",
            "request_inference_time",
        )
    )
    assert whole == pytest.approx(queue + inference)
    assert inference == pytest.approx(prefill + decode)
    assert values['tenon:request_success_total{finished_reason="length",model_name="fake"}'] == 1
    assert not any("_created" in name for name in values)


# --- the log


async def test_one_line_for_each_request(client, engine, caplog):
    caplog.set_level("INFO", "tenon.server")
    secret = "pearl diver"
    engine.script = lambda prompt, choice: "the answer"
    body = {"messages": [{"role": "user", "content": secret}], "max_tokens": 4}
    await client.post(CHAT, body, x_request_id="one")
    await client.post(CHAT, body | {"stream": True, "n": 2}, x_request_id="two")
    await client.post(CHAT, body | {"temperature": -1}, x_request_id="three")
    await client.http.get("/v1/nope%0Anope", headers={"x-request-id": "four"})
    await client.http.get("/ready")
    one, two, three, four = (record.getMessage() for record in caplog.records)
    assert one.startswith(f"POST {CHAT} id=one 200 prompt_tokens=")
    assert "completion_tokens=4 " in one
    assert "completion_tokens=8 " in two
    assert "id=three 400 " in three
    assert three.endswith(" invalid_value (temperature)")
    assert "id=four 404 " in four
    assert "\n" not in four
    assert secret not in caplog.text
    assert "the answer" not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "hi"}], "pearl": 1},
        {"messages": [{"role": "pearl", "content": "hi"}]},
        {"messages": [{"role": "user", "content": "hi", "pearl": "x"}]},
        {"messages": [{"role": "user", "content": "hi"}], "model": "pearl"},
        {"messages": [{"role": "user", "content": "hi"}], "logit_bias": {"pearl": 1}},
        {"messages": [{"role": "user", "content": "hi"}], "stop": [1, "pearl"]},
        {"messages": [{"role": "user", "content": "hi"}], "metadata": {"pearl": 1}},
        {"messages": [{"role": "user", "content": "hi"}], "cache_salt": "pearl diver"},
        {"messages": [{"role": "user", "content": "hi"}], "reasoning_effort": "pearl"},
        {"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"pearl": 1}},
        b'{"messages": "pearl',
        b'{"pearl": \xff}',
    ],
)
async def test_a_refusal_is_logged_without_what_was_asked(client, caplog, body):
    caplog.set_level("DEBUG")
    status, _ = await client.error(CHAT, body)
    assert 400 <= status < 500
    assert "pearl" not in caplog.text
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tenon.server"]
    assert f" {status} " in line


async def test_log_requests(engine, caplog):
    caplog.set_level("INFO", "tenon.server")
    engine.script = lambda prompt, choice: "the answer\n"
    client = Client(build_app(engine, ServerSettings(log_requests=True)))
    await client.post(CHAT, {"messages": [{"role": "user", "content": "pearl diver"}]}, x_request_id="one")
    await client.post(CHAT, BODY | {"stream": True}, x_request_id="two")
    await client.post(CHAT, BODY | {"temperature": -1})
    assert 'one asked: {"messages": [{"role": "user", "content": "pearl diver"}]}' in caplog.text
    assert "the answer" in caplog.text
    assert "two answered: data: " in caplog.text
    assert "temperature must be at least 0" in caplog.text
    assert not any("\n" in record.getMessage() for record in caplog.records)


async def test_probes_use_the_codes_of_the_api(app, client, engine):
    async def code(path):
        response = await client.http.get(path)
        assert response.headers["retry-after"] == "1"
        return response.status_code, response.json()["error"]["code"]

    engine.ready = False
    assert await code("/ready") == await code("/health") == (503, "model_loading")
    app.stopping = True
    assert await code("/ready") == (503, "shutting_down")
    app.stopping = False
