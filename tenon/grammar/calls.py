"""Tool calls as grammars: what an output format's table says the parser reads, the model is made to write.

A forced call is all of the answer. Otherwise text may be anything until a marker of calls stands in it: from
there on a call follows, of a tool that exists, with arguments that satisfy the tool's schema.
Raises `Inexpressible` for what a format has no way to promise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tenon.core.structured import StructuredOutputs
from tenon.grammar.lark import TEXT, Lark, either
from tenon.grammar.schema import closed
from tenon.grammar.values import Braces, Inexpressible, Parameters, free_text, listed
from tenon.parse.calls import MAX_NAME, NAME
from tenon.parse.format import (
    Body,
    BraceCall,
    Calls,
    Channels,
    Format,
    JsonCall,
    JsonList,
    NamedJson,
    Pythonic,
    TagCall,
    XmlCall,
)

_ANYTHING: dict[str, Any] = {"type": "object"}


class Tool(msgspec.Struct, frozen=True):
    """A function that may be called. `parameters` None: it takes none."""

    name: str
    parameters: Mapping[str, Any] | None


class Wanted(msgspec.Struct, frozen=True):
    """`forced`: there must be a call. `parallel`: there may be several. `content`: what the answer must be
    where it is no call; None: any text. `templates`: the model's chat templates, which show how it writes
    calls."""

    tools: Sequence[Tool]
    forced: bool
    parallel: bool = True
    content: StructuredOutputs | None = None
    templates: str = ""


def call_grammar(table: Format, wanted: Wanted, special: Mapping[str, int]) -> str:
    """The grammar of a whole answer, in Lark. `special`: ids of the special tokens by their text."""
    lark = Lark(special)
    try:
        if table.channels is not None:
            return lark.source(_Harmony(lark, table.channels, wanted).start())
        return lark.source(_Calls(lark, table, wanted).start())
    except ValueError as error:
        raise Inexpressible(str(error)) from None


def answer_grammar(table: Channels, content: StructuredOutputs, special: Mapping[str, int]) -> str:
    """The grammar of an answer without calls, in a format that has markers around its content."""
    lark = Lark(special)
    wanted = Wanted(tools=(), forced=False, content=content)
    return lark.source(_Harmony(lark, table, wanted).start())


def content_rule(lark: Lark, content: StructuredOutputs) -> str:
    """Content that must match a constraint, inside of a larger grammar."""
    match content.kind:
        case "json":
            return lark.json(content.json)
        case "json_object":
            return lark.json(_ANYTHING)
        case "choice":
            return either(lark.literal(text) for text in content.choice or ())
    raise Inexpressible(f"structured_outputs.{content.kind} cannot be combined with it")


class _Calls:
    """Formats whose calls stand between markers, or are the whole answer."""

    def __init__(self, lark: Lark, table: Format, wanted: Wanted) -> None:
        self.lark = lark
        self.table = table
        self.wanted = wanted

    def start(self) -> str:
        if self.wanted.forced:
            return self._forced(self._usual())
        if self.wanted.content is not None:
            return f"{self._forced(self._usual())} | {content_rule(self.lark, self.wanted.content)}"
        return self._free()

    def _usual(self) -> Calls:
        """The calls that the model was trained to write: those whose markers its template shows."""
        shown = [
            calls
            for calls in self.table.calls
            if any(m in self.wanted.templates for m in (*calls.markers(), *calls.inner))
        ]
        return (shown or list(self.table.calls))[0]

    def _forced(self, calls: Calls) -> str:
        if calls.section:
            return f"{self.lark.literal(calls.section[0])} {self._section(calls)}"
        if calls.bare:
            return self._bare(calls)
        marker = (calls.opens or calls.starts)[0]
        return self._repeated(
            f"{self.lark.literal(marker)} {self._after(calls, marker)}", self._absorbs(calls)
        )

    def _bare(self, calls: Calls) -> str:
        body = next((b for b in calls.body if b.first == calls.bare[0]), None) or calls.body[-1]
        one = self._body(body)
        if self.wanted.parallel and calls.separator and not _is_list(body):
            return self.lark.rule(f'{one} ({self.lark.literal(calls.separator)} " "? {one})*')
        return one

    def _free(self) -> str:
        """Text, and calls wherever their markers stand. A bare call may stand where content begins, which no
        other content may look like."""
        bare = "".join(char for calls in self.table.calls for char in calls.bare)
        text = f"([ \\t\\r\\n]*[^{re.escape(bare)} \\t\\r\\n]{TEXT})?" if bare else TEXT
        called = []
        for calls in self.table.calls:
            for marker in calls.markers():
                if calls.section and marker == calls.section[0]:
                    rest = self._section(calls)
                else:
                    rest = self._after(calls, marker)
                called.append(self.lark.rule(f"{self.lark.text_up_to(marker, text)} {rest}"))
            if calls.bare:
                called.append(self._bare(calls))
        tail = self.lark.term(f"/{text}/") + "?"
        if self.wanted.parallel:
            return f"{either(called)}* {tail}"
        return f"{either(called)} | {tail}"

    def _section(self, calls: Calls) -> str:
        """The calls of a section, and its closing marker; the opening one has been written."""
        assert calls.section is not None
        line, lark = self.lark.line(), self.lark
        openers = (*calls.opens, *calls.starts, *calls.inner)
        if openers:
            one = f"{lark.literal(openers[0])} {self._after(calls, openers[0])}"
        else:
            one = f"{self._body(self._written(calls))} {lark.literal(calls.close)}"
        return f"{line} {self._repeated(one, self._absorbs(calls))} {line} {lark.literal(calls.section[1])}"

    def _after(self, calls: Calls, marker: str) -> str:
        """A call and its closing marker; the opening one has been written."""
        body = self._written(calls)
        if marker in calls.opens:
            parts = [self.lark.line(), self._body(body)]
        else:
            parts = [self._body(body, begun=True)]
        if calls.close:
            parts += [self.lark.line(), self.lark.literal(calls.close)]
        return " ".join(parts)

    def _repeated(self, one: str, absorbs: bool) -> str:
        if not self.wanted.parallel or absorbs:
            return one
        rule = self.lark.rule(one)
        return self.lark.rule(f"{rule} ({self.lark.line()} {rule})*")

    def _absorbs(self, calls: Calls) -> bool:
        """One body holds all calls."""
        return _is_list(self._written(calls))

    def _written(self, calls: Calls) -> Body:
        """The body that the model was trained to write."""
        for body in calls.body:
            if (mark := _mark(body)) and mark in self.wanted.templates:
                return body
        return calls.body[0]

    def _body(self, body: Body, begun: bool = False) -> str:
        """`begun`: the body's own first marker has been written."""
        tools = self.wanted.tools
        lark = self.lark
        match body:
            case JsonCall():
                return either(self._envelope(tool, body) for tool in tools)
            case JsonList():
                one = either(self._envelope(tool, body.call) for tool in tools)
                return f'"[" {self._several(one)} "]"'
            case NamedJson():
                return either(self._named(tool, body) for tool in tools)
            case XmlCall():
                return either(self._xml(tool, body, begun) for tool in tools)
            case TagCall():
                return either(self._tags(tool, body) for tool in tools)
            case Pythonic():
                return self._pythonic(body)
            case BraceCall():
                return either(
                    f"{lark.literal(body.open + _name(tool))} "
                    f"{Braces(parameters, body.quote).object(_schema(tool), tool.name)}"
                    for tool in tools
                    if (parameters := Parameters(lark, tool.name, _schema(tool)))
                )

    def _several(self, one: str, comma: str = ",") -> str:
        if not self.wanted.parallel:
            return one
        rule = self.lark.rule(one)
        return f'{rule} ("{comma}" " "? {rule})*'

    def _envelope(self, tool: Tool, body: JsonCall) -> str:
        head = f'{{"{body.names[0]}": {json.dumps(tool.name)}, "{body.arguments[0]}": '
        return self.lark.rule(f'{self.lark.literal(head)} {self.lark.json(_schema(tool))} "}}"')

    def _named(self, tool: Tool, body: NamedJson) -> str:
        lark, name = self.lark, _name(tool)
        before, _, after = body.header.partition("{name}")
        head = f"{lark.literal(body.head + before + name)}"
        if after:
            head += " " + " ".join(
                "/[0-9]{1,3}/" if part == "{number}" else lark.literal(part)
                for part in re.split(r"(\{number\})", after)
                if part
            )
        separator = next((s for s in body.separators if s in self.wanted.templates), body.separators[0])
        # What stands between fences is on lines of its own.
        line = '"\\n"' if body.tail else '""'
        parts = [head, line, lark.literal(separator) or '""', line, lark.json(_schema(tool))]
        if body.tail:
            parts += [line, lark.literal(body.tail)]
        return lark.rule(" ".join(parts))

    def _xml(self, tool: Tool, body: XmlCall, begun: bool) -> str:
        lark = self.lark
        line = "\n" if body.lines else ""
        head = lark.literal(("" if begun else body.open) + _name(tool) + body.named)

        def member(parameters: Parameters, key: str) -> str:
            as_text, as_json = _ways(body)
            if parameters.is_text(key) or parameters.loose_text(key):
                begin = lark.literal(body.parameter_open + _tag(key) + as_text + line)
                if parameters.is_text(key):
                    return f"{begin} {parameters.text(key, body.parameter_close, line)}"
                return f"{begin} {free_text(lark, f'/{TEXT}/', body.parameter_close, line)}"
            begin = lark.literal(body.parameter_open + _tag(key) + as_json + line)
            value = parameters.json(parameters.properties[key])
            return f"{begin} {value} {lark.literal(line + body.parameter_close)}"

        return self._members(tool, head, member, lark.literal(body.close))

    def _tags(self, tool: Tool, body: TagCall) -> str:
        lark = self.lark

        def member(parameters: Parameters, key: str) -> str:
            begin = lark.literal(f"{body.key_open}{_tag(key)}{body.key_close}")
            begin += f" {lark.line()} {lark.literal(body.value_open)}"
            if parameters.is_text(key):
                return f"{begin} {parameters.text(key, body.value_close, '')}"
            if parameters.loose_text(key):
                return f"{begin} {free_text(lark, f'/{TEXT}/', body.value_close)}"
            value = parameters.json(parameters.properties[key])
            return f"{begin} {value} {lark.literal(body.value_close)}"

        return self._members(tool, lark.literal(_name(tool)), member, '""')

    def _members(self, tool: Tool, head: str, member: Any, tail: str) -> str:
        """Parameters between tags, on lines of their own if the model likes, in the order of the schema."""
        line = self.lark.line()
        parameters = Parameters(self.lark, tool.name, _schema(tool))
        parts = [head]
        for key, _, needed in parameters:
            rule = self.lark.rule(f"{line} {member(parameters, key)}")
            parts.append(rule if needed else f"{rule}?")
        return self.lark.rule(" ".join([*parts, line, tail]))

    def _pythonic(self, body: Pythonic) -> str:
        lark, line = self.lark, self.lark.line()
        one = either(self._python_call(tool) for tool in self.wanted.tools)
        if body.brackets:
            return f'"[" {self._several(one)} "]"'
        calls = one
        if self.wanted.parallel:
            rule = lark.rule(one)
            calls = f'{rule} ("\\n" {rule})*'
        head = f"{lark.literal(body.open)} " if body.open else ""
        tail = f" {lark.literal(body.close)}" if body.close else ""
        return f"{head}{line} {calls} {line}{tail}"

    def _python_call(self, tool: Tool) -> str:
        lark = self.lark
        parameters = Parameters(lark, tool.name, _schema(tool))
        members = []
        for key, schema, needed in parameters:
            if not key.isidentifier():
                raise Inexpressible(f"{key!r} cannot be the name of an argument")
            members.append((f"{lark.literal(key + '=')} {self._python_value(parameters, schema)}", needed))
        head = lark.literal(_name(tool) + "(")
        return lark.rule(f'{head} {listed(lark, members, ", ")} ")"')

    def _python_value(self, parameters: Parameters, schema: Any) -> str:
        if isinstance(schema, dict) and schema.get("type") == "boolean" and "enum" not in schema:
            return '("True" | "False")'
        return parameters.json(schema)


