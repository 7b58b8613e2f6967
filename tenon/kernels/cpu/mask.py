"""Ruling out tokens on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride


def mask_logits(logits_SV: np.ndarray, rows_M: np.ndarray, mask_MW: np.ndarray) -> None:
    _native.mask_logits(
        address(logits_SV),
        row_stride(logits_SV),
        logits_SV.shape[1],
        len(rows_M),
        dense(rows_M, np.int32),
        dense(mask_MW, np.int32),
    )
