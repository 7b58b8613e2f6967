"""Engine processes that are killed, frozen and orphaned behind a real `tenon serve`, with the test model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.conftest import RealServer, start, stop
from tests.e2e.storm import Storm, engine_of

BODY = {"prompt": "Hello", "max_tokens": 900, "ignore_eos": True, "temperature": 0}
SSE_END = "data: [DONE]"


@contextmanager
def serving(*arguments: str) -> Iterator[RealServer]:
    server = start("--load-format", "oracle", *arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def wait_ready(server: RealServer) -> None:
    while httpx.get(server.url + "/ready").status_code != 200:
        time.sleep(0.02)


def kill_engine(server: RealServer) -> None:
    """As soon as it is ready."""
    wait_ready(server)
    engine = engine_of(server)
    engine.kill()
    engine.wait(10)


async def test_kills_under_streaming_clients(seed):
    """Nobody hangs, every stream ends with its answer or an error, and every answer is right."""
    with serving("--restart-window", "0") as server:
        async with Storm(server, clients=16, seed=seed) as storm:
            for number in (signal.SIGKILL, signal.SIGSEGV):
                await storm.kill(number)
        storm.check()
        assert server.metric("engine_restarts_total") == 2
        assert stop(server) == 0


POISON = [65] * 700  # and nobody else comes to so many tokens
KILLS = "execute@/700:kill"


async def insist(client: httpx.AsyncClient, prompt: list[int]) -> httpx.Response:
    """Ask as long as a polite client does: until there is an answer, or it is told to stop."""
    while True:
        answer = await client.post("/v1/completions", json=BODY | {"prompt": prompt, "max_tokens": 60})
        if answer.status_code == 200 or answer.headers.get("x-should-retry") == "false":
            return answer
        assert answer.status_code == 503
        await asyncio.sleep(0.1)


async def test_a_request_that_kills_engines_is_refused_and_its_neighbours_are_answered(monkeypatch):
    monkeypatch.setenv("TENON_FAILPOINTS", KILLS)
    prompts = [[66 + i] * (20 + i) for i in range(8)]
    with serving() as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            right = [(await insist(client, prompt)).json()["choices"] for prompt in prompts]
            answers = await asyncio.gather(*(insist(client, prompt) for prompt in [*prompts, POISON]))
            for refused in (answers.pop(), await insist(client, POISON)):
                assert refused.status_code == 500
                assert refused.json()["error"]["code"] == "request_kills_engine"
            assert [answer.json()["choices"] for answer in answers] == right
        assert (
            'tenon:engine_restarts_total{model_name="smollm2"} 2.0' in httpx.get(server.url + "/metrics").text
        )
        assert stop(server) == 0


def test_a_line_of_a_batch_that_kills_engines_ends_as_an_error(monkeypatch):
    monkeypatch.setenv("TENON_FAILPOINTS", KILLS)
    with serving() as server, openai.OpenAI(base_url=server.api, api_key="none", max_retries=0) as api:
        prompts = {"poison": POISON, "a": [66] * 20, "b": [67] * 20}
        lines = [
            {
                "custom_id": name,
                "method": "POST",
                "url": "/v1/completions",
                "body": BODY | {"prompt": prompt, "max_tokens": 60},
            }
            for name, prompt in prompts.items()
        ]
        file = api.files.create(
            file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch"
        )
        batch = api.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="1h")
        while (batch := api.batches.retrieve(batch.id)).status != "completed":
            time.sleep(0.05)
        assert batch.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
        (line,) = api.files.content(batch.error_file_id).text.splitlines()
        assert json.loads(line)["custom_id"] == "poison"
        assert json.loads(line)["response"]["body"]["error"]["code"] == "request_kills_engine"
        assert stop(server) == 0


def test_a_frozen_engine_is_noticed_and_replaced():
    with serving("--stall-seconds", "4") as server:
        frozen = engine_of(server)
        frozen.suspend()
        answer = httpx.post(server.url + "/v1/completions", json=BODY, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_restarted")
        frozen.wait(10)
        wait_ready(server)
        assert httpx.post(server.url + "/v1/completions", json=BODY).status_code == 200
        assert stop(server) == 0


def test_a_server_whose_engine_dies_too_often_gives_up():
    with serving("--max-restarts", "1") as server:
        for _ in range(2):
            kill_engine(server)
        assert server.process.wait(20) == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_no_engine_outlives_its_server(stopped, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        with serving() as server:
            engine = engine_of(server)
            if stopped:
                engine.suspend()
            server.process.kill()
            assert not psutil.wait_procs([engine], timeout=5)[1]
        assert not list(Path(directory).iterdir())


def test_drain_while_the_engine_restarts():
    with serving("--max-restarts", "9") as server:
        for _ in range(4):
            kill_engine(server)
        assert httpx.get(server.url + "/ready").json()["error"]["code"] == "engine_restarting"
        assert stop(server) == 0


def test_a_stop_signal_lets_streams_finish_and_ends_the_others():
    with serving("--drain-seconds", "1") as server:
        short = BODY | {"stream": True, "max_tokens": 100}
        endless = BODY | {"stream": True, "max_tokens": 3500, "n": 32}
        with (
            httpx.Client(timeout=30) as client,
            client.stream("POST", server.url + "/v1/completions", json=endless) as cut,
            client.stream("POST", server.url + "/v1/completions", json=short) as whole,
            httpx.Client(base_url=server.url) as idle,
        ):
            assert idle.get("/live").status_code == 200  # its connection stays open
            next(lines := cut.iter_lines())
            family = [server.process.pid, engine_of(server).pid]
            os.kill(server.process.pid, signal.SIGTERM)
            while (answer := idle.get("/ready")).status_code == 200:
                pass
            assert answer.json()["error"]["code"] == "shutting_down"
            refused = idle.post("/v1/completions", json=BODY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert [line for line in whole.iter_lines() if line][-1] == SSE_END
            last = [line for line in lines if line][-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
            assert server.process.wait(20) == 0
        assert not [pid for pid in family if psutil.pid_exists(pid)]


def test_who_does_not_read_and_what_nobody_reads_do_not_keep_the_server():
    """A stream whose client takes nothing, a response in the background, a second signal."""
    with serving("--drain-seconds", "60") as server, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        body = json.dumps(BODY | {"stream": True, "max_tokens": 3500, "n": 8}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        deaf.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        asked = {"input": "Hello", "background": True, "max_output_tokens": 3000}
        written = httpx.post(server.api + "/responses", json=asked)
        assert written.json()["status"] in ("queued", "in_progress")
        while server.metric("num_requests_running") < 8:
            time.sleep(0.02)
        family = [server.process.pid, engine_of(server).pid]
        server.process.send_signal(signal.SIGTERM)
        while httpx.get(server.url + "/ready").status_code == 200:
            pass
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not [pid for pid in family if psutil.pid_exists(pid)]
