"""Token embedding, from the same packed weights that a tied output head multiplies with.

Shape letters: T tokens, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core import ggml
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.cases import EXACT, Case, Tolerance, random_weight
from tenon.ops.linear import DenseLinear, PackedLinear, pack_linear
from tenon.ops.select import op


@op(shares="packed weights")
def embedding(ids_T: np.ndarray, table: PackedLinear, scale: float = 1.0) -> np.ndarray:
    """x_TD float32: scale times row ids[t] of the table [V, D]; ids int32. An id outside [0, V) gives a
    row of zeros.

    The values are those that `linear` multiplies with: in tables for bfloat16 activations, weights
    rounded to bfloat16.
    """
    assert isinstance(table, DenseLinear)
    known_T1 = ((ids_T >= 0) & (ids_T < table.shape[0]))[:, None]
    rows_TD = table.weight_NK[np.clip(ids_T, 0, table.shape[0] - 1)] * np.float32(scale)
    return np.where(known_T1, rows_TD, np.float32(0))


@embedding.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for dtype in ggml.BLOCKS:
        yield _case(rng, dtype, 7, 33, 768, BFLOAT16)
        yield _case(rng, dtype, 3, 50, 256, FLOAT32)
    yield _case(rng, "f32", 5, 20, 50, BFLOAT16)
    for tokens in (1, 512):
        yield _case(rng, "q4_1", tokens, 4096, 576, BFLOAT16, bench=True)


def _case(
    rng: np.random.Generator,
    dtype: str,
    tokens: int,
    vocab: int,
    width: int,
    act: np.dtype[Any],
    bench: bool = False,
) -> Case:
    table = random_weight(rng, dtype, vocab, width)
    ids_T = rng.integers(0, vocab, tokens).astype(np.int32)
    if not bench:
        ids_T[rng.integers(0, tokens)] = rng.choice([-1, vocab])
    scale = float(rng.choice([1.0, 0.5, 22.6]))
    exact = act == FLOAT32 or dtype == "bf16"
    return Case(
        f"{dtype} {act} T{tokens} V{vocab} D{width}",
        lambda: {"ids_T": ids_T, "table": pack_linear([table], act), "scale": scale},
        EXACT if exact else Tolerance(2.0**-7, 1e-37),
        bench=bench,
        num_bytes=tokens * (ggml.row_bytes(dtype, width) + 4 * width),
    )
