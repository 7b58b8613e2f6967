"""A vocabulary as grammars see it: the bytes of every token, and sets of tokens as bit masks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer


class Vocabulary:
    """Tokens of a model. `size` is the model's own: ids that the tokenizer does not know have no bytes.

    `special` tokens stand for themselves: their text does not count as text. `encode` is the tokenizer's.
    """

    def __init__(
        self,
        tokens: list[bytes],
        *,
        eos_ids: Iterable[int],
        special_ids: Iterable[int],
        encode: Callable[[str], list[int]],
    ) -> None:
        self.tokens = tokens
        self.eos_ids = tuple(sorted(set(eos_ids)))
        self.special_ids = frozenset(special_ids)
        self.encode = encode
        self._masks: dict[tuple[bytes, bytes, bool], np.ndarray] = {}

    @property
    def size(self) -> int:
        return len(self.tokens)

    @property
    def words(self) -> int:
        """32-bit words of a mask."""
        return -(-self.size // 32)

    def mask(self, ids: Iterable[int]) -> np.ndarray:
        """int32 [words]: the bits of these tokens."""
        bits_V = np.zeros(32 * self.words, np.uint8)
        bits_V[list(ids)] = 1
        return np.packbits(bits_V, bitorder="little").view(np.int32)

    def all_but(self, ids: Iterable[int]) -> np.ndarray:
        return self.mask(range(self.size)) & ~self.mask(ids)

    @cached_property
    def not_eos(self) -> np.ndarray:
        """Every token but those that end the output."""
        return self.all_but(self.eos_ids)

    @cached_property
    def spaces(self) -> np.ndarray:
        """Tokens of white space."""
        found = (i for i, data in enumerate(self.tokens) if data and not data.strip(b" \t\r\n"))
        return self.mask(i for i in found if i not in self.special_ids)

    def spelling(self, data: bytes) -> np.ndarray:
        """Tokens that `data` can begin with: all of it, or as far as they go."""
        ids = (i for end in range(1, len(data) + 1) for i in self._by_bytes.get(data[:end], ()))
        return self.mask(ids)

    def within(self, marker: bytes, rest: bytes) -> np.ndarray:
        """Every token but those that complete a marker whose `rest` is missing, and go on with something else
        than white space."""
        return self._without(marker, rest, spaces_may_follow=True)

    def without(self, marker: bytes, rest: bytes) -> np.ndarray:
        """Every token but those that complete a marker whose `rest` is missing."""
        return self._without(marker, rest, spaces_may_follow=False)

    def _without(self, marker: bytes, rest: bytes, spaces_may_follow: bool) -> np.ndarray:
        key = (marker, rest, spaces_may_follow)
        if (mask := self._masks.get(key)) is None:
            found = self._completing(marker, rest)
            if spaces_may_follow:
                found = [i for i in found if self.tokens[i].partition(rest)[2].strip()]
            mask = self._masks[key] = self.all_but(found)
        return mask

    def _completing(self, marker: bytes, rest: bytes) -> list[int]:
        if rest == marker:
            return [i for i, data in enumerate(self.tokens) if marker in data]
        found = []
        at = bisect_left(self._sorted, (rest, -1))
        while at < len(self._sorted) and self._sorted[at][0].startswith(rest):
            found.append(self._sorted[at][1])
            at += 1
        return found

    @cached_property
    def _by_bytes(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for i, data in enumerate(self.tokens):
            found.setdefault(data, []).append(i)
        return found

    @cached_property
    def _sorted(self) -> list[tuple[bytes, int]]:
        return sorted((data, i) for i, data in enumerate(self.tokens) if data)


def of_tokenizer(tokenizer: Tokenizer, size: int, eos_ids: Iterable[int]) -> Vocabulary:
    """The tokens of a model with `size` of them, of which these and the tokenizer's own end a text."""
    known = min(tokenizer.vocab_size, size)
    return Vocabulary(
        [tokenizer.token_bytes(token) for token in range(known)] + [b""] * (size - known),
        eos_ids=(token for token in (*eos_ids, *tokenizer.eos_token_ids) if token < size),
        special_ids=(token for token in tokenizer.special_ids if token < known),
        encode=partial(tokenizer.encode, add_special_tokens=False, parse_special=False),
    )
