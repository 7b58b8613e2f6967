"""The states that a step's requests go on from, as the kernels of recurrent layers take them."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.errors import UnsupportedOp
from tenon.kernels.cpu.memory import dense

MULTIPLE = 16  # of the width of a state's rows: whole vectors


def step_states(batch: Batch) -> tuple[int, int, int, int]:
    """Where tokens, the slots read and the slots written begin; the number of requests."""
    assert batch.state_in_R is not None
    assert batch.state_out_R is not None
    return (
        dense(batch.query_start_R1, np.int32),
        dense(batch.state_in_R, np.int32),
        dense(batch.state_out_R, np.int32),
        batch.num_requests,
    )


def check_width(width: int) -> None:
    """Raises UnsupportedOp for a state whose rows have this width."""
    if width % MULTIPLE or not width:
        raise UnsupportedOp(
            f"the CPU's states need values of a multiple of {MULTIPLE} elements, not {width}; "
            "TENON_BACKEND=reference can run others, slowly"
        )
