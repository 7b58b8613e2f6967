"""The lightning indexer of DeepSeek sparse attention (DeepSeek-V3.2, 2025): see tenon/ops/indexer.py.

Shape letters: T tokens, D model width, W width of an index head, K tokens that are seen, Q width of the
query's latent vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.layers.linear import Linear
from tenon.layers.norm import LayerNorm
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights

_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class IndexerShape:
    num_heads: int
    width: int  # of a head, and of the one key of a token
    top_k: int  # tokens that a token sees


class Indexer:
    """Which positions each token sees; a token's key is kept behind its row of `offset` elements.

    The two factors that transformers multiplies scores with, and which change nothing of their order, are
    left out; so are the rotation and the eight bits of DeepSeek's own code.
    """

    def __init__(
        self, weights: Weights, shape: IndexerShape, width: int, q_rank: int, offset: int, rope: Rope
    ) -> None:
        self.shape, self.offset, self.rope = shape, offset, rope
        self.q = Linear(weights, ["wq_b"], [shape.num_heads * shape.width], q_rank)
        self.key = Linear(weights, ["wk"], [shape.width], width)
        self.norm = LayerNorm(weights, "k_norm", shape.width, _EPS)
        self.head_weights = Linear(weights.unquantized(), ["weights_proj"], [shape.num_heads], width)

    def __call__(self, x_TD: np.ndarray, q_TQ: np.ndarray, batch: Batch, kv: ops.LatentKV) -> np.ndarray:
        """int32 [T, K], of the layer's input and the query's latent vector."""
        q_TX = ops.index_write(
            self.q(q_TQ),
            self.norm.states(self.key(x_TD)),
            self.rope.cos_sin_PE,
            kv,
            batch,
            num_heads=self.shape.num_heads,
            offset=self.offset,
        )
        weights_TH = self.head_weights(x_TD)
        return ops.index_select(q_TX, weights_TH, kv, batch, offset=self.offset, top_k=self.shape.top_k)
