"""Linear layers on the native kernels.

Shape letters: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tenon.core import ggml
from tenon.core.tensors import RawTensor
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, row_stride
from tenon.ops.arrays import FLOAT32
from tenon.ops.linear import PackedLinear
from tenon.ops.workspace import empty


def pack_linear(
    parts: list[RawTensor],
    act: np.dtype[Any],
    *,
    act_bits: int = 0,
    quantize: str | None = None,
    in_place: bool = False,
) -> PackedLinear:
    orders = [None if p.row_order is None else np.ascontiguousarray(p.row_order, np.int32) for p in parts]
    for part, order in zip(parts, orders, strict=True):
        if order is not None and (
            len(order) != part.shape[0] or order.min() < 0 or order.max() >= len(order)
        ):
            raise ValueError(f"{part.name}: row_order must name each of its {part.shape[0]} rows")
    data = [np.ascontiguousarray(part.data) for part in parts]
    exponents = [None if p.exponents is None else np.ascontiguousarray(p.exponents) for p in parts]
    scales = [
        None if p.scales is None else p.scales._replace(values=np.ascontiguousarray(p.scales.values))
        for p in parts
    ]
    return _native.pack_linear(
        [
            (
                part.dtype if apart is None else f"{part.dtype}_pairs",
                *part.shape,
                address(bytes_),
                0 if order is None else address(order),
                part.mapped and bytes_ is part.data,
                quantize if quantize and part.dtype in ggml.FLOATS else "",
                0 if apart is None else address(apart),
                part.transposed,
                (0, 0, 0) if scale is None else (address(scale.values), scale.rows, scale.columns),
            )
            for part, bytes_, order, apart, scale in zip(parts, data, orders, exponents, scales, strict=True)
        ],
        np.dtype(act) == FLOAT32,
        act_bits,
        in_place,
        data,
    )


def packed_layout() -> str:
    return f"cpu-{_native.LAYOUT_VERSION}"


def packed_bytes(w: PackedLinear) -> np.ndarray:
    assert isinstance(w, _native.PackedLinear)
    return np.ctypeslib.as_array((ctypes.c_uint8 * w.nbytes).from_address(w.address))


def adopt_linear(
    columns: int,
    layout: list[tuple[str, int]],
    data: np.ndarray,
    act: np.dtype[Any],
    *,
    act_bits: int = 0,
) -> PackedLinear:
    formats = {format for format, _ in layout}
    if ("f32" in formats) != (np.dtype(act) == FLOAT32):
        raise ValueError(f"{', '.join(sorted(formats))} are not for {act} activations")
    return _native.adopt_linear(columns, layout, address(data), data.nbytes, act_bits, data)


def prefers_integers() -> bool:
    """With AMX, groups of 32 would leave its int8 unit less than its bf16 unit does."""
    return not str(_native.isa()).startswith("amx")


def linear(
    x_TK: np.ndarray,
    w: PackedLinear,
    bias_N: np.ndarray | None = None,
    *,
    accumulate_into_TN: np.ndarray | None = None,
) -> np.ndarray:
    rows, columns = x_TK.shape
    y_TN = accumulate_into_TN
    if y_TN is None:
        y_TN = empty((rows, w.shape[0]), FLOAT32)
    _native.linear(
        address(x_TK),
        row_stride(x_TK),
        rows,
        columns,
        x_TK.dtype == FLOAT32,
        w,
        0 if bias_N is None else address(bias_N),
        address(y_TN),
        row_stride(y_TN),
        accumulate_into_TN is not None,
    )
    return y_TN
