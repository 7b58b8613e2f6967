"""What the engine keeps about running requests as arrays, one row each: a step gathers from them.

Shape letters: R rows, B blocks of the longest request.
"""

from __future__ import annotations

import numpy as np

from tenon.core.request import Request
from tenon.core.schedule import Schedule


class Table:
    """Rows come and go with running requests. `version` changes whenever a row changes hands."""

    def __init__(self, max_num_seqs: int, max_blocks: int) -> None:
        rows = max_num_seqs
        self.version = 0
        self.block_table_RB = np.zeros((rows, max_blocks), np.int32)
        self.temperature_R = np.zeros(rows, np.float32)
        self.top_k_R = np.zeros(rows, np.int32)
        self.top_p_R = np.ones(rows, np.float32)
        self.min_p_R = np.zeros(rows, np.float32)
        self.seed_R = np.zeros(rows, np.uint64)
        self.choice_R = np.zeros(rows, np.int32)
        self._num_blocks = [0] * rows  # blocks of each row that are written in the table
        self._free: list[int] = []
        self.clear()

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return len(self._num_blocks) - len(self._free)

    def update(self, step: Schedule) -> None:
        """Follow what the scheduler decided."""
        for request in step.preempted:
            self.leave(request)
        for request in step.entered:
            self._enter(request)
        for request in step.grown:
            self._write_blocks(request)

    def leave(self, request: Request) -> None:
        """Free the row of a request that does not run any more; nothing if it has none."""
        if request.row >= 0:
            self._free.append(request.row)
            request.row = -1
            self.version += 1

    def clear(self) -> None:
        """Free all rows; the requests have forgotten theirs."""
        self._free = list(range(len(self._num_blocks) - 1, -1, -1))
        self.version += 1

    def _enter(self, request: Request) -> None:
        assert request.row < 0, f"{request} has a row"
        row = request.row = self._free.pop()
        self.version += 1
        params = request.params
        self.temperature_R[row] = params.temperature
        self.top_k_R[row] = params.top_k
        self.top_p_R[row] = params.top_p
        self.min_p_R[row] = params.min_p
        self.seed_R[row] = params.seed or 0
        self.choice_R[row] = request.choice
        self._num_blocks[row] = 0
        self._write_blocks(request)

    def _write_blocks(self, request: Request) -> None:
        row, blocks = request.row, request.blocks
        first = self._num_blocks[row]
        self.block_table_RB[row, first : len(blocks)] = blocks[first:]
        self._num_blocks[row] = len(blocks)
