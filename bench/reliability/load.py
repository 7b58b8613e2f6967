"""A `tenon serve` of the oracle model with steps of a fixed length, and a client that costs little.

What is measured is the server, so the client must not be what is slow: one coroutine per request over plain
streams, which looks for nothing but the first event, the end, and the token counts of the usage.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEP_SECONDS = 0.005


class Server:
    """`tenon serve --load-format oracle`, whose every step takes `STEP_SECONDS` longer."""

    def __init__(self, *arguments: str, keys: tuple[str, ...] = (), faults: str | None = None) -> None:
        self._data = tempfile.TemporaryDirectory(prefix="tenon-bench-")
        command = [sys.executable, "-m", "tenon", "serve", "oracle", "--load-format", "oracle", "--port", "0"]
        command += ["--data-dir", self._data.name, "--log-level", "error", *arguments]
        for key in keys:
            command += ["--api-key", key]
        faults = f"execute:sleep={STEP_SECONDS}" if faults is None else faults
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"TENON_FAILPOINTS": faults, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        greeting = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", greeting)
        assert found, f"the server did not start: {greeting!r}"
        self.port = int(found[1])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(40)
        self._data.cleanup()

    @property
    def pids(self) -> list[int]:
        """The server and all of its children."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            children = Path(f"/proc/{pid}/task/{pid}/children")
            queue += map(int, children.read_text().split() if children.exists() else [])
        return found

    def memory(self) -> float:
        """MiB that are resident, of all processes."""
        total = 0
        for pid in self.pids:
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
        return total / 1024

    async def metrics(self, key: str = "") -> dict[str, float]:
        """Values by name, labels included."""
        answer = await ask(self.port, "GET", "/metrics", key=key)
        lines = [line for line in answer.body.decode().splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@dataclass
class Answer:
    """How a request went. Times are in seconds after it was sent; `tokens` as the answer's usage says."""

    status: int
    headers: dict[str, str]
    body: bytes
    first: float  # the first byte of the body
    end: float
    sent: float  # on the clock

    @property
    def tokens(self) -> int:
        """Generated ones, of an answer that is whole."""
        found = re.findall(rb'"completion_tokens":(\d+)', self.body)
        return int(found[-1]) if self.status == 200 and self.body.endswith(b"[DONE]\n\n") and found else 0


async def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    key: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Length": str(len(data))}
    fields |= {"Content-Type": "application/json"} if data else {}
    fields |= {"Authorization": f"Bearer {key}"} if key else {}
    fields |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    sent = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(answered[0].split()[1])
        got = dict(line.lower().split(": ", 1) for line in answered[1:] if ": " in line)
        parts, first = [], 0.0
        while part := await reader.read(1 << 16):
            first = first or time.perf_counter() - sent
            parts.append(part)
        raw = b"".join(parts)
        if got.get("transfer-encoding") == "chunked":
            raw = unchunk(raw)
        return Answer(status, got, raw, first, time.perf_counter() - sent, sent)
    finally:
        writer.close()


def unchunk(data: bytes) -> bytes:
    parts, at = [], 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def percentile(values: list[float], share: float) -> float:
    """0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def verdict(name: str, goal: str, figure: str, good: bool) -> bool:
    """Print one goal, its figure, and whether it is met."""
    print(f"{'pass' if good else 'FAIL'}  {name}: {figure}   (goal: {goal})", flush=True)
    return good
