"""The gated feed-forward layer, SwiGLU (Shazeer 2020). Shape letters: T tokens, D model width."""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.linear import Linear
from tenon.layers.weights import Weights


class GatedMLP:
    """residual + down(f(gate(x)) * up(x)), the latter times sigmoid(gate_T1) where that is given; f is
    silu, or with `gelu` that in the form with tanh. With `fused` the file has gate and up as one matrix; it
    does, too, if `names` are only two."""

    def __init__(
        self,
        weights: Weights,
        width: int,
        inner: int,
        *,
        bias: bool = False,
        gelu: bool = False,
        fused: bool = False,
        names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj"),
    ) -> None:
        self.act = weights.act
        self.gelu = gelu
        *gate_up, down = ("gate_up_proj", "down_proj") if fused else names
        rows = [2 * inner // len(gate_up)] * len(gate_up)
        self.gate_up = Linear(weights, gate_up, rows, width, bias=bias)
        self.down = Linear(weights, [down], [width], inner, bias=bias)

    def __call__(
        self, residual_TD: np.ndarray, x_TD: np.ndarray, gate_T1: np.ndarray | None = None
    ) -> np.ndarray:
        inner_TF = self._inner(x_TD)
        if gate_T1 is not None:
            inner_TF = ops.gate_rows(inner_TF, gate_T1)
        return self.down.add_to(residual_TD, inner_TF)

    def alone(self, x_TD: np.ndarray) -> np.ndarray:
        """What would be added to the residual."""
        return self.down(self._inner(x_TD))

    def _inner(self, x_TD: np.ndarray) -> np.ndarray:
        gate_up_T2F = self.gate_up(x_TD)
        if self.gelu:
            return ops.gelu_mul(gate_up_T2F, self.act, tanh_form=True)
        return ops.silu_mul(gate_up_T2F, self.act)
