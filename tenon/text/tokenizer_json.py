"""A tokenizer.json, checked before the native library takes it.

The library has no limits: it keeps several times what it reads, finds many mistakes only at the end, and ends
the process where memory runs out. What it takes grows with the numbers of tokens, merges and added tokens. So
these are decoded here, as the types that they must have, and counted; everything else has to be small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from tenon.errors import ModelFileError
from tenon.formats.small import parse_json
from tenon.text import charsmap

# The largest real files have 262,144 tokens with 514,906 merges (Gemma 3) or 901,629 tokens without (XLM-V),
# 28,684 added tokens of 0.6 MB (Orpheus), and 0.4 MB of everything else.
MAX_ENTRIES = 7 << 17  # tokens and merges together
MAX_ADDED = 1 << 16
MAX_ADDED_TEXT = 1 << 20  # the library makes an automaton of it, some hundred times as large
MAX_ADDED_BYTES = 16 << 20
MAX_REST_BYTES = 2 << 20

_Id: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class _Added(msgspec.Struct):
    id: _Id
    content: str


class _Model(msgspec.Struct):
    vocab: msgspec.Raw
    merges: msgspec.Raw = msgspec.Raw(b"[]")


class _Entries(msgspec.Struct):
    """The same, decoded."""

    vocab: dict[str, _Id] | list[tuple[str, float]]  # the second: Unigram
    merges: list[str | tuple[str, str]] = []


class _File(msgspec.Struct):
    model: msgspec.Raw
    added_tokens: msgspec.Raw = msgspec.Raw(b"[]")
    normalizer: msgspec.Raw = msgspec.Raw(b"null")


def checked(path: Path, data: bytes) -> bytes:
    """What the native library may take: `data`, of whose parts each is there once, the one that was checked.
    Raises ModelFileError."""
    file = parse_json(path, data, _File)
    model = parse_json(path, bytes(file.model), _Model)
    vocabulary, merges, added = (bytes(part) for part in (model.vocab, model.merges, file.added_tokens))
    # As what is left, so that it also holds for fields that nobody knows, and for those that are there twice.
    rest = len(data) - len(vocabulary) - len(merges) - len(added)
    _at_most(path, rest, MAX_REST_BYTES, "bytes beside vocabulary, merges and added tokens")
    _at_most(path, len(added), MAX_ADDED_BYTES, "bytes of added tokens")
    # An entry is up to two strings. Millions of them would take seconds to be decoded, and then be too many.
    strings = (vocabulary.count(b'"') + merges.count(b'"')) // 2
    _at_most(path, strings, 2 * MAX_ENTRIES, "strings in vocabulary and merges")
    entries = parse_json(path, bytes(file.model), _Entries)
    _at_most(path, len(entries.vocab) + len(entries.merges), MAX_ENTRIES, "tokens and merges")
    tokens = parse_json(path, added, list[_Added])
    _at_most(path, len(tokens), MAX_ADDED, "added tokens")
    _at_most(path, sum(len(token.content) for token in tokens), MAX_ADDED_TEXT, "characters of added tokens")
    charsmap.check_inside(path, bytes(file.normalizer))
    return msgspec.json.encode(parse_json(path, data, dict[str, msgspec.Raw]))


def _at_most(path: Path, count: int, limit: int, what: str) -> None:
    if count > limit:
        raise ModelFileError(f"{path}: {count} {what}; at most {limit}, which no real file needs")
