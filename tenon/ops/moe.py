"""Mixtures of experts (Shazeer et al. 2017): which experts a token goes to, and what they make of it.

Shape letters: T tokens, E experts, K experts of one token (its slots), D model width, F width of an expert.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenon.core import ggml
from tenon.core.tensors import RawTensor
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.cases import EXACT, Args, Arrays, Case, random_weight, tolerance
from tenon.ops.linear import DenseLinear, PackedLinear, pack_linear, quantize_steps
from tenon.ops.select import op


@dataclass(frozen=True, slots=True)
class Routing:
    """How a router's logits become experts and weights.

    Scores are the softmax or the sigmoid of the logits. The `top_k` largest of score + bias are chosen, out
    of those `top_groups` of `num_groups` equal groups whose `group_best` largest sum up to most. An expert's
    weight is its score, without the bias; with `renormalize` divided by the sum of those chosen, or by
    `floor` where that is larger; then times `scale`.
    """

    num_experts: int
    top_k: int
    scores: str = "softmax"  # or "sigmoid"
    renormalize: bool = False
    floor: float = 0.0
    scale: float = 1.0
    num_groups: int = 1
    top_groups: int = 1
    group_best: int = 2

    def __post_init__(self) -> None:
        if self.scores not in ("softmax", "sigmoid"):
            raise ValueError(f"scores must be softmax or sigmoid, not {self.scores!r}")
        if self.num_groups < 1 or self.num_experts % self.num_groups:
            raise ValueError(f"{self.num_experts} experts are not {self.num_groups} equal groups")
        size = self.num_experts // self.num_groups
        if not 0 < self.top_groups <= self.num_groups or self.group_best < 1:
            raise ValueError(f"top_groups must be 1 to {self.num_groups}, not {self.top_groups}")
        if self.num_groups > 1 and self.group_best > size:
            raise ValueError(f"groups have {size} experts, not {self.group_best}")
        if not 0 < self.top_k <= size * self.top_groups:
            raise ValueError(f"top_k must be 1 to {size * self.top_groups}, not {self.top_k}")


@dataclass(frozen=True, slots=True)
class Clamp:
    """What experts have in place of silu(gate) * up: `clamped_mul` with these numbers (GPT-OSS)."""

    alpha: float
    limit: float


@op()
def route(
    logits_TE: np.ndarray,
    routing: Routing,
    bias_E: np.ndarray | None = None,
    scale_E: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(experts_TK int32, weights_TK float32) of float32 logits, as `routing` says; bias is float32.
    With `scale_E` (float32) an expert's weight is at last times its own scale (Gemma 4).

    The slots of a token are in the order of score + bias, the largest first; of equals the lower number
    comes first. Without a bias and groups logits are compared, of which scores may round to equal ones.
    Whatever the logits are, a token gets K different experts; where they are not finite its weights may be
    NaN. Each row depends on its own logits alone.
    """
    wide_TE = logits_TE.astype(np.float64)
    if routing.scores == "sigmoid":
        scores_TE = 1 / (1 + np.exp(-wide_TE))
    else:
        scores_TE = np.exp(wide_TE - wide_TE.max(axis=1, keepdims=True))
        scores_TE /= scores_TE.sum(axis=1, keepdims=True)
    choice_TE = scores_TE if bias_E is None else scores_TE + bias_E
    if bias_E is None and routing.num_groups == 1:
        choice_TE = logits_TE
    if routing.num_groups > 1:
        choice_TE = np.where(_in_best_groups(choice_TE, routing), choice_TE, -np.inf)
    experts_TK = np.argsort(-choice_TE, axis=1, kind="stable")[:, : routing.top_k]
    weights_TK = np.take_along_axis(scores_TE, experts_TK, axis=1)
    if routing.renormalize:
        weights_TK = weights_TK / np.maximum(weights_TK.sum(axis=1, keepdims=True), routing.floor)
    if scale_E is not None:
        weights_TK = weights_TK * scale_E[experts_TK]
    return experts_TK.astype(np.int32), (weights_TK * routing.scale).astype(np.float32)


