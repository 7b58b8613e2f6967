"""What a parser says: deltas of reasoning, content and tool calls, in the order of the output."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class ReasoningDelta(msgspec.Struct, frozen=True):
    text: str


class ContentDelta(msgspec.Struct, frozen=True):
    text: str


class CallStart(msgspec.Struct, frozen=True):
    """A tool call begins. `index` counts the calls of one output from 0."""

    index: int
    id: str
    name: str


class CallDelta(msgspec.Struct, frozen=True):
    """More of the JSON text of the arguments of call `index`."""

    index: int
    arguments: str


class End(msgspec.Struct, frozen=True):
    """The output is over; nothing follows."""


Event = ReasoningDelta | ContentDelta | CallStart | CallDelta | End


class ToolCall(msgspec.Struct):
    id: str
    name: str
    arguments: str = ""  # JSON text; cut off where the output was


class Parsed(msgspec.Struct):
    """A whole output, taken apart."""

    reasoning: str = ""
    content: str = ""
    tool_calls: list[ToolCall] = []


def fold(events: Iterable[Event]) -> Parsed:
    """The whole that a stream spells."""
    parts: dict[type, list[str]] = {ReasoningDelta: [], ContentDelta: []}
    calls: list[ToolCall] = []
    arguments: list[list[str]] = []
    for event in events:
        if isinstance(event, ReasoningDelta | ContentDelta):
            parts[type(event)].append(event.text)
        elif isinstance(event, CallStart):
            calls.append(ToolCall(event.id, event.name))
            arguments.append([])
        elif isinstance(event, CallDelta):
            arguments[event.index].append(event.arguments)
    for call, fragments in zip(calls, arguments, strict=True):
        call.arguments = "".join(fragments)
    return Parsed("".join(parts[ReasoningDelta]), "".join(parts[ContentDelta]), calls)
