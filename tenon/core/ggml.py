"""The block formats of ggml, and plain numbers, read with numpy. A model file's weights in GGUF are rows of
such blocks.

Every quantized format here says the same thing: a weight is `code * scale + offset`, where codes are small
integers and scale and offset belong to a group of 16 or 32 neighbours in a row. `unpack` returns
these three, so
that whoever needs the numbers (a dequantizer, a kernel's packer) need not know ten layouts.
Products code * scale are exact in float32 for all formats, hence so is every weight but for one rounding
of the final sum. Source of the layouts: the ggml block structures, as documented with the GGUF format.

Shape letters: N rows, K columns, G groups in a row, B blocks in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np


class Block(NamedTuple):
    """`elements` weights take `num_bytes` bytes; `group` of them share a scale (0: not quantized). `scales`
    says at which bytes of the block its float16 numbers lie, `exponents` at which its powers of two (E8M0).
    """

    elements: int
    num_bytes: int
    group: int
    scales: tuple[int, ...] = ()
    exponents: tuple[int, ...] = ()


BLOCKS: dict[str, Block] = {
    "f32": Block(1, 4, 0),
    "f16": Block(1, 2, 0),
    "bf16": Block(1, 2, 0),
    "f8_e4m3": Block(1, 1, 0),
    "q4_0": Block(32, 18, 32, (0,)),
    "q4_1": Block(32, 20, 32, (0, 2)),
    "q5_0": Block(32, 22, 32, (0,)),
    "q5_1": Block(32, 24, 32, (0, 2)),
    "q8_0": Block(32, 34, 32, (0,)),
    "q4_k": Block(256, 144, 32, (0, 2)),
    "q5_k": Block(256, 176, 32, (0, 2)),
    "q6_k": Block(256, 210, 16, (208,)),
    "mxfp4": Block(32, 17, 32, (), (0,)),
}
# The numpy dtypes of the formats that are not quantized.
FLOATS: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8_e4m3": np.dtype(ml_dtypes.float8_e4m3fn),  # of safetensors
}


@dataclass(frozen=True, slots=True)
class Groups:
    """Weight [n, k] = codes[n, k] * scale[n, k // group] + offset[n, k // group]."""

    codes_NK: np.ndarray  # uint8; int8 of mxfp4
    scale_NG: np.ndarray  # float32
    offset_NG: np.ndarray  # float32

    def dequantize(self) -> np.ndarray:
        """The weights, float32 [N, K]."""
        rows, num_groups = self.scale_NG.shape
        values_NGg = self.codes_NK.reshape(rows, num_groups, -1).astype(np.float32)
        values_NGg *= self.scale_NG[:, :, None]
        values_NGg += self.offset_NG[:, :, None]
        return values_NGg.reshape(rows, -1)


def row_bytes(dtype: str, columns: int) -> int:
    """Bytes of one row. Raises ValueError when `columns` is no whole number of blocks."""
    block = BLOCKS[dtype]
    if columns % block.elements:
        raise ValueError(f"{dtype} rows are multiples of {block.elements} elements, not {columns}")
    return columns // block.elements * block.num_bytes


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of `shape`, whose last axis is the row."""
    return math.prod(shape[:-1]) * row_bytes(dtype, shape[-1])


def dequantize(dtype: str, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Exact float32 values [*shape] of the bytes `data` (uint8, 1-D)."""
    if dtype in FLOATS:
        return data.view(FLOATS[dtype]).reshape(shape).astype(np.float32)
    return unpack(dtype, data, shape).dequantize().reshape(shape)


def unpack(dtype: str, data: np.ndarray, shape: tuple[int, ...]) -> Groups:
    """Codes, scales and offsets of a quantized tensor, seen as [N, K] with all leading axes in N."""
    block = BLOCKS[dtype]
    rows, num_blocks = math.prod(shape[:-1]), shape[-1] // block.elements
    blocks_PB = data.reshape(rows * num_blocks, block.num_bytes)
    codes, scale, offset = _UNPACK[dtype](blocks_PB)
    return Groups(
        codes.reshape(rows, -1),
        np.ascontiguousarray(scale, np.float32).reshape(rows, -1),
        np.ascontiguousarray(offset, np.float32).reshape(rows, -1),
    )


# Each reader takes blocks uint8 [P, bytes] and returns codes [P, elements], scale and offset [P, groups].


def _half(blocks: np.ndarray, start: int) -> np.ndarray:
    """The float16 at byte `start` of each block, as float32 [P, 1]."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _nibbles(qs: np.ndarray) -> np.ndarray:
    """[P, 16] bytes to [P, 32] codes: the low halves first, then the high ones."""
    return np.concatenate([qs & 15, qs >> 4], axis=1)


def _fifth_bits(qh: np.ndarray) -> np.ndarray:
    """[P, 4] bytes, a little-endian uint32, to [P, 32] values 0 or 16, one per bit."""
    return np.unpackbits(qh, axis=1, bitorder="little") << 4


def _q4_0(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]), d, -8 * d


def _q4_1(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = _half(blocks, 0)
    return _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), d, -16 * d


def _q5_1(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return codes, _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = _half(blocks, 0)
    return blocks[:, 2:] ^ 128, d, -128 * d  # int8 as uint8 + 128


def _scales_and_mins(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 12 bytes [P, 12] of a K-quant: eight 6-bit scales and eight 6-bit minima, float32 [P, 8] each.

    The first four of each lie in the low six bits of bytes 0-3 and 4-7; the last four have their low four
    bits in the nibbles of bytes 8-11 and their top two in the top bits of bytes 0-3 and 4-7.
    """
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([a & 63, (c & 15) | (a >> 6 << 4)], axis=1)
    mins = np.concatenate([b & 63, (c >> 4) | (b >> 6 << 4)], axis=1)
    return scales.astype(np.float32), mins.astype(np.float32)


def _q4_k(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales, mins = _scales_and_mins(blocks[:, 4:16])
    qs = blocks[:, 16:].reshape(-1, 4, 1, 32)  # 32 bytes: low nibbles are one group, high ones the next
    codes = np.concatenate([qs & 15, qs >> 4], axis=2)
    return codes, _half(blocks, 0) * scales, -_half(blocks, 2) * mins


def _q5_k(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales, mins = _scales_and_mins(blocks[:, 4:16])
    qs = blocks[:, 48:].reshape(-1, 4, 1, 32)
    bit = np.arange(8, dtype=np.uint8).reshape(1, 4, 2, 1)
    fifth = (blocks[:, 16:48].reshape(-1, 1, 1, 32) >> bit & 1) << 4
    codes = np.concatenate([qs & 15, qs >> 4], axis=2) | fifth
    return codes, _half(blocks, 0) * scales, -_half(blocks, 2) * mins


def _q6_k(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Per 128 elements: 64 bytes of low nibbles (low halves: elements 0-63, high: 64-127), 32 bytes of top
    # bits.
    ql = blocks[:, :128].reshape(-1, 2, 64)
    low = np.concatenate([ql & 15, ql >> 4], axis=2).reshape(-1, 2, 4, 32)
    shift = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shift & 3) << 4
    scale = _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return low | high, scale, -32 * scale


# Twice the numbers of E2M1 (OCP Microscaling Formats 1.0), which are whole; the upper bit is the sign.
E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)


def _mxfp4(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An exponent e, for 2^(e - 127), and 32 numbers of E2M1. 255, which stands for NaN, is taken as 2^128,
    as ggml does."""
    scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128)
    return E2M1[_nibbles(blocks[:, 1:])], scale, np.zeros_like(scale)


def join_mxfp4(codes: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """The blocks, uint8, of codes and exponents that lie apart (uint8; 16 bytes for each exponent): in these
    a byte has two neighbours, where a block's have weights 16 apart."""
    pairs = codes.reshape(-1, 16, 1)
    codes_P32 = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 32)
    halves = codes_P32[:, :16] | codes_P32[:, 16:] << 4
    return np.concatenate([exponents.reshape(-1, 1), halves], axis=1).reshape(-1)


_UNPACK = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "mxfp4": _mxfp4,
}