class _Harmony:
    """Outputs made of messages: thoughts, then a call or the answer. The prompt began the first header."""

    def __init__(self, lark: Lark, table: Channels, wanted: Wanted) -> None:
        self.lark = lark
        self.table = table
        self.wanted = wanted

    def start(self) -> str:
        table, lark, wanted = self.table, self.lark, self.wanted
        again = lark.literal(table.start + table.role)
        thought = lark.rule(f"{self._header(table.reasoning[0])} {lark.text_up_to(table.ends[0])} {again}")
        ends = [self._call(tool) for tool in wanted.tools]
        if not wanted.forced:
            ends.append(self._answer())
        note = ""
        if not wanted.forced and wanted.tools and wanted.content is None:
            note = f"({self._header(table.content[1])} {lark.text_up_to(table.ends[0])} {again})?"
        return f"{thought}* {note} {either(ends)}"

    def _answer(self) -> str:
        content = self.wanted.content
        text = f"/{TEXT}/" if content is None else content_rule(self.lark, content)
        if content is None:
            text = self.lark.term(text) + "?"
        return self.lark.rule(f"{self._header(self.table.content[0])} {text}")

    def _call(self, tool: Tool) -> str:
        table, lark = self.table, self.lark
        to = f"{table.channel}{table.content[1]} {table.recipient}{_name(tool)} "
        head = lark.literal(f"{to}{table.constrain}{table.kinds[0]}{table.message}")
        return lark.rule(f"{head} {lark.json(_schema(tool))} ({lark.literal(table.ends[1])})?")

    def _header(self, channel: str) -> str:
        return self.lark.literal(f"{self.table.channel}{channel}{self.table.message}")


