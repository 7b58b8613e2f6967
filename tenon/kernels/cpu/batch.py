"""Writing a step's input into its buffers, without the dozen numpy calls of the definition."""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.memory import address, row_stride


def fill_batch(
    buffers: Batch,
    table_RB: np.ndarray,
    block_size: int,
    token_ids: list[int],
    rows: list[int],
    starts: list[int],
    counts: list[int],
    logit_rows: list[int],
) -> None:
    assert len(token_ids) <= len(buffers.token_ids_T)
    assert len(rows) <= len(buffers.context_len_R)
    assert len(logit_rows) <= len(buffers.logit_rows_S)
    _native.fill_batch(
        address(buffers.token_ids_T),
        address(buffers.positions_T),
        address(buffers.slots_T),
        address(buffers.query_start_R1),
        address(buffers.context_len_R),
        address(buffers.block_table_RB),
        row_stride(buffers.block_table_RB),
        address(buffers.logit_rows_S),
        address(table_RB),
        row_stride(table_RB),
        block_size,
        token_ids,
        rows,
        starts,
        counts,
        logit_rows,
    )
