"""The virtual lanes: right, and the same bits on every instruction set."""

import numpy as np
import pytest

from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -3e38, 88.7, 88.8, -87.3, -87.4]
)
TINY = np.finfo(np.float32).tiny


def run(op, a, b, c):
    out = np.empty_like(a)
    _native.lane_op(op, address(a), address(b), address(c), address(out), a.size)
    return out


def operands(seed, size=1000):
    """Magnitudes from 1e-6 to 1e6 and every special value against every other, in float32."""
    rng = np.random.default_rng(seed)
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    random = rng.normal(size=(3, size)) * 10 ** rng.uniform(-6, 6, (3, size))
    a, b = np.concatenate([random[:2], pairs], axis=1)
    return [np.ascontiguousarray(x, np.float32) for x in (a, b, np.resize(random[2], a.size))]


OPS = {
    "add": lambda a, b, c: a + b,
    "mul": lambda a, b, c: a * b,
    "div": lambda a, b, c: a / b,
    "fma": lambda a, b, c: (a.astype(np.float64) * b + c).astype(np.float32),
    "min": lambda a, b, c: np.where(a < b, a, b),
    "max": lambda a, b, c: np.where(a > b, a, b),
    "sqrt": lambda a, b, c: np.sqrt(np.abs(a)),
    "less": lambda a, b, c: (a < b).astype(np.float32),
}


@pytest.mark.parametrize("op", [*OPS, "exp", "bf16", "reduce_add", "reduce_max", "reduce_min"])
def test_instruction_sets_give_the_same_bits(op, seed):
    a, b, c = operands(seed)
    results = []
    for name in _native.available_isas():
        with cpu.variant(name):
            results.append(run(op, a, b, c))
    for result in results[1:]:
        same = (result.view(np.uint32) == results[0].view(np.uint32)) | (
            np.isnan(result) & np.isnan(results[0])
        )
        assert same.all(), (op, a[~same][:3], b[~same][:3])


@pytest.mark.parametrize("op", OPS)
def test_arithmetic_is_that_of_ieee_with_denormals_flushed(op, seed):
    a, b, c = (np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x) for x in operands(seed))
    with np.errstate(all="ignore"):
        expected = OPS[op](a, b, c)
    expected = np.where(np.abs(expected) < TINY, 0, expected)
    np.testing.assert_array_equal(run(op, a, b, c), expected)


def test_exp_is_accurate_and_saturates(seed):
    a = np.random.default_rng(seed).uniform(-87.3, 88.7, 100_000).astype(np.float32)
    exact = np.exp(a.astype(np.float64))
    assert np.abs(run("exp", a, a, a) / exact - 1).max() < 2.0**-22
    edge = np.array([-np.inf, -1e30, -88, 89, 1e30, np.inf, np.nan, 0, -0.0], np.float32)
    np.testing.assert_array_equal(
        run("exp", edge, edge, edge), [0, 0, 0, np.inf, np.inf, np.inf, np.nan, 1, 1]
    )


def test_bf16_rounds_to_nearest_even(seed):
    import ml_dtypes

    a, b, c = operands(seed)
    np.testing.assert_array_equal(run("bf16", a, b, c), a.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_reductions_are_trees_of_fixed_shape(seed):
    a = np.random.default_rng(seed).normal(size=16).astype(np.float32)
    tree = a.copy()
    for step in (8, 4, 2, 1):
        tree[:step] += tree[step : 2 * step]
    assert run("reduce_add", a, a, a)[0] == tree[0]
    assert run("reduce_max", a, a, a)[0] == a.max()
    assert run("reduce_min", a, a, a)[0] == a.min()


def test_unknown_lane_op():
    a = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="no lane op cosh"):
        run("cosh", a, a, a)
