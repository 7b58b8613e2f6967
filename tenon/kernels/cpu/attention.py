"""Paged attention on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.kv import PairedKV
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def attention(
    q_TX: np.ndarray,
    kv: PairedKV,
    batch: Batch,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    window: int = 0,
    local_chunk: int = 0,
    sinks_H: np.ndarray | None = None,
) -> np.ndarray:
    o_TX = empty(q_TX.shape, kv.act)
    _native.attention(
        dense(q_TX, kv.act),
        address(o_TX),
        address(kv.k),
        address(kv.v),
        dense(batch.query_start_R1, np.int32),
        dense(batch.context_len_R, np.int32),
        address(batch.block_table_RB),
        row_stride(batch.block_table_RB),
        batch.num_requests,
        0 if sinks_H is None else dense(sinks_H, np.float32),
        num_heads,
        num_kv_heads,
        head_dim,
        kv.block_size,
        window,
        local_chunk,
        scale,
        kv.act == BFLOAT16,
        0,
    )
    return o_TX
