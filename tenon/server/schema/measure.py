"""How deep a JSON text is nested and how many values it holds, found out before any of them is made.

A body of 8 MiB can hold millions of values, each of which takes 20 times its bytes once it is decoded, and be
nested so deep that decoders give up (RFC 8259, section 9, lets a reader limit both). The text is not judged
here: what is no JSON, the decoder says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SMALL = 16 * 1024  # bytes; with few brackets, less than that cannot hurt
PIECE = 128 * 1024  # is read at a time: a match holds the interpreter, and with it every other request

# Each text has one way to match, so there is nothing to be won by going back, and these are linear.
# Possessive quantifiers would say so, but of groups they match wrongly in Python before 3.11.5 (CPython
# issue 106052).
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STRINGS = re.compile(rb'(?:[^"]*"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL)
_INSIDE = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9](?<![0-9].)[0-9]{1023}", re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


class TooDeep(Exception):
    pass


class TooMany(Exception):
    pass


def measure(body: bytes | bytearray, depth: int, values: int) -> None:
    """Raises TooDeep, or TooMany for too many values, or for a number that is too long."""
    if len(body) <= min(SMALL, values) and body.count(b"[") + body.count(b"{") <= depth:
        return
    level = found = 0
    for piece in _pieces(body):
        rest = _STRING.sub(b"", piece)
        opened = rest.count(b"[") + rest.count(b"{")
        found += opened + rest.count(b",")
        if found > values or _LONG_NUMBER.search(rest):
            raise TooMany
        if level + opened <= depth:
            level += opened - rest.count(b"]") - rest.count(b"}")
            continue
        for bracket in rest.translate(None, _NO_BRACKET):
            level += 1 if bracket in b"[{" else -1
            if level > depth:
                raise TooDeep


def _pieces(body: bytes | bytearray) -> Iterator[bytes | bytearray]:
    """The text in parts that end between strings, without strings that are longer than a part."""
    position, inside = 0, False
    while position < len(body):
        part = body[position : position + PIECE]
        if inside:
            end = _INSIDE.match(part).end()  # type: ignore[union-attr]
            inside = part[end : end + 1] != b'"'
            if inside and not end:
                return  # half an escape is the end of it all
            position += end + (not inside)
        else:
            end = _STRINGS.match(part).end()  # type: ignore[union-attr]
            before, quote, _ = part[end:].partition(b'"')
            yield part[:end] + before
            position += end + len(before) + len(quote)
            inside = bool(quote)
