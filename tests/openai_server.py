"""A server with just enough of the OpenAI API to load and to talk to, in a thread, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FakeServer:
    """Streams `max_tokens` tokens a request, `gap` seconds apart. `fault`: what goes wrong."""

    gap: float = 0.0
    fault: str | None = None  # "status", "full", "cut", "error", "hang": for every second request
    api_key: str | None = None
    deltas: list[dict[str, Any]] | None = None  # of a chat answer, instead of words
    bodies: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    most_at_once: int = 0
    port: int = 0
    _now: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self.answer(head[0].split()[1], headers, body, writer)
                await writer.drain()
        writer.close()

    async def answer(
        self, path: str, headers: dict[str, str], body: bytes, out: asyncio.StreamWriter
    ) -> None:
        if self.api_key and headers.get("authorization") != f"bearer {self.api_key}".lower():
            return plain(out, 401, {"error": {"message": "wrong key"}})
        if path.endswith("/models"):
            return plain(out, 200, {"data": [{"id": "fake"}]})
        request = json.loads(body)
        self.bodies.append(request)
        fault = self.fault if len(self.bodies) % 2 == 0 else None
        if fault == "status":
            return plain(out, 503, {"error": {"message": "busy"}})
        if fault == "full":
            return plain(out, 400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self.stream(request, path.endswith("/chat/completions"), fault, out)
        finally:
            self._now -= 1

    async def stream(
        self, request: dict[str, Any], chat: bool, fault: str | None, out: asyncio.StreamWriter
    ) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if chat:
            event(out, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for delta in self.deltas or ():
            event(out, {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        count = 0 if self.deltas else request["max_tokens"]
        for i in range(count):
            await out.drain()
            await asyncio.sleep(self.gap)
            if fault == "cut" and i == count // 2:
                out.close()
                return
            if fault == "error" and i == count // 2:
                event(out, {"error": {"message": "the engine died"}})
                break
            if fault == "hang" and i == count // 2:
                await asyncio.sleep(30)
            finish = "length" if i == count - 1 else None
            text = {"delta": {"content": f"w{i} "}} if chat else {"text": f"w{i} "}
            event(out, {"choices": [{"index": 0, **text, "finish_reason": finish}]})
        prompt = request.get("prompt") or request["messages"][-1]["content"].split()
        usage = {"prompt_tokens": len(prompt), "completion_tokens": count}
        event(out, {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 3}}})
        chunk(out, b"data: [DONE]\n\n")
        chunk(out, b"")


def plain(out: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    out.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


def event(out: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    chunk(out, b"data: " + json.dumps(body).encode() + b"\n\n")


def chunk(out: asyncio.StreamWriter, data: bytes) -> None:
    out.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@contextlib.contextmanager
def running(server: FakeServer | None = None) -> Iterator[FakeServer]:
    """The server, listening, for as long as the block takes."""
    server = server or FakeServer()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        listener.close()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
