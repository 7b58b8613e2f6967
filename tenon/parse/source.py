"""The text still to be read, and how decoders read it although it arrives in pieces.

A decoder is a generator: it yields when it needs text that has not arrived yet, and never sees where one
piece ends and the next begins. That is why every way of cutting an output gives the same result.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Generator, Iterable

Read = Generator[None, None, str]

SPACES = re.compile(r"\s+")


class Malformed(Exception):
    """What follows is not what the format says. Raised inside the package only."""


class Markers:
    """A set of literals to look for in a stream: the leftmost one wins, then the longest."""

    def __init__(self, literals: Iterable[str]) -> None:
        self.literals = sorted({literal for literal in literals if literal}, key=lambda m: (-len(m), m))
        self._pattern = re.compile("|".join(map(re.escape, self.literals)) or r"(?!)")
        self._prefixes = {m[:length] for m in self.literals for length in range(1, len(m))}
        self._longest = max(map(len, self.literals), default=0)

    def search(self, text: str, start: int, final: bool) -> tuple[int, str]:
        """(end of the text that holds no marker, the marker that stands there or "").

        Without a marker, what follows that end may be the beginning of one; `final` says no more text comes.
        """
        match = self._pattern.search(text, start)
        if final:
            return (match.start(), match.group()) if match else (len(text), "")
        safe = self._partial(text, start)
        return (match.start(), match.group()) if match and match.start() < safe else (safe, "")

    def _partial(self, text: str, start: int) -> int:
        """Where the longest end of `text` begins that is the beginning of a marker; len(text) if none is."""
        for position in range(max(start, len(text) - self._longest + 1), len(text)):
            if text[position:] in self._prefixes:
                return position
        return len(text)

    def at(self, text: str, start: int, final: bool) -> str | None:
        """The marker that stands at `start`, "" if none does, None if more text has to tell."""
        rest = text[start : start + self._longest]
        if not final and (not rest or rest in self._prefixes) and self.literals:
            return None
        match = self._pattern.match(text, start)
        return match.group() if match else ""


@functools.lru_cache(maxsize=1024)
def markers(literals: frozenset[str]) -> Markers:
    """Compiled once per set."""
    return Markers(literals)


class Source:
    """Unread text, with one mark to return to.

    `text[pos:]` is unread. What has been read since the mark is kept until it is released or recovered.
    `steps` counts characters looked at, for the proof that reading is linear.
    """

    __slots__ = ("_kept", "_mark", "final", "pos", "steps", "text")

    def __init__(self) -> None:
        self.text = ""
        self.pos = 0
        self.final = False
        self.steps = 0
        self._kept: list[str] = []
        self._mark: int | None = None

    def feed(self, delta: str) -> None:
        """More text. Everything already read is let go, unless it is marked."""
        if self._mark is not None:
            self._kept.append(self.text[self._mark : self.pos])
            self._mark = 0
        self.text = self.text[self.pos :] + delta
        self.pos = 0
        self.steps += len(self.text)

    def mark(self) -> None:
        """Keep what is read from here on."""
        self._kept, self._mark = [], self.pos

    def release(self) -> None:
        """What was read since the mark has been understood."""
        self._kept, self._mark = [], None

    @property
    def marked(self) -> bool:
        return self._mark is not None

    @property
    def marked_size(self) -> int:
        """Characters read since the mark, 0 without one."""
        return 0 if self._mark is None else sum(map(len, self._kept)) + self.pos - self._mark

    def rewind(self) -> None:
        """Back to the mark, if there is one; it is released. Costs what was read since, no more."""
        if self._mark is not None:
            if self._kept:
                self.text = "".join(self._kept) + self.text[self._mark :]
                self._mark = 0
                self.steps += len(self.text)
            self.pos = self._mark
        self.release()

    def take(self, count: int) -> str:
        """Read `count` characters that have arrived."""
        self.skip(count)
        return self.text[self.pos - count : self.pos]

    def skip(self, count: int) -> None:
        self.pos += count
        self.steps += count

    def peek(self) -> Read:
        """The next character, "" at the end of the output."""
        while self.pos >= len(self.text):
            if self.final:
                return ""
            yield
        return self.text[self.pos]

    def ahead(self, count: int) -> Read:
        """The next `count` characters, fewer at the end of the output; they stay unread."""
        while len(self.text) - self.pos < count and not self.final:
            yield
        return self.text[self.pos : self.pos + count]

    def spaces(self) -> Read:
        """Read white space."""
        return (yield from self.run(SPACES))

    def one_of(self, live: Markers) -> Read:
        """The marker that comes next, which stays unread; "" if none does."""
        while (found := live.at(self.text, self.pos, self.final)) is None:
            yield
        self.steps += 1
        return found

    def until(self, live: Markers, emit: Callable[[str], None]) -> Read:
        """Give text out as it comes, up to a marker, which stays unread; "" at the end of the output."""
        while True:
            end, found = live.search(self.text, self.pos, self.final)
            if end > self.pos:
                emit(self.take(end - self.pos))
            elif found or self.final:
                return found
            else:
                yield

    def accept(self, literal: str) -> Generator[None, None, bool]:
        """Read `literal` if it comes next. What the end of the output cuts off counts as read."""
        got = yield from self.ahead(len(literal))
        if literal.startswith(got) and (got or not literal):
            self.skip(len(got))
            return True
        return False

    def expect(self, literal: str) -> Generator[None, None, None]:
        """Read `literal`. Raises Malformed, with nothing read, if something else comes next."""
        if literal and not (yield from self.accept(literal)):
            raise Malformed

    def run(self, pattern: re.Pattern[str], limit: int = sys.maxsize) -> Read:
        """Read characters that `pattern` (a class, repeated) matches. Raises Malformed beyond `limit`."""
        parts: list[str] = []
        while (yield from self.peek()) and (match := pattern.match(self.text, self.pos)):
            part = match.group()[: limit + 1]
            self.skip(len(part))
            parts.append(part)
            limit -= len(part)
            if limit < 0:
                raise Malformed
        return "".join(parts)
