"""Weights used where a mapped file has them have the bits of packed ones; what cannot be used is packed."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from tenon.core.tensors import RawTensor
from tenon.formats.mapped import MappedFile
from tenon.kernels import cpu
from tenon.ops.cases import random_weight

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.embedding import embedding
from tenon.kernels.cpu.linear import adopt_linear, linear, pack_linear, packed_bytes
from tenon.kernels.cpu.moe import moe_experts
from tenon.ops.arrays import BFLOAT16, FLOAT32

TOKENS = (1, 2, 3, 4, 5, 17, 200)


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture(params=_native.available_isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


@pytest.fixture
def make_mapped(tmp_path, rng):
    """Random matrices (rows, columns) in bf16, one after the other in a mapped file, whose last byte is the
    last one's; the first begins anywhere, as after a header."""

    def make(*shapes):
        weights = [rng.standard_normal(shape).astype(BFLOAT16) for shape in shapes]
        start = int(rng.integers(0, 80))
        path = tmp_path / f"weights{len(list(tmp_path.iterdir()))}"
        path.write_bytes(bytes(start) + b"".join(w.tobytes() for w in weights))
        file, parts = MappedFile(path), []
        for weight in weights:
            data = file.slice(start, weight.nbytes)
            parts.append(RawTensor("w", "bf16", weight.shape, data, mapped=True))
            start += weight.nbytes
        return parts

    return make


def both(parts):
    """The weights in place, and packed from memory that is not mapped."""
    own = [replace(part, data=part.data.copy(), mapped=False) for part in parts]
    return pack_linear(parts, BFLOAT16, in_place=True), pack_linear(own, BFLOAT16, in_place=True)


@pytest.mark.parametrize("columns", [32, 96, 640])
def test_products_have_the_bits_of_packed_weights(isa, columns, make_mapped, rng):
    mapped, packed = both(make_mapped((37, columns), (16, columns), (150, columns), (1, columns)))
    assert mapped.formats == ["bf16_rows"] * 4
    assert packed.formats == ["bf16"] * 4
    assert (mapped.bytes_in_place, packed.bytes_in_place) == (mapped.nbytes, 0)
    bias_N = rng.standard_normal(204).astype(np.float32)
    for tokens in TOKENS:
        x_TK = rng.standard_normal((tokens, columns)).astype(BFLOAT16)
        np.testing.assert_array_equal(linear(x_TK, mapped, bias_N), linear(x_TK, packed, bias_N))


def test_parts_in_place_stand_beside_packed_ones(isa, make_mapped, rng):
    (rows,) = make_mapped((21, 256))
    other = random_weight(rng, "q4_k", 40, 256)
    for act_bits in (0, 16):
        mapped = pack_linear([other, rows], BFLOAT16, act_bits=act_bits, in_place=True)
        packed = pack_linear(
            [other, replace(rows, data=rows.data.copy(), mapped=False)], BFLOAT16, act_bits=act_bits
        )
        assert mapped.formats == ["u4_dm32", "bf16_rows"]
        assert mapped.bytes_in_place == rows.data.nbytes
        for tokens in TOKENS:
            x_TK = rng.standard_normal((tokens, 256)).astype(BFLOAT16)
            np.testing.assert_array_equal(linear(x_TK, mapped), linear(x_TK, packed))


def test_embeddings_have_the_bits_of_packed_weights(isa, make_mapped, rng):
    mapped, packed = both(make_mapped((53, 64)))
    ids_T = rng.permutation(53).astype(np.int32)
    np.testing.assert_array_equal(embedding(ids_T, mapped, 1.5), embedding(ids_T, packed, 1.5))


def test_experts_have_the_bits_of_packed_weights(isa, make_mapped, rng):
    down, down_packed = both(make_mapped(*[(32, 32)] * 4))
    gate_up, gate_up_packed = both(make_mapped(*[(32, 32)] * 8))
    for tokens in (1, 9, 60):
        x_TD = rng.standard_normal((tokens, 32)).astype(BFLOAT16)
        experts_TK = np.argsort(rng.random((tokens, 4)))[:, :2].astype(np.int32)
        weights_TK = rng.random((tokens, 2)).astype(np.float32)
        got = moe_experts(x_TD, experts_TK, weights_TK, gate_up, down, 4)
        expected = moe_experts(x_TD, experts_TK, weights_TK, gate_up_packed, down_packed, 4)
        np.testing.assert_array_equal(got, expected)


def test_the_mapping_lives_as_long_as_the_weights(make_mapped, rng):
    parts = make_mapped((160, 512))
    x_TK = rng.standard_normal((2, 512)).astype(BFLOAT16)
    mapped, packed = both(parts)
    del parts
    gc.collect()
    np.testing.assert_array_equal(linear(x_TK, mapped), linear(x_TK, packed))


def test_what_is_packed_all_the_same(make_mapped, rng):
    (part,), (odd,) = make_mapped((32, 64)), make_mapped((32, 50))
    order = rng.permutation(32).astype(np.int32)
    for raw in (
        odd,
        replace(part, mapped=False),
        replace(part, row_order=order),
        replace(part, shape=(64, 32), transposed=True),
        replace(part, dtype="f16"),
    ):
        assert pack_linear([raw], BFLOAT16, in_place=True).formats == ["bf16"]
    assert pack_linear([part], BFLOAT16).formats == ["bf16"]
    assert pack_linear([part], FLOAT32, in_place=True).formats == ["f32"]
    assert pack_linear([part], BFLOAT16, quantize="q8_0", in_place=True).formats == ["s8_d16"]


def test_rows_of_a_file_are_not_adopted_as_packed_weights(make_mapped):
    (part,) = make_mapped((32, 64))
    packed = pack_linear([replace(part, data=part.data.copy(), mapped=False)], BFLOAT16)
    with pytest.raises(ValueError, match="own file"):
        adopt_linear(64, [("bf16_rows", 32)], packed_bytes(packed), BFLOAT16)
