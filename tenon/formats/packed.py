"""Packed models: weights as a backend's kernels read them, in a file that is mapped and used in place.

A packed model is a directory: `model.tenon` beside the source's own configuration and tokenizer files, or
beside `metadata.gguf`, which has the metadata of a GGUF source and no tensors. `model.tenon`, little-endian:

    head      magic "TENONPK\\n", version u32, 0 u32, u64: start and length of the table, size of the file
    data      from byte 4096; each piece begins at a multiple of 64
    table     JSON, see `Table`; the last bytes of the file

The head is written last: a file whose writing was cut short has none. Nothing in the file is trusted: every
offset, length and count is compared with the bytes that are there, in Python's integers, before it is used.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tenon.core import ggml
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.gguf import GGUFFile
from tenon.formats.mapped import MappedFile, TensorInfo, overlapping

FILE_NAME = "model.tenon"
METADATA_NAME = "metadata.gguf"
MAGIC = b"TENONPK\n"
VERSION = 1
ALIGNMENT = 64  # of a cache line, which kernels ask for
DATA_START = 4096
MAX_TABLE_BYTES = 16 << 20
MAX_DIMENSIONS = 8

_HEAD = struct.Struct("<8sIIQQQ")


class SourceFile(msgspec.Struct, frozen=True):
    """A weight file that a packed model was made from."""

    name: str
    size: int
    sha256: str


class Tensor(msgspec.Struct, frozen=True):
    """A tensor of the source; `offset` is None when it is in the file only as part of packed weights."""

    dtype: str
    shape: tuple[int, ...]
    offset: int | None = None


class Packed(msgspec.Struct, frozen=True):
    """Matrices stacked in a backend's layout: (format, rows) of each part."""

    columns: int
    parts: tuple[tuple[str, int], ...]
    offset: int
    length: int


class Table(msgspec.Struct, frozen=True, kw_only=True):
    kind: str  # of the source: gguf or hf
    layout: str  # of packed weights: `ops.packed_layout()`
    dtype: str
    quantization: str | None
    made_by: str
    source: tuple[SourceFile, ...]
    tensors: dict[str, Tensor]
    packed: dict[str, Packed]


class PackedFile:
    """A `model.tenon`, opened. Raises ModelFileError (malformed, cut short) or UnsupportedModel (version).

    `tensors` has all of the source's; only those that `is_stored` can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        self._data_end, text = _read_head(self._file)
        try:
            self.table = msgspec.json.decode(text, type=Table)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(path, f"its table: {error}") from None
        if self.table.kind not in ("gguf", "hf"):
            raise _malformed(path, f"its source is of the kind {self.table.kind!r}")
        self.tensors: Mapping[str, TensorInfo] = {
            name: self._tensor(name, tensor) for name, tensor in self.table.tensors.items()
        }
        for name, packed in self.table.packed.items():
            self._check_packed(name, packed)
        self._check_no_overlap()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of a GGUF source."""
        return GGUFFile(self.path.with_name(METADATA_NAME)).metadata

    def is_stored(self, name: str) -> bool:
        return self.table.tensors[name].offset is not None

    def packed(self, name: str) -> tuple[Packed, np.ndarray]:
        """What is packed under this name, and its bytes, mapped. Raises ModelFileError if nothing is."""
        if name not in self.table.packed:
            raise ModelFileError(
                f"{self.path}: there are no packed weights {name!r}; pack the model again with this tenon"
            )
        packed = self.table.packed[name]
        return packed, self._file.slice(packed.offset, packed.length)

    def _tensor(self, name: str, tensor: Tensor) -> TensorInfo:
        if not 0 < len(tensor.shape) <= MAX_DIMENSIONS or any(not 0 < n < 1 << 62 for n in tensor.shape):
            raise _malformed(self.path, f"tensor {name!r} has shape {tensor.shape}")
        length = 0
        if tensor.offset is not None:
            if tensor.dtype not in ggml.BLOCKS:
                raise _malformed(self.path, f"tensor {name!r} has type {tensor.dtype!r}")
            try:
                length = ggml.num_bytes(tensor.dtype, tensor.shape)
            except ValueError as error:
                raise _malformed(self.path, f"tensor {name!r}: {error}") from None
            self._check_piece(name, tensor.offset, length)
        return TensorInfo(name, tensor.dtype, tensor.shape, self._file, tensor.offset or 0, length)

    def _check_packed(self, name: str, packed: Packed) -> None:
        self._check_piece(name, packed.offset, packed.length)
        rows = [count for _, count in packed.parts]
        if packed.columns < 1 or not rows or min(rows) < 1:
            raise _malformed(self.path, f"{name!r} has {rows} rows of {packed.columns} columns")
        if sum(rows) * packed.columns > 2 * packed.length:  # no format has less than four bits per weight
            raise _malformed(self.path, f"{name!r} is more than its {packed.length} bytes can hold")

    def _check_no_overlap(self) -> None:
        pieces = [(p.offset, p.length, name) for name, p in self.table.packed.items()]
        pieces += [
            (info.start, info.length, name) for name, info in self.tensors.items() if self.is_stored(name)
        ]
        if twice := overlapping(pieces):
            raise _malformed(self.path, twice)

    def _check_piece(self, name: str, offset: int, length: int) -> None:
        if offset % ALIGNMENT:
            raise _malformed(self.path, f"{name!r} lies at {offset}, which is no multiple of {ALIGNMENT}")
        if offset < DATA_START or length < 0 or offset + length > self._data_end:
            raise _malformed(self.path, f"{name!r} takes {length} bytes at {offset} of {self._data_end}")


def _read_head(file: MappedFile) -> tuple[int, bytes]:
    """Where the data ends, and the table's text."""
    if file.size < DATA_START:
        raise _malformed(file.path, f"it has only {file.size} bytes")
    magic, version, _, start, length, size = _HEAD.unpack_from(file.buffer)
    if magic == bytes(len(MAGIC)):
        raise ModelFileError(f"{file.path}: it was not finished: pack the model again")
    if magic != MAGIC:
        raise ModelFileError(f"{file.path}: not a packed model")
    if version != VERSION:
        raise UnsupportedModel(
            f"{file.path}: a packed model of version {version}; this tenon reads {VERSION}: pack it again"
        )
    if size != file.size:
        raise _malformed(file.path, f"it should have {size} bytes and has {file.size}: is the copy complete?")
    if start < DATA_START or length > MAX_TABLE_BYTES or start + length != size:
        raise _malformed(file.path, f"its table is said to take {length} bytes at {start} of {size}")
    return start, file.buffer[start : start + length]


def _malformed(path: Path, what: str) -> ModelFileError:
    return ModelFileError(f"{path}: malformed packed model: {what}")


class Piece(NamedTuple):
    offset: int
    length: int


class PackedWriter:
    """Writes a `model.tenon` piece by piece. It is complete, and there under its name, after `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.part")
        self._file = self._partial.open("wb")
        self._file.write(bytes(DATA_START))

    def add(self, data: np.ndarray) -> Piece:
        """Append bytes."""
        position = self._file.tell()
        offset = -(-position // ALIGNMENT) * ALIGNMENT
        self._file.write(bytes(offset - position))
        self._file.write(data.data)
        return Piece(offset, data.nbytes)

    def finish(self, table: Table) -> None:
        text = msgspec.json.encode(table)
        start = self._file.tell()
        self._file.write(text)
        self._file.seek(0)
        self._file.write(_HEAD.pack(MAGIC, VERSION, 0, start, len(text), start + len(text)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self.path)
