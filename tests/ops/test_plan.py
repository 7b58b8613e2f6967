"""Plans replay what was recorded, for other numbers of rows.

Shape letters: T tokens, K inputs, N outputs, S sampled rows.
"""

import numpy as np
import pytest

from tenon import ops
from tenon.core.tensors import RawTensor
from tenon.ops import select
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.plan import Plan, count_ops

MAX = (50, 20, 20)
K, N = 96, 40

needs_native = pytest.mark.skipif(
    select.choose(select.OPS["linear"]).backend != "cpu", reason="no native kernels"
)


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


def weights(rng, rows, columns, count=1):
    data = rng.normal(size=(count, rows * columns)).astype(np.float32).view(np.uint8)
    return ops.pack_linear([RawTensor("w", "f32", (rows, columns), part) for part in data], BFLOAT16)


class Network:
    """Two linear layers on all tokens, then one on the chosen rows."""

    def __init__(self, rng):
        self.up, self.down = weights(rng, 2 * N, K), weights(rng, K, N)
        self.bias = rng.normal(size=2 * N).astype(np.float32)

    def forward(self, x_TK, rows_S):
        y_TN = ops.silu_mul(ops.linear(x_TK, self.up, self.bias), BFLOAT16)
        h_TK = ops.linear(y_TN, self.down)
        h_TK = ops.linear(y_TN, self.down, accumulate_into_TN=h_TK)
        return ops.gather_rows(h_TK, rows_S)


@needs_native
def test_replay_equals_eager_for_every_size(rng):
    network = Network(rng)
    x_TK = rng.normal(size=(MAX[0], K)).astype(BFLOAT16)
    rows_S = np.zeros(MAX[2], np.int32)
    plan = Plan(*MAX)
    with plan.capture(tokens=5, requests=4, sampled=3):
        out = network.forward(x_TK[:5], rows_S[:3])
    assert plan.valid
    assert plan.ops == ["linear", "silu_mul", "linear", "linear", "gather_rows"]
    for tokens, sampled in ((1, 1), (50, 20), (17, 3), (3, 2), (5, 4)):
        x_TK[:] = rng.normal(size=x_TK.shape).astype(BFLOAT16)
        rows_S[:sampled] = rng.integers(0, tokens, sampled)
        plan.run(tokens, sampled, sampled)
        got = plan.rows(out, sampled)
        np.testing.assert_array_equal(got, network.forward(x_TK[:tokens], rows_S[:sampled]))


@needs_native
def test_what_is_run_while_recording_can_be_less(rng):
    network = Network(rng)
    x_TK, rows_S = rng.normal(size=(MAX[0], K)).astype(BFLOAT16), np.arange(MAX[2], dtype=np.int32)
    plan = Plan(*MAX)
    with plan.capture(tokens=5, requests=4, sampled=3, run=(1, 1, 1)):
        out = network.forward(x_TK[:5], rows_S[:3])
    np.testing.assert_array_equal(out[:1], network.forward(x_TK[:1], rows_S[:1]))
    assert not (out[1:] == network.forward(x_TK[:5], rows_S[:3])[1:]).all()
    plan.run(5, 4, 3)
    np.testing.assert_array_equal(plan.rows(out, 3), network.forward(x_TK[:5], rows_S[:3]))


@needs_native
def test_profile_counts_calls_time_and_work(rng):
    network = Network(rng)
    x_TK, rows_S = rng.normal(size=(MAX[0], K)).astype(BFLOAT16), np.zeros(MAX[2], np.int32)
    plan = Plan(*MAX)
    with plan.capture(tokens=5, requests=4, sampled=3):
        network.forward(x_TK[:5], rows_S[:3])
    plan.run(7, 1, 2)
    assert plan.profile() == []
    plan.set_profiling(True)
    for _ in range(3):
        plan.run(7, 1, 2)
    plan.set_profiling(False)
    plan.run(7, 1, 2)
    linear = plan.profile()[0]
    assert (linear["op"], linear["calls"]) == ("linear", 9)
    assert linear["seconds"] > 0
    assert linear["flops"] == 3 * 2 * 7 * (2 * N * K + 2 * N * K)
    assert linear["bytes"] > 3 * network.up.nbytes


