"""GGUF files, versions 2 and 3: metadata, decoded only when asked for, and tensors.

Source: the GGUF specification (ggml, docs/gguf.md). Layout, little-endian:

    magic "GGUF", version u32, number of tensors u64, number of metadata entries u64
    entries   key string, type u32, value    (string: length u64, bytes; array: type u32, count u64, items)
    tensors   name string, number of dimensions u32, dimensions u64 (fastest first), type u32, offset u64
    padding to `general.alignment`, then the tensors' bytes, each at its offset from here

Nothing in the file is trusted: each count, length and offset is compared with the bytes that are there before
anything is read or allocated for it. Start-up time matters: a vocabulary is 100 000 strings of metadata, so
the first pass only steps over them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tenon.core import ggml
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.mapped import MappedFile, TensorInfo, merge, overlapping

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 65535
# What no real file comes near to: the largest vocabularies have 300 000 tokens, in 20 MB of metadata.
MAX_ENTRIES = 1 << 16
MAX_TENSORS = 1 << 18
MAX_ITEMS = 1 << 22  # of an array
MAX_METADATA_BYTES = 1 << 27

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
SCALARS: dict[int, np.dtype[Any]] = {  # metadata types with a fixed size
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
STRING, ARRAY = 8, 9

# Tensor types by their number in the file. Those not in ggml.BLOCKS are named in the error.
TENSOR_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1",
    10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k",
    16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s",
    23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m", 30: "bf16",
    34: "tq1_0", 35: "tq2_0", 39: "mxfp4",
}  # fmt: skip


class GGUFFile:
    """One GGUF file. Raises ModelFileError if it is malformed, UnsupportedModel for types it cannot load."""

    def __init__(self, path: Path) -> None:
        self.path = path
        file = MappedFile(path)
        cursor = _Cursor(file)
        num_tensors, num_entries = _read_header(cursor)
        self.metadata = Metadata(cursor, num_entries)
        self.tensors: Mapping[str, TensorInfo] = _read_tensors(cursor, num_tensors, _alignment(self.metadata))


class GGUFParts:
    """A model split over several GGUF files: the first one's metadata, everybody's tensors."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        files = [GGUFFile(path) for path in paths]
        self.path = paths[0]
        self.metadata = files[0].metadata
        expected = self.metadata.get("split.count", 1)
        if expected != len(files):
            raise ModelFileError(
                f"{self.path}: the model is split into {expected} files; {len(files)} are here"
            )
        self.tensors: Mapping[str, TensorInfo] = merge(self.path, [file.tensors for file in files])


def open_gguf(paths: tuple[Path, ...]) -> GGUFFile | GGUFParts:
    """The checkpoint in these files, one or several parts."""
    return GGUFFile(paths[0]) if len(paths) == 1 else GGUFParts(paths)


