"""Values written as bare text, by the types of a tool's schema."""

from __future__ import annotations

import pytest

from tenon.parse.values import Tools, encode, escape, is_text, quote

SCHEMA = {
    "$defs": {"size": {"enum": ["s", "m", 3, None]}, "loop": {"$ref": "#/$defs/loop"}},
    "properties": {
        "s": {"type": "string"},
        "u": {"type": ["string", "null"]},
        "a": {"anyOf": [{"type": "integer"}, {"oneOf": [{"type": "boolean"}]}]},
        "r": {"$ref": "#/$defs/size"},
        "l": {"$ref": "#/$defs/loop"},
        "x": {"$ref": "http://elsewhere"},
        "n": None,
        "o": {"enum": [{"a": 1}, ("no", "JSON")]},
        "t": {"type": 5, "enum": 3, "anyOf": "?"},
    },
}
TOOLS = Tools([{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}, {"name": "g"}, {}, 3])


@pytest.mark.parametrize(
    ("parameter", "types"),
    [
        ("s", {"string"}),
        ("u", {"string", "null"}),
        ("a", {"integer", "boolean"}),
        ("r", {"string", "integer", "null"}),
        ("o", {"object", "string"}),
        *((name, set()) for name in ("l", "x", "n", "t", "unknown")),
    ],
)
def test_types(parameter, types):
    assert TOOLS.types("f", parameter) == types
    assert is_text(TOOLS.types("f", parameter)) == (parameter == "s")


def test_tools():
    assert "f" in TOOLS
    assert "g" in TOOLS
    assert "h" not in TOOLS
    assert TOOLS.types("g", "s") == TOOLS.types("h", "s") == set()
    assert Tools([{"name": "g", "parameters": SCHEMA}]).types("g", "s") == {"string"}


@pytest.mark.parametrize(
    ("text", "types", "json"),
    [
        ("12", {"integer"}, "12"),
        (" 12\n", {"integer"}, "12"),
        ("1.5", {"integer"}, "1.5"),
        ("12", {"number"}, "12"),
        ("12", {"string", "integer"}, "12"),
        ("12", {"boolean"}, '"12"'),
        ("twelve", {"integer"}, '"twelve"'),
        ("True", {"boolean"}, "true"),
        ("FALSE", {"boolean"}, "false"),
        ("None", {"null", "string"}, "null"),
        ("None", {"boolean"}, '"None"'),
        ("True", set(), '"True"'),
        ("true", set(), "true"),
        ('{"a": [1]}', {"object"}, '{"a": [1]}'),
        ('{"a": [1]}', {"array"}, '"{\\"a\\": [1]}"'),
        ('"quoted"', {"string", "null"}, '"quoted"'),
        (" text ", set(), '" text "'),
        ("", set(), '""'),
        ("NaN", {"number"}, '"NaN"'),
        ("Infinity", set(), '"Infinity"'),
        ("[" * 100_000, set(), '"' + "[" * 100_000 + '"'),
        ("1" * 10_000, set(), '"' + "1" * 10_000 + '"'),
    ],
)
def test_encode(text, types, json):
    assert encode(text, frozenset(types)) == json


def test_escape():
    assert escape('a"b\\\n\x00é🙂') == 'a\\"b\\\\\\n\\u0000é🙂'
    assert quote("é") == '"é"'
