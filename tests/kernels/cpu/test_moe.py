"""Experts on the CPU: the bits of plain linear layers, on every instruction set, in every batch.

Shape letters: T tokens, E experts, K experts of one token, D model width, F width of an expert.
"""

import numpy as np
import pytest

from tenon import ops
from tenon.kernels import cpu
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.cases import random_weight

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

E, D, F = 5, 96, 64
MODES = {
    "float32": ("f32", FLOAT32, 0),
    "bfloat16": ("bf16", BFLOAT16, 0),
    "groups": ("q4_1", BFLOAT16, 0),
    "int8": ("q4_1", BFLOAT16, 8),
    "int16": ("q8_0", BFLOAT16, 16),
    "mxfp4": ("mxfp4", BFLOAT16, 0),
    "mxfp4-int16": ("mxfp4", BFLOAT16, 16),
}
CLAMP = ops.Clamp(1.702, 7.0)


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


class Network:
    def __init__(self, rng, mode):
        dtype, self.act, bits = MODES[mode]
        self.gate_up_E = [random_weight(rng, dtype, 2 * F, D) for _ in range(E)]
        self.down_E = [random_weight(rng, dtype, D, F) for _ in range(E)]
        self.pack = lambda parts: ops.pack_linear(parts, self.act, act_bits=bits)
        self.gate_up, self.down = self.pack(self.gate_up_E), self.pack(self.down_E)

    def __call__(self, x_TD, experts_TK, weights_TK, **more):
        return ops.moe_experts(x_TD, experts_TK, weights_TK, self.gate_up, self.down, E, **more)

    def expert(self, e, x_TD, gate_up_bias=None, down_bias=None, clamp=None):
        """What expert e makes of x, by the ops that are not for experts."""
        h = ops.linear(x_TD, self.pack([self.gate_up_E[e]]), gate_up_bias)
        if clamp is None:
            h = ops.silu_mul(h, self.act)
        else:
            h = ops.clamped_mul(h, self.act, alpha=clamp.alpha, limit=clamp.limit)
        return ops.linear(h, self.pack([self.down_E[e]]), down_bias)


def tokens_of(rng, network, tokens, top_k=2):
    x_TD = rng.standard_normal((tokens, D)).astype(network.act)
    experts_TK = np.argsort(rng.random((tokens, E)), axis=1)[:, :top_k].astype(np.int32)
    return x_TD, experts_TK, rng.random((tokens, top_k)).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("isa", cpu.variants())
def test_an_expert_has_the_bits_of_linear_layers(isa, mode, rng):
    with cpu.variant(isa):
        network = Network(rng, mode)
        x_TD, experts_TK, _ = tokens_of(rng, network, 230, top_k=1)
        got = network(x_TD, experts_TK, np.ones((230, 1), np.float32))
        for e in range(E):
            mine = experts_TK[:, 0] == e
            np.testing.assert_array_equal(got[mine], network.expert(e, x_TD[mine]))


@pytest.mark.parametrize("mode", MODES)
def test_bits_do_not_depend_on_the_batch_or_the_instruction_set(mode, rng):
    network = Network(rng, mode)
    args = tokens_of(rng, network, 70)
    whole = network(*args)
    for isa in cpu.variants():
        with cpu.variant(isa):
            np.testing.assert_array_equal(network(*args), whole)
    for start, end in ((0, 1), (3, 10), (10, 70)):
        np.testing.assert_array_equal(network(*(a[start:end] for a in args)), whole[start:end])


@pytest.mark.parametrize("mode", ["float32", "bfloat16", "mxfp4", "mxfp4-int16"])
@pytest.mark.parametrize("isa", cpu.variants())
def test_biases_and_clamps_have_the_bits_of_linear_layers(isa, mode, rng):
    with cpu.variant(isa):
        network = Network(rng, mode)
        x_TD, experts_TK, _ = tokens_of(rng, network, 90, top_k=1)
        more = {
            "gate_up_bias_E2F": 5 * rng.standard_normal((E, 2 * F)).astype(np.float32),
            "down_bias_ED": rng.standard_normal((E, D)).astype(np.float32),
            "clamp": CLAMP,
        }
        got = network(x_TD, experts_TK, np.ones((90, 1), np.float32), **more)
        for e in range(E):
            mine = experts_TK[:, 0] == e
            biases = (more["gate_up_bias_E2F"][e], more["down_bias_ED"][e])
            np.testing.assert_array_equal(got[mine], network.expert(e, x_TD[mine], *biases, CLAMP))
        with pytest.raises(ValueError, match="biases are"):
            network(x_TD, experts_TK, np.ones((90, 1), np.float32), down_bias_ED=more["gate_up_bias_E2F"])


