"""Requests run through an engine, and what they were answered with, logits included."""

from __future__ import annotations

import hashlib
import random

import numpy as np

from tenon.core.messages import AddRequest
from tenon.core.sampling import SamplingParams
from tenon.engine.engine import Engine

OUTPUT_LEN = 12

Trace = tuple[list[int], list[bytes]]  # of one request: tokens, and a digest of each row of logits


class Recorder:
    """Runs requests, and keeps what they emit and the raw logits that it was sampled from."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.num_runs = 0
        sampler = engine.runner.sampler
        self._sample = sampler.sample
        sampler.sample = self._record
        self._digests: dict[str, list[bytes]] = {}

    def _record(self, requests, logits_SV: np.ndarray, masks=None):
        for request, row_V in zip(requests, logits_SV, strict=True):
            self._digests.setdefault(request.id, []).append(hashlib.sha256(row_V.tobytes()).digest())
        return self._sample(requests, logits_SV, masks)

    def run(self, adds: list[AddRequest]) -> dict[str, Trace]:
        self._digests = {}
        tokens: dict[str, list[int]] = {add.request_id: [] for add in adds}
        for add in adds:
            self.engine.handle(add)
        while self.engine.has_work:
            for output in self.engine.step().outputs:
                assert output.error is None, output.error
                tokens[output.request_id] += output.new_token_ids
        self.engine.check_integrity()
        assert self.engine.stats().kv_blocks_used == 0
        return {name: (tokens[name], self._digests[name]) for name in tokens}


def make_requests(
    rng: random.Random, lengths: list[int], vocab: int, prefix: str = "r", max_tokens: int = OUTPUT_LEN
) -> list[AddRequest]:
    """Random prompts of these lengths; half of them are answered greedily."""
    return [
        AddRequest(
            request_id=f"{prefix}{i}",
            prompt_token_ids=[rng.randrange(17, vocab) for _ in range(length)],
            params=SamplingParams(
                temperature=[0.0, 0.8][i % 2],
                max_tokens=max_tokens,
                ignore_eos=True,
                seed=rng.randrange(2**64),
            ),
        )
        for i, length in enumerate(lengths)
    ]


def check(got: dict[str, Trace], alone: dict[str, Trace]) -> None:
    for name, (tokens, digests) in alone.items():
        assert got[name][0] == tokens, name
        assert got[name][1] == digests, f"{name}: the tokens are the same, the logits are not"
