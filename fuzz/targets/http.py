"""Bytes on a connection: heads, bodies, framing. The first byte says in what pieces they come.

The app behind answers 200 to whatever it gets. Each request is answered at most once, in order, with an
answer that a client can read; and what is no HTTP reaches no app.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.server import ServerState

from tenon.server.guard import HEAD, Guard
from tenon.server.metrics import Metrics
from tenon.server.run import http_server
from tenon.server.settings import ServerSettings
from tests.server.raw import CASES, GOOD

EXPECTED: tuple[type[Exception], ...] = ()
_WORDS = (
    "GET POST / HTTP/1.1 HTTP/1.0 Host:x Content-Length: Transfer-Encoding: chunked identity gzip Connection:"
)
_WORDS += (
    " close keep-alive Expect: 100-continue Upgrade: 0x5 +5 5, /../ //v1 %2f %00 http://evil.com/ * 5;ext=1"
)
DICTIONARY = [word.encode() for word in _WORDS.split()]
DICTIONARY += [
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\t",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
]
STATUSES = {200, 100, 400, 405, 408, 413, 414, 417, 431, 501, 503, 505}


class _App:
    """Reads a request to its end, and says ok; no to a CONNECT, which ok would make a tunnel of."""

    settings = ServerSettings()
    metrics = Metrics()

    def __init__(self) -> None:
        self.paths: list[bytes] = []
        self.methods: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["raw_path"])
        self.methods.append(scope["method"])
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        status = 405 if scope["method"] == "CONNECT" else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class _Transport(asyncio.Transport):
    """A connection whose other end is a list."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.sent = bytearray()
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed, "written after the end"
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        pass


_LOOP = asyncio.new_event_loop()
_APP = _App()
_CONFIG = http_server(_APP).config
_CONFIG.load()


def seeds() -> dict[str, bytes]:
    found = {
        case.name: bytes([0]) + b"".join(part for part in case.parts if isinstance(part, bytes))
        for case in CASES
    }
    small = {name: data for name, data in found.items() if len(data) < 4096}
    return small | {f"cut {n}": bytes([n]) + GOOD for n in (1, 7, 60)} | {"two": bytes([0]) + GOOD * 2}


def run(data: bytes) -> None:
    _LOOP.run_until_complete(_run(data[1:], data[0] if data else 0))


async def _run(data: bytes, size: int) -> None:
    _APP.paths.clear()
    _APP.methods.clear()
    transport = _Transport()
    protocol: Guard = _CONFIG.http_protocol_class(
        config=_CONFIG, server_state=ServerState(), app_state={}, _loop=_LOOP
    )
    protocol.connection_made(transport)
    step = size or len(data) or 1
    for start in range(0, len(data), step):
        if transport.closed:
            break
        protocol.data_received(data[start : start + step])
        await asyncio.sleep(0)
    tasks = set(getattr(protocol, "tasks", ()))
    for _ in range(20):
        await asyncio.sleep(0)
    if not transport.closed:
        protocol.eof_received()
    protocol.connection_lost(None)
    transport.closed = False  # what the app still sends goes nowhere
    await asyncio.gather(*tasks)
    _check(data, bytes(transport.sent))


def _check(data: bytes, sent: bytes) -> None:
    client = h11.Connection(h11.CLIENT)
    answers = 0
    while sent:
        method = _APP.methods[answers] if answers < len(_APP.methods) else "POST"
        client.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(sent)
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, "an answer without an end"
            if isinstance(event, h11.Response | h11.InformationalResponse):
                assert event.status_code in STATUSES, event.status_code
        answers += 1
        sent = client.trailing_data[0]
        client = h11.Connection(h11.CLIENT)
    assert len(_APP.paths) <= data.count(b"\r\n\r\n"), "more requests than heads"
    assert answers <= len(_APP.paths) + 1, "more answers than requests and one refusal"
    assert all(path in data for path in _APP.paths)
    assert HEAD.search(data) or not _APP.paths, "what is no head reached the app"