@needs_native
def test_ops_are_counted_while_they_run(rng):
    network = Network(rng)
    x_TK, rows_S = rng.normal(size=(MAX[0], K)).astype(BFLOAT16), np.zeros(MAX[2], np.int32)
    plan = Plan(*MAX)
    with plan.capture(tokens=5, requests=4, sampled=3):
        network.forward(x_TK[:5], rows_S[:3])
    counter = np.zeros(1, np.uint64)
    count_ops(counter.ctypes.data)
    try:
        plan.run(7, 1, 2)
        assert counter == 5
        network.forward(x_TK[:5], rows_S[:3])
        assert counter == 10
    finally:
        count_ops(0)
    plan.run(7, 1, 2)
    assert counter == 10


def test_captures_that_cannot_be_told_apart_or_do_not_fit_are_refused():
    plan = Plan(*MAX)
    assert not plan.valid
    assert plan.ops == []
    with pytest.raises(ValueError, match="must differ"), plan.capture(tokens=2, requests=2, sampled=1):
        pass
    with pytest.raises(ValueError, match="does not fit"), plan.capture(tokens=60, requests=2, sampled=1):
        pass
    with pytest.raises(AssertionError, match="not captured"):
        plan.run(1, 1, 1)


@needs_native
def test_a_failed_capture_leaves_no_recorder_behind(rng):
    plan = Plan(*MAX)
    with pytest.raises(ZeroDivisionError), plan.capture(tokens=5, requests=4, sampled=3):
        _ = 1 / 0
    assert plan.reason == "its capture failed"
    network = Network(rng)
    with plan.capture(tokens=5, requests=4, sampled=3):
        network.forward(rng.normal(size=(5, K)).astype(BFLOAT16), np.zeros(3, np.int32))
    assert plan.valid
    assert ops.linear(np.ones((1, K), BFLOAT16), network.up).dtype == FLOAT32
    assert len(plan.ops) == 5


@needs_native
def test_a_reference_in_the_path_makes_a_plan_invalid(rng, monkeypatch):
    network = Network(rng)
    silu = select.OPS["silu_mul"]
    monkeypatch.setattr(silu, "run", select.implementation(silu, select.REFERENCE))
    plan = Plan(*MAX)
    with plan.capture(tokens=5, requests=4, sampled=3):
        network.forward(rng.normal(size=(5, K)).astype(BFLOAT16), np.zeros(3, np.int32))
    assert plan.reason == "silu_mul ran its reference, which cannot be recorded"
    with pytest.raises(AssertionError, match="silu_mul"):
        plan.run(5, 4, 3)


def test_without_a_recording_backend_plans_say_so():
    with select.forced("reference"):
        plan = Plan(*MAX)
        with plan.capture(tokens=5, requests=4, sampled=3):
            pass
    assert plan.reason == "no backend records plans"


@needs_native
def test_replay_of_experts_equals_eager_for_every_size(rng):
    """Who goes where is decided at every replay, and so is how many go."""
    num_experts, inner = 6, 32
    router = weights(rng, num_experts, K)
    gate_up = weights(rng, 2 * inner, K, count=num_experts)
    down = weights(rng, K, inner, count=num_experts)
    routing = ops.Routing(num_experts, 3, renormalize=True)

    def forward(x_TK):
        experts, chosen_weights = ops.route(ops.linear(x_TK, router), routing)
        return ops.moe_experts(x_TK, experts, chosen_weights, gate_up, down, num_experts)

    x_TK = rng.normal(size=(MAX[0], K)).astype(BFLOAT16)
    plan = Plan(*MAX)
    with plan.capture(tokens=5, requests=4, sampled=3):
        out = forward(x_TK[:5])
    assert plan.valid
    assert plan.ops == ["linear", "route", "moe_experts"]
    for tokens in (1, 50, 17, 2, 5):
        x_TK[:] = rng.normal(size=x_TK.shape).astype(BFLOAT16)
        plan.run(tokens, 2, 2)
        np.testing.assert_array_equal(plan.rows(out, tokens), forward(x_TK[:tokens]))
