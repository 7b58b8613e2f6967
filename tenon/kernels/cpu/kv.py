"""The CPU's KV cache.

Per block and head, K is stored transposed and both are interleaved in pairs along the dimension that
attention sums over: K [E / 2, B, 2] and V [B / 2, E, 2] in bfloat16. So 16 tokens of K, or 16 elements of
V, are neighbours, and both are B operands of the AMX instruction as they lie. In float32: K [E, B], V [B, E].

Shape letters: N blocks, G key/value heads, E head width, B tokens in a block, T tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.errors import UnsupportedOp
from tenon.ops.arrays import BFLOAT16
from tenon.ops.kv import LayerKV

STEP = 32  # tokens that attention takes at a time
HEAD_MULTIPLE, MAX_HEAD_DIM = 16, 512


class PairedKV:
    """K and V of one layer in the layout above. Pages of memory are taken when first written."""

    def __init__(self, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, act: Any) -> None:
        self.block_size, self.num_kv_heads, self.head_dim = block_size, num_kv_heads, head_dim
        self.act = np.dtype(act)
        if self.act == BFLOAT16:
            self.k_token_shape: tuple[int, ...] = (head_dim // 2, 2)
            k_shape: tuple[int, ...] = (head_dim // 2, block_size, 2)
            v_shape: tuple[int, ...] = (block_size // 2, head_dim, 2)
        else:
            self.k_token_shape = (head_dim,)
            k_shape, v_shape = (head_dim, block_size), (block_size, head_dim)
        self.k = np.zeros((num_blocks, num_kv_heads, *k_shape), self.act)
        self.v = np.zeros((num_blocks, num_kv_heads, *v_shape), self.act)

    def view(self, num_kv_heads: int, head_dim: int, first: int) -> PairedKV:
        """The same memory in blocks of another shape, from block `first` on."""
        other = PairedKV(0, self.block_size, num_kv_heads, head_dim, self.act)
        other.k = self.k.reshape(-1, *other.k.shape[1:])[first:]
        other.v = self.v.reshape(-1, *other.v.shape[1:])[first:]
        return other

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def read(self, slots_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K and V of the slots, each act [T, G, E] (a copy)."""
        k_index, v_index = self._indices(slots_T)
        return self.k[k_index].reshape(len(slots_T), self.num_kv_heads, self.head_dim), self.v[v_index]

    def write(self, slots_T: np.ndarray, k_TGE: np.ndarray, v_TGE: np.ndarray) -> None:
        """Put K and V into the slots; touches nothing else."""
        k_index, v_index = self._indices(slots_T)
        self.k[k_index] = k_TGE.reshape(len(slots_T), self.num_kv_heads, *self.k_token_shape)
        self.v[v_index] = v_TGE

    def _indices(self, slots_T: np.ndarray) -> tuple[Any, Any]:
        """What picks the slots out of k, as [T, G, *k_token_shape], and out of v, as [T, G, E]."""
        block_T, offset_T = np.divmod(slots_T, self.block_size)
        every = slice(None)
        if self.act == BFLOAT16:
            pair_T, half_T = np.divmod(offset_T, 2)
            return (block_T, every, every, offset_T, every), (block_T, every, pair_T, every, half_T)
        return (block_T, every, every, offset_T), (block_T, every, offset_T)


def kv_cache(
    num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, act: np.dtype[Any]
) -> PairedKV:
    if min(num_blocks, num_kv_heads) < 1:
        raise UnsupportedOp("a KV cache needs at least one block and one head")
    _check_head_dim(head_dim)
    if block_size < STEP or block_size % STEP:
        raise UnsupportedOp(
            f"the CPU's attention needs blocks of a multiple of {STEP} tokens, not {block_size}"
        )
    return PairedKV(num_blocks, block_size, num_kv_heads, head_dim, act)


def _check_head_dim(head_dim: int) -> None:
    if head_dim % HEAD_MULTIPLE or not 0 < head_dim <= MAX_HEAD_DIM:
        raise UnsupportedOp(
            f"the CPU's attention needs heads of a multiple of {HEAD_MULTIPLE} elements, at most "
            f"{MAX_HEAD_DIM}, not {head_dim}; TENON_BACKEND=reference can run others, slowly"
        )


def kv_view(kv: LayerKV, num_kv_heads: int, head_dim: int, first: int) -> PairedKV:
    assert isinstance(kv, PairedKV)
    _check_head_dim(head_dim)
    return kv.view(num_kv_heads, head_dim, first)


def kv_bytes_per_block(block_size: int, num_kv_heads: int, head_dim: int, act: np.dtype[Any]) -> int:
    return 2 * block_size * num_kv_heads * head_dim * np.dtype(act).itemsize
