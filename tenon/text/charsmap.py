"""SentencePiece's precompiled character map, checked before the native library takes it.

Layout (sentencepiece, normalizer.cc): length of a trie in bytes, u32 little-endian; the trie, uint32 units;
then the texts that it leads to, each ended by NUL. `tokenizers` takes the length on trust, and allocates
for it: a wrong one ends the process.
"""

from __future__ import annotations

import binascii
from pathlib import Path
from typing import Any

from tenon.errors import ModelFileError
from tenon.formats.small import parse_json


def check(data: bytes) -> bytes:
    """`data`. Raises ModelFileError when it is no character map."""
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or size > len(data) - 4:
        raise ModelFileError(
            f"precompiled_charsmap is malformed: {len(data)} bytes, and a trie of {size} bytes in them"
        )
    return data


def check_inside(path: Path, normalizer: bytes) -> None:
    """The same for those in the normalizer of a tokenizer.json at `path`."""
    todo = [parse_json(path, normalizer, Any)]
    while todo:
        step = todo.pop()
        if isinstance(step, list):
            todo += step
        elif isinstance(step, dict):
            todo += step.values()
            if isinstance(text := step.get("precompiled_charsmap"), str):
                try:
                    check(_decoded(text))
                except ModelFileError as error:
                    raise ModelFileError(f"{path}: {error}") from None


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode())
    except ValueError as error:
        raise ModelFileError(f"precompiled_charsmap is malformed: {error}") from None
