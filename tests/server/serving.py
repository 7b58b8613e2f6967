"""A server in this test's event loop: real sockets, scripted engine. Also a program, for signals:
`python -m tests.server.serving [delay]` prints the port, then the greeting, and serves."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

from tenon.server.app import App, build_app
from tenon.server.run import http_server, listen, run
from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine


@asynccontextmanager
async def serving(
    engine: FakeEngine, settings: ServerSettings | None = None
) -> AsyncIterator[tuple[str, App]]:
    """URL and app of a running server."""
    app = build_app(engine, settings, engine.served_model_names)
    sock = listen("127.0.0.1", 0)
    tls = app.settings.tls
    server = http_server(app, tls)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{sock.getsockname()[1]}", app
    finally:
        await app.archive.stop()
        app.stop_live()
        server.should_exit = True
        await task
        await app.archive.close()


@contextmanager
def in_thread(engine: FakeEngine, settings: ServerSettings | None = None) -> Iterator[str]:
    """URL of a server in a thread of its own, for tests that are not asynchronous."""
    url: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with serving(engine, settings) as (address, _):
            url.set_result(address)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        yield url.result(20)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def main() -> int:
    engine = FakeEngine(lambda prompt, choice: "x" * 2000, delay=float(sys.argv[1]))
    load = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    if load:
        engine.ready = False

    async def start() -> None:
        await asyncio.sleep(load)
        engine.ready = True

    engine.start = start
    with listen("127.0.0.1", 0) as sock:
        print(sock.getsockname()[1], flush=True)
        announce = lambda line: print(line, flush=True)  # noqa: E731
        return asyncio.run(run(engine, sock, ServerSettings(drain_seconds=0.5), announce))


if __name__ == "__main__":
    sys.exit(main())
