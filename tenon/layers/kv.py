"""The cache of a model's layers, as its spec declares it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon import ops
from tenon.core.spec import KVGroup, ModelSpec


def bytes_per_block(spec: ModelSpec, block_size: int) -> int:
    """Bytes that one block of `block_size` tokens takes: groups share their memory."""
    act = ops.act_dtype(spec.dtype)
    return max(
        (
            group.num_layers * _layer_bytes(group, block_size, act)
            for group in spec.kv_groups
            if group.kind != "state"
        ),
        default=0,
    )


def caches(spec: ModelSpec, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
    """One cache per layer; of a recurrent one, a list of its arrays, each [num_slots, *shape]. Raises
    UnsupportedOp for a head width that the backend cannot do."""
    by_layer: dict[int, Any] = {}
    attention = [group for group in spec.kv_groups if group.kind != "state"]
    for rank in range(attention[0].num_layers if attention else 0):
        kv = _attention_cache(spec, attention[0], num_blocks, block_size)
        by_layer |= {group.layers[rank]: kv for group in attention if rank < len(group.layers)}
    for group in spec.kv_groups:
        if group.kind == "state":
            by_layer |= {layer: _state(group, num_slots) for layer in group.layers}
    return [by_layer[layer] for layer in sorted(by_layer)]


def _attention_cache(spec: ModelSpec, group: KVGroup, num_blocks: int, block_size: int) -> Any:
    act = ops.act_dtype(spec.dtype)
    if group.kind == "latent":
        return ops.latent_cache(num_blocks, block_size, group.head_dim, act)
    return ops.kv_cache(num_blocks, block_size, group.num_kv_heads, group.head_dim, act)


def _layer_bytes(group: KVGroup, block_size: int, act: np.dtype[Any]) -> int:
    if group.kind == "latent":
        return ops.latent_bytes_per_block(block_size, group.head_dim, act)
    return ops.kv_bytes_per_block(block_size, group.num_kv_heads, group.head_dim, act)


def _state(group: KVGroup, num_slots: int) -> list[np.ndarray]:
    """Memory is touched only when written."""
    return [np.zeros((num_slots, *array.shape), ops.act_dtype(array.dtype)) for array in group.arrays]
