"""The gated delta rule, a recurrence whose state is a matrix for each head.

Shape letters: T tokens, R requests, H value heads, G key heads, K width of a key, V width of a value, N
slots of states, C = 2 G K + H V, X = H V.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.cases import Args, Arrays, Case, Span, Tolerance, ragged_batch, with_states
from tenon.ops.select import op

NORM_EPS = 1e-6


@op()
def gated_delta_rule(
    qkv_TC: np.ndarray,
    ba_T2H: np.ndarray,
    decay_H: np.ndarray,
    dt_bias_H: np.ndarray,
    state_NHKV: np.ndarray,
    batch: Batch,
    *,
    num_key_heads: int,
) -> np.ndarray:
    """o_TX: what queries read from a memory that keys and values are written to (Yang et al. 2024, Gated
    Delta Networks); all float32. For each value head, token by token in order:

        g = exp(decay * softplus(a + dt_bias)),  beta = sigmoid(b)
        S = g S;  S += k (beta (v - S^T k))^T;  o = S^T q / sqrt(K)

    with q and k divided by their lengths (of squares plus NORM_EPS). Rows of qkv are q and k of all key
    heads, then v of all value heads; of ba: b, then a. Value head h has key head h * G // H. `decay` is
    below zero.

    A request goes on from its state S (`Batch.state_in_R`), from zeros for slot -1, and leaves it in
    `state_out_R`. A token's bits do not depend on how tokens are cut into steps. Raises UnsupportedOp for
    widths that the backend cannot do.
    """
    assert batch.state_in_R is not None
    assert batch.state_out_R is not None
    _, heads, key_dim, value_dim = state_NHKV.shape
    keys = num_key_heads * key_dim
    q_TGK, k_TGK = (_unit(qkv_TC[:, i * keys : (i + 1) * keys], num_key_heads) for i in range(2))
    q_THK, k_THK = (x.repeat(heads // num_key_heads, axis=1) for x in (q_TGK, k_TGK))
    v_THV = qkv_TC[:, 2 * keys :].reshape(-1, heads, value_dim)
    beta_TH = 1 / (1 + np.exp(-ba_T2H[:, :heads]))
    g_TH = np.exp(decay_H * np.logaddexp(0, ba_T2H[:, heads:] + dt_bias_H))
    o_THV = np.empty(v_THV.shape, np.float32)
    for row, (slot_in, slot_out) in enumerate(zip(batch.state_in_R, batch.state_out_R, strict=True)):
        s_HKV = np.zeros(state_NHKV.shape[1:], np.float32) if slot_in < 0 else state_NHKV[slot_in]
        for t in range(*batch.query_start_R1[row : row + 2]):
            s_HKV = s_HKV * g_TH[t, :, None, None]
            read_HV = np.einsum("hkv,hk->hv", s_HKV, k_THK[t])
            new_HV = beta_TH[t, :, None] * (v_THV[t] - read_HV)
            s_HKV = s_HKV + k_THK[t][:, :, None] * new_HV[:, None]
            o_THV[t] = np.einsum("hkv,hk->hv", s_HKV, q_THK[t]) * key_dim**-0.5
        state_NHKV[slot_out] = s_HKV
    return o_THV.reshape(len(o_THV), -1)


def _unit(x_TX: np.ndarray, heads: int) -> np.ndarray:
    x_THK = x_TX.reshape(len(x_TX), heads, -1)
    return x_THK / np.sqrt(np.square(x_THK).sum(-1, keepdims=True) + np.float32(NORM_EPS))


def _observed(result: Any, args: Args) -> Arrays:
    return {"o": result, "state": args["state_NHKV"]}


@gated_delta_rule.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = [Span(40, n) for n in (1, 1, 2, 17, 40)]
    for shape in [(2, 4, 16, 16), (1, 3, 32, 48), (2, 2, 128, 128), (1, 1, 48, 80)]:
        yield _case(rng, [spans[i] for i in rng.permutation(len(spans))], shape)
    yield _case(rng, [Span(1, 1)], (4, 8, 128, 128))
    for tokens in (1, 64):
        yield _case(rng, [Span(tokens, tokens)], (16, 32, 128, 128), bench=True)  # Qwen3-Next
    yield _case(rng, [Span(1, 1)] * 16, (16, 32, 128, 128), bench=True)


def _case(
    rng: np.random.Generator, spans: list[Span], shape: tuple[int, int, int, int], bench: bool = False
) -> Case:
    key_heads, heads, key_dim, value_dim = shape
    batch, num_slots = with_states(rng, ragged_batch(rng, spans, 32)[0])
    tokens = batch.num_tokens
    width = 2 * key_heads * key_dim + heads * value_dim
    qkv_TC = (rng.standard_normal((tokens, width)) * 10.0 ** rng.uniform(-1, 1)).astype(np.float32)
    ba_T2H = (3 * rng.standard_normal((tokens, 2 * heads))).astype(np.float32)
    ba_T2H[0, -1] = 60.0  # where softplus is its argument, and nothing is left of the state
    decay_H = -rng.uniform(0.01, 4, heads).astype(np.float32)
    dt_bias_H = rng.standard_normal(heads).astype(np.float32)
    state_NHKV = rng.standard_normal((num_slots, heads, key_dim, value_dim)).astype(np.float32)

    def build() -> Args:
        return {
            "qkv_TC": qkv_TC,
            "ba_T2H": ba_T2H,
            "decay_H": decay_H,
            "dt_bias_H": dt_bias_H,
            "state_NHKV": state_NHKV.copy(),
            "batch": batch,
            "num_key_heads": key_heads,
        }

    largest = max(float(np.abs(qkv_TC).max()), 4.0)
    state_bytes = len(spans) * heads * key_dim * value_dim * 4
    return Case(
        f"G{key_heads} H{heads} K{key_dim} V{value_dim} new {','.join(str(span.new) for span in spans)}",
        build,
        Tolerance(1e-4, 1e-5 * largest),  # sums of products that cancel
        observe=_observed,
        bench=bench,
        num_bytes=2 * state_bytes + 4 * tokens * (width + heads * (value_dim + 2)),
        flops=7 * tokens * heads * key_dim * value_dim,
    )
