"""SentencePiece's tokenizer.model, to a tokenizer."""

from __future__ import annotations

import struct

from fuzz import scratch
from tenon.errors import ModelFileError
from tenon.text import ggml_vocab, sentence_piece

EXPECTED = (ModelFileError,)
_PATH = scratch.directory("sentence_piece") / "tokenizer.model"


def _field(number: int, value: int | bytes | float) -> bytes:
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def seeds() -> dict[str, bytes]:
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("\u2581a", -1.0, 1), ("a", -2.0, 1), ("\u2581", -3.0, 1)]
    pieces += [("<0x41>", 0.0, 6), ("user", 0.0, 4)]
    body = b"".join(
        _field(1, _field(1, text.encode()) + _field(2, score) + _field(3, kind))
        for text, score, kind in pieces
    )
    bpe = _field(2, _field(3, 2))
    return {
        "bpe": body + bpe,
        "normalizer": body + bpe + _field(3, _field(3, 0) + _field(4, 1)),
        "charsmap": body + bpe + _field(3, _field(2, bytes(40))),
        "charsmap of 4 GiB": body + bpe + _field(3, _field(2, b"\xfc\xff\xff\xff" + bytes(40))),
        "unigram": body,
        "no pieces": bpe,
        "long varint": b"\x80" * 20,
    }


def run(data: bytes) -> None:
    ggml_vocab.build(sentence_piece.read(scratch.write(_PATH, data)))
