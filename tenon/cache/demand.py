"""How many blocks a request holds: what the cache gives out, and how large it is made."""

from __future__ import annotations

from collections.abc import Sequence

from tenon.core.spec import KVGroup

ENDLESS = 2**31 - 1  # tokens of one request, where nothing limits them


class Demand:
    """Of groups of layers that have block tables, in blocks of `block_size` tokens, when a step computes at
    most `max_step` tokens of a request."""

    def __init__(self, groups: Sequence[KVGroup], block_size: int, max_step: int) -> None:
        self.groups = tuple(group for group in groups if group.kind != "state")
        self.block_size = block_size
        self.parts = max((group.parts for group in self.groups), default=1)  # see KVGroup
        self.stateful = len(self.groups) < len(groups)
        self.bounded = [i for i, group in enumerate(self.groups) if group.bounded]
        self.peaks = [self._peak(group, max_step) for group in self.groups]

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks of one group, if it keeps them all."""
        return -(-num_tokens // self.block_size)

    def blocks(self, num_tokens: int) -> int:
        """The most that a request of so many tokens holds at a time, in all groups together."""
        every = self.blocks_for(num_tokens)
        return sum(min(every, peak) for peak in self.peaks)

    def tokens(self, num_blocks: int) -> int:
        """The most tokens of a request that never holds more than so many blocks."""
        if len(self.bounded) == len(self.groups) and sum(self.peaks) <= num_blocks:
            return ENDLESS
        low, high = 0, num_blocks  # blocks of a group
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks(middle * self.block_size) <= num_blocks:
                low = middle
            else:
                high = middle - 1
        return low * self.block_size

    def first(self, index: int, num_tokens: int) -> int:
        """The first block of a group that the token after `num_tokens` others, or a later one, sees."""
        return self.groups[index].first_seen(num_tokens) // self.block_size

    def stop(self, index: int, num_computed: int, num_tokens: int) -> int:
        """Up to which block a group is given some at admission: all of its tokens, or as many as it ever
        holds."""
        return min(self.blocks_for(num_tokens), self.first(index, num_computed) + self.peaks[index])

    def _peak(self, group: KVGroup, max_step: int) -> int:
        """Blocks that a step needs: what its first token sees, and its own tokens, in the worst position."""
        if not group.bounded:
            return ENDLESS
        reach = min(length for length in (group.window, group.local_chunk) if length) - 1
        return (reach + max_step + self.block_size - 2) // self.block_size + 1
