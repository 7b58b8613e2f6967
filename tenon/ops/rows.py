"""Picking rows of a matrix (hidden states whose logits are wanted, entries of an embedding table), and
converting them.

Shape letters: T tokens, S picked rows, P rows of a table, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import EXACT, Args, Case
from tenon.ops.select import op


@op()
def gather_rows(x_TD: np.ndarray, rows_S: np.ndarray) -> np.ndarray:
    """y_SD float32: row rows[s] of x float32; rows int32 in [0, T)."""
    return x_TD[rows_S]


@gather_rows.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, rows, width in [(1, 1, 64), (9, 4, 576), (33, 40, 17)]:
        yield _case(rng, tokens, rows, width)


def _case(rng: np.random.Generator, tokens: int, rows: int, width: int) -> Case:
    x_TD = rng.standard_normal((tokens, width)).astype(np.float32)
    rows_S = rng.integers(0, tokens, rows).astype(np.int32)
    return Case(f"T{tokens} S{rows} D{width}", lambda: {"x_TD": x_TD, "rows_S": rows_S}, EXACT)


@op()
def cast(x_TD: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    """y_TD out_dtype: float32 x, rounded to nearest even. May be x itself if that is its type."""
    return to_numpy(to_torch(x_TD), out_dtype)


@cast.with_cases
def cast_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [(1, 576, BFLOAT16), (7, 33, BFLOAT16), (3, 50, FLOAT32)]:
        x_TD = (rng.standard_normal((tokens, width)) * 10).astype(np.float32)
        yield Case(
            f"T{tokens} D{width} {dtype}",
            lambda x=x_TD, dtype=dtype: {"x_TD": x, "out_dtype": dtype},  # type: ignore[misc]
            EXACT,
            num_bytes=x_TD.nbytes + x_TD.size * dtype.itemsize,
        )


@op()
def add_rows(x_TD: np.ndarray, table_PD: np.ndarray, rows_T: np.ndarray) -> np.ndarray:
    """x_TD, to which row rows[t] of the table is added in place; float32; rows int32 in [0, P)."""
    x_TD += table_PD[rows_T]
    return x_TD


@add_rows.with_cases
def add_rows_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, rows, width in [(1, 1, 64), (9, 4, 384), (33, 40, 17)]:
        yield _add_rows_case(rng, tokens, rows, width)


def _add_rows_case(rng: np.random.Generator, tokens: int, rows: int, width: int) -> Case:
    x_TD = rng.standard_normal((tokens, width)).astype(np.float32)
    table_PD = rng.standard_normal((rows, width)).astype(np.float32)
    rows_T = rng.integers(0, rows, tokens).astype(np.int32)

    def build() -> Args:
        return {"x_TD": x_TD.copy(), "table_PD": table_PD, "rows_T": rows_T}

    return Case(f"T{tokens} P{rows} D{width}", build, EXACT)
