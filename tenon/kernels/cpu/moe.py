"""Mixtures of experts on the native kernels."""

from __future__ import annotations

import numpy as np

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.linear import PackedLinear
from tenon.ops.moe import Clamp, Routing, check_biases
from tenon.ops.workspace import empty


def route(
    logits_TE: np.ndarray,
    routing: Routing,
    bias_E: np.ndarray | None = None,
    scale_E: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    tokens, num_experts = logits_TE.shape
    if any(a is not None and a.shape[-1:] != (routing.num_experts,) for a in (logits_TE, bias_E, scale_E)):
        raise ValueError(f"logits, bias and scales must be of {routing.num_experts} experts")
    experts_TK = empty((tokens, routing.top_k), np.int32)
    weights_TK = empty((tokens, routing.top_k), FLOAT32)
    _native.route(
        dense(logits_TE),
        0 if bias_E is None else dense(bias_E),
        0 if scale_E is None else dense(scale_E),
        address(experts_TK),
        address(weights_TK),
        tokens,
        num_experts,
        routing.top_k,
        routing.scores == "sigmoid",
        routing.renormalize,
        routing.floor,
        routing.scale,
        routing.num_groups,
        routing.top_groups,
        routing.group_best,
    )
    return experts_TK, weights_TK


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
    tokens, width = x_TD.shape
    if not len(experts_TK) == len(weights_TK) == tokens or experts_TK.shape != weights_TK.shape:
        raise ValueError(f"{tokens} tokens need as many rows of experts and of weights")
    if gelu and clamp is not None:
        raise ValueError("experts have either gelu or clamped gates")
    check_biases(num_experts, down.shape[1], width, gate_up_bias_E2F, down_bias_ED)
    y_TD = accumulate_into_TD
    if y_TD is None:
        y_TD = empty((tokens, width), FLOAT32)
    _native.moe_experts(
        address(x_TD),
        row_stride(x_TD),
        tokens,
        width,
        x_TD.dtype == FLOAT32,
        dense(experts_TK, np.int32),
        dense(weights_TK),
        experts_TK.shape[1],
        num_experts,
        gate_up,
        down,
        0 if gate_up_bias_E2F is None else dense(gate_up_bias_E2F),
        0 if down_bias_ED is None else dense(down_bias_ED),
        1.0 if clamp is None else clamp.alpha,
        0.0 if clamp is None else clamp.limit,
        gelu,
        weigh_inputs,
        identities,
        address(y_TD),
        row_stride(y_TD),
        accumulate_into_TD is not None,
    )
    return y_TD


def gate_rows(x_TF: np.ndarray, gate_T1: np.ndarray) -> np.ndarray:
    _native.gate_rows(dense(x_TF, x_TF.dtype), dense(gate_T1), *x_TF.shape, x_TF.dtype == BFLOAT16)
    return x_TF
