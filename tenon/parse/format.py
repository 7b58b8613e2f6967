"""Tables that describe an output format; `machine` reads output by them.

Every string in a table is a marker: literal text that the model writes around what it means. White space that
touches a marker belongs to the marker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec


class Reasoning(msgspec.Struct, frozen=True):
    """Markers around what the model thinks before it answers."""

    open: str
    close: str
    anywhere: bool = False  # may open in the middle of the content, not only where content begins
    ended_by_calls: bool = False  # the marker of a tool call closes it too
    opened_by: tuple[str, ...] = ()  # further ends of a prompt that leave the model thinking


class Answer(msgspec.Struct, frozen=True):
    """Markers around the content itself; they are dropped."""

    open: str
    close: str


class JsonCall(msgspec.Struct, frozen=True):
    """`{"name": "f", "arguments": {...}}`"""

    first = "{"
    names: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")


class JsonList(msgspec.Struct, frozen=True):
    """`[{"name": "f", "arguments": {...}}, ...]`"""

    first = "["
    call: JsonCall = JsonCall()


def plain_name(header: str) -> tuple[str, str | None]:
    """Name and id of a call whose header is its name."""
    return header, None


class NamedJson(msgspec.Struct, frozen=True):
    """A name, a separator, and the arguments as one JSON object: `f<sep>{...}`"""

    first = ""
    head: str = ""  # before the name
    separators: tuple[str, ...] = ("",)  # one of them follows the name; "" if none has to
    id_open: str = ""  # between name and separator: the call's id
    tail: str = ""  # after the arguments
    split: Callable[[str], tuple[str, str | None]] = plain_name  # header -> name, id
    header: str = "{name}"  # how such a header is written; {number} is any number


class XmlCall(msgspec.Struct, frozen=True):
    """`<function=f><parameter=key>value</parameter></function>` and its relatives.

    `parameter_named` maps what ends a parameter's name to how its value is written: "text", "json", or ""
    where the tool's schema has to say.
    """

    first = ""
    open: str
    named: str  # ends the function's name
    close: str
    parameter_open: str
    parameter_named: Mapping[str, str]
    parameter_close: str
    lines: bool = False  # one line break on each side of a value is not part of it


class TagCall(msgspec.Struct, frozen=True):
    """`f <key>a</key> <value>1</value> ...`, up to the marker that closes the call."""

    first = ""
    key_open: str
    key_close: str
    value_open: str
    value_close: str


class Pythonic(msgspec.Struct, frozen=True):
    """`[f(a=1), g(b="x")]`; without brackets, one call after the other."""

    first = ""
    brackets: bool = True
    open: str = ""  # before the calls
    close: str = ""  # after the calls


class BraceCall(msgspec.Struct, frozen=True):
    """`call:f{key:value}` with bare keys and strings between `quote`s."""

    first = ""
    open: str
    quote: str


Body = JsonCall | JsonList | NamedJson | XmlCall | TagCall | Pythonic | BraceCall


class Calls(msgspec.Struct, frozen=True):
    """Where tool calls stand, and how one is written.

    A section holds any number of calls; a call may also stand outside of one. `opens` stand before a call and
    are not part of its body, `starts` are its body's own first marker, `inner` are those that count in a
    section only, and `bare` is how a body begins that has no marker: it counts where content begins, and only
    if the tool is known.
    """

    body: tuple[Body, ...]
    opens: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    close: str = ""
    section: tuple[str, str] | None = None
    separator: str = ""  # between calls outside of a section

    def markers(self) -> tuple[str, ...]:
        """Everything that can begin calls in the middle of content."""
        return (*((self.section[0],) if self.section else ()), *self.opens, *self.starts)


class Channels(msgspec.Struct, frozen=True):
    """Messages with a header that names their channel and recipient, as in harmony."""

    start: str
    channel: str
    message: str
    ends: tuple[str, ...]
    constrain: str
    reasoning: tuple[str, ...]  # names of channels
    content: tuple[str, ...]
    role: str  # of the model's own messages
    recipient: str  # what the name of a tool comes after
    kinds: tuple[str, ...]  # what a message may be constrained to


class Template(msgspec.Struct, frozen=True):
    """What a chat template holds whose model writes this format. Of those that fit, the highest rank wins."""

    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    rank: int = 0

    def fits(self, source: str) -> bool:
        return all(text in source for text in self.has) and not any(text in source for text in self.lacks)


class Format(msgspec.Struct, frozen=True):
    """One output format."""

    reasoning: tuple[Reasoning, ...] = ()
    thinks_first: bool = (
        False  # output begins inside the first kind of reasoning when the prompt does not tell
    )
    answer: Answer | None = None
    calls: tuple[Calls, ...] = ()
    channels: Channels | None = None
    stops: tuple[str, ...] = ()  # tokens that end an output; dropped there
    trim: bool = True  # white space that touches a marker is dropped
    new_id: Callable[[], str] | None = None  # ids of calls, where clients expect a special form
    templates: tuple[Template, ...] = ()

    def special(self) -> frozenset[str]:
        """Every marker: what a detokenizer must not drop even where it is a special token."""
        pairs = [text for pair in self.reasoning for text in (pair.open, pair.close)]
        answer = [self.answer.open, self.answer.close] if self.answer else []
        return frozenset(
            pairs + answer + [text for calls in self.calls for text in _texts(calls)]
        ) | frozenset(_texts(self.channels) if self.channels else ())


def _texts(table: Any) -> list[str]:
    """Every string of a table, at any depth."""
    if isinstance(table, str):
        return [table] if table else []
    if isinstance(table, Mapping):
        return [text for key in table for text in _texts(key)]
    if isinstance(table, Sequence):
        return [text for item in table for text in _texts(item)]
    if hasattr(table, "__struct_fields__"):
        return [text for name in table.__struct_fields__ for text in _texts(getattr(table, name))]
    return []


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "hourly": {"type": "boolean"},
                "limits": {"type": "object"},
                "tags": {"type": "array"},
                "note": {"type": ["string", "null"]},
            },
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object"}},
}


class Case(msgspec.Struct, frozen=True):
    """What an output must become. `calls`: (name, arguments as an object, or as text if they are cut off)."""

    name: str
    text: str
    reasoning: str = ""
    content: str = ""
    calls: Sequence[tuple[str, Any]] = ()
    prompt: str = ""  # how the prompt ends
    tools: Sequence[Mapping[str, Any]] | None = (WEATHER, CLOCK)
