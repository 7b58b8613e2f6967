"""Packed weights and the linear layer: exact values, defined bits, and no dependence on anything else.

Shape letters: M rows of x, K inputs, N outputs, S steps of 32 along K.
"""

from dataclasses import replace

import numpy as np
import pytest

from tenon.core import ggml
from tenon.core.tensors import BlockScales, RawTensor
from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.embedding import embedding
from tenon.kernels.cpu.linear import linear, pack_linear, packed_bytes
from tenon.kernels.cpu.memory import address
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tests.core.test_ggml import pairs_of

UNBIAS = np.float32(1 + 3 / 1024)
FLOATS = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": BFLOAT16}
QUANTIZED = sorted(set(ggml.BLOCKS) - set(ggml.FLOATS))
HALVES = {
    "q6_k": [208],
    "q8_0": [0],
    "q4_0": [0],
    "q5_0": [0],
    "mxfp4": [],
}  # where blocks keep float16 scales; else 0 and 2
SHIFTS = {"q4_0": 8, "q5_0": 16, "q8_0": 128, "q6_k": 32}  # what ggml.unpack added to signed codes
ROWS = (1, 2, 3, 4, 5, 7, 16, 17, 33, 64, 100)


def raw_tensor(dtype, rows, columns, rng, row_order=None):
    """Random weights of any type; float16 scales about 0.01, everything else of a block any bits at all."""
    if dtype in FLOATS:
        data = rng.normal(size=(rows, columns)).astype(FLOATS[dtype]).view(np.uint8).ravel()
        return RawTensor("w", dtype, (rows, columns), data, row_order)
    if dtype == "f8_e4m3":
        return random_fp8(rng, rows, columns, row_order=row_order)
    blocks = rng.integers(0, 256, (ggml.num_bytes(dtype, (rows, columns)),), np.uint8)
    view = blocks.reshape(-1, ggml.BLOCKS[dtype].num_bytes)
    for start in HALVES.get(dtype, [0, 2]):
        halves = (rng.normal(size=(len(view), 1)) * 0.01).astype(np.float16)
        view[:, start : start + 2] = halves.view(np.uint8)
    for start in ggml.BLOCKS[dtype].exponents:
        view[:, start] = rng.integers(100, 140, len(view))
    return RawTensor("w", dtype, (rows, columns), blocks, row_order)


def random_fp8(rng, rows, columns, block=(48, 64), **more):
    """Codes of any bits but those of NaN."""
    codes = rng.integers(0, 127, rows * columns, np.uint8) | rng.integers(0, 2, rows * columns, np.uint8) << 7
    scales = rng.normal(size=BlockScales.shape((rows, columns), *block)).astype(np.float32) * 0.01
    return RawTensor("w", "f8_e4m3", (rows, columns), codes, scales=BlockScales(scales, *block), **more)


def fma(a, b, c):
    """float32, rounded once (but for double roundings of probability 2^-29)."""
    return (np.asarray(a, np.float64) * b + c).astype(np.float32)


def upper16(values):
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def bf16_weights(raw):
    """The bf16 weights that linear.h defines, as float32 [N, K]."""
    if raw.dtype in FLOATS or raw.dtype == "mxfp4":
        return raw.dequantize().astype(BFLOAT16).astype(np.float32)
    if raw.dtype == "f8_e4m3":
        scaled = raw.scales._replace(values=raw.scales.values * UNBIAS)
        return upper16(replace(raw, scales=scaled).dequantize())
    groups = ggml.unpack(raw.dtype, raw.data, raw.shape)
    repeat = raw.shape[1] // groups.scale_NG.shape[1]
    scale, offset = (np.repeat(x * UNBIAS, repeat, axis=1) for x in (groups.scale_NG, groups.offset_NG))
    values = upper16(fma(scale, groups.codes_NK, offset))
    return values if raw.row_order is None else values[raw.row_order]


