"""The same bits, whatever the instruction set, the number of threads, the batch and the chunking.

Shape letters: T tokens, H query heads, G key/value heads, E head width, X = H * E, S rows, V vocabulary.
"""

import contextlib
import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest

from tenon import ops
from tenon.core.batch import Batch
from tenon.kernels import cpu
from tenon.ops import harness, select
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.cases import Span, ragged_batch, random_weight
from tenon.ops.plan import Plan

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native

BLOCK = 32
JUDGED = sorted(name for name, op in select.OPS.items() if op.cases and harness.targets(name))


@contextlib.contextmanager
def threads(count):
    before = _native.num_threads()
    _native.set_num_threads(count)
    try:
        yield
    finally:
        _native.set_num_threads(before)


def raw(array):
    """The array's bits."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def assert_same_bits(a, b):
    np.testing.assert_array_equal(raw(a), raw(b))


@pytest.mark.parametrize("name", JUDGED)
def test_instruction_sets_agree(name, seed):
    targets = harness.targets(name)
    for case in harness.cases(name, seed):
        results = [harness.observe(name, case, target) for target in targets]
        for target, result in zip(targets[1:], results[1:], strict=True):
            for key, array in result.items():
                assert np.array_equal(raw(array), raw(results[0][key])), f"{case.label}: {key} on {target}"


@pytest.mark.skipif(_native.max_threads() < 2, reason="one core")
@pytest.mark.parametrize("name", JUDGED)
def test_numbers_of_threads_agree(name, seed):
    target = harness.Target("cpu", _native.isa())
    for case in [*harness.cases(name, seed), *harness.cases(name, seed, bench=True)]:
        results = []
        for count in (1, 2):
            with threads(count):
                results.append(harness.observe(name, case, target))
        for key, array in results[0].items():
            assert np.array_equal(raw(array), raw(results[1][key])), f"{case.label}: {key}"


@dataclass
class Sequence:
    """One request of the little engine below: all its inputs, and how far it has come."""

    qkv_TN: np.ndarray
    blocks: np.ndarray
    done: int = 0
    out: list = field(default_factory=list)


class Layer:
    """One attention layer and its cache, stepped with batches of (sequence, number of tokens)."""

    def __init__(self, rng, act, heads=6, kv_heads=2, head_dim=64, num_blocks=160, bounds=None):
        self.bounds = dict(bounds or {})
        if self.bounds.pop("sinks", False):
            self.bounds["sinks_H"] = rng.standard_normal(heads).astype(np.float32)
        self.shape = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": head_dim}
        self.rng, self.width = rng, (heads + 2 * kv_heads) * head_dim
        angle = rng.uniform(0, 6.28, (2304, head_dim // 2))
        self.cos_sin_PE = np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        self.norm_E = rng.uniform(0.5, 2, head_dim).astype(np.float32)
        self.kv = ops.kv_cache(num_blocks, BLOCK, kv_heads, head_dim, act)
        # What earlier users left behind must never show.
        self.kv.k.fill(np.nan)
        self.kv.v.fill(np.nan)
        self.free = rng.permutation(num_blocks).astype(np.int32)

    def sequence(self, qkv_TN):
        count = -(-len(qkv_TN) // BLOCK)
        blocks, self.free = self.free[:count], self.free[count:]
        return Sequence(qkv_TN, blocks)

    def step(self, *work):
        batch = self._batch(work)
        rows = [sequence.qkv_TN[sequence.done : sequence.done + count] for sequence, count in work]
        q_TX = ops.rope_kv_write(
            np.concatenate(rows),
            self.cos_sin_PE,
            self.kv,
            batch,
            **self.shape,
            rot_dim=self.shape["head_dim"],
            q_norm=self.norm_E,
            k_norm=self.norm_E,
            eps=1e-6,
        )
        o_TX = self.attend(q_TX, batch)
        for (sequence, count), start in zip(work, batch.query_start_R1, strict=False):
            sequence.out.append(o_TX[start : start + count])
            sequence.done += count

    def attend(self, q_TX, batch):
        return ops.attention(q_TX, self.kv, batch, **self.shape, scale=0.2, **self.bounds)

    def run(self, sequence, chunks):
        """Step the sequence alone, by the chunks given and then token by token. Returns its outputs."""
        for count in chunks:
            self.step((sequence, min(count, len(sequence.qkv_TN) - sequence.done)))
        while sequence.done < len(sequence.qkv_TN):
            self.step((sequence, 1))
        return np.concatenate(sequence.out)

    def _batch(self, work):
        positions = [np.arange(s.done, s.done + n) for s, n in work]
        slots = [s.blocks[p // BLOCK] * BLOCK + p % BLOCK for (s, _), p in zip(work, positions, strict=True)]
        table_RB = np.full((len(work), max(len(s.blocks) for s, _ in work)), 2**31 - 1, np.int32)
        for row, (s, _) in enumerate(work):
            gone = self._first_seen(s.done) // BLOCK  # blocks that nobody sees any more may be others' by now
            table_RB[row, gone : len(s.blocks)] = s.blocks[gone:]
        starts = np.cumsum([0, *(n for _, n in work)]).astype(np.int32)
        return Batch(
            token_ids_T=np.zeros(starts[-1], np.int32),
            positions_T=np.concatenate(positions).astype(np.int32),
            slots_T=np.concatenate(slots).astype(np.int32),
            query_start_R1=starts,
            context_len_R=np.array([s.done + n for s, n in work], np.int32),
            block_table_RB=table_RB,
            logit_rows_S=starts[1:] - 1,
        )

    def _first_seen(self, position):
        window, chunk = self.bounds.get("window", 0), self.bounds.get("local_chunk", 0)
        first = max(0, position - window + 1) if window else 0
        return max(first, position // chunk * chunk) if chunk else first


BOUNDS = [
    {},
    {"sinks": True},
    {"window": 1},
    {"window": 33},
    {"window": 256, "sinks": True},
    {"window": 300},
    {"local_chunk": 96},
    {"local_chunk": 290, "sinks": True},
]


@pytest.fixture(params=BOUNDS, ids=str)
def bounds(request):
    return request.param


@pytest.fixture(params=[BFLOAT16, FLOAT32], ids=str)
def act(request):
    return request.param


def random_qkv(rng, layer, tokens):
    return rng.standard_normal((tokens, layer.width)).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_chunks_of_a_prompt_agree(act, bounds, chunk, seed):
    rng = np.random.default_rng(seed)
    layer = Layer(rng, act, bounds=bounds)
    qkv_TN = random_qkv(rng, layer, 600)
    whole = layer.run(layer.sequence(qkv_TN), [600])
    pieces = layer.run(layer.sequence(qkv_TN), [chunk] * (570 // chunk))
    assert_same_bits(pieces, whole)
    assert np.isfinite(whole.astype(np.float32)).all()


@pytest.mark.parametrize("others", [1, 6, 32])
def test_alone_and_among_others_agree(act, bounds, others, seed):
    rng = np.random.default_rng(seed)
    layer = Layer(rng, act, bounds=bounds)
    qkv_TN = random_qkv(rng, layer, 300)
    alone = layer.run(layer.sequence(qkv_TN), [300])
    subject = layer.sequence(qkv_TN)
    company = [layer.sequence(random_qkv(rng, layer, int(rng.integers(20, 60)))) for _ in range(others)]
    while subject.done < 300:
        count = min(int(rng.choice([1, 5, 40])), 300 - subject.done)
        work = [(s, min(int(rng.choice([1, 9])), len(s.qkv_TN) - s.done)) for s in company]
        work = [(s, n) for s, n in work if n] + [(subject, count)]
        layer.step(*(work[i] for i in rng.permutation(len(work))))
    assert_same_bits(np.concatenate(subject.out), alone)


def test_a_shared_prefix_agrees(act, seed):
    """Two sequences over the same first blocks: the second computes only what follows."""
    rng = np.random.default_rng(seed)
    layer = Layer(rng, act)
    qkv_TN = random_qkv(rng, layer, 200)
    first = layer.sequence(qkv_TN)
    whole = layer.run(first, [200])
    second = layer.sequence(qkv_TN)
    second.blocks = np.concatenate([first.blocks[:4], second.blocks[4:]])
    second.done = 4 * BLOCK
    assert_same_bits(layer.run(second, [200]), whole[4 * BLOCK :])


def test_wide_groups_and_long_contexts_agree(bounds, seed):
    """More query heads per key/value head than a tile has rows; contexts that are split between threads."""
    rng = np.random.default_rng(seed)
    layer = Layer(rng, BFLOAT16, heads=64, kv_heads=1, head_dim=16, bounds=bounds)
    qkv_TN = random_qkv(rng, layer, 1300)
    whole = layer.run(layer.sequence(qkv_TN), [1300])
    assert_same_bits(layer.run(layer.sequence(qkv_TN), [1290]), whole)


def test_rows_are_independent(seed):
    """A row's result is the same alone and in a matrix."""
    rng = np.random.default_rng(seed)
    x_TD = rng.standard_normal((40, 576)).astype(np.float32)
    weight_D = rng.standard_normal(576).astype(np.float32)
    for one in (
        lambda x: ops.rms_norm(x, weight_D, 1e-5, BFLOAT16),
        lambda x: ops.silu_mul(x, BFLOAT16),
        lambda x: ops.logprobs(x, np.full(len(x), 3, np.int32), 4)[3],
    ):
        assert_same_bits(one(x_TD[7:8]), one(x_TD)[7:8])


