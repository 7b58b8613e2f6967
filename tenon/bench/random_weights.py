"""Random weights in every type that tenon loads, made fast: codes are random bytes, floats come from a table.

Shape letters: P blocks, B bytes of a block.
"""

from __future__ import annotations

import statistics
import zlib
from functools import cache
from typing import Any

import numpy as np

from tenon.core import ggml
from tenon.formats.writing import BYTES, NewTensor

CHUNK = 1 << 22  # elements made at once; a multiple of every block
_NUM_HEADERS = 1024
# Standard deviation of the codes 0 .. 2^bits - 1, all equally likely.
_SPREAD = {bits: ((4**bits - 1) / 12) ** 0.5 for bits in (4, 5, 6, 8)}
_SPREAD_E2M1 = float(np.std(ggml.E2M1 / 2))
FP8_BLOCK = 128  # rows and columns that share a scale
_SPREAD_E4M3 = 64.0  # so that four standard deviations are within its 448, and few numbers subnormal
# What random weights must have less of, or greedy generation repeats itself: attention over random heads is
# an average over what all positions have in common, and a table that is the head too favours the last token.
_GAINS = {"attn_output": 0.5, "o_proj": 0.5, "out_proj": 0.5, "token_embd": 0.25, "embed_tokens": 0.25}


def num_chunks(tensor: NewTensor) -> int:
    return -(-int(np.prod(tensor.shape)) // CHUNK)


def chunk_bytes(tensor: NewTensor, chunk: int, seed: int) -> np.ndarray:
    """The bytes (uint8) of elements [chunk * CHUNK, (chunk + 1) * CHUNK) of the tensor.

    Matrices have mean 0 and standard deviation 1 / sqrt(columns), most of them, which keeps the size of what
    flows through; norms' weights are about 1, biases about 0. The same arguments give the same bytes.
    """
    rng = np.random.Generator(np.random.SFC64([seed, zlib.crc32(tensor.name.encode()), chunk]))
    count = min(CHUNK, int(np.prod(tensor.shape)) - chunk * CHUNK)
    if tensor.dtype == BYTES:
        return _bytes(tensor, rng, count)
    mean, deviation = _distribution(tensor)
    if tensor.name.endswith("_scale_inv"):  # of f8_e4m3
        deviation *= FP8_BLOCK**-0.5  # a column is one of blocks
        return (rng.uniform(0.75, 1.25, count) * deviation / _SPREAD_E4M3).astype(np.float32).view(np.uint8)
    if tensor.dtype == "f8_e4m3":
        mean, deviation = 0.0, _SPREAD_E4M3
    if tensor.dtype in ggml.FLOATS:
        table = (_normal_quantiles() * deviation + mean).astype(ggml.FLOATS[tensor.dtype])
        return table[rng.integers(0, len(table), count, dtype=np.uint16)].view(np.uint8)
    block = ggml.BLOCKS[tensor.dtype]
    num_blocks = count // block.elements
    blocks_PB = np.frombuffer(rng.bytes(num_blocks * block.num_bytes), np.uint8).copy()
    blocks_PB = blocks_PB.reshape(num_blocks, block.num_bytes)
    start, headers = _headers(tensor.dtype, deviation, np.random.default_rng(seed))
    chosen = rng.integers(0, _NUM_HEADERS, num_blocks, dtype=np.uint16)
    blocks_PB[:, start : start + headers.shape[1]] = headers[chosen]
    return blocks_PB.reshape(-1)


def _bytes(tensor: NewTensor, rng: np.random.Generator, count: int) -> np.ndarray:
    """Of mxfp4: codes of any value, or exponents."""
    data = np.frombuffer(rng.bytes(count), np.uint8)
    if not tensor.name.endswith("_scales"):
        return data
    columns = tensor.shape[-1] * ggml.BLOCKS["mxfp4"].elements
    _, exponents = _headers("mxfp4", columns**-0.5, np.random.default_rng(tensor.shape))
    return exponents.reshape(-1)[data]


def _distribution(tensor: NewTensor) -> tuple[float, float]:
    """(mean, standard deviation)"""
    if tensor.name.endswith(".ssm_a"):
        return -1.0, 0.1  # a decay, in GGUF files
    if len(tensor.shape) > 1:
        gain = next((gain for name, gain in _GAINS.items() if name in tensor.name), 1.0)
        return 0.0, gain * tensor.shape[-1] ** -0.5
    return (1.0, 0.05) if tensor.name.endswith("norm.weight") else (0.0, 0.1)


@cache
def _normal_quantiles() -> np.ndarray:
    """float32 [65536]: a normal distribution, to be drawn from by random uint16."""
    inverse = statistics.NormalDist().inv_cdf
    upper = [inverse(0.5 + (i + 0.5) / 65536) for i in range(32768)]
    return np.array([*(-x for x in reversed(upper)), *upper], np.float32)


def _headers(dtype: str, deviation: float, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Where in a block its scales lie, and uint8 [_NUM_HEADERS, bytes] of them to choose from."""
    around = rng.uniform(0.75, 1.25, (_NUM_HEADERS, 1))
    if dtype == "q6_k":  # sixteen int8 scales, then one of theirs
        scales = rng.integers(32, 97, (_NUM_HEADERS, 16)) * rng.choice([-1, 1], (_NUM_HEADERS, 16))
        return 192, _joined(scales.astype(np.int8), _half(around * deviation / (_SPREAD[6] * 64)))
    if dtype == "mxfp4":
        return 0, np.rint(np.log2(around * deviation / _SPREAD_E2M1) + 127).astype(np.uint8)
    bits = int(dtype[1])
    scale = around * deviation / _SPREAD[bits]
    middle = (2**bits - 1) / 2
    if dtype in ("q4_k", "q5_k"):  # offsets have the same six bits as scales: the mean of a group is 0
        codes = rng.integers(32, 64, (_NUM_HEADERS, 8), dtype=np.uint8)
        return 0, _joined(_half(scale / 48), _half(scale / 48 * middle), _twelve_bytes(codes))
    if dtype in ("q4_1", "q5_1"):
        return 0, _joined(_half(scale), _half(-scale * middle))
    return 0, _half(scale)


def _twelve_bytes(codes: np.ndarray) -> np.ndarray:
    """Eight six-bit numbers, each as scale and as offset, in the order of K-quants: see `ggml`."""
    low, high = codes[:, :4], codes[:, 4:]
    first = low | (high >> 4 << 6)
    return _joined(first, first, (high & 15) | (high & 15) << 4)


def _half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).view(np.uint8)


def _joined(*parts: np.ndarray) -> Any:
    return np.concatenate([part.view(np.uint8) for part in parts], axis=1)
