"""Regular expressions of requests, to grammars."""

from __future__ import annotations

from fuzz.grammars import follow
from tenon.core.structured import StructuredOutputs
from tenon.errors import InvalidRequest

EXPECTED = (InvalidRequest,)
SECONDS = 2.0
_WORDS = (
    r"(a+)+ [a-z] [^a] \d \w \s \b \p{L} {1,9} {1000} (?: (?i) (?= (?<= (?P<x> \1 .* ^ $ | \x{10FFFF} & ~ \Q"
)
DICTIONARY = [word.encode() for word in _WORDS.split()]


def seeds() -> dict[str, bytes]:
    expressions = {
        "word": r"[a-z]+",
        "date": r"\d{4}-\d{2}-\d{2}",
        "nested": r"(a+)+$",
        "classes": r"[\w\-.]+@[\p{L}\d]+\.(com|org)",
        "any": r"(?s:.*)",
        "powers": r"((((a{99}){99}){99}){99}){99}",
        "alternatives": "|".join(f"(a{i}.*b)" for i in range(60)),
        "back reference": r"(a)\1",
        "look around": r"(?=a)(?<!b)c",
        "groups": "(" * 500 + "a" + ")" * 500,
        "counted": r".{0,2000}x.{0,2000}",
        "empty": "",
        "nothing": r"[^\s\S]",
        "intersection": r"(a.*)&(.*b)",
    }
    return {label: text.encode() for label, text in expressions.items()}


def run(data: bytes) -> None:
    follow(StructuredOutputs(regex=data.decode("utf-8", "replace")))
