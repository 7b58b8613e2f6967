"""Weights in FP8 with scales of blocks, against torch's float8_e4m3fn, on every instruction set.

Shape letters: N outputs, K inputs.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tenon.core.quantize import quantize
from tenon.core.tensors import BlockScales, RawTensor
from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.embedding import embedding
from tenon.kernels.cpu.linear import linear, pack_linear
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tests.kernels.cpu.test_linear import bf16_weights, bytes_of, random_fp8


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def by_torch(raw):
    """float32 [N, K]"""
    codes = torch.from_numpy(raw.data.copy()).view(torch.float8_e4m3fn).float().reshape(raw.shape)
    return codes.numpy() * raw.scales.spread(raw.shape)


def rows_of(raw, act):
    return embedding(np.arange(raw.shape[0], dtype=np.int32), pack_linear([raw], act), 1.0)


@pytest.mark.parametrize("columns", [256, 200, 45, 1])
@pytest.mark.parametrize("rows", [1, 37, 130])
@pytest.mark.parametrize("block", [(128, 128), (16, 32), (48, 64)])
def test_weights_are_those_of_torch(block, rows, columns, rng):
    raw = random_fp8(rng, rows, columns, block)
    exact = by_torch(raw)
    np.testing.assert_array_equal(raw.dequantize(), exact)
    for name in _native.available_isas():
        with cpu.variant(name):
            np.testing.assert_array_equal(rows_of(raw, FLOAT32), exact, name)
            np.testing.assert_array_equal(rows_of(raw, BFLOAT16), bf16_weights(raw), name)


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32], ids=str)
def test_all_numbers_are_exact_with_scales_that_are_powers_of_two(act):
    """As config.json's scale_fmt "ue8m0" says: every code but NaN, every power that stays a normal number."""
    codes = np.tile(np.array([c for c in range(256) if c & 127 != 127], np.uint8), 16)
    for exponent in (-110, -9, -1, 0, 1, 20, 110):
        scales = BlockScales(np.full((1, 8), 2.0**exponent, np.float32), 128, 32)
        raw = RawTensor("w", "f8_e4m3", (16, 254), codes, scales=scales)
        for name in _native.available_isas():
            with cpu.variant(name):
                np.testing.assert_array_equal(rows_of(raw, act), by_torch(raw), name)


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32], ids=str)
def test_products(act, rng):
    raw = random_fp8(rng, 75, 300)
    x = rng.normal(size=(9, 300)).astype(act)
    got = linear(x, pack_linear([raw], act))
    exact = x.astype(np.float64) @ by_torch(raw).astype(np.float64).T
    largest = np.abs(x.astype(np.float64)) @ np.abs(by_torch(raw).astype(np.float64)).T
    assert (np.abs(got - exact) <= (2.0**-20 if act == FLOAT32 else 2.0**-7) * largest).all()


def test_without_scales_they_are_one(rng):
    raw = replace(random_fp8(rng, 20, 64), scales=None)
    np.testing.assert_array_equal(rows_of(raw, BFLOAT16), raw.dequantize())


def test_rows_in_another_order(rng):
    """Eight bits where each 16 of them share their scales; else the nearest bf16."""
    raw = random_fp8(rng, 96, 64, (32, 32))
    within = np.concatenate([rng.permutation(16) + 16 * i for i in rng.permutation(6)]).astype(np.int32)
    ordered = replace(raw, row_order=within)
    assert pack_linear([ordered], BFLOAT16).formats == ["f8_d32"]
    np.testing.assert_array_equal(rows_of(ordered, BFLOAT16), bf16_weights(raw)[within])
    across = np.roll(np.arange(96, dtype=np.int32), 8)
    ordered = replace(raw, row_order=across)
    assert pack_linear([ordered], BFLOAT16).formats == ["bf16"]
    nearest = by_torch(raw).astype(BFLOAT16).astype(np.float32)
    np.testing.assert_array_equal(rows_of(ordered, BFLOAT16), nearest[across])


@pytest.mark.parametrize("dtype", ["q8_0", "q4_1"])
def test_they_are_quantized_as_the_floats_that_they_are(dtype, rng):
    raw = random_fp8(rng, 33, 96, (16, 32))
    packed = pack_linear([raw], BFLOAT16, quantize=dtype)
    blocks = RawTensor("w", dtype, raw.shape, quantize(dtype, by_torch(raw)))
    ids = np.arange(33, dtype=np.int32)
    expected = embedding(ids, pack_linear([blocks], BFLOAT16), 1.0)
    np.testing.assert_array_equal(embedding(ids, packed, 1.0), expected)


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_nan_is_refused(code, rng):
    raw = random_fp8(rng, 40, 70)
    raw.data[rng.integers(raw.data.size)] = code
    with pytest.raises(ValueError, match="a weight is NaN"):
        pack_linear([raw], BFLOAT16)


def test_what_there_is_not(rng):
    raw = random_fp8(rng, 32, 64)
    with pytest.raises(ValueError, match="multiple of 32 columns"):
        pack_linear([replace(raw, scales=raw.scales._replace(columns=48))], BFLOAT16)
    with pytest.raises(ValueError, match="cannot be transposed"):
        pack_linear([replace(raw, scales=None, transposed=True)], BFLOAT16)
    floats = RawTensor("w", "bf16", (32, 64), np.zeros(4096, np.uint8), scales=raw.scales)
    with pytest.raises(ValueError, match="scales of blocks are for f8_e4m3"):
        pack_linear([floats], BFLOAT16)


def test_packing_writes_every_byte(rng):
    """What memory held before is in no padding."""
    raw = random_fp8(rng, 21, 45)
    first = bytes_of(raw, BFLOAT16)
    bytes_of(random_fp8(rng, 21, 45), BFLOAT16)
    np.testing.assert_array_equal(bytes_of(raw, BFLOAT16), first)
