"""Arguments of tool calls as grammars: as one JSON object, between tags, as Python's literals, in braces.

What is written must come back from `tenon.parse` as a value that satisfies the schema. Where a notation or
the parser leaves no way to be sure of that, `Inexpressible` says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tenon.grammar.lark import TEXT, Lark, either, slashed
from tenon.parse.values import Tools, is_text

MAX_ITEMS = 32  # of an array without a bound, where we count ourselves
_SCALARS = {"string", "integer", "number", "boolean", "null"}
_NOTES = {"title", "description", "default", "examples", "deprecated", "$comment", "type", "enum"}
_TEXT_KEYS = _NOTES | {"minLength", "maxLength", "pattern", "format"}
_FORMATS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}",
    "email": r"[a-zA-Z0-9_+-]{1,32}@[a-zA-Z0-9-]{1,32}(\.[a-zA-Z]{2,8}){1,2}",
}
_FORMATS["date-time"] = f"{_FORMATS['date']}T{_FORMATS['time']}"


class Inexpressible(Exception):
    """What is asked for cannot be enforced in this notation; the message says what."""


class Parameters:
    """A tool's parameters, one by one, for notations that write them so. Raises Inexpressible."""

    def __init__(self, lark: Lark, name: str, schema: Mapping[str, Any]) -> None:
        self.lark = lark
        self.name = name
        self.root = schema
        self._tools = Tools([{"name": name, "parameters": schema}])
        allowed = _NOTES | {
            "properties",
            "required",
            "additionalProperties",
            "$defs",
            "definitions",
            "$schema",
        }
        if others := schema.keys() - allowed - {"strict"}:
            raise Inexpressible(f"the parameters of {name} use {sorted(others)[0]} beside their properties")
        properties = schema.get("properties") or {}
        missing = [key for key in schema.get("required") or () if key not in properties]
        self.properties = {**properties, **{key: {} for key in missing}}
        self.required = set(schema.get("required") or ())

    def __iter__(self) -> Iterator[tuple[str, Any, bool]]:
        """(name, schema, whether it must be there)."""
        for key, schema in self.properties.items():
            yield key, schema, key in self.required

    def is_text(self, key: str) -> bool:
        """The parser reads the value as it stands, as a string."""
        return is_text(self._tools.types(self.name, key))

    def loose_text(self, key: str) -> bool:
        """A string or null without further conditions: what is not read as null is read as a string."""
        schema = self.properties[key]
        parts = schema.get("anyOf", [schema]) if isinstance(schema, dict) else []
        kinds = self._tools.types(self.name, key)
        plain = (
            all(
                isinstance(part, dict) and part.keys() <= _NOTES - {"enum"}
                for part in [*parts, {k: v for k, v in schema.items() if k != "anyOf"}]
            )
            if isinstance(schema, dict)
            else False
        )
        return plain and kinds == {"string", "null"}

    def json(self, schema: Any) -> str:
        """A value as JSON. References of the schema lead to the definitions of the whole."""
        text = json.dumps(schema)
        for reference in re.findall(r'"\$ref": "([^"]*)"', text):
            if not reference.startswith(("#/$defs/", "#/definitions/")):
                raise Inexpressible(f"the parameters of {self.name} refer to {reference}")
        if isinstance(schema, dict):
            shared = {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}
            return self.lark.json({**shared, **schema})
        return self.lark.json({} if schema is True else {"not": {}})

    def text(self, key: str, close: str, line: str) -> str:
        """A string as it stands, up to and with `line` and the marker that closes it."""
        schema = self.properties[key]
        if isinstance(schema, dict) and ("enum" in schema or "const" in schema):
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            texts = [v for v in values if isinstance(v, str) and close not in v]
            if not texts:
                raise Inexpressible(f"no value of {self.name}.{key} can be written between its tags")
            return either(self.lark.literal(text + line + close) for text in texts)
        return free_text(self.lark, conditions(schema, f"{self.name}.{key}"), close, line)


def conditions(schema: Any, where: str) -> str:
    """What a string must match, as an expression of terminals. Raises Inexpressible."""
    if not isinstance(schema, dict):
        return f"/{TEXT}/"
    unions = [part for name in ("anyOf", "oneOf", "allOf") for part in schema.get(name, ())]
    if unions and all(isinstance(part, dict) and part.keys() <= _NOTES - {"enum"} for part in unions):
        schema = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "allOf")}
    if others := schema.keys() - _TEXT_KEYS:
        raise Inexpressible(
            f"{where} uses {sorted(others)[0]}, which a string between tags cannot be held to"
        )
    low, high = schema.get("minLength", 0), schema.get("maxLength", "")
    terms = [f"/(?s:.{{{low},{high}}})/" if low or high != "" else f"/{TEXT}/"]
    if (pattern := schema.get("pattern")) is not None:
        terms.append(slashed(searched(pattern, where)))
    if (name := schema.get("format")) is not None:
        if name not in _FORMATS:
            raise Inexpressible(f"{where} has the format {name}")
        terms.append(slashed(_FORMATS[name]))
    return " & ".join(terms)


