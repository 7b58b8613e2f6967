"""Random prompts of an exact length, alone or sharing prefixes."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Common words that most tokenizers hold whole, for endpoints that take text only.
WORDS = (
    "time year people way day man thing woman life child world school state family student group country "
    "problem hand part place case week company system program question work government number night point "
    "home water room mother area money story fact month lot right study book eye job word business issue side"
).split()


@dataclass(frozen=True, slots=True)
class PromptShape:
    """`input_len` tokens, of which the first `prefix_len` are one of `num_prefixes` shared beginnings."""

    input_len: int
    prefix_len: int = 0
    num_prefixes: int = 1


def token_prompts(count: int, shape: PromptShape, vocab_size: int, seed: int) -> list[list[int]]:
    """`count` prompts of token ids. The lowest 256 ids are left out: special tokens live there, mostly."""
    draw = random.Random(seed)
    low = 256 if vocab_size > 256 else 0

    def ids(length: int) -> list[int]:
        return [draw.randrange(low, vocab_size) for _ in range(length)]

    prefixes = [ids(shape.prefix_len) for _ in range(shape.num_prefixes)]
    own = max(shape.input_len - shape.prefix_len, 0)
    return [(prefixes[i % len(prefixes)] + ids(own))[: shape.input_len] for i in range(count)]


def text_prompts(count: int, shape: PromptShape, seed: int) -> list[str]:
    """The same in words, about one token each, for chat endpoints."""
    ids = token_prompts(count, shape, len(WORDS), seed)
    return [" ".join(WORDS[i] for i in prompt) for prompt in ids]
