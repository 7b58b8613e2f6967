"""The pool of KV blocks: who holds which, which are free, which still hold content worth keeping.

    free (no content)  --allocate-->  held (refs > 0)  --release-->  free, or idle if its content is cached
    idle (content, refs 0)  --hold-->  held;   --allocate, when nothing is free-->  evicted, then held

Block ids are indices into the tensors of the cache; the pool knows nothing of these, nor which group of
layers a block is for. Slots of recurrent states are handed out by such a pool too. Invariants are asserted
and `check_integrity` proves all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence


class BlockPool:
    """`num_blocks` blocks, counted references. `on_evict(block)` is told when cached content is given up."""

    def __init__(self, num_blocks: int, on_evict: Callable[[int], None] | None = None) -> None:
        assert num_blocks >= 0
        self.num_blocks = num_blocks
        self.refs = [0] * num_blocks
        self.on_evict = on_evict
        self._cached = bytearray(num_blocks)  # 1: its content is known to the prefix cache
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack: what was used last is warm
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can hand out, idle ones included."""
        return len(self._free) + len(self._idle)

    @property
    def num_used(self) -> int:
        """Blocks that somebody holds."""
        return self.num_blocks - self.num_free

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks with one reference each, or None (and no change) if there are not as many."""
        if count > self.num_free:
            return None
        blocks = []
        for _ in range(count):
            block = self._free.pop() if self._free else self._evict()
            self.refs[block] = 1
            blocks.append(block)
        return blocks

    def hold(self, block: int) -> None:
        """One more reference to a block that is held or idle."""
        if self.refs[block] == 0:
            assert self._cached[block], f"block {block} is free: it has no content to share"
            del self._idle[block]
        self.refs[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One reference less to each of a request's blocks, given in order of position.

        Walks from the tail, so that of one prefix the tail is evicted first. Raises RuntimeError when a
        block is not held: a double free would hand one block to two requests.
        """
        for block in reversed(blocks):
            if self.refs[block] <= 0:
                raise RuntimeError(f"double free of block {block}")
            self.refs[block] -= 1
            if self.refs[block] == 0:
                if self._cached[block]:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def is_cached(self, block: int) -> bool:
        """Whether the prefix cache knows its content."""
        return bool(self._cached[block])

    def is_idle(self, block: int) -> bool:
        return self.refs[block] == 0 and bool(self._cached[block])

    def mark_cached(self, block: int) -> None:
        """The prefix cache knows the content of this block, which somebody holds."""
        assert self.refs[block] > 0, f"block {block} is not held"
        assert not self._cached[block], f"block {block} is cached already"
        self._cached[block] = 1

    def unmark_cached(self, block: int) -> None:
        """The prefix cache forgot this block."""
        assert self._cached[block], f"block {block} is not cached"
        self._cached[block] = 0
        if self.refs[block] == 0:
            del self._idle[block]
            self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        self._cached[block] = 0
        if self.on_evict is not None:
            self.on_evict(block)
        return block

    def check_integrity(self, holders: Iterable[Sequence[int]]) -> None:
        """Assert every invariant, given the block lists of all requests."""
        counted = [0] * self.num_blocks
        for blocks in holders:
            assert len(set(blocks)) == len(blocks), f"a block twice in one request: {blocks}"
            for block in blocks:
                counted[block] += 1
        assert counted == self.refs, "references do not match the blocks that requests hold"
        free = set(self._free)
        assert len(free) == len(self._free), "a block is twice in the free list"
        assert not free & self._idle.keys(), "a block is free and idle"
        for block, refs in enumerate(self.refs):
            place = (block in free, block in self._idle)
            wanted = (False, False) if refs else (not self._cached[block], bool(self._cached[block]))
            assert place == wanted, f"block {block} with {refs} references is in the wrong place"
