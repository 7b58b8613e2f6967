"""Random text made of each format's own markers and fragments.

The invariant: words `§1§`, `§2§`, ... are strewn over the text, and each comes out exactly once, in the
reasoning, the content, or the name, id or arguments of a call. No text is lost, none is shared. Besides: the
parser never raises, any way of cutting gives the same result, arguments of a call that came to its end are
JSON, and the work grows with the length.
"""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest

from tenon.parse import formats
from tenon.parse.events import fold
from tenon.parse.format import CLOCK, WEATHER, Format
from tenon.parse.machine import Parser

WORD = re.compile(r"§\d+§")
COMMON = [
    *(
        " ",
        "\n",
        "\n\n",
        "  ",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ",",
        ":",
        '"',
        "'",
        "=",
        "\\",
        "<",
        ">",
        "</",
        "|",
    ),
    *(
        '{"name": "',
        '"name": ',
        '"arguments": ',
        '"arguments": {',
        '"parameters": {"',
        "null",
        "true",
        "-1.5e2",
    ),
    *('{"name": "get_time", "arguments": {}}', '{"name": "get_weather", "arguments": {"city": "', '"}}'),
    *(
        "get_weather",
        "get_time",
        "f(",
        "a=",
        "city",
        "days",
        "[get_time(",
        "[get_weather(city='",
        '"""',
        "\\u00e9",
    ),
    *(
        "call:f{",
        "call:get_weather{city:",
        "functions.f:0",
        "to=functions.f",
        "assistant",
        " json",
        "analysis",
        "final",
    ),
]
TAILS = ["", "<think>\n", "<think>\n\n</think>\n\n", "<|channel>thought\n<channel|>", "<seed:think>"]
TRIES = 120


def pieces_of(table: Format, name: str) -> list[str]:
    """The format's markers, what its cases are made of, and JSON's own pieces."""
    special = sorted(table.special() | set(table.stops))
    cut = [marker[: len(marker) // 2] for marker in special]
    found = re.split(
        "(" + "|".join(map(re.escape, special)) + r"|\s+)", "".join(c.text for c in formats.cases(name))
    )
    return [*special * 3, *cut, *(piece for piece in found if piece and len(piece) < 60), *COMMON]


def random_text(pieces: list[str], rng: random.Random, length: int) -> str:
    """Pieces and words in any order."""
    words = (f"§{number}§" for number in itertools.count())
    return "".join(next(words) if rng.random() < 0.25 else rng.choice(pieces) for _ in range(length))


def spoiled(texts: list[str], pieces: list[str], rng: random.Random) -> str:
    """Up to three outputs that are well formed, or nearly, with a few edits, and words at random places."""
    text = "".join(rng.choice(texts) for _ in range(rng.randint(1, 3)))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        start, size = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 1, 5, 20))
        text = text[:start] + rng.choice((rng.choice(pieces), "", "")) + text[start + size :]
    for number in range(rng.choice((0, 1, 2, 4))):
        place = rng.randrange(len(text) + 1)
        inside = any(match.start() < place < match.end() for match in WORD.finditer(text))
        text = text if inside else f"{text[:place]}§{number}§{text[place:]}"
    return text


class Noting(Parser):
    """Notes which calls came to the end of their arguments."""

    complete: set[int]

    def done(self) -> None:
        self.complete.add(self.out.calls - 1)
        super().done()


def read(table: Format, parts: list[str], tools, tail: str):
    numbers = itertools.count()
    parser = Noting(table, tools, tail, new_id=lambda: f"id{next(numbers)}")
    parser.complete = set()
    events = [event for part in parts for event in parser.push(part)]
    parsed = fold(events + parser.finish())
    for index in parser.complete:
        json.loads(parsed.tool_calls[index].arguments)
    return parsed, parser.src.steps


def words_out(parsed) -> list[str]:
    texts = [parsed.reasoning, parsed.content]
    texts += [text for call in parsed.tool_calls for text in (call.id, call.name, call.arguments)]
    # A call's name may be part of its id, as in Kimi's.
    names = {word for call in parsed.tool_calls for word in WORD.findall(call.id) if word in call.name}
    words = [word for text in texts for word in WORD.findall(text)]
    for word in names:
        words.remove(word)
    return sorted(words)


@pytest.mark.parametrize("name", formats.names())
def test_no_word_is_lost_or_shared(name, seed):
    table, rng = formats.load(name), random.Random(f"{name}{seed}")
    pieces, texts = pieces_of(table, name), [case.text for case in formats.cases(name)]
    for _ in range(TRIES):
        if rng.random() < 0.3:
            text = random_text(pieces, rng, rng.choice((3, 8, 20, 60)))
        else:
            text = spoiled(texts, pieces, rng)
        tools = rng.choice(([WEATHER, CLOCK], [WEATHER, CLOCK], [], None))
        tail = rng.choice(TAILS)
        whole, _ = read(table, [text], tools, tail)
        assert words_out(whole) == sorted(WORD.findall(text)), (text, tail, whole)
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(1, 8)))
        parts = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
        assert read(table, parts, tools, tail)[0] == whole, (parts, tail)
    assert read(table, list(text), tools, tail)[0] == whole, (text, tail)


@pytest.mark.parametrize("name", formats.names())
def test_work_grows_with_the_length(name, seed):
    """Counted in characters looked at, for text that repeats, in pieces of every size."""
    table, rng = formats.load(name), random.Random(f"{name}{seed}")
    pieces = pieces_of(table, name)
    for tail, size in itertools.product(("", "<think>"), (1, 7, 10**9)):
        unit = random_text(pieces, rng, rng.choice((1, 2, 3, 5))) or "<"
        steps = []
        for length in (3000, 12000):
            text = (unit * (length // len(unit) + 1))[:length]
            parts = [text[start : start + size] for start in range(0, length, size)]
            steps.append(read(table, parts, [WEATHER, CLOCK], tail)[1])
        assert steps[1] < 6 * steps[0] + 1000, (unit, tail, size, steps)
