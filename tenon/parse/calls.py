"""What decoders of tool calls write to, and what they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Protocol

from tenon.parse.source import Malformed, Source
from tenon.parse.values import Tools

Decode = Generator[None, None, None]

MAX_NAME = 256  # characters of a name, so that what is not a call is found out soon
MAX_DEPTH = 64  # of values inside values

NAME = re.compile(r"[^\s<>{}\[\]()\"'`,;=|]+")


class Sink(Protocol):
    """Where calls go. A call is committed by `begin`: before it, its text can still become content."""

    src: Source
    tools: Tools

    def begin(self, name: str, call_id: str | None = None) -> None:
        """The call is real. Raises Malformed where it cannot be."""

    def write(self, fragment: str) -> None:
        """More of the arguments' JSON text."""

    def done(self) -> None:
        """The arguments are complete; what follows is markup until the next `begin`."""


def read_name(sink: Sink) -> Generator[None, None, str]:
    """A tool's name. Raises Malformed if there is none."""
    name = yield from sink.src.run(NAME, MAX_NAME)
    if not name:
        raise Malformed
    return name


class Held:
    """Mark the source unless it is marked, so that a token that turns out wrong is not lost."""

    def __init__(self, src: Source) -> None:
        self._src = src
        self._own = not src.marked

    def __enter__(self) -> None:
        if self._own:
            self._src.mark()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._own and kind is None:
            self._src.release()


Emit = Callable[[str], None]
