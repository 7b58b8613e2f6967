"""Responses that are kept, so that they can be fetched, continued and, in the background, followed.

In memory only, and bounded: by count and by bytes, over all callers; the least recently used ones go first. A
caller sees only its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tenon.server.errors import ApiError
from tenon.server.schema.responses import Event, Response

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True, eq=False)
class Kept:
    """A response, the items it answers, and, if it runs in the background, its events so far.

    Items are shared with the other responses of a conversation, but each counts them all: a bound, not a
    measure.
    """

    response: Response
    items: list[dict[str, Any]]
    log: list[Event] = field(default_factory=list)
    task: asyncio.Task[None] | None = None  # while it runs in the background
    _log_size: int = 0
    _size: int = -1  # once it has ended
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def size(self) -> int:
        """In bytes, as JSON."""
        if self._size >= 0:
            return self._size
        size = len(_encode(self.items)) + len(_encode(self.response)) + self._log_size
        if self.response.status not in ("queued", "in_progress"):
            self._size = size
        return size

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """What a response that continues this one begins with."""
        return [*self.items, *msgspec.to_builtins(self.response.output)]

    def write(self, event: Event) -> None:
        self.log.append(event)
        self._log_size += len(_encode(event))
        self.wake()

    def wake(self) -> None:
        """Let followers look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self, after: int) -> AsyncGenerator[Event, None]:
        """The events with a number above `after`, those to come included."""
        position = max(after, -1) + 1
        while True:
            while position < len(self.log):
                yield self.log[position]
                position += 1
            if self.task is None:
                return
            await self._news.wait()


class Store:
    """By caller and id."""

    def __init__(self, max_count: int, max_bytes: int, max_running: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_running = max_running  # of one caller; all of them are bounded by tenon.server.admission
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, caller: str, kept: Kept) -> None:
        """Keep it, at the cost of the least recently used ones. Raises 429 for one in the background if too
        many of this caller's are being written."""
        running = sum(other.task is not None for (owner, _), other in self._kept.items() if owner == caller)
        if kept.response.background and running >= self._max_running:
            raise ApiError(
                429,
                f"{running} responses are being written in the background for this key; wait for one to end",
                kind="rate_limit_error",
                code="too_many_responses",
                headers={"retry-after": "1"},
            )
        self._kept[caller, kept.response.id] = kept
        self.trim()

    def trim(self) -> None:
        """Keep within the limits. What is being written stays, and so does the last one."""
        sizes = {key: kept.size for key, kept in self._kept.items()}
        total = sum(sizes.values())
        for key in list(self._kept)[:-1]:
            if len(self._kept) <= self._max_count and total <= self._max_bytes:
                return
            if self._kept[key].task is None:
                del self._kept[key]
                total -= sizes[key]

    def get(self, caller: str, response_id: str, param: str = "response_id") -> Kept:
        """Raises 404."""
        kept = self._kept.get((caller, response_id))
        if kept is None:
            raise ApiError(
                404,
                f"{param}: there is no response {response_id[:80]!r} here; responses are kept in memory, the "
                "least recently used ones go first",
                param=param,
                code="response_not_found",
            )
        self._kept.move_to_end((caller, response_id))
        return kept

    def remove(self, caller: str, response_id: str) -> Kept:
        """Raises 404."""
        kept = self.get(caller, response_id)
        del self._kept[caller, response_id]
        return kept
