"""Addresses of numpy arrays, which is how they reach the native kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon.kernels.cpu import _native


def address(array: np.ndarray) -> int:
    """Where the first element lies. The caller keeps the array alive while the address is in use."""
    return _native.address(array)  # type: ignore[no-any-return]


def dense(array: np.ndarray, dtype: Any = np.float32) -> int:
    """The address of an array of `dtype` without gaps between its elements. Raises ValueError for others."""
    if not array.flags.c_contiguous:
        raise ValueError(f"need a C-contiguous array, not strides {array.strides} of shape {array.shape}")
    if array.dtype != dtype:
        raise ValueError(f"need an array of {np.dtype(dtype)}, not {array.dtype}")
    return address(array)


def row_stride(array: np.ndarray) -> int:
    """Elements from one row of a matrix to the next. Raises ValueError if the elements of a row are not
    adjacent.
    """
    apart = array.size > 0 and array.shape[-1] > 1 and array.strides[-1] != array.itemsize
    if array.ndim != 2 or apart:
        raise ValueError(f"need a matrix with adjacent elements in each row, not strides {array.strides}")
    return array.strides[0] // array.itemsize
