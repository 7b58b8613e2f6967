"""From weights in a file to packed ones: quantised on the way, and without keeping the file in memory."""

import gc
import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tenon.core.quantize import quantize
from tenon.core.tensors import RawTensor
from tenon.formats.mapped import MappedFile
from tenon.kernels import cpu
from tenon.ops.cases import random_weight

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.linear import adopt_linear, linear, pack_linear, packed_bytes
from tenon.ops.arrays import BFLOAT16, FLOAT32

FLOATS = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": BFLOAT16}


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture(params=_native.available_isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def resident_file_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024


@pytest.mark.parametrize("target", ["q8_0", "q4_1"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_quantized_weights_are_as_defined(isa, target, dtype, rng):
    """Bit for bit, odd blocks too, for both kinds of activations."""
    values_NK = rng.standard_normal((37, 256)).astype(np.float32)
    values_NK[3, :32] = 0.25
    values_NK[4, 32:64] = 0
    values_NK[5, 64:96] *= 1e-6  # float16 has few scales there
    values_NK[6, 96:128] *= 1e4
    stored_NK = values_NK.astype(FLOATS[dtype])
    order = rng.permutation(37).astype(np.int32)
    data = np.ascontiguousarray(stored_NK[np.argsort(order)]).view(np.uint8).reshape(-1)
    raw = RawTensor("w", dtype, (37, 256), data, order)
    blocks = quantize(target, stored_NK.astype(np.float32))
    for act in (BFLOAT16, FLOAT32):
        got = pack_linear([raw], act, quantize=target)
        expected = pack_linear([RawTensor("w", target, (37, 256), blocks)], act)
        assert got.formats == expected.formats
        np.testing.assert_array_equal(packed_bytes(got), packed_bytes(expected))


def test_quantization_leaves_other_parts_alone(rng):
    parts = [random_weight(rng, "q4_k", 16, 256), random_weight(rng, "bf16", 16, 256)]
    assert pack_linear(parts, BFLOAT16, quantize="q8_0").formats == ["u4_dm32", "s8_d16"]


def test_quantizations_that_there_are_not(rng):
    with pytest.raises(ValueError, match="q8_0 or q4_1 only"):
        pack_linear([random_weight(rng, "bf16", 4, 64)], BFLOAT16, quantize="q5_0")
    with pytest.raises(ValueError, match="whole blocks"):
        pack_linear([random_weight(rng, "f32", 4, 40)], BFLOAT16, quantize="q8_0")


@pytest.mark.parametrize("columns", [4096, 1000])
def test_pages_of_a_mapped_file_are_released_once_read(columns, tmp_path, rng):
    rows = (24 << 20) // (2 * columns)
    path = tmp_path / "weights"
    path.write_bytes(rng.integers(0, 255, rows * columns * 2, np.uint8).tobytes())
    file = MappedFile(path)
    raw = RawTensor("w", "bf16", (rows, columns), file.slice(0, file.size), mapped=True)
    assert raw.data[:: mmap.PAGESIZE].any()  # now they are all in memory
    before = resident_file_bytes()
    w = pack_linear([raw], BFLOAT16)
    assert before - resident_file_bytes() > 0.9 * file.size
    kept = pack_linear([replace(raw, mapped=False)], BFLOAT16)
    np.testing.assert_array_equal(packed_bytes(w), packed_bytes(kept))
    assert resident_file_bytes() > before - 0.1 * file.size


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32])
@pytest.mark.parametrize("act_bits", [0, 8, 16])
def test_packed_bytes_are_adopted_and_kept_alive(act, act_bits, rng):
    if act_bits and act == FLOAT32:
        return
    w = pack_linear(
        [random_weight(rng, dtype, 21, 256) for dtype in ("q4_k", "bf16")], act, act_bits=act_bits
    )
    memory = np.zeros(w.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    memory[start : start + w.nbytes] = packed_bytes(w)
    again = adopt_linear(256, w.layout, memory[start : start + w.nbytes], act, act_bits=act_bits)
    del memory
    gc.collect()
    x = rng.standard_normal((5, 256)).astype(act)
    np.testing.assert_array_equal(linear(x, again), linear(x, w))
    assert again.layout == w.layout


def test_bytes_that_do_not_fit_are_not_adopted(rng):
    w = pack_linear([random_weight(rng, "q4_k", 21, 256)], BFLOAT16)
    data = packed_bytes(w)
    for columns, layout, given, act in (
        (512, w.layout, data, BFLOAT16),
        (256, [("u4_dm32", 40)], data, BFLOAT16),
        (256, [("u5", 21)], data, BFLOAT16),
        (256, w.layout, data[:-64], BFLOAT16),
        (256, w.layout, data[8:], BFLOAT16),
        (256, w.layout, data, FLOAT32),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            adopt_linear(columns, layout, given, act)