def defined_product(x_MK, w_NK):
    """The chains of isa/linear.cpp, in numpy."""
    pad = [(0, 0), (0, -x_MK.shape[1] % 32)]
    x_MSK = np.pad(x_MK.astype(np.float32), pad).reshape(len(x_MK), -1, 32)
    w_NSK = np.pad(w_NK, pad).reshape(len(w_NK), -1, 32)
    acc = np.zeros((len(x_MK), len(w_NK)), np.float32)
    for step in range(x_MSK.shape[1]):
        chains = np.zeros((2, *acc.shape), np.float32)
        for k in range(32):
            chains[k % 2] = fma(x_MSK[:, None, step, k], w_NSK[None, :, step, k], chains[k % 2])
        acc += chains[0] + chains[1]
    return acc


def grouped_weights(raw):
    """Codes, scales and offsets as isa/linear_int.cpp sees them, [N, S, halves or 32]."""
    groups = ggml.unpack(raw.dtype, raw.data, raw.shape)
    codes_NSk = groups.codes_NK.astype(np.int32).reshape(raw.shape[0], -1, 32)
    scale, offset = (x.reshape(*codes_NSk.shape[:2], -1) for x in (groups.scale_NG, groups.offset_NG))
    if SHIFTS.get(raw.dtype):
        codes_NSk, offset = codes_NSk - SHIFTS[raw.dtype], None
    return codes_NSk, scale, offset


def defined_integer_product(x_MK, raw, act_bits):
    """The definition in isa/linear_int.cpp, in numpy."""
    codes_NSk, scale, offset = grouped_weights(raw)
    limit = np.float32(127 if act_bits == 8 else 255 * 127)
    x_MSk = x_MK.astype(np.float32).reshape(len(x_MK), -1, 32)
    top_MS1 = np.abs(x_MSk).max(axis=2, keepdims=True)
    q_MSk = np.rint(x_MSk * (limit / top_MS1)).astype(np.int32)
    x_scale_MS = (top_MS1 / limit)[:, :, 0]
    acc = np.zeros((len(x_MK), len(codes_NSk)), np.float32)
    halves = scale.shape[2]
    for s in range(x_MSk.shape[1]):
        x_scale = x_scale_MS[:, s, None]
        if offset is not None:
            acc = fma(
                offset[None, :, s, 0], x_scale * q_MSk[:, s].sum(axis=1, dtype=np.float32)[:, None], acc
            )
        for half in range(halves):
            part = slice(half * 32 // halves, (half + 1) * 32 // halves)
            dot = (q_MSk[:, s, part] @ codes_NSk[:, s, part].T).astype(np.float32)
            acc = fma(dot, scale[None, :, s, half] * x_scale, acc)
    return acc


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


def bytes_of(raw, act):
    w = pack_linear([raw], act)
    return packed_bytes(w).copy()


def identity(columns, act):
    return np.eye(columns, dtype=np.float32).astype(act)


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_float32_weights_are_exact(dtype, rng):
    from gguf import GGMLQuantizationType, quants

    raw = raw_tensor(dtype, 21, 256, rng)
    kind = GGMLQuantizationType[dtype.upper()]
    expected_NK = quants.dequantize(raw.data.reshape(21, -1), kind)
    got_KN = linear(identity(256, FLOAT32), pack_linear([raw], FLOAT32))
    np.testing.assert_array_equal(got_KN.T, expected_NK)


@pytest.mark.parametrize("dtype", [*ggml.FLOATS, *QUANTIZED])
def test_bfloat16_weights_are_as_defined(dtype, rng):
    raw = raw_tensor(dtype, 21, 256, rng, row_order=rng.permutation(21).astype(np.int32))
    got_KN = linear(identity(256, BFLOAT16), pack_linear([raw], BFLOAT16))
    np.testing.assert_array_equal(got_KN.T, bf16_weights(raw))


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32], ids=str)
@pytest.mark.parametrize("columns", [64, 96, 45])
def test_columns_of_a_file_become_rows(act, columns, rng):
    values = rng.normal(size=(37, columns)).astype(BFLOAT16)
    order = rng.permutation(37).astype(np.int32)
    for dtype in FLOATS:
        stored = values.astype(FLOATS[dtype])
        plain, turned = (
            RawTensor("w", dtype, (37, columns), data.view(np.uint8).reshape(-1), order, transposed=turned)
            for data, turned in ((stored, False), (np.ascontiguousarray(stored.T), True))
        )
        np.testing.assert_array_equal(bytes_of(turned, act), bytes_of(plain, act))
    q8 = raw_tensor("q8_0", 32, 64, rng)
    with pytest.raises(ValueError, match="only floats"):
        pack_linear([replace(q8, transposed=True)], act)


