"""A linear layer, or several that share their input, stacked into one (q|k|v, gate|up).

Shape letters: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tenon.errors import UnsupportedModel
from tenon.layers.weights import LinearScheme, Weights
from tenon.util import plugin

_SCHEMES = "tenon.quant"


class Linear:
    """y = x W^T (+ b). `rows` are the outputs of each layer in `names`; `columns` their common input."""

    def __init__(
        self, weights: Weights, names: list[str], rows: list[int], columns: int, *, bias: bool = False
    ) -> None:
        self.weight = weights.scheme.load(weights, names, rows, columns)
        self.bias_N = _stack_biases(weights, names, rows) if bias else None

    def __call__(self, x_TK: np.ndarray) -> np.ndarray:
        """float32 [T, N] of activations [T, K]."""
        return self.weight.apply(x_TK, self.bias_N, None)

    def add_to(self, residual_TN: np.ndarray, x_TK: np.ndarray) -> np.ndarray:
        """The residual stream (float32) plus this layer's output, in place."""
        return self.weight.apply(x_TK, self.bias_N, residual_TN)


def linear_scheme(method: str, settings: Mapping[str, Any]) -> LinearScheme:
    """The scheme in tenon/quant/<method>.py, with what config.json's `quantization_config` says. Raises
    UnsupportedModel when there is none, or it does not do this."""
    name = method.replace("-", "_")
    if name not in plugin.names(_SCHEMES):
        supported = ", ".join(plugin.names(_SCHEMES))
        raise UnsupportedModel(f"quantization method {method!r} is not supported; {supported} are")
    scheme: LinearScheme = plugin.load(_SCHEMES, name).SCHEME
    return scheme.configured(settings)


def _stack_biases(weights: Weights, names: list[str], rows: list[int]) -> np.ndarray:
    return np.concatenate([weights.vector(f"{name}.bias", n) for name, n in zip(names, rows, strict=True)])
