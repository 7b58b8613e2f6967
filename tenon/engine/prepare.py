"""From what is scheduled to what the model reads: one step's `Batch`, at addresses that never change.

Shape letters: T tokens, R requests, S sampled rows, B blocks of the longest request; R1 = R + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenon.core.batch import Batch
from tenon.core.request import Request
from tenon.core.schedule import Schedule
from tenon.engine.table import Table

EXAMPLE_COUNTS = [4, 3, 3, 2, 1]
EXAMPLE_LOGIT_ROWS = 3


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Rows whose logits say how likely prompt tokens were: row `first_row + i` predicts `targets[i]`."""

    request: Request
    first_row: int
    targets: list[int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A step, ready to run. `sampled` are the requests that own `batch.logit_rows_S`, in order."""

    batch: Batch
    sampled: list[Request]
    prompt_rows: list[PromptRows]


class Preparer:
    """The buffers of the step's input."""

    def __init__(self, table: Table, *, max_tokens: int, max_num_seqs: int, block_size: int) -> None:
        max_blocks = table.block_table_RB.shape[1]
        max_tokens = max(max_tokens, sum(EXAMPLE_COUNTS))
        max_num_seqs = max(max_num_seqs, len(EXAMPLE_COUNTS))
        self.max_tokens = max_tokens
        self.max_num_seqs = max_num_seqs
        self._table = table
        self._block_size = block_size
        self._token_ids_T = np.zeros(max_tokens, np.int32)
        self._positions_T = np.zeros(max_tokens, np.int32)
        self._slots_T = np.zeros(max_tokens, np.int32)
        self._query_start_R1 = np.zeros(max_num_seqs + 1, np.int32)
        self._context_len_R = np.zeros(max_num_seqs, np.int32)
        self._block_table_RB = np.zeros((max_num_seqs, max_blocks), np.int32)
        self._logit_rows_S = np.zeros(max_num_seqs, np.int32)
        self._arange_T = np.arange(max_tokens, dtype=np.int32)

    def example(self) -> Batch:
        """A made-up batch, in the buffers of all batches, to record plans with: its numbers of tokens,
        requests and logit rows differ from each other, and from the number of requests plus one."""
        counts = EXAMPLE_COUNTS
        ids = [0] * sum(counts)
        self._logit_rows_S[:EXAMPLE_LOGIT_ROWS] = range(EXAMPLE_LOGIT_ROWS)
        rows, starts = [0] * len(counts), [0] * len(counts)
        return self._fill(ids, rows, starts, counts, EXAMPLE_LOGIT_ROWS)

    def prepare(self, step: Schedule) -> Prepared:
        """Fill the buffers. The batch holds until the next call."""
        ids: list[int] = []
        rows: list[int] = []
        starts: list[int] = []
        last_rows: list[int] = []
        sampled: list[Request] = []
        prompt_rows: list[PromptRows] = []
        for request, count in zip(step.requests, step.num_tokens, strict=True):
            start = request.num_computed
            end = start + count
            if request.prompt_logprobs is not None and request.wants_prompt_logprobs:
                _add_prompt_rows(prompt_rows, request, start, end, len(ids))
            ids += request.tokens[start:end]
            rows.append(request.row)
            starts.append(start)
            if end == len(request.tokens):
                sampled.append(request)
                last_rows.append(len(ids) - 1)
        self._logit_rows_S[: len(sampled)] = last_rows
        batch = self._fill(ids, rows, starts, step.num_tokens, len(sampled))
        return Prepared(batch, sampled, prompt_rows)

    def _fill(
        self, ids: list[int], rows: list[int], starts: list[int], counts: list[int], num_sampled: int
    ) -> Batch:
        num_tokens, num_requests = len(ids), len(rows)
        token_ids_T = self._token_ids_T[:num_tokens]
        positions_T = self._positions_T[:num_tokens]
        slots_T = self._slots_T[:num_tokens]
        query_start_R1 = self._query_start_R1[: num_requests + 1]
        context_len_R = self._context_len_R[:num_requests]
        block_table_RB = self._block_table_RB[:num_requests]
        token_ids_T[:] = ids
        start_R = np.array(starts, np.int32)
        count_R = np.array(counts, np.int32)
        np.cumsum(count_R, out=query_start_R1[1:])
        np.add(start_R, count_R, out=context_len_R)
        # Not mode="raise", which would go through a buffer: rows are right.
        np.take(self._table.block_table_RB, rows, axis=0, out=block_table_RB, mode="clip")
        if num_tokens == num_requests:
            positions_T[:] = start_R
            block_T = block_table_RB[self._arange_T[:num_requests], positions_T // self._block_size]
        else:
            np.add(
                np.repeat(start_R - query_start_R1[:-1], count_R),
                self._arange_T[:num_tokens],
                out=positions_T,
            )
            request_T = np.repeat(self._arange_T[:num_requests], count_R)
            block_T = block_table_RB[request_T, positions_T // self._block_size]
        np.multiply(block_T, self._block_size, out=slots_T)
        slots_T += positions_T % self._block_size
        return Batch(
            token_ids_T,
            positions_T,
            slots_T,
            query_start_R1,
            context_len_R,
            block_table_RB,
            self._logit_rows_S[:num_sampled],
        )


def _add_prompt_rows(
    prompt_rows: list[PromptRows], request: Request, start: int, end: int, first_row: int
) -> None:
    """The row at position p predicts token p + 1; what an earlier run of this request made is kept."""
    assert request.prompt_logprobs is not None
    done = len(request.prompt_logprobs)  # positions 0 .. done - 1
    begin, stop = max(start, done), min(end, request.num_prompt - 1)
    if begin < stop:
        targets = request.tokens[begin + 1 : stop + 1]
        prompt_rows.append(PromptRows(request, first_row + begin - start, targets))
