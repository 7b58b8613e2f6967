"""How the server sees that an engine process goes on, without asking it: a counter in shared memory.

The engine counts up with every turn of its loop (every `IDLE_SECONDS` without work), and its kernels with
every op. So the longest pause of a healthy engine is that of one op, whatever the model, the prompt and the
machine. `Watch` takes no clock on trust: time counts only as far as the watching process itself ran through
it, so that a machine that slept, or a server that was stopped, does not look like an engine that hangs.

A second counter is that of the messages which the engine has taken: what was sent after the last of them
cannot have harmed it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from dataclasses import dataclass

IDLE_SECONDS = 2.0
LEAST_PATIENCE = 2 * IDLE_SECONDS  # less would take one that has nothing to do for one that hangs
TICK_SECONDS = 0.25  # of `Watch`
_SIZE = mmap.PAGESIZE


class Heartbeat:
    """The counters. `fd` is the memory's: the engine process inherits it."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _memory() if fd is None else fd
        self._map = mmap.mmap(self.fd, _SIZE)
        self._cell = memoryview(self._map).cast("Q")

    def beat(self) -> None:
        self._cell[0] += 1

    @property
    def count(self) -> int:
        return self._cell[0]

    def take(self) -> None:
        """A message has arrived and is handled next."""
        self._cell[1] += 1

    @property
    def num_taken(self) -> int:
        return self._cell[1]

    def address(self) -> int:
        """Of the counter of progress, for native code. It holds until `close`."""
        return ctypes.addressof(ctypes.c_uint64.from_buffer(self._map))

    def close(self) -> None:
        """May be called again."""
        if self.fd >= 0:
            self._cell.release()
            self._map.close()
            os.close(self.fd)
            self.fd = -1


def _memory() -> int:
    """Shared memory without a name: nothing is left behind, whoever is killed."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tenon-heartbeat")
    else:
        file, path = tempfile.mkstemp()
        os.unlink(path)
        fd = file
    os.ftruncate(fd, _SIZE)
    return fd


@dataclass(frozen=True, slots=True)
class Patience:
    """With an engine that shows no progress. After `stall_seconds` the server is not ready, and an engine
    that does not even compute is taken for frozen; after `step_timeout` every one is. One that starts tells
    of each weight that it has loaded, and is given up after `load_timeout` without one."""

    stall_seconds: float = 9.0  # so that ten are kept, whatever the ticks
    step_timeout: float = 60.0
    load_timeout: float = 600.0

    @property
    def with_start(self) -> Patience:
        """The same, with one that starts: that it waits for a disk or a network does not make it frozen."""
        return Patience(self.load_timeout, self.load_timeout, self.load_timeout)


class Watch:
    """For how long a counter has stood still, and how much its process computed meanwhile."""

    def __init__(self, patience: Patience) -> None:
        self.age = 0.0  # seconds without progress
        self._patience = patience
        self._count = -1
        self._worked = 0.0  # CPU seconds of the process when the counter last moved

    @property
    def stalled(self) -> bool:
        return self.age >= self._patience.stall_seconds

    def tick(self, elapsed: float, count: int, cpu_seconds: float | None) -> str | None:
        """`elapsed` seconds later: why the engine must be killed, or None.

        `cpu_seconds` are those that its process has used so far; None where nobody can tell.
        """
        if count != self._count:
            self.age, self._count, self._worked = 0.0, count, cpu_seconds or 0.0
            return None
        self.age += min(elapsed, 2 * TICK_SECONDS)  # in a longer pause the watcher itself did not run
        if self.age >= self._patience.step_timeout:
            return f"made no progress for {self.age:.0f} s"
        if self.stalled and cpu_seconds is not None and cpu_seconds - self._worked < 0.01 * self.age:
            return f"was frozen for {self.age:.0f} s"
        return None


def cpu_seconds(pid: int) -> float | None:
    """What a process has computed so far, in seconds. None where that is not known, and while it waits for a
    disk, which also takes its time."""
    if sys.platform != "linux":
        return None
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "D":
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