class _Cursor:
    """A position in a file that never moves past its end."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.position = 0

    def fail(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.file.path}: malformed GGUF file: {what}")

    def skip(self, length: int, what: str) -> int:
        """Step over `length` bytes; returns where they start. Raises ModelFileError if they are not there."""
        start = self.position
        if length > self.file.size - start:
            raise self.fail(
                f"it ends inside {what} ({length} bytes at {start}, {self.file.size} in the file)"
            )
        self.position = start + length
        return start

    def u32(self, what: str) -> int:
        return _U32.unpack_from(self.file.buffer, self.skip(4, what))[0]

    def u64(self, what: str) -> int:
        return _U64.unpack_from(self.file.buffer, self.skip(8, what))[0]

    def name(self, what: str) -> str:
        """A short UTF-8 string."""
        length = self.u64(what)
        if length > MAX_NAME_BYTES:
            raise self.fail(f"{what} has {length} bytes")
        start = self.skip(length, what)
        try:
            return self.file.buffer[start : start + length].decode()
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def skip_strings(self, count: int, what: str) -> None:
        """Step over `count` strings: the loop of start-up, as a vocabulary and its merges are 100 000."""
        self.check_count(count, 8, what)
        buffer, position, unpack = self.file.buffer, self.position, _U64.unpack_from
        last = self.file.size - 8
        for _ in range(count):
            if position > last:
                raise self.fail(f"it ends inside {what}")
            position += 8 + unpack(buffer, position)[0]
        if position > self.file.size:
            raise self.fail(f"it ends inside {what}")
        self.position = position

    def check_count(self, count: int, item_bytes: int, what: str, most: int = MAX_ITEMS) -> None:
        """At most `most` items, of at least `item_bytes`, which must fit in what is left of the file."""
        if count > most:
            raise self.fail(f"{what} claims {count} items; at most {most} are read")
        if count > (self.file.size - self.position) // item_bytes:
            raise self.fail(f"{what} claims {count} items, more than the file can hold")


def _read_header(cursor: _Cursor) -> tuple[int, int]:
    """Number of tensors and of metadata entries."""
    start = cursor.skip(4, "the magic number")
    if cursor.file.buffer[start : start + 4] != MAGIC:
        raise ModelFileError(f"{cursor.file.path}: not a GGUF file")
    version = cursor.u32("the version")
    if version not in (2, 3):
        why = "it is big-endian" if version in (2 << 24, 3 << 24) else f"its version is {version}"
        raise UnsupportedModel(f"{cursor.file.path}: cannot load this GGUF file: {why}; tenon reads 2 and 3")
    num_tensors, num_entries = cursor.u64("the header"), cursor.u64("the header")
    cursor.check_count(num_tensors, 8 + 4 + 8 + 4 + 8, "the list of tensors", MAX_TENSORS)
    cursor.check_count(num_entries, 8 + 4 + 1, "the metadata", MAX_ENTRIES)
    return num_tensors, num_entries


class _Entry(NamedTuple):
    type: int  # of the value, or of the items of an array
    length: int  # of an array, or -1
    start: int
    end: int


class Metadata(Mapping[str, Any]):
    """The metadata of a file. Values are decoded on first use: numbers, bools, str, and lists of these."""

    def __init__(self, cursor: _Cursor, num_entries: int) -> None:
        self._file = cursor.file
        self._entries: dict[str, _Entry] = {}
        self._values: dict[str, Any] = {}
        for _ in range(num_entries):
            key = cursor.name("a metadata key")
            if key in self._entries:
                raise cursor.fail(f"metadata key {key!r} appears twice")
            self._entries[key] = _skip_value(cursor, f"the value of {key!r}")
            if cursor.position > MAX_METADATA_BYTES:
                raise cursor.fail(f"its metadata takes more than {MAX_METADATA_BYTES} bytes")

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._values[key] = _decode(self._file, self._entries[key])
        return self._values[key]

    def encoded(self, key: str) -> bytes:
        """Type and value as they lie in the file."""
        entry = self._entries[key]
        head = _U32.pack(entry.type)
        if entry.length >= 0:
            head = _U32.pack(ARRAY) + head + _U64.pack(entry.length)
        return head + self._file.buffer[entry.start : entry.end]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _skip_value(cursor: _Cursor, what: str) -> _Entry:
    kind, count = cursor.u32(what), -1
    if kind == ARRAY:
        kind, count = cursor.u32(what), cursor.u64(what)
    start = cursor.position
    if kind == STRING:
        cursor.skip_strings(1 if count < 0 else count, what)
    elif kind in SCALARS:
        cursor.check_count(count, SCALARS[kind].itemsize, what)
        cursor.skip(SCALARS[kind].itemsize * (1 if count < 0 else count), what)
    else:
        raise cursor.fail(f"{what} has type {kind}" + (" inside an array" if count >= 0 else ""))
    return _Entry(kind, count, start, cursor.position)


def _decode(file: MappedFile, entry: _Entry) -> Any:
    data = file.buffer[entry.start : entry.end]
    values: list[Any] = (
        _decode_strings(data)
        if entry.type == STRING
        else np.frombuffer(data, dtype=SCALARS[entry.type]).tolist()
    )
    return values if entry.length >= 0 else values[0]


def _decode_strings(data: bytes) -> list[str]:
    """Strings that `_Cursor.skip_strings` has stepped over. A vocabulary's tokens need not be valid UTF-8."""
    strings, position, unpack = [], 0, _U64.unpack_from
    while position < len(data):
        start = position + 8
        position = start + unpack(data, position)[0]
        strings.append(data[start:position].decode(errors="replace"))
    return strings


def _alignment(metadata: Metadata) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    valid = type(value) is int and 0 < value <= MAX_ALIGNMENT and value & (value - 1) == 0
    if not valid:
        raise ModelFileError(
            f"{metadata._file.path}: malformed GGUF file: general.alignment is {value!r}, not a power of two"
        )
    return value


def _read_tensors(cursor: _Cursor, num_tensors: int, alignment: int) -> dict[str, TensorInfo]:
    headers = [_read_tensor_header(cursor) for _ in range(num_tensors)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, dtype, shape, offset in headers:
        if name in tensors:
            raise cursor.fail(f"tensor {name!r} appears twice")
        if offset % alignment:
            raise cursor.fail(f"tensor {name!r} lies at offset {offset}, which is no multiple of {alignment}")
        start, length = data_start + offset, _num_bytes(cursor, name, dtype, shape)
        if start + length > cursor.file.size:
            raise cursor.fail(
                f"tensor {name!r} takes {length} bytes at {start}, but the file has {cursor.file.size}: "
                "is the download complete?"
            )
        tensors[name] = TensorInfo(name, dtype, shape, cursor.file, start, length)
    if twice := overlapping((t.start, t.length, t.name) for t in tensors.values()):
        raise cursor.fail(f"tensor {twice}")
    return tensors


def _read_tensor_header(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int]:
    """Name, type, shape in torch order, offset from the start of the data."""
    name = cursor.name("a tensor's name")
    what = f"the description of tensor {name!r}"
    num_dimensions = cursor.u32(what)
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise cursor.fail(f"tensor {name!r} has {num_dimensions} dimensions")
    shape = tuple(cursor.u64(what) for _ in range(num_dimensions))[::-1]
    if 0 in shape:
        raise cursor.fail(f"tensor {name!r} is empty: {shape}")
    number, offset = cursor.u32(what), cursor.u64(what)
    dtype = TENSOR_TYPES.get(number, f"number {number}")
    if dtype not in ggml.BLOCKS:
        raise UnsupportedModel(
            f"{cursor.file.path}: tensor {name!r} has type {dtype}; tenon loads {', '.join(ggml.BLOCKS)}"
        )
    return name, dtype, shape, offset


def _num_bytes(cursor: _Cursor, name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor, exactly: Python's integers do not overflow."""
    if math.prod(shape) > cursor.file.size * 8:  # no type here has less than a bit per weight
        raise cursor.fail(f"tensor {name!r} has shape {shape}, more than the file can hold")
    try:
        return ggml.num_bytes(dtype, shape)
    except ValueError as error:
        raise cursor.fail(f"tensor {name!r}: {error}") from None
