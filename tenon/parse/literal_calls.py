"""Calls written in a language's own literals: Python's, and the brace notation of Gemma 4.

Our own reader of literals; nothing that a model writes is ever evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator

from tenon.parse.calls import MAX_DEPTH, MAX_NAME, Decode, Held, Sink, read_name
from tenon.parse.format import BraceCall, Pythonic
from tenon.parse.json_calls import json_string
from tenon.parse.source import Malformed, Source, markers
from tenon.parse.values import escape, quote

_IDENTIFIER = re.compile(r"\w+")
_KEY = re.compile(r"[^\s<>{}\[\]()\"'`,;=|:]+")
_BARE = re.compile(r"[-+.\w]+")
_NUMBER = re.compile(r"-?(0|[1-9][0-9_]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}
_ESCAPES |= {char: char for char in "\\'\""} | {"\n": ""}
_CODES = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile(r"[0-9a-fA-F]+")
_MAX_SCALAR = 1024  # characters of a number or word


def pythonic(sink: Sink, table: Pythonic) -> Decode:
    """`[f(a=1), g()]`; without brackets, calls on lines of their own."""
    src = sink.src
    yield from src.expect(table.open)
    yield from src.spaces()
    if table.brackets:
        yield from src.expect("[")
    while True:
        yield from src.spaces()
        yield from _python_call(sink)
        yield from src.spaces()
        char = yield from src.peek()
        if table.brackets and char == ",":
            src.skip(1)
        elif table.brackets or not char or table.close.startswith(char):
            break
    if table.brackets:
        yield from src.expect("]")
        yield from src.spaces() if table.close else ()
    yield from src.expect(table.close)


def _python_call(sink: Sink) -> Decode:
    src = sink.src
    name = yield from read_name(sink)
    yield from src.expect("(")
    yield from src.spaces()
    begun = False
    while (yield from src.peek()) != ")":
        if begun:
            src.mark()
        key = yield from src.run(_IDENTIFIER, MAX_NAME)
        yield from src.spaces()
        if not key:
            raise Malformed
        yield from src.expect("=")
        yield from src.spaces()
        if not begun:
            sink.begin(name)
        src.release()
        sink.write(f"{', ' if begun else '{'}{quote(key)}: ")
        begun = True
        yield from _python_value(sink, MAX_DEPTH)
        yield from src.spaces()
        if (yield from src.peek()) != ",":
            break
        src.skip(1)
        yield from src.spaces()
    yield from src.expect(")")
    if not begun:
        sink.begin(name)
    sink.write("}" if begun else "{}")
    sink.done()


def _python_value(sink: Sink, depth: int) -> Decode:
    src = sink.src

    def item(glue: str) -> Decode:
        sink.write(glue)
        return _python_value(sink, depth - 1)

    def member(glue: str) -> Decode:
        if (yield from src.peek()) not in ("'", '"'):
            raise Malformed
        sink.write(glue)
        yield from _python_string(sink)
        yield from src.spaces()
        yield from src.expect(":")
        sink.write(": ")
        yield from src.spaces()
        yield from _python_value(sink, depth - 1)

    char = yield from src.peek()
    if char in ("'", '"'):
        yield from _python_string(sink)
    elif char in ("[", "("):
        yield from _container(sink, depth, "]" if char == "[" else ")", "[]", item)
    elif char == "{":
        yield from _container(sink, depth, "}", "{}", member)
    else:
        yield from _scalar(sink)


def _container(sink: Sink, depth: int, closer: str, json: str, item: Callable[[str], Decode]) -> Decode:
    """Items between brackets, whose first is still unread. `item` writes what joins it to the one before."""
    if not depth:
        raise Malformed
    src = sink.src
    src.skip(1)
    sink.write(json[0])
    glue = ""
    yield from src.spaces()
    while (yield from src.peek()) != closer:
        yield from item(glue)
        glue = ", "
        yield from src.spaces()
        if (yield from src.peek()) != ",":
            break
        src.skip(1)
        yield from src.spaces()
    yield from src.expect(closer)
    sink.write(json[1])


def _scalar(sink: Sink) -> Decode:
    with Held(sink.src):
        text = yield from sink.src.run(_BARE, _MAX_SCALAR)
        cut = sink.src.final and sink.src.pos == len(sink.src.text)
        if text in _WORDS:
            sink.write(_WORDS[text])
        elif _NUMBER.fullmatch(text):
            sink.write(text.replace("_", ""))
        elif text and cut:
            sink.write(text)
        else:
            raise Malformed


def _python_string(sink: Sink) -> Decode:
    """A string of either quote, or of three; it streams."""
    src = sink.src
    mark = yield from src.ahead(3)
    mark = mark if mark in ('"""', "'''") else mark[0]
    src.skip(len(mark))
    sink.write('"')
    live = markers(frozenset({mark, "\\"}))
    while (found := (yield from src.until(live, lambda text: sink.write(escape(text))))) != mark:
        if not found:
            raise Malformed
        sink.write(escape((yield from _python_escape(src))))
    src.skip(len(mark))
    sink.write('"')


