"""Attention with grouped key/value heads (Ainslie et al. 2023), rotary positions and a paged cache.

Shape letters: T tokens, D model width, H query heads, G key/value heads, E head width, X = H * E.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.layers.linear import Linear
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class AttentionShape:
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float  # of the head norms
    qkv_bias: bool = False
    output_bias: bool = False
    head_norms: bool = False  # RMS norm of each head of q and k, before the rotation (Qwen3)


class Attention:
    """residual + o(attention(rope(qkv(x))))"""

    def __init__(self, weights: Weights, shape: AttentionShape, rope: Rope) -> None:
        self.shape = shape
        self.rope = rope
        q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        names = ["q_proj", "k_proj", "v_proj"]
        self.qkv = Linear(weights, names, [q, kv, kv], shape.width, bias=shape.qkv_bias)
        self.output = Linear(weights, ["o_proj"], [shape.width], q, bias=shape.output_bias)
        self.q_norm_E = weights.vector("q_norm.weight", shape.head_dim) if shape.head_norms else None
        self.k_norm_E = weights.vector("k_norm.weight", shape.head_dim) if shape.head_norms else None

    def __call__(
        self, residual_TD: np.ndarray, x_TD: np.ndarray, batch: Batch, kv: ops.LayerKV
    ) -> np.ndarray:
        shape = self.shape
        q_TX = ops.rope_kv_write(
            self.qkv(x_TD),
            self.rope.cos_sin_PE,
            kv,
            batch,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            rot_dim=self.rope.config.rot_dim,
            q_norm=self.q_norm_E,
            k_norm=self.k_norm_E,
            eps=shape.eps,
        )
        o_TX = ops.attention(
            q_TX,
            kv,
            batch,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            scale=shape.head_dim**-0.5,
        )
        return self.output.add_to(residual_TD, o_TX)
