"""State-space duality: Mamba-2's recurrence, whose state is a matrix for each head.

Shape letters: T tokens, R requests, H heads, P width of a head, G groups, S width of the state, N slots of
states, C = H P + 2 G S, X = H P.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.cases import Args, Arrays, Case, Span, Tolerance, ragged_batch, with_states
from tenon.ops.select import op


@op()
def ssd_scan(
    xbc_TC: np.ndarray,
    dt_TH: np.ndarray,
    decay_H: np.ndarray,
    dt_bias_H: np.ndarray,
    skip_H: np.ndarray,
    state_NHSP: np.ndarray,
    batch: Batch,
    *,
    num_groups: int,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
) -> np.ndarray:
    """y_TX of a selective state space (Dao & Gu 2024, Mamba-2), in its recurrent form; all float32. For each
    head, token by token in order:

        dt = softplus(dt + dt_bias), within dt_limit;  g = exp(decay * dt)
        h = g h + B (dt x)^T;  y = h^T C + skip * x

    Rows of xbc are x of all heads, then B and C of all groups; head h has group h * G // H. Of dt, the
    elements of a row are neighbours. `decay` is below zero.

    A request goes on from its state h (`Batch.state_in_R`), from zeros for slot -1, and leaves it in
    `state_out_R`. A token's bits do not depend on how tokens are cut into steps. Raises UnsupportedOp for
    widths that the backend cannot do.
    """
    assert batch.state_in_R is not None
    assert batch.state_out_R is not None
    _, heads, state_dim, head_dim = state_NHSP.shape
    inner, shared = heads * head_dim, num_groups * state_dim
    x_THP = xbc_TC[:, :inner].reshape(-1, heads, head_dim)
    b_TGS, c_TGS = (
        xbc_TC[:, inner + i * shared : inner + (i + 1) * shared].reshape(-1, num_groups, state_dim)
        for i in range(2)
    )
    b_THS, c_THS = (x.repeat(heads // num_groups, axis=1) for x in (b_TGS, c_TGS))
    dt_TH = np.clip(np.logaddexp(0, dt_TH + dt_bias_H), *dt_limit).astype(np.float32)
    g_TH = np.exp(decay_H * dt_TH)
    y_THP = np.empty(x_THP.shape, np.float32)
    for row, (slot_in, slot_out) in enumerate(zip(batch.state_in_R, batch.state_out_R, strict=True)):
        h_HSP = np.zeros(state_NHSP.shape[1:], np.float32) if slot_in < 0 else state_NHSP[slot_in]
        for t in range(*batch.query_start_R1[row : row + 2]):
            written_HP = dt_TH[t, :, None] * x_THP[t]
            h_HSP = h_HSP * g_TH[t, :, None, None] + b_THS[t][:, :, None] * written_HP[:, None]
            y_THP[t] = np.einsum("hsp,hs->hp", h_HSP, c_THS[t]) + skip_H[:, None] * x_THP[t]
        state_NHSP[slot_out] = h_HSP
    return y_THP.reshape(len(y_THP), -1)


def _observed(result: Any, args: Args) -> Arrays:
    return {"y": result, "state": args["state_NHSP"]}


@ssd_scan.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = [Span(40, n) for n in (1, 1, 2, 17, 40)]
    for shape in [(4, 16, 1, 16), (6, 32, 2, 40), (3, 48, 3, 128), (2, 80, 1, 33)]:
        yield _case(rng, [spans[i] for i in rng.permutation(len(spans))], shape)
    yield _case(rng, [Span(1, 1)], (16, 64, 1, 128))
    yield _case(rng, [Span(20, 20)], (4, 64, 2, 64), dt_limit=(0.3, 0.9))
    for tokens in (1, 64):
        yield _case(rng, [Span(tokens, tokens)], (128, 64, 1, 128), bench=True)  # Granite 4 small


def _case(
    rng: np.random.Generator,
    spans: list[Span],
    shape: tuple[int, int, int, int],
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    bench: bool = False,
) -> Case:
    heads, head_dim, groups, state_dim = shape
    batch, num_slots = with_states(rng, ragged_batch(rng, spans, 32)[0])
    tokens = batch.num_tokens
    width = heads * head_dim + 2 * groups * state_dim
    xbc_TC = rng.standard_normal((tokens, width)).astype(np.float32)
    wide_TH = (3 * rng.standard_normal((tokens, heads + 5))).astype(np.float32)
    wide_TH[0, -1] = 60.0  # where softplus is its argument
    decay_H = -rng.uniform(0.01, 4, heads).astype(np.float32)
    dt_bias_H, skip_H = rng.standard_normal((2, heads)).astype(np.float32)
    state_NHSP = rng.standard_normal((num_slots, heads, state_dim, head_dim)).astype(np.float32)

    def build() -> Args:
        return {
            "xbc_TC": xbc_TC,
            "dt_TH": wide_TH[:, 5:],
            "decay_H": decay_H,
            "dt_bias_H": dt_bias_H,
            "skip_H": skip_H,
            "state_NHSP": state_NHSP.copy(),
            "batch": batch,
            "num_groups": groups,
            "dt_limit": dt_limit,
        }

    state_bytes = len(spans) * heads * state_dim * head_dim * 4
    return Case(
        f"H{heads} P{head_dim} G{groups} S{state_dim} dt {dt_limit} new {','.join(str(s[1]) for s in spans)}",
        build,
        Tolerance(1e-4, 2e-3),  # sums of products of up to some hundreds that cancel
        observe=_observed,
        bench=bench,
        num_bytes=2 * state_bytes + 4 * tokens * (width + heads * (head_dim + 1)),
        flops=6 * tokens * heads * state_dim * head_dim,
    )
