"""Activations on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def silu_mul(gate_up_T2F: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    rows, width = gate_up_T2F.shape[0], gate_up_T2F.shape[1] // 2
    y_TF = empty((rows, width), out_dtype)
    _native.silu_mul(dense(gate_up_T2F), address(y_TF), rows, width, y_TF.dtype == BFLOAT16)
    return y_TF


def sigmoid_mul(x_TX: np.ndarray, gate_TX: np.ndarray) -> np.ndarray:
    if gate_TX.shape != x_TX.shape:
        raise ValueError(f"{x_TX.shape} cannot be gated by {gate_TX.shape}")
    _native.sigmoid_mul(
        dense(x_TX, x_TX.dtype),
        address(gate_TX),
        row_stride(gate_TX),
        *x_TX.shape,
        x_TX.dtype == BFLOAT16,
    )
    return x_TX


def clamped_mul(
    gate_up_T2F: np.ndarray, out_dtype: np.dtype[Any], *, alpha: float, limit: float
) -> np.ndarray:
    rows, width = gate_up_T2F.shape[0], gate_up_T2F.shape[1] // 2
    y_TF = empty((rows, width), out_dtype)
    is_bf16 = y_TF.dtype == BFLOAT16
    _native.clamped_mul(dense(gate_up_T2F), address(y_TF), rows, width, is_bf16, alpha, limit)
    return y_TF


def gelu(x_TF: np.ndarray, out_dtype: np.dtype[Any], *, tanh_form: bool = False) -> np.ndarray:
    return _gelu(x_TF, x_TF.shape[1], out_dtype, False, tanh_form)


def gelu_mul(input_gate_T2F: np.ndarray, out_dtype: np.dtype[Any], *, tanh_form: bool = False) -> np.ndarray:
    return _gelu(input_gate_T2F, input_gate_T2F.shape[1] // 2, out_dtype, True, tanh_form)


def _gelu(x: np.ndarray, width: int, out_dtype: np.dtype[Any], gated: bool, tanh_form: bool) -> np.ndarray:
    y_TF = empty((len(x), width), out_dtype)
    _native.gelu(dense(x), address(y_TF), len(x), width, gated, tanh_form, y_TF.dtype == BFLOAT16)
    return y_TF
