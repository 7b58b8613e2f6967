"""The pool of workers, as the front end's process uses it: `await workers.run(job, allowance)`.

A job that takes too long, crashes or needs too much memory costs its request an InvalidRequest and the pool a
worker, which a fork of the nursery replaces. A job whose request goes away is killed with its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from tenon.config import EngineConfig
from tenon.engine.jobs.parent import Nursery
from tenon.engine.jobs.work import (
    FIRST_STAGE,
    Allowance,
    Answer,
    Began,
    Chat,
    Faulted,
    Grammar,
    Job,
    Order,
    Refused,
    Tokens,
    exceeded,
)
from tenon.engine.launch import LENGTH
from tenon.errors import InvalidRequest, RequestFailed, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WORKERS = 4
MAX_HEAVY = 2  # of them with jobs that may take long: the others are there for everybody else
HEAVY_BYTES = 64 * 1024
MAX_KNOWN = 4096  # grammars whose outcome is remembered
GRACE_SECONDS = 1.0  # a stage is ended by the kernel, and so much later by this process, should that fail


@dataclass(eq=False, slots=True)
class _Worker:
    """`age`: how much the nursery had prepared when it was forked."""

    pid: int
    sock: socket.socket
    nursery: Nursery
    age: int

    def alive(self) -> bool:
        """Its end of the socket is open."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        return True


