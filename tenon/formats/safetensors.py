"""safetensors files, one or sharded.

Source: the format section of the safetensors repository. Layout: header length u64 (little-endian), header
JSON {name: {dtype, shape, data_offsets: [begin, end)}}, then the bytes. The tensors cover the bytes without
holes or overlaps; this is checked, as the reference implementation does.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tenon.errors import ModelFileError
from tenon.formats.mapped import MappedFile, TensorInfo, merge
from tenon.formats.shards import INDEX_NAME, check_names_differ, read_index

MAX_HEADER_BYTES = 16 << 20  # the reference implementation's limit is 100 MB; real headers take a few
MAX_DIMENSIONS = 8
MAX_TENSORS = 1 << 16  # of one file

# Type in the file -> name in tenon, bytes per element. Only those in ggml.BLOCKS can be a model's weights.
_TYPES = {
    "F64": ("f64", 8), "F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2),
    "I64": ("i64", 8), "I32": ("i32", 4), "I16": ("i16", 2), "I8": ("i8", 1),
    "U64": ("u64", 8), "U32": ("u32", 4), "U16": ("u16", 2), "U8": ("u8", 1), "BOOL": ("bool", 1),
    "F8_E4M3": ("f8_e4m3", 1), "F8_E5M2": ("f8_e5m2", 1), "F8_E8M0": ("f8_e8m0", 1),
}  # fmt: skip


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class SafetensorsFile:
    """One safetensors file. Raises ModelFileError when it is malformed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        file = MappedFile(path)
        header, data_start = _read_header(file)
        self.tensors: Mapping[str, TensorInfo] = _read_tensors(file, header, data_start)


class SafetensorsShards:
    """The safetensors files of one directory."""

    def __init__(self, directory: Path, paths: tuple[Path, ...]) -> None:
        self.path = directory
        files = {path.name: SafetensorsFile(path) for path in paths}
        self.tensors: Mapping[str, TensorInfo] = merge(directory, [f.tensors for f in files.values()])


def open_safetensors(directory: Path, paths: tuple[Path, ...]) -> SafetensorsShards:
    """The checkpoint in `directory`, whose files `paths` are (see `tenon.formats.shards.find_shards`).

    Raises ModelFileError: there are none, or one is malformed, or lacks what the index says it holds.
    """
    if not paths:
        raise ModelFileError(f"{directory}: no safetensors file is there")
    shards = SafetensorsShards(directory, paths)
    for name, file_name in (read_index(directory) or {}).items():
        info = shards.tensors.get(name)
        if info is None or info.file.path.name != file_name:
            raise ModelFileError(
                f"{directory / INDEX_NAME}: it puts tensor {name!r} into {file_name}, where it is not"
            )
    return shards


def _read_header(file: MappedFile) -> tuple[dict[str, _Tensor], int]:
    """The parsed header, and where the data starts."""
    if file.size < 8:
        raise _malformed(file, "it is shorter than its header")
    (length,) = struct.unpack_from("<Q", file.buffer)
    if length > min(file.size - 8, MAX_HEADER_BYTES):
        raise _malformed(file, f"its header claims {length} bytes, and the file has {file.size}")
    text = file.buffer[8 : 8 + length]
    try:
        header = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        if len(header) > MAX_TENSORS:
            raise _malformed(file, f"it has {len(header)} tensors; at most {MAX_TENSORS} are read")
        msgspec.json.decode(header.pop("__metadata__", b"{}"), type=dict[str, str])
        tensors = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in header.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(file, f"its header is no valid JSON of tensors: {error}") from None
    check_names_differ(file.path, text)
    return tensors, 8 + length


def _read_tensors(file: MappedFile, header: dict[str, _Tensor], data_start: int) -> dict[str, TensorInfo]:
    tensors, end = {}, 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1].data_offsets):
        begin, stop = tensor.data_offsets
        if begin != end or stop < begin:
            raise _malformed(
                file, f"tensor {name!r} has bytes {begin} to {stop}, after a tensor that ends at {end}"
            )
        if stop > file.size - data_start:
            raise _malformed(file, f"tensor {name!r} ends at byte {stop} of {file.size - data_start}")
        dtype, itemsize = _dtype(file, name, tensor)
        if math.prod(tensor.shape) * itemsize != stop - begin:
            raise _malformed(
                file, f"tensor {name!r} is {tensor.dtype} {tensor.shape} but has {stop - begin} bytes"
            )
        tensors[name] = TensorInfo(name, dtype, tuple(tensor.shape), file, data_start + begin, stop - begin)
        end = stop
    if end != file.size - data_start:
        raise _malformed(
            file, f"its tensors end at byte {end} of {file.size - data_start}: is the download complete?"
        )
    return tensors


def _dtype(file: MappedFile, name: str, tensor: _Tensor) -> tuple[str, int]:
    if tensor.dtype not in _TYPES:
        raise _malformed(file, f"tensor {name!r} has the unknown type {tensor.dtype!r}")
    if len(tensor.shape) > MAX_DIMENSIONS or any(not 0 <= size < 1 << 62 for size in tensor.shape):
        raise _malformed(file, f"tensor {name[:200]!r} has shape {tensor.shape[: MAX_DIMENSIONS + 1]}")
    return _TYPES[tensor.dtype]


def _malformed(file: MappedFile, what: str) -> ModelFileError:
    return ModelFileError(f"{file.path}: malformed safetensors file: {what}")
