"""Calls whose parameters stand between tags, their values as bare text."""

from __future__ import annotations

import re
from collections.abc import Generator

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
        self._sink.write(f"{self._glue}{quote(name)}: ")
        self._glue = ", "

    def close(self) -> None:
        self._sink.write("{}" if self._glue == "{" else "}")
        self._sink.done()


def xml_call(sink: Sink, table: XmlCall) -> Decode:
    """`<function=f><parameter=key>value</parameter></function>`"""
    src = sink.src
    yield from src.expect(table.open)
    name = yield from read_name(sink)
    yield from src.expect(table.named)
    yield from src.spaces()
    inner = markers(frozenset({table.parameter_open, table.close}))
    if not (found := (yield from src.one_of(inner))):
        raise Malformed
    sink.begin(name)
    members = _Object(sink)
    while found == table.parameter_open:
        src.mark()
        src.skip(len(found))
        key = yield from _key(src)
        written = yield from _named(src, table)
        types = {"text": _TEXT, "json": frozenset[str]()}.get(written, sink.tools.types(name, key))
        src.release()
        members.key(key)
        yield from _value(sink, types, table.parameter_close, table.lines)
        yield from src.spaces()
        found = yield from src.one_of(inner)
    if not found:
        raise Malformed
    src.skip(len(found))
    members.close()


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


def tag_call(sink: Sink, table: TagCall, close: str) -> Decode:
    """`f <key>a</key> <value>1</value>`, up to the close, which stays unread."""
    src = sink.src
    yield from src.spaces()
    name = yield from read_name(sink)
    yield from src.spaces()
    inner = markers(frozenset({table.key_open, close}))
    if not (found := (yield from src.one_of(inner))):
        raise Malformed
    sink.begin(name)
    members = _Object(sink)
    while found == table.key_open:
        src.mark()
        src.skip(len(found))
        key = yield from _key(src)
        for literal in (table.key_close, table.value_open):
            yield from src.expect(literal)
            yield from src.spaces() if literal == table.key_close else ()
        src.release()
        members.key(key)
        yield from _value(sink, sink.tools.types(name, key), table.value_close, lines=False)
        yield from src.spaces()
        found = yield from src.one_of(inner)
    members.close()
    if not found:
        raise Malformed


def _value(sink: Sink, types: frozenset[str], close: str, lines: bool) -> Decode:
    """Read a value and its closing tag; a string streams, anything else waits for its end."""
    parts: list[str] | None = None if is_text(types) else []
    if parts is None:
        sink.write('"')
    trimmed = _Lines(lines)
    live = markers(frozenset({close}))
    src = sink.src
    while True:
        end, found = live.search(src.text, src.pos, src.final)
        text = trimmed.feed(src.text[src.pos : end], last=bool(found))
        src.skip(end - src.pos)
        if parts is None:
            sink.write(escape(text))
        else:
            parts.append(text)
        if found:
            break
        if src.final:  # cut off: the rest of a string, or what there is of another value
            if parts is not None:
                sink.write(_cut_off("".join(parts), types))
            raise Malformed
        yield
    src.skip(len(found))
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

    def feed(self, text: str, last: bool) -> str:
        if not self._active:
            return text
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix("\n")
        text = self._held + text
        self._held = ""
        if last:
            return text.removesuffix("\n")
        if text.endswith("\n"):
            self._held = "\n"
            return text[:-1]
        return text
