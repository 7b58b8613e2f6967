"""Attention of packed sequences on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.errors import UnsupportedOp
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.kv import HEAD_MULTIPLE
from tenon.kernels.cpu.memory import address, dense
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def full_attention(
    qkv_TN: np.ndarray,
    query_start_R1: np.ndarray,
    *,
    num_heads: int,
    head_dim: int,
    scale: float,
    window: int | None,
    out_dtype: np.dtype[Any],
) -> np.ndarray:
    if head_dim % HEAD_MULTIPLE:
        raise UnsupportedOp(
            f"the CPU's attention needs heads of a multiple of {HEAD_MULTIPLE} elements, not {head_dim}; "
            "TENON_BACKEND=reference can run others, slowly"
        )
    o_TX = empty((len(qkv_TN), num_heads * head_dim), out_dtype)
    _native.full_attention(
        dense(qkv_TN),
        address(o_TX),
        dense(query_start_R1, np.int32),
        len(query_start_R1) - 1,
        num_heads,
        head_dim,
        -1 if window is None else window,
        scale,
        o_TX.dtype == BFLOAT16,
    )
    return o_TX
