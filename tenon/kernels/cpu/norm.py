"""Norms on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def rms_norm(x_TD: np.ndarray, weight_D: np.ndarray, eps: float, out_dtype: np.dtype[Any]) -> np.ndarray:
    rows, width = x_TD.shape
    y_TD = empty((rows, width), out_dtype)
    _native.rms_norm(dense(x_TD), dense(weight_D), address(y_TD), rows, width, eps, y_TD.dtype == BFLOAT16)
    return y_TD


def add_rms_norm(x_TD: np.ndarray, y_TD: np.ndarray, weight_D: np.ndarray, eps: float) -> np.ndarray:
    rows, width = x_TD.shape
    _native.add_rms_norm(dense(x_TD), dense(y_TD), dense(weight_D), rows, width, eps)
    return x_TD


def layer_norm(
    x_TD: np.ndarray,
    weight_D: np.ndarray,
    bias_D: np.ndarray | None,
    eps: float,
    out_dtype: np.dtype[Any],
    *,
    replace: bool = False,
) -> np.ndarray:
    rows, width = x_TD.shape
    y_TD = empty((rows, width), out_dtype)
    _native.layer_norm(
        dense(x_TD),
        dense(weight_D),
        0 if bias_D is None else dense(bias_D),
        address(y_TD),
        rows,
        width,
        eps,
        replace,
        y_TD.dtype == BFLOAT16,
    )
    return y_TD


def gated_rms_norm(
    x_TX: np.ndarray,
    gate_TX: np.ndarray,
    weight_X: np.ndarray,
    eps: float,
    out_dtype: np.dtype[Any],
    *,
    group: int,
    gate_first: bool,
) -> np.ndarray:
    rows, width = x_TX.shape
    if gate_TX.shape != x_TX.shape or width % group:
        raise ValueError(f"{x_TX.shape} cannot be gated by {gate_TX.shape} in groups of {group}")
    y_TX = empty((rows, width), out_dtype)
    _native.gated_rms_norm(
        dense(x_TX),
        address(gate_TX),
        row_stride(gate_TX),
        dense(weight_X),
        address(y_TX),
        rows,
        width,
        group,
        eps,
        gate_first,
        y_TX.dtype == BFLOAT16,
    )
    return y_TX
