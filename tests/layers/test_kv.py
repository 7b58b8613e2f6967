"""What a model says its cache takes is what it takes."""

import numpy as np
import pytest

from tenon.core.spec import KVGroup, ModelSpec, StateArray
from tenon.layers import kv
from tenon.ops import select

FULL = KVGroup("full", 2, 2, 64, layers=(1, 4))
WINDOW = KVGroup("full", 2, 2, 64, layers=(0,), window=40)  # filled up
STATE = KVGroup("state", 2, layers=(2, 3), arrays=(StateArray((3, 5)), StateArray((7,), "bfloat16")))


def make(*groups, dtype="float32"):
    return ModelSpec("x", 10, 64, groups, (), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bytes_are_what_the_caches_take(dtype):
    spec = make(FULL, WINDOW, STATE, dtype=dtype)
    with select.forced("reference"):
        caches = kv.caches(spec, num_blocks=5, block_size=32, num_slots=3)
    assert len(caches) == 5
    assert caches[0] is caches[1], "layers of equal rank share their memory"
    attention = {id(caches[layer]): caches[layer] for layer in (0, 1, 4)}
    arrays = [a for cache in attention.values() for a in vars(cache).values() if isinstance(a, np.ndarray)]
    assert sum(a.nbytes for a in arrays) == 5 * kv.bytes_per_block(spec, 32)
    states = [array for layer in (2, 3) for array in caches[layer]]
    assert [a.shape for a in states] == [(3, 3, 5), (3, 7)] * 2
    assert sum(a.nbytes for a in states) == 3 * spec.state_bytes_per_slot


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_layers_of_different_shapes_do_not_disturb_each_other(dtype, backend, seed):
    """Each block of the pool belongs to one group; every layer of that group has its own place in it."""
    rng = np.random.default_rng(seed)
    wide = KVGroup("full", 2, 2, 64, layers=(1, 4))
    narrow = KVGroup("full", 4, 1, 64, layers=(0, 2, 3), window=40, parts=2)
    spec = make(wide, narrow, dtype=dtype)
    with select.forced(backend):
        caches = kv.caches(spec, num_blocks=5, block_size=32)
        held = sum(caches[layer].nbytes for layer in (1, 4))
        assert held == 5 * kv.bytes_per_block(spec, 32)
    owners = {block: (wide, narrow)[block % 2] for block in range(5)}
    written = []
    for block, group in owners.items():
        slots_T = block * group.parts * 32 + np.arange(32)
        for layer in group.layers:
            k, v = rng.standard_normal((2, 32, group.num_kv_heads, group.head_dim)).astype(caches[0].act)
            caches[layer].write(slots_T, k, v)
            written.append((layer, slots_T, k, v))
    for layer, slots_T, k, v in written:
        got_k, got_v = caches[layer].read(slots_T)
        np.testing.assert_array_equal(got_k, k)
        np.testing.assert_array_equal(got_v, v)


def test_a_model_of_states_alone():
    spec = make(KVGroup("state", 1, arrays=(StateArray((4,)),)))
    assert kv.bytes_per_block(spec, 32) == 0
    assert len(kv.caches(spec, 0, 32, num_slots=2)) == 1
