"""Recurrent layers give the same bits however tokens are cut into steps, and whatever else is in them.

Shape letters: T tokens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tenon import ops
from tenon.errors import UnsupportedOp
from tenon.kernels import cpu
from tenon.ops import select
from tenon.ops.cases import Span, ragged_batch
from tenon.ops.plan import Plan

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

LENGTHS = (40, 1, 17, 33)
CHANNELS, TAPS = 72, 4


def conv(rng):
    weight = rng.standard_normal((TAPS, CHANNELS)).astype(np.float32)
    return CHANNELS, (TAPS - 1, CHANNELS), lambda x, s, batch: ops.short_conv(x, weight, None, s, batch)


def delta(rng):
    """2 key heads and 4 value heads, of 16 and 48."""
    decay, bias = -rng.uniform(0.1, 2, 4).astype(np.float32), rng.standard_normal(4).astype(np.float32)

    def run(x, state, batch):
        qkv, ba = np.ascontiguousarray(x[:, 8:]), np.ascontiguousarray(x[:, :8])
        return ops.gated_delta_rule(qkv, ba, decay, bias, state, batch, num_key_heads=2)

    return 8 + 4 * 16 + 4 * 48, (4, 16, 48), run


def scan(rng):
    """4 heads of 80, 2 groups, states of 24."""
    decay, bias, skip = -rng.uniform(0.1, 2, 4), rng.standard_normal(4), rng.standard_normal(4)
    vectors = [np.float32(v) for v in (decay, bias, skip)]

    def run(x, state, batch):
        xbc = np.ascontiguousarray(x[:, 4:])
        return ops.ssd_scan(xbc, x[:, :4], *vectors, state, batch, num_groups=2)

    return 4 + 4 * 80 + 2 * 2 * 24, (4, 24, 80), run


def step(rng, run, inputs, done, state, slots, work):
    """`work`: (sequence, tokens). Writes another slot than it reads, at times."""
    spans = [Span(done[s] + n, n) for s, n in work]
    x = np.concatenate([inputs[s][done[s] : done[s] + n] for s, n in work])
    out = {s: int(rng.choice([2 * s, 2 * s + 1])) for s, _ in work}
    batch = replace(
        ragged_batch(rng, spans, 32)[0],
        state_in_R=np.array([slots[s] for s, _ in work], np.int32),
        state_out_R=np.array([out[s] for s, _ in work], np.int32),
    )
    y = run(x, state, batch)
    slots.update(out)
    for s, n in work:
        done[s] += n
    return np.split(y, np.cumsum([n for _, n in work])[:-1])


@pytest.mark.parametrize("isa", cpu.variants())
@pytest.mark.parametrize("make", [conv, delta, scan])
def test_any_cut_into_steps(make, isa, seed):
    rng = np.random.default_rng(seed)
    width, shape, run = make(rng)
    inputs = [rng.standard_normal((n, width)).astype(np.float32) for n in LENGTHS]
    with select.forced("cpu"), cpu.variant(isa):
        whole, states = [], []
        for s in range(len(LENGTHS)):  # alone, in one piece
            state = np.full((2 * len(LENGTHS), *shape), np.nan, np.float32)
            slots = {s: -1}
            whole += step(rng, run, inputs, {s: 0}, state, slots, [(s, LENGTHS[s])])
            states.append(state[slots[s]])
        state = np.full((2 * len(LENGTHS), *shape), np.nan, np.float32)
        done, slots = dict.fromkeys(range(len(LENGTHS)), 0), dict.fromkeys(range(len(LENGTHS)), -1)
        parts = [[] for _ in LENGTHS]
        while left := [s for s in done if done[s] < LENGTHS[s]]:
            chosen = rng.permutation(left)[: rng.integers(1, len(left) + 1)].tolist()
            work = [(s, min(int(rng.choice([1, 2, 16, 19])), LENGTHS[s] - done[s])) for s in chosen]
            for (s, _), y in zip(work, step(rng, run, inputs, done, state, slots, work), strict=True):
                parts[s].append(y)
        for s, y in enumerate(whole):
            assert np.array_equal(np.concatenate(parts[s]), y)
            assert np.array_equal(state[slots[s]], states[s])


def test_widths_that_cannot_be_done_are_refused(seed):
    rng = np.random.default_rng(seed)
    batch = replace(ragged_batch(rng, [Span(1, 1)], 32)[0], state_in_R=np.zeros(1, np.int32))
    batch = replace(batch, state_out_R=batch.state_in_R)
    two, state = np.ones(2, np.float32), np.zeros((1, 2, 8, 24), np.float32)
    with select.forced("cpu"), pytest.raises(UnsupportedOp, match="multiple of 16 elements, not 24"):
        ops.gated_delta_rule(
            np.zeros((1, 64), np.float32),
            np.zeros((1, 4), np.float32),
            two,
            two,
            state,
            batch,
            num_key_heads=1,
        )


def test_a_plan_follows_the_slots(seed):
    """What is recorded holds no slot: they are read where the batch has them."""
    rng = np.random.default_rng(seed)
    width, shape, _ = delta(rng)
    inputs = rng.standard_normal((3, width)).astype(np.float32)
    state = np.zeros((5, *shape), np.float32)
    example = replace(
        ragged_batch(rng, [Span(2, 2), Span(1, 1)], 32)[0],
        state_in_R=np.array([-1, -1], np.int32),
        state_out_R=np.array([0, 1], np.int32),
    )
    qkv, ba = np.ascontiguousarray(inputs[:, 8:]), np.ascontiguousarray(inputs[:, :8])
    with select.forced("cpu"):
        plan = Plan(3, 2, 1)
        with plan.capture(tokens=3, requests=2, sampled=1):
            o = ops.gated_delta_rule(
                qkv, ba, -np.ones(4, np.float32), np.ones(4, np.float32), state, example, num_key_heads=2
            )
        assert plan.reason is None
        first = o.copy()
        example.state_in_R[:], example.state_out_R[:] = [0, -1], [3, 4]
        plan.run(3, 2, 0)
    assert np.array_equal(o[2], first[2])  # from zeros again
    assert not np.array_equal(o[0], first[0])  # goes on
    assert np.array_equal(state[4], state[1])
    assert not np.array_equal(state[3], state[0])
