"""Heads over pooled states: what makes embeddings or a classifier's numbers of them, in float32.

Shape letters: R sequences, D model width, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tenon import ops
from tenon.errors import UnsupportedModel
from tenon.layers.linear import Linear
from tenon.layers.weights import Weights

Step = Callable[[np.ndarray], np.ndarray]


def _none(x: np.ndarray) -> np.ndarray:
    return x


def _gelu(x: np.ndarray) -> np.ndarray:
    return ops.gelu(x, ops.act_dtype("float32"))


_ACTIVATIONS: dict[str, Step] = {"none": _none, "tanh": ops.tanh, "gelu": _gelu, "sigmoid": ops.sigmoid}


class Dense:
    """activation(x W^T + b)"""

    def __init__(
        self,
        weights: Weights,
        name: str,
        rows: int,
        columns: int,
        *,
        bias: bool = True,
        activation: str = "none",
    ) -> None:
        if activation not in _ACTIVATIONS:
            raise UnsupportedModel(
                f"activation {activation!r} of the head is not supported; {', '.join(_ACTIVATIONS)} are"
            )
        self.linear = Linear(weights.exact(), [name], [rows], columns, bias=bias)
        self.activation = _ACTIVATIONS[activation]

    def __call__(self, x_RD: np.ndarray) -> np.ndarray:
        return self.activation(self.linear(x_RD))


class Head:
    """Steps one after the other; none of them: the pooled states are the vectors."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)

    def __call__(self, pooled_RD: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(pooled_RD)
        for step in self.steps:
            x = step(x)
        return x
