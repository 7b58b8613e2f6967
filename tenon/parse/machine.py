"""The one engine that reads every output format, by its table, as the output streams.

States are generators over a `Source`: content, reasoning, calls. A call is tried where its marker stands and
becomes real as soon as its name is known and its arguments begin; until then its text can still turn out to
be content. What goes wrong after that leaves the call as it is, and the rest is content.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from tenon.parse import channels
from tenon.parse.calls import Decode
from tenon.parse.events import ContentDelta, Event, Parsed, ReasoningDelta, fold
from tenon.parse.format import (
    Body,
    BraceCall,
    Calls,
    Format,
    JsonCall,
    JsonList,
    NamedJson,
    Pythonic,
    Reasoning,
    TagCall,
    XmlCall,
)
from tenon.parse.json_calls import call_list, envelope, named
from tenon.parse.literal_calls import brace_call, pythonic
from tenon.parse.source import Malformed, Source, markers
from tenon.parse.values import Tools
from tenon.parse.writer import Writer
from tenon.parse.xml_calls import tag_call, xml_call

# Text that a failed attempt at a call may read and that is then searched for calls once more.
RESCAN = 4096


def random_id() -> str:
    """The id of a call, in the form that OpenAI's API uses."""
    return f"call_{secrets.token_hex(12)}"


