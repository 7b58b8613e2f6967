"""Runs a model by hand, as the engine would: batches over a paged cache, with block tables out of order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.spec import Model

BLOCK = 32


class Driver:
    """Sequences of tokens, each with its own blocks and two slots for states, of which it reads one and
    writes the other, or reads and writes one. `step` computes some next tokens of some of them."""

    def __init__(
        self, model: Model, rng: np.random.Generator, num_sequences: int = 4, max_len: int = 512
    ) -> None:
        self.model = model
        self.blocks_each = -(-max_len // BLOCK)
        groups = [group for group in model.spec.kv_groups if group.kind != "state"]
        order = rng.permutation(len(groups) * num_sequences * self.blocks_each).astype(np.int32)
        parts = np.array([group.parts for group in groups], np.int32)
        self.tables = order.reshape(len(groups), num_sequences, self.blocks_each) * parts[:, None, None]
        self.lengths = [0] * num_sequences
        self.rng = rng
        self.slots = rng.permutation(2 * num_sequences).astype(np.int32).reshape(num_sequences, 2)
        self.state = [-1] * num_sequences  # the slot that a sequence goes on from
        self.kv = model.kv_caches(order.size, BLOCK, self.slots.size)

    def step(self, work: Sequence[tuple[int, Sequence[int]]]) -> list[np.ndarray]:
        """For each (sequence, its next tokens): the logits [tokens, vocabulary], float32."""
        batch = self.batch(work)
        hidden_TD = self.model.forward(batch, self.kv)
        logits_SV = self.model.logits(ops.gather_rows(hidden_TD, batch.logit_rows_S))
        return np.split(np.array(logits_SV), np.cumsum([len(tokens) for _, tokens in work])[:-1])

    def batch(self, work: Sequence[tuple[int, Sequence[int]]]) -> Batch:
        positions, starts, contexts = [], [0], []
        state_in = [self.state[sequence] for sequence, _ in work]
        state_out = [int(self.rng.choice(self.slots[sequence])) for sequence, _ in work]
        for sequence, tokens in work:
            at = np.arange(self.lengths[sequence], self.lengths[sequence] + len(tokens))
            self.lengths[sequence] += len(tokens)
            positions.append(at)
            starts.append(starts[-1] + len(tokens))
            contexts.append(self.lengths[sequence])
        for (sequence, _), slot in zip(work, state_out, strict=True):
            self.state[sequence] = slot
        sequences = [sequence for sequence, _ in work]
        first, *others = (self._group_view(table, sequences, positions) for table in self.tables)
        batch = Batch(
            token_ids_T=np.concatenate([np.asarray(tokens, np.int32) for _, tokens in work]),
            positions_T=np.concatenate(positions).astype(np.int32),
            query_start_R1=np.array(starts, np.int32),
            context_len_R=np.array(contexts, np.int32),
            logit_rows_S=np.arange(starts[-1], dtype=np.int32),
            state_in_R=np.array(state_in, np.int32),
            state_out_R=np.array(state_out, np.int32),
            **first,
        )
        return replace(batch, others=tuple(replace(batch, **view) for view in others))

    def _group_view(
        self, table: np.ndarray, sequences: list[int], positions: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What layers of the group with this block table see of the step."""
        slots = [
            table[sequence][at // BLOCK] * BLOCK + at % BLOCK
            for sequence, at in zip(sequences, positions, strict=True)
        ]
        return {
            "slots_T": np.concatenate(slots).astype(np.int32),
            "block_table_RB": np.ascontiguousarray(table[sequences]),
        }
