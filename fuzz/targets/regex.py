"""Regular expressions of requests, to grammars."""

from __future__ import annotations

import random

from fuzz.derive import derive, grammar
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


# A rule per line: see fuzz/derive.py.
_RULES = grammar(
    r"""
REGEX BRANCH BRANCH BRANCH,|,REGEX FLAGS,BRANCH
BRANCH ITEM ITEM ITEM,BRANCH ITEM,BRANCH ITEM,&,BRANCH ~,ITEM
ITEM ATOM ATOM ATOM,TIMES ATOM,TIMES,? ANCHOR (,REGEX,) (?:,REGEX,),TIMES
ATOM a LETTER LETTER ESCAPE ESCAPE CLASS CLASS . (,REGEX,) (?P<name>,REGEX,) RARE
RARE \1 \k<name> (?P=name) (?(1)a|b) (?=,REGEX,) (?!,REGEX,) (?<=,REGEX,) (?<!,REGEX,) (?>,REGEX,)
LETTER b x y 0 9 ‚ - " ' / é 漢 🙂 \x41 \u00e9 \x{1F600} \n \0 \cA ␣
ESCAPE \d \D \w \W \s \S \b \B \A \z \Z \Q \E \k \G \n \r \f \v \. \* \( \[ \{ \| \^ \$ \/ \\ \p{,PROPERTY,} \P{,PROPERTY,}
PROPERTY L Lu Greek Any Cn Script=Han gc=Nd ^L nonsense sc= Latin
CLASS [,MEMBERS,] [^,MEMBERS,] [,MEMBERS,&&,CLASS,] [,MEMBERS,--,CLASS,] [[:alpha:]] []]
MEMBERS MEMBER MEMBER,MEMBERS
MEMBER a-z LETTER ESCAPE CLASS 0-9 z-a - \u{0}-\u{10FFFF} ^
TIMES * + ? {2} {‚3} {2‚} {3‚2} {0} {0‚1000} {9999} {1‚2147483648}
ANCHOR ^ $ \b \A \z \B
FLAGS (?i) (?s) (?x) (?m-s) (?u) (?U) (?R) (?i-i:a) (?#comment)
"""  # noqa: E501
)


def generated(rng: random.Random) -> bytes:
    return derive(rng, _RULES, "REGEX", rng.randrange(2, 12)).encode()


def run(data: bytes) -> None:
    follow(StructuredOutputs(regex=data.decode("utf-8", "replace")))