def _in_best_groups(choice_TE: np.ndarray, routing: Routing) -> np.ndarray:
    tokens, experts = choice_TE.shape
    by_group = np.sort(choice_TE.reshape(tokens, routing.num_groups, -1), axis=2)
    best = by_group[:, :, -routing.group_best :].sum(axis=2)
    chosen = np.argsort(-best, axis=1, kind="stable")[:, : routing.top_groups]
    mask = np.zeros((tokens, routing.num_groups), bool)
    np.put_along_axis(mask, chosen, True, axis=1)
    return mask.repeat(experts // routing.num_groups, axis=1)


@op(shares="packed weights")
def moe_experts(
    x_TD: np.ndarray,
    experts_TK: np.ndarray,
    weights_TK: np.ndarray,
    gate_up: PackedLinear,
    down: PackedLinear,
    num_experts: int,
    *,
    gate_up_bias_E2F: np.ndarray | None = None,
    down_bias_ED: np.ndarray | None = None,
    clamp: Clamp | None = None,
    gelu: bool = False,
    weigh_inputs: bool = False,
    identities: int = 0,
    accumulate_into_TD: np.ndarray | None = None,
) -> np.ndarray:
    """y_TD float32 = sum over a token's slots of weight * down_e(silu(gate_e(x)) * up_e(x)), e its expert.

    `gate_up` [E * 2F, D] has the gate's rows of expert 0, its rows of up, then those of expert 1, and so on,
    and `down` is [E * D, F]; both packed (`pack_linear`) from parts that each belong to one expert, for
    activations of x's dtype, to which silu(gate) * up is rounded. experts_TK is int32, weights_TK float32.
    Biases (float32) are added to the products, in the order of the matrices' rows. With `clamp` what is in
    brackets is `clamped_mul`, with `gelu` it is gelu(gate) * up in the form with tanh (Gemma 4). With
    `weigh_inputs` a weight multiplies what its expert gets, rounded to x's dtype, and not what it gives
    (Llama 4). Experts of so many numbers from E on as `identities` says give back x (LongCat). With
    `accumulate_into_TD` (float32) the result is added to it in place, and it is returned.

    A token's bits depend on its own rows alone; its slots are summed in their order. Raises ValueError for
    matrices and biases of another shape and for an expert that there is not.
    """
    assert isinstance(gate_up, DenseLinear)
    assert isinstance(down, DenseLinear)
    if identities and weigh_inputs:
        raise ValueError("experts that give back x have no inputs to weigh")
    if gelu and clamp is not None:
        raise ValueError("experts have either gelu or clamped gates")
    width, inner = x_TD.shape[1], down.shape[1]
    if gate_up.shape != (num_experts * 2 * inner, width) or down.shape[0] != num_experts * width:
        raise ValueError(f"the matrices are not those of {num_experts} experts for {width} columns")
    if experts_TK.size and not 0 <= experts_TK.min() <= experts_TK.max() < num_experts + identities:
        raise ValueError(f"there is no expert {experts_TK.max()}")
    check_biases(num_experts, inner, width, gate_up_bias_E2F, down_bias_ED)
    y_TD = np.zeros((len(x_TD), width), np.float32)
    for expert in np.unique(experts_TK):
        tokens, slots = np.nonzero(experts_TK == expert)
        x, weight = x_TD[tokens], weights_TK[tokens, slots, None]
        if weigh_inputs:
            x, weight = (x.astype(np.float32) * weight).astype(x.dtype), np.ones_like(weight)
        if expert >= num_experts:
            y_TD[tokens] += weights_TK[tokens, slots, None] * x_TD[tokens].astype(np.float32)
            continue
        h = _product(x, gate_up, expert, 2 * inner, gate_up_bias_E2F)
        a = (_gelu_mul(h) if gelu else _gated(h, clamp)).astype(x.dtype)
        y_TD[tokens] += weight * _product(a, down, expert, width, down_bias_ED)
    if accumulate_into_TD is None:
        return y_TD
    accumulate_into_TD += y_TD
    return accumulate_into_TD


def check_biases(
    num_experts: int,
    inner: int,
    width: int,
    gate_up_bias_E2F: np.ndarray | None,
    down_bias_ED: np.ndarray | None,
) -> None:
    for bias, columns in ((gate_up_bias_E2F, 2 * inner), (down_bias_ED, width)):
        if bias is not None and bias.shape != (num_experts, columns):
            raise ValueError(f"biases are {bias.shape}, not those of {num_experts} experts by {columns} rows")


def _gated(h: np.ndarray, clamp: Clamp | None) -> np.ndarray:
    gate, up = np.split(h, 2, axis=1)
    alpha = np.float32(1)
    if clamp is not None:
        alpha = np.float32(clamp.alpha)
        gate, up = np.minimum(gate, clamp.limit), np.clip(up, -clamp.limit, clamp.limit) + np.float32(1)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-alpha * gate)) * up


