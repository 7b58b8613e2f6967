"""Sums of rows, and heads' functions, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense
from tenon.ops.workspace import empty


def sum_rows(x_TD: np.ndarray, query_start_R1: np.ndarray, sum_RD: np.ndarray) -> np.ndarray:
    _native.sum_rows(dense(x_TD), dense(query_start_R1, np.int32), dense(sum_RD), *sum_RD.shape)
    return sum_RD


def tanh(x_RN: np.ndarray) -> np.ndarray:
    return _each(_native.tanh, x_RN)


def sigmoid(x_RN: np.ndarray) -> np.ndarray:
    return _each(_native.sigmoid, x_RN)


def softmax(x_RN: np.ndarray) -> np.ndarray:
    return _each(_native.softmax, x_RN)


def unit_rows(x_RN: np.ndarray) -> np.ndarray:
    return _each(_native.unit_rows, x_RN)


def _each(kernel: Callable[..., None], x_RN: np.ndarray) -> np.ndarray:
    y_RN = empty(x_RN.shape, np.float32)
    kernel(dense(x_RN), address(y_RN), *x_RN.shape)
    return y_RN
