"""Calls whose parameters stand between tags, their values as bare text."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator

from tenon.parse.calls import MAX_NAME, Decode, Sink, read_name
from tenon.parse.format import TagCall, XmlCall
from tenon.parse.source import Malformed, Source, markers
from tenon.parse.values import encode, escape, is_text, quote

_TEXT = frozenset({"string"})
_KEY = re.compile(r"[^<>\"\n]+")


class _Object:
    """Writes members of a JSON object one by one."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._glue = "{"

    def key(self, name: str) -> None:
        """The member is real: its value follows."""
        self._sink.src.release()
        self._sink.write(f"{self._glue}{quote(name)}: ")
        self._glue = ", "

    def close(self) -> None:
        self._sink.write("{}" if self._glue == "{" else "}")
        self._sink.done()


Member = Callable[[_Object], Decode]


def xml_call(sink: Sink, table: XmlCall) -> Decode:
    """`<function=f><parameter=key>value</parameter></function>`"""
    src = sink.src
    yield from src.expect(table.open)
    name = yield from read_name(sink)
    yield from src.expect(table.named)

    def member(members: _Object) -> Decode:
        key = yield from _key(src)
        written = yield from _named(src, table)
        types = {"text": _TEXT, "json": frozenset[str]()}.get(written, sink.tools.types(name, key))
        members.key(key)
        yield from _value(sink, types, table.parameter_close, table.lines)

    members = yield from _members(sink, name, table.parameter_open, table.close, member)
    yield from src.expect(table.close)
    members.close()


def tag_call(sink: Sink, table: TagCall, close: str) -> Decode:
    """`f <key>a</key> <value>1</value>`, up to the close, which stays unread."""
    src = sink.src
    name = yield from read_name(sink)

    def member(members: _Object) -> Decode:
        key = yield from _key(src)
        yield from src.expect(table.key_close)
        yield from src.spaces()
        yield from src.expect(table.value_open)
        members.key(key)
        yield from _value(sink, sink.tools.types(name, key), table.value_close, lines=False)

    members = yield from _members(sink, name, table.key_open, close, member)
    members.close()


def _members(
    sink: Sink, name: str, opener: str, close: str, member: Member
) -> Generator[None, None, _Object]:
    """Begin the call and read its members, up to the close, which stays unread."""
    src = sink.src
    inner = markers(frozenset({opener, close}))
    members: _Object | None = None
    while True:
        yield from src.spaces()
        found = yield from src.one_of(inner)
        if not found:
            raise Malformed
        if members is None:
            sink.begin(name)
            members = _Object(sink)
        if found == close:
            return members
        src.mark()
        src.skip(len(found))
        yield from member(members)


def _key(src: Source) -> Generator[None, None, str]:
    if not (key := (yield from src.run(_KEY, MAX_NAME)).strip()):
        raise Malformed
    return key


def _named(src: Source, table: XmlCall) -> Generator[None, None, str]:
    """Read what ends a parameter's name. Returns how the value is written."""
    found = yield from src.one_of(markers(frozenset(table.parameter_named)))
    if not found:
        raise Malformed
    src.skip(len(found))
    return table.parameter_named[found]


def _value(sink: Sink, types: frozenset[str], close: str, lines: bool) -> Decode:
    """Read a value and its closing tag; a string streams, anything else waits for its end."""
    parts: list[str] | None = None if is_text(types) else []
    if parts is None:
        sink.write('"')
    trimmed = _Lines(lines)

    def emit(text: str) -> None:
        if parts is None:
            sink.write(escape(trimmed.feed(text)))
        else:
            parts.append(trimmed.feed(text))

    found = yield from sink.src.until(markers(frozenset({close})), emit)
    if not found:  # cut off: a string has gone out; of another value goes out what there is
        if parts is not None:
            sink.write(_cut_off("".join(parts), types))
        raise Malformed
    sink.src.skip(len(found))
    sink.write('"' if parts is None else encode("".join(parts), types))


def _cut_off(text: str, types: frozenset[str]) -> str:
    """An unfinished value: unfinished JSON where only that is allowed, else an unfinished string."""
    return text if types and "string" not in types else quote(text)[:-1]


class _Lines:
    """Drops one line break at the start and at the end of a value that arrives in pieces."""

    def __init__(self, active: bool) -> None:
        self._active = active
        self._at_start = True
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain to be part of the value."""
        if not self._active:
            return text
        if self._at_start:
            self._at_start = False
            text = text.removeprefix("\n")
        text = self._held + text
        self._held = text[-1:] if text.endswith("\n") else ""
        return text.removesuffix("\n")
