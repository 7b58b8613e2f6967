"""Attention to chosen blocks on the CPU: the same bits in any company, chunk and cache.

Shape letters: those of tests/kernels/cpu/test_bits.py.
"""

import numpy as np
import pytest

from tenon import ops
from tenon.kernels import cpu
from tenon.ops.arrays import BFLOAT16, FLOAT32

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tests.kernels.cpu.test_bits import Layer, Sequence, assert_same_bits, random_qkv, threads

SPARSITIES = [
    ops.Sparsity(8, 32, init_blocks=1, local_blocks=1, top_blocks=4, dense_len=150),
    ops.Sparsity(16, 64, init_blocks=0, local_blocks=0, top_blocks=2, dense_len=64),
    ops.Sparsity(32, 32, init_blocks=2, local_blocks=3, top_blocks=6, dense_len=64),  # none is chosen
]


class SparseLayer(Layer):
    def __init__(self, rng, act, sparsity, heads=6, kv_heads=2):
        super().__init__(rng, act, heads=heads, kv_heads=kv_heads, num_blocks=1)
        self.sparsity = sparsity
        self.cache = ops.sparse_cache(160, 32, kv_heads, 64, act, sparsity)
        self.kv = self.cache.kv
        for array in (self.kv.k, self.kv.v, self.cache.sums):
            array.fill(np.nan)  # what earlier users left behind must never show
        self.free = rng.permutation(160).astype(np.int32)

    def attend(self, q_TX, batch):
        return ops.sparse_attention(q_TX, self.cache, batch, **self.shape, scale=0.2, sparsity=self.sparsity)


@pytest.fixture(params=[BFLOAT16, FLOAT32], ids=str)
def act(request):
    return request.param


@pytest.fixture(params=SPARSITIES, ids=["chosen", "few", "forced"])
def layer(request, act, rng):
    return SparseLayer(rng, act, request.param)


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_of_a_prompt_agree(layer, chunk, rng):
    qkv_TN = random_qkv(rng, layer, 420)
    whole = layer.run(layer.sequence(qkv_TN), [420])
    assert_same_bits(layer.run(layer.sequence(qkv_TN), [chunk] * (400 // chunk)), whole)
    assert np.isfinite(whole.astype(np.float32)).all()


def test_alone_and_among_others_agree(layer, rng):
    """Of which some are short, and some cross the length from which on blocks are chosen."""
    qkv_TN = random_qkv(rng, layer, 300)
    alone = layer.run(layer.sequence(qkv_TN), [300])
    subject = layer.sequence(qkv_TN)
    company = [layer.sequence(random_qkv(rng, layer, int(n))) for n in (20, 300, 400)]
    while subject.done < 300:
        work = [(s, min(int(rng.choice([1, 9, 40])), len(s.qkv_TN) - s.done)) for s in company]
        work = [(s, n) for s, n in work if n]
        work.append((subject, min(int(rng.choice([1, 5, 40])), 300 - subject.done)))
        layer.step(*(work[i] for i in rng.permutation(len(work))))
    assert_same_bits(np.concatenate(subject.out), alone)


def test_a_shared_prefix_agrees(layer, rng):
    """Its sums are found in the cache with it."""
    qkv_TN = random_qkv(rng, layer, 300)
    first = layer.sequence(qkv_TN)
    whole = layer.run(first, [300])
    blocks = layer.sequence(qkv_TN).blocks
    second = Sequence(qkv_TN, np.concatenate([first.blocks[:7], blocks[7:]]), done=7 * 32)
    assert_same_bits(layer.run(second, [20, 30]), whole[7 * 32 :])


@pytest.mark.skipif(_native.max_threads() < 2, reason="one core")
def test_contexts_split_between_threads_agree(layer, rng):
    qkv_TN = random_qkv(rng, layer, 900)
    with threads(1):
        whole = layer.run(layer.sequence(qkv_TN), [900])
    with threads(2):
        assert_same_bits(layer.run(layer.sequence(qkv_TN), [880]), whole)


def test_many_sums_agree(rng):
    """More than one chunk of them, on every instruction set."""
    layer = SparseLayer(rng, BFLOAT16, SPARSITIES[0], heads=7, kv_heads=1)
    qkv_TN = random_qkv(rng, layer, 2200)
    first = layer.sequence(qkv_TN)
    whole = layer.run(first, [2200])
    assert np.isfinite(whole.astype(np.float32)).all()
    for isa in cpu.variants():
        with cpu.variant(isa):
            assert_same_bits(layer.run(Sequence(qkv_TN, first.blocks, done=2190), []), whole[2190:])


def test_a_token_that_sees_all_has_the_bits_of_dense_attention(act, rng):
    layer = SparseLayer(rng, act, SPARSITIES[0])
    qkv_TN = random_qkv(rng, layer, 300)
    got = layer.run(layer.sequence(qkv_TN), [300])
    dense = Layer(rng, act)
    dense.norm_E, dense.cos_sin_PE = layer.norm_E, layer.cos_sin_PE
    expected = dense.run(dense.sequence(qkv_TN), [300])
    assert_same_bits(got[:149], expected[:149])
    assert (got[150:] != expected[150:]).any()
