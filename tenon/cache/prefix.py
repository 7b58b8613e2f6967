"""Which blocks hold which tokens: reuse of the KV of equal prefixes.

A full block's key is SHA-256 over the key of the block before it and its own token ids; the chain starts from
everything else that decides the content: a secret of this process, the model, its dtype, and the request's
salt. So equal keys mean equal content up to a SHA-256 collision, and nobody outside can construct one. A hit
still compares token ids along the chain, and a forged or broken hash costs a miss, never a wrong answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from tenon.cache.blocks import BlockPool


class BlockKey(NamedTuple):
    digest: bytes
    tokens: bytes  # int32 token ids, native order


class Entry:
    """Cached content: a block, its tokens and the entry of the block before it (`block` -1: not cached)."""

    __slots__ = ("block", "digest", "parent", "tokens")

    def __init__(self, key: BlockKey, parent: Entry | None, block: int) -> None:
        self.digest, self.tokens = key
        self.parent = parent
        self.block = block


def same_content(a: Entry | None, b: Entry | None) -> bool:
    """Whether two chains hold the same tokens under the same salt. Usually they are the same objects."""
    while a is not b:
        if a is None or b is None or a.tokens != b.tokens:
            return False
        a, b = a.parent, b.parent
    return True


class PrefixCache:
    """Content of the pool's blocks, by key. `context`: the model, its dtype, whatever else conditions KV."""

    def __init__(self, pool: BlockPool, block_size: int, secret: bytes, context: Sequence[str] = ()) -> None:
        self.block_size = block_size
        self._pool = pool
        self._by_digest: dict[bytes, Entry] = {}
        self._by_block: list[Entry | None] = [None] * pool.num_blocks
        # Lengths first: no two lists of strings may give the same bytes.
        parts = [text.encode() for text in context]
        self._context = secret + b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        pool.on_evict = self._forget_entry

    def __len__(self) -> int:
        """Number of cached blocks."""
        return len(self._by_digest)

    def root(self, salt: str) -> Entry:
        """Where the chains of a salt start."""
        data = salt.encode("utf-8", "surrogatepass")
        return Entry(BlockKey(self._hash(self._context + data), data), None, -1)

    def extend_keys(self, keys: list[BlockKey], root: Entry, tokens: list[int], num_blocks: int) -> None:
        """Append the keys of the first `num_blocks` full blocks of `tokens` that `keys` does not have yet."""
        size = self.block_size
        assert num_blocks * size <= len(tokens)
        digest = keys[-1].digest if keys else root.digest
        for i in range(len(keys), num_blocks):
            data = array("i", tokens[i * size : (i + 1) * size]).tobytes()
            digest = self._hash(digest + data)
            keys.append(BlockKey(digest, data))

    def match(self, keys: Sequence[BlockKey], root: Entry) -> list[Entry]:
        """The entries of the longest cached prefix. Holds nothing."""
        found: list[Entry] = []
        parent = root
        for key in keys:
            entry = self._by_digest.get(key.digest)
            if entry is None or entry.tokens != key.tokens or not same_content(entry.parent, parent):
                break
            entry.parent = parent  # an equal one: next time it is the same object
            found.append(entry)
            parent = entry
        return found

    def insert(self, key: BlockKey, parent: Entry, block: int) -> Entry:
        """Make a held block's content known. Returns the entry that children continue from.

        If equal content is cached already, that stays, and `block` remains private to its request.
        """
        entry = self._by_digest.get(key.digest)
        if entry is not None:
            if entry.tokens == key.tokens and same_content(entry.parent, parent):
                return entry
            return Entry(key, parent, -1)  # two contents, one hash: the second is not cached
        entry = Entry(key, parent, block)
        self._by_digest[key.digest] = entry
        self._by_block[block] = entry
        self._pool.mark_cached(block)
        return entry

    def forget(self, block: int) -> None:
        """Drop a block's content, held or not; nothing if it is not cached."""
        if self._by_block[block] is not None:
            self._forget_entry(block)
            self._pool.unmark_cached(block)

    def forget_all(self) -> None:
        """Drop everything. Requests keep the blocks they hold."""
        for block in range(self._pool.num_blocks):
            self.forget(block)

    def _forget_entry(self, block: int) -> None:
        entry = self._by_block[block]
        assert entry is not None
        del self._by_digest[entry.digest]
        self._by_block[block] = None
        entry.block = -1

    def _hash(self, data: bytes) -> bytes:
        return sha256(data).digest()

    def check_integrity(self) -> None:
        """Assert that key -> block -> key holds for every entry."""
        for digest, entry in self._by_digest.items():
            assert entry.digest == digest
            assert self._by_block[entry.block] is entry
        count = sum(entry is not None for entry in self._by_block)
        assert count == len(self._by_digest), "a block has an entry that no key leads to"
        for block, known in enumerate(self._by_block):
            assert (known is not None) == bool(self._pool._cached[block]), f"block {block}: pool disagrees"
