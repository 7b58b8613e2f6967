"""Latent attention on the CPU, and its cache: rows of tokens one after the other, [slots, row].

A row is padded to whole steps of attention's sums. Shape letters: those of tenon/ops/latent.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.errors import UnsupportedOp
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.kv import STEP
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.linear import PackedLinear
from tenon.ops.workspace import empty

MAX_WIDTH = 1024


class RowKV:
    """The rows of one layer. Pages of memory are taken when first written."""

    def __init__(self, num_blocks: int, block_size: int, width: int, act: Any) -> None:
        self.block_size, self.width = block_size, width
        self.act = np.dtype(act)
        self.rows = np.zeros((num_blocks * block_size, _padded(width)), self.act)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def read(self, slots_T: np.ndarray) -> np.ndarray:
        return self.rows[slots_T, : self.width]

    def write(self, slots_T: np.ndarray, row_TE: np.ndarray) -> None:
        self.rows[slots_T, : self.width] = row_TE


def latent_cache(num_blocks: int, block_size: int, width: int, act: np.dtype[Any]) -> RowKV:
    if num_blocks < 1:
        raise UnsupportedOp("a latent cache needs at least one block")
    if block_size < STEP or block_size % STEP:
        raise UnsupportedOp(
            f"the CPU's attention needs blocks of a multiple of {STEP} tokens, not {block_size}"
        )
    if not 0 < width <= MAX_WIDTH:
        raise UnsupportedOp(f"the CPU's latent attention needs rows of at most {MAX_WIDTH}, not {width}")
    return RowKV(num_blocks, block_size, width, act)


def latent_bytes_per_block(block_size: int, width: int, act: np.dtype[Any]) -> int:
    return block_size * _padded(width) * np.dtype(act).itemsize


def latent_write(
    q_TN: np.ndarray,
    latent_TE: np.ndarray,
    norm_L: np.ndarray,
    cos_sin_PM: np.ndarray,
    kv: RowKV,
    batch: Batch,
    *,
    num_heads: int,
    eps: float,
) -> tuple[np.ndarray, np.ndarray]:
    tokens, rope_dim = len(q_TN), cos_sin_PM.shape[1]
    nope_dim = q_TN.shape[1] // num_heads - rope_dim
    n_TZ = empty((tokens, num_heads * nope_dim), kv.act)
    m_TY = empty((tokens, num_heads * rope_dim), kv.act)
    _native.latent_write(
        dense(q_TN),
        dense(latent_TE),
        dense(norm_L),
        dense(cos_sin_PM),
        dense(batch.positions_T, np.int32),
        dense(batch.slots_T, np.int32),
        address(n_TZ),
        address(m_TY),
        address(kv.rows),
        tokens,
        num_heads,
        nope_dim,
        rope_dim,
        len(norm_L),
        kv.rows.shape[1],
        kv.block_size,
        eps,
        kv.act == BFLOAT16,
    )
    return n_TZ, m_TY


def head_linear(x_TK: np.ndarray, w: PackedLinear, num_heads: int) -> np.ndarray:
    tokens, width = x_TK.shape
    y_TN = empty((tokens, w.shape[0]), x_TK.dtype)
    bf16 = x_TK.dtype == BFLOAT16
    _native.head_linear(dense(x_TK, x_TK.dtype), address(y_TN), tokens, num_heads, width, not bf16, w)
    return y_TN


def latent_attention(
    q_TX: np.ndarray,
    q_rope_TY: np.ndarray,
    kv: RowKV,
    batch: Batch,
    *,
    num_heads: int,
    scale: float,
    selected_TK: np.ndarray | None = None,
) -> np.ndarray:
    rank, rope_dim = q_TX.shape[1] // num_heads, q_rope_TY.shape[1] // num_heads
    if rank % STEP or rope_dim % 2:
        raise UnsupportedOp(
            f"the CPU's latent attention needs latents of a multiple of {STEP} elements and pairs that turn, "
            f"not {rank} and {rope_dim}; TENON_BACKEND=reference can run others, slowly"
        )
    o_TX = empty(q_TX.shape, kv.act)
    _native.latent_attention(
        dense(q_TX, kv.act),
        dense(q_rope_TY, kv.act),
        address(o_TX),
        address(kv.rows),
        dense(batch.query_start_R1, np.int32),
        dense(batch.context_len_R, np.int32),
        address(batch.block_table_RB),
        row_stride(batch.block_table_RB),
        batch.num_requests,
        num_heads,
        _padded(rank + rope_dim),
        rank,
        rope_dim,
        kv.rows.shape[1],
        kv.block_size,
        scale,
        kv.act == BFLOAT16,
        0 if selected_TK is None else dense(selected_TK, np.int32),
        0 if selected_TK is None else selected_TK.shape[1],
    )
    return o_TX


def _padded(width: int) -> int:
    return -(-width // STEP) * STEP
