"""Constraints made to break compilers: by recursion, by states that multiply, by sheer size.

Each of CORPUS must be refused, but for HARMLESS: llguidance unfolds them only as far as an output goes, which
its limits of a step bound. `random_bomb` makes others, which must be refused or compiled within limits.
"""

from __future__ import annotations

import json
import random
from typing import Any

_ANY: dict[str, Any] = {"type": "object"}


def nested_objects(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """Each definition refers to the next one twice: 2 ** levels, if written out."""
    defs: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    defs[f"d{levels}"] = {"type": "object", "properties": {"x": {"type": "string"}}}
    return {"$defs": defs, "$ref": "#/$defs/d0"}


def product(parts: int, alternatives: int) -> dict[str, Any]:
    """allOf over anyOf: alternatives ** parts combinations."""
    return {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}_{j}": {"const": j}}} for j in range(alternatives)]}
            for i in range(parts)
        ]
    }


def lark_doubling(levels: int) -> str:
    rules = [f"r{i}: r{i + 1} r{i + 1}" for i in range(levels)]
    return "\n".join(["start: r0", *rules, f'r{levels}: "a" | "b"'])


# What `structured_outputs` is asked for, by what is wrong with it.
CORPUS: dict[str, dict[str, Any]] = {
    "parentheses": {"regex": "(" * 2000 + "a" + ")" * 2000},
    "parentheses, 30000": {"regex": "(" * 30000 + "a" + ")" * 30000},
    "repeats of repeats": {"regex": "((((a{1,100}){1,100}){1,100}){1,100}){1,100}"},
    "a billion repeats": {"regex": "a{1,1000000000}"},
    "a billion repeats at least": {"regex": "(ab|c){1000000000,}"},
    "states that multiply": {"regex": ".*a.{200}b" * 4},
    "the 20th from the end": {"regex": "(.*a.{20}){20}"},
    "classes": {"regex": r"(\p{L}{1,999}\p{N}{1,999}){1,999}"},
    "unbalanced": {"regex": "([" * 500},
    "look around": {"regex": "(?=a)(?<!b)a"},
    "back reference": {"regex": r"(a+)\1"},
    "regex too long": {"regex": "a" * 5000},
    "lark parentheses": {"grammar": "start: " + "(" * 30000 + '"a"' + ")" * 30000},
    "lark recursion without end": {"grammar": "start: a\na: b\nb: a"},
    "lark rule that is not there": {"grammar": "start: nowhere"},
    "lark repeats": {"grammar": 'start: "a"{1000000000}'},
    "lark repeats of repeats": {"grammar": 'start: x{1000}\nx: y{1000}\ny: z{1000}\nz: "a"{1000}'},
    "lark too long": {"grammar": "start: " + " | ".join(f'"{i:09d}"' for i in range(30000))},
    "lark terminals that recur": {"grammar": "start: A\nA: B\nB: A"},
    "lark that is no grammar": {"grammar": "\x00\x01{{{{" * 1000},
    "gbnf recursion": {"grammar": "root ::= a\na ::= b\nb ::= a"},
    "schema too deep": {"json": nested_objects(65)},
    "schema too large": {"json": {"enum": ["x" * 70000]}},
    "reference to itself": {"json": {"$ref": "#"}},
    "references in a ring": {
        "json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    },
    "reference to nowhere": {"json": {"$ref": "#/$defs/none"}},
    "reference to elsewhere": {"json": {"$ref": "http://127.0.0.1:1/schema.json"}},
    "reference to a file": {"json": {"$ref": "file:///etc/passwd"}},
    "doubling": {"json": doubling(40)},
    "pattern with a billion": {"json": {"type": "string", "pattern": "^a{1,1000000000}$"}},
    "pattern that multiplies": {"json": {"type": "string", "pattern": "^" + ".*a.{200}b" * 4 + "$"}},
    "length of a billion": {"json": {"type": "string", "minLength": 10**9, "maxLength": 10**9}},
    "items of a billion": {"json": {"type": "array", "items": {"type": "string"}, "minItems": 10**9}},
    "numbers beyond": {"json": {"type": "integer", "minimum": 10**400}},
    "nothing satisfies it": {"json": {"type": "string", "minLength": 5, "maxLength": 3}},
    "unknown keyword": {"json": {"type": "object", "unevaluatedProperties": False, "dependentSchemas": {}}},
    "too many choices": {"choice": [f"{i}" for i in range(5000)]},
    "no choice": {"choice": []},
    "tags without structures": {"structural_tag": {"structures": [], "triggers": ["<"]}},
    "tags with a bomb": {
        "structural_tag": {
            "structures": [{"begin": "<a>", "schema": doubling(40), "end": "</a>"}],
            "triggers": ["<a"],
        }
    },
}


HARMLESS = {
    "repeats of repeats",
    "a billion repeats",
    "a billion repeats at least",
    "states that multiply",
    "the 20th from the end",
    "classes",
    "lark repeats",
    "lark repeats of repeats",
    "doubling",
    "pattern with a billion",
    "pattern that multiplies",
    "length of a billion",
    "items of a billion",
    "tags with a bomb",
}


def random_bomb(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["regex", "grammar", "json", "json"])
    if kind == "regex":
        return {"regex": _regex(rng, rng.randint(1, 8))[:4096] or "a"}
    if kind == "grammar":
        return {"grammar": _lark(rng)}
    schema = _schema(rng, rng.randint(1, 8))
    schema["$defs"] = {f"d{i}": _schema(rng, 2) for i in range(4)}
    return {"json": schema} if len(json.dumps(schema)) < 60000 else {"json": _ANY}


def _regex(rng: random.Random, depth: int) -> str:
    if depth == 0:
        return rng.choice(["a", ".", r"\d", "[a-z]", r"\p{L}", "(", ")", "[", "\\", "é", "^", "$"])
    parts = [_regex(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    body = rng.choice(["", "|"]).join(parts)
    high = rng.choice([1, 2, 10, 1000, 10**6, 2**31, 2**64])
    return rng.choice([body, f"({body})*", f"({body})+", f"({body}){{0,{high}}}", f"({body}){{{high}}}"])


def _lark(rng: random.Random) -> str:
    names = [f"r{i}" for i in range(rng.randint(1, 12))]
    lines = ["start: r0"]
    for name in names:
        parts = [
            rng.choice([*names, '"a"', '""', f"/{_regex(rng, 2)}/", "%json {}", "<[1-9]>"])
            + rng.choice(["", "*", "+", "?", "{1000}"])
            for _ in range(rng.randint(1, 5))
        ]
        lines.append(f"{name}: " + rng.choice([" ", " | "]).join(parts))
    return "\n".join(lines)


def _schema(rng: random.Random, depth: int) -> dict[str, Any]:
    if depth == 0:
        return rng.choice(
            [
                {"type": "string", "pattern": _regex(rng, 2)},
                {"type": "string", "maxLength": rng.choice([0, 1, 10**5, 2**63])},
                {
                    "type": "number",
                    "minimum": rng.choice([-1, 0.1, 2**70]),
                    "multipleOf": rng.choice([0, 0.1, 7]),
                },
                {"enum": [rng.choice([None, 1, "a" * 999, {}, []]) for _ in range(rng.randint(0, 50))]},
                {"$ref": f"#/$defs/d{rng.randint(0, 4)}"},
                {"format": rng.choice(["date", "ipv6", "uri", "no"])},
                {},
            ]
        )
    parts = [_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    return rng.choice(
        [
            {
                "type": "object",
                "properties": {f"k{i}": part for i, part in enumerate(parts)},
                "required": ["k0"],
            },
            {"type": "array", "items": parts[0], "minItems": rng.choice([0, 1, 10**6])},
            {rng.choice(["allOf", "anyOf", "oneOf"]): parts},
            {"type": "array", "prefixItems": parts, "items": False},
            {"type": "object", "additionalProperties": parts[0], "minProperties": rng.choice([0, 3, 10**6])},
            {"not": parts[0]},
        ]
    )
