"""What is complete of JSON that was cut off."""

from __future__ import annotations

import json
import random

import jiter  # what the `openai` and `anthropic` clients read cut-off arguments with
import msgspec
import pytest

from tenon.server.partial_json import complete


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}), ("{", {}), ('{"a', {}), ('{"a":', {}), ('{"a": 1', {"a": 1}),
        ('{"a": 1.', {}), ('{"a": -', {}), ('{"a": 1,', {"a": 1}),
        ('{"a": "x', {}), ('{"a": "x"', {"a": "x"}), ('{"a": "x", "b', {"a": "x"}),
        ('{"a": "x", "b"', {"a": "x"}), ('{"a": {"b": "c"', {"a": {"b": "c"}}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ('{"a": [1, "2"', {"a": [1, "2"]}), ('{"a": ["b", {"c": "d", "e', {"a": ["b", {"c": "d"}]}),
        ('{"a": "}\\"]", "b": [', {"a": '}"]', "b": []}),
        ('{"a": tr', {}), ("[1, 2]", {}), ("nonsense", {}), ('{"a": oops, "b": "c"', {}),
    ],
)  # fmt: skip
def test_examples(text, value):
    assert complete(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'{"a": "\ud83d\ude42"}', {"a": "🙂"}),
        (r'{"a": "x\ud83dy", "\ude42": "\ud83d', {"a": "x\ufffdy"}),
        ('{"a": ' + "[" * 10_000, {}),
    ],
)
def test_what_cannot_be_sent_on(text, value):
    assert complete(text) == value
    msgspec.json.encode(complete(text))


SIGNS = 'ab"\\{}[]:,é🙂 '


def text(rng: random.Random) -> str:
    return "".join(rng.choice(SIGNS) for _ in range(5))


def value(rng: random.Random, depth: int = 0):
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return (rng.randrange(1000), -1.5e-7, True, None, text(rng))[kind]


def test_every_cut_of_random_objects_is_what_clients_make_of_it(seed):
    rng = random.Random(seed)
    for _ in range(50):
        whole = {f"m{i}": value(rng) for i in range(rng.randrange(5))}
        text = json.dumps(whole, ensure_ascii=rng.choice([True, False]))
        assert complete(text) == whole
        for end in range(1, len(text)):
            assert complete(text[:end]) == jiter.from_json(text[:end].encode(), partial_mode=True), text[:end]
