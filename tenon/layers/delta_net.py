"""Gated delta net (Yang et al. 2024): linear attention over a memory that forgets, and is corrected rather
than added to.

Shape letters: T tokens, D model width, G key heads, H value heads, K width of a key, V width of a value,
C = 2 G K + H V channels, X = H V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.spec import StateArray
from tenon.layers.linear import Linear
from tenon.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class DeltaNetShape:
    width: int
    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    taps: int  # of the short convolution
    eps: float

    @property
    def inner(self) -> int:
        return self.num_value_heads * self.value_dim

    @property
    def channels(self) -> int:
        """Of the convolution: q, k and v."""
        return 2 * self.num_key_heads * self.key_dim + self.inner

    @property
    def arrays(self) -> tuple[StateArray, ...]:
        """What a layer remembers: the last inputs of its convolution, and the memory of each head."""
        memory = (self.num_value_heads, self.key_dim, self.value_dim)
        return StateArray((self.taps - 1, self.channels)), StateArray(memory)


class GatedDeltaNet:
    """residual + o(norm(memory(conv(q, k, v), b, a)) * silu(z)); q, k, v, z and b, a are linear in x.

    Rows of the projections are in the order q, k, v, z and b, a, each of all heads: `row_order` of the
    family sees to it.
    """

    def __init__(self, weights: Weights, shape: DeltaNetShape) -> None:
        self.shape = shape
        self.act = weights.act
        names, rows = ["in_proj_qkvz"], [shape.channels + shape.inner]
        if weights.gguf and not weights.has("in_proj_qkvz.weight"):
            names, rows = ["in_proj_qkv", "in_proj_z"], [shape.channels, shape.inner]
        self.qkvz = Linear(weights, names, rows, shape.width)
        # What is kept and what is written: small, and exact as the file has it.
        self.ba = Linear(weights.unquantized(), ["in_proj_ba"], [2 * shape.num_value_heads], shape.width)
        self.conv_KC = conv_weight(weights, shape.taps, shape.channels)
        self.decay_H = decay(weights, shape.num_value_heads)
        self.dt_bias_H = weights.vector("dt_bias", shape.num_value_heads)
        self.norm_X = np.tile(weights.vector("norm.weight", shape.value_dim), shape.num_value_heads)
        self.output = Linear(weights, ["out_proj"], [shape.width], shape.inner)

    def __call__(
        self, residual_TD: np.ndarray, x_TD: np.ndarray, batch: Batch, state: list[Any]
    ) -> np.ndarray:
        shape, (past, memory) = self.shape, state
        qkvz_TN = self.qkvz(x_TD)
        qkv_TC = ops.short_conv(qkvz_TN[:, : shape.channels], self.conv_KC, None, past, batch)
        o_TX = ops.gated_delta_rule(
            qkv_TC,
            self.ba(x_TD),
            self.decay_H,
            self.dt_bias_H,
            memory,
            batch,
            num_key_heads=shape.num_key_heads,
        )
        o_TX = ops.gated_rms_norm(
            o_TX,
            qkvz_TN[:, shape.channels :],
            self.norm_X,
            shape.eps,
            self.act,
            group=shape.value_dim,
            gate_first=False,
        )
        return self.output.add_to(residual_TD, o_TX)


def conv_weight(weights: Weights, taps: int, channels: int) -> np.ndarray:
    """float32 [taps, channels] of the tensor `conv1d.weight`, as torch has it."""
    return np.ascontiguousarray(weights.array("conv1d.weight", (channels, 1, taps))[:, 0].T)


def decay(weights: Weights, heads: int) -> np.ndarray:
    """float32 [heads]: -e^A_log, which GGUF files have as such."""
    a_H = weights.vector("A_log", heads)
    return a_H if weights.gguf else -np.exp(a_H)
