"""Latent attention on the CPU: the same bits in any company, chunk and cache, and where it says no.

Shape letters: those of tenon/ops/latent.py.
"""

import numpy as np
import pytest

from tenon import ops
from tenon.errors import UnsupportedOp
from tenon.kernels import cpu
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.cases import random_weight

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tests.kernels.cpu.test_bits import Layer, Sequence, assert_same_bits, threads

BLOCK, HEADS, NOPE, ROPE, RANK = 32, 20, 24, 16, 64
INDEX_HEADS, INDEX_WIDTH = 9, 32


class LatentLayer(Layer):
    """As `Layer`, whose sequences' inputs are [queries | latent | what the indexer reads]. A token sees
    `top_k` others; 0: all."""

    def __init__(self, rng, act, top_k=0, num_blocks=120):
        super().__init__(rng, act, num_blocks=1)
        self.top_k = top_k
        queries, index = HEADS * (NOPE + ROPE), INDEX_HEADS * INDEX_WIDTH
        self.parts = np.cumsum([queries, RANK + ROPE, index, INDEX_WIDTH, INDEX_HEADS])
        self.width = int(self.parts[-1])
        angle = rng.uniform(0, 6.28, (2048, ROPE // 2))
        self.cos_sin_PM = np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        self.norm_L = rng.uniform(0.5, 2, RANK).astype(np.float32)
        dtype = "bf16" if act == BFLOAT16 else "f32"
        self.keys = ops.pack_linear([random_weight(rng, dtype, RANK, NOPE) for _ in range(HEADS)], act)
        self.kv = ops.latent_cache(num_blocks, BLOCK, RANK + ROPE + INDEX_WIDTH, act)
        self.kv.rows.fill(np.nan)  # what earlier users left behind must never show
        self.free = rng.permutation(num_blocks).astype(np.int32)

    def step(self, *work):
        batch = self._batch(work)
        rows_TN = np.concatenate([s.qkv_TN[s.done : s.done + count] for s, count in work])
        inputs = (np.ascontiguousarray(x) for x in np.split(rows_TN, self.parts[:-1], axis=1))
        q_TN, latent_TE, index_q_TX, index_k_TW, weights_TH = inputs
        n_TZ, m_TY = ops.latent_write(
            q_TN, latent_TE, self.norm_L, self.cos_sin_PM, self.kv, batch, num_heads=HEADS, eps=1e-6
        )
        q_TX = ops.head_linear(n_TZ, self.keys, HEADS)
        selected_TK = None
        if self.top_k:
            at = {"offset": RANK + ROPE}
            index_q_TX = ops.index_write(
                index_q_TX, index_k_TW, self.cos_sin_PM, self.kv, batch, num_heads=INDEX_HEADS, **at
            )
            selected_TK = ops.index_select(index_q_TX, weights_TH, self.kv, batch, top_k=self.top_k, **at)
        o_TX = ops.latent_attention(
            q_TX, m_TY, self.kv, batch, num_heads=HEADS, scale=0.2, selected_TK=selected_TK
        )
        for (sequence, count), start in zip(work, batch.query_start_R1, strict=False):
            sequence.out.append(o_TX[start : start + count])
            sequence.done += count


@pytest.fixture(params=[BFLOAT16, FLOAT32], ids=str)
def act(request):
    return request.param


@pytest.fixture(params=[0, 1, 70, 257])
def top_k(request):
    return request.param


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def inputs(rng, layer, tokens):
    return rng.standard_normal((tokens, layer.width)).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_of_a_prompt_agree(act, top_k, chunk, rng):
    layer = LatentLayer(rng, act, top_k)
    x_TN = inputs(rng, layer, 300)
    whole = layer.run(layer.sequence(x_TN), [300])
    assert_same_bits(layer.run(layer.sequence(x_TN), [chunk] * (280 // chunk)), whole)
    assert np.isfinite(whole.astype(np.float32)).all()


def test_alone_and_among_others_agree(act, top_k, rng):
    layer = LatentLayer(rng, act, top_k)
    x_TN = inputs(rng, layer, 290)
    alone = layer.run(layer.sequence(x_TN), [290])
    subject = layer.sequence(x_TN)
    company = [layer.sequence(inputs(rng, layer, int(rng.integers(20, 60)))) for _ in range(5)]
    while subject.done < 290:
        work = [(s, min(int(rng.choice([1, 9])), len(s.qkv_TN) - s.done)) for s in company]
        work = [(s, n) for s, n in work if n]
        work.append((subject, min(int(rng.choice([1, 5, 40])), 290 - subject.done)))
        layer.step(*(work[i] for i in rng.permutation(len(work))))
    assert_same_bits(np.concatenate(subject.out), alone)


def test_a_shared_prefix_agrees(act, top_k, rng):
    layer = LatentLayer(rng, act, top_k)
    x_TN = inputs(rng, layer, 200)
    first = layer.sequence(x_TN)
    whole = layer.run(first, [200])
    second = Sequence(x_TN, first.blocks.copy(), done=4 * BLOCK)
    assert_same_bits(layer.run(second, [200]), whole[4 * BLOCK :])


@pytest.mark.skipif(_native.max_threads() < 2, reason="one core")
@pytest.mark.parametrize("top_k", [0, 600])
def test_contexts_split_between_threads_agree(top_k, rng):
    layer = LatentLayer(rng, BFLOAT16, top_k)
    x_TN = inputs(rng, layer, 1300)
    with threads(1):
        whole = layer.run(layer.sequence(x_TN), [1300])
    with threads(2):
        assert_same_bits(layer.run(layer.sequence(x_TN), [1290]), whole)


def test_a_token_that_sees_all_has_the_bits_of_dense_attention(act, rng):
    sparse = LatentLayer(rng, act, 300)
    x_TN = inputs(rng, sparse, 300)
    got = sparse.run(sparse.sequence(x_TN), [300])
    sparse.top_k = 0
    assert_same_bits(got, sparse.run(sparse.sequence(x_TN), [300]))


def test_an_indexer_that_it_cannot_run_is_said(rng):
    layer = LatentLayer(rng, FLOAT32)
    batch = layer._batch([(layer.sequence(inputs(rng, layer, 2)), 2)])
    q_TX, weights_TH = np.zeros((2, 2 * 24), np.float32), np.zeros((2, 2), np.float32)
    with pytest.raises(
        UnsupportedOp, match="keys of a multiple of 32 elements within rows of 112, not 24 at 80"
    ):
        ops.index_select(q_TX, weights_TH, layer.kv, batch, offset=80, top_k=3)


@pytest.mark.parametrize("tokens", [1, 9, 70])
def test_a_head_has_the_bits_of_a_linear_layer(tokens, act, rng):
    dtype = "q8_0" if act == BFLOAT16 else "f32"
    parts = [random_weight(rng, dtype, 40, 64) for _ in range(3)]
    x_TK = rng.standard_normal((tokens, 3 * 64)).astype(act)
    got = ops.head_linear(x_TK, ops.pack_linear(parts, act), 3)
    for head, part in enumerate(parts):
        x_TI = np.ascontiguousarray(x_TK[:, head * 64 : (head + 1) * 64])
        alone = ops.linear(x_TI, ops.pack_linear([part], act)).astype(act)
        assert_same_bits(np.ascontiguousarray(got[:, head * 40 : (head + 1) * 40]), alone)


def test_what_it_cannot_do_is_said(rng):
    with pytest.raises(UnsupportedOp, match="rows of at most 1024, not 1025"):
        ops.latent_cache(1, 32, 1025, BFLOAT16)
    with pytest.raises(UnsupportedOp, match="multiple of 32 tokens, not 16"):
        ops.latent_cache(1, 16, 64, BFLOAT16)
    w = ops.pack_linear([random_weight(rng, "f32", 8, 16)], FLOAT32)
    with pytest.raises(ValueError, match="are not those of 3 heads"):
        ops.head_linear(np.zeros((2, 48), np.float32), w, 3)
    with pytest.raises(ValueError, match="activations of the other type"):
        ops.head_linear(np.zeros((2, 32), BFLOAT16), w, 2)
    kv = ops.latent_cache(2, 32, 56, FLOAT32)
    layer = LatentLayer(rng, FLOAT32)
    batch = layer._batch([(layer.sequence(inputs(rng, layer, 2)), 2)])
    q = np.zeros((2, 2 * 40), np.float32), np.zeros((2, 2 * 16), np.float32)
    with pytest.raises(UnsupportedOp, match="latents of a multiple of 32 elements"):
        ops.latent_attention(*q, kv, batch, num_heads=2, scale=1.0)