def test_numbers_of_mxfp4_are_exact_in_bfloat16(rng):
    """All codes with all exponents whose numbers are normal; what is smaller is zero."""
    blocks = np.zeros((256, 17), np.uint8)
    blocks[:, 0] = np.arange(256)
    blocks[:, 1:] = np.arange(16) | np.arange(15, -1, -1) << 4
    raw = RawTensor("w", "mxfp4", (256, 32), blocks.reshape(-1))
    with np.errstate(over="ignore"):
        exact = raw.dequantize()
    exact[:2] = 0
    assert (exact[2:254] == exact[2:254].astype(BFLOAT16).astype(np.float32)).all()
    for name in _native.available_isas():
        with cpu.variant(name):
            got = np.concatenate(
                [embedding(np.array([i], np.int32), pack_linear([raw], BFLOAT16), 1.0) for i in range(256)]
            )
        np.testing.assert_array_equal(got, exact, name)


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32], ids=str)
def test_exponents_of_mxfp4_may_lie_apart(act, rng):
    raw = raw_tensor("mxfp4", 37, 96, rng, rng.permutation(37).astype(np.int32))
    codes, exponents = pairs_of(raw.data)
    apart = replace(raw, data=codes, exponents=exponents)
    np.testing.assert_array_equal(bytes_of(apart, act), bytes_of(raw, act))


@pytest.mark.parametrize("dtype", ["f8_e4m3", *QUANTIZED])
def test_truncation_is_unbiased_and_keeps_what_bfloat16_can_hold(dtype, rng):
    raw = raw_tensor(dtype, 512, 512, rng)
    exact, got = raw.dequantize(), bf16_weights(raw)
    # Where scale and offset cancel, what is left of their own rounding is as large as the largest of 32 says.
    largest = np.abs(exact).reshape(512, -1, 32).max(axis=2)
    rounding = np.repeat(largest, 32, axis=1) * 2.0**-22 + 1e-30
    np.testing.assert_array_less(np.abs(got - exact), np.abs(exact) * 2.0**-7 + rounding)
    held = exact == upper16(exact)
    assert (np.abs(got - exact)[held] <= rounding[held]).all()
    assert abs((got - exact).sum() / np.abs(exact).sum()) < 2.0**-11


def test_zero_stays_zero_when_the_offset_cancels_the_scale(rng):
    """d q + m = 0 for q = 5 in float16 must give a weight of exactly zero."""
    d = (rng.integers(1, 128, (16 * 4, 1)) * 2.0**-12).astype(np.float16)
    m = (-5 * d).astype(np.float16)
    codes = np.full((16 * 4, 16), 0x55, np.uint8)
    data = np.concatenate([d.view(np.uint8), m.view(np.uint8), codes], axis=1).ravel()
    w = pack_linear([RawTensor("w", "q4_1", (16, 128), data)], BFLOAT16)
    np.testing.assert_array_equal(linear(identity(128, BFLOAT16), w), np.zeros((128, 16)))


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32], ids=str)
@pytest.mark.parametrize("columns", [32, 96, 45, 7])
def test_products_have_the_defined_bits(act, columns, rng):
    raw = raw_tensor("f32", 19, columns, rng)
    x = rng.normal(size=(7, columns)).astype(act)
    weights = bf16_weights(raw) if act == BFLOAT16 else raw.dequantize()
    got = linear(x, pack_linear([raw], act))
    np.testing.assert_array_equal(bits(got), bits(defined_product(x, weights)))


