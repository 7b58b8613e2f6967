"""Calls whose arguments are JSON: as an envelope with a name, as a list of envelopes, or after a name.

Arguments go out as they are written. Two mistakes that models make are mended on the way: raw control
characters in strings, and escapes that JSON does not have.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator

import msgspec

from tenon.parse.calls import MAX_DEPTH, MAX_NAME, Decode, Emit, Held, Sink, read_name
from tenon.parse.format import JsonCall, JsonList, NamedJson
from tenon.parse.source import Malformed, Source, markers
from tenon.parse.values import escape

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_BARE = re.compile(r"[-+.0-9A-Za-z]+")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_HEX = re.compile(r"\\u[0-9a-fA-F]{4}")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MAX_SCALAR = 1024  # characters of a number or word


def json_value(src: Source, emit: Emit) -> Decode:
    """Read one JSON value. Raises Malformed, with the token that is wrong unread or marked."""
    closers: list[str] = []
    while True:
        yield from _opened(src, emit, closers)
        while closers:
            yield from _spaces(src, emit)
            char = yield from src.peek()
            if char == ",":
                _take(src, emit)
                yield from _spaces(src, emit)
                if closers[-1] == "}":
                    yield from _key(src, emit)
                break
            if char != closers[-1]:
                raise Malformed
            _take(src, emit)
            closers.pop()
        else:
            return


def _opened(src: Source, emit: Emit, closers: list[str]) -> Decode:
    """Read what opens a value, down to its first scalar or empty container."""
    while True:
        char = yield from src.peek()
        if char == '"':
            yield from json_string(src, emit)
            return
        if char not in ("{", "["):
            yield from _scalar(src, emit)
            return
        if len(closers) >= MAX_DEPTH:
            raise Malformed
        _take(src, emit)
        closers.append("}" if char == "{" else "]")
        yield from _spaces(src, emit)
        if (yield from src.peek()) == closers[-1]:
            _take(src, emit)
            closers.pop()
            return
        if char == "{":
            yield from _key(src, emit)


def _key(src: Source, emit: Emit) -> Decode:
    yield from json_string(src, emit)
    yield from _spaces(src, emit)
    if (yield from src.peek()) != ":":
        raise Malformed
    _take(src, emit)
    yield from _spaces(src, emit)


def _scalar(src: Source, emit: Emit) -> Decode:
    with Held(src):
        text = yield from src.run(_BARE, _MAX_SCALAR)
        cut = src.final and src.pos == len(src.text)
        if text not in ("true", "false", "null") and not _NUMBER.fullmatch(text) and not (text and cut):
            raise Malformed
        emit(text)


def _take(src: Source, emit: Emit) -> None:
    emit(src.text[src.pos])
    src.skip(1)


def _spaces(src: Source, emit: Emit) -> Decode:
    if spaces := (yield from src.spaces()):
        emit(spaces)


def json_string(src: Source, emit: Emit, limit: int = sys.maxsize) -> Decode:
    """Read a string, quotes included.

    Raises Malformed if none begins here, if the output ends in it, or beyond `limit` characters.
    """
    if (yield from src.peek()) != '"':
        raise Malformed
    _take(src, emit)
    while True:
        if match := _PLAIN.match(src.text, src.pos):
            part = match.group()[: limit + 1]
            emit(part)
            src.skip(len(part))
            limit -= len(part)
        char = yield from src.peek()
        if char == '"' and limit >= 0:
            _take(src, emit)
            return
        if not char or limit <= 0:
            raise Malformed
        if char == "\\":
            yield from _escape(src, emit)
            limit -= 1
        elif char < " ":
            emit(escape(char))
            src.skip(1)
            limit -= 1


def _escape(src: Source, emit: Emit) -> Decode:
    pair = yield from src.ahead(2)
    if len(pair) == 2 and pair[1] in '"\\/bfnrt':
        emit(pair)
        src.skip(2)
    elif pair[1:] == "u" and _HEX.fullmatch(code := (yield from src.ahead(6))):
        emit(code)
        src.skip(6)
    else:
        emit("\\\\")
        src.skip(1)


def read_string(src: Source) -> Generator[None, None, str]:
    """Read a short string's value. Raises Malformed."""
    parts: list[str] = []
    yield from json_string(src, parts.append, MAX_NAME)
    return _decoded("".join(parts))


