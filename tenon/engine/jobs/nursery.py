"""Where workers come from: `python -m tenon.engine.jobs.nursery FD`, started by `tenon.engine.jobs.pool`.

It loads the tokenizer once and forks a worker whenever it is asked to, which takes milliseconds. It has one
thread and does nothing that clients have a say in, so that its forks are sound. It ends with its parent, and
its workers with it.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys

import msgspec

from tenon.config import EngineConfig
from tenon.engine.jobs.bench import Bench
from tenon.engine.jobs.commands import Command, Fork, Prepare, Reap
from tenon.engine.jobs.work import Grammar
from tenon.engine.jobs.worker import Worker
from tenon.engine.launch import LENGTH
from tenon.engine.tokenizer import load_tokenizer_for
from tenon.errors import TenonError
from tenon.util.log import configure
from tenon.util.parent import tie_to_parent


def main(sock: socket.socket) -> None:
    _end_with(os.getppid())
    decode = msgspec.msgpack.Decoder(Command).decode
    configure(logging.WARNING, texts=False)
    config = msgspec.msgpack.decode(_frame(sock)[0], type=EngineConfig)
    try:
        bench = Bench(load_tokenizer_for(config))
    except TenonError as error:
        sys.exit(f"the tokenizer cannot be loaded: {error}")
    gc.freeze()  # collections in workers need not touch, and so copy, what is here
    sock.sendall(LENGTH.pack(0))
    while True:
        frame, fds = _frame(sock)
        match decode(frame):
            case Fork():
                answer = _fork(sock, fds[0], bench)
            case Reap(pid):
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFFFFFFFF
            case Prepare(job):
                answer = _prepare(bench, job)
        sock.sendall(LENGTH.pack(answer))


def _fork(sock: socket.socket, fd: int, bench: Bench) -> int:
    nursery = os.getpid()
    if pid := os.fork():
        os.close(fd)
        return pid
    status = 1
    try:
        sock.close()
        _end_with(nursery)
        with socket.socket(fileno=fd) as own:
            Worker(own, bench).serve()
        status = 0
    finally:
        os._exit(status)  # nothing of the nursery's is ended here
    return 0


def _prepare(bench: Bench, job: Grammar) -> int:
    try:
        bench.prepare(job)
    except TenonError:  # the job itself will say so
        return 1
    gc.freeze()
    return 0


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, and by nothing else that a terminal or systemd sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    tie_to_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _frame(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next frame and what file descriptors came with it. Ends the process when the parent is gone."""
    head, fds, _, _ = socket.recv_fds(sock, LENGTH.size, 1)
    if len(head) < LENGTH.size:
        sys.exit(0)
    (length,) = LENGTH.unpack(head)
    data = sock.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        sys.exit(0)
    return data, fds


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
