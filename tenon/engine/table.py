"""What the engine keeps about running requests as arrays, one row each: a step gathers from them.

Shape letters: R rows, B blocks of the longest request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenon.core.request import Request
from tenon.core.schedule import Schedule
from tenon.core.spec import KVGroup


class Table:
    """Rows come and go with running requests. `version` changes whenever a row changes hands."""

    def __init__(self, max_num_seqs: int, max_blocks: int, groups: Sequence[KVGroup] = ()) -> None:
        rows = max_num_seqs
        self.groups = tuple(groups) or (KVGroup("full", 0),)  # without any, a table is kept all the same
        self.version = 0
        self.block_tables = [
            np.zeros((rows, max_blocks), np.int32) for _ in self.groups
        ]  # [R, B] of each group
        self.temperature_R = np.zeros(rows, np.float32)
        self.top_k_R = np.zeros(rows, np.int32)
        self.top_p_R = np.ones(rows, np.float32)
        self.min_p_R = np.zeros(rows, np.float32)
        self.seed_R = np.zeros(rows, np.uint64)
        self.choice_R = np.zeros(rows, np.int32)
        self._num_rows = rows
        self._written = [[0] * rows for _ in self.groups]  # blocks of each row that are in the group's table
        self._free: list[int] = []
        self.clear()

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return self._num_rows - len(self._free)

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
        self._free = list(range(self._num_rows - 1, -1, -1))
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
        for written in self._written:
            written[row] = 0
        self._write_blocks(request)

    def _write_blocks(self, request: Request) -> None:
        """Those that are new, as layers of the group count them; what was given back since stays where it is,
        and is not read."""
        row = request.row
        tables = zip(self.groups, self.block_tables, self._written, request.blocks, strict=False)
        for group, table_RB, written, blocks in tables:
            first = written[row]
            new_B = table_RB[row, first : len(blocks)]
            new_B[:] = blocks[first:]
            if group.parts > 1:
                new_B *= group.parts
            written[row] = len(blocks)
