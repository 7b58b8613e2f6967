"""Inputs of each layer (Gemma 3n; Gemma 4): what a layer is told of a token beside the residual stream.

Shape letters: T tokens, L layers, P width of a layer's input, X = L * P, D model width.
"""

from __future__ import annotations

import numpy as np

from tenon import ops
from tenon.layers.embedding import Embedding
from tenon.layers.linear import Linear
from tenon.layers.norm import RMSNorm
from tenon.layers.weights import Weights


class LayerInputs:
    """(norm(project(x)) + table[token]) / sqrt(2), of the embedded tokens x, for all layers at once."""

    def __init__(
        self, weights: Weights, vocab_size: int, width: int, layers: int, input_width: int, eps: float
    ) -> None:
        columns = layers * input_width
        self.act = weights.act
        self.table = Embedding(weights, "embed_tokens_per_layer", vocab_size, columns, input_width**0.5)
        self.projection = Linear(weights, ["per_layer_model_projection"], [columns], width)
        self.weight_P = weights.vector("per_layer_projection_norm.weight", input_width)
        self.eps = eps * width  # the projection is to be divided by the root of the width, before its norm

    def __call__(self, ids_T: np.ndarray, x_TD: np.ndarray) -> np.ndarray:
        """float32 [T, X]"""
        projected_TX = self.projection(ops.cast(x_TD, self.act))
        return ops.layer_inputs(projected_TX, self.table(ids_T), self.weight_P, self.eps)


class InputGate:
    """x + norm(project(gelu(gate(x)) * input))"""

    def __init__(self, weights: Weights, width: int, input_width: int, eps: float) -> None:
        self.act = weights.act
        self.gate = Linear(weights, ["per_layer_input_gate"], [input_width], width)
        self.projection = Linear(weights, ["per_layer_projection"], [width], input_width)
        self.norm = RMSNorm(weights, "post_per_layer_input_norm", width, eps)

    def __call__(self, x_TD: np.ndarray, input_TP: np.ndarray) -> np.ndarray:
        gated_TP = ops.gelu_times(self.gate(ops.cast(x_TD, self.act)), input_TP, self.act)
        return self.norm.add_to(x_TD, self.projection(gated_TP))


class Scale:
    """x times a number that the file has, in place."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.factor = float(weights.vector(name, 1)[0])

    def __call__(self, x_TD: np.ndarray) -> np.ndarray:
        return ops.scale_rows(x_TD, self.factor)


class Softcap:
    """cap * tanh(x / cap), in place."""

    def __init__(self, cap: float) -> None:
        self.cap = cap

    def __call__(self, x_SV: np.ndarray) -> np.ndarray:
        return ops.softcap(x_SV, self.cap)
