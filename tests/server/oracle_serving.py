"""A server with the oracle model in this process: real sockets outside, the engine's insides in view."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.client import InProcessClient
from tenon.engine.engine import Engine
from tenon.server.app import App
from tenon.server.settings import ServerSettings
from tests.server.serving import serving


@dataclass
class OracleServer:
    """`engine` steps in a thread; each step takes `step` seconds longer."""

    port: int
    app: App
    engine: Engine

    @property
    def idle(self) -> bool:
        """Nothing is left of any request: in the server, in its queues, in the engine, in the KV cache."""
        engine, admission = self.engine, self.app.admission
        return (
            not self.app.live
            and not len(engine.scheduler)
            and not len(engine.guides)
            and engine.table.num_rows == 0
            and engine.scheduler.cache.pool.num_used == 0
            and admission.quiet
            and not any(queue.total.choices or queue.total.tokens for queue in admission.queues.values())
        )


@asynccontextmanager
async def oracle_serving(
    settings: ServerSettings | None = None, step: float = 0.0, **args: object
) -> AsyncIterator[OracleServer]:
    config = EngineArgs(model="oracle", load_format="oracle", kv_cache_memory="4MiB", **args).resolve()
    client = InProcessClient(config)
    engine = AsyncEngine(config, client, serves=True)
    await engine.start()
    if step:
        client.engine.runner.model.fail = lambda batch: time.sleep(step)
    try:
        async with serving(engine, settings) as (url, app):
            yield OracleServer(int(url.rpartition(":")[2]), app, client.engine)
    finally:
        await engine.stop()


class Raw:
    """One request over a plain socket, which may be cut off in either way."""

    def __init__(self, port: int, path: str, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        fields = {
            "host": f"127.0.0.1:{port}",
            "content-type": "application/json",
            "content-length": len(data),
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.port = port
        self.data = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data

    async def __aenter__(self) -> Raw:
        self.reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(self.data)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection: with FIN, or with RST."""
        if reset:
            sock = self._writer.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self._writer.close()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body, of a connection that the server closes or of an answer with a length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split()[1])
        if b"content-length: " in head:
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            return status, await self.reader.readexactly(length)
        return status, await self.reader.readuntil(b"0\r\n\r\n")
