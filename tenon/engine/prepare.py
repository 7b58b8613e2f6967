"""From what is scheduled to what the model reads: one step's `Batch`, at addresses that never change.

Shape letters: T tokens, R requests, S sampled rows, B blocks of the longest request; R1 = R + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.request import Request
from tenon.core.schedule import Schedule
from tenon.engine.table import Table
from tenon.util.failpoint import failpoint

EXAMPLE_COUNTS = [1, 2, 3, 3, 4]
EXAMPLE_LOGIT_ROWS = 3
EXAMPLE_RUN = (
    1,
    1,
    1,
)  # its first token: all that is computed of it, as reading every weight once takes long


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Rows whose logits say how likely prompt tokens were: row `first_row + i` predicts `targets[i]`."""

    request: Request
    first_row: int
    targets: list[int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A step, ready to run. `sampled` are the requests that own `batch.logit_rows_S`, in order: those whose
    last known token it computes."""

    batch: Batch
    sampled: list[Request]
    prompt_rows: list[PromptRows]
    requests: list[Request]  # all of the step's, in the order of the batch


class Preparer:
    """The buffers of the step's input."""

    def __init__(
        self,
        table: Table,
        *,
        max_tokens: int,
        max_num_seqs: int,
        block_size: int,
        stateful: bool = False,
    ) -> None:
        max_tokens = max(max_tokens, sum(EXAMPLE_COUNTS))
        max_num_seqs = max(max_num_seqs, len(EXAMPLE_COUNTS))
        self.max_tokens = max_tokens
        self.max_num_seqs = max_num_seqs
        self._table = table
        self._block_size = block_size
        first = Batch(
            token_ids_T=np.zeros(max_tokens, np.int32),
            positions_T=np.zeros(max_tokens, np.int32),
            slots_T=np.zeros(max_tokens, np.int32),
            query_start_R1=np.zeros(max_num_seqs + 1, np.int32),
            context_len_R=np.zeros(max_num_seqs, np.int32),
            block_table_RB=np.zeros((max_num_seqs, table.block_tables[0].shape[1]), np.int32),
            logit_rows_S=np.zeros(max_num_seqs, np.int32),
            token_types_T=np.zeros(max_tokens, np.int32),
            state_in_R=np.zeros(max_num_seqs, np.int32) if stateful else None,
            state_out_R=np.zeros(max_num_seqs, np.int32) if stateful else None,
        )
        others = [
            replace(
                first,
                slots_T=np.zeros_like(first.slots_T),
                block_table_RB=np.zeros_like(first.block_table_RB),
            )
            for _ in table.block_tables[1:]
        ]
        self._buffers = replace(first, others=tuple(others))
        self._sizes = (0, 0, 0)
        self._batch = self._first(*self._sizes)
        self._types_used = 0  # so many of the token types may differ from 0

    def example(self) -> Batch:
        """A made-up batch, in the buffers of all batches, to record plans with: its numbers of tokens,
        requests and logit rows differ from each other, and from the number of requests plus one."""
        counts = EXAMPLE_COUNTS
        rows, starts = [0] * len(counts), [0] * len(counts)
        return self._fill([0] * sum(counts), rows, starts, counts, list(range(EXAMPLE_LOGIT_ROWS)))

    def prepare(self, step: Schedule) -> Prepared:
        """Fill the buffers. The batch holds until the next call."""
        ids: list[int] = []
        rows: list[int] = []
        starts: list[int] = []
        last_rows: list[int] = []
        sampled: list[Request] = []
        prompt_rows: list[PromptRows] = []
        typed = False
        for request, count in zip(step.requests, step.num_tokens, strict=True):
            failpoint("prepare", request)
            tokens, start = request.tokens, request.num_computed
            end = start + count
            if request.prompt_logprobs is not None and request.wants_prompt_logprobs:
                _add_prompt_rows(prompt_rows, request, start, end, len(ids))
            typed = typed or bool(request.token_types)
            if count == 1:
                ids.append(tokens[start])
            else:
                ids += tokens[start:end]
            rows.append(request.row)
            starts.append(start)
            if end == len(tokens):
                sampled.append(request)
                last_rows.append(len(ids) - 1)
        self._fill_states(step.requests)
        batch = self._fill(ids, rows, starts, step.num_tokens, last_rows)
        if typed or self._types_used:
            self._fill_types(step)
        return Prepared(batch, sampled, prompt_rows, step.requests)

    def _fill_types(self, step: Schedule) -> None:
        types_T = self._buffers.token_types_T
        assert types_T is not None
        types_T[: self._types_used] = self._types_used = 0
        at = 0
        for request, count in zip(step.requests, step.num_tokens, strict=True):
            if request.token_types:
                start = request.num_computed
                types_T[at : at + count] = request.token_types[start : start + count]
                self._types_used = at + count
            at += count

    def _fill(
        self, ids: list[int], rows: list[int], starts: list[int], counts: list[int], logit_rows: list[int]
    ) -> Batch:
        ops.fill_batch(
            self._buffers,
            self._table.groups,
            self._table.block_tables,
            self._block_size,
            ids,
            rows,
            starts,
            counts,
            logit_rows,
        )
        sizes = (len(ids), len(rows), len(logit_rows))
        if (
            sizes != self._sizes
        ):  # as long as the same requests decode, it is the same batch with other contents
            self._sizes, self._batch = sizes, self._first(*sizes)
        return self._batch

    def _fill_states(self, requests: list[Request]) -> None:
        buffers = self._buffers
        if buffers.state_in_R is not None and buffers.state_out_R is not None:
            buffers.state_in_R[: len(requests)] = [request.state_in for request in requests]
            buffers.state_out_R[: len(requests)] = [request.state_out for request in requests]

    def _first(self, num_tokens: int, num_requests: int, num_logit_rows: int) -> Batch:
        """The first elements of the buffers, for each group."""
        all_ = self._buffers
        assert all_.token_types_T is not None
        first = Batch(
            all_.token_ids_T[:num_tokens],
            all_.positions_T[:num_tokens],
            all_.slots_T[:num_tokens],
            all_.query_start_R1[: num_requests + 1],
            all_.context_len_R[:num_requests],
            all_.block_table_RB[:num_requests],
            all_.logit_rows_S[:num_logit_rows],
            all_.token_types_T[:num_tokens],
            None if all_.state_in_R is None else all_.state_in_R[:num_requests],
            None if all_.state_out_R is None else all_.state_out_R[:num_requests],
        )
        if not all_.others:
            return first
        others = [
            replace(
                first, slots_T=view.slots_T[:num_tokens], block_table_RB=view.block_table_RB[:num_requests]
            )
            for view in all_.others
        ]
        return replace(first, others=tuple(others))


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
