"""The lightning indexer on the CPU. Its keys lie in the rows of the latent cache."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.errors import UnsupportedOp
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.kv import STEP
from tenon.kernels.cpu.latent import RowKV
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def index_write(
    q_TX: np.ndarray,
    k_TW: np.ndarray,
    cos_sin_PM: np.ndarray,
    kv: RowKV,
    batch: Batch,
    *,
    num_heads: int,
    offset: int,
) -> np.ndarray:
    tokens, width = k_TW.shape
    _check(kv, width, offset)
    out_TX = empty(q_TX.shape, kv.act)
    _native.index_write(
        dense(q_TX),
        dense(k_TW),
        dense(cos_sin_PM),
        dense(batch.positions_T, np.int32),
        dense(batch.slots_T, np.int32),
        address(out_TX),
        address(kv.rows),
        tokens,
        num_heads,
        width,
        cos_sin_PM.shape[1],
        kv.rows.shape[1],
        offset,
        kv.act == BFLOAT16,
    )
    return out_TX


def index_select(
    q_TX: np.ndarray, weights_TH: np.ndarray, kv: RowKV, batch: Batch, *, offset: int, top_k: int
) -> np.ndarray:
    tokens, heads = weights_TH.shape
    width = q_TX.shape[1] // heads
    _check(kv, width, offset)
    selected_TK = empty((tokens, top_k), np.int32)
    _native.index_select(
        dense(q_TX, kv.act),
        dense(weights_TH),
        address(kv.rows),
        dense(batch.query_start_R1, np.int32),
        dense(batch.context_len_R, np.int32),
        address(batch.block_table_RB),
        row_stride(batch.block_table_RB),
        address(selected_TK),
        batch.num_requests,
        heads,
        width,
        kv.rows.shape[1],
        offset,
        kv.block_size,
        top_k,
        kv.act == BFLOAT16,
    )
    return selected_TK


def _check(kv: RowKV, width: int, offset: int) -> None:
    if width % STEP or offset + width > kv.width:
        raise UnsupportedOp(
            f"the CPU's indexer needs keys of a multiple of {STEP} elements within rows of {kv.width}, not "
            f"{width} at {offset}; TENON_BACKEND=reference can run others, slowly"
        )
