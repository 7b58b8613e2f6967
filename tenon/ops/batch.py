"""Writing a step's input into its buffers.

Shape letters: T tokens, R requests, S rows whose logits are wanted, B blocks in a block table; R1 = R + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenon.core.batch import Batch
from tenon.core.spec import KVGroup
from tenon.ops.select import op


@op(kernel=False)
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
    """Write a step into the first elements of `buffers`, whose arrays have room for it.

    Request r computes `counts[r]` >= 1 tokens, from position `starts[r]` on; its blocks are row `rows[r]` of
    the table of each group, [R, B]. `token_ids` are the tokens of all requests, in order. Of a block table
    those entries are written that a token of the step sees; others are unspecified.
    """
    num_tokens, num_requests = len(token_ids), len(rows)
    start_R, count_R = np.array(starts, np.int32), np.array(counts, np.int32)
    query_start_R1 = buffers.query_start_R1[: num_requests + 1]
    positions_T = buffers.positions_T[:num_tokens]
    buffers.token_ids_T[:num_tokens] = token_ids
    query_start_R1[0] = 0
    np.cumsum(count_R, out=query_start_R1[1:])
    np.add(start_R, count_R, out=buffers.context_len_R[:num_requests])
    request_T = np.repeat(np.arange(num_requests, dtype=np.int32), count_R)
    positions_T[:] = (start_R - query_start_R1[:-1])[request_T] + np.arange(num_tokens, dtype=np.int32)
    for index, (group, table_RB) in enumerate(zip(groups, tables, strict=True)):
        view = buffers.group(index)
        for r, (row, start, count) in enumerate(zip(rows, starts, counts, strict=True)):
            first, stop = group.first_seen(start) // block_size, -(-(start + count) // block_size)
            view.block_table_RB[r, first:stop] = table_RB[row, first:stop]
        block_T = view.block_table_RB[request_T, positions_T // block_size]
        view.slots_T[:num_tokens] = block_T * block_size + positions_T % block_size
    buffers.logit_rows_S[: len(logit_rows)] = logit_rows
