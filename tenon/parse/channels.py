"""Outputs made of messages whose headers name a channel and a recipient (harmony, the format of GPT-OSS).

    <|channel|>analysis<|message|>...<|end|>
    <|start|>assistant to=functions.f<|channel|>commentary json<|message|>{...}<|call|>

The prompt ends with `<|start|>assistant`, so the first message begins inside its header. Text outside of any
message is content, and so is a header that names something unknown.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING

import msgspec

from tenon.parse.calls import Decode
from tenon.parse.events import ContentDelta, ReasoningDelta
from tenon.parse.format import Channels
from tenon.parse.json_calls import json_value
from tenon.parse.source import Malformed, markers

if TYPE_CHECKING:
    from tenon.parse.machine import Parser

_MAX_HEADER = 512
_WORDS = re.compile(r"[-\w.:=/ \n]+")


class _Header(msgspec.Struct, frozen=True):
    channel: str
    tool: str  # "" if the message is not a call


def read(parser: Parser, table: Channels) -> Decode:
    """Read a whole output."""
    src, out = parser.src, parser.out
    while True:
        src.mark()
        yield from src.spaces()
        if not (yield from src.peek()):
            return
        try:
            header = yield from _header(parser, table)
        except Malformed:
            size = src.marked_size
            src.rewind()
            out.text(src.take(max(1, min(size, len(table.start)))))
            yield from src.until(markers(frozenset({table.start, table.channel})), out.text)
        else:
            yield from _message(parser, table, header)
            out.cut(ContentDelta)


def _header(parser: Parser, table: Channels) -> Generator[None, None, _Header]:
    """Read a message's header and the marker that ends it. Raises Malformed where none stands."""
    src = parser.src
    live = markers(frozenset({table.start, table.channel, table.message, table.constrain}))
    first = markers(frozenset({table.start, table.channel, table.message, table.role, table.recipient}))
    if not (yield from src.one_of(first)):
        raise Malformed
    parts: list[str] = []
    size = 0
    while (found := (yield from src.one_of(live))) != table.message:
        if found:
            src.skip(len(found))
            part = f" {found} "
        else:
            part = yield from src.run(_WORDS, _MAX_HEADER)
        size += len(part)
        if not part or size > _MAX_HEADER:
            raise Malformed
        parts.append(part)
    src.skip(len(found))
    return _understood("".join(parts).split(), table, parser.reads_calls)


def _understood(words: list[str], table: Channels, calls: bool) -> _Header:
    channel = table.content[0] if table.channel not in words else ""
    tool = ""
    for before, word in zip(["", *words], words, strict=False):
        if before == table.channel and word in (*table.reasoning, *table.content):
            channel = word
        elif calls and word.startswith(table.recipient) and len(word) > len(table.recipient):
            tool = word.removeprefix(table.recipient)
        elif word not in (table.start, table.channel, table.constrain, table.role, *table.kinds):
            raise Malformed
    if not channel:
        raise Malformed
    return _Header(channel, tool)


def _message(parser: Parser, table: Channels, header: _Header) -> Decode:
    """Read a message's body, and the marker that ends it."""
    src, out = parser.src, parser.out
    ends = frozenset({*table.ends, table.start, table.channel})
    if header.tool:
        calls = out.calls
        try:
            yield from _call(parser, header.tool, ends)
        except Malformed:
            size = src.marked_size
            src.rewind()
            out.cut(ContentDelta)
            if out.calls == calls:  # no call has begun: the header is text too
                out.text(src.take(size))
            yield from src.until(markers(ends), out.text)
    else:
        src.release()
        out.cut(ReasoningDelta if header.channel in table.reasoning else ContentDelta)
        yield from src.until(markers(ends), out.text)
    found = yield from src.one_of(markers(frozenset(table.ends)))
    src.skip(len(found))


def _call(parser: Parser, tool: str, ends: frozenset[str]) -> Decode:
    src = parser.src
    yield from src.spaces()
    # The marker may be the token that ended the output, which is no part of the text.
    if (yield from src.one_of(markers(ends))) or not (yield from src.peek()):
        parser.begin(tool)
        parser.write("{}")
        return
    if (yield from src.peek()) != "{":
        raise Malformed
    parser.begin(tool)
    yield from json_value(src, parser.write)
    parser.done()
    yield from src.spaces()
    if (yield from src.peek()) and not (yield from src.one_of(markers(ends))):
        raise Malformed
    src.release()
