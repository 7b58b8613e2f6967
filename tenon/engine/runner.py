"""Runs prepared steps: forward pass, logits of the rows that need them, sampling.

Logits are made in slices of rows, so that their memory is bounded whatever requests ask for: 2,048 prompt
positions of a vocabulary of 150,000 would be 1.2 GB at once.
Shape letters: T tokens, S sampled rows, P rows of prompt tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.spec import ModelSpec
from tenon.engine.prepare import Prepared, PromptRows
from tenon.sample.sampler import Sampled, Sampler, token_logprobs

log = logging.getLogger(__name__)

LOGIT_BYTES = 64 << 20  # of one slice


class Model(Protocol):
    """What the engine asks of a model. Rows are independent of each other."""

    spec: ModelSpec

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        """hidden_TD float32; writes K and V of the batch's tokens into the layers' caches."""
        ...

    def logits(self, hidden_SD: np.ndarray) -> np.ndarray:
        """logits_SV float32 of rows of what `forward` returned."""
        ...


class Runner:
    """A model with its KV cache and sampler."""

    def __init__(self, model: Model, kv: list[Any], sampler: Sampler, logit_bytes: int = LOGIT_BYTES) -> None:
        self.model = model
        self.kv = kv
        self.sampler = sampler
        self.slice_rows = max(1, logit_bytes // (4 * model.spec.vocab_size))

    def run(self, prepared: Prepared) -> Sampled:
        """One token for each of `prepared.sampled`, in order; prompt logprobs go to their requests."""
        hidden_TD = self.model.forward(prepared.batch, self.kv)
        for rows in prepared.prompt_rows:
            self._prompt_logprobs(hidden_TD, rows)
        result = Sampled([], [])
        for begin in range(0, len(prepared.sampled), self.slice_rows):
            requests = prepared.sampled[begin : begin + self.slice_rows]
            rows_S = prepared.batch.logit_rows_S[begin : begin + self.slice_rows]
            part = self.sampler.sample(requests, self._logits(hidden_TD, rows_S))
            result.tokens += part.tokens
            result.logprobs += part.logprobs
            result.errors |= {begin + i: error for i, error in part.errors.items()}
        return result

    def _logits(self, hidden_TD: np.ndarray, rows_S: np.ndarray) -> np.ndarray:
        return self.model.logits(ops.gather_rows(hidden_TD, rows_S))

    def _prompt_logprobs(self, hidden_TD: np.ndarray, rows: PromptRows) -> None:
        request = rows.request
        assert request.prompt_logprobs is not None
        top_n = request.params.prompt_logprobs or 0
        for begin in range(0, len(rows.targets), self.slice_rows):
            targets = rows.targets[begin : begin + self.slice_rows]
            first = rows.first_row + begin
            rows_P = np.arange(first, first + len(targets), dtype=np.int32)
            logits_PV = self._logits(hidden_TD, rows_P)
            request.prompt_logprobs += token_logprobs(logits_PV, targets, [top_n] * len(targets))
