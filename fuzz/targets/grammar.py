"""Lark, EBNF, choices and structural tags of requests, to grammars. The first letter says which."""

from __future__ import annotations

import importlib.util
import json

from fuzz.grammars import VOCABULARY, follow
from tenon.core.structured import StructuredOutputs
from tenon.errors import InvalidRequest
from tenon.grammar import select

EXPECTED = (InvalidRequest,)
if importlib.util.find_spec("xgrammar"):
    select.backend("xgrammar").load(VOCABULARY)  # brings torch: seconds that are no input's
SECONDS = 2.0
_WORDS = (
    "start: ::= root %ignore %import common.INT %json{} %regex{} @x <|tool|> (a|b)+ [x] ? * /a+/ /(?i)x/i"
)
_WORDS += (
    ' "a" "begin" "end" "schema" "structures" "triggers" "tags" "format" "type" "content" ~3..5 stop="x"'
)
DICTIONARY = [word.encode() for word in _WORDS.split()]


def seeds() -> dict[str, bytes]:
    lark = {
        "sum": 'start: n ("+" n)*\nn: /[0-9]+/',
        "terminals": 'start: WORD " " WORD\nWORD: /[a-z]+/',
        "json": 'start: "x" %json {"type": "object"}',
        "special": 'start: <|tool|> "a"',
        "left recursion": 'start: start "a" |',
        "no end": 'start: "a" start',
        "ambiguous": 'start: a a a a a a\na: "x"? "x"? a?',
        "undefined": "start: nothing",
        "ebnf": 'root ::= "a" item*\nitem ::= [0-9] | "(" root ")"',
        "lazy": 'start: T "end"\nT[lazy]: /.*x/',
        "long": "start: " + " | ".join(f'"w{i}"' for i in range(800)),
        "deep": "start: " + "(" * 800 + '"a"' + ")" * 800,
    }
    tag = {
        "structures": [{"begin": "<f>", "schema": {"type": "object"}, "end": "</f>"}],
        "triggers": ["<f"],
    }
    found = {label: f"l{text}" for label, text in lark.items()}
    found |= {"tag": f"t{json.dumps(tag)}", "no tag": "t{}", "choices": 'c["a", "ab", "\\u00e9"]'}
    found |= {"tag form 2": 't{"type": "structural_tag", "format": {"type": "any_text"}}'}
    return {label: text.encode() for label, text in found.items()}


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if text[:1] == "t":
        follow(StructuredOutputs(structural_tag=text[1:]))
    elif text[:1] == "c":
        try:
            choices = json.loads(text[1:])
        except (ValueError, RecursionError):
            choices = text[1:].split(",")
        follow(StructuredOutputs(choice=choices))
    else:
        follow(StructuredOutputs(grammar=text[1:]))
