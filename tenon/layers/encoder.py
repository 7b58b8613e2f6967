"""What encoders are made of: attention in both directions over packed sequences, and their activation.

Shape letters: T tokens, D model width, X = heads * head width, F feed-forward width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.errors import UnsupportedModel
from tenon.layers.linear import Linear
from tenon.layers.rope import Rope

_TANH_FORMS = {
    "gelu": False,
    "gelu_new": True,
    "gelu_fast": True,
    "gelu_pytorch_tanh": True,
}


class FullAttention:
    """Every token over its whole sequence (Vaswani et al. 2017), or over `window` tokens to either side.

    `qkv` are its three projections, stacked; with `rope` q and k are rotated. Before the output projection,
    which is the family's.
    """

    def __init__(
        self, num_heads: int, head_dim: int, qkv: Linear, window: int | None = None, rope: Rope | None = None
    ) -> None:
        self.num_heads, self.head_dim = num_heads, head_dim
        self.qkv = qkv
        self.window = window
        self.rope = rope

    def __call__(self, x_TD: np.ndarray, batch: Batch) -> np.ndarray:
        """Activations [T, X]."""
        qkv_TN = self.qkv(x_TD)
        if self.rope is not None:
            ops.rotate(
                qkv_TN,
                self.rope.cos_sin_PE,
                batch.positions_T,
                num_heads=2 * self.num_heads,
                head_dim=self.head_dim,
            )
        return ops.full_attention(
            qkv_TN,
            batch.query_start_R1,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            scale=self.head_dim**-0.5,
            window=self.window,
            out_dtype=x_TD.dtype,
        )


class Gelu:
    """Gaussian error linear unit (Hendrycks & Gimpel 2016), in the form that a configuration names."""

    def __init__(self, name: str, act: np.dtype[Any]) -> None:
        if name not in _TANH_FORMS:
            raise UnsupportedModel(f"activation {name!r} is not supported; {', '.join(_TANH_FORMS)} are")
        self.tanh_form = _TANH_FORMS[name]
        self.act = act

    def __call__(self, x_TF: np.ndarray) -> np.ndarray:
        return ops.gelu(x_TF, self.act, tanh_form=self.tanh_form)

    def gated(self, input_gate_T2F: np.ndarray) -> np.ndarray:
        """GeGLU (Shazeer 2020)."""
        return ops.gelu_mul(input_gate_T2F, self.act, tanh_form=self.tanh_form)
