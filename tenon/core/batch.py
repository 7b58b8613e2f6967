"""One step's input, as the model sees it.

Shape letters: T tokens, R requests, S rows whose logits are wanted, B blocks in a block table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Batch:
    """All arrays are int32, C-contiguous along the last axis, and start at addresses that stay the same
    for the life of a runner (captured plans hold them). Tokens of one request are contiguous and in order.
    """

    token_ids_T: np.ndarray
    positions_T: np.ndarray  # position of each token in its request, from 0
    slots_T: np.ndarray  # where its K/V goes: block_id * block_size + offset
    query_start_R1: np.ndarray  # request r owns tokens [query_start[r], query_start[r + 1])
    context_len_R: np.ndarray  # K/V length of each request, this step's tokens included
    block_table_RB: np.ndarray  # block ids in order of position; entries past the end are unspecified
    logit_rows_S: np.ndarray  # rows of T whose logits are wanted, ascending
    token_types_T: np.ndarray | None = None  # which of a pair's texts each token is of; for encoders
    # Of models with recurrent layers: the slot that each request's state is read from before its first token
    # of the step (-1: there is none yet, it starts from zeros), and the one written after its last, often the
    # same. No request of a step reads what another one writes.
    state_in_R: np.ndarray | None = None
    state_out_R: np.ndarray | None = None
    others: tuple[Batch, ...] = ()  # the same step for layers of groups 1, 2 ...: see `group`

    def group(self, index: int) -> Batch:
        """The step as layers of a group of caches see it: `block_table_RB` and `slots_T` are the group's."""
        return self.others[index - 1] if index else self

    @property
    def num_tokens(self) -> int:
        return self.token_ids_T.shape[0]

    @property
    def num_requests(self) -> int:
        return self.context_len_R.shape[0]
