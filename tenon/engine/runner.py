"""Runs prepared steps: forward pass, logits of the rows that need them, sampling.

Logits are made in slices of rows, so that their memory is bounded whatever requests ask for: 2,048 prompt
positions of a vocabulary of 150,000 would be 1.2 GB at once.
Shape letters: S sampled rows, P rows of prompt tokens, V vocabulary.
"""

from __future__ import annotations

import numpy as np

from tenon.core.request import Request
from tenon.core.spec import Model
from tenon.engine.passes import Passes
from tenon.engine.prepare import Prepared, PromptRows
from tenon.grammar.masks import Masker, Masks
from tenon.sample.sampler import Sampled, Sampler, token_logprobs
from tenon.util.failpoint import failpoint


class Runner:
    """A model's passes and its sampler. `slice_rows`: most rows of logits at once."""

    def __init__(
        self, model: Model, passes: Passes, sampler: Sampler, masker: Masker, slice_rows: int
    ) -> None:
        self.model = model
        self.sampler = sampler
        self.passes = passes
        self._masker = masker
        self._slice_rows = slice_rows

    def run(self, prepared: Prepared) -> Sampled:
        """One token for each of `prepared.sampled`, in order; prompt logprobs go to their requests."""
        masking = self._masker.begin(prepared.sampled)
        try:
            failpoint("execute", prepared.requests)
            self.passes.forward(prepared.batch)
            for rows in prepared.prompt_rows:
                self._prompt_logprobs(rows)
        finally:  # they are not to be filled any more when this step is over, whatever became of it
            masks = masking.result() if masking else None
        if len(prepared.sampled) <= self._slice_rows:
            return self._sample(prepared.sampled, prepared.batch.logit_rows_S, masks)
        result = Sampled([], [])
        for begin in range(0, len(prepared.sampled), self._slice_rows):
            requests = prepared.sampled[begin : begin + self._slice_rows]
            rows_S = prepared.batch.logit_rows_S[begin : begin + self._slice_rows]
            part = self._sample(requests, rows_S, masks and masks.slice(begin, begin + len(requests)))
            result.tokens += part.tokens
            result.logprobs += part.logprobs
            result.errors |= {begin + i: error for i, error in part.errors.items()}
            result.refused |= {begin + i for i in part.refused}
        return result

    def _sample(self, requests: list[Request], rows_S: np.ndarray, masks: Masks | None) -> Sampled:
        if not requests:
            return Sampled([], [])
        failpoint("sample", requests)
        return self.sampler.sample(requests, self.passes.logits(rows_S), masks)

    def _prompt_logprobs(self, rows: PromptRows) -> None:
        request = rows.request
        assert request.prompt_logprobs is not None
        top_n = request.params.prompt_logprobs or 0
        for begin in range(0, len(rows.targets), self._slice_rows):
            targets = rows.targets[begin : begin + self._slice_rows]
            first = rows.first_row + begin
            rows_P = np.arange(first, first + len(targets), dtype=np.int32)
            logits_PV = self.passes.logits(rows_P)
            request.prompt_logprobs += token_logprobs(logits_PV, targets, [top_n] * len(targets))
