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
    for rank in range(attention[0].num_layers // attention[0].parts if attention else 0):
        memory = _attention_cache(spec, attention[0], num_blocks * attention[0].parts, block_size)
        for group in attention:
            by_layer |= _shared(memory, attention[0], group, rank)
    for group in spec.kv_groups:
        if group.kind == "state":
            by_layer |= {layer: _state(group, num_slots) for layer in group.layers}
    return [by_layer[layer] for layer in sorted(by_layer)]


def _shared(memory: Any, first: KVGroup, group: KVGroup, rank: int) -> dict[int, Any]:
    """The caches of a group's layers in memory that was made for those of the first."""
    found = {}
    for part in range(group.parts):
        if rank * group.parts + part >= len(group.layers):
            break
        alike = not part and (group.num_kv_heads, group.head_dim) == (first.num_kv_heads, first.head_dim)
        layer = group.layers[rank * group.parts + part]
        found[layer] = memory if alike else ops.kv_view(memory, group.num_kv_heads, group.head_dim, part)
    return found


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
