"""Token embedding on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense
from tenon.ops.linear import PackedLinear
from tenon.ops.workspace import empty


def embedding(ids_T: np.ndarray, table: PackedLinear, scale: float = 1.0) -> np.ndarray:
    x_TD = empty((len(ids_T), table.shape[1]), np.float32)
    _native.embedding(dense(ids_T, np.int32), table, address(x_TD), len(ids_T), scale)
    return x_TD