@pytest.mark.parametrize("mode", ["float32", "bfloat16", "mxfp4-int16"])
def test_weighed_inputs_are_rounded_products(mode, rng):
    network = Network(rng, mode)
    x_TD, experts_TK, weights_TK = tokens_of(rng, network, 60)
    for isa in cpu.variants():
        with cpu.variant(isa):
            got = network(x_TD, experts_TK, weights_TK, weigh_inputs=True)
            ones = np.ones((60, 1), np.float32)
            parts = [
                network((x_TD.astype(np.float32) * weights_TK[:, k : k + 1]).astype(network.act), one, ones)
                for k, one in enumerate((experts_TK[:, :1].copy(), experts_TK[:, 1:].copy()))
            ]
            np.testing.assert_array_equal(got, parts[0] + parts[1])


def test_logits_decide_where_scores_round_to_equal_ones():
    logits_TE = np.array([[18, 20, 19, -3], [-110, 0, -105, -107]], np.float32)
    experts_TK, weights_TK = ops.route(logits_TE[:1], ops.Routing(4, 2, "sigmoid"))
    assert experts_TK.tolist() == [[1, 2]]
    assert weights_TK.tolist() == [[1, 1]]
    experts_TK, _ = ops.route(logits_TE[1:], ops.Routing(4, 3))
    assert experts_TK.tolist() == [[1, 2, 3]]


def test_blocks_of_tokens_give_the_bits_of_one(rng):
    """More slots than are grouped at a time."""
    network = Network(rng, "int8")
    args = tokens_of(rng, network, 4097, top_k=4)
    whole = network(*args)
    np.testing.assert_array_equal(network(*(a[-9:] for a in args)), whole[-9:])


def test_an_expert_that_there_is_not(rng):
    network = Network(rng, "float32")
    x_TD, experts_TK, weights_TK = tokens_of(rng, network, 3)
    for wrong in (-1, E, 2**31 - 1):
        experts_TK[1, 1] = wrong
        with pytest.raises(ValueError, match=f"no expert {wrong}"):
            network(x_TD, experts_TK, weights_TK)


def test_matrices_of_another_shape(rng):
    network = Network(rng, "float32")
    args = tokens_of(rng, network, 3)
    with pytest.raises(ValueError, match="are not those of 4 experts"):
        ops.moe_experts(*args, network.gate_up, network.down, 4)
    halves = network.pack([random_weight(rng, "f32", E * 2 * F, D)])  # one part for all
    with pytest.raises(ValueError, match="belongs to two"):
        ops.moe_experts(*args, halves, network.down, E)
    with pytest.raises(ValueError, match="other type"):
        ops.moe_experts(args[0].astype(BFLOAT16), *args[1:], network.gate_up, network.down, E)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "routing", [ops.Routing(8, 3, renormalize=True), ops.Routing(8, 3, "sigmoid", num_groups=4, top_groups=2)]
)
def test_logits_that_are_not_finite_still_choose_experts(value, routing, rng):
    logits_TE = rng.standard_normal((4, 8)).astype(np.float32)
    alone = ops.route(logits_TE[:1], routing)
    logits_TE[1] = value
    logits_TE[2, ::2] = value
    experts_TK, weights_TK = ops.route(logits_TE, routing)
    assert all(len(set(row)) == 3 and 0 <= min(row) <= max(row) < 8 for row in experts_TK.tolist())
    np.testing.assert_array_equal(experts_TK[:1], alone[0])
    np.testing.assert_array_equal(weights_TK[:1], alone[1])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scores": "tanh"}, "softmax or sigmoid"),
        ({"top_k": 9}, "1 to 8"),
        ({"top_k": 0}, "1 to 8"),
        ({"num_groups": 3}, "3 equal groups"),
        ({"num_groups": 4, "top_groups": 5}, "1 to 4"),
        ({"num_groups": 4, "top_groups": 1}, "1 to 2"),
        ({"num_groups": 8, "top_groups": 4}, "groups have 1 experts"),
    ],
)
def test_routings_that_cannot_be(wrong, says):
    with pytest.raises(ValueError, match=says):
        ops.Routing(**{"num_experts": 8, "top_k": 3, **wrong})
