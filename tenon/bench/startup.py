"""How long `tenon serve` takes from its start until it can answer, and what memory it then holds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tenon import env
from tenon.bench.stats import median
from tenon.errors import ConfigError
from tenon.util.http import Connection, HttpError, Target

_POLL_SECONDS = 0.01
_GIVE_UP_SECONDS = 300.0


def measure(
    serve_arguments: list[str], iterations: int, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Start and stop a server `iterations` times. Seconds (median and best), and bytes of memory."""
    times = []
    memory: dict[str, int] = {}
    for _ in range(iterations):
        seconds, memory = _start_once(serve_arguments)
        times.append(seconds)
        progress()
    imports = [_seconds([sys.executable, "-c", "import tenon"]) for _ in range(3)]
    return {
        "ready_s": median(times),
        "best_ready_s": min(times),
        "first_ready_s": times[0],
        "import_s": min(imports),
        "rss_bytes": sum(memory.values()),
        "processes": len(memory),
    }


def _start_once(serve_arguments: list[str]) -> tuple[float, dict[str, int]]:
    port = _free_port()
    command = [sys.executable, "-m", "tenon", "serve", *serve_arguments, "--host", "127.0.0.1"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env.child_environment(TENON_LOG_LEVEL="error"),
    )
    try:
        asyncio.run(_until_ready(process, Target.parse(f"127.0.0.1:{port}")))
        return time.perf_counter() - start, _memory(process.pid)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


async def _until_ready(process: subprocess.Popen[str], target: Target) -> None:
    """Raises ConfigError with the server's last words when it ends instead."""
    deadline = time.perf_counter() + _GIVE_UP_SECONDS
    connection = Connection(target)
    try:
        while time.perf_counter() < deadline:
            if process.poll() is not None:
                assert process.stderr is not None
                words = process.stderr.read().strip().splitlines() or ["it said nothing"]
                raise ConfigError(f"tenon serve ended: {words[-1].removeprefix('error: ')}")
            with contextlib.suppress(OSError, HttpError):
                await connection.request("GET", "/ready")
                return
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        connection.close()
    raise ConfigError(f"tenon serve was not ready after {_GIVE_UP_SECONDS:g} s")


def _memory(pid: int) -> dict[str, int]:
    """Resident bytes of a process and of those it started, by process id."""
    import psutil

    parent = psutil.Process(pid)
    found = {}
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found[str(process.pid)] = process.memory_info().rss
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - start
