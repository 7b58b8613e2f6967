"""Tokens in, logits out; the two may share one table.

Shape letters: T tokens, S rows whose logits are wanted, V vocabulary, P rows of a table, D model width.
"""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.weights import Weights


class Embedding:
    """A row of the table per token; `logits` multiplies with the same table (tied heads)."""

    def __init__(self, weights: Weights, name: str, vocab_size: int, width: int, scale: float = 1.0) -> None:
        self.scale = scale  # of what the stream starts with, not of logits
        self.table_VD = weights.pack([name], [vocab_size], width)
        self.nbytes = self.table_VD.nbytes

    def __call__(self, ids_T: np.ndarray) -> np.ndarray:
        """The start of the residual stream: float32 [T, D]."""
        return ops.embedding(ids_T, self.table_VD, self.scale)

    def logits(self, x_SD: np.ndarray) -> np.ndarray:
        """float32 [S, V]."""
        return ops.linear(x_SD, self.table_VD)


class Table:
    """An encoder's embedding: rows of float32 to look up, of words, positions or types; no logits come of it.

    `skip` rows at its beginning are never asked for.
    """

    def __init__(self, weights: Weights, name: str, rows: int, width: int, skip: int = 0) -> None:
        self.table_PD = weights.table(f"{name}.weight", rows, width)[skip:]

    def __call__(self, rows_T: np.ndarray) -> np.ndarray:
        """float32 [T, D]."""
        return ops.gather_rows(self.table_PD, rows_T)

    def add_to(self, x_TD: np.ndarray, rows_T: np.ndarray) -> np.ndarray:
        return ops.add_rows(x_TD, self.table_PD, rows_T)
