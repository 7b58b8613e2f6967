"""Inputs from a grammar: random damage to the text of a language rarely leaves anything with a meaning."""

from __future__ import annotations

import random

Grammar = dict[str, list[list[str]]]
MOST_PIECES = 2000


def grammar(text: str) -> Grammar:
    """A rule per line, `name alternative alternative ...`; what stands between commas and names a rule is
    replaced by a text of it. `␣` is a space and `‚` a comma."""
    rules = (line.split() for line in text.strip().splitlines())
    return {name: [word.split(",") for word in words] for name, *words in rules}


def derive(rng: random.Random, rules: Grammar, start: str, depth: int = 8) -> str:
    """A text of `start`. Deeper than `depth` every rule is its first alternative, which so must end."""
    out: list[str] = []

    def add(name: str, depth: int) -> None:
        alternatives = rules[name]
        for word in rng.choice(alternatives) if depth > 0 and len(out) < MOST_PIECES else alternatives[0]:
            if word in rules:
                add(word, depth - 1)
            else:
                out.append(word.replace("␣", " ").replace("‚", ","))

    add(start, depth)
    return "".join(out)