def _gelu_mul(h: np.ndarray) -> np.ndarray:
    gate, up = np.split(h, 2, axis=1)
    inner = np.float32((2 / np.pi) ** 0.5) * (gate + np.float32(0.044715) * gate**3)
    return np.float32(0.5) * gate * (1 + np.tanh(inner)) * up


def _product(x: np.ndarray, w: DenseLinear, expert: int, rows: int, bias_EN: np.ndarray | None) -> np.ndarray:
    """float32: x times the matrix of an expert, as `linear` has it."""
    here = slice(expert * rows, (expert + 1) * rows)
    y = x.astype(np.float32) @ w.weight_NK[here].T
    grouped = w.grouped_N[here]
    if grouped.any():
        y[:, grouped] = quantize_steps(x, w.act_bits) @ w.weight_NK[here][grouped].T
    return y if bias_EN is None else y + bias_EN[expert]


@op()
def gate_rows(x_TF: np.ndarray, gate_T1: np.ndarray) -> np.ndarray:
    """x_TF * sigmoid(gate) in place, rounded to x's dtype (bfloat16 or float32); gate is float32 [T, 1]."""
    x_TF[...] = (x_TF.astype(np.float32) / (1 + np.exp(-gate_T1))).astype(x_TF.dtype)
    return x_TF


@route.with_cases
def route_cases(rng: np.random.Generator) -> Iterator[Case]:
    deepseek = Routing(256, 8, "sigmoid", True, floor=1e-20, scale=2.5, num_groups=8, top_groups=4)
    for tokens, routing, bias in [
        (1, Routing(128, 8, renormalize=True), False),
        (37, Routing(60, 4), False),
        (5, Routing(8, 2, renormalize=True), False),
        (3, Routing(1, 1), False),
        (9, Routing(7, 7, "sigmoid", scale=2.5), False),
        (11, Routing(64, 6, renormalize=True, floor=1e-12), True),
        (21, deepseek, True),
        (6, Routing(160, 6, num_groups=8, top_groups=3, group_best=1, scale=16.0), False),
        (4, Routing(512, 10, renormalize=True), True),
    ]:
        yield _route_case(rng, tokens, routing, bias)
    yield _route_case(rng, 17, Routing(128, 8, renormalize=True), False, scales=True)
    for tokens in (1, 512):
        yield _route_case(rng, tokens, Routing(128, 8, renormalize=True), False, bench=True)


