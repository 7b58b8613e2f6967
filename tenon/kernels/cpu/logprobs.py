"""Log-probabilities on the CPU."""

from __future__ import annotations

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.workspace import empty


def logprobs(
    logits_SV: np.ndarray, ids_S: np.ndarray, top_n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows, vocab = logits_SV.shape
    if not 0 <= top_n <= vocab:
        raise ValueError(f"top_n must be between 0 and {vocab}, not {top_n}")
    logprob_S, rank_S = empty((rows,), np.float32), empty((rows,), np.int32)
    top_ids_Sn, top_logprobs_Sn = empty((rows, top_n), np.int32), empty((rows, top_n), np.float32)
    _native.logprobs(
        address(logits_SV),
        row_stride(logits_SV),
        vocab,
        rows,
        top_n,
        dense(ids_S, np.int32),
        address(logprob_S),
        address(rank_S),
        address(top_ids_Sn),
        address(top_logprobs_Sn),
    )
    return logprob_S, rank_S, top_ids_Sn, top_logprobs_Sn
