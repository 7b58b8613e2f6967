"""The nursery as its parent sees it: one question at a time over a socket pair."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess

import msgspec

from tenon import env
from tenon.config import EngineConfig
from tenon.engine.jobs.commands import Command, Fork, Prepare, Reap
from tenon.engine.jobs.work import Grammar
from tenon.engine.launch import LENGTH
from tenon.errors import Unavailable
from tenon.util import python

log = logging.getLogger(__name__)

START_SECONDS = 60.0
# Threads of libraries do not survive a fork.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Nursery:
    """`age` counts what has been prepared in it: workers that were forked before are without."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.age = 0
        self._process = process
        self._sock = sock
        self._turn = asyncio.Lock()
        self._prepared: set[str] = set()

    @classmethod
    async def start(cls, config: EngineConfig) -> Nursery:
        """Raises Unavailable."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = subprocess.Popen(
                python.module("tenon.engine.jobs.nursery", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output belongs to the front end's own output
                env=env.child_environment(**_ONE_THREAD),
                start_new_session=True,  # Ctrl-C is not meant for it
            )
        nursery = cls(process, ours)
        try:
            async with asyncio.timeout(START_SECONDS):
                await nursery._ask(msgspec.msgpack.encode(config))
        except BaseException as error:
            nursery.kill()
            ours.close()
            if isinstance(error, TimeoutError):
                raise Unavailable("workers could not be started in time; try again") from None
            raise
        return nursery

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it, and its workers with it."""
        self._process.kill()
        self._process.wait()
        if not self._turn.locked():  # else a question is under way, which learns of the end by the socket
            self._sock.close()

    async def fork(self, fd: int) -> tuple[int, int]:
        """A worker that talks over `fd`: its pid, and the nursery's age at its birth."""
        async with self._turn:
            age = self.age
            return await self._ask(_encode(Fork()), fd), age

    async def reap(self, pid: int) -> int:
        """The exit status of a worker that has ended, or been killed."""
        async with self._turn:
            status = await self._ask(_encode(Reap(pid)))
        return status - (1 << 32) if status >> 31 else status

    async def prepare(self, job: Grammar) -> None:
        """Have ready what jobs of this kind need. Once for each backend."""
        async with self._turn:
            backend = "tags" if job.outputs.kind == "structural_tag" else "text"
            if backend not in self._prepared:
                await self._ask(_encode(Prepare(job)))
                self._prepared.add(backend)
                self.age += 1

    async def _ask(self, frame: bytes, fd: int | None = None) -> int:
        """Raises Unavailable when it has ended."""
        loop = asyncio.get_running_loop()
        data = LENGTH.pack(len(frame)) + frame
        try:
            if fd is None:
                await loop.sock_sendall(self._sock, data)
            else:  # a few bytes, and nothing else is under way: they fit
                socket.send_fds(self._sock, [data], [fd])
            answer = b""
            while len(answer) < LENGTH.size:
                part = await loop.sock_recv(self._sock, LENGTH.size - len(answer))
                if not part:
                    raise ConnectionError
                answer += part
        except (ConnectionError, OSError):
            self._process.kill()
            log.warning("the process that starts workers has ended (%s)", self._process.wait())
            self._sock.close()
            raise Unavailable("workers cannot be started; try again in a moment") from None
        except BaseException:  # half an answer may be on its way, which nobody could tell from the next one
            self.kill()
            raise
        number: int = LENGTH.unpack(answer)[0]
        return number


def _encode(command: Command) -> bytes:
    return msgspec.msgpack.encode(command)
