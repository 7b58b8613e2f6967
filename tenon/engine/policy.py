"""In which order requests run: the queues of the scheduler are sorted by the policy's rank.

Under every policy, requests that nobody waits for (`background`: lines of a batch) come behind all others.
Those of one level (background or not, and under the priority policy the same priority) share the engine
fairly by who sent them: see `FairQueue`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from heapq import merge

from tenon.core.request import Request

Rank = tuple[bool, int, int]


def fcfs(request: Request) -> Rank:
    """First come, first served."""
    return (request.background, 0, request.seq)


def priority(request: Request) -> Rank:
    """Lower priority value first, then first come."""
    return (request.background, request.priority, request.seq)


POLICIES: dict[str, Callable[[Request], Rank]] = {"fcfs": fcfs, "priority": priority}

OUTPUT_COST = 2  # a generated token counts as so many tokens of a prompt
MAX_LEVELS = 64  # so many are remembered when nobody waits at them


class Queue:
    """Requests in order of rank. Ranks are unique, so a request is found by bisection."""

    def __init__(self, rank: Callable[[Request], Rank]) -> None:
        self._rank = rank
        self.in_order: list[Request] = []  # to be read; it changes with the queue

    def __len__(self) -> int:
        return len(self.in_order)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.in_order)

    def __getitem__(self, index: int) -> Request:
        return self.in_order[index]

    def add(self, request: Request) -> None:
        insort(self.in_order, request, key=self._rank)

    def remove(self, request: Request) -> None:
        """Raises ValueError if it is not here."""
        index = bisect_left(self.in_order, self._rank(request), key=self._rank)
        if index == len(self.in_order) or self.in_order[index] is not request:
            raise ValueError(f"{request} is not in this queue")
        del self.in_order[index]


class FairQueue:
    """Waiting requests. The best level comes first; at one level the share that has been served least, and
    of one share the first in rank. With one share that is the order of rank.

    Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each share
    has a count of the tokens computed for it, generated ones at `OUTPUT_COST`. A share that comes back to the
    queue is lifted to the least count there, so that nobody saves up service by staying away.
    """

    def __init__(self, rank: Callable[[Request], Rank]) -> None:
        self._rank = rank
        self._levels: dict[tuple[bool, int], _Level] = {}
        self._size = 0
        self._sharing = False  # several shares have been at one level

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Request]:
        """In order of rank."""
        return merge(
            *(queue for level in self._levels.values() for queue in level.queues.values()), key=self._rank
        )

    @property
    def first(self) -> Request:
        """Who is next. It stays so until it has left: a big request in front is not overtaken."""
        level = min(key for key, level in self._levels.items() if level.queues)
        return self._levels[level].first

    def add(self, request: Request) -> None:
        key = self._rank(request)[:2]
        if (level := self._levels.get(key)) is None:
            self._tidy()
            level = self._levels[key] = _Level(self._rank)
        level.add(request)
        self._size += 1
        self._sharing = self._sharing or len(level.served) > 1

    def remove(self, request: Request) -> None:
        """Raises ValueError if it is not here."""
        level = self._levels.get(self._rank(request)[:2])
        if level is None:
            raise ValueError(f"{request} is not in this queue")
        level.remove(request)
        self._size -= 1

    def charge(self, request: Request, end: int) -> None:
        """The tokens of a request are computed up to `end`. What is computed once more costs nothing."""
        if not self._sharing:
            return  # there is nobody to be compared with
        start = max(request.num_computed, request.charged)
        request.charged = max(request.charged, end)
        level = self._levels.get(self._rank(request)[:2])
        if level is not None and end > start:
            prompt = max(0, min(end, request.num_prompt) - start)
            generated = max(0, end - max(start, request.num_prompt - 1))  # its last token begets the first
            level.served[request.share] += prompt + OUTPUT_COST * generated

    def forget(self) -> None:
        """There are no requests: who comes now begins anew."""
        self._levels.clear()
        self._sharing = False

    def _tidy(self) -> None:
        if len(self._levels) >= MAX_LEVELS:
            self._levels = {key: level for key, level in self._levels.items() if level.queues}


class _Level:
    """Requests among which only fairness decides."""

    def __init__(self, rank: Callable[[Request], Rank]) -> None:
        self._rank = rank
        self.queues: dict[str, Queue] = {}  # of the shares that have requests here
        self.served: Counter[str] = Counter()  # tokens computed for each share
        self._last = 0  # count of the share that left the queue last
        self._turn: str | None = None  # the share that is next, until it has been

    @property
    def first(self) -> Request:
        if self._turn is None:
            self._turn = min(self.queues, key=lambda share: (self.served[share], self.queues[share][0].seq))
        return self.queues[self._turn][0]

    def add(self, request: Request) -> None:
        share = request.share
        if (queue := self.queues.get(share)) is None:
            least = min((self.served[other] for other in self.queues), default=self._last)
            self.served[share] = max(self.served[share], least)
            queue = self.queues[share] = Queue(self._rank)
        queue.add(request)

    def remove(self, request: Request) -> None:
        share = request.share
        if (queue := self.queues.get(share)) is None:
            raise ValueError(f"{request} is not in this queue")
        queue.remove(request)
        if self._turn == share:
            self._turn = None
        if not queue:
            del self.queues[share]
            self._last = self.served[share]
