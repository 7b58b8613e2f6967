"""Mamba-2's recurrence on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.kernels.cpu.states import check_width, step_states
from tenon.ops.arrays import FLOAT32
from tenon.ops.workspace import empty


def ssd_scan(
    xbc_TC: np.ndarray,
    dt_TH: np.ndarray,
    decay_H: np.ndarray,
    dt_bias_H: np.ndarray,
    skip_H: np.ndarray,
    state_NHSP: np.ndarray,
    batch: Batch,
    *,
    num_groups: int,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
) -> np.ndarray:
    tokens, width = xbc_TC.shape
    _, heads, state_dim, head_dim = state_NHSP.shape
    check_width(head_dim)
    if width != heads * head_dim + 2 * num_groups * state_dim or dt_TH.shape != (tokens, heads):
        raise ValueError(f"rows of {width} and {dt_TH.shape[1]} do not fit a state of {state_NHSP.shape[1:]}")
    y_TX = empty((tokens, heads * head_dim), FLOAT32)
    _native.ssd_scan(
        dense(xbc_TC),
        address(dt_TH),
        row_stride(dt_TH),
        dense(decay_H),
        dense(dt_bias_H),
        dense(skip_H),
        dense(state_NHSP),
        address(y_TX),
        *step_states(batch),
        tokens,
        heads,
        head_dim,
        num_groups,
        state_dim,
        *dt_limit,
    )
    return y_TX
