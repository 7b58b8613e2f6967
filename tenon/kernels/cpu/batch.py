"""Writing a step's input into its buffers, without the dozen numpy calls of the definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenon.core.batch import Batch
from tenon.core.spec import KVGroup
from tenon.kernels.cpu import _native


def fill_batch(
    buffers: Batch,
    groups: Sequence[KVGroup],
    tables: Sequence[np.ndarray],
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
        buffers.token_ids_T,
        buffers.positions_T,
        buffers.query_start_R1,
        buffers.context_len_R,
        buffers.logit_rows_S,
        token_ids,
        starts,
        counts,
        logit_rows,
    )
    for index, (group, table_RB) in enumerate(zip(groups, tables, strict=True)):
        view = buffers.group(index)
        assert view.block_table_RB.shape[1] == table_RB.shape[1]
        _native.fill_group(
            view.slots_T,
            view.block_table_RB,
            table_RB,
            table_RB.shape[1],
            block_size,
            group.window,
            group.local_chunk,
            rows,
            starts,
            counts,
        )