class Parser:
    """Reads one output of a model.

    `tools`: the request's tools (OpenAI's objects); None reads no calls at all, their text is content.
    `prompt_tail`: how the prompt ends, which tells whether the model begins thinking; any length will do.
    `prefill`: what of the answer the prompt holds already, if the model goes on with an answer.
    """

    def __init__(
        self,
        table: Format,
        tools: Sequence[Mapping[str, Any]] | None = None,
        prompt_tail: str = "",
        new_id: Callable[[], str] | None = None,
        prefill: str = "",
    ) -> None:
        self.src = Source()
        self.out = Writer(table.trim)
        self.table = table
        self.tools = Tools(tools or ())
        self._new_id = new_id or table.new_id or random_id
        self._calls = table.calls if tools is not None else ()
        self.reads_calls = tools is not None
        self._strays: frozenset[str] = frozenset()  # closing markers that a broken call has left behind
        self._closers: frozenset[str] = frozenset()  # closing markers of content, dropped
        self._trial: Calls | None = None  # the call being tried, not committed yet
        self._bare = False  # and it has no marker
        self._openers = {marker: calls for calls in self._calls for marker in (*calls.bare, *calls.markers())}
        self._reader = self._run(thinks(table, prompt_tail, prefill))
        self._ended = False
        next(self._reader)

    def push(self, delta: str) -> list[Event]:
        """More of the output; what it says."""
        assert not self._ended, "push after finish"
        if delta:
            self.src.feed(delta)
            self._reader.send(None)
        return self.out.take()

    def finish(self) -> list[Event]:
        """The output is over; what was still held back, and End."""
        assert not self._ended, "finish twice"
        self._ended = self.src.final = True
        for _ in self._reader:
            raise AssertionError("a reader waits for text at the end of the output")
        self.out.finish()
        return self.out.take()

    @property
    def thinking(self) -> bool:
        """Whether what comes next is reasoning, as far as is known."""
        return self.out.kind is ReasoningDelta

    # What decoders write to (calls.Sink).

    def begin(self, name: str, call_id: str | None = None) -> None:
        if self._bare and name not in self.tools:
            raise Malformed
        self._trial = None
        self.src.release()
        self.out.begin(call_id or self._new_id(), name)

    def write(self, fragment: str) -> None:
        self.out.write(fragment)

    def done(self) -> None:
        self.src.mark()

    # States.

    def _run(self, pair: Reasoning | None) -> Decode:
        if self.table.channels:
            yield from channels.read(self, self.table.channels)
        else:
            if pair:
                yield from self._think(pair)
            yield from self._content()

    def _text(self, running: frozenset[str], fresh: frozenset[str]) -> Generator[None, None, str]:
        """Text up to a live marker, which stays unread; "" at the end of the output.

        `fresh` are the markers that count where nothing but white space precedes them, `running` elsewhere.
        """
        src, out = self.src, self.out
        if out.fresh:
            if spaces := (yield from src.spaces()):
                out.text(spaces)
            if out.fresh and (found := (yield from src.one_of(markers(fresh)))):
                return found
        return (yield from src.until(markers(running), out.text))

    def _content(self) -> Decode:
        table, src, out = self.table, self.src, self.out
        opens = {pair.open: pair for pair in table.reasoning}
        anywhere = {pair.open for pair in table.reasoning if pair.anywhere}
        in_text = (
            {marker for calls in self._calls for marker in calls.markers()} | anywhere | set(table.stops)
        )
        at_start = (
            in_text | set(opens) | set(self._openers) | ({table.answer.open} if table.answer else set())
        )
        while True:
            extra = self._strays | self._closers
            found = yield from self._text(frozenset(in_text | extra), frozenset(at_start | extra))
            if not found:
                return
            if found in extra:
                src.skip(len(found))
                out.cut(ContentDelta)
                self._strays -= {found}
                self._closers -= {found}
            elif found in opens:
                src.skip(len(found))
                yield from self._think(opens[found])
            elif found in table.stops:
                src.skip(len(found))
                out.stop(found)
            elif table.answer and found == table.answer.open:
                src.skip(len(found))
                out.cut(ContentDelta)
                self._closers = frozenset({table.answer.close})
            else:
                yield from self._try(self._openers[found], found)

    def _think(self, pair: Reasoning) -> Decode:
        """Reasoning, its opening marker read, up to its closing one."""
        src, out = self.src, self.out
        enders = (
            set(self._openers) - {m for c in self._calls for m in c.bare} if pair.ended_by_calls else set()
        )
        running = frozenset({pair.close, *self.table.stops, *enders})
        out.cut(ReasoningDelta)
        while found := (yield from self._text(running, running | {pair.open})):
            if found in enders:
                out.cut(ContentDelta)
                return
            src.skip(len(found))
            if found == pair.close:
                out.cut(ContentDelta)
                return
            if found == pair.open:
                out.cut(ReasoningDelta)
            else:
                out.stop(found)

    def _try(self, calls: Calls, found: str) -> Decode:
        """Read calls whose marker comes next, or find out that they are content."""
        src = self.src
        self._trial, self._bare = calls, found in calls.bare
        src.mark()
        try:
            yield from self._read_calls(calls, found)
        except Malformed:
            size = src.marked_size
            src.rewind()
            if self._trial:  # nothing was committed: the marker is text, and what follows is read again
                self.out.text(src.take(size if size > RESCAN else max(1, min(size, len(found)))))
            else:
                closes = {calls.close} | ({calls.section[1]} if calls.section else set())
                self._strays |= closes - {""}
        src.release()

    def _read_calls(self, calls: Calls, found: str) -> Decode:
        """A section of calls, or one call and those that follow it by a separator."""
        src = self.src
        starts = frozenset((*calls.opens, *calls.starts, *calls.inner))
        section = calls.section if calls.section and found == calls.section[0] else None
        if section:
            src.skip(len(found))
            if starts:
                yield from src.spaces()
                if not (found := (yield from src.one_of(markers(starts)))):
                    raise Malformed
        while True:
            if found in calls.opens:
                src.skip(len(found))
            yield from self._read_body(calls)
            if calls.close:
                yield from src.spaces()
                closed = yield from src.accept(calls.close)
                if not closed and found in calls.opens and (yield from src.peek()):
                    raise Malformed
            if not (yield from self._another(calls, section, starts)):
                return
            found = yield from src.one_of(markers(starts | set(calls.bare)))

    def _another(
        self, calls: Calls, section: tuple[str, str] | None, starts: frozenset[str]
    ) -> Generator[None, None, bool]:
        """Whether one more call comes next. Reads what separates it from the last, or closes the section."""
        src = self.src
        src.mark()
        if section:
            yield from src.spaces()
            if (yield from src.one_of(markers(starts))):
                return True
            if (yield from src.peek()):
                yield from src.expect(section[1])
            return False
        if calls.separator:
            yield from src.spaces()
            if (yield from src.ahead(len(calls.separator))) == calls.separator:
                src.skip(len(calls.separator))
                yield from src.spaces()
                if (yield from src.one_of(markers(starts | set(calls.bare)))):
                    return True
            src.rewind()
        elif calls.section:
            yield from src.spaces()
            if not (yield from src.peek()) or not (yield from src.accept(calls.section[1])):
                src.rewind()
        return False

    def _read_body(self, calls: Calls) -> Decode:
        yield from self.src.spaces()
        char = yield from self.src.peek()
        body = next((body for body in calls.body if body.first in ("", char)), None)
        if body is None or not char:
            raise Malformed
        yield from self._decode(body, calls)

    def _decode(self, body: Body, calls: Calls) -> Decode:
        match body:
            case JsonCall():
                return envelope(self, body)
            case JsonList():
                return call_list(self, body)
            case NamedJson():
                return named(self, body)
            case XmlCall():
                return xml_call(self, body)
            case TagCall():
                return tag_call(self, body, calls.close)
            case Pythonic():
                return pythonic(self, body)
            case BraceCall():
                return brace_call(self, body)


def thinks(table: Format, prompt_tail: str, prefill: str = "") -> Reasoning | None:
    """The reasoning a model is in when it starts after this prompt, None if it starts with content."""
    for pair in table.reasoning:
        opened, closed = prefill.rfind(pair.open), prefill.rfind(pair.close)
        if opened != closed:
            return pair if opened > closed else None
    tail = prompt_tail[-256:].rstrip()
    for pair in table.reasoning:
        if tail.endswith((pair.open.rstrip(), *pair.opened_by)):
            return pair
        if tail.endswith(pair.close):
            return None
    return table.reasoning[0] if table.thinks_first and table.reasoning else None


def parse(
    table: Format,
    text: str,
    tools: Sequence[Mapping[str, Any]] | None = None,
    prompt_tail: str = "",
    new_id: Callable[[], str] | None = None,
) -> Parsed:
    """A whole output at once: the fold of its stream."""
    parser = Parser(table, tools, prompt_tail, new_id)
    return fold([*parser.push(text), *parser.finish()])
