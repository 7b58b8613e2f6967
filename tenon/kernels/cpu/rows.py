"""Picking and converting rows on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense
from tenon.ops.arrays import BFLOAT16
from tenon.ops.workspace import empty


def gather_rows(x_TD: np.ndarray, rows_S: np.ndarray) -> np.ndarray:
    rows, width = len(rows_S), x_TD.shape[1]
    y_SD = empty((rows, width), np.float32)
    _native.gather_rows(dense(x_TD), dense(rows_S, np.int32), address(y_SD), rows, width)
    return y_SD


def cast(x_TD: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    if out_dtype != BFLOAT16:
        return x_TD
    y_TD = empty(x_TD.shape, out_dtype)
    _native.cast(dense(x_TD), address(y_TD), *x_TD.shape)
    return y_TD


def add_rows(x_TD: np.ndarray, table_PD: np.ndarray, rows_T: np.ndarray) -> np.ndarray:
    _native.add_rows(dense(x_TD), dense(table_PD), dense(rows_T, np.int32), *x_TD.shape)
    return x_TD
