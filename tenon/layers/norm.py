"""Norms over the model width. Shape letters: T tokens, D width."""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.weights import Weights


class RMSNorm:
    """RMS norm (Zhang & Sennrich 2019). Reads the residual stream (float32), gives activations.

    `offset` is added to the weights: some files have them less 1. The result is multiplied by `scale`. `part`
    is what the file calls the weights.
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        width: int,
        eps: float,
        offset: float = 0.0,
        scale: float = 1.0,
        part: str = "weight",
    ) -> None:
        self.weight_D = (weights.vector(f"{name}.{part}", width) + np.float32(offset)) * np.float32(scale)
        self.eps = eps
        self.act = weights.act

    def __call__(self, x_TD: np.ndarray) -> np.ndarray:
        return ops.rms_norm(x_TD, self.weight_D, self.eps, self.act)

    def add_to(self, residual_TD: np.ndarray, y_TD: np.ndarray) -> np.ndarray:
        """The residual stream plus the norm of what a layer gives (float32), in place."""
        return ops.add_rms_norm(residual_TD, y_TD, self.weight_D, self.eps)

    def states(self, x_TD: np.ndarray) -> np.ndarray:
        """The same in float32, for what is pooled."""
        return ops.rms_norm(x_TD, self.weight_D, self.eps, ops.act_dtype("float32"))


class LayerNorm:
    """Layer norm (Ba et al. 2016). Reads the residual stream (float32) and gives activations."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float, *, bias: bool = True) -> None:
        self.weight_D = weights.vector(f"{name}.weight", width)
        self.bias_D = weights.vector(f"{name}.bias", width) if bias else None
        self.eps = eps
        self.act = weights.act

    def __call__(self, x_TD: np.ndarray) -> np.ndarray:
        return ops.layer_norm(x_TD, self.weight_D, self.bias_D, self.eps, self.act)

    def replacing(self, x_TD: np.ndarray) -> np.ndarray:
        """For models that normalise after adding: the residual stream itself is normalised too, in place."""
        return ops.layer_norm(x_TD, self.weight_D, self.bias_D, self.eps, self.act, replace=True)

    def states(self, x_TD: np.ndarray) -> np.ndarray:
        """The same in float32, for what is pooled."""
        return ops.layer_norm(x_TD, self.weight_D, self.bias_D, self.eps, ops.act_dtype("float32"))
