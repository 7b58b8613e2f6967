"""Attention with grouped key/value heads (Ainslie et al. 2023), rotary positions and a paged cache.

Shape letters: T tokens, D model width, H query heads, G key/value heads, E head width, X = H * E.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    joint_norms: bool = False  # of all heads of q together, and of k (OLMo 2)
    norm_offset: float = 0.0  # added to these norms' weights
    scale: float | None = None  # of scores; None: head_dim ** -0.5
    window: int = 0  # positions that a token sees, its own included; 0: all
    fused: bool = False  # the file has q, k and v as one matrix
    v_norm: bool = False  # heads of v are normalised, without weights (Gemma 4)
    v_is_k: bool = False  # v is what k_proj gives, before its norm and rotation
    borrowed: bool = False  # K and V are those of an earlier layer, whose cache this one is given
    output_gate: bool = False  # q_proj gives gates of all heads first; what heads give is times their sigmoid
    local_chunk: int = 0  # a token sees positions from the last multiple of it on; 0: all
    sinks: bool = False  # a score for each head that takes weight from the others
    unit_norms: bool = False  # RMS norm of each head of q and k, without weights (Llama 4)

    @property
    def score_scale(self) -> float:
        return self.head_dim**-0.5 if self.scale is None else self.scale


class Attention:
    """residual + o(attention(rope(qkv(x))))"""

    def __init__(self, weights: Weights, shape: AttentionShape, rope: Rope) -> None:
        self.shape = shape
        self.rope = rope
        q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.num_gates = q if shape.output_gate else 0
        names, rows = ["q_proj", "k_proj", "v_proj"], [self.num_gates + q, kv, kv]
        if shape.fused:
            names, rows = ["qkv_proj"], [q + 2 * kv]
        if shape.v_is_k:
            names = ["q_proj", "k_proj", "k_proj"]
        if shape.borrowed:
            names, rows = names[:1], rows[:1]
        self.qkv = Linear(weights, names, rows, shape.width, bias=shape.qkv_bias)
        self.output = Linear(weights, ["o_proj"], [shape.width], q, bias=shape.output_bias)
        self.q_norm = self._norm(weights, "q_norm", shape.num_heads)
        self.k_norm = None if shape.borrowed else self._norm(weights, "k_norm", shape.num_kv_heads)
        self.sinks_H = weights.vector("sinks", shape.num_heads) if shape.sinks else None

    def __call__(self, residual_TD: np.ndarray, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        return self.output.add_to(residual_TD, self._heads(x_TD, batch, kv))

    def alone(self, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        """What would be added to the residual."""
        return self.output(self._heads(x_TD, batch, kv))

    def _norm(self, weights: Weights, name: str, heads: int) -> np.ndarray | None:
        shape = self.shape
        if shape.unit_norms:
            return np.ones(shape.head_dim, np.float32)
        if not (shape.head_norms or shape.joint_norms):
            return None
        length = (heads if shape.joint_norms else 1) * shape.head_dim
        return weights.vector(f"{name}.weight", length) + np.float32(shape.norm_offset)

    def _written(self, kv: Any) -> ops.LayerKV:
        """Of a layer's cache, what K and V are written to."""
        return kv  # type: ignore[no-any-return]

    def _heads(self, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        shape = self.shape
        gate_qkv_TN = self.qkv(x_TD)
        q_TX = ops.rope_kv_write(
            gate_qkv_TN[:, self.num_gates :],
            self.rope.cos_sin_PE,
            self._written(kv),
            batch,
            num_heads=shape.num_heads,
            num_kv_heads=0 if shape.borrowed else shape.num_kv_heads,
            head_dim=shape.head_dim,
            rot_dim=self.rope.config.rot_dim,
            q_norm=self.q_norm,
            k_norm=self.k_norm,
            eps=shape.eps,
            joint_norms=shape.joint_norms,
            v_norm=shape.v_norm,
            q_scale_P=self.rope.q_scale_P,
        )
        o_TX = self._attend(q_TX, kv, batch)
        return ops.sigmoid_mul(o_TX, gate_qkv_TN[:, : self.num_gates]) if self.num_gates else o_TX

    def _attend(self, q_TX: np.ndarray, kv: Any, batch: Batch) -> np.ndarray:
        shape = self.shape
        return ops.attention(
            q_TX,
            kv,
            batch,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            scale=shape.score_scale,
            window=shape.window,
            local_chunk=shape.local_chunk,
            sinks_H=self.sinks_H,
        )


class SparseAttention(Attention):
    """The same, to a few blocks that each token chooses once its context is long."""

    def __init__(self, weights: Weights, shape: AttentionShape, rope: Rope, sparsity: ops.Sparsity) -> None:
        super().__init__(weights, shape, rope)
        self.sparsity = sparsity

    def _written(self, kv: ops.SparseKV) -> ops.LayerKV:
        return kv.kv

    def _attend(self, q_TX: np.ndarray, kv: ops.SparseKV, batch: Batch) -> np.ndarray:
        shape = self.shape
        return ops.sparse_attention(
            q_TX,
            kv,
            batch,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            scale=shape.score_scale,
            sparsity=self.sparsity,
        )
