"""What one input may cost: a second of processor time and 512 MiB."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 1.0
MEMORY = 512 << 20


class Finding(Exception):
    """An input did what none may. The cause is chained."""


class _TooSlow(BaseException):
    """Not an Exception, so that the code under test does not take it for one of its own."""


class Guard:
    """Runs inputs one by one and raises Finding. Processor time is counted, not the clock, so that a busy
    machine finds nothing."""

    def __init__(
        self,
        run: Callable[[bytes], object],
        expected: tuple[type[Exception], ...],
        slow_is_fine: bool = False,
    ) -> None:
        self._run = run
        self._expected = expected
        self._slow_is_fine = slow_is_fine
        self._expired = False
        signal.signal(signal.SIGPROF, self._expire)

    def _expire(self, *_: object) -> None:
        self._expired = True
        raise _TooSlow

    def __call__(self, data: bytes, seconds: float = SECONDS) -> None:
        self._expired = False
        signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
        try:
            try:
                self._one(data)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except _TooSlow:  # also while the timer was being stopped
            signal.setitimer(signal.ITIMER_PROF, 0)
        if self._expired and not self._slow_is_fine:
            raise Finding(f"more than {seconds:g} s of processor time")

    def _one(self, data: bytes) -> None:
        try:
            self._run(data)
        except self._expected:
            pass
        except (KeyboardInterrupt, SystemExit, _TooSlow):
            raise
        except BaseException as error:  # a panic in Rust is no Exception
            raise Finding(f"{type(error).__name__}: {error}") from error


@contextmanager
def memory_limit(extra: int = MEMORY) -> Iterator[None]:
    """In the block, this process cannot map more than `extra` bytes beyond what it has: MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