def _route_case(
    rng: np.random.Generator,
    tokens: int,
    routing: Routing,
    bias: bool,
    *,
    scales: bool = False,
    bench: bool = False,
) -> Case:
    # Logits a thousandth apart at least: the two backends order near scores as one.
    levels = 1e-3 * rng.permuted(np.arange(4000).reshape(1, -1).repeat(tokens, axis=0), axis=1)
    logits_TE = (levels[:, : routing.num_experts] - 2).astype(np.float32)
    bias_E = (0.01 * rng.standard_normal(routing.num_experts)).astype(np.float32) if bias else None
    scale_E = rng.uniform(0.5, 1.5, routing.num_experts).astype(np.float32) if scales else None

    def check(args: Args, expected: Arrays, got: Arrays) -> str | None:
        experts_TK, weights_TK = got["out0"], got["out1"]
        if any(len(set(row)) < routing.top_k for row in experts_TK.tolist()):
            return "an expert is chosen twice"
        same = (experts_TK == expected["out0"]).all(axis=1)
        # With a bias scores can be arbitrarily near each other; that happens to few rows.
        if (~same).sum() > (len(same) // 8 if bias else 0):
            return f"{(~same).sum()} of {len(same)} tokens have other experts"
        error = np.abs(weights_TK - expected["out1"])[same] / routing.scale
        return None if (error < 1e-5).all() else f"weights are off by {error.max():.3g}"

    return Case(
        f"{routing.scores} T{tokens} E{routing.num_experts} K{routing.top_k} G{routing.num_groups}",
        lambda: {"logits_TE": logits_TE, "routing": routing, "bias_E": bias_E, "scale_E": scale_E},
        EXACT,
        check=check,
        bench=bench,
        num_bytes=logits_TE.nbytes + 8 * tokens * routing.top_k,
    )


@moe_experts.with_cases
def experts_cases(rng: np.random.Generator) -> Iterator[Case]:
    for dtype in ("f32", "bf16", "f8_e4m3", "q4_1", "q6_k", "q8_0", "mxfp4"):
        width, inner = (512, 256) if dtype == "q6_k" else (96, 64)
        yield _experts_case(rng, [dtype] * 3, FLOAT32, 19, 5, 2, width, inner)
        yield _experts_case(rng, [dtype] * 3, BFLOAT16, 67, 6, 3, width, inner, accumulate=True)
        if dtype not in ggml.FLOATS:
            for act_bits in (8, 16):
                yield _experts_case(rng, [dtype] * 3, BFLOAT16, 41, 4, 2, width, inner, act_bits=act_bits)
    yield _experts_case(rng, ["q4_0", "bf16", "q8_0"], BFLOAT16, 23, 8, 2, 64, 96, act_bits=16)
    yield _experts_case(rng, ["f32", "bf16", "f16"], FLOAT32, 300, 3, 2, 50, 37)
    yield _experts_case(rng, ["bf16"] * 3, BFLOAT16, 1, 9, 4, 64, 33)
    yield _experts_case(rng, ["bf16"] * 3, BFLOAT16, 0, 9, 4, 64, 32)
    for act, act_bits in ((FLOAT32, 0), (BFLOAT16, 0), (BFLOAT16, 16)):
        more: Args = {"clamp": Clamp(1.702, 7.0), "biases": True}
        yield _experts_case(rng, ["mxfp4"] * 3, act, 37, 5, 2, 96, 64, act_bits=act_bits, **more)
        more = {"weigh_inputs": True, "accumulate": True}
        yield _experts_case(rng, ["q8_0"] * 3, act, 29, 6, 2, 96, 64, act_bits=act_bits, **more)
        more = {"identities": 3, "accumulate": True}
        yield _experts_case(rng, ["q8_0"] * 3, act, 31, 5, 4, 96, 64, act_bits=act_bits, **more)
        yield _experts_case(rng, ["q8_0"] * 3, act, 27, 6, 2, 96, 64, act_bits=act_bits, gelu=True)
    yield _experts_case(rng, ["bf16"] * 3, BFLOAT16, 9, 1, 2, 64, 32, identities=30)  # often no other
    for dtypes, act_bits in (
        (["bf16"] * 3, 0),
        (["f8_e4m3"] * 3, 0),
        (["q4_1"] * 3, 8),
        (["q4_1"] * 3, 16),
        (["mxfp4"] * 3, 0),
        (["mxfp4"] * 3, 16),
    ):
        for tokens in (1, 8, 128):
            yield _experts_case(
                rng, dtypes, BFLOAT16, tokens, 32, 8, 2048, 768, act_bits=act_bits, bench=True
            )


def _experts_case(
    rng: np.random.Generator,
    dtypes: list[str],
    act: np.dtype[Any],
    tokens: int,
    num_experts: int,
    top_k: int,
    width: int,
    inner: int,
    *,
    accumulate: bool = False,
    act_bits: int = 0,
    clamp: Clamp | None = None,
    gelu: bool = False,
    biases: bool = False,
    weigh_inputs: bool = False,
    identities: int = 0,
    bench: bool = False,
) -> Case:
    """The types are those of gate, up and down."""
    drawn = 1 if bench else num_experts  # to be timed equal experts will do
    gate_up: list[RawTensor] = []
    for _ in range(drawn):
        gate_up += [random_weight(rng, dtype, inner, width) for dtype in dtypes[:2]]
    down = [random_weight(rng, dtypes[2], width, inner) for _ in range(drawn)]
    gate_up, down = gate_up * (num_experts // drawn), down * (num_experts // drawn)
    x_TD = rng.standard_normal((tokens, width)).astype(act)
    numbers = np.arange(1, num_experts + identities + 1)
    scores_TE = rng.random((tokens, len(numbers))) ** numbers  # some are asked by few
    experts_TK = np.argsort(-scores_TE, axis=1)[:, :top_k].astype(np.int32)
    weights_TK = rng.random((tokens, top_k)).astype(np.float32)
    before_TD = rng.standard_normal((tokens, width)).astype(np.float32) if accumulate else None
    gate_up_bias, down_bias = (
        2 * rng.standard_normal((num_experts, n)).astype(np.float32) if biases else None
        for n in (2 * inner, width)
    )

    def build() -> Args:
        return {
            "x_TD": x_TD,
            "experts_TK": experts_TK,
            "weights_TK": weights_TK,
            "gate_up": pack_linear(gate_up, act, act_bits=act_bits),
            "down": pack_linear(down, act, act_bits=act_bits),
            "num_experts": num_experts,
            "gate_up_bias_E2F": gate_up_bias,
            "down_bias_ED": down_bias,
            "clamp": clamp,
            "gelu": gelu,
            "weigh_inputs": weigh_inputs,
            "identities": identities,
            "accumulate_into_TD": None if before_TD is None else before_TD.copy(),
        }

    def check(args: Args, expected: Arrays, got: Arrays) -> str | None:
        """The weights of both products, and what lies between, may be a step of bfloat16 off."""
        if not tokens:
            return None
        error = np.linalg.norm(got["out0"] - expected["out0"], axis=1)
        norm = np.linalg.norm(expected["out0"], axis=1)
        allowed = 2e-6 if act == FLOAT32 else 2.0**-6
        if (error <= allowed * norm + 1e-6).all():
            return None
        return f"off by {(error / norm).max():.3g} of a row's norm, more than {allowed:.3g}"

    asked = len(np.unique(experts_TK))
    return Case(
        f"{'+'.join(dict.fromkeys(dtypes))} {f'int{act_bits}' if act_bits else act} "
        f"T{tokens} E{num_experts}+{identities} K{top_k} D{width} F{inner}",
        build,
        EXACT,
        check=check,
        bench=bench,
        num_bytes=asked * sum(part.data.nbytes for part in [*gate_up[:2], down[0]]) + 2 * x_TD.nbytes,
        flops=6 * tokens * top_k * width * inner,
    )


@gate_rows.with_cases
def gate_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype, bench in [
        (1, 48, BFLOAT16, False),
        (7, 33, FLOAT32, False),
        (40, 512, BFLOAT16, False),
        (512, 5632, BFLOAT16, True),
    ]:
        x_TF = rng.standard_normal((tokens, width)).astype(dtype)
        gate_T1 = (10 * rng.standard_normal((tokens, 1))).astype(np.float32)
        yield Case(
            f"T{tokens} F{width} {dtype}",
            lambda x_TF=x_TF, gate_T1=gate_T1: {"x_TF": x_TF.copy(), "gate_T1": gate_T1},  # type: ignore[misc]
            tolerance(dtype),
            bench=bench,
            num_bytes=2 * x_TF.nbytes,
        )