def test_replays_agree_with_calls(seed):
    """All ops of a layer recorded for one size of step, replayed for others."""
    rng = np.random.default_rng(seed)
    heads, kv_heads, head_dim, width = 4, 2, 32, 96
    head = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": head_dim}
    kv = ops.kv_cache(24, BLOCK, kv_heads, head_dim, BFLOAT16)
    table = ops.pack_linear([random_weight(rng, "q4_1", 50, width)], BFLOAT16)
    qkv = ops.pack_linear([random_weight(rng, "q8_0", (heads + 2 * kv_heads) * head_dim, width)], BFLOAT16)
    out = ops.pack_linear([random_weight(rng, "q4_0", 2 * width, heads * head_dim)], BFLOAT16)
    weight_D = rng.uniform(0.5, 2, width).astype(np.float32)
    cos_sin_PE = rng.uniform(-1, 1, (256, head_dim)).astype(np.float32)

    def forward(batch):
        x_TD = ops.embedding(batch.token_ids_T, table)
        y_TN = ops.linear(ops.rms_norm(x_TD, weight_D, 1e-5, BFLOAT16), qkv)
        q_TX = ops.rope_kv_write(
            y_TN, cos_sin_PE, kv, batch, **head, rot_dim=head_dim, q_norm=None, k_norm=None, eps=1e-5
        )
        o_TX = ops.attention(q_TX, kv, batch, **head, scale=head_dim**-0.5)
        y_TF = ops.silu_mul(ops.linear(o_TX, out), FLOAT32)
        rows_SF = ops.gather_rows(y_TF, batch.logit_rows_S)
        return rows_SF, *ops.logprobs(rows_SF, batch.logit_rows_S, 3)

    # Buffers that stay, with room for the largest step; a step fills their beginnings.
    buffers = {
        name: np.zeros(64, np.int32) for name in ("token_ids_T", "positions_T", "slots_T", "logit_rows_S")
    }
    buffers |= {"query_start_R1": np.zeros(9, np.int32), "context_len_R": np.zeros(8, np.int32)}
    buffers["block_table_RB"] = np.zeros((8, 6), np.int32)

    def fill(spans):
        batch, _ = ragged_batch(rng, spans, BLOCK)
        values = {name: getattr(batch, name) for name in buffers}
        values["token_ids_T"] = values["token_ids_T"] % 50
        views = {}
        for name, value in values.items():
            buffer = buffers[name]
            buffer[tuple(slice(n) for n in value.shape)] = value
            views[name] = buffer[: len(value)]
        return Batch(**views)

    plan = Plan(64, 8, 8)
    with plan.capture(tokens=12, requests=3, sampled=2):
        example = fill([Span(3, 3), Span(5, 4), Span(5, 5)])
        results = forward(dataclasses.replace(example, logit_rows_S=example.logit_rows_S[:2]))
    assert plan.reason is None
    for spans in ([Span(1, 1)], [Span(40, 40), Span(70, 3), Span(33, 1)], [Span(20, 1)] * 7):
        batch = fill(spans)
        plan.run(batch.num_tokens, batch.num_requests, len(spans))
        replayed = [plan.rows(result, len(spans)).copy() for result in results]
        for a, b in zip(replayed, forward(batch), strict=True):
            assert_same_bits(a, b)


def test_no_rows_are_fine():
    none_TD, none = np.zeros((0, 32), np.float32), np.zeros(0, np.int32)
    assert ops.rms_norm(none_TD, np.ones(32, np.float32), 1e-5, BFLOAT16).shape == (0, 32)
    assert ops.silu_mul(none_TD, BFLOAT16).shape == (0, 16)
    assert ops.gather_rows(np.ones((3, 32), np.float32), none).shape == (0, 32)
    assert ops.logprobs(none_TD, none, 2)[2].shape == (0, 2)
    layer = Layer(np.random.default_rng(), BFLOAT16)
    layer.step((layer.sequence(np.zeros((0, layer.width), np.float32)), 0))
