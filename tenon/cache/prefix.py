"""Which blocks hold which tokens: reuse of the KV of equal prefixes, and of recurrent states after them.

A full block's key is SHA-256 over the key of the block before it and its own token ids; the chain starts from
everything else that decides the content: a secret of this process, the model, its dtype, and the request's
salt. So equal keys mean equal content up to a SHA-256 collision, and nobody outside can construct one. A hit
still compares token ids along the chain, and a forged or broken hash costs a miss, never a wrong answer.

One chain serves all groups of layers: an entry has a block of each, or none where a group gave it up, or it
was evicted; and the slot with the state after its tokens, if there is one.
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
    """Cached content: tokens, the entry of the block before them, and what is cached of them: a block of each
    group, and a slot with the state after them (-1: not cached)."""

    __slots__ = ("blocks", "digest", "parent", "state", "tokens")

    def __init__(self, key: BlockKey, parent: Entry | None, blocks: list[int]) -> None:
        self.digest, self.tokens = key
        self.parent = parent
        self.blocks = blocks
        self.state = -1


def same_content(a: Entry | None, b: Entry | None) -> bool:
    """Whether two chains hold the same tokens under the same salt. Usually they are the same objects."""
    while a is not b:
        if a is None or b is None or a.tokens != b.tokens:
            return False
        a, b = a.parent, b.parent
    return True


class PrefixCache:
    """Content of the pool's blocks, by key. `context`: the model, its dtype, whatever else conditions KV.
    `slots` are those of recurrent states, if the model has any."""

    def __init__(
        self,
        pool: BlockPool,
        block_size: int,
        secret: bytes,
        context: Sequence[str] = (),
        *,
        num_groups: int = 1,
        slots: BlockPool | None = None,
    ) -> None:
        self.block_size = block_size
        self._pool, self._slots = pool, slots
        self._none = [-1] * num_groups
        self._by_digest: dict[bytes, Entry] = {}
        self._by_block: list[Entry | None] = [None] * pool.num_blocks
        self._by_slot: dict[int, Entry] = {}
        # Lengths first: no two lists of strings may give the same bytes.
        parts = [text.encode() for text in context]
        self._context = secret + b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        pool.on_evict = self._drop_block
        if slots is not None:
            slots.on_evict = self._drop_slot

    def __len__(self) -> int:
        """Number of entries of which something is cached."""
        return len(self._by_digest)

    def root(self, salt: str) -> Entry:
        """Where the chains of a salt start."""
        data = salt.encode("utf-8", "surrogatepass")
        return Entry(BlockKey(self._hash(self._context + data), data), None, self._none)

    def extend_keys(self, keys: list[BlockKey], root: Entry, tokens: list[int], num_blocks: int) -> None:
        """Append the keys of the first `num_blocks` full blocks of `tokens` that `keys` does not have yet."""
        size = self.block_size
        assert num_blocks * size <= len(tokens)
        digest = keys[-1].digest if keys else root.digest
        for i in range(len(keys), num_blocks):
            data = array("i", tokens[i * size : (i + 1) * size]).tobytes()
            digest = self._hash(digest + data)
            keys.append(BlockKey(digest, data))

    def match(self, keys: Sequence[BlockKey], root: Entry, over_gaps: bool = False) -> list[Entry]:
        """The entries of the longest prefix of which something is cached. Holds nothing. `over_gaps`: entries
        of which nothing is cached do not end it."""
        found: list[Entry] = []
        parent = root
        for key in keys:
            entry = self._by_digest.get(key.digest)
            if entry is None or entry.tokens != key.tokens or not same_content(entry.parent, parent):
                if not over_gaps:
                    break
                entry = Entry(key, parent, self._none)
            entry.parent = parent  # an equal one: next time it is the same object
            found.append(entry)
            parent = entry
        return found

    def insert(self, key: BlockKey, parent: Entry, blocks: list[int]) -> Entry:
        """Make the content of held blocks known, one of each group. Returns the entry that children go on
        from.

        If a block of equal content is cached already, that stays, and the new one remains private to its
        request.
        """
        entry = self._by_digest.get(key.digest)
        if entry is None:
            entry = self._by_digest[key.digest] = Entry(key, parent, list(blocks))
            for block in blocks:
                self._by_block[block] = entry
                self._pool.mark_cached(block)
        elif entry.tokens != key.tokens or not same_content(entry.parent, parent):
            return Entry(key, parent, self._none)  # two contents, one hash: the second is not cached
        else:
            self._fill(entry, blocks)
        return entry

    def _fill(self, entry: Entry, blocks: list[int]) -> None:
        """Of groups whose block was lost."""
        for group, block in enumerate(blocks):
            if entry.blocks[group] < 0:
                entry.blocks[group] = block
                self._by_block[block] = entry
                self._pool.mark_cached(block)

    def insert_state(self, entry: Entry, slot: int) -> bool:
        """Make the state known that a held slot has after the tokens of an entry. False if there is one, or
        nothing else of the entry is cached."""
        if entry.state >= 0 or self._by_digest.get(entry.digest) is not entry:
            return False
        assert self._slots is not None
        entry.state = slot
        self._by_slot[slot] = entry
        self._slots.mark_cached(slot)
        return True

    def forget(self, block: int) -> None:
        """Drop a block's content, held or not; nothing if it is not cached."""
        if self._by_block[block] is not None:
            self._drop_block(block)
            self._pool.unmark_cached(block)

    def forget_state(self, slot: int) -> None:
        """Drop a slot's state, held or not."""
        assert self._slots is not None
        self._drop_slot(slot)
        self._slots.unmark_cached(slot)

    def forget_all(self) -> None:
        """Drop everything. Requests keep the blocks they hold."""
        for block in range(self._pool.num_blocks):
            self.forget(block)
        for slot in list(self._by_slot):
            self.forget_state(slot)

    def _drop_block(self, block: int) -> None:
        entry = self._by_block[block]
        assert entry is not None
        self._by_block[block] = None
        entry.blocks[entry.blocks.index(block)] = -1
        self._drop_if_empty(entry)

    def _drop_slot(self, slot: int) -> None:
        entry = self._by_slot.pop(slot)
        entry.state = -1
        self._drop_if_empty(entry)

    def _drop_if_empty(self, entry: Entry) -> None:
        if entry.state < 0 and max(entry.blocks) < 0:
            del self._by_digest[entry.digest]

    def _hash(self, data: bytes) -> bytes:
        return sha256(data).digest()

    def check_integrity(self) -> None:
        """Assert that key -> block -> key holds for every entry, and the same for states."""
        for digest, entry in self._by_digest.items():
            assert entry.digest == digest
            assert entry.state >= 0 or max(entry.blocks) >= 0, "an entry of which nothing is cached"
            for block in entry.blocks:
                assert block < 0 or self._by_block[block] is entry
            assert entry.state < 0 or self._by_slot[entry.state] is entry
        entries = self._by_digest.values()
        count = sum(block >= 0 for entry in entries for block in entry.blocks)
        assert count == sum(entry is not None for entry in self._by_block), "no key leads to a block's entry"
        assert sum(entry.state >= 0 for entry in entries) == len(self._by_slot), (
            "no key leads to a state's entry"
        )
        for block, known in enumerate(self._by_block):
            assert (known is not None) == self._pool.is_cached(block), f"block {block}: pool disagrees"
        slots = self._slots or BlockPool(0)
        for slot in range(slots.num_blocks):
            assert (slot in self._by_slot) == slots.is_cached(slot), f"slot {slot}: pool disagrees"
