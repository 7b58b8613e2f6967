"""How deep a JSON text is and how much is in it, beside a reader that decodes it."""

from __future__ import annotations

import json
import random

import pytest

from tenon.server.schema import measure as module
from tenon.server.schema.measure import TooDeep, TooMany, measure


@pytest.fixture(autouse=True)
def pieces(monkeypatch):
    """Small, so that strings and escapes end up on both sides of a border."""
    monkeypatch.setattr(module, "PIECE", 17)
    monkeypatch.setattr(module, "SMALL", 8)


def depth(value) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def count(value) -> int:
    """Brackets and commas."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(len(value) - 1, 0) + sum(map(count, inner))


def grown(rng: random.Random, level: int = 0):
    kind = rng.randrange(6 if level < 6 else 3)
    if kind == 0:
        return rng.choice([0, -1.5e10, True, None, 12345])
    if kind <= 2:
        return "".join(rng.choices('a"\\[]{},:é\n0', k=rng.randrange(30)))
    if kind == 3:
        return {str(i) + rng.choice(['"', "[", "\\"]): grown(rng, level + 1) for i in range(rng.randrange(4))}
    return [grown(rng, level + 1) for _ in range(rng.randrange(4))]


def test_as_the_decoder_finds_it(seed):
    rng = random.Random(seed)
    for _ in range(500):
        value = grown(rng)
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2])).encode()
        deep, many = depth(value), count(value)
        measure(text, deep, many)
        if deep:
            with pytest.raises(TooDeep):
                measure(text, deep - 1, many)
            with pytest.raises(TooMany):
                measure(text, deep, many - 1)


@pytest.mark.parametrize(
    "text",
    [b"", b"\\", b'"', b'"\\', b'"' + b"a" * 100 + b"\\", b"]" * 100, b'"a" "' * 20],
    ids=len,  # mutmut asks for tests by name, and cannot quote
)
def test_what_is_no_json_ends(text):
    measure(text, 1, 100)


@pytest.mark.parametrize("text", [b"[[]]", b'{"a":{}}', b"[{}]"], ids=len)
def test_a_small_text_is_as_deep_as_a_large_one(text):
    assert len(text) <= module.SMALL
    measure(text, 2, 100)
    with pytest.raises(TooDeep):
        measure(text, 1, 100)


def test_long_numbers(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 10_000)
    measure(b"[" + b"1" * 10 + b"]", 1, 10)
    with pytest.raises(TooMany):
        measure(b"[" + b"1" * 5000 + b"]", 1, 10)
    measure(b'["' + b"1" * 5000 + b'"]', 1, 10)
