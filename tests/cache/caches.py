"""Caches for tests: of one group that keeps everything, unless others are asked for."""

from __future__ import annotations

from tenon.cache.demand import Demand
from tenon.cache.groups import KVCache
from tenon.core.request import Request
from tenon.core.spec import KVGroup, StateArray

FULL = KVGroup("full", 1, 1, 8)
STATE = KVGroup("state", 1, arrays=(StateArray((1,)),))


def window(length: int) -> KVGroup:
    return KVGroup("full", 1, 1, 8, window=length)


def chunk(length: int) -> KVGroup:
    return KVGroup("full", 1, 1, 8, local_chunk=length)


def make_cache(
    num_blocks: int, block_size: int, *groups: KVGroup, max_step: int = 2048, num_slots: int = 0, **fields
) -> KVCache:
    demand = Demand(groups or (FULL,), block_size, max_step)
    fields = {"prefix_caching": True, "secret": b"s", **fields}
    return KVCache(demand, num_blocks, num_slots=num_slots, **fields)


def held(request: Request) -> list[int]:
    """All blocks that a request holds, group by group."""
    return [block for blocks in request.blocks for block in blocks if block >= 0]
