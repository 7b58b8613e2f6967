"""Attention of packed sequences over themselves, in both directions: encoders have no cache.

Shape letters: T tokens, R sequences, N = 3 * H * E, H heads, E head width, X = H * E.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import Args, Case, Tolerance
from tenon.ops.select import op


@op()
def full_attention(
    qkv_TN: np.ndarray,
    query_start_R1: np.ndarray,
    *,
    num_heads: int,
    head_dim: int,
    scale: float,
    window: int | None,
    out_dtype: np.dtype[Any],
) -> np.ndarray:
    """o_TX out_dtype = softmax(scale * q K^T) V of every token over its own sequence (Vaswani et al. 2017).

    Rows of qkv are [q | k | v] of all heads, float32; sequence r has the tokens [start[r], start[r + 1]).
    With `window` a token sees the positions at most that far from its own (Beltagy et al. 2020), else all.
    """
    import torch

    o_TX = np.empty((len(qkv_TN), num_heads * head_dim), out_dtype)
    for r in range(len(query_start_R1) - 1):
        start, stop = int(query_start_R1[r]), int(query_start_R1[r + 1])
        qkv_3HtE = (
            to_torch(qkv_TN[start:stop]).reshape(stop - start, 3, num_heads, head_dim).permute(1, 2, 0, 3)
        )
        q_HtE, k_HtE, v_HtE = qkv_3HtE
        score_Htt = q_HtE @ k_HtE.transpose(1, 2) * scale
        if window is not None:
            position_t = torch.arange(stop - start)
            far_tt = (position_t[:, None] - position_t).abs() > window
            score_Htt = score_Htt.masked_fill(far_tt, -torch.inf)
        o_HtE = score_Htt.softmax(-1) @ v_HtE
        o_TX[start:stop] = to_numpy(o_HtE.transpose(0, 1).reshape(stop - start, -1), out_dtype)
    return o_TX


# (heads, head width, window, type of the result)
_SHAPES: list[tuple[int, int, int | None, np.dtype[Any]]] = [
    (12, 32, None, BFLOAT16),
    (3, 64, None, FLOAT32),
    (2, 16, 0, FLOAT32),
    (2, 48, 5, BFLOAT16),
    (3, 64, 64, FLOAT32),
    (1, 80, 33, FLOAT32),
]


@full_attention.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in _SHAPES:
        yield _case(rng, shape, rng.permutation([1, 2, 31, 32, 33, 65, 200]).tolist())
    yield _case(rng, _SHAPES[4], [700])
    yield _case(rng, _SHAPES[0], [20] * 64, bench=True)
    yield _case(rng, _SHAPES[0], [256] * 4, bench=True)


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int | None, np.dtype[Any]],
    lengths: list[int],
    bench: bool = False,
) -> Case:
    heads, head_dim, window, dtype = shape
    starts_R1 = np.cumsum([0, *lengths]).astype(np.int32)
    # Scores with a spread of several nats, so that the softmax is neither flat nor one-hot.
    qkv_TN = (1.5 * rng.standard_normal((starts_R1[-1], 3 * heads * head_dim))).astype(np.float32)
    args: Args = {
        "qkv_TN": qkv_TN,
        "query_start_R1": starts_R1,
        "num_heads": heads,
        "head_dim": head_dim,
        "scale": head_dim**-0.5,
        "window": window,
        "out_dtype": dtype,
    }
    seen = [min(n, n if window is None else 2 * window + 1) for n in lengths]
    return Case(
        f"H{heads} E{head_dim} window {window} {dtype} lengths {','.join(map(str, lengths[:8]))}",
        lambda: args,
        Tolerance(2**-7, 1e-5) if dtype == BFLOAT16 else Tolerance(1e-5, 1e-5),
        bench=bench,
        num_bytes=qkv_TN.nbytes + len(qkv_TN) * heads * head_dim * dtype.itemsize,
        flops=sum(4 * heads * head_dim * n * s for n, s in zip(lengths, seen, strict=True)),
    )
