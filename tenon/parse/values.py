"""Parameter values that are written as bare text, turned into JSON by the type in the tool's schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
_NUMBERS = {"integer", "number"}
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}


class Tools:
    """The tools of a request by name, as far as decoding their calls needs them."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        functions = [tool.get("function", tool) for tool in tools if isinstance(tool, Mapping)]
        self._parameters = {
            function["name"]: function.get("parameters")
            for function in functions
            if isinstance(function, Mapping) and isinstance(function.get("name"), str)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def types(self, name: str, parameter: str) -> frozenset[str]:
        """JSON schema types a parameter may have; empty when nothing is known of it."""
        root = self._parameters.get(name)
        properties = root.get("properties") if isinstance(root, Mapping) else None
        schema = properties.get(parameter) if isinstance(properties, Mapping) else None
        return frozenset(_types(schema, root, depth=8))


def _types(schema: Any, root: Any, depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping) or not depth:
        return
    kind = schema.get("type")
    yield from [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else ()
    for value in schema["enum"] if isinstance(schema.get("enum"), list) and kind is None else ():
        yield "null" if value is None else _KINDS.get(type(value), "string")
    for union in ("anyOf", "oneOf", "allOf"):
        for part in schema[union] if isinstance(schema.get(union), list) else ():
            yield from _types(part, root, depth - 1)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        yield from _types(_lookup(root, reference[2:].split("/")), root, depth - 1)


def _lookup(node: Any, path: list[str]) -> Any:
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def is_text(types: frozenset[str]) -> bool:
    """Whether a value can only be a string, so that it may stream as it comes."""
    return types == {"string"}


def encode(text: str, types: frozenset[str]) -> str:
    """JSON text for a value written as `text`.

    A JSON literal of an allowed type stays as it is written; anything else is a string. Without types every
    literal is allowed.
    """
    literal = text.strip()
    word = _WORDS.get(literal.lower())
    if word and (literal == word or types):
        literal = word
    kind = _kind(literal)
    if kind is None or (types and not _allowed(kind, types)):
        return quote(text)
    return literal


def _kind(literal: str) -> str | None:
    """JSON schema type of a JSON text, None if it is not one."""
    try:
        value = json.loads(literal, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return "null" if value is None else _KINDS[type(value)]


def _allowed(kind: str, types: frozenset[str]) -> bool:
    """Numbers pass for integers and the other way round: a string would be further off."""
    return kind in types or (kind in _NUMBERS and not types.isdisjoint(_NUMBERS))


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def escape(text: str) -> str:
    """Text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def quote(text: str) -> str:
    return f'"{escape(text)}"'
