"""Small vocabularies for grammars: every byte, and whatever longer tokens a test wants."""

from __future__ import annotations

import codecs
import random

import numpy as np

from tenon.grammar.matcher import Matcher
from tenon.grammar.vocabulary import Vocabulary

EOS = 256
WORDS = ['{"', '":', '", "', "true", "null", "  ", "\n\n", "12", "name", '"}', "ab", "</", "th", "é", "[]"]


def make(words: list[str] = WORDS, special: tuple[str, ...] = (), spare: int = 0) -> Vocabulary:
    """Bytes, EOS, `words`, special tokens, and ids that the tokenizer does not know."""
    tokens = [bytes([i]) for i in range(256)] + [b"<eos>"]
    tokens += [word.encode() for word in words]
    first = len(tokens)
    tokens += [text.encode() for text in special] + [b""] * spare

    def encode(text: str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    return Vocabulary(tokens, eos_ids=[EOS], special_ids=range(first, first + len(special)), encode=encode)


def ids_of(mask_W: np.ndarray, vocabulary: Vocabulary) -> list[int]:
    """The tokens of a mask."""
    bits = np.unpackbits(mask_W.view(np.uint8), bitorder="little")
    assert not bits[vocabulary.size :].any(), "bits behind the vocabulary"
    return np.flatnonzero(bits).tolist()


def text_of(tokens: list[int], vocabulary: Vocabulary) -> str:
    """The text of an output; one that was cut off may have lost the end of its last character."""
    out = b"".join(vocabulary.tokens[t] for t in tokens if t != EOS)
    return codecs.getincrementaldecoder("utf-8")().decode(out, final=bool(tokens) and tokens[-1] == EOS)


def write(matcher: Matcher, vocabulary: Vocabulary, rng: random.Random, most: int = 600) -> list[int]:
    """A random output that the matcher allows, with EOS at its end if it came to one.

    Tokens that bring the output nearer to its end are taken more often, or strings would never end.
    """
    mask_W = np.zeros(vocabulary.words, np.int32)
    out: list[int] = []
    for _ in range(most):
        matcher.fill_mask(mask_W)
        ids = ids_of(mask_W, vocabulary)
        assert ids, "nothing is allowed"
        closing = [i for i in ids if i == EOS or vocabulary.tokens[i][:1] in b'"}],:']
        token = rng.choice(closing if closing and rng.random() < 0.3 else ids)
        out.append(token)
        if token == EOS:
            return out
        assert matcher.accept(token)
    return out
