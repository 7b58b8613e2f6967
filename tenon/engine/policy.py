"""In which order requests run: the queues of the scheduler are sorted by the policy's rank.

Under every policy, requests that nobody waits for (`background`: lines of a batch) come behind all others.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from tenon.core.request import Request

Rank = tuple[bool, int, int]


def fcfs(request: Request) -> Rank:
    """First come, first served."""
    return (request.background, 0, request.seq)


def priority(request: Request) -> Rank:
    """Lower priority value first, then first come."""
    return (request.background, request.priority, request.seq)


POLICIES: dict[str, Callable[[Request], Rank]] = {"fcfs": fcfs, "priority": priority}


class Queue:
    """Requests in order of rank. Ranks are unique, so a request is found by bisection."""

    def __init__(self, rank: Callable[[Request], Rank]) -> None:
        self._rank = rank
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __getitem__(self, index: int) -> Request:
        return self._requests[index]

    def add(self, request: Request) -> None:
        insort(self._requests, request, key=self._rank)

    def remove(self, request: Request) -> None:
        """Raises ValueError if it is not here."""
        index = bisect_left(self._requests, self._rank(request), key=self._rank)
        if index == len(self._requests) or self._requests[index] is not request:
            raise ValueError(f"{request} is not in this queue")
        del self._requests[index]
