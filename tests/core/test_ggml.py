"""Block formats against the `gguf` package's dequantizers, on random bytes (every bit pattern of codes
and scales).
"""

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize as gguf_dequantize

from tenon.core import ggml
from tenon.core.tensors import RawTensor

QUANTIZED = [name for name, block in ggml.BLOCKS.items() if block.group]


def random_blocks(dtype: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Random bytes with finite float16 scales, uint8 1-D."""
    rng = np.random.default_rng(seed)
    block = ggml.BLOCKS[dtype]
    data = rng.integers(0, 256, (rows * columns // block.elements, block.num_bytes), dtype=np.uint8)
    for start in block.scales:
        halves = rng.standard_normal(len(data)).astype(np.float16)
        data[:, start : start + 2] = halves.view(np.uint8).reshape(-1, 2)
    return data.reshape(-1)


def pairs_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and exponents apart, as OpenAI publishes mxfp4: a byte has two neighbours, the first below."""
    rows = blocks.reshape(-1, 17)
    codes = np.concatenate([rows[:, 1:] & 15, rows[:, 1:] >> 4], axis=1)
    return (codes[:, ::2] | codes[:, 1::2] << 4).reshape(-1), rows[:, 0].copy()


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_dequantizes_like_gguf(dtype, seed):
    data = random_blocks(dtype, 3, 512, seed)
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    expected = gguf_dequantize(data.reshape(3, -1), kind)
    np.testing.assert_array_equal(ggml.dequantize(dtype, data, (3, 512)), expected)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_floats_are_exact(dtype, seed):
    kind = {"f32": np.float32, "f16": np.float16, "bf16": ggml.ml_dtypes.bfloat16}[dtype]
    values = np.random.default_rng(seed).standard_normal((4, 5)).astype(kind)
    raw = RawTensor("x", dtype, (4, 5), values.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(raw.dequantize(), values.astype(np.float32))


def test_row_order_picks_rows(seed):
    data = random_blocks("q8_0", 4, 64, seed)
    order = np.array([2, 0, 3, 1], np.int32)
    plain, ordered = (RawTensor("x", "q8_0", (4, 64), data, o).dequantize() for o in (None, order))
    np.testing.assert_array_equal(ordered, plain[order])


def test_mxfp4_with_exponents_apart(seed):
    data = random_blocks("mxfp4", 4, 96, seed)
    codes, exponents = pairs_of(data)
    np.testing.assert_array_equal(ggml.join_mxfp4(codes, exponents), data)
    whole, apart = (
        RawTensor("x", "mxfp4", (4, 96), part, exponents=more)
        for part, more in ((data, None), (codes, exponents))
    )
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(apart.dequantize(), whole.dequantize())
    with pytest.raises(ValueError, match="takes 192 bytes"):
        RawTensor("x", "mxfp4", (4, 96), codes[1:], exponents=exponents)


def test_transposed_rows(seed):
    values = np.random.default_rng(seed).standard_normal((5, 7)).astype(np.float32)
    order = np.array([4, 2, 0, 1, 3], np.int32)
    data = np.ascontiguousarray(values.T).reshape(-1).view(np.uint8)
    raw = RawTensor("x", "f32", (5, 7), data, order, transposed=True)
    np.testing.assert_array_equal(raw.dequantize(), values[order])


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        ggml.row_bytes("q4_0", 33)
    with pytest.raises(ValueError, match="takes 16 bytes"):
        RawTensor("x", "f32", (2, 2), np.zeros(12, np.uint8))