@pytest.mark.parametrize("act_bits", [8, 16])
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_products_of_integers_have_the_defined_bits(dtype, act_bits, rng):
    raw = raw_tensor(dtype, 37, 512, rng)
    x = (rng.normal(size=(9, 512)) * 10.0 ** rng.integers(-8, 8, (9, 1))).astype(BFLOAT16)
    got = linear(x, pack_linear([raw], BFLOAT16, act_bits=act_bits))
    np.testing.assert_array_equal(bits(got), bits(defined_integer_product(x, raw, act_bits)))


@pytest.mark.parametrize("act_bits", [8, 16])
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_extremes_in_integers_are_exact(dtype, act_bits, rng):
    """The largest codes of both signs, and bytes of both planes, where sums in 16 bits would overflow."""
    for fill in (0, 255):
        raw = raw_tensor(dtype, 16, 256, rng)
        keep = {*ggml.BLOCKS[dtype].exponents}
        keep |= {i for start in (*HALVES.get(dtype, [0, 2]), 192, 208) for i in (start, start + 1)}
        rows = raw.data.reshape(-1, ggml.BLOCKS[dtype].num_bytes)
        rows[:, [i for i in range(rows.shape[1]) if i not in keep]] = fill
        x = rng.choice(np.array([-127, 127, 63.5, -63.5]), (20, 256)).astype(BFLOAT16)
        expected = defined_integer_product(x, raw, act_bits)
        w = pack_linear([raw], BFLOAT16, act_bits=act_bits)
        for name in _native.available_isas():
            with cpu.variant(name):
                np.testing.assert_array_equal(bits(linear(x, w)), bits(expected), name)
                np.testing.assert_array_equal(bits(linear(x[:1], w)), bits(expected[:1]), name)


@pytest.mark.parametrize("act_bits", [8, 16])
@pytest.mark.parametrize("rows", [3, 40])
def test_what_integers_cannot_hold_stays_in_its_row(rows, act_bits, rng):
    """Zeros, tiny numbers, denormals; inf and NaN make their own row NaN."""
    parts = [raw_tensor("q4_1", 33, 96, rng), raw_tensor("q8_0", 5, 96, rng)]
    w = pack_linear(parts, BFLOAT16, act_bits=act_bits)
    clean = rng.normal(size=(rows, 96)).astype(BFLOAT16)
    for value, wanted in ((0.0, 0.0), (1e-39, 0.0), (2.0**-101, 0.0), (np.inf, np.nan), (np.nan, np.nan)):
        x = clean.copy()
        if wanted == 0:
            x[1] = value
        else:
            x[1, int(rng.integers(96))] = value
        for name in _native.available_isas():
            with cpu.variant(name):
                got, expected = linear(x, w), linear(clean, w)
            np.testing.assert_array_equal(got[1], np.full(38, wanted, np.float32), name)
            np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(expected, 1, 0), name)


def test_integers_are_for_bfloat16(rng):
    with pytest.raises(ValueError, match="integers"):
        pack_linear([raw_tensor("q8_0", 4, 32, rng)], FLOAT32, act_bits=8)


def test_integers_have_8_or_16_bits(rng):
    with pytest.raises(ValueError, match="8 or 16"):
        pack_linear([raw_tensor("q8_0", 4, 32, rng)], BFLOAT16, act_bits=4)


def test_integers_are_for_grouped_weights(rng):
    """Others multiply with bfloat16, in the same layer too."""
    floats, grouped = raw_tensor("f16", 20, 256, rng), raw_tensor("q5_k", 20, 256, rng)
    x = rng.normal(size=(6, 256)).astype(BFLOAT16)
    w = pack_linear([floats, grouped], BFLOAT16, act_bits=16)
    assert w.act_bits == 16
    assert not pack_linear([floats], BFLOAT16, act_bits=16).act_bits
    np.testing.assert_array_equal(linear(x, w)[:, :20], linear(x, pack_linear([floats], BFLOAT16)))
    np.testing.assert_array_equal(linear(x, w)[:, 20:], defined_integer_product(x, grouped, 16))


