"""The events of an answer as blocks, for protocols whose answers are lists of items.

A block is a run of reasoning, a run of content, or one tool call. It opens, grows and closes, and only then
the next one opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from tenon.parse.events import CallDelta, CallStart, ContentDelta, End, Event, ReasoningDelta

Kind = Literal["reasoning", "content", "call"]


@dataclass(slots=True)
class Block:
    """`call_id` and `name` are those of a call; its text is the JSON text of its arguments."""

    index: int
    kind: Kind
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Opened:
    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    block: Block
    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    block: Block


class Blocks:
    """Of one choice."""

    def __init__(self) -> None:
        self._count = 0
        self._block: Block | None = None

    def read(self, events: Iterable[Event]) -> Iterator[Opened | Grown | Closed]:
        """What further events do to the blocks."""
        for event in events:
            match event:
                case ReasoningDelta(text):
                    yield from self._grow("reasoning", text)
                case ContentDelta(text):
                    yield from self._grow("content", text)
                case CallStart(_, call_id, name):
                    yield from self._open("call", call_id, name)
                case CallDelta(_, text):
                    yield from self._grow("call", text)
                case End():
                    yield from self._close()

    def _grow(self, kind: Kind, text: str) -> Iterator[Opened | Grown | Closed]:
        if self._block is None or self._block.kind != kind:
            yield from self._open(kind)
        assert self._block is not None
        self._block.pieces.append(text)
        yield Grown(self._block, text)

    def _open(self, kind: Kind, call_id: str = "", name: str = "") -> Iterator[Opened | Closed]:
        yield from self._close()
        self._block = Block(self._count, kind, call_id, name)
        self._count += 1
        yield Opened(self._block)

    def _close(self) -> Iterator[Closed]:
        if self._block is not None:
            yield Closed(self._block)
            self._block = None
