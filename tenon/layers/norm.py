"""Root-mean-square norm (Zhang & Sennrich 2019). Shape letters: T tokens, D width."""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.weights import Weights


class RMSNorm:
    """Reads the residual stream (float32) and gives activations (the model's dtype)."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float) -> None:
        self.weight_D = weights.vector(f"{name}.weight", width)
        self.eps = eps
        self.act = weights.act

    def __call__(self, x_TD: np.ndarray) -> np.ndarray:
        return ops.rms_norm(x_TD, self.weight_D, self.eps, self.act)
