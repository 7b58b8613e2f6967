"""The life of a server process: listen, load, serve, drain, stop.

Start-up is arranged so that nothing waits without need: the socket listens first, the engine process is
started next, and only then are the HTTP stack's modules imported, while the model loads over there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import importlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from tenon.config import EngineArgs
from tenon.errors import ConfigError
from tenon.server.admin_socket import admin_socket
from tenon.server.origin import settings_at
from tenon.server.reload import reloading
from tenon.server.settings import ResidencySettings, ServerSettings
from tenon.server.store.lock import lock
from tenon.util.signals import handle, unhandle

if TYPE_CHECKING:
    from uvicorn import Server

    from tenon.core.pooling import PoolingSpec
    from tenon.engine.async_engine import AsyncEngine
    from tenon.server.app import App
    from tenon.server.fleet import Fleet
    from tenon.server.tls import Certificate

log = logging.getLogger("tenon.server")

_DEATH_GRACE_SECONDS = 2.0  # how long a server without an engine tells its clients so, before it exits
_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 1.0  # for requests that are ended, to say so
_EXIT_SECONDS = 1.0


def serve(
    engine_args: EngineArgs | list[EngineArgs],
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServerSettings | None = None,
    *,
    announce: Callable[[str], None] = lambda line: print(line, flush=True),
    on_loading: Callable[[int, int], None] | None = None,
    residency: ResidencySettings | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; a second one stops at once.

    Several models come and go as `residency` says, and one that cannot be loaded does not end the server.
    Returns the exit status: 0, 1 when the engine has died too often, 130 for SIGINT before it was ready.
    Port 0 takes any free one; `announce` gets the one line that says how to talk to the server, and
    `on_loading(done, total)` bytes of weights before that.
    Raises TenonError when the port is taken, an argument is wrong or the model cannot be loaded.
    """
    several = engine_args if isinstance(engine_args, list) else [engine_args]
    configs = [args.resolve() for args in several]
    with listen(host, port) as sock:
        from tenon.server.fleet import make_fleet

        settings = settings_at(sock.getsockname()[0], settings or ServerSettings())
        residency = residency or ResidencySettings()
        engine = make_fleet(
            configs,
            residency,
            settings.restarts,
            settings.patience,
            on_loading,
            settings.limits.allowance,
        )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status = runner.run(_reloading(run(engine, sock, settings, _settled(announce)), settings))
            # All is said and done: no thread that is still busy may keep the process.
            exit_anyway = threading.Timer(_EXIT_SECONDS, os._exit, [status])
            exit_anyway.daemon = True
            exit_anyway.start()
        exit_anyway.cancel()
        log.info("stopped, with status %d", status)
        return status


def _settled(announce: Callable[[str], None]) -> Callable[[str], None]:
    """Announce once what is there is to stay. Collections need not look at it any more: then they are short,
    and, as they wait until a quarter more than there was has come, they come soon."""

    def settled(line: str) -> None:
        gc.freeze()
        gc.collect()  # of nothing: what is counted from is little now
        announce(line)

    return settled


async def _reloading(work: Coroutine[Any, Any, int], settings: ServerSettings) -> int:
    async with reloading(settings.watched):
        return await work


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: from now on clients wait instead of being refused. Raises ConfigError."""
    if not 0 <= port <= 65535:  # getaddrinfo would wrap it
        raise ConfigError(f"--port must be between 0 and 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
        sock.setblocking(False)
        return sock
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use: stop what listens there or choose another with --port"
            ) from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None


async def run(
    engine: AsyncEngine | Fleet,
    sock: socket.socket,
    settings: ServerSettings,
    announce: Callable[[str], None],
) -> int:
    """Serve on a listening socket until told to stop. Returns the exit status. Leaves the engine stopped."""
    until_stopped = contextlib.AsyncExitStack()
    admin: socket.socket | None = None
    # What another server may have is found out before anything is loaded.
    if settings.data_dir is not None:
        lock(settings.data_dir).close()
    if settings.admin_socket is not None:
        admin = until_stopped.enter_context(admin_socket(settings.admin_socket))
    signals = _Signals()
    loading = asyncio.ensure_future(engine.start())
    http: asyncio.Task[None] | None = None
    app: App | None = None
    try:
        # Imports in a thread, so that the engine process is started and told its configuration meanwhile.
        build_app = (await asyncio.to_thread(importlib.import_module, "tenon.server.app")).build_app
        app = build_app(engine, settings, engine.served_model_names)
        server = http_server(app, settings.tls)
        http = asyncio.ensure_future(server.serve(sockets=[sock]))
        if admin is not None:
            await until_stopped.enter_async_context(_admin(app, admin))
        stopped = asyncio.ensure_future(signals.first.wait())
        await asyncio.wait({loading, stopped, http}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return 130 if signals.interrupted else 0
        if http.done():
            await http  # raises why it ended
        await loading  # raises what the start-up ended in
        await app.archive.resume()
        announce(greeting(engine.model_name, sock, settings, app.models.on_demand, engine.pooling))
        status = await _until_stopped(engine, stopped)
        if status == 0 and not app.live:
            log.info("stopping; no request is in flight")
        await drain(app, signals, settings.drain_seconds if status == 0 else 0.0)
        return status
    finally:
        if app is not None:
            await drain(app, signals, 0.0)
            await app.archive.close()
        if not loading.done():
            loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)  # its end counts no more
        ends: list[Awaitable[None]] = [engine.stop()]
        if http is not None:
            server.should_exit = True
            ends.append(http)
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if error is not None:
                log.error("while stopping: %s: %s", type(error).__name__, error)
        await until_stopped.aclose()
        signals.close()


@contextlib.asynccontextmanager
async def _admin(app: App, sock: socket.socket) -> AsyncIterator[None]:
    """The operator's routes, also while the server drains."""
    from tenon.server.admin import Admin

    server = http_server(Admin(app))
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


