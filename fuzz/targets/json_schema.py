"""JSON schemas of requests, to grammars."""

from __future__ import annotations

import json
from typing import Any

from fuzz.grammars import follow
from tenon.core.structured import StructuredOutputs
from tenon.errors import InvalidRequest

EXPECTED = (InvalidRequest,)
SECONDS = 2.0
_WORDS = "type object array string number integer boolean null properties required additionalProperties items"
_WORDS += (
    " prefixItems minItems maxItems minLength maxLength pattern format enum const anyOf oneOf allOf not $ref"
)
_WORDS += " $defs definitions minimum maximum multipleOf patternProperties dependentRequired if then else"
_WORDS += " unevaluatedProperties contains uniqueItems date-time uuid x-guidance #/$defs/a # minProperties"
DICTIONARY = [f'"{word}"'.encode() for word in _WORDS.split()]


def seeds() -> dict[str, bytes]:
    text = {"type": "string"}
    schemas: dict[str, Any] = {
        "object": {"type": "object", "properties": {"a": text, "b": {"type": "integer"}}, "required": ["a"]},
        "array": {"type": "array", "items": {"type": "number", "minimum": -1}, "minItems": 1, "maxItems": 3},
        "enum": {"enum": ["x", 1, None, True, {"a": []}]},
        "recursive": {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}},
        "ref to itself": {"$ref": "#"},
        "two refs": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "ref away": {"$ref": "https://example.com/schema.json"},
        "pattern": {"type": "string", "pattern": "^[a-z]{1,9}$"},
        "bad pattern": {"type": "string", "pattern": "(a+)+$(?<=x)"},
        "huge repeat": {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
        "formats": {"type": "string", "format": "date-time"},
        "bounds": {"type": "integer", "minimum": -(10**30), "maximum": 10**30},
        "lengths": {"type": "string", "minLength": 10**9, "maxLength": 10**10},
        "items": {"type": "array", "minItems": 10**6},
        "wide": {"type": "object", "properties": {f"p{i}": text for i in range(300)}},
        "all of": {"allOf": [{"type": "object"}, {"properties": {"a": {"anyOf": [text, {"type": "null"}]}}}]},
        "type a number": {"type": 3},
        "false": {"not": {}},
        "multiple": {"type": "number", "multipleOf": 1e-300},
    }
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}}
    return {label: json.dumps(schema).encode() for label, schema in (schemas | {"deep": deep}).items()}


def run(data: bytes) -> None:
    follow(StructuredOutputs(json=data.decode("utf-8", "surrogateescape")))
