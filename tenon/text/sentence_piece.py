"""Reads a SentencePiece `tokenizer.model` into the metadata that a GGUF file would hold for it.

The file is one protocol-buffer message, `ModelProto` of sentencepiece_model.proto; the few fields that matter
are read here, so that neither protobuf nor sentencepiece has to be installed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats import small
from tenon.text.ggml_vocab import NORMAL

MAX_BYTES = 16 << 20  # the largest real ones have 5 MB
BPE = 2  # TrainerSpec.ModelType
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

# Field numbers of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_MODEL_TYPE = 3
_CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 2, 3, 4


def read(path: Path) -> dict[str, Any]:
    """Raises ModelFileError for a malformed file, UnsupportedModel when it is not a BPE model."""
    try:
        return parse(small.read(path, MAX_BYTES) or b"")
    except (ValueError, IndexError, struct.error) as error:
        raise ModelFileError(f"{path}: not a SentencePiece model that can be read: {error}") from error


def parse(data: bytes) -> dict[str, Any]:
    """Metadata under the names of GGUF. Raises ValueError, IndexError or struct.error on malformed bytes."""
    tokens: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    model_type, charsmap, prefix, trim = 1, b"", True, True  # the proto's defaults
    for field, value in _fields(data):
        if field == _PIECES:
            piece = dict(_fields(_message(value)))
            tokens.append(_message(piece.get(_PIECE_TEXT, b"")).decode())
            scores.append(struct.unpack("<f", _message(piece.get(_PIECE_SCORE, bytes(4))))[0])
            types.append(_number(piece.get(_PIECE_TYPE, NORMAL)))
        elif field == _TRAINER:
            model_type = _number(dict(_fields(_message(value))).get(_MODEL_TYPE, model_type))
        elif field == _NORMALIZER:
            spec = dict(_fields(_message(value)))
            charsmap = _message(spec.get(_CHARSMAP, b""))
            prefix = bool(spec.get(_ADD_DUMMY_PREFIX, prefix))
            trim = bool(spec.get(_REMOVE_EXTRA_WHITESPACES, trim))
    if not tokens:
        raise ValueError("it has no pieces")
    if model_type != BPE:
        kind = _MODEL_TYPES.get(model_type, model_type)
        raise UnsupportedModel(
            f"SentencePiece model type {kind} is not supported: add a tokenizer.json to the model"
        )
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.ggml.remove_extra_whitespaces": trim,
        "tokenizer.ggml.precompiled_charsmap": charsmap,
    }


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message: int for varints, bytes for the fixed-size and delimited kinds."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + length > len(data):
            raise ValueError(f"a field of {length} bytes at byte {at} ends past the message")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at byte {at} is too long")


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field has the wrong wire type")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a field has the wrong wire type")
    return value