async def drain(app: App, signals: _Signals, seconds: float) -> None:
    """Refuse new requests, let those in flight finish for a while, then end them with an error."""
    app.stopping = True
    await app.archive.stop()  # batches go on when the server is started again
    if app.live and seconds > 0:
        requests = "1 request" if len(app.live) == 1 else f"{len(app.live)} requests"
        log.info("stopping; waiting up to %g s for %s (Ctrl-C again: now)", seconds, requests)
    deadline = time.monotonic() + seconds
    while app.live and time.monotonic() < deadline and not signals.second.is_set():
        await asyncio.sleep(0.02)
    app.stop_live()
    deadline = time.monotonic() + _LAST_WORDS_SECONDS
    while app.live and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


def http_server(app: Any, tls: Certificate | None = None) -> Server:
    """uvicorn, without its signal handlers and logs, behind our guard."""
    import uvicorn

    from tenon.server.guard import Gate

    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    class HttpServer(uvicorn.Server):
        def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
            return contextlib.nullcontext()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """uvicorn's, with a bound on the time of a TLS handshake, which comes before the guard."""
            assert sockets is not None

            def protocol() -> asyncio.Protocol:
                state = {"server_state": self.server_state, "app_state": {}, "_loop": loop}
                return self.config.http_protocol_class(config=self.config, **state)  # type: ignore[call-arg, return-value]

            seconds = app.settings.limits.header_seconds if self.config.ssl else None
            loop = asyncio.get_running_loop()
            self.servers = [
                await loop.create_server(
                    protocol,
                    sock=sock,
                    ssl=self.config.ssl,
                    ssl_handshake_timeout=seconds,
                    backlog=self.config.backlog,
                )
                for sock in sockets
            ]
            self.started = True

    config = uvicorn.Config(
        app,
        loop="none",
        http=Gate(app.settings.limits, app.metrics.connection_refused),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=app.settings.limits.header_bytes + 4,
        timeout_keep_alive=app.settings.limits.keep_alive_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,  # requests have been drained by then
    )
    if tls is not None:
        config.load()
        config.ssl = tls.context
    return HttpServer(config)


def greeting(
    model: str,
    sock: socket.socket,
    settings: ServerSettings,
    on_demand: Sequence[str] = (),
    pooling: PoolingSpec | None = None,
) -> str:
    """One line: what is served, where, and a command to try."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    key = " -H 'Authorization: Bearer YOUR_KEY'" if settings.keys.required else ""
    scheme = "http" if settings.tls is None else "https"
    path, body = _TRIES[pooling.task if pooling else "generate"]
    subject = "the server" if model in on_demand else model
    others = f" ({', '.join(on_demand)}: when asked for)" if on_demand else ""
    return (
        f"{subject} is ready after {process_age():.2f} s{others}. "
        f"Try: curl {scheme}://{host}:{port}{path}"
        f"{key} -H 'Content-Type: application/json' -d '{body}'"
    )


_TRIES = {  # by what the model does
    "generate": (
        "/v1/chat/completions",
        '{"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 50}',
    ),
    "embed": ("/v1/embeddings", '{"input": "Hello"}'),
    "classify": ("/classify", '{"input": "Hello"}'),
}


def process_age() -> float:
    """Seconds since this process was started (Linux; elsewhere since Python counts)."""
    try:
        with open("/proc/self/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError):
        return time.process_time()


async def _until_stopped(engine: AsyncEngine | Fleet, stopped: asyncio.Future[Any]) -> int:
    while not stopped.done():
        await asyncio.wait({stopped}, timeout=_POLL_SECONDS)
        if engine.errored and not stopped.done():
            log.error("the engine has died too often; the server stops with status 1")
            await asyncio.wait({stopped}, timeout=_DEATH_GRACE_SECONDS)
            return 1
    return 0


class _Signals:
    """SIGINT and SIGTERM: the first asks to stop, the second to hurry."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.interrupted = False  # the first was SIGINT
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            handle(self._loop, number, self._handle, number)

    def close(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            unhandle(self._loop, number)

    def _handle(self, number: int) -> None:
        if not self.first.is_set():
            self.interrupted = number == signal.SIGINT
        (self.second if self.first.is_set() else self.first).set()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
