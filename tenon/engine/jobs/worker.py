"""A worker: takes one order after the other from its socket, until the socket ends or a job kills it.

The kernel ends it when a stage takes longer than its allowance, whatever it is doing: SIGALRM has no
handler here. Memory beyond the allowance cannot be had: Python then raises MemoryError, other code aborts.
Either way nothing but this process is lost.
"""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator

import msgspec

from tenon.engine.jobs.bench import Bench
from tenon.engine.jobs.work import Allowance, Answer, Began, Faulted, Order, Refused, Tokens, exceeded
from tenon.engine.launch import LENGTH
from tenon.errors import InvalidRequest

log = logging.getLogger(__name__)

_LONG = 16 * 1024  # characters of a text before whose tokenising its worker tells that it begins


class Worker:
    """`bench` comes with the tokenizer; its stages become this worker's."""

    def __init__(self, sock: socket.socket, bench: Bench) -> None:
        self._sock = sock
        self._bench = bench
        bench.stage = self._stage
        self._decode = msgspec.json.Decoder(Order).decode  # whole numbers of any size
        self._encode = msgspec.msgpack.Encoder().encode
        self._allowance = Allowance()
        self._stage_name = ""
        self._begin_bytes = _address_space()

    def serve(self) -> None:
        while (frame := _receive(self._sock)) is not None:
            answer = self._answer(frame)
            self._send(answer)
            if isinstance(answer, Refused) and answer.spent:
                return

    def _answer(self, frame: bytes) -> Tokens | Refused | Faulted:
        try:
            order = self._decode(frame)
            self._allowance = order.allowance
            return self._bench.do(order.job)
        except InvalidRequest as error:
            return Refused(str(error), error.param, error.code)
        except MemoryError:
            _, num_bytes = self._allowance.of(self._stage_name)
            return exceeded(self._stage_name, f"needs more than {num_bytes >> 20} MiB", order.job)
        except Exception as error:
            log.exception("a job failed")
            return Faulted(type(error).__name__)

    @contextlib.contextmanager
    def _stage(self, name: str, size: int) -> Iterator[None]:
        self._stage_name = name
        seconds, num_bytes = self._allowance.of(name)
        if size > _LONG:
            self._send(Began(name))
        _limit(resource.RLIMIT_AS, self._begin_bytes + num_bytes)
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds) + 1)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _limit(resource.RLIMIT_CPU, resource.RLIM_INFINITY)
            _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)

    def _send(self, answer: Answer) -> None:
        data = self._encode(answer)
        self._sock.sendall(LENGTH.pack(len(data)) + data)


def _limit(kind: int, value: int) -> None:
    """Set a soft limit, as far as the hard one allows."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = hard if value == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, hard))


def _address_space() -> int:
    """Bytes that are mapped now, which RLIMIT_AS counts."""
    if sys.platform != "linux":
        return 1 << 40  # where such a limit is not kept to anyway
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _receive(sock: socket.socket) -> bytes | None:
    """The next frame; None at the end."""
    head = sock.recv(LENGTH.size, socket.MSG_WAITALL)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    parts = bytearray()
    while len(parts) < length:
        part = sock.recv(min(length - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
