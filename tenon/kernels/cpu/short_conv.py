"""Short convolutions on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.kernels.cpu.states import step_states
from tenon.ops.arrays import FLOAT32
from tenon.ops.workspace import empty


def short_conv(
    x_TC: np.ndarray, weight_KC: np.ndarray, bias_C: np.ndarray | None, state_NJC: np.ndarray, batch: Batch
) -> np.ndarray:
    taps, channels = weight_KC.shape
    tokens = len(x_TC)
    if x_TC.shape[1] != channels or state_NJC.shape[1:] != (taps - 1, channels):
        raise ValueError(f"weights of {taps} taps and {channels} channels do not fit {x_TC.shape}")
    y_TC = empty((tokens, channels), FLOAT32)
    _native.short_conv(
        address(x_TC),
        row_stride(x_TC),
        dense(weight_KC),
        0 if bias_C is None else dense(bias_C),
        dense(state_NJC),
        address(y_TC),
        *step_states(batch),
        tokens,
        channels,
        taps,
    )
    return y_TC