def searched(pattern: str, where: str) -> str:
    """A regular expression for whole strings in which a pattern is found."""
    begin, end = pattern.startswith("^"), bool(re.search(r"(?<!\\)(\\\\)*\$$", pattern))
    body = pattern[begin : len(pattern) - end]
    if ("|" in body and (begin or end)) or re.search(r"(?<!\\)(\\\\)*(?<!\[)\^|(?<!\\)(\\\\)*\$", body):
        raise Inexpressible(f"the pattern of {where} has anchors in the middle")
    return f"{'' if begin else TEXT}({body}){'' if end else TEXT}"


def free_text(lark: Lark, condition: str, close: str, line: str = "") -> str:
    """Text that meets a condition, up to and with `line` and a closing marker that is nowhere in it."""
    if lark.is_token(close):
        return (
            f"{lark.term(condition)}? {lark.literal(line + close)}"
            if _may_be_empty(condition)
            else (f"{lark.term(condition)} {lark.literal(line + close)}")
        )
    inside = slashed(f"{TEXT}{re.escape(close)}{TEXT}")
    whole = lark.term(f"({condition} & ~{inside}) {lark.literal(line + close)}")
    return lark.rule(whole, "[lazy]")


def _may_be_empty(condition: str) -> bool:
    return condition == f"/{TEXT}/" or condition.startswith("/(?s:.{0,")


class Braces:
    """The notation of Gemma 4: bare keys, and strings between marks."""

    def __init__(self, parameters: Parameters, quote: str) -> None:
        self._parameters = parameters
        self._lark = parameters.lark
        self._quote = quote

    def object(self, schema: Mapping[str, Any], where: str) -> str:
        own = Parameters(self._lark, where, schema)
        members = [
            (f"{self._key(key)} {self._lark.literal(':')} {self.value(inner, f'{where}.{key}')}", needed)
            for key, inner, needed in own
        ]
        return self._lark.rule(f'"{{" {listed(self._lark, members)} "}}"')

    def value(self, schema: Any, where: str) -> str:
        if not isinstance(schema, dict):
            raise Inexpressible(f"{where} may be anything")
        if "$ref" in schema:
            raise Inexpressible(f"{where} is a reference")
        if parts := schema.get("anyOf") or schema.get("oneOf"):
            return either(self.value(part, where) for part in parts)
        if "enum" in schema or "const" in schema:
            return either(self._literal(v, where) for v in schema.get("enum", [schema.get("const")]))
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            return either(self.value({**schema, "type": one}, where) for one in kind)
        match kind:
            case "string":
                mark = self._lark.literal(self._quote)
                return f"{mark} {free_text(self._lark, conditions(schema, where), self._quote)}"
            case "object":
                return self.object(schema, where)
            case "array":
                return self._array(schema, where)
            case "integer" | "number" | "boolean" | "null":
                return self._parameters.json(schema)
        raise Inexpressible(f"{where} has no type that can be written")

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        low, high = schema.get("minItems", 0), schema.get("maxItems", MAX_ITEMS)
        if others := schema.keys() - _NOTES - {"items", "minItems", "maxItems"}:
            raise Inexpressible(f"{where} uses {sorted(others)[0]}")
        item = self.value(schema.get("items", {"type": "string"}), where)
        if high <= 0:
            return '"[]"'
        more = f'{item} ("," {item}){{{max(low - 1, 0)},{max(high, low) - 1}}}'
        return f'"[" ({more}){"?" if low == 0 else ""} "]"'

    def _key(self, key: str) -> str:
        if not re.fullmatch(r"[\w-]+", key):
            raise Inexpressible(f"{key!r} cannot be a key")
        return self._lark.literal(key)

    def _literal(self, value: Any, where: str) -> str:
        if isinstance(value, str) and self._quote not in value:
            return self._lark.literal(f"{self._quote}{value}{self._quote}")
        if value is None or isinstance(value, bool | int | float):
            return self._lark.literal(json.dumps(value))
        raise Inexpressible(f"{where} has a value that cannot be written")


def listed(lark: Lark, members: list[tuple[str, bool]], comma: str = ",") -> str:
    """Members in order with commas between them; those that need not be there may be missing."""
    if not members:
        return '""'
    # `first[i]`: from member i on when none has been written; `later[i]`: when one has.
    first = later = '""'
    for expression, needed in reversed(members):
        glued = f"{lark.literal(comma)} {expression}"
        skip_first, skip_later = first, later
        first = lark.rule(f"{expression} {skip_later}" + ("" if needed else f" | {skip_first}"))
        later = lark.rule(f"{glued} {skip_later}" + ("" if needed else f" | {skip_later}"))
    return first
