"""The life of the process: listening at once, greeting, draining, signals, exit status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tenon.errors import ConfigError
from tenon.server.admin_socket import admin_socket
from tenon.server.run import drain, greeting, listen, process_age, run
from tenon.server.settings import ServerSettings
from tenon.server.store.lock import lock
from tests.server.fake_engine import FakeEngine
from tests.server.pooling_engine import CROSS, EMBED
from tests.server.serving import serving

ROOT = Path(__file__).parents[2]
BODY = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


def test_port_in_use():
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use") as error:
            listen("127.0.0.1", port)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_ports_that_do_not_exist(port):
    with pytest.raises(ConfigError, match=f"--port must be between 0 and 65535, not {port}"):
        listen("127.0.0.1", port)


def test_hosts():
    with pytest.raises(ConfigError, match="cannot listen on no-such-host"):
        listen("no-such-host.invalid", 0)
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)
    with listen("0.0.0.0", 0) as sock:
        assert "http://127.0.0.1:" in greeting("m", sock, ServerSettings())
        assert "/v1/chat/completions " in greeting("m", sock, ServerSettings())
        assert "/v1/embeddings " in greeting("m", sock, ServerSettings(), pooling=EMBED)
        assert "/classify " in greeting("m", sock, ServerSettings(), pooling=CROSS)


def test_greeting_is_one_line_that_works_in_a_shell():
    with listen("127.0.0.1", 0) as sock:
        line = greeting("m", sock, ServerSettings.with_keys(["secret"]))
        assert f"curl http://127.0.0.1:{sock.getsockname()[1]}/v1/chat/completions" in line
        assert "Authorization: Bearer YOUR_KEY" in line
        assert "\n" not in line
        body = line.partition("-d '")[2].removesuffix("'")
        assert json.loads(body)["messages"]


def test_process_age():
    assert 0 < process_age() < 24 * 3600


class Program:
    """`serving.main` in a process of its own."""

    def __init__(self, delay: float, load: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.server.serving", str(delay), str(load)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def wait_ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self, number: int, timeout: float = 10) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_status_zero(number):
    with Program(0.0) as program:
        assert "curl" in program.wait_ready()
        assert httpx.get(program.url + "/ready").status_code == 200
        assert program.end(number) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(program.url + "/live")


def test_a_stream_in_flight_gets_its_time_then_an_error():
    with Program(0.01) as program:
        program.wait_ready()
        with httpx.stream("POST", program.url + "/v1/chat/completions", json=BODY) as response:
            lines = response.iter_lines()
            next(lines)
            started = time.monotonic()
            program.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert 0.3 < time.monotonic() - started < 5
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert program.process.wait(5) == 0


def test_a_second_signal_does_not_wait():
    with Program(0.01) as program:
        program.wait_ready()
        with httpx.stream("POST", program.url + "/v1/chat/completions", json=BODY) as response:
            next(response.iter_lines())
            program.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
            program.process.send_signal(signal.SIGINT)
            assert program.process.wait(5) == 0


def test_live_and_not_ready_while_loading():
    with Program(0.0, load=3.0) as program:
        assert httpx.get(program.url + "/live", timeout=5).status_code == 200
        assert httpx.get(program.url + "/ready").status_code == 503
        response = httpx.post(program.url + "/v1/chat/completions", json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_loading")
        assert program.end(signal.SIGTERM) == 0


def test_an_interrupt_while_loading_is_no_success():
    with Program(0.0, load=3.0) as program:
        assert httpx.get(program.url + "/live", timeout=5).status_code == 200
        assert program.end(signal.SIGINT) == 130


async def test_draining_says_how_long_it_may_take(caplog):
    caplog.set_level("INFO", "tenon.server")
    engine = FakeEngine(lambda prompt, choice: "x" * 2000, delay=0.005)
    async with serving(engine) as (url, app), httpx.AsyncClient(base_url=url) as client:
        signals = SimpleNamespace(second=asyncio.Event())
        await drain(app, signals, 10.0)
        assert "stopping" not in caplog.text
        app.stopping = False
        asked = asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY))
        while not app.live:
            await asyncio.sleep(0.005)
        signals.second.set()
        await drain(app, signals, 10.0)
        await asked
    assert "stopping; waiting up to 10 s for 1 request (Ctrl-C again: now)" in caplog.text


def test_ready_after_loading():
    with Program(0.0, load=0.3) as program:
        program.wait_ready()
        assert httpx.get(program.url + "/ready").status_code == 200


async def test_failed_start_is_raised():
    engine = FakeEngine()

    async def start():
        raise ConfigError("no such model")

    engine.start = start
    with listen("127.0.0.1", 0) as sock, pytest.raises(ConfigError, match="no such model"):
        await run(engine, sock, ServerSettings(), print)


@pytest.mark.parametrize("taken", ["data_dir", "admin_socket"])
async def test_what_another_server_has_is_said_before_a_model_is_loaded(taken, tmp_path):
    engine, started = FakeEngine(), []

    async def start():
        started.append(True)

    engine.start = start
    with listen("127.0.0.1", 0) as sock, contextlib.ExitStack() as other:
        path = tmp_path / "theirs"
        other.enter_context(lock(path) if taken == "data_dir" else admin_socket(path))
        with pytest.raises(ConfigError, match=r"in use by another|listens on"):
            await run(engine, sock, ServerSettings(**{taken: path}), print)
    assert not started


async def test_engine_death_ends_the_process_with_status_one():
    engine = FakeEngine()
    engine.ready = False
    lines: list[str] = []
    with listen("127.0.0.1", 0) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        task = asyncio.ensure_future(run(engine, sock, ServerSettings(), lines.append))
        while not lines:
            await asyncio.sleep(0.01)
        engine.errored = True
        async with httpx.AsyncClient() as client:
            response = await client.post(url + "/v1/chat/completions", json=BODY)
        assert response.json()["error"]["code"] == "engine_dead"
        assert response.status_code == 503
        assert await asyncio.wait_for(task, 10) == 1


# --- what only a socket shows


async def test_vanished_clients_abort_their_requests():
    engine = FakeEngine(lambda prompt, choice: "x" * 2000, delay=0.005)
    async with serving(engine) as (url, app), httpx.AsyncClient(base_url=url) as client:
        await client.get("/live")
        whole = asyncio.ensure_future(client.post("/v1/chat/completions", json=BODY | {"stream": False}))
        async with client.stream("POST", "/v1/chat/completions", json=BODY) as response:
            lines = response.aiter_lines()
            await anext(lines)
            await asyncio.sleep(0.05)
            assert engine.running == 2
        whole.cancel()
        for _ in range(100):
            if engine.running == 0:
                break
            await asyncio.sleep(0.01)
        assert engine.running == 0
        assert not app.live


def test_start_up_imports_are_lean():
    """The API process must not load what only the engine needs, and must be quick about the rest."""
    code = (
        "import time, sys; t = time.perf_counter(); import tenon.server.run, tenon.server.app, uvicorn;"
        "print(time.perf_counter() - t, [m for m in ('torch', 'numpy', 'transformers', 'fastapi', 'pydantic')"
        " if m in sys.modules])"
    )
    best = 10.0
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds, _, heavy = out.stdout.strip().partition(" ")
        assert heavy == "[]"
        best = min(best, float(seconds))
    assert best < 1.5, best  # 0.3 s on an idle machine


def test_listening_socket_is_not_inherited():
    with listen("127.0.0.1", 0) as sock:
        assert not sock.get_inheritable()
        assert isinstance(sock, socket.socket)
