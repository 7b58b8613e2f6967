"""Linear weights that a backend packs from raw tensors, one per layer: the simple quantization schemes.

Shape letters: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tenon import ops
from tenon.layers.weights import FP8Scales, LinearScheme, Stacked, Weights


class PackedWeights:
    """Weights in the backend's own layout."""

    def __init__(self, packed_NK: ops.PackedLinear) -> None:
        self.packed_NK = packed_NK
        self.nbytes = packed_NK.nbytes

    def apply(
        self, x_TK: np.ndarray, bias_N: np.ndarray | None, accumulate_into_TN: np.ndarray | None
    ) -> np.ndarray:
        return ops.linear(x_TK, self.packed_NK, bias_N, accumulate_into_TN=accumulate_into_TN)


class PackedShape:
    """What is known of packed weights that are not here."""

    nbytes = 0
    act_bits = 0
    bytes_in_place = 0

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.formats: list[str] = []
        self.layout: list[tuple[str, int]] = []


class PackedScheme:
    """A scheme whose layers are one tensor each, `<layer>.weight` [N, K]. `experts_stored`: how it stores
    experts, where that is not as the family says (`Stacked.stored`). `fp8`, `ignored`: see `LinearScheme`."""

    def __init__(
        self,
        experts_stored: str | None = None,
        fp8: FP8Scales | None = None,
        ignored: tuple[str, ...] = (),
    ) -> None:
        self.experts_stored = experts_stored
        self.fp8 = fp8
        self.ignored = ignored

    def configured(self, settings: Mapping[str, Any]) -> LinearScheme:
        return self

    def load(self, weights: Weights, names: list[str], rows: list[int], columns: int) -> PackedWeights:
        return PackedWeights(weights.pack(names, rows, columns))

    def load_experts(
        self,
        weights: Weights,
        names: list[str],
        rows: list[int],
        columns: int,
        num_experts: int,
        fused: str,
        stacked: Stacked | None = None,
    ) -> ops.PackedLinear:
        if self.experts_stored is not None:
            stacked = (stacked or Stacked())._replace(stored=self.experts_stored)
        return weights.pack_experts(names, rows, columns, num_experts, fused, stacked)
