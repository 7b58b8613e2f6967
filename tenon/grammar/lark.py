"""Writes grammars in llguidance's variant of Lark, piece by piece.

An expression is text that may stand on the right of a rule. Special tokens are no text to a grammar: where a
literal holds the text of one, it refers to the token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tenon.grammar.schema import SPACES, without_options

TEXT = "(?s:.*)"  # a regular expression: anything


class Lark:
    """A grammar in the making. `special`: ids of special tokens by their text."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = dict(special)
        known = sorted((text for text in special if text), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, known)) + ")") if known else None
        self._rules: list[str] = []
        self._names: dict[str, str] = {}  # by definition: the same thing is written once

    def literal(self, text: str) -> str:
        parts = self._split.split(text) if self._split else [text]
        return " ".join(
            f"<[{self._special[part]}]>" if part in self._special else quoted(part) for part in parts if part
        )

    def is_token(self, text: str) -> bool:
        """Whether a text is one special token, which no other text can spell."""
        return text in self._special

    def rule(self, expression: str, options: str = "") -> str:
        """A rule of its own; its name."""
        return self._define("r", expression, options)

    def term(self, expression: str) -> str:
        """A terminal: regular expressions and literals, joined by | & ~ and what follows each other."""
        return self._define("T", expression, "")

    def json(self, schema: Any) -> str:
        """A value that satisfies a schema."""
        spaced = {"x-guidance": {"whitespace_pattern": SPACES}, **without_options(schema)}
        return self.rule("%json " + json.dumps(spaced))

    def text_up_to(self, marker: str, text: str = TEXT) -> str:
        """Any text, up to and with the first marker."""
        if self.is_token(marker):
            return f"{self.term(f'/{text}/')}? {self.literal(marker)}"
        if self._split and self._split.search(marker):
            raise ValueError(f"{marker!r} is made of special tokens and text")
        return self.rule(f"/{text}/ {quoted(marker)}", "[lazy]")

    def line(self) -> str:
        """A line break, or nothing."""
        return '"\\n"?'

    def source(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules]) + "\n"

    def _define(self, prefix: str, expression: str, options: str) -> str:
        name = self._names.get(prefix + options + expression)
        if name is None:
            name = f"{prefix}{len(self._rules)}"
            self._names[prefix + options + expression] = name
            self._rules.append(f"{name}{options}: {expression}")
        return name


def quoted(text: str) -> str:
    return json.dumps(text)


def either(expressions: Iterable[str]) -> str:
    return "(" + " | ".join(dict.fromkeys(expressions)) + ")"


def slashed(pattern: str) -> str:
    """A regular expression between slashes."""
    return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern) + "/"
