"""From deltas of text to deltas of a chat message, for each choice of an answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from tenon.parse.events import CallDelta, CallStart, ContentDelta, Event, ReasoningDelta
from tenon.parse.machine import Parser
from tenon.server.schema.chat import CallChunk, Delta, FunctionChunk
from tenon.server.stream import Delta as TokenDelta


class _Choice(msgspec.Struct):
    parser: Parser
    called: bool = False
    ended: bool = False


class Choices:
    """The choices of one answer. `alias`: reasoning goes out as `reasoning_content` too."""

    def __init__(self, parser: Callable[[], Parser], alias: bool) -> None:
        self._parser = parser
        self._alias = alias
        self._choices: dict[int, _Choice] = {}

    def read(self, delta: TokenDelta) -> tuple[list[Delta], str | None]:
        """What a delta of tokens says, and why the choice has ended, if it has."""
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = _Choice(self._parser())
        if choice.ended:  # tokens behind the one that ended it: they have no text
            return [], None
        events = choice.parser.push(delta.text)
        choice.ended = delta.finish_reason is not None
        if delta.finish_reason:
            events += choice.parser.finish()
        choice.called = choice.called or any(isinstance(event, CallStart) for event in events)
        reason = "tool_calls" if choice.called and delta.finish_reason == "stop" else delta.finish_reason
        return [wire for event in events if (wire := self._wire(event))], reason

    def _wire(self, event: Event) -> Delta | None:
        match event:
            case ContentDelta(text):
                return Delta(content=text)
            case ReasoningDelta(text):
                return Delta(reasoning=text, reasoning_content=text if self._alias else UNSET)
            case CallStart(index, call_id, name):
                function = FunctionChunk(name=name, arguments="")
                return Delta(
                    tool_calls=[CallChunk(index=index, id=call_id, type="function", function=function)]
                )
            case CallDelta(index, text):
                return Delta(tool_calls=[CallChunk(index=index, function=FunctionChunk(arguments=text))])
        return None
