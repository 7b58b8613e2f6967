"""The KV cache of attention layers, as a model's spec declares it."""

from __future__ import annotations

from typing import Any

from tenon import ops
from tenon.core.spec import ModelSpec


def bytes_per_block(spec: ModelSpec, block_size: int) -> int:
    """Bytes that one block of `block_size` tokens takes in all layers together."""
    act = ops.act_dtype(spec.dtype)
    return sum(
        group.num_layers * ops.kv_bytes_per_block(block_size, group.num_kv_heads, group.head_dim, act)
        for group in spec.kv_groups
    )


def caches(spec: ModelSpec, num_blocks: int, block_size: int) -> list[Any]:
    """One cache per layer. Raises UnsupportedOp for a head width that the backend cannot do."""
    act = ops.act_dtype(spec.dtype)
    return [
        ops.kv_cache(num_blocks, block_size, group.num_kv_heads, group.head_dim, act)
        for group in spec.kv_groups
        for _ in range(group.num_layers)
    ]
