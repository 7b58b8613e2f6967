"""Choosing the next token on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, row_stride
from tenon.ops.workspace import empty


def sample(
    logits_SV: np.ndarray,
    temperature_S: np.ndarray,
    top_k_S: np.ndarray,
    top_p_S: np.ndarray,
    min_p_S: np.ndarray,
    seed_S: np.ndarray,
    choice_S: np.ndarray,
    position_S: np.ndarray,
) -> np.ndarray:
    rows, vocab = logits_SV.shape
    ids_S = empty((rows,), np.int32)
    _native.sample(
        address(logits_SV),
        row_stride(logits_SV),
        vocab,
        rows,
        temperature_S,
        top_k_S,
        top_p_S,
        min_p_S,
        seed_S,
        choice_S,
        position_S,
        ids_S,
    )
    return ids_S
