"""Head norms, rotary embedding and the KV cache write on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.kv import PairedKV
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def rope_kv_write(
    qkv_TN: np.ndarray,
    cos_sin_PE: np.ndarray,
    kv: PairedKV,
    batch: Batch,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    rot_dim: int,
    q_norm: np.ndarray | None,
    k_norm: np.ndarray | None,
    eps: float,
    joint_norms: bool = False,
    v_norm: bool = False,
    q_scale_P: np.ndarray | None = None,
) -> np.ndarray:
    tokens, width = qkv_TN.shape
    if width != (num_heads + 2 * num_kv_heads) * head_dim:
        raise ValueError(f"{width} columns are not {num_heads} + 2 * {num_kv_heads} heads of {head_dim}")
    q_TX = empty((tokens, num_heads * head_dim), kv.act)
    _native.rope_kv_write(
        address(qkv_TN),
        row_stride(qkv_TN),
        dense(cos_sin_PE),
        0 if q_norm is None else dense(q_norm),
        0 if k_norm is None else dense(k_norm),
        0 if q_scale_P is None else dense(q_scale_P),
        dense(batch.positions_T, np.int32),
        dense(batch.slots_T, np.int32),
        address(q_TX),
        address(kv.k),
        address(kv.v),
        tokens,
        num_heads,
        num_kv_heads,
        head_dim,
        rot_dim,
        kv.block_size,
        eps,
        joint_norms,
        v_norm,
        kv.act == BFLOAT16,
    )
    return q_TX


def rotate(
    x_TN: np.ndarray, cos_sin_PE: np.ndarray, positions_T: np.ndarray, *, num_heads: int, head_dim: int
) -> np.ndarray:
    tokens, width = x_TN.shape
    _native.rotate(
        dense(x_TN),
        dense(cos_sin_PE),
        dense(positions_T, np.int32),
        tokens,
        width,
        num_heads,
        head_dim,
    )
    return x_TN
