"""Every field of a schema by its path, and JSON texts to put there: from the msgspec structs, not by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

DEPTH = 5  # of fields inside of fields

# As JSON: some of them no Python value can stand for. An empty text leaves the field away.
VALUES: dict[str, str] = {
    "absent": "",
    "null": "null",
    "false": "false",
    "true": "true",
    "zero": "0",
    "one": "1",
    "minus one": "-1",
    "minus zero": "-0",
    "a fraction": "1.5",
    "2^31 - 1": str(2**31 - 1),
    "2^31": str(2**31),
    "2^53 + 1": str(2**53 + 1),
    "2^63": str(2**63),
    "-2^63 - 1": str(-(2**63) - 1),
    "2^64": str(2**64),
    "10^400": "1" + "0" * 400,
    "1e308": "1e308",
    "1e999": "1e999",
    "-1e999": "-1e999",
    "5e-324": "5e-324",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "an empty text": '""',
    "a text": '"x"',
    "a number as text": '"1"',
    "NUL": '"\\u0000"',
    "half a character": '"\\ud800"',
    "bytes": '"\\u00ff\\uffff"',
    "1 MB of text": json.dumps("x" * 1_000_000),
    "an empty list": "[]",
    "null in a list": "[null]",
    "a number in a list": "[1]",
    "a negative number in a list": "[-1]",
    "a text in a list": '["x"]',
    "a large list": "[" + ",".join(["1"] * 10_000) + "]",
    "an empty object": "{}",
    "an object": '{"a":1}',
    "an object of type": '{"type":"x"}',
    "no name": '{"":null}',
    "lists in lists": "[" * 100_000 + "]" * 100_000,
    "objects in objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "lists without an end": "[" * 100_000,
}

Path = tuple[str | int, ...]


def fields(schema: type) -> Iterator[tuple[Path, Any]]:
    """The path of every field, and an example of what holds it: `(("stop",), {})`, `(("messages", 0, "role"),
    {"messages": [{...}]})`."""
    yield from _fields(inspect.type_info(schema), (), 0)


def _fields(kind: inspect.Type, path: Path, depth: int) -> Iterator[tuple[Path, Any]]:
    if depth > DEPTH:
        return
    match kind:
        case inspect.StructType():
            whole = example(kind)
            for field in kind.fields:
                yield (*path, field.encode_name), whole
                for inner, holder in _fields(field.type, (*path, field.encode_name), depth + 1):
                    yield inner, {**whole, field.encode_name: holder}
        case inspect.UnionType(types=kinds):
            for one in kinds:
                yield from _fields(one, path, depth + 1)
        case inspect.ListType(item_type=item):
            for inner, holder in _fields(item, (*path, 0), depth + 1):
                yield inner, [holder]


def example(kind: inspect.Type) -> Any:
    """The least that is valid."""
    match kind:
        case inspect.StructType():
            tagged = {kind.tag_field: kind.tag} if kind.tag_field else {}
            return tagged | {f.encode_name: example(f.type) for f in kind.fields if f.required}
        case inspect.UnionType(types=kinds):
            return example(kinds[0])
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.ListType(item_type=item):
            return [example(item)] if isinstance(item, inspect.StructType) else []
        case inspect.DictType():
            return {}
        case inspect.StrType() | inspect.AnyType():
            return "x"
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.BoolType():
            return True
        case inspect.NoneType():
            return None
    raise TypeError(kind)


MARK = "@here@"


def with_value(good: dict[str, Any], path: Path, holder: dict[str, Any], value: str) -> bytes:
    """A good body, with `value` at `path`; what holds it comes from the example where the body has it not."""
    name = path[0]
    inside: Any = good | ({name: holder[name]} if len(path) > 1 else {})
    body = inside = json.loads(json.dumps(inside))
    for key in path[:-1]:
        inside = inside[key]
    if not value:
        inside.pop(path[-1], None)
        return json.dumps(body).encode()
    inside[path[-1]] = MARK
    return json.dumps(body).replace(f'"{MARK}"', value).encode()


def schemas(app: Any) -> dict[str, type[msgspec.Struct]]:
    """Of every route that reads JSON, by its path."""
    from tenon.server.body import Json

    endpoints = {route.path: route.app for route in app.routes}
    posts = {path: endpoint.methods.get("POST") for path, endpoint in endpoints.items()}
    return {path: post.schema for path, post in posts.items() if isinstance(post, Json)}
