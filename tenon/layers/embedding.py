"""Tokens in, logits out; the two may share one table.

Shape letters: T tokens, S rows whose logits are wanted, V vocabulary, D model width.
"""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.weights import Weights


class Embedding:
    """A row of the table per token; `logits` multiplies with the same table (tied heads)."""

    def __init__(self, weights: Weights, name: str, vocab_size: int, width: int) -> None:
        self.table_VD = weights.pack([name], [vocab_size], width)
        self.nbytes = self.table_VD.nbytes

    def __call__(self, ids_T: np.ndarray) -> np.ndarray:
        """The start of the residual stream: float32 [T, D]."""
        return ops.embedding(ids_T, self.table_VD)

    def logits(self, x_SD: np.ndarray) -> np.ndarray:
        """float32 [S, V]."""
        return ops.linear(x_SD, self.table_VD)
