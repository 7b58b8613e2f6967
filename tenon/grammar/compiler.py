"""Compiles grammars off the engine's thread, within limits, and keeps what it has compiled.

A compilation that takes longer than its time fails alone: its thread is left behind, and another one takes
its place. The backends bound what such a thread can still do (see their files).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

from tenon.core.structured import StructuredOutputs
from tenon.grammar import select
from tenon.grammar.matcher import GrammarError, Program
from tenon.grammar.vocabulary import Vocabulary
from tenon.util.cores import roam
from tenon.util.failpoint import failpoint

log = logging.getLogger(__name__)

MiB = 1 << 20
COMPILE_SECONDS = 2.0
CACHE_BYTES = 64 * MiB
CACHE_COUNT = 256
MAX_LEFT_BEHIND = 8  # threads that were given up and have not ended yet


class Cache:
    """Programs by their source; the least recently used go when they are too many, or too many bytes."""

    def __init__(self, max_bytes: int, max_count: int = CACHE_COUNT) -> None:
        self.max_bytes = max_bytes
        self.max_count = max_count
        self.num_bytes = 0
        self._programs: OrderedDict[Hashable, Program] = OrderedDict()

    def __len__(self) -> int:
        return len(self._programs)

    def get(self, key: Hashable) -> Program | None:
        if (program := self._programs.get(key)) is not None:
            self._programs.move_to_end(key)
        return program

    def clear(self) -> None:
        self._programs.clear()
        self.num_bytes = 0

    def put(self, key: Hashable, program: Program) -> None:
        if key in self._programs or program.num_bytes > self.max_bytes:
            return
        self._programs[key] = program
        self.num_bytes += program.num_bytes
        while self.num_bytes > self.max_bytes or len(self._programs) > self.max_count:
            _, dropped = self._programs.popitem(last=False)
            self.num_bytes -= dropped.num_bytes


class Ticket:
    """One compilation: waits, runs, and ends with a program or an error. `outputs` None needs no program, but
    the vocabulary."""

    def __init__(self, outputs: StructuredOutputs | None) -> None:
        self.outputs = outputs
        self.key = outputs and (outputs.kind, outputs.source(), outputs.disable_any_whitespace)
        self.began: float | None = None
        self.program: Program | None = None
        self.error: Exception | None = None
        self.done = False


class Compiler:
    """`load` makes the vocabulary, once, when the first constraint arrives."""

    def __init__(
        self,
        load: Callable[[], Vocabulary],
        *,
        seconds: float = COMPILE_SECONDS,
        cache_bytes: int = CACHE_BYTES,
        compile: Callable[[StructuredOutputs, Vocabulary], Program] = select.compile,
        prepare: Callable[[StructuredOutputs, Vocabulary], None] = select.prepare,
    ) -> None:
        self.vocabulary: Vocabulary | None = None
        self.cache = Cache(cache_bytes)
        self._load = load
        self._seconds = seconds
        self._compile = compile
        self._prepare = prepare
        self._queue: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._running: Ticket | None = None
        self._thread: threading.Thread | None = None
        self._left_behind: list[threading.Thread] = []

    def submit(self, outputs: StructuredOutputs | None) -> Ticket:
        """Ask for a program. The ticket is done at once if it is known. Raises GrammarError when too many
        compilations hang."""
        ticket = Ticket(outputs)
        with self._changed:
            ticket.program = self.cache.get(ticket.key) if outputs else None
            if self.vocabulary is not None and (ticket.program is not None or outputs is None):
                ticket.done = True
                return ticket
            self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
            if len(self._left_behind) >= MAX_LEFT_BEHIND:
                raise GrammarError("too many grammars are taking too long to compile; try again later")
            self._queue.append(ticket)
            self._start()
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Nobody waits for it any longer: it is not even begun, so that it costs the others no time."""
        with self._changed, contextlib.suppress(ValueError):
            self._queue.remove(ticket)

    def forget(self) -> None:
        """Give up what is kept for later: memory has run out."""
        with self._changed:
            self.cache.clear()

    def wait(self, seconds: float) -> None:
        """Until a ticket is done, or so long."""
        with self._changed:
            self._changed.wait(seconds)

    def check_time(self) -> None:
        """Give up a compilation that takes too long."""
        with self._changed:
            ticket = self._running
            if ticket is None or ticket.began is None or time.monotonic() - ticket.began < self._seconds:
                return
            ticket.error = GrammarError(f"compiling the grammar took longer than {self._seconds:g} seconds")
            ticket.done = True
            assert self._thread is not None
            self._left_behind.append(self._thread)
            self._running = self._thread = None
            if self._queue:
                self._start()

    def _start(self) -> None:
        """A thread, if there is none. They are daemons: one that hangs does not keep the process."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tenon-grammar", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        roam()
        this = threading.current_thread()
        while True:
            with self._changed:
                if self._thread is not this:
                    return  # left behind
                if not self._queue:
                    self._thread = None
                    return
                ticket = self._running = self._queue.popleft()
            program, error = self._work(ticket)
            with self._changed:
                if self._running is not ticket:
                    return
                self._running = None
                ticket.program, ticket.error, ticket.done = program, error, True
                if program is not None:
                    self.cache.put(ticket.key, program)
                self._changed.notify_all()

    def _work(self, ticket: Ticket) -> tuple[Program | None, Exception | None]:
        try:
            failpoint("grammar", ticket.key)
            if self.vocabulary is None:
                self.vocabulary = self._load()
            if ticket.outputs is not None:
                self._prepare(ticket.outputs, self.vocabulary)
            ticket.began = time.monotonic()
            if ticket.outputs is None:
                return None, None
            with self._changed:
                program = self.cache.get(ticket.key)  # asked for twice at the same time
            return program or self._compile(ticket.outputs, self.vocabulary), None
        except GrammarError as error:
            return None, error
        except Exception as error:
            log.exception("a grammar could not be compiled")
            return None, error
