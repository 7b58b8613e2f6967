"""The engine in a process of its own, as the front end's process sees it.

Two channels lead there. The lifeline is a socket pair that the child inherits: over it go the configuration
and how start-up went, and its end of file tells each side at once, whatever happened, that the other is gone.
Requests and outputs go over a pair of ZeroMQ Unix sockets in a directory that only this user may enter, and
that is removed as soon as both are connected. Everything on either channel is msgpack with a schema.
That the engine goes on shows in a counter in shared memory (`heartbeat`); one that does not is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence

import msgspec
import zmq
import zmq.asyncio

from tenon import errors
from tenon.config import EngineConfig
from tenon.core.messages import Failed, FromEngine, Loading, Outputs, Ready, Shutdown, ToEngine
from tenon.engine.heartbeat import TICK_SECONDS, Heartbeat, Patience, Watch, cpu_seconds
from tenon.engine.launch import DUMP_SIGNAL, HELD_SIGNALS, LENGTH, Launch
from tenon.errors import EngineDead, TenonError
from tenon.util import python
from tenon.util.log import shows_texts

log = logging.getLogger(__name__)

STOP_SECONDS = 1.0  # for an orderly end; there is nothing in an engine to be lost
KILLED_SECONDS = 5.0  # how long one that was killed is waited for: it may be in a system call


class ProcessClient:
    """Starts the engine process, talks to it, notices its death, and kills it when it hangs.

    `on_loading(done, total)` counts weights.
    """

    def __init__(
        self,
        config: EngineConfig,
        on_loading: Callable[[int, int], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.config = config
        self.on_loading = on_loading
        self._patience = patience or Patience()
        self._heartbeat: Heartbeat | None = None
        self._watch_of_heart = Watch(self._patience)
        self._num_told = 0  # messages of an engine that starts
        self._encode = msgspec.msgpack.Encoder().encode
        self._inbox: asyncio.Queue[Outputs | EngineDead] = asyncio.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._context = zmq.Context(io_threads=1)
        self._requests: zmq.Socket[bytes] | None = None
        self._lifeline: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._dead: EngineDead | None = None
        self._num_sent = 0
        self._directory = ""
        self._remove_directory: Callable[[], object] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def heartbeat_age(self) -> float:
        return self._watch_of_heart.age

    @property
    def stalled(self) -> bool:
        return self._watch_of_heart.stalled

    @property
    def num_taken(self) -> int:
        return self._heartbeat.num_taken if self._heartbeat else 0

    async def start(self) -> Ready:
        directory = self._directory = tempfile.mkdtemp(prefix="tenon-")  # mode 0700
        self._remove_directory = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        launch = Launch(self.config, directory, log.getEffectiveLevel(), shows_texts())
        reader = await self._spawn(launch)
        watching = asyncio.create_task(self._watch_start(), name="tenon-engine-start")
        try:
            info = await self._await_ready(reader)
        except BaseException:
            await self.stop()
            raise
        finally:
            watching.cancel()
        # The child has bound both; on the connecting side there is a queue from the first moment.
        self._requests = self._context.socket(zmq.PUSH)
        self._requests.linger = 0
        self._requests.set_hwm(0)  # a send must never wait; requests in flight are not bounded
        self._requests.connect(launch.requests_address)
        self._requests.send(self._encode([]))  # see tenon.engine.worker
        self._tasks = [
            asyncio.create_task(self._watch(reader), name="tenon-engine-watch"),
            asyncio.create_task(self._watch_heart(), name="tenon-engine-heart"),
            asyncio.create_task(self._receive_all(launch.outputs_address), name="tenon-engine-receive"),
        ]
        return info

    def send(self, messages: Sequence[ToEngine]) -> int:
        if self._dead is not None or self._requests is None:
            raise self._dead or EngineDead("the engine is not running")
        self._requests.send(self._encode(messages), zmq.NOBLOCK)
        self._num_sent += 1
        return self._num_sent

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
            if await _wait(self._process, KILLED_SECONDS) is None:
                log.error("the engine process %d was killed and does not end", self._process.pid)
        for task in self._tasks:  # until now, for the child could not end while nobody takes its outputs
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._lifeline is not None:
            self._lifeline.close()
        if self._requests is not None:
            self._requests.close()
        self._context.term()
        if self._heartbeat is not None:
            self._heartbeat.close()
        if self._remove_directory is not None:
            self._remove_directory()

    async def _spawn(self, launch: Launch) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        self._heartbeat = Heartbeat()
        inherited = (theirs.fileno(), self._heartbeat.fd)
        with theirs, _signals_blocked():
            self._process = subprocess.Popen(
                python.module("tenon.engine.worker", *map(str, inherited)),
                pass_fds=inherited,
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
            ended = f"the engine process {await self._how_it_ended()} during start-up"
            raise self._dead or EngineDead(ended) from None
        self._num_told += 1
        message: FromEngine = msgspec.msgpack.decode(data, type=FromEngine)
        return message

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Wait for the end of the lifeline or of the process; a last message may tell why it came."""
        data = b""
        reading = asyncio.ensure_future(reader.read(-1))
        exited = asyncio.ensure_future(self._exited())
        try:
            await asyncio.wait({reading, exited}, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(ConnectionError, TimeoutError):  # a child of the engine may hold its end
                data = await asyncio.wait_for(reading, 0.2)
        finally:
            reading.cancel()
            exited.cancel()
        message = f"the engine process {await self._how_it_ended()}"
        if len(data) > LENGTH.size:
            with contextlib.suppress(msgspec.DecodeError):
                message = msgspec.msgpack.decode(data[LENGTH.size :], type=Failed).message
        self._die(message)

    def _die(self, message: str) -> None:
        if self._dead is None:
            self._dead = EngineDead(message)
            log.error("the engine is gone: %s", message)
        self._inbox.put_nowait(self._dead)

    async def _exited(self) -> None:
        """Until the process has ended, where the system tells; for ever elsewhere."""
        assert self._process is not None
        ended = asyncio.Event()
        if not hasattr(os, "pidfd_open"):
            await ended.wait()
        pidfd = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def _watch_heart(self) -> None:
        """Kill the engine when it hangs, after it has said where. One that cannot be watched is given up."""
        try:
            await self._follow_heart()
        except Exception as error:
            if self._dead is None:
                log.exception("the engine's heartbeat cannot be read")
                self._die(f"its heartbeat cannot be read: {type(error).__name__}")

    async def _follow_heart(self) -> None:
        heartbeat = self._heartbeat
        assert heartbeat is not None
        reason = await self._until_hung(self._watch_of_heart, lambda: heartbeat.count)
        self._die(f"the engine process {reason} and was killed")

    async def _watch_start(self) -> None:
        """Kill an engine that hangs while it starts. Whoever waits for it is told by its end."""
        reason = await self._until_hung(Watch(self._patience.with_start), lambda: self._num_told)
        self._die(f"the engine process {reason} while it was loading (--load-timeout) and was killed")

    async def _until_hung(self, watch: Watch, count: Callable[[], int]) -> str:
        """Until the engine has made no progress for too long: why. It has said where, and is killed now."""
        process = self._process
        assert process is not None
        loop = asyncio.get_running_loop()
        now, dumped = loop.time(), False
        while True:
            await asyncio.sleep(TICK_SECONDS)
            before, now = now, loop.time()
            reason = watch.tick(now - before, count(), cpu_seconds(process.pid))
            if watch.stalled and not dumped:
                log.error("the engine has made no progress for %.0f s; its stacks follow", watch.age)
                process.send_signal(DUMP_SIGNAL)
            dumped = watch.stalled
            if reason is not None:
                await asyncio.sleep(TICK_SECONDS)  # for the stacks to be written
                process.kill()
                return reason

    async def _receive_all(self, address: str) -> None:
        decode = msgspec.msgpack.Decoder(Outputs).decode
        with zmq.asyncio.Context(self._context).socket(zmq.PULL) as outputs:
            outputs.set_hwm(0)
            outputs.connect(address)
            try:
                while True:
                    self._inbox.put_nowait(decode(await outputs.recv()))
            except Exception as error:  # requests must not wait for outputs that nobody takes
                log.exception("the outputs of the engine cannot be read")
                self._die(f"its outputs cannot be read: {type(error).__name__}")

    async def _how_it_ended(self) -> str:
        """`exited with code 1`, `was killed by SIGKILL`; the process is ending or has ended."""
        assert self._process is not None
        code = await _wait(self._process, 1.0)
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"exited with code {code}"
        hint = " (if nobody did it by hand, the kernel for want of memory)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"


def typed_error(failed: Failed) -> TenonError:
    """The exception that the engine process died of, as if it had been raised here."""
    kind = getattr(errors, failed.kind, None)
    if isinstance(kind, type) and issubclass(kind, TenonError):
        return kind(failed.message)
    return EngineDead(failed.message)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started in the block is born with these signals blocked, and so not ended by them while its
    imports run. What is sent to this process meanwhile arrives after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
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
