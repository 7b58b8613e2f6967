"""Picking rows: the hidden states whose logits are wanted.

Shape letters: T tokens, S picked rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tenon.ops.cases import EXACT, Case
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