def _decoded(quoted: str) -> str:
    """What a JSON string says. Raises Malformed for half a surrogate pair: no text has that."""
    text: str = json.loads(quoted)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed from None
    return text


class _Seen(msgspec.Struct):
    """What of a call's envelope has been read."""

    name: str | None = None
    call_id: str | None = None
    held: list[str] | None = None  # arguments that came before the name
    begun: bool = False
    nested: bool = False


def envelope(sink: Sink, table: JsonCall) -> Decode:
    """`{"name": ..., "arguments": ...}`, members in any order, also inside of `{"function": ...}`."""
    seen = _Seen()
    yield from _members(sink, table, seen)
    if not seen.begun:
        if not seen.name:
            raise Malformed
        sink.begin(seen.name, seen.call_id)
        sink.write("".join(seen.held or ["{}"]))
    sink.done()


def _members(sink: Sink, table: JsonCall, seen: _Seen) -> Decode:
    src = sink.src
    yield from src.expect("{")
    while True:
        yield from src.spaces()
        key = yield from read_string(src)
        yield from src.spaces()
        yield from src.expect(":")
        yield from src.spaces()
        yield from _member(sink, table, key, seen)
        yield from src.spaces()
        if (yield from src.peek()) != ",":
            break
        src.skip(1)
    yield from src.expect("}")


def _member(sink: Sink, table: JsonCall, key: str, seen: _Seen) -> Decode:
    """Read the value of `key`. Arguments that follow the name go out as they come."""
    src = sink.src
    char = yield from src.peek()
    if key == "function" and char == "{" and not seen.nested and seen.name is None:
        seen.nested = True
        yield from _members(sink, table, seen)
    elif key in (*table.names, "function") and seen.name is None:
        seen.name = yield from read_string(src)
    elif key in table.arguments and seen.held is None and not seen.begun:
        if seen.name and char == "{":
            sink.begin(seen.name, seen.call_id)
            seen.begun = True
            yield from json_value(src, sink.write)
            sink.done()
        else:
            seen.held = []
            yield from _arguments(src, seen.held.append)
    elif key == "id":
        seen.call_id = yield from _call_id(src)
    elif key != "type" or (yield from read_string(src)) != "function":
        raise Malformed


def _arguments(src: Source, emit: Emit) -> Decode:
    """An object; null, which is an empty one; or a string that holds an object's JSON text."""
    char = yield from src.peek()
    if char == "{":
        yield from json_value(src, emit)
    elif char == "n":
        yield from src.expect("null")
        emit("{}")
    else:
        parts: list[str] = []
        yield from json_string(src, parts.append)
        emit(_object_text("".join(parts)))


def _object_text(quoted: str) -> str:
    try:
        text = _decoded(quoted)
        if isinstance(json.loads(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    raise Malformed


def _call_id(src: Source) -> Generator[None, None, str]:
    if (yield from src.peek()) == '"':
        text = yield from read_string(src)
    else:
        text = yield from src.run(_BARE, MAX_NAME)
    if not _ID.fullmatch(text):
        raise Malformed
    return text


def call_list(sink: Sink, table: JsonList) -> Decode:
    """`[{...}, {...}]`"""
    src = sink.src
    yield from src.expect("[")
    while True:
        yield from src.spaces()
        yield from envelope(sink, table.call)
        yield from src.spaces()
        if (yield from src.peek()) != ",":
            break
        src.skip(1)
    yield from src.expect("]")


def named(sink: Sink, table: NamedJson) -> Decode:
    """A name, a separator, an object."""
    src = sink.src
    yield from src.spaces()
    yield from src.expect(table.head)
    header = yield from read_name(sink)
    name, call_id = table.split(header)
    yield from src.spaces()
    if table.id_open and (yield from src.ahead(len(table.id_open))) == table.id_open:
        src.skip(len(table.id_open))
        call_id = yield from read_name(sink)
        yield from src.spaces()
    separator = yield from src.one_of(markers(frozenset(table.separators)))
    if separator not in table.separators:
        raise Malformed
    src.skip(len(separator))
    yield from src.spaces()
    if (yield from src.peek()) != "{" or not name:
        raise Malformed
    sink.begin(name, call_id)
    yield from json_value(src, sink.write)
    sink.done()
    if table.tail:
        yield from src.spaces()
        yield from src.expect(table.tail)