def _python_escape(src: Source) -> Generator[None, None, str]:
    """The character a backslash and what follows it stand for; an unknown escape stands for itself."""
    pair = yield from src.ahead(2)
    char = pair[1:]
    if char in _CODES:
        code = yield from src.ahead(2 + _CODES[char])
        digits = code[2:]
        if len(digits) == _CODES[char] and _HEX.fullmatch(digits) and (point := int(digits, 16)) < 0x110000:
            src.skip(len(code))
            return chr(point)
    elif char in _ESCAPES:
        src.skip(2)
        return _ESCAPES[char]
    src.skip(1)
    return "\\"


def brace_call(sink: Sink, table: BraceCall) -> Decode:
    """`call:f{key:value}`"""
    src = sink.src
    yield from src.expect(table.open)
    name = yield from src.run(_KEY, MAX_NAME)
    if not name or (yield from src.peek()) != "{":
        raise Malformed
    sink.begin(name)
    yield from _brace_value(sink, table, MAX_DEPTH)
    sink.done()


def _brace_value(sink: Sink, table: BraceCall, depth: int) -> Decode:
    src = sink.src

    def item(glue: str) -> Decode:
        sink.write(glue)
        return _brace_value(sink, table, depth - 1)

    def member(glue: str) -> Decode:
        yield from _brace_key(sink, table, glue)
        yield from src.spaces()
        yield from _brace_value(sink, table, depth - 1)

    char = yield from src.peek()
    if char == "{":
        yield from _container(sink, depth, "}", "{}", member)
    elif char == "[":
        yield from _container(sink, depth, "]", "[]", item)
    elif char == '"':
        yield from json_string(src, sink.write)
    elif (yield from src.ahead(len(table.quote))) == table.quote:
        yield from _quoted(sink, table.quote)
    else:
        yield from _scalar(sink)


def _brace_key(sink: Sink, table: BraceCall, glue: str) -> Decode:
    """A key, bare or quoted, and its colon."""
    src = sink.src
    if (yield from src.ahead(len(table.quote))) == table.quote:
        sink.write(glue)
        yield from _quoted(sink, table.quote)
        yield from src.spaces()
        yield from src.expect(":")
        sink.write(": ")
        return
    with Held(src):
        key = yield from src.run(_KEY, MAX_NAME)
        yield from src.spaces()
        if not key:
            raise Malformed
        yield from src.expect(":")
    sink.write(f"{glue}{quote(key)}: ")


def _quoted(sink: Sink, mark: str) -> Decode:
    """Text between two of the same marks; it streams."""
    src = sink.src
    src.skip(len(mark))
    sink.write('"')
    if not (yield from src.until(markers(frozenset({mark})), lambda text: sink.write(escape(text)))):
        raise Malformed
    src.skip(len(mark))
    sink.write('"')