@pytest.mark.parametrize("mode", ["bfloat16", "float32", "int8", "int16"])
@pytest.mark.parametrize("dtype", [*ggml.FLOATS, *QUANTIZED])
def test_bits_depend_on_nothing_but_the_row(dtype, mode, rng):
    """Every instruction set and every number of rows against one row alone."""
    columns = int(rng.integers(20, 700)) if dtype in ggml.FLOATS else 256 * int(rng.integers(1, 4))
    act = FLOAT32 if mode == "float32" else BFLOAT16
    act_bits = {"int8": 8, "int16": 16}.get(mode, 0)
    w = pack_linear([raw_tensor(dtype, int(rng.integers(1, 90)), columns, rng)], act, act_bits=act_bits)
    x = rng.normal(size=(max(ROWS), columns)).astype(act)
    alone = np.concatenate([linear(x[i : i + 1], w) for i in range(len(x))])
    for name in _native.available_isas():
        with cpu.variant(name):
            for rows in ROWS:
                assert np.array_equal(bits(linear(x[:rows], w)), bits(alone[:rows])), (name, rows)


@pytest.mark.skipif(_native.max_threads() < 2, reason="one core")
@pytest.mark.parametrize("act_bits", [8, 16])
@pytest.mark.parametrize("dtype", ["bf16", "q4_0"])
@pytest.mark.parametrize("shape", [(16, 96), (40, 640), (300, 1216)])
def test_bits_do_not_depend_on_threads(dtype, shape, act_bits, rng):
    w = pack_linear([raw_tensor(dtype, *shape, rng)], BFLOAT16, act_bits=act_bits)
    x = rng.normal(size=(600, shape[1])).astype(BFLOAT16)
    before = _native.num_threads()
    results = {}
    for name in ("avx2", "avx512", "avx512-vnni", "amx-emulated"):
        if name not in _native.available_isas():
            continue
        with cpu.variant(name):
            for threads in (1, 2):
                _native.set_num_threads(threads)
                results[name, threads] = [bits(linear(x[:rows], w)) for rows in (1, 5, 64, 600)]
    _native.set_num_threads(before)
    first = next(iter(results.values()), [])
    for key, result in results.items():
        assert all(np.array_equal(a, b) for a, b in zip(result, first, strict=True)), key


@pytest.mark.parametrize("act_bits", [0, 8, 16])
def test_parts_of_different_types_lie_side_by_side(act_bits, rng):
    types = ["q4_1", "q6_k", "q8_0", "f16", "q4_0"]
    parts = [raw_tensor(t, n, 256, rng) for t, n in zip(types, (16, 5, 33, 1, 20), strict=True)]
    w = pack_linear(parts, BFLOAT16, act_bits=act_bits)
    assert w.shape == (75, 256)
    assert w.formats == ["u4_dm16", "s8x16_d32", "s8_d16", "bf16", "s4_d16"]
    x = rng.normal(size=(6, 256)).astype(BFLOAT16)
    expected = np.concatenate(
        [linear(x, pack_linear([part], BFLOAT16, act_bits=act_bits)) for part in parts], axis=1
    )
    for name in _native.available_isas():
        with cpu.variant(name):
            np.testing.assert_array_equal(bits(linear(x, w)), bits(expected))
            np.testing.assert_array_equal(bits(linear(x[:2], w)), bits(expected[:2]))


