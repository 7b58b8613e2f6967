"""A weight as it lies in a model file, before any backend has packed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tenon.core import ggml


class BlockScales(NamedTuple):
    """Factors of a matrix, one for each block of so many rows and columns, of which the last are cut short.
    `values` is float32 [N / rows, K / columns], after axes that the tensor has before N; both are rounded up.
    """

    values: np.ndarray
    rows: int
    columns: int

    @staticmethod
    def shape(tensor: tuple[int, ...], rows: int, columns: int) -> tuple[int, ...]:
        """Of the values for a tensor of this shape."""
        *before, n, k = tensor
        return (*before, -(-n // rows), -(-k // columns))

    def spread(self, tensor: tuple[int, ...]) -> np.ndarray:
        """A factor for each element."""
        *_, n, k = tensor
        across = self.values.repeat(min(self.columns, k), axis=-1)[..., :k]
        return across.repeat(min(self.rows, n), axis=-2)[..., :n, :]


@dataclass(frozen=True, slots=True)
class RawTensor:
    """Bytes of one weight matrix (or vector) and how to read them.

    `shape` is in torch order: (rows N, columns K), or (N,) for a vector. `data` is 1-D uint8, row after row,
    usually a slice of a memory map; quantized rows are whole ggml blocks. Row i of the weight is row
    `row_order[i]` of `data` when `row_order` (int32 [N]) is given: GGUF files of the llama family store the
    rows of q and k permuted, and this undoes it without copying. `mapped`: the data is a mapped file, whose
    pages may be released once they have been read. `transposed`: data is column after column, of floats.
    `exponents` (uint8): those of mxfp4 blocks, if they lie apart from the codes (see `ggml.join_mxfp4`).
    `scales`: of f8_e4m3, if there are any.
    """

    name: str
    dtype: str  # a key of tenon.core.ggml.BLOCKS
    shape: tuple[int, ...]
    data: np.ndarray
    row_order: np.ndarray | None = None
    mapped: bool = False
    transposed: bool = False
    exponents: np.ndarray | None = None
    scales: BlockScales | None = None

    def __post_init__(self) -> None:
        expected = ggml.num_bytes(self.dtype, self.shape)
        if self.exponents is not None:
            expected -= self.exponents.nbytes
        if self.data.nbytes != expected:
            raise ValueError(
                f"{self.name}: {self.dtype} {self.shape} takes {expected} bytes, not {self.data.nbytes}"
            )

    def dequantize(self) -> np.ndarray:
        """The exact values as float32, in `shape`, rows in the weight's order."""
        data = self.data if self.exponents is None else ggml.join_mxfp4(self.data, self.exponents)
        if self.transposed:
            values = ggml.dequantize(self.dtype, data, self.shape[::-1]).T
        else:
            values = ggml.dequantize(self.dtype, data, self.shape)
        if self.scales is not None:
            values *= self.scales.spread(self.shape)
        return values if self.row_order is None else values[self.row_order]
