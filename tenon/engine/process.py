"""The engine in a process of its own, as the front end's process sees it.

Two channels lead there. The lifeline is a socket pair that the child inherits: over it go the configuration
and how start-up went, and its end of file tells each side at once, whatever happened, that the other is gone.
Requests and outputs go over a pair of ZeroMQ Unix sockets in a directory that only this user may enter.
Everything on either channel is msgpack with a schema.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence

import msgspec
import zmq
import zmq.asyncio

from tenon import errors
from tenon.config import EngineConfig
from tenon.core.messages import Failed, FromEngine, Loading, Outputs, Ready, Shutdown, ToEngine
from tenon.engine.launch import LENGTH, STOP_SIGNALS, Launch
from tenon.errors import EngineDead, TenonError
from tenon.util.log import shows_texts

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0


class ProcessClient:
    """Starts the engine process, talks to it, notices its death. `on_loading(done, total)` counts weights."""

    def __init__(self, config: EngineConfig, on_loading: Callable[[int, int], None] | None = None) -> None:
        self.config = config
        self.on_loading = on_loading
        self._encode = msgspec.msgpack.Encoder().encode
        self._inbox: asyncio.Queue[Outputs | EngineDead] = asyncio.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._context = zmq.Context(io_threads=1)
        self._requests: zmq.Socket[bytes] | None = None
        self._lifeline: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._dead: EngineDead | None = None
        self._directory = ""
        self._remove_directory: Callable[[], object] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> Ready:
        directory = self._directory = tempfile.mkdtemp(prefix="tenon-")  # mode 0700
        self._remove_directory = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        launch = Launch(self.config, directory, log.getEffectiveLevel(), shows_texts())
        reader = await self._spawn(launch)
        try:
            info = await self._await_ready(reader)
        except BaseException:
            await self.stop()
            raise
        # The child has bound both; on the connecting side there is a queue from the first moment.
        self._requests = self._context.socket(zmq.PUSH)
        self._requests.linger = 0
        self._requests.set_hwm(0)  # a send must never wait; requests in flight are not bounded
        self._requests.connect(launch.requests_address)
        self._tasks = [
            asyncio.create_task(self._watch(reader), name="tenon-engine-watch"),
            asyncio.create_task(self._receive_all(launch.outputs_address), name="tenon-engine-receive"),
        ]
        return info

    def send(self, messages: Sequence[ToEngine]) -> None:
        if self._dead is not None or self._requests is None:
            raise self._dead or EngineDead("the engine is not running")
        self._requests.send(self._encode(messages), zmq.NOBLOCK)

    async def receive(self) -> Outputs:
        item = await self._inbox.get()
        if isinstance(item, EngineDead):
            self._inbox.put_nowait(item)  # for whoever asks again
            raise item
        return item

    async def stop(self) -> None:
        running = self._dead is None and self._requests is not None
        if running:
            self.send([Shutdown()])
        self._dead = self._dead or EngineDead("the engine was stopped")
        if self._process is not None and await _wait(self._process, STOP_SECONDS if running else 0) is None:
            self._process.kill()  # SIGTERM would not do: see tenon.engine.worker
            self._process.wait()
        for task in self._tasks:  # until now, for the child could not end while nobody takes its outputs
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._lifeline is not None:
            self._lifeline.close()
        if self._requests is not None:
            self._requests.close()
        self._context.term()
        if self._remove_directory is not None:
            self._remove_directory()

    async def _spawn(self, launch: Launch) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs, _signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tenon.engine.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output belongs to the front end's own output
            )
        reader, self._lifeline = await asyncio.open_connection(sock=ours)
        data = self._encode(launch)
        self._lifeline.write(LENGTH.pack(len(data)) + data)
        return reader

    async def _await_ready(self, reader: asyncio.StreamReader) -> Ready:
        while True:
            message = await self._next_message(reader)
            if isinstance(message, Ready):
                return message
            if isinstance(message, Failed):
                raise typed_error(message)
            if isinstance(message, Loading) and self.on_loading is not None:
                self.on_loading(message.done, message.total)

    async def _next_message(self, reader: asyncio.StreamReader) -> FromEngine:
        try:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            data = await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EngineDead(f"the engine process {await self._how_it_ended()} during start-up") from None
        message: FromEngine = msgspec.msgpack.decode(data, type=FromEngine)
        return message

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Wait for the end of the lifeline; a last message may tell why it came."""
        data = b""
        with contextlib.suppress(ConnectionError):
            data = await reader.read(-1)
        if self._dead is None:
            self._dead = EngineDead(f"the engine process {await self._how_it_ended()}")
            if len(data) > LENGTH.size:
                with contextlib.suppress(msgspec.DecodeError):
                    self._dead = EngineDead(msgspec.msgpack.decode(data[LENGTH.size :], type=Failed).message)
            log.error("the engine is gone: %s", self._dead)
        self._inbox.put_nowait(self._dead)

    async def _receive_all(self, address: str) -> None:
        decode = msgspec.msgpack.Decoder(Outputs).decode
        with zmq.asyncio.Context(self._context).socket(zmq.PULL) as outputs:
            outputs.set_hwm(0)
            outputs.connect(address)
            while True:
                self._inbox.put_nowait(decode(await outputs.recv()))

    async def _how_it_ended(self) -> str:
        """`exited with code 1`, `was killed by SIGKILL`; the process is ending or has ended."""
        assert self._process is not None
        code = await _wait(self._process, 1.0)
        if code is None:
            return "closed its connection"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def typed_error(failed: Failed) -> TenonError:
    """The exception that the engine process died of, as if it had been raised here."""
    kind = getattr(errors, failed.kind, None)
    if isinstance(kind, type) and issubclass(kind, TenonError):
        return kind(failed.message)
    return EngineDead(failed.message)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started in the block is born with SIGINT and SIGTERM blocked, and so not ended by them while
    its imports run. What is sent to this process meanwhile arrives after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Exit code, or None after `seconds`. Polls: a child watcher would take signals or a thread."""
    deadline = asyncio.get_running_loop().time() + seconds
    while (code := process.poll()) is None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
    return code
