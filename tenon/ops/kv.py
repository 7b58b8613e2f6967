"""The KV cache of one layer: made here, written by `rope_kv_write`, read by `attention`.

A slot is where one token's K and V live: block_id * block_size + offset. The layout is the backend's own.
Shape letters: T tokens, N blocks, B tokens in a block, G key/value heads, E head width.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tenon.errors import UnsupportedOp
from tenon.ops.select import op


class LayerKV(Protocol):
    """K and V of one layer, for all blocks of the pool."""

    block_size: int
    act: np.dtype[Any]

    @property
    def nbytes(self) -> int: ...

    def read(self, slots_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K and V of the slots, each act [T, G, E] (a copy; for tests, tools and transfer)."""
        ...

    def write(self, slots_T: np.ndarray, k_TGE: np.ndarray, v_TGE: np.ndarray) -> None:
        """Put K and V into the slots; touches nothing else."""
        ...


class PlainKV:
    """The reference's cache: natural order, [N * B, G, E]."""

    def __init__(self, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, act: Any) -> None:
        self.block_size = block_size
        self.act = np.dtype(act)
        self.k_SGE = np.zeros((num_blocks * block_size, num_kv_heads, head_dim), act)
        self.v_SGE = np.zeros_like(self.k_SGE)

    @property
    def nbytes(self) -> int:
        return self.k_SGE.nbytes + self.v_SGE.nbytes

    def read(self, slots_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.k_SGE[slots_T], self.v_SGE[slots_T]

    def write(self, slots_T: np.ndarray, k_TGE: np.ndarray, v_TGE: np.ndarray) -> None:
        self.k_SGE[slots_T] = k_TGE
        self.v_SGE[slots_T] = v_TGE


@op(shares="KV layout", kernel=False)
def kv_cache(
    num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, act: np.dtype[Any]
) -> LayerKV:
    """The cache of one layer; memory is touched only when written. Raises UnsupportedOp for a head width that
    the backend cannot do."""
    if min(num_blocks, block_size, num_kv_heads, head_dim) < 1:
        raise UnsupportedOp("a KV cache needs at least one block, token, head and element")
    return PlainKV(num_blocks, block_size, num_kv_heads, head_dim, act)


@op(shares="KV layout", kernel=False)
def kv_view(kv: LayerKV, num_kv_heads: int, head_dim: int, first: int) -> LayerKV:
    """The cache of another layer in the same memory, in blocks of its own shape, from block `first` on."""
    assert isinstance(kv, PlainKV)
    view = PlainKV(0, kv.block_size, num_kv_heads, head_dim, kv.act)
    view.k_SGE, view.v_SGE = (
        array.reshape(-1, num_kv_heads, head_dim)[first * kv.block_size :] for array in (kv.k_SGE, kv.v_SGE)
    )
    return view


@op(shares="KV layout", kernel=False)
def kv_bytes_per_block(block_size: int, num_kv_heads: int, head_dim: int, act: np.dtype[Any]) -> int:
    """Bytes of K and V that one block of one layer takes."""
    return 2 * block_size * num_kv_heads * head_dim * np.dtype(act).itemsize
