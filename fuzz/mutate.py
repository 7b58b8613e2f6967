"""Plain random damage to inputs."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

MAX_BYTES = 16384
_EDGES = (0, 1, 2, 7, 8, 31, 32, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62)
_EDGES += (2**63 - 1, 2**63, 2**64 - 1)
_NUMBERS = [str(n).encode() for n in (*_EDGES, -1, -(2**31), 10**30, 0.5, -0.0, 1e308)]
_TEXT = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\n",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    "é🙂".encode(),
]
_TEXT += [b"null", b"true", b"NaN", b"Infinity", b"-", b"1e999", b"\\ud800", b'""', b"{}", b"[]"]
WORDS = [*_NUMBERS, *_TEXT]


def damaged(rng: random.Random, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """An input of the pool after one to a few edits."""
    data = bytearray(rng.choice(pool))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        rng.choice(_EDITS)(rng, data, pool, words)
    return bytes(data[:MAX_BYTES])


def _flip(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    """An edge case over four or eight bytes."""
    packed = struct.pack("<Q", rng.choice(_EDGES))[: rng.choice((4, 8))]
    at = rng.randrange(len(data) + 1)
    data[at : at + len(packed)] = packed


def _insert(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(words) * rng.choice((1, 1, 1, 2, 100))


def _replace(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.randrange(12)] = rng.choice(words)


def _delete(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 1, 4, 8, 40))]


def _cut(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    part = data[at : at + rng.choice((1, 4, 16, 60))]
    data[at:at] = part * rng.choice((1, 1, 3, 200))


def _splice(rng: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    """The end of another input."""
    other = rng.choice(pool)
    del data[rng.randrange(len(data) + 1) :]
    data += other[rng.randrange(len(other) + 1) :]


_EDITS = (_flip, _byte, _number, _insert, _replace, _replace, _delete, _cut, _repeat, _splice)
