"""What makes one vector of a sequence, and what heads do with it.

Shape letters: T tokens, R sequences, D width, N outputs of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import to_numpy, to_torch
from tenon.ops.cases import Args, Case, Tolerance
from tenon.ops.select import Op, op


@op()
def sum_rows(x_TD: np.ndarray, query_start_R1: np.ndarray, sum_RD: np.ndarray) -> np.ndarray:
    """sum_RD, to which rows [start[r], start[r + 1]) of x are added in place, one after the other; float32.

    The order is part of the definition: a sum taken in pieces, over several steps, has the same bits.
    """
    for r, sum_D in enumerate(sum_RD):
        for x_D in x_TD[query_start_R1[r] : query_start_R1[r + 1]]:
            sum_D += x_D
    return sum_RD


@op()
def tanh(x_RN: np.ndarray) -> np.ndarray:
    """tanh(x), float32."""
    return to_numpy(to_torch(x_RN).tanh())


@op()
def sigmoid(x_RN: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float32."""
    return to_numpy(to_torch(x_RN).sigmoid())


@op()
def softmax(x_RN: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) of each row, float32."""
    return to_numpy(to_torch(x_RN).softmax(-1))


@op()
def unit_rows(x_RN: np.ndarray) -> np.ndarray:
    """x / |x| of each row, float32; rows shorter than 1e-12 are divided by that."""
    import torch

    return to_numpy(torch.nn.functional.normalize(to_torch(x_RN), dim=-1))


@sum_rows.with_cases
def sum_cases(rng: np.random.Generator) -> Iterator[Case]:
    for lengths, width in [([1], 64), ([3, 0, 40, 1], 384), ([7, 300], 17)]:
        yield _sum_case(rng, lengths, width)


def _sum_case(rng: np.random.Generator, lengths: list[int], width: int) -> Case:
    starts_R1 = np.cumsum([0, *lengths]).astype(np.int32)
    x_TD = rng.standard_normal((starts_R1[-1], width)).astype(np.float32)
    sum_RD = rng.standard_normal((len(lengths), width)).astype(np.float32)

    def build() -> Args:
        return {"x_TD": x_TD, "query_start_R1": starts_R1, "sum_RD": sum_RD.copy()}

    return Case(f"D{width} lengths {lengths}", build, Tolerance(0.0, 0.0))


def _rows_of(scale: float) -> Callable[[np.random.Generator], Iterator[Case]]:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for rows, width in [(1, 1), (5, 3), (9, 384), (40, 1000)]:
            x_RN = (scale * rng.standard_normal((rows, width))).astype(np.float32)
            x_RN[rng.integers(0, rows)] *= rng.choice([0, 1, 30])
            args: dict[str, Any] = {"x_RN": x_RN}
            yield Case(f"R{rows} N{width}", lambda args=args: args, Tolerance(2e-6, 1e-6))  # type: ignore[misc]

    return cases


_ROWWISE: list[Op[..., Any]] = [tanh, sigmoid, softmax, unit_rows]
for _op in _ROWWISE:
    _op.with_cases(_rows_of(2.0))
