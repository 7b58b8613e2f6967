"""The gated delta rule on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense
from tenon.kernels.cpu.states import check_width, step_states
from tenon.ops.arrays import FLOAT32
from tenon.ops.workspace import empty


def gated_delta_rule(
    qkv_TC: np.ndarray,
    ba_T2H: np.ndarray,
    decay_H: np.ndarray,
    dt_bias_H: np.ndarray,
    state_NHKV: np.ndarray,
    batch: Batch,
    *,
    num_key_heads: int,
) -> np.ndarray:
    tokens, width = qkv_TC.shape
    _, heads, key_dim, value_dim = state_NHKV.shape
    check_width(value_dim)
    if width != 2 * num_key_heads * key_dim + heads * value_dim or ba_T2H.shape != (tokens, 2 * heads):
        raise ValueError(
            f"rows of {width} and {ba_T2H.shape[1]} do not fit a state of {state_NHKV.shape[1:]}"
        )
    o_TX = empty((tokens, heads * value_dim), FLOAT32)
    _native.gated_delta_rule(
        dense(qkv_TC),
        dense(ba_T2H),
        dense(decay_H),
        dense(dt_bias_H),
        dense(state_NHKV),
        address(o_TX),
        *step_states(batch),
        tokens,
        num_key_heads,
        heads,
        key_dim,
        value_dim,
    )
    return o_TX
