"""Regular expressions of tenon do not backtrack: Python's `re` takes exponential time, or quadratic, on some.

An expression passes that has no repeat within a repeat, no two repeats side by side that a character could
belong to both of, no repeat in front that may begin anywhere, and no back reference. The others are listed
here, each with why it is linear where it is used.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

ROOT = Path(__file__).parents[1] / "tenon"
USES = {"compile", "match", "search", "sub", "subn", "split", "findall", "fullmatch", "finditer"}
MANY = 128  # repeats up to so many cost a constant
CHARS = [*map(chr, range(256)), "\u0100", "\u4e00", "\u0660", "\u2003"]

# By (file, expression).
LINEAR = {
    ("server/body.py", r"application/([a-z0-9.+-]*\+)?json\s*(;|\Z)"): "one header, and the class ends at +",
    ("server/schema/decode.py", r" - at `(?:key in )?\$\.?([^`]*)`\Z"): "a message of msgspec's own",
    ("config.py", r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]{0,3})\s*"): "fullmatch of an option",
    ("resolve.py", r"(?P<id>\w[\w.-]*/\w[\w.-]*)(:(?P<file>[\w./-]+\.gguf))?"): "fullmatch of an argument",
    ("resolve.py", r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf"): "fullmatch of a file's name",
    ("grammar/values.py", r"(?<!\\)(\\\\)*\$$"): "tried once for each run of backslashes, at its begin",
    ("grammar/values.py", r"(?<!\\)(\\\\)*(?<!\[)\^|(?<!\\)(\\\\)*\$"): "once for each run of backslashes",
    ("grammar/lark.py", r"(?<!\\)((?:\\\\)*)/"): "once for each run of backslashes",
    ("server/schema/measure.py", r'"[^"\\]*(?:\\.[^"\\]*)*"'): "one way to match, over whole strings",
    ("server/schema/measure.py", r'(?:[^"]*"[^"\\]*(?:\\.[^"\\]*)*")*'): "one way to match, at one place",
    ("server/schema/measure.py", r'[^"\\]*(?:\\.[^"\\]*)*'): "one way to match, at one place",
}


def expressions() -> Iterator[tuple[str, int, str | None, int]]:
    """(file, line, expression or None if it cannot be known, flags) of every use."""
    for path in sorted(ROOT.rglob("*.py")):
        file = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr in USES
            ):
                flags = 0
                for name in ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII"):
                    if any(isinstance(n, ast.Attribute) and n.attr == name for n in ast.walk(node)):
                        flags |= getattr(re, name)
                yield file, node.lineno, _text(node.args[0]), flags


def _text(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.Constant(bytes(data)):
            return data.decode("latin-1")
        case ast.JoinedStr(parts):
            return "".join("x" if isinstance(p, ast.FormattedValue) else str(p.value) for p in parts)
    return None


# Whose expressions are put together: literals, escaped, with "|" between them.
COMPOSED = {
    "parse/source.py",
    "grammar/lark.py",
    "models/_fields.py",
    "layers/weights.py",
    "server/guard.py",
}


def fault(expression: str, flags: int) -> str | None:
    """Why an expression may take more than linear time."""
    try:
        tree = parser.parse(expression, flags)
    except re.error:
        return "it cannot be read"
    if _has(tree, {sre.GROUPREF, sre.GROUPREF_EXISTS}):
        return "a back reference"
    return _in_sequence(list(tree), first=True)


def _in_sequence(items: list[Any], first: bool) -> str | None:
    before: set[str] = set()  # what a repeat that may still go on here can take
    for index, (op, value) in enumerate(items):
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _, most, body = value
            many = most is sre.MAXREPEAT or most > MANY
            if many and _has(body, {sre.MAX_REPEAT, sre.MIN_REPEAT}):
                return "a repeat within a repeat"
            begins = _begins(list(body))
            if many and before & begins:
                return "two repeats of the same side by side"
            if many and first and index == 0 and len(items) > 1:
                return "a repeat in front"
            before = (before if value[0] == 0 else set()) | (begins if many else set())
            if (inner := _in_sequence(list(body), first=False)) is not None:
                return inner
        elif op is sre.BRANCH:
            for branch in value[1]:
                if (inner := _in_sequence(list(branch), first and index == 0)) is not None:
                    return inner
            before = set()
        elif op is sre.SUBPATTERN:
            if (inner := _in_sequence(list(value[3]), first and index == 0)) is not None:
                return inner
            before = set()
        elif op is not sre.AT and op not in (sre.ASSERT, sre.ASSERT_NOT):
            before = set()
    return None


def _begins(items: list[Any]) -> set[str]:
    """Characters that a sequence can begin with."""
    out: set[str] = set()
    for op, value in items:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            out |= _begins(list(value[2]))
            if value[0] == 0:
                continue
        elif op is sre.SUBPATTERN:
            out |= _begins(list(value[3]))
        elif op is sre.BRANCH:
            for branch in value[1]:
                out |= _begins(list(branch))
        elif op in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            continue
        else:
            out |= _class(op, value)
        break
    return out


def _class(op: Any, value: Any) -> set[str]:
    if op is sre.LITERAL:
        return {chr(value)}
    if op is sre.NOT_LITERAL:
        return set(CHARS) - {chr(value)}
    if op is not sre.IN:
        return set(CHARS)
    out: set[str] = set()
    for kind, what in value:
        if kind is sre.LITERAL:
            out.add(chr(what))
        elif kind is sre.RANGE:
            out |= {c for c in CHARS if what[0] <= ord(c) <= what[1]}
        elif kind is sre.CATEGORY:
            test = {"DIGIT": str.isdigit, "SPACE": str.isspace, "WORD": lambda c: c.isalnum() or c == "_"}
            name = str(what).removeprefix("CATEGORY_").removeprefix("UNI_")
            found = {c for c in CHARS if test[name.removeprefix("NOT_")](c)}
            out |= set(CHARS) - found if name.startswith("NOT_") else found
    return set(CHARS) - out if value[0][0] is sre.NEGATE else out


def _has(items: Any, ops: set[Any]) -> bool:
    return any(op in ops or any(_has(part, ops) for part in _parts(value)) for op, value in items)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, parser.SubPattern):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part)


def test_every_expression_is_linear():
    wrong = []
    for file, line, expression, flags in expressions():
        if expression is None:
            if file not in COMPOSED:
                wrong.append(f"tenon/{file}:{line} puts an expression together")
        elif (file, expression) not in LINEAR and (why := fault(expression, flags)) is not None:
            wrong.append(f"tenon/{file}:{line} {expression!r} has {why}: may it take quadratic time?")
    assert not wrong, "\n".join(wrong)
    used = {(file, expression) for file, _, expression, _ in expressions()}
    assert not LINEAR.keys() - used, "these are not used any more"


@pytest.mark.parametrize(
    "expression",
    [
        "(a+)+$",
        "(a|b*)*c",
        r"\s*\s+x",
        r"\w+\d+:",
        r"(\w+)=\1",
        ".*x.*y",
        r"\s*::=",
        "(?:a*b?)*",
        "xa{1,1000}a+",
    ],
)
def test_what_backtracks_is_seen(expression):
    assert fault(expression, 0) is not None


@pytest.mark.parametrize(
    "expression", ["x[^a]+a", "xa+b+", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", r"\w+", "^ *x", "a{1,9}a"]
)
def test_what_does_not_passes(expression):
    assert fault(expression, 0) is None


def test_letters_are_known():
    assert _class(sre.IN, parser.parse(r"[a-z]")[0][1]) == set(string.ascii_lowercase)
