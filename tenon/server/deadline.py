"""How long a request may take: until the engine takes it up, until its first token, and in all.

The server's limits are the most; a client asks for less with a header. The time in the queue begins when the
model is there (how long its load may take is `--load-wait-seconds`), the others when the request arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tenon.server.errors import ApiError, bad_request
from tenon.server.limits import Limits

QUEUE_HEADER = "x-queue-timeout-ms"
FIRST_TOKEN_HEADER = "x-first-token-timeout-ms"
TOTAL_HEADER = "x-request-timeout-ms"
DEADLINES = ("queue", "first_token", "total")
_MOST_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Deadlines:
    """In seconds; None: there is none."""

    queue: float | None = None
    first_token: float | None = None
    total: float | None = None

    @classmethod
    def of(cls, limits: Limits, headers: Mapping[str, str], *, attended: bool = True) -> Deadlines:
        """Work that nobody waits for has only the deadlines that were asked for. Raises ApiError(400)."""
        return cls(
            _least(attended and limits.queue_seconds, headers, QUEUE_HEADER),
            _least(attended and limits.first_token_seconds, headers, FIRST_TOKEN_HEADER),
            _least(attended and limits.total_seconds, headers, TOTAL_HEADER),
        )


def _least(most: float, headers: Mapping[str, str], name: str) -> float | None:
    given = headers.get(name)
    if given is None:
        return most or None
    if not (given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS and int(given)):
        raise bad_request(f"{name} must be a number of milliseconds, at least 1", name)
    seconds = int(given) / 1000
    return min(seconds, most) if most else seconds


class Watch:
    """The deadlines of one request, and how far it has come."""

    def __init__(
        self, deadlines: Deadlines, arrival: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.deadlines = deadlines
        self._arrival = arrival
        self._clock = clock
        self._admitted = False
        self._queued: float | None = None  # since when it waits
        self._taken_up = False
        self._spoke = False

    def admitted(self) -> None:
        """It is for a model, and so under deadlines at all: a download, for example, is not."""
        self._admitted = True

    def queued(self) -> None:
        """It waits for the engine from now on; told again, it goes on waiting."""
        if self._queued is None:
            self._queued = self._clock()

    def taken_up(self) -> None:
        self._taken_up = True

    def spoke(self) -> None:
        """There is a token, or something else that was waited for."""
        self._taken_up = self._spoke = True

    def next(self) -> tuple[float, str] | None:
        """When the next deadline is, on the clock, and which; None: there is none."""
        deadlines, due = self.deadlines, []
        if not self._admitted:
            return None
        if deadlines.queue is not None and self._queued is not None and not self._taken_up:
            due.append((self._queued + deadlines.queue, "queue"))
        if deadlines.first_token is not None and not self._spoke:
            due.append((self._arrival + deadlines.first_token, "first_token"))
        if deadlines.total is not None:
            due.append((self._arrival + deadlines.total, "total"))
        return min(due, default=None)

    def left(self) -> float | None:
        """Seconds until the next deadline; not above zero: it has passed."""
        return None if (due := self.next()) is None else due[0] - self._clock()

    def error(self, retry: Mapping[str, str]) -> ApiError:
        """What a request is told that ends now. `retry`: headers for one that was never taken up."""
        due = self.next()
        assert due is not None
        seconds = getattr(self.deadlines, due[1])
        if due[1] == "queue":
            return ApiError(
                503,
                f"the engine was busy with other requests for {seconds:g} s, as long as this one may wait",
                kind="server_error",
                code="queue_timeout",
                headers=retry,
            )
        # The same request would take as long again: clients must not repeat it by themselves.
        what, code = {
            "first_token": ("there was no token", "first_token_timeout"),
            "total": ("the request was not done", "request_timeout"),
        }[due[1]]
        return ApiError(
            504,
            f"{what} after {seconds:g} s, its deadline",
            kind="server_error",
            code=code,
            headers={"x-should-retry": "false"},
        )
