"""The gated feed-forward layer, SwiGLU (Shazeer 2020). Shape letters: T tokens, D model width."""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.linear import Linear
from tenon.layers.weights import Weights


class GatedMLP:
    """residual + down(silu(gate(x)) * up(x)), the latter times sigmoid(gate_T1) where that is given"""

    def __init__(self, weights: Weights, width: int, inner: int, *, bias: bool = False) -> None:
        self.act = weights.act
        self.gate_up = Linear(weights, ["gate_proj", "up_proj"], [inner, inner], width, bias=bias)
        self.down = Linear(weights, ["down_proj"], [width], inner, bias=bias)

    def __call__(
        self, residual_TD: np.ndarray, x_TD: np.ndarray, gate_T1: np.ndarray | None = None
    ) -> np.ndarray:
        inner_TF = ops.silu_mul(self.gate_up(x_TD), self.act)
        if gate_T1 is not None:
            inner_TF = ops.gate_rows(inner_TF, gate_T1)
        return self.down.add_to(residual_TD, inner_TF)
