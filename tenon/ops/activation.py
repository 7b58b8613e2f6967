"""Gated activations of the feed-forward layer.

Shape letters: T tokens, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import Case, tolerance
from tenon.ops.select import op


@op()
def silu_mul(gate_up_T2F: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    """y_TF out_dtype = gate * sigmoid(gate) * up; each row of float32 [2F] is [gate | up] (Shazeer 2020)."""
    gate_TF, up_TF = to_torch(gate_up_T2F).chunk(2, dim=-1)
    return to_numpy(gate_TF * gate_TF.sigmoid() * up_TF, out_dtype)


@silu_mul.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [(1, 1536, BFLOAT16), (7, 64, FLOAT32), (5, 100, BFLOAT16), (3, 17, FLOAT32)]:
        yield _case(rng, tokens, width, dtype)
    for tokens in (1, 512):
        yield _case(rng, tokens, 1536, BFLOAT16, bench=True)


def _case(
    rng: np.random.Generator, tokens: int, width: int, dtype: np.dtype[Any], bench: bool = False
) -> Case:
    scale_T1 = rng.choice([0.1, 1, 30, 200], (tokens, 1))  # far enough for exp to overflow and underflow
    gate_up_T2F = (rng.standard_normal((tokens, 2 * width)) * scale_T1).astype(np.float32)
    return Case(
        f"T{tokens} F{width} {dtype}",
        lambda: {"gate_up_T2F": gate_up_T2F, "out_dtype": dtype},
        tolerance=tolerance(dtype),
        bench=bench,
        num_bytes=gate_up_T2F.nbytes + tokens * width * dtype.itemsize,
    )
