"""The engine process: `python -m tenon.engine.worker LIFELINE HEARTBEAT`, started by `tenon.engine.process`.

It ends when it is told to, when one of its threads fails, and when its parent is gone, even by SIGKILL, and
even within a step or while it is stopped itself. SIGINT and
SIGTERM it leaves to its parent: a terminal sends the one, systemd the other, to all processes at once, and
requests that are being drained still need an engine. Without work it sleeps in a poll, but for a heartbeat.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import zmq

from tenon.core.messages import Failed, FromEngine, Loading, Outputs, Shutdown, ToEngine
from tenon.engine.engine import Engine
from tenon.engine.heartbeat import IDLE_SECONDS, Heartbeat
from tenon.engine.launch import DUMP_SIGNAL, HELD_SIGNALS, LENGTH, Launch
from tenon.engine.pace import Pace
from tenon.errors import InvalidRequest, TenonError
from tenon.util.failpoint import failpoint
from tenon.util.log import configure, describe, hide_texts
from tenon.util.parent import tie_to_parent

log = logging.getLogger(__name__)

STATS_SECONDS = 0.1
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest)
IDLE_CHECK_MS = 1000


def main(lifeline: socket.socket, heartbeat: Heartbeat) -> int:
    """Exit code: 0 after an orderly end, 1 when start-up or the engine failed."""
    lifeline.set_inheritable(False)
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL)
    _die_with_parent()
    launch = msgspec.msgpack.decode(_read(lifeline), type=Launch)
    configure(launch.log_level, texts=True)
    threading.excepthook = _end_with_thread
    threading.Thread(target=_watch, args=(lifeline, launch.directory), daemon=True, name="lifeline").start()
    try:
        _run(launch, lifeline, heartbeat)
    except TenonError as error:
        _tell(lifeline, Failed(type(error).__name__, str(error)))
        return 1
    except Exception as error:
        log.exception("the engine failed")
        _tell(lifeline, Failed("EngineDead", f"the engine failed: {describe(error)}"))
        return 1
    finally:
        shutil.rmtree(launch.directory, ignore_errors=True)
    return 0


def _run(launch: Launch, lifeline: socket.socket, heartbeat: Heartbeat) -> None:
    from tenon import ops
    from tenon.engine.loader import load_engine
    from tenon.ops.plan import count_ops

    engine = load_engine(launch.config, lambda done, total: _tell(lifeline, Loading(done, total)))
    engine.scheduler.pace = Pace()  # people read along
    if launch.config.load_format != "oracle":  # it has no ops
        count_ops(heartbeat.address())
    gc.freeze()  # what is loaded stays: collections, which delay a step, need not look at it
    context = zmq.Context(io_threads=1)
    with context, context.socket(zmq.PULL) as requests, context.socket(zmq.PUSH) as outputs:
        for end, address in ((requests, launch.requests_address), (outputs, launch.outputs_address)):
            end.linger = 0
            end.set_hwm(0)
            end.bind(address)
        if not launch.log_texts:
            hide_texts()
        _tell(lifeline, engine.ready)
        # An empty message, and an answer: then both ends are connected, and need their names no more. From
        # here on there is nothing to clean up.
        requests.recv()
        outputs.send(msgspec.msgpack.encode(Outputs(stats=engine.stats())))
        shutil.rmtree(launch.directory, ignore_errors=True)
        tie_to_parent(signal.SIGKILL)
        ops.pin_caller()  # else it shares a core with the other thread of kernels when the server is busy
        serve(engine, requests, outputs, heartbeat)


def serve(
    engine: Engine, requests: zmq.Socket[bytes], outputs: zmq.Socket[bytes], heartbeat: Heartbeat
) -> None:
    """Steps while there is work, and messages between steps, until Shutdown."""
    inbox = Inbox(requests, engine.refuse, heartbeat.take)
    encode = msgspec.msgpack.Encoder().encode
    stats_due = 0.0
    while True:
        heartbeat.beat()
        if not engine.has_work:
            _sleep(engine, requests, heartbeat)
        for message in inbox.drain():
            if isinstance(message, Shutdown):
                return
            engine.handle(message)
        if not engine.has_work:
            outputs.send(encode(Outputs(stats=engine.stats())))
            continue
        result = engine.step()
        now = time.monotonic()
        if now >= stats_due or not engine.has_work:
            result.stats = engine.stats()
            stats_due = now + STATS_SECONDS
        if result.outputs or result.stats:
            outputs.send(encode(result))


class _Named(msgspec.Struct):
    """What is read of a message that cannot be read."""

    request_id: str = ""


class Inbox:
    """Messages that have arrived. `refuse(request_id, reason)` is told of a request that cannot be read,
    `take` of each frame before anything is done with it."""

    def __init__(
        self, requests: zmq.Socket[bytes], refuse: Callable[..., None], take: Callable[[], None]
    ) -> None:
        self._requests = requests
        self._refuse = refuse
        self._take = take
        self._decode = msgspec.msgpack.Decoder(list[ToEngine]).decode

    def drain(self) -> list[ToEngine]:
        """All messages that are there; does not wait. One that cannot be read takes no other with it."""
        messages: list[ToEngine] = []
        while self._requests.poll(0):
            frame = self._requests.recv()
            self._take()
            try:
                failpoint("decode", frame)
                messages += self._decode(frame)
            except Exception:
                messages += self._one_by_one(frame)
        return messages

    def _one_by_one(self, frame: bytes) -> Iterator[ToEngine]:
        try:
            parts = msgspec.msgpack.decode(frame, type=list[msgspec.Raw])
        except UNREADABLE as error:
            log.error("dropped %d bytes that are no list of messages: %s", len(frame), error)
            return
        for part in parts:
            try:
                failpoint("decode", bytes(part))
                yield msgspec.msgpack.decode(part, type=ToEngine)
            except UNREADABLE as error:
                log.error("a message of %d bytes cannot be read: %s", len(bytes(part)), error)
                if name := _name(part):
                    self._refuse(name, f"the request cannot be read: {error}")
            except Exception as error:
                log.exception("reading a message of %d bytes failed", len(bytes(part)))
                if name := _name(part):
                    self._refuse(name, f"internal error: {type(error).__name__}", None)


def _name(part: msgspec.Raw) -> str:
    """The request that a message is about; "" if it does not tell."""
    try:
        return msgspec.msgpack.decode(part, type=_Named).request_id
    except UNREADABLE:
        return ""


def _sleep(engine: Engine, requests: zmq.Socket[bytes], heartbeat: Heartbeat) -> None:
    """Until a message arrives. An engine that stays idle proves first that nothing was left behind."""
    if requests.poll(IDLE_CHECK_MS):
        return
    engine.check_integrity()
    heartbeat.beat()
    while not requests.poll(int(1000 * IDLE_SECONDS)):
        heartbeat.beat()


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent ends, and heed it only then."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def on_sigterm(*_: object) -> None:
        if os.getppid() != parent:
            sys.exit(1)

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)  # see tenon.engine.process
    tie_to_parent(signal.SIGTERM)


def _end_with_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread that fails takes the process with it: what it did would be missing for ever."""
    kind, error, trace, thread = failed
    info = (kind, error or kind(), trace)
    log.critical("the thread %s failed; the engine ends", thread and thread.name, exc_info=info)
    os._exit(1)


def _watch(lifeline: socket.socket, directory: str) -> None:
    """In a thread: the end of the lifeline is noticed on every system, and during a long step too."""
    with contextlib.suppress(OSError):
        lifeline.recv(1)  # nothing is sent any more: it returns at the end of the lifeline
    time.sleep(1)  # an orderly end, or the one by SIGTERM, is faster
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(1)


def _tell(lifeline: socket.socket, message: FromEngine) -> None:
    data = msgspec.msgpack.encode(message)
    lifeline.sendall(LENGTH.pack(len(data)) + data)


def _read(lifeline: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_read_exactly(lifeline, LENGTH.size))
    return _read_exactly(lifeline, length)


def _read_exactly(lifeline: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = lifeline.recv(size - len(data))
        if not part:
            sys.exit(1)  # the parent is gone already
        data += part
    return data


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1])), Heartbeat(int(sys.argv[2]))))
