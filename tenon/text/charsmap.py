"""SentencePiece's precompiled character map, checked before the native library takes it.

Layout (sentencepiece, normalizer.cc): length of a trie in bytes, u32 little-endian; the trie, uint32 units;
then the texts that it leads to, each ended by NUL. `tokenizers` takes the length on trust, and allocates
for it: a wrong one ends the process.
"""

from __future__ import annotations

import binascii
from typing import Any

import msgspec

from tenon.errors import ModelFileError


def check(data: bytes) -> bytes:
    """`data`. Raises ModelFileError when it is no character map."""
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or size > len(data) - 4:
        raise ModelFileError(
            f"precompiled_charsmap is malformed: {len(data)} bytes, and a trie of {size} bytes in them"
        )
    return data


class _File(msgspec.Struct):
    normalizer: Any = None


def check_inside(tokenizer_json: bytes) -> None:
    """The same for those in a tokenizer.json. Raises ModelFileError also for what is no JSON object."""
    if b"recompiled" not in tokenizer_json and b"\\u" not in tokenizer_json:
        return  # most have none, and reading the file twice takes time
    try:
        todo = [msgspec.json.decode(tokenizer_json, type=_File).normalizer]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"malformed: {error}") from None
    while todo:
        step = todo.pop()
        if isinstance(step, list):
            todo += step
        elif isinstance(step, dict):
            todo += step.values()
            if isinstance(text := step.get("precompiled_charsmap"), str):
                check(_decoded(text))


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode())
    except ValueError as error:
        raise ModelFileError(f"precompiled_charsmap is malformed: {error}") from None