@pytest.mark.parametrize("act_bits", [0, 8, 16])
@pytest.mark.parametrize("rows", [1, 3, 9, 20])
def test_bias_and_accumulation_come_after_the_sum_in_this_order(rows, act_bits, rng):
    w = pack_linear([raw_tensor("q8_0", 21, 64, rng)], BFLOAT16, act_bits=act_bits)
    x = rng.normal(size=(rows, 64)).astype(BFLOAT16)
    bias = rng.normal(size=21).astype(np.float32)
    residual = rng.normal(size=(rows, 40)).astype(np.float32)
    before = residual.copy()
    product = linear(x, w)
    for name in _native.available_isas():
        with cpu.variant(name):
            np.testing.assert_array_equal(linear(x, w, bias), product + bias)
            target = before.copy()[:, 3:24]  # rows further apart than they are long
            whole = target.base
            assert linear(x, w, bias, accumulate_into_TN=target) is target
            np.testing.assert_array_equal(target, (product + bias) + before[:, 3:24])
            np.testing.assert_array_equal(whole[:, :3], before[:, :3])
            np.testing.assert_array_equal(whole[:, 24:], before[:, 24:])


def test_rows_of_x_may_be_apart(rng):
    w = pack_linear([raw_tensor("f32", 20, 48, rng)], BFLOAT16)
    x = rng.normal(size=(9, 80)).astype(BFLOAT16)
    np.testing.assert_array_equal(linear(x[:, 16:64], w), linear(np.ascontiguousarray(x[:, 16:64]), w))


def test_packed_bytes_can_be_stored_and_adopted(rng):
    w = pack_linear([raw_tensor("q4_k", 35, 512, rng), raw_tensor("q5_1", 16, 512, rng)], BFLOAT16)
    stored = np.empty(w.nbytes + 64, np.uint8)
    stored = stored[-address(stored) % 64 :][: w.nbytes]
    stored[:] = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * w.nbytes).from_address(w.address))
    again = _native.adopt_linear(512, w.layout, address(stored), stored.nbytes)
    x = rng.normal(size=(5, 512)).astype(BFLOAT16)
    assert again.shape == w.shape
    np.testing.assert_array_equal(linear(x, again), linear(x, w))
    with pytest.raises(ValueError, match="bytes"):
        _native.adopt_linear(512, w.layout, address(stored), stored.nbytes - 64)
    with pytest.raises(ValueError, match="unknown format"):
        _native.adopt_linear(512, [("u3", 16)], address(stored), stored.nbytes)


def test_what_does_not_fit_is_refused(rng):
    f32, q8 = raw_tensor("f32", 4, 64, rng), raw_tensor("q8_0", 4, 32, rng)
    with pytest.raises(ValueError, match="differ in columns"):
        pack_linear([f32, q8], BFLOAT16)
    with pytest.raises(ValueError, match="needs rows"):
        pack_linear([], BFLOAT16)
    with pytest.raises(ValueError, match="row_order"):
        pack_linear([RawTensor("w", "f32", (4, 64), f32.data, np.array([0, 1, 2, 4]))], BFLOAT16)
    w = pack_linear([f32], BFLOAT16)
    with pytest.raises(ValueError, match="columns"):
        linear(np.ones((1, 65), BFLOAT16), w)
    with pytest.raises(ValueError, match="other type"):
        linear(np.ones((1, 64), np.float32), w)
    with pytest.raises(ValueError, match="unknown tensor type"):
        _native.pack_linear([("q3_k", 1, 256, 0, 0, False, "", 0, False, (0, 0, 0))], False)
    with pytest.raises(ValueError, match="whole blocks"):
        _native.pack_linear([("q8_0", 1, 33, 0, 0, False, "", 0, False, (0, 0, 0))], False)
    with pytest.raises(ValueError, match="exponents apart"):
        _native.pack_linear([("mxfp4_pairs", 1, 32, 0, 0, False, "", 0, False, (0, 0, 0))], False)


def test_no_rows(rng):
    w = pack_linear([raw_tensor("f32", 4, 64, rng)], BFLOAT16)
    for name in _native.available_isas():
        with cpu.variant(name):
            assert linear(np.empty((0, 64), BFLOAT16), w).shape == (0, 4)
