import numpy as np
import pytest

from tenon.errors import UnsupportedOp
from tenon.kernels import cpu
from tenon.kernels.cpu import kv
from tenon.ops.arrays import BFLOAT16, FLOAT32


@pytest.mark.parametrize("act", [BFLOAT16, FLOAT32], ids=str)
def test_what_is_written_is_read(act, seed):
    rng = np.random.default_rng(seed)
    cache = kv.kv_cache(5, 64, 3, 48, act)
    slots_T = rng.permutation(5 * 64)[:100].astype(np.int32)
    k_TGE, v_TGE = (rng.standard_normal((100, 3, 48)).astype(act) for _ in range(2))
    cache.write(slots_T, k_TGE, v_TGE)
    k, v = cache.read(slots_T)
    np.testing.assert_array_equal(k, k_TGE)
    np.testing.assert_array_equal(v, v_TGE)
    others = np.setdiff1d(np.arange(5 * 64), slots_T)
    assert not cache.read(others)[0].any()
    assert not cache.read(others)[1].any()


def test_bytes_per_block_is_what_a_cache_takes():
    for act in (BFLOAT16, FLOAT32):
        assert kv.kv_cache(7, 32, 3, 64, act).nbytes == 7 * kv.kv_bytes_per_block(32, 3, 64, act)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((4, 48, 2, 64), "blocks"),
        ((4, 32, 2, 40), "heads"),
        ((4, 32, 2, 1024), "heads"),
        ((0, 32, 2, 64), "one"),
    ],
)
def test_impossible_shapes_are_refused(arguments, reason):
    with pytest.raises(UnsupportedOp, match=reason):
        kv.kv_cache(*arguments, BFLOAT16)


def test_support_says_why_not(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cpu.support() == "the native module is not built"
