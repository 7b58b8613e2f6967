"""Linear layers over packed weights: pack once at load, multiply at every step.

Shape letters: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tenon.core.tensors import RawTensor
from tenon.ops.arrays import to_float, to_numpy, to_torch
from tenon.ops.select import op


class PackedLinear(Protocol):
    """Weights [N, K] in the layout of the backend that packed them; only its ops can read them."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def formats(self) -> list[str]:
        """The stored format of each part, for logs and `explain`."""
        ...


class DenseLinear:
    """The reference's packed weights: exactly dequantised float32 rows."""

    def __init__(self, weight_NK: np.ndarray) -> None:
        self.weight_NK = weight_NK
        self.shape: tuple[int, int] = (weight_NK.shape[0], weight_NK.shape[1])
        self.nbytes = weight_NK.nbytes
        self.formats = ["f32"]


@op(shares="packed weights", kernel=False)
def pack_linear(parts: list[RawTensor], act: np.dtype[Any]) -> PackedLinear:
    """Packed weights whose rows are those of the parts, one part after the other.

    Parts have the same K and may have different source types; `act` (bfloat16 or float32) is the dtype of the
    activations that the weights will meet. Raises ValueError when the parts' K differ.
    """
    columns = {part.shape[1] for part in parts}
    if len(columns) != 1:
        raise ValueError(f"parts of one linear layer differ in columns: {sorted(columns)}")
    return DenseLinear(np.concatenate([part.dequantize() for part in parts]))


@op(shares="packed weights")
def linear(
    x_TK: np.ndarray,
    w: PackedLinear,
    bias_N: np.ndarray | None = None,
    *,
    accumulate_into_TN: np.ndarray | None = None,
) -> np.ndarray:
    """y_TN float32 = x W^T (+ bias); x is act (bfloat16 or float32), bias float32.

    With `accumulate_into_TN` (float32) the result is added to it in place, and it is returned.
    """
    assert isinstance(w, DenseLinear)
    y_TN = to_float(x_TK) @ to_torch(w.weight_NK).T
    if bias_N is not None:
        y_TN += to_torch(bias_N)
    if accumulate_into_TN is None:
        return to_numpy(y_TN)
    accumulate_into_TN += y_TN.numpy()
    return accumulate_into_TN
