"""Inputs of each layer, scaled streams and capped logits on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def layer_inputs(x_TX: np.ndarray, table_TX: np.ndarray, weight_P: np.ndarray, eps: float) -> np.ndarray:
    rows, width = x_TX.shape
    if table_TX.shape != x_TX.shape or width % len(weight_P):
        raise ValueError(f"{x_TX.shape} and {table_TX.shape} are not layers of {len(weight_P)}")
    _native.layer_inputs(dense(x_TX), dense(table_TX), dense(weight_P), rows, width, len(weight_P), eps)
    return x_TX


def gelu_times(x_TP: np.ndarray, factor_TP: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    rows, width = x_TP.shape
    if factor_TP.shape != x_TP.shape:
        raise ValueError(f"{x_TP.shape} cannot be multiplied by {factor_TP.shape}")
    y_TP = empty(x_TP.shape, out_dtype)
    _native.gelu_times(
        dense(x_TP),
        address(factor_TP),
        row_stride(factor_TP),
        address(y_TP),
        rows,
        width,
        y_TP.dtype == BFLOAT16,
    )
    return y_TP


def scale_rows(x_TD: np.ndarray, factor: float) -> np.ndarray:
    _native.scale_rows(dense(x_TD), *x_TD.shape, factor)
    return x_TD


def softcap(x_SV: np.ndarray, cap: float) -> np.ndarray:
    _native.softcap(dense(x_SV), *x_SV.shape, cap)
    return x_SV
