"""Where an output is in its thinking, told from the bytes of its tokens.

A marker may be one token or many, and a token may end behind it. Follows the rules by which `tenon.parse`
reads the same text: thinking opens where content begins, and white space that touches a marker belongs to it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from tenon.core.structured import Thinking


class Phase(Enum):
    START = "start"  # nothing but white space yet, or the beginning of an opening marker
    INSIDE = "inside"
    CONTENT = "content"


class Place(NamedTuple):
    """A point in an output. Never changed: each token makes a new one."""

    phase: Phase
    pair: int = -1  # inside which
    tail: bytes = b""  # of the text, as far as a marker may have begun in it
    num_tokens: int = 0  # inside, all in all, markers aside
    sizes: tuple[
        int, ...
    ] = ()  # inside: bytes of the last tokens, as far back as the closing marker may begin


class Tracker:
    """The rules of one output format. Holds no state."""

    def __init__(self, thinking: Thinking) -> None:
        self.thinking = thinking
        self.pairs = [(opener.encode(), closer.encode()) for opener, closer in thinking.pairs]
        self.ended_by = [marker.encode() for marker in thinking.ended_by]
        # The longest first: `<|channel>thought` before `<|channel>`.
        self._order = sorted(range(len(self.pairs)), key=lambda i: -len(self.pairs[i][0]))

    def begin(self) -> Place:
        if self.thinking.inside >= 0:
            return Place(Phase.INSIDE, self.thinking.inside)
        return Place(Phase.START if self.thinking.may_open else Phase.CONTENT)

    def after(self, place: Place, data: bytes) -> Place:
        """The place behind a token with these bytes."""
        if place.phase is Phase.INSIDE:
            counted = place._replace(num_tokens=place.num_tokens + 1, sizes=(*place.sizes, len(data)))
            return self._inside(counted, data)
        return self._outside(place, place.tail + data)

    def closer(self, place: Place) -> bytes:
        return self.pairs[place.pair][1]

    def missing(self, place: Place, marker: bytes) -> list[bytes]:
        """What is missing of a marker: all of it, and the rest of each beginning that is there."""
        sizes = (size for size in range(1, len(marker)) if place.tail.endswith(marker[:size]))
        return [marker, *(marker[size:] for size in sizes)]

    def openings(self, place: Place) -> list[bytes]:
        """What may follow at the start to open the thinking."""
        begun = place.tail.lstrip()
        return [
            opener[len(begun) :] for opener, _ in self.pairs if opener.startswith(begun) and opener != begun
        ]

    def _inside(self, place: Place, data: bytes) -> Place:
        text = place.tail + data
        closer = self.closer(place)
        ends = [(at, len(closer)) for at in [text.find(closer)] if at >= 0]
        ends += [(at, 0) for marker in self.ended_by if (at := text.find(marker)) >= 0]
        if not ends:
            keep = max(map(len, (closer, *self.ended_by))) - 1
            return place._replace(tail=text[-keep:] if keep else b"", sizes=place.sizes[-keep - 1 :])
        at, size = min(ends)
        behind = Place(Phase.START, num_tokens=place.num_tokens - _tokens_from(at, len(text), place.sizes))
        return self._outside(behind, text[at + size :]) if size else behind._replace(phase=Phase.CONTENT)

    def _outside(self, place: Place, text: bytes) -> Place:
        if place.phase is Phase.START:
            body = text.lstrip()
            if opened := self._opened(place, body, 0):
                return opened
            if any(opener.startswith(body) for opener, _ in self.pairs):
                return place._replace(tail=body)
        if self.thinking.anywhere:
            found = sorted(
                (at, i) for i, (opener, _) in enumerate(self.pairs) if (at := text.find(opener)) >= 0
            )
            if found and (opened := self._opened(place, text, found[0][0])):
                return opened
            keep = max(len(opener) for opener, _ in self.pairs) - 1
            return Place(Phase.CONTENT, tail=text[-keep:], num_tokens=place.num_tokens)
        return Place(Phase.CONTENT, num_tokens=place.num_tokens)

    def _opened(self, place: Place, text: bytes, at: int) -> Place | None:
        """Inside, if an opening marker stands there."""
        for i in self._order:
            opener = self.pairs[i][0]
            if text.startswith(opener, at):
                return self._inside(Place(Phase.INSIDE, i, b"", place.num_tokens), text[at + len(opener) :])
        return None


def _tokens_from(at: int, end: int, sizes: tuple[int, ...]) -> int:
    """How many of the last tokens of a text that ends at `end` begin at `at` or later."""
    count = 0
    for size in reversed(sizes):
        end -= size
        if end < at:
            break
        count += 1
    return count


def cut_character(data: bytes) -> bool:
    """Whether the last character of UTF-8 text is not complete."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False