def _schema(tool: Tool) -> dict[str, Any]:
    """The schema of all arguments, which are an object."""
    schema = {"type": "object", "properties": {}, **(tool.parameters or {})}
    if schema["type"] != "object":
        raise Inexpressible(f"the parameters of {tool.name} are no object")
    return closed(schema)


def _name(tool: Tool) -> str:
    """A tool's name, where it is not in quotes."""
    if not NAME.fullmatch(tool.name) or len(tool.name) > MAX_NAME:
        raise Inexpressible(f"{tool.name!r} cannot be the name of a tool")
    return tool.name


def _tag(key: str) -> str:
    """A parameter's name, where it is not in quotes."""
    if not re.fullmatch(r'[^<>"\n]+', key) or key != key.strip() or len(key) > MAX_NAME:
        raise Inexpressible(f"{key!r} cannot be the name of a parameter")
    return key


def _ways(body: XmlCall) -> tuple[str, str]:
    """What follows a parameter's name before a value as it stands, and before one in JSON."""
    by_kind = {kind: mark for mark, kind in body.parameter_named.items()}
    untold = by_kind.get("", "")
    return by_kind.get("text", untold), by_kind.get("json", untold)


def _is_list(body: Body) -> bool:
    return isinstance(body, JsonList | Pythonic)


def _mark(body: Body) -> str:
    """What a chat template shows that writes calls in this body."""
    match body:
        case NamedJson():
            return next((s for s in body.separators if s), "")
        case TagCall():
            return body.key_open
        case XmlCall():
            return body.open
    return ""
