"""What is wrong in a body, said in terms of the request."""

from __future__ import annotations

import msgspec
import pytest

from tenon.server.errors import ApiError
from tenon.server.schema.decode import convert, decode


class Part(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    many: list[int] = []


class Body(msgspec.Struct, forbid_unknown_fields=True):
    part: Part
    by_name: dict[str, Part] = {}
    parts: list[Part] = []


def said(function, *given, **more) -> tuple:
    with pytest.raises(ApiError) as error:
        function(*given, **more)
    assert error.value.status == 400
    assert error.value.__cause__ is None
    return error.value.message, error.value.param, error.value.code


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{}", ("part is required", "part", "missing_field")),
        ('{"part": {}}', ("part.kind is required", "part.kind", "missing_field")),
        ('{"part": {"kind": "a"}, "x": 1}', ("x is not a field of this request", "x", "unknown_field")),
        (
            '{"part": {"kind": "a"}, "parts": [{"kind": "a"}, {"kind": "a", "y": 1}]}',
            ("parts[1].y is not a field of this request", "parts[1].y", "unknown_field"),
        ),
        (
            '{"part": {"kind": 3}}',
            ("part.kind: Expected 'str', got 'int'", "part.kind", "invalid_value"),
        ),
        (
            '{"part": {"kind": "a", "many": [1, "x"]}}',
            ("part.many[1]: Expected 'int', got 'str'", "part.many[1]", "invalid_value"),
        ),
        ("[]", ("Expected 'object', got 'array'", None, "invalid_value")),
        (
            '{"part": {"kind": "a"}, "by_name": {"n": {"kind": 1}}}',
            ("by_name[...].kind: Expected 'str', got 'int'", "by_name[...].kind", "invalid_value"),
        ),
        ("", ("the body is not valid JSON: Input data was truncated", None, "invalid_json")),
        ("{", ("the body is not valid JSON: Input data was truncated", None, "invalid_json")),
        (b'{"part": {"kind": "\xff"}}', ("the body is not valid UTF-8", None, "invalid_json")),
        ('{"z": ' + "[" * 100_000, ("the body is nested too deeply", None, "invalid_json")),
    ],
    ids=len,  # mutmut asks for tests by name, and cannot quote
)
def test_what_is_wrong(body, error):
    schema = dict if error[0].endswith("deeply") else Body
    assert said(decode, body if isinstance(body, bytes) else body.encode(), schema) == error


def test_what_is_right():
    body = b'{"part": {"kind": "a", "many": [1]}}'
    assert decode(body, Body) == decode(bytearray(body), Body) == Body(Part("a", [1]))


def test_a_part_of_a_request():
    assert convert({"kind": "a", "many": [1]}, Part) == Part("a", [1])
    wrong = {"kind": "a", "many": ["1"]}
    message = "many[0]: Expected 'int', got 'str'"
    assert said(convert, wrong, Part) == (message, "many[0]", "invalid_value")
    assert said(convert, wrong, Part, where="tools[2]") == (
        f"tools[2].{message}",
        "tools[2].many[0]",
        "invalid_value",
    )
    assert said(convert, {}, Part, where="tools") == ("tools.kind is required", "tools.kind", "missing_field")
    assert said(convert, 3, Part, where="tools") == (
        "tools: Expected 'object', got 'int'",
        "tools",
        "invalid_value",
    )
    assert convert(wrong, Part, texts=True) == Part("a", [1])  # a query has nothing but texts
