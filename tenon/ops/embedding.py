"""Token embedding, from the same packed weights that a tied output head multiplies with.

Shape letters: T tokens, V vocabulary, D model width.
"""

from __future__ import annotations

import numpy as np

from tenon.ops.linear import DenseLinear, PackedLinear
from tenon.ops.select import op


@op(shares="packed weights")
def embedding(ids_T: np.ndarray, table: PackedLinear) -> np.ndarray:
    """x_TD float32: row ids[t] of the table [V, D]; ids int32 in [0, V).

    The values are those that `linear` uses: with bfloat16 activations, weights rounded to bfloat16.
    """
    assert isinstance(table, DenseLinear)
    return table.weight_NK[ids_T]
