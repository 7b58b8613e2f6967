"""Tokens as bytes: what each token adds to the text, so that text can be made token by token.

Text is the UTF-8 decoding of the tokens' bytes put together, with U+FFFD for what is not UTF-8. That makes
a stream of tokens and a whole list of them decode to the same text by construction.
"""

from __future__ import annotations

from typing import Protocol

from tenon.text.ggml_vocab import SPACE


class Pieces(Protocol):
    """How one kind of tokenizer spells its tokens."""

    strip_first_space: bool  # the text's first space is the encoder's own and not part of the text

    def to_bytes(self, token: str) -> bytes: ...


def _byte_letters() -> dict[str, int]:
    """Byte-level BPE (GPT-2) writes bytes as letters: printable Latin-1 as is, the rest from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_letters()


class ByteLetters:
    """Byte-level BPE (GPT-2, Llama 3, Qwen): each letter of a token stands for one byte."""

    strip_first_space = False

    def to_bytes(self, token: str) -> bytes:
        try:
            return bytes([_BYTE_OF[letter] for letter in token])
        except KeyError:  # not made of byte letters: text as it is
            return token.encode()


class SpacedPieces:
    """SentencePiece (Llama 2, Mistral): U+2581 for a space, `<0xE2>` for a single byte."""

    def __init__(self, strip_first_space: bool) -> None:
        self.strip_first_space = strip_first_space

    def to_bytes(self, token: str) -> bytes:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.replace(SPACE, " ").encode()


class WordPieces:
    """WordPiece (BERT): `##` marks what goes on with a word; any other token begins one, after a space."""

    strip_first_space = True

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def to_bytes(self, token: str) -> bytes:
        if token.startswith(self._prefix):
            return token[len(self._prefix) :].encode()
        return b" " + token.encode()
