"""Mamba-2 (Dao & Gu 2024): a selective state space whose state decays by one factor for each head.

Shape letters: T tokens, D model width, H heads, P width of a head, G groups, S width of the state, X = H P,
C = X + 2 G S channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.spec import StateArray
from tenon.layers.delta_net import conv_weight, decay
from tenon.layers.linear import Linear
from tenon.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class Mamba2Shape:
    width: int
    num_heads: int
    head_dim: int
    num_groups: int  # of heads that share B and C
    state_dim: int
    taps: int  # of the short convolution
    eps: float
    bias: bool = False  # of the projections
    conv_bias: bool = True
    dt_limit: tuple[float, float] = (0.0, float("inf"))

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def channels(self) -> int:
        """Of the convolution: x, B and C."""
        return self.inner + 2 * self.num_groups * self.state_dim

    @property
    def arrays(self) -> tuple[StateArray, ...]:
        """What a layer remembers: the last inputs of its convolution, and the state of each head."""
        memory = (self.num_heads, self.state_dim, self.head_dim)
        return StateArray((self.taps - 1, self.channels)), StateArray(memory)


class Mamba2:
    """residual + o(norm(scan(conv(x, B, C), dt) * silu(z))); z, x, B, C and dt are linear in the layer's
    input."""

    def __init__(self, weights: Weights, shape: Mamba2Shape) -> None:
        self.shape = shape
        self.act = weights.act
        rows = shape.inner + shape.channels + shape.num_heads
        self.zxbcdt = Linear(weights, ["in_proj"], [rows], shape.width, bias=shape.bias)
        self.conv_KC = conv_weight(weights, shape.taps, shape.channels)
        self.conv_bias_C = weights.vector("conv1d.bias", shape.channels) if shape.conv_bias else None
        self.decay_H = decay(weights, shape.num_heads)
        self.dt_bias_H = weights.vector("dt_bias", shape.num_heads)
        self.skip_H = weights.vector("D", shape.num_heads)
        groups = (shape.num_groups, shape.inner // shape.num_groups)
        norm = weights.array("norm.weight", groups if weights.gguf else (shape.inner,))
        self.norm_X = norm.reshape(-1)
        self.output = Linear(weights, ["out_proj"], [shape.width], shape.inner, bias=shape.bias)

    def __call__(
        self, residual_TD: np.ndarray, x_TD: np.ndarray, batch: Batch, state: list[Any]
    ) -> np.ndarray:
        shape, (past, memory) = self.shape, state
        zxbcdt_TN = self.zxbcdt(x_TD)
        z_end, conv_end = shape.inner, shape.inner + shape.channels
        xbc_TC = ops.short_conv(zxbcdt_TN[:, z_end:conv_end], self.conv_KC, self.conv_bias_C, past, batch)
        y_TX = ops.ssd_scan(
            xbc_TC,
            zxbcdt_TN[:, conv_end:],
            self.decay_H,
            self.dt_bias_H,
            self.skip_H,
            memory,
            batch,
            num_groups=shape.num_groups,
            dt_limit=shape.dt_limit,
        )
        y_TX = ops.gated_rms_norm(
            y_TX,
            zxbcdt_TN[:, :z_end],
            self.norm_X,
            shape.eps,
            self.act,
            group=shape.inner // shape.num_groups,
            gate_first=True,
        )
        return self.output.add_to(residual_TD, y_TX)
