"""What a parser says: deltas of reasoning, content and tool calls, in the order of the output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ContentDelta:
    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins. `index` counts the calls of one output from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the JSON text of the arguments of call `index`."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class End:
    """The output is over; nothing follows."""


Event = ReasoningDelta | ContentDelta | CallStart | CallDelta | End


@dataclass(slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str = ""  # JSON text; cut off where the output was


@dataclass(slots=True)
class Parsed:
    """A whole output, taken apart."""

    reasoning: str = ""
    content: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)


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
