"""Weights that were packed ahead: how they get into a file, and how a model takes them from there.

Both are stand-ins for `Weights`, so models know nothing of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tenon import ops
from tenon.core.tensors import RawTensor
from tenon.errors import ModelFileError
from tenon.formats.packed import Packed, PackedFile, PackedWriter, Tensor
from tenon.layers.packed import PackedShape
from tenon.layers.weights import Tensor as AskedTensor
from tenon.layers.weights import Weights


def _key(weights: Weights, tensors: list[AskedTensor]) -> str:
    """The name of stacked matrices; those for float32 activations are other bytes."""
    act = "" if weights.act == ops.act_dtype("bfloat16") else f" {weights.act}"
    names = [name for tensor in tensors for name in weights.names_of(tensor)]
    return " ".join(map(weights.file_name, names)) + act


class RecordedWeights(Weights):
    """Writes what a model packs, and the tensors that it reads otherwise, and keeps nothing of them."""

    def __init__(self, writer: PackedWriter, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._writer = writer
        self.packed: dict[str, Packed] = {}
        self.stored: dict[str, Tensor] = {}

    def raw(self, name: str, shape: tuple[int, ...]) -> RawTensor:
        raw = super().raw(name, shape)
        self.store(raw)
        return raw

    def store(self, raw: RawTensor) -> None:
        """Keep a tensor as it is."""
        if raw.name not in self.stored:
            piece = self._writer.add(raw.data)
            self.stored[raw.name] = Tensor(raw.dtype, raw.shape, piece.offset)
            if raw.scales is not None:
                assert self.scheme.fp8 is not None
                scales = self.scheme.fp8.name(raw.name, self.file.tensors)
                piece = self._writer.add(raw.scales.values)
                self.stored[scales] = Tensor("f32", self.file.tensors[scales].shape or (1,), piece.offset)

    def pack_tensors(self, tensors: list[AskedTensor]) -> ops.PackedLinear:
        packed = super().pack_tensors(tensors)
        piece = self._writer.add(ops.packed_bytes(packed))
        parts = tuple((format, count) for format, count in packed.layout)
        self.packed[_key(self, tensors)] = Packed(packed.shape[1], parts, *piece)
        return PackedShape(packed.shape)

    def pack_made(self, matrices: list[np.ndarray]) -> ops.PackedLinear:
        """What they were made of is stored already."""
        return PackedShape((sum(len(matrix) for matrix in matrices), matrices[0].shape[1]))


class StoredWeights(Weights):
    """Weights in a `PackedFile`, used where they lie."""

    file: PackedFile

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._used: set[str] = set()

    def raw(self, name: str, shape: tuple[int, ...]) -> RawTensor:
        file_name = self.file_name(name)
        if file_name in self.file.tensors and not self.file.is_stored(file_name):
            raise ModelFileError(
                f"{self.file.path}: tensor {file_name!r} is there only packed; pack the model again"
            )
        return super().raw(name, shape)

    def pack_tensors(self, tensors: list[AskedTensor]) -> ops.PackedLinear:
        key = _key(self, tensors)
        packed, data = self.file.packed(key)
        rows = sum(math.prod(tensor.shape[:-1]) for tensor in tensors)
        columns = tensors[0].shape[-1]
        if (sum(count for _, count in packed.parts), packed.columns) != (rows, columns):
            raise ModelFileError(
                f"{self.file.path}: packed weights {key!r} have {packed.parts} rows of {packed.columns} "
                f"columns; the model's configuration says {rows} of {columns}"
            )
        try:
            adopted = ops.adopt_linear(columns, list(packed.parts), data, self.act, act_bits=self.act_bits)
        except ValueError as error:
            raise ModelFileError(f"{self.file.path}: packed weights {key!r}: {error}") from None
        self.mark_taken(name for tensor in tensors for name in self.names_of(tensor))
        if self.file.table.quantization is None:
            self._note_widened(tensors, adopted)
        self._used.add(key)
        self._book.mapped_bytes += adopted.nbytes
        return adopted

    def check_all_used(self) -> None:
        """Raises ModelFileError also for packed weights that nobody asked for."""
        super().check_all_used()
        if extra := sorted(self.file.table.packed.keys() - self._used):
            raise ModelFileError(f"{self.file.path}: unexpected packed weights: {extra[0]!r}")
