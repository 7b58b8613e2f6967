"""Where everything goes in a checkpoint file that is about to be written.

A layout is the file's first bytes and the offset of each tensor; the tensors' own bytes can then be written
in any order, and in parallel. The formats are described where they are read, in `tenon.formats.gguf` and
`tenon.formats.safetensors`; of GGUF, version 3 is written.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tenon.core import ggml
from tenon.formats import gguf

BYTES = "u8"  # of safetensors: what a quantization method packs
_SAFETENSORS_TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "f8_e4m3": "F8_E4M3", BYTES: "U8"}
_NUMBERS = {dtype: number for number, dtype in gguf.TENSOR_TYPES.items()}


class NewTensor(NamedTuple):
    name: str
    dtype: str  # a key of ggml.BLOCKS, or BYTES
    shape: tuple[int, ...]  # in torch order

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) if self.dtype == BYTES else ggml.num_bytes(self.dtype, self.shape)


class Layout(NamedTuple):
    header: bytes
    offsets: dict[str, int]  # of each tensor, from the start of the file
    size: int


def safetensors_layout(tensors: Sequence[NewTensor]) -> Layout:
    """Raises ValueError for a type that the format does not have."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for this
    offsets, end = {}, 0
    for tensor in tensors:
        if tensor.dtype not in _SAFETENSORS_TYPES:
            raise ValueError(f"safetensors files have {', '.join(_SAFETENSORS_TYPES)}, not {tensor.dtype}")
        offsets[tensor.name] = end
        end += tensor.num_bytes
        entries[tensor.name] = {
            "dtype": _SAFETENSORS_TYPES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [offsets[tensor.name], end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)  # so that tensors are aligned
    header = struct.pack("<Q", len(text)) + text
    return _shifted(header, offsets, end)


def gguf_layout(metadata: Mapping[str, Any], tensors: Sequence[NewTensor]) -> Layout:
    """Values are str, bool, int (written as uint32), float (float32), lists of bool or int, or bytes: a type
    and value that are encoded already (`Metadata.encoded`)."""
    parts = [gguf.MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), value if isinstance(value, bytes) else _encode(value)]
    offsets, end = {}, 0
    for tensor in tensors:
        offsets[tensor.name] = end
        dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        parts += [_string(tensor.name), dimensions, struct.pack("<IQ", _NUMBERS[tensor.dtype], end)]
        end = _aligned(end + tensor.num_bytes)
    header = b"".join(parts)
    return _shifted(header.ljust(_aligned(len(header)), b"\0"), offsets, end)


def _shifted(header: bytes, offsets: Mapping[str, int], end: int) -> Layout:
    start = len(header)
    return Layout(header, {name: start + offset for name, offset in offsets.items()}, start + end)


def _aligned(position: int) -> int:
    return -(-position // gguf.DEFAULT_ALIGNMENT) * gguf.DEFAULT_ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _encode(value: str | bool | int | float | list[Any]) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", gguf.STRING) + _string(value)
    kinds = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
    if isinstance(value, list):
        kind, form = kinds[type(value[0])]
        return struct.pack(f"<IIQ{len(value)}{form}", gguf.ARRAY, kind, len(value), *value)
    kind, form = kinds[type(value)]
    return struct.pack(f"<I{form}", kind, value)
