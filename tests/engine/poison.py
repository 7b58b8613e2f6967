"""Freed KV blocks are poisoned, and no step may read a slot that still is: for engines of the oracle model.

A wrong entry would change the logits anyway; this says at once which slot of which request it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tenon.cache.blocks import BlockPool
from tenon.engine.engine import Engine
from tenon.engine.oracle import pool_blocks

POISON = np.uint64(0xDEADDEADDEADDEAD)


class PoisoningPool(BlockPool):
    """Tells of every block that loses its content."""

    on_free: Callable[[int], None]

    def release(self, blocks: Sequence[int]) -> None:
        super().release(blocks)
        for block in blocks:
            if self.refs[block] == 0 and not self.is_idle(block):
                self.on_free(block)

    def unmark_cached(self, block: int) -> None:
        super().unmark_cached(block)
        if self.refs[block] == 0:
            self.on_free(block)

    def _evict(self) -> int:
        block = super()._evict()
        self.on_free(block)
        return block


def poison(engine: Engine) -> list[int]:
    """Switch it on. Returns the list of poisoned blocks, which grows."""
    pool, model = engine.scheduler.cache.pool, engine.runner.model
    layer, _ = engine.runner.passes._kv  # type: ignore[attr-defined]
    slots_BS = layer.slots.reshape(-1, layer.block_size)
    slots_BS[:] = POISON
    poisoned: list[int] = []

    def on_free(block: int) -> None:
        slots_BS[block] = POISON
        poisoned.append(block)

    pool.__class__ = PoisoningPool
    pool.on_free = on_free  # type: ignore[attr-defined]

    def check(batch, group):
        size = layer.block_size
        for r in range(batch.num_requests):
            start, length = int(batch.positions_T[batch.query_start_R1[r]]), int(batch.context_len_R[r])
            first = group.first_seen(start) // size
            blocks = batch.block_table_RB[r, first : -(-length // size)]
            read = slots_BS[pool_blocks(group, blocks)].ravel()[: length - first * size]
            assert not (read == POISON).any(), f"row {r} reads freed slots: {np.flatnonzero(read == POISON)}"

    forward = model.forward

    def checked(batch, kv):
        hidden_TD = forward(batch, kv)
        for index, group in enumerate(model.spec.kv_groups):
            if group.kind != "state":
                check(batch.group(index), group)
        return hidden_TD

    model.forward = checked  # type: ignore[method-assign]
    return poisoned
