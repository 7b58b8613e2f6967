"""Which requests may have killed the engine, and how they are told from their neighbours.

All that an engine had taken and not ended when it died are suspects, known by a digest of their content, so
that a client's next attempt is recognised. Sent again, suspects run one at a time, beside everybody else.
With many of them the next one starts when the one before has its first token, with few (`FEW`) when it has
ended. Who ends without a crash is cleared. When the engine dies again, and of those that it had taken

- one suspect was in flight, it is guilty: from now on it is refused, and nobody else is suspected;
- several were, they all stay suspects, and each will run to its end before another one starts;
- none was, all that were in flight are suspects.

So a request that kills the engine kills it twice, or three times if it had many neighbours; an innocent one
is refused only if something else kills the engine while it is the only suspect that runs. Suspicion and
guilt are forgotten after `LIFETIME` seconds. Pure logic; a `Flight` is a request that the caller has taken.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from tenon.errors import DeadlyRequest

log = logging.getLogger(__name__)

LIFETIME = 600.0
MOST = 4096  # suspects that are remembered
FEW = 16  # suspects who need not hurry
MOST_NAMED = 20  # in a line of the log


class Flight(Protocol):
    """A request as far as suspicion goes."""

    @property
    def request_id(self) -> str: ...

    @property
    def finished(self) -> bool: ...

    @property
    def has_output(self) -> bool:
        """Its first token is here."""

    @property
    def content(self) -> Any:
        """What the client asked for; the same when it asks again."""


@dataclass(slots=True, eq=False)
class _Record:
    """What is held against a request."""

    since: float  # of the latest crash
    crashes: int = 1
    guilty: bool = False


@dataclass(slots=True, eq=False)
class _Trial:
    """A suspect that waits or runs."""

    flight: Flight
    start: Callable[[], None]
    digest: bytes
    record: _Record


class Suspects:
    """Of one model. `review` must be called when a flight has ended or got on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[bytes, _Record] = OrderedDict()  # oldest first
        self._waiting: deque[_Trial] = deque()
        self._running: list[_Trial] = []

    def __len__(self) -> int:
        return len(self._records)

    def enter(self, flight: Flight, start: Callable[[], None]) -> None:
        """Start a flight, now or when it may. Raises DeadlyRequest."""
        self._forget()
        record = self._records.get(digest := _digest(flight)) if self._records else None
        if record is None:
            start()
            return
        if record.guilty:
            raise DeadlyRequest(
                "this request was being computed when the engine process died, and died again; it is not "
                "run a third time"
            )
        self._waiting.append(_Trial(flight, start, digest, record))
        self.review()

    def review(self) -> None:
        """Clear those that have ended, and start who may."""
        for trial in [trial for trial in self._running if trial.flight.finished]:
            self._running.remove(trial)
            self._records.pop(trial.digest, None)
        while self._waiting and self._may_start(self._waiting[0]):
            trial = self._waiting.popleft()
            if not trial.flight.finished:
                self._running.append(trial)
                trial.start()

    def _may_start(self, trial: _Trial) -> bool:
        if len(self._records) <= FEW or trial.record.crashes > 1:
            return not self._running
        return all(other.flight.has_output and other.record.crashes == 1 for other in self._running)

    def leave(self, flight: Flight) -> None:
        """A flight is aborted: nothing is known of it."""
        self._running = [trial for trial in self._running if trial.flight is not flight]
        self._waiting = deque(trial for trial in self._waiting if trial.flight is not flight)
        self.review()

    def crashed(self, in_flight: Iterable[Flight]) -> None:
        """The engine has died, and had taken these. Who waits has not been started, whatever is given."""
        waited = {id(trial.flight) for trial in self._waiting}
        digests = {_digest(flight): flight.request_id for flight in in_flight if id(flight) not in waited}
        self._waiting.clear()
        self._running.clear()
        self._forget()
        now = self._clock()
        suspects = [digest for digest in digests if digest in self._records]
        if len(suspects) == 1:
            (digest,) = suspects
            self._records[digest].guilty = True
            log.error("request %s was in flight in two crashes; it is refused from now on", digests[digest])
        elif digests:
            log.warning(
                "one of these may have ended the engine: %s",
                _names([digests[digest] for digest in suspects or digests]),
            )
        for digest in suspects or digests:
            record = self._records.pop(digest, None) or _Record(now, crashes=0)
            record.since, record.crashes = now, record.crashes + 1
            self._records[digest] = record
        while len(self._records) > MOST:
            self._records.popitem(last=False)

    def _forget(self) -> None:
        now = self._clock()
        while self._records and now - next(iter(self._records.values())).since >= LIFETIME:
            self._records.popitem(last=False)


def _names(request_ids: list[str]) -> str:
    more = len(request_ids) - MOST_NAMED
    return ", ".join(request_ids[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _digest(flight: Flight) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(flight.content), digest_size=16).digest()
