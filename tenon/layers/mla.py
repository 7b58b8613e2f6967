"""Multi-head latent attention (DeepSeek-V2, 2024), absorbed: see tenon/ops/latent.py.

    q = q_b(norm(q_a(x)))                       each head: [n (N) | m (M)]
    [c | r] = kv_a(x), c normalised             what the cache keeps of a token; m and r turn
    head h: softmax(scale ((U_h^T n) c + m r))  over all tokens' [c | r]
    x += o([W_h (sum of p c) of all heads])

Shape letters: T tokens, D model width, H heads, L latent width, N and M widths of a query's parts, V width of
a head's value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.layers.indexer import Indexer, IndexerShape
from tenon.layers.linear import Linear
from tenon.layers.norm import RMSNorm
from tenon.layers.rope import Rope
from tenon.layers.weights import Tensor, Weights

_EPS = 1e-6  # of the norms within, whatever the others have


@dataclass(frozen=True, slots=True)
class LatentShape:
    width: int  # D
    num_heads: int
    rank: int  # L
    nope_dim: int  # N
    rope_dim: int  # M
    value_dim: int  # V
    q_rank: int = 0  # between q_a and q_b; 0: q is one matrix
    scale: float = 1.0  # of scores
    latent_scale: float = 1.0  # of c, after its norm
    bias: bool = False  # of the layers that read x, and of o
    indexer: IndexerShape | None = None  # tokens see those that it selects (DeepSeek-V3.2)

    @property
    def row(self) -> int:
        """Elements of [c | r]."""
        return self.rank + self.rope_dim

    @property
    def kept(self) -> int:
        """Elements that the cache keeps of a token."""
        return self.row + (self.indexer.width if self.indexer else 0)


class LatentAttention:
    """residual + o(attention(x))"""

    def __init__(self, weights: Weights, shape: LatentShape, rope: Rope) -> None:
        self.shape = shape
        self.rope = rope
        q = shape.num_heads * (shape.nope_dim + shape.rope_dim)
        if shape.q_rank:
            self.q_a = Linear(weights, ["q_a_proj"], [shape.q_rank], shape.width, bias=shape.bias)
            self.q_norm = RMSNorm(weights, "q_a_layernorm", shape.q_rank, _EPS)
            self.q = Linear(weights, ["q_b_proj"], [q], shape.q_rank)
        else:
            self.q = Linear(weights, ["q_proj"], [q], shape.width)
        self.kv = Linear(weights, ["kv_a_proj_with_mqa"], [shape.row], shape.width, bias=shape.bias)
        self.norm_L = weights.vector("kv_a_layernorm.weight", shape.rank) * np.float32(shape.latent_scale)
        self.indexer: Indexer | None = None
        if shape.indexer is not None:
            self.indexer = Indexer(
                weights.at("indexer"), shape.indexer, shape.width, shape.q_rank, shape.row, rope
            )
        self.keys, self.values = _up(weights.unquantized(), shape)
        inner = shape.num_heads * shape.value_dim
        self.output = Linear(weights, ["o_proj"], [shape.width], inner, bias=shape.bias)

    def __call__(
        self, residual_TD: np.ndarray, x_TD: np.ndarray, batch: Batch, kv: ops.LatentKV
    ) -> np.ndarray:
        heads = self.shape.num_heads
        q_TQ = self.q_norm(self.q_a(x_TD)) if self.shape.q_rank else x_TD
        n_TZ, m_TY = ops.latent_write(
            self.q(q_TQ),
            self.kv(x_TD),
            self.norm_L,
            self.rope.cos_sin_PE,
            kv,
            batch,
            num_heads=heads,
            eps=_EPS,
        )
        o_TX = ops.latent_attention(
            ops.head_linear(n_TZ, self.keys, heads),
            m_TY,
            kv,
            batch,
            num_heads=heads,
            scale=self.shape.scale,
            selected_TK=None if self.indexer is None else self.indexer(x_TD, q_TQ, batch, kv),
        )
        return self.output.add_to(residual_TD, ops.head_linear(o_TX, self.values, heads))


def _up(weights: Weights, shape: LatentShape) -> tuple[ops.PackedLinear, ops.PackedLinear]:
    """(U^T [H * L, N], W [H * V, L]): what makes keys and values of a latent vector.

    Files have one matrix whose rows are, head after head, U and W; newer GGUF files have both apart, U
    transposed already. These stay as they are stored; the one matrix is read as floats, which U must be to be
    transposed. Never quantised when it is loaded: of most models it is a fiftieth of a layer or less.
    """
    heads, rank = shape.num_heads, shape.rank
    if weights.has("k_b_proj.weight"):
        keys = weights.pack_tensors([Tensor("k_b_proj.weight", (heads, rank, shape.nope_dim))])
        return keys, weights.pack_tensors([Tensor("v_b_proj.weight", (heads, shape.value_dim, rank))])
    rows = shape.nope_dim + shape.value_dim
    both_HRL = weights.table("kv_b_proj.weight", heads * rows, rank).reshape(heads, rows, rank)
    up, down = np.split(both_HRL, [shape.nope_dim], axis=1)
    return weights.pack_made(list(up.swapaxes(1, 2))), weights.pack_made(list(down))
