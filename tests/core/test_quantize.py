import numpy as np
import pytest

from tenon.core import ggml
from tenon.core.quantize import quantize


def squared_error(dtype, values):
    back = ggml.dequantize(dtype, quantize(dtype, values), values.shape)
    return float(((back - values) ** 2).mean() / (values**2).mean())


def plain_range(values):
    """Q4_1 as gguf's own quantizer makes it: the range in 15 steps."""
    import gguf

    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1)
    back = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q4_1)
    return float(((back - values) ** 2).mean() / (values**2).mean())


@pytest.mark.parametrize("draw", ["standard_normal", "laplace", "uniform"])
def test_four_bits_lose_less_than_the_plain_range_does(draw, seed):
    rng = np.random.default_rng(seed)
    values = (getattr(rng, draw)(size=(200, 512)) * 0.02).astype(np.float32)
    ours, plain = squared_error("q4_1", values), plain_range(values)
    print(f"{draw}: {ours:.3g} of {plain:.3g}")
    assert ours < (0.86 if draw != "uniform" else 1.0) * plain


def test_no_line_over_sixteen_codes_is_much_better(seed):
    """Against a search of 10,000 lines for each block."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((8, 32)).astype(np.float32)
    low, high = values.min(axis=1), values.max(axis=1)
    ours = ((ggml.dequantize("q4_1", quantize("q4_1", values), values.shape) - values) ** 2).sum(axis=1)
    best = np.full(8, np.inf)
    for inset_low in np.linspace(-0.05, 0.25, 100):
        for inset_high in np.linspace(-0.05, 0.25, 100):
            m = (low + inset_low * (high - low))[:, None]
            d = ((high - inset_high * (high - low))[:, None] - m) / 15
            q = np.clip(np.rint((values - m) / d), 0, 15)
            best = np.minimum(best, ((d * q + m - values) ** 2).sum(axis=1))
    assert ours.sum() < 1.12 * best.sum()


def test_eight_bits(seed):
    values = np.random.default_rng(seed).standard_normal((50, 256)).astype(np.float32)
    back = ggml.dequantize("q8_0", quantize("q8_0", values), values.shape)
    step = np.abs(values).reshape(50, -1, 32).max(axis=2, keepdims=True) / 127
    assert (np.abs(back - values).reshape(50, -1, 32) <= step * 0.502).all()


@pytest.mark.parametrize(("dtype", "low", "high"), [("q8_0", -127, 127), ("q4_1", 0, 15)])
def test_what_codes_can_hold_is_exact(dtype, low, high, seed):
    codes = np.random.default_rng(seed).integers(low, high + 1, (40, 32)).astype(np.float32)
    codes[:, 0], codes[:, 1] = low, high
    values = codes * 0.5 - (4 if dtype == "q4_1" else 0)
    np.testing.assert_array_equal(ggml.dequantize(dtype, quantize(dtype, values), values.shape), values)


@pytest.mark.parametrize("dtype", ["q8_0", "q4_1"])
@pytest.mark.parametrize("value", [0.0, 0.375, -2.0])
def test_blocks_of_one_value(dtype, value):
    values = np.full((3, 32), value, np.float32)
    back = ggml.dequantize(dtype, quantize(dtype, values), values.shape)
    np.testing.assert_allclose(back, values, rtol=1e-3)


def test_rows_must_be_whole_blocks():
    with pytest.raises(ValueError, match="multiples of 32"):
        quantize("q4_1", np.zeros((2, 40), np.float32))
