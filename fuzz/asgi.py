"""The whole server without sockets: an oracle engine behind the ASGI app, and one request to it at a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fuzz import scratch
from tenon.config import EngineArgs
from tenon.engine.async_engine import AsyncEngine
from tenon.engine.client import InProcessClient
from tenon.server.app import App, build_app
from tenon.server.line import unsent
from tenon.server.settings import ServerSettings

MAX_MODEL_LEN = 128
# What a request may be answered with: all but faults, and what only a busy server says (503, 504).
STATUSES = {200, 400, 401, 404, 405, 409, 413, 415, 422, 429}


class Server:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        config = EngineArgs(
            load_format="oracle", max_model_len=MAX_MODEL_LEN, kv_cache_memory="1MiB", max_num_seqs=32
        ).resolve()
        self.engine = AsyncEngine(config, InProcessClient(config))
        self.loop.run_until_complete(self.engine.start())
        self.app: App = build_app(self.engine, ServerSettings(data_dir=scratch.directory("data")))

    def post(self, path: str, body: bytes, content_type: bytes = b"application/json") -> tuple[int, bytes]:
        """Status and body of the answer. Everything about the answer that holds for every one is asserted."""
        return self.loop.run_until_complete(self._post(path, body, content_type))

    async def _post(self, path: str, body: bytes, content_type: bytes) -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        length = str(len(body)).encode()
        headers = [(b"content-type", content_type), (b"content-length", length), (b"host", b"x")]
        scope, receive = unsent(path, body, headers)
        await self.app(scope | {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}, receive, send)
        start, *rest = sent
        assert start["type"] == "http.response.start"
        assert [message.get("more_body", False) for message in rest][-1] is False, "an answer without an end"
        content = b"".join(message.get("body", b"") for message in rest)
        status = start["status"]
        assert status in STATUSES, f"{status} {content[:300]!r}"
        kinds = [value for name, value in start["headers"] if name == b"content-type"]
        if status >= 400:
            assert json.loads(content)["error"]["message"]
        elif kinds and kinds[0].startswith(b"application/json"):
            json.loads(content)
        assert not self.app.live, "a request that has been answered is still alive"
        return status, content
