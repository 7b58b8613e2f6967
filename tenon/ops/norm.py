"""Normalisation over the model width.

Shape letters: T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import Case, tolerance
from tenon.ops.select import op


@op()
def rms_norm(x_TD: np.ndarray, weight_D: np.ndarray, eps: float, out_dtype: np.dtype[Any]) -> np.ndarray:
    """y_TD out_dtype = x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019); x and weight float32."""
    x, weight = to_torch(x_TD), to_torch(weight_D)
    mean_square = (x * x).mean(-1, keepdim=True)
    return to_numpy(x * (mean_square + eps).rsqrt() * weight, out_dtype)


@rms_norm.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [
        (1, 576, BFLOAT16),
        (7, 64, FLOAT32),
        (5, 100, BFLOAT16),
        (3, 2047, FLOAT32),
    ]:
        yield _case(rng, tokens, width, dtype)
    for tokens in (1, 512):
        yield _case(rng, tokens, 576, BFLOAT16, bench=True)


def _case(
    rng: np.random.Generator, tokens: int, width: int, dtype: np.dtype[Any], bench: bool = False
) -> Case:
    scale_T1 = 10.0 ** rng.uniform(-3, 3, (tokens, 1))
    x_TD = (rng.standard_normal((tokens, width)) * scale_T1).astype(np.float32)
    weight_D = rng.uniform(0.5, 2, width).astype(np.float32)
    return Case(
        f"T{tokens} D{width} {dtype}",
        lambda: {"x_TD": x_TD, "weight_D": weight_D, "eps": 1e-5, "out_dtype": dtype},
        tolerance=tolerance(dtype),
        bench=bench,
        num_bytes=x_TD.nbytes + x_TD.size * dtype.itemsize,
    )
