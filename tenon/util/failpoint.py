"""Faults on purpose, for tests: named places in the code that fail when they are told to.

`TENON_FAILPOINTS` (or `arm`, within a process) holds any number of faults, with commas between them:

    name[@marker]:action[:nth]

`name` is one of STAGES, or `*` for all of them. With a marker only those hits count that are about something
whose text holds it: part of a request's id, where the id is known, or of its text, where it is not yet.
Actions: `ValueError`, `MemoryError`, `sleep=SECONDS`, `exit=CODE`, `hang`, `kill`. `nth` 3 is the third hit
alone, `3+` the third and all after it; without it, every hit.

So a test may fail the n-th hit for n = 1, 2, ... until nothing fails any more, as SQLite's tests do
(sqlite.org/testing.html, "anomaly testing"). Without faults a place costs one look at a global.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tenon import env
from tenon.errors import ConfigError

log = logging.getLogger(__name__)

# In the order in which a request meets them; the right column says where.
STAGES = (
    "parse",  # server/body.py: the body of an HTTP request is decoded
    "template",  # engine/jobs/bench.py: a conversation becomes text
    "tokenise",  # engine/jobs/bench.py, server/prompt.py: text becomes token ids
    "submit",  # engine/frontend.py: a request becomes engine messages
    "decode",  # engine/worker.py: the engine process reads a message
    "admit",  # engine/engine.py: the engine takes a request
    "grammar",  # grammar/compiler.py: a grammar is compiled, in its own thread
    "schedule",  # engine/scheduler.py: a request's part of the next step is decided
    "alloc",  # cache/groups.py: a request gets blocks
    "prepare",  # engine/prepare.py: a request's part of the batch is made
    "mask",  # grammar/masks.py: the tokens that a grammar allows are found
    "execute",  # engine/runner.py: the model runs
    "sample",  # engine/runner.py: tokens are drawn
    "emit",  # engine/engine.py: a request's new token becomes an output
    "free",  # engine/engine.py: a request ends and gives everything back
    "detok",  # engine/frontend.py: tokens become text
    "parse-out",  # server/conversation.py: text becomes content, reasoning, calls
    "serialise",  # server/call.py: an answer or an event becomes bytes
    "send",  # server/call.py: bytes go to the client
)

ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "MemoryError": MemoryError}


@dataclass(slots=True)
class Fault:
    """What one part of TENON_FAILPOINTS asks for."""

    name: str
    marker: str
    action: str
    argument: float = 0.0
    first: int = 1  # the first hit that fails, counted from 1
    last: float = float("inf")
    hits: int = 0
    fired: int = 0

    def met(self, name: str, about: object) -> bool:
        """Count a hit. Returns whether it is one that fails."""
        if self.name not in ("*", name) or (self.marker and self.marker not in _text(about)):
            return False
        self.hits += 1
        return self.first <= self.hits <= self.last

    def act(self, name: str) -> None:
        self.fired += 1
        log.warning("failpoint %s: %s, hit %d", name, self.action, self.hits)
        if (error := ERRORS.get(self.action)) is not None:
            raise error(f"failpoint {name}")
        if self.action == "sleep":
            time.sleep(self.argument)
        elif self.action == "hang":
            while True:
                time.sleep(3600)
        elif self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            os._exit(int(self.argument))


_faults: list[Fault] = []


def failpoint(name: str, about: object = "") -> None:
    """A place where a test may have a fault happen. `about`: what tells the request: its id or its text."""
    if _faults:
        for fault in [fault for fault in _faults if fault.met(name, about)]:
            fault.act(name)


@contextlib.contextmanager
def arm(spec: str) -> Iterator[list[Fault]]:
    """Have these faults happen within the block, and no others; they count their hits."""
    before = _faults[:]
    _faults[:] = parse(spec)
    try:
        yield _faults[:]
    finally:
        _faults[:] = before


def parse(spec: str) -> list[Fault]:
    """Raises ConfigError for what cannot be read, so that no test passes for want of its fault."""
    return [_parse_one(part.strip()) for part in spec.split(",") if part.strip()]


def _parse_one(part: str) -> Fault:
    place, _, rest = part.partition(":")
    name, _, marker = place.partition("@")
    action, _, nth = rest.partition(":")
    action, _, argument = action.partition("=")
    if name not in (*STAGES, "*"):
        raise ConfigError(f"failpoint {part!r}: there is no {name!r}, only {', '.join(STAGES)} and *")
    if action not in (*ERRORS, "sleep", "exit", "hang", "kill"):
        raise ConfigError(f"failpoint {part!r}: there is no action {action!r}")
    try:
        fault = Fault(name, marker, action, float(argument or 0))
        if nth:
            fault.first = int(nth.removesuffix("+"))
            fault.last = float("inf") if nth.endswith("+") else fault.first
    except ValueError:
        raise ConfigError(f"failpoint {part!r}: write name[@marker]:action[=number][:nth]") from None
    return fault


def _text(about: object) -> str:
    return about.decode("utf-8", "replace") if isinstance(about, bytes) else str(about)


_faults += parse(env.failpoints())