class Workers:
    """Workers with one model's tokenizer. Started by `start`, or else by the first job."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._nursery: Nursery | None = None
        self._idle: list[_Worker] = []  # the one that was busy last at the end: its caches are warm
        self._places = asyncio.Semaphore(MAX_WORKERS)
        self._heavy = asyncio.Semaphore(MAX_HEAVY)
        self._starting = asyncio.Lock()
        self.known: OrderedDict[bytes, Refused | None] = OrderedDict()
        self._ending: set[asyncio.Task[Any]] = set()
        self._stopped = False
        self._encode = msgspec.json.Encoder().encode  # whole numbers may be of any size, unlike in msgpack
        self._decode = msgspec.msgpack.Decoder(Answer).decode

    @property
    def nursery_pid(self) -> int | None:
        """The parent of all workers."""
        return None if self._nursery is None else self._nursery.pid

    async def start(self) -> None:
        """Be ready for the first job. Raises Unavailable."""
        if not self._idle:
            self._idle.append(await self._fork())

    def start_soon(self) -> None:
        """Begin to start; whether it worked is seen by the first job."""
        task = asyncio.create_task(self.start())
        self._ending.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._stopped:
            log.warning("workers could not be started yet: %s", error)

    async def stop(self) -> None:
        """Jobs under way end with Unavailable."""
        self._stopped = True
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.kill()  # its workers die with it
        for worker in self._idle:
            worker.sock.close()
        self._idle.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def run(self, job: Job, allowance: Allowance) -> Tokens:
        """The job's result. Raises InvalidRequest; RequestFailed or Unavailable. Cancelling ends the job."""
        if isinstance(job, Grammar):
            return await self._try_grammar(job, allowance)
        return await self._run(job, allowance)

    async def _try_grammar(self, job: Grammar, allowance: Allowance) -> Tokens:
        """What is known is not tried again, but for what took too long: that may have been bad luck."""
        try:
            msgspec.msgpack.encode(job)  # as it goes to the engine afterwards
        except OverflowError:
            raise InvalidRequest(
                "the constraint holds a whole number of more than 64 bits",
                "structured_outputs",
                "invalid_grammar",
            ) from None
        key = hashlib.sha256(self._encode((job, allowance))).digest()
        if key in self.known:
            self.known.move_to_end(key)
        else:
            await _whole(self._prepare(job))
            refused = None
            try:
                await self._run(job, allowance)
            except _Exceeded:
                raise
            except InvalidRequest as error:
                refused = Refused(str(error), error.param, error.code)
            self.known[key] = refused
            if len(self.known) > MAX_KNOWN:
                self.known.popitem(last=False)
        if (known := self.known[key]) is not None:
            raise known.error()
        return Tokens()

    async def _run(self, job: Job, allowance: Allowance) -> Tokens:
        try:
            frame = self._encode(Order(job, allowance))
        except UnicodeEncodeError:
            field = "messages" if isinstance(job, Chat) else "prompt"
            raise InvalidRequest(f"{field}: text is not valid Unicode (a lone surrogate)", field) from None
        except RecursionError:
            raise InvalidRequest("messages hold something that is nested too deep", "messages") from None
        heavy = isinstance(job, Grammar) or len(frame) > HEAVY_BYTES
        async with self._heavy if heavy else contextlib.nullcontext(), self._places:
            answer = await self._in_worker(job, allowance, frame)
            if answer is None:  # its worker was killed from outside: that says nothing of the job
                answer = await self._in_worker(job, allowance, frame)
        match answer:
            case Tokens():
                return answer
            case Refused():
                raise (_Exceeded if answer.spent else InvalidRequest)(
                    answer.message, answer.param, answer.code
                )
            case Faulted(kind):
                raise RequestFailed(f"internal error: {kind}")
        raise Unavailable("a worker of this request was killed twice; try again")

    async def _in_worker(
        self, job: Job, allowance: Allowance, frame: bytes
    ) -> Tokens | Refused | Faulted | None:
        worker = await self._take()
        stage = FIRST_STAGE[type(job)]
        loop = asyncio.get_running_loop()
        fit = False  # for another job
        try:
            async with asyncio.timeout(None) as deadline:
                with contextlib.suppress(ConnectionError):
                    deadline.reschedule(loop.time() + allowance.of(stage)[0] + GRACE_SECONDS)
                    await loop.sock_sendall(worker.sock, LENGTH.pack(len(frame)) + frame)
                    while (data := await _receive(loop, worker.sock)) is not None:
                        answer: Answer = self._decode(data)
                        if not isinstance(answer, Began):
                            fit = not (isinstance(answer, Refused) and answer.spent)
                            return answer
                        stage = answer.stage
                        deadline.reschedule(loop.time() + allowance.of(stage)[0] + GRACE_SECONDS)
            # As a whole: a question to the nursery that is left half asked would cost all workers.
            status = await _whole(self._end(worker))
            if self._stopped:
                raise Unavailable("the engine was stopped")
            if status == -signal.SIGKILL:
                return None
            return exceeded(stage, _how(status, allowance.of(stage)), job)
        except TimeoutError:
            return exceeded(stage, _how(-signal.SIGALRM, allowance.of(stage)), job)
        finally:
            if fit and worker.nursery is self._nursery and worker.age == worker.nursery.age:
                self._idle.append(worker)
            elif worker.sock.fileno() >= 0:
                self._end_later(worker)

    async def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.nursery is self._nursery and worker.age == worker.nursery.age and worker.alive():
                return worker
            self._end_later(worker)
        return await _whole(self._fork(), self._idle.append)

    async def _fork(self) -> _Worker:
        nursery = await self._running()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                pid, age = await nursery.fork(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        return _Worker(pid, ours, nursery, age)

    async def _prepare(self, job: Grammar) -> None:
        nursery = await self._running()
        await nursery.prepare(job)

    async def _running(self) -> Nursery:
        async with self._starting:
            if self._stopped:
                raise Unavailable("the engine was stopped")
            if self._nursery is None or not self._nursery.alive:
                if self._nursery is not None:
                    log.warning("the nursery of workers (%d) is gone; it is started again", self._nursery.pid)
                self._nursery = None
                self._nursery = await Nursery.start(self._config)
            return self._nursery

    def _end_later(self, worker: _Worker) -> None:
        task = asyncio.ensure_future(self._end(worker))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, worker: _Worker) -> int:
        """End a worker, if it has not ended by itself. Returns its exit status."""
        ended = not worker.alive()
        worker.sock.close()
        if not worker.nursery.alive:
            return -signal.SIGKILL  # and it with it
        if not ended:
            os.kill(worker.pid, signal.SIGKILL)  # it is not reaped yet, so nobody else has this pid
        try:
            return await worker.nursery.reap(worker.pid)
        except Unavailable:
            return -signal.SIGKILL


async def _whole(work: Coroutine[Any, Any, T], unwanted: Callable[[T], None] | None = None) -> T:
    """`work`, which goes on to its end even if nobody waits any longer; its result is `unwanted` then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:

        def done(task: asyncio.Task[T]) -> None:
            if not task.cancelled() and task.exception() is None and unwanted is not None:
                unwanted(task.result())

        task.add_done_callback(done)
        raise


class _Exceeded(InvalidRequest):
    """A job took more than its allowance."""


def _how(status: int, allowed: tuple[float, int]) -> str:
    seconds, num_bytes = allowed
    if status in (-signal.SIGALRM, -signal.SIGXCPU):
        return f"took longer than {seconds:g} s"
    if status == -signal.SIGABRT:
        return f"failed: it needs more than {num_bytes >> 20} MiB, or crashes"
    return "crashed"


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes | None:
    """The next frame; None at the end."""
    head = await _receive_exactly(loop, sock, LENGTH.size)
    return None if head is None else await _receive_exactly(loop, sock, LENGTH.unpack(head)[0])


async def _receive_exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = await loop.sock_recv(sock, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
