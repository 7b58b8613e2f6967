"""Who may wait for an engine. Each model has a queue, bounded in requests and in tokens of prompts; what does
not fit is told so at once (429), with the time after which it makes sense to come back.

A request is in the queue from when it is admitted, which is before anything of it is tokenised, until the
engine takes it up. Until its tokens are known they are estimated from its bytes. A request with n choices
counts n.

Work that nobody waits for (background responses, lines of batches) has a queue of its own, in which it counts
until it has ended: it is a promise that the server must keep in memory.

Callers share a queue: where it is full, one that has less than its part of it is let in all the same. So a
queue may hold more than its bound, but never more than twice that, however many callers there are.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tenon.server.errors import ApiError
from tenon.server.limits import Limits
from tenon.server.quota import Quotas

FIRST_TOKENS_PER_BYTE = 0.25  # of a body, until requests have told better
MEMORY = 0.95  # the weight of what was known of tokens per byte, with each request
HALF_LIFE = 10.0  # seconds of serving after which what was measured counts half
ENOUGH_SECONDS = 1.0  # of serving, before the rate is believed
LEAST_WAIT, LONGEST_WAIT = 0.1, 60.0  # seconds that a client is told to stay away; OpenAI's heed up to 120


@dataclass(slots=True)
class Load:
    """Something that waits: choices, and tokens of prompts."""

    choices: int = 0
    tokens: int = 0

    def add(self, choices: int, tokens: int) -> None:
        self.choices += choices
        self.tokens += tokens


class Rate:
    """How fast a queue is served, while there is one: choices and tokens taken up per second of late."""

    def __init__(self) -> None:
        self._seconds = self._choices = self._tokens = 0.0

    def pass_time(self, seconds: float) -> None:
        """So long somebody has waited."""
        decay = 0.5 ** (seconds / HALF_LIFE)
        self._seconds = self._seconds * decay + seconds
        self._choices *= decay
        self._tokens *= decay

    def serve(self, choices: int, tokens: int) -> None:
        self._choices += choices
        self._tokens += tokens

    def seconds(self, load: Load) -> float | None:
        """How long a load takes; None: not enough is known."""
        if self._seconds < ENOUGH_SECONDS or self._choices < 1:
            return None
        times = [load.choices / self._choices]
        if self._tokens >= 1:
            times.append(load.tokens / self._tokens)
        return self._seconds * max(times)


class Queue:
    """What waits for one model. Bounds are in choices and tokens."""

    def __init__(self, most: Load, now: float) -> None:
        self.most = most
        self.total = Load()
        self.shares: dict[str, Load] = {}  # by caller, of those that have something here
        self.rate = Rate()
        self._now = now

    @property
    def full(self) -> bool:
        return self.total.choices >= self.most.choices or self.total.tokens >= self.most.tokens

    def refusal(self, caller: str, load: Load) -> str | None:
        """Why there is no place for a load: "requests" or "tokens"."""
        own = self.shares.get(caller, Load())
        active = len(self.shares) + (caller not in self.shares)
        for name, reason in (("choices", "requests"), ("tokens", "tokens")):
            asked, most = getattr(load, name), getattr(self.most, name)
            total, mine = getattr(self.total, name), getattr(own, name)
            if total + asked <= most or (total < most and not own.choices):
                continue  # a big request gets in while there is any room, or it might never
            if mine + asked > most / active or total + asked > 2 * most:
                return reason
        return None

    def wait(self, caller: str, now: float) -> float | None:
        """Seconds until what a caller has here is served, as far as the rate is known.

        Callers are served alike: one with little here does not wait for all that others have.
        """
        self._pass_time(now)
        own = self.shares.get(caller, Load())
        active = len(self.shares)
        ahead = Load(
            min(self.total.choices, own.choices * active), min(self.total.tokens, own.tokens * active)
        )
        return self.rate.seconds(ahead)

    def enter(self, caller: str, choices: int, tokens: int, now: float) -> None:
        """Also with negative tokens, for one that is here already."""
        self._pass_time(now)
        self.total.add(choices, tokens)
        self.shares.setdefault(caller, Load()).add(choices, tokens)

    def leave(self, caller: str, choices: int, tokens: int, now: float, *, served: bool) -> None:
        self._pass_time(now)
        if served:
            self.rate.serve(choices, tokens)
        self.total.add(-choices, -tokens)
        share = self.shares[caller]
        share.add(-choices, -tokens)
        if not share.choices:
            del self.shares[caller]

    def _pass_time(self, now: float) -> None:
        if self.total.choices:
            self.rate.pass_time(now - self._now)
        self._now = now


class Place:
    """A request's place in a queue; `close` when the request has ended, however it has."""

    def __init__(
        self, admission: Admission, model: str, queue: Queue, caller: str, load: Load, *, attended: bool
    ) -> None:
        self.model = model
        self._admission = admission
        self._queue = queue
        self._caller = caller
        self._waiting = load  # of it, what the engine has not taken up
        self._choices = load.choices
        self._known: int | None = None  # tokens of its prompts, as far as they have been tokenised
        self._size = 0  # bytes of the request, until its tokens per byte have been learned
        self._attended = attended
        self._closed = False

    def tokenised(self, tokens: int, size: int) -> None:
        """A prompt of the request has so many tokens. `size`: bytes of the request."""
        self._known = (self._known or 0) + tokens
        if not self._closed and self._waiting.choices:
            self._queue.enter(self._caller, 0, self._known - self._waiting.tokens, self._admission.clock())
            self._admission.quotas.charge(self._caller, self._known - self._waiting.tokens)
            self._waiting.tokens = self._known
        self._size = size

    def started(self, choices: int) -> None:
        """So many more choices have been taken up by the engine. The prompts' tokens go with the first."""
        self._learn()
        if self._attended and (choices := min(choices, self._waiting.choices)):
            self._leave(choices, served=True)

    def close(self, generated: int = 0) -> None:
        """It generated so many tokens. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._known is None:  # it never came to a prompt: the estimate is given back
            self._admission.quotas.charge(self._caller, -self._waiting.tokens)
        self._learn()
        if self._waiting.choices:
            self._leave(self._waiting.choices, served=not self._attended)
        self._admission.quotas.charge(self._caller, generated)
        self._admission.closed(self._caller, self._choices, self._attended)

    def _learn(self) -> None:
        """Once, when all of its prompts are known."""
        if self._size and self._known is not None:
            self._admission.learn(self._known, self._size)
        self._size = 0

    def _leave(self, choices: int, *, served: bool) -> None:
        tokens = self._waiting.tokens
        self._queue.leave(self._caller, choices, tokens, self._admission.clock(), served=served)
        self._waiting.add(-choices, -tokens)


class Admission:
    """The queues of all models."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.quotas = Quotas(limits.key_requests, limits.key_tokens_per_minute, clock)
        self.refusals: Counter[tuple[str, str]] = Counter()  # by model and reason
        self.queues: dict[tuple[str, bool], Queue] = {}  # by model and whether somebody waits
        self._draw = draw
        self._tokens_per_byte = FIRST_TOKENS_PER_BYTE
        self._num_attended = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def expect(self, models: Iterable[str]) -> None:
        """Count their refusals from zero."""
        for model in models:
            for reason in (*_OVERLOADED, *_QUOTAS):
                self.refusals[model, reason] += 0

    def ask(
        self,
        model: str,
        caller: str,
        *,
        choices: int = 1,
        size: int = 0,
        attended: bool = True,
        patience: float | None = None,
    ) -> Place:
        """A place for a request of `size` bytes, which waits `patience` seconds at most. Raises 429."""
        now = self.clock()
        queue = self._queue(model, attended, now)
        load = Load(max(1, choices), math.ceil(size * self._tokens_per_byte))
        wait = queue.wait(caller, now)
        if (quota := self.quotas.refusal(caller, load.choices)) is not None:
            self.refusals[model, quota.reason] += 1
            raise _over_quota(quota.reason, self._clamped(quota.seconds or wait or 1.0))
        reason = queue.refusal(caller, load)
        if reason is None and patience is not None and wait is not None and wait > patience:
            reason = "wait"
        if reason is not None:
            self.refusals[model, reason] += 1
            # Not all at the same time, and not before much of what waits has been served.
            seconds = 1.0 if wait is None else wait * (0.5 + 0.5 * self._draw())
            raise overloaded(model, reason, self._clamped(seconds))
        queue.enter(caller, load.choices, load.tokens, now)
        self.quotas.begin(caller, load.choices, load.tokens)
        if attended:
            self._num_attended += 1
            self._quiet.clear()
        return Place(self, model, queue, caller, load, attended=attended)

    def retry_after(self, model: str, caller: str) -> float:
        """Seconds after which a request that has left the queue may come again."""
        queue = self._queue(model, True, self.clock())
        wait = queue.wait(caller, self.clock())
        return self._clamped(1.0 if wait is None else wait)

    def full(self, model: str) -> bool:
        """Requests that somebody waits for would be refused."""
        queue = self.queues.get((model, True))
        return queue is not None and queue.full

    @property
    def quiet(self) -> bool:
        """Nobody waits for a model's answer."""
        return self._quiet.is_set()

    async def until_quiet(self) -> None:
        await self._quiet.wait()

    def learn(self, tokens: int, size: int) -> None:
        """A request of `size` bytes turned out to have so many tokens."""
        self._tokens_per_byte = MEMORY * self._tokens_per_byte + (1 - MEMORY) * tokens / size

    def closed(self, caller: str, choices: int, attended: bool) -> None:
        self.quotas.end(caller, choices)
        if attended:
            self._num_attended -= 1
            if not self._num_attended:
                self._quiet.set()

    def _queue(self, model: str, attended: bool, now: float) -> Queue:
        if (queue := self.queues.get((model, attended))) is None:
            limits = self.limits
            most = (
                Load(limits.queued_requests, limits.queued_tokens)
                if attended
                else Load(limits.background_requests, limits.background_tokens)
            )
            queue = self.queues[model, attended] = Queue(most, now)
        return queue

    def _clamped(self, seconds: float) -> float:
        return min(max(seconds, LEAST_WAIT), LONGEST_WAIT)


def retry_headers(seconds: float) -> dict[str, str]:
    """In whole seconds for everybody, and in milliseconds for those who read that (OpenAI's clients)."""
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(1000 * seconds))}


_OVERLOADED = {
    "requests": "as many requests as may wait for {model} do",
    "tokens": "as many tokens as may wait for {model} do",
    "wait": "the queue of {model} is longer than this request would wait",
}
_QUOTAS = {
    "key_requests": "this key has as many requests in flight as it may have",
    "key_tokens": "this key has used its tokens per minute",
}


def overloaded(model: str, reason: str, seconds: float) -> ApiError:
    return ApiError(
        429,
        f"{_OVERLOADED[reason].format(model=model)}; try again in {seconds:.1f} s",
        kind="rate_limit_error",
        code="overloaded",
        headers=retry_headers(seconds),
    )


def queue_full() -> ApiError:
    return ApiError(
        503,
        "as many requests wait as may",
        kind="server_error",
        code="queue_full",
        headers=retry_headers(1.0),
    )


def _over_quota(reason: str, seconds: float) -> ApiError:
    return ApiError(
        429,
        f"{_QUOTAS[reason]}; try again in {seconds:.1f} s",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers=retry_headers(seconds),
    )
