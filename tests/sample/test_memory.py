"""Memory of logprobs, which anybody may ask for: bounded whatever the prompt and the vocabulary are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tenon.core.messages import AddRequest
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.engine.loader import LOGIT_BYTES
from tenon.engine.prepare import PromptRows
from tenon.engine.runner import Runner
from tenon.sample.sampler import Sampler, token_logprobs

VOCAB = 200_000
MiB = 1 << 20


class Passes:
    """Fake logits, in one buffer as a plan has it. `most`: rows that were asked for at once."""

    def __init__(self, rows: int) -> None:
        self.logits_SV = np.random.default_rng().standard_normal((rows, VOCAB), np.float32)
        self.most = 0

    def logits(self, rows_S: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows_S))
        return self.logits_SV[: len(rows_S)]


def request(prompt: int = 1, **params) -> Request:
    add = AddRequest(
        request_id="x", prompt_token_ids=[1] * prompt, params=SamplingParams(seed=1, max_tokens=1, **params)
    )
    return Request(add, 0, prompt + 1)


def peak(work) -> int:
    """Bytes that `work` had allocated at once; numpy's arrays count."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def passes() -> Passes:
    return Passes(LOGIT_BYTES // (4 * VOCAB))


@pytest.mark.parametrize("prompt", [300, pytest.param(8192, marks=pytest.mark.long)])
def test_logprobs_of_a_long_prompt(passes, prompt):
    """8,192 positions of 200,000 logits would be 6.6 GB; 20 entries of each are what the client gets."""
    runner = Runner(None, passes, None, None, len(passes.logits_SV))  # type: ignore[arg-type]
    asked = request(prompt, prompt_logprobs=20)
    rows = PromptRows(asked, 0, asked.tokens[1:])
    entries = peak(lambda: runner._prompt_logprobs(rows))
    assert len(asked.prompt_logprobs) == prompt - 1
    assert 4 * VOCAB * passes.most <= LOGIT_BYTES
    kept = peak(lambda: [[*range(1000, 1020)] + [0.5 + i for i in range(20)] for _ in range(prompt)])
    assert entries <= LOGIT_BYTES + 3 * kept


def test_logprobs_of_a_batch(passes):
    count = len(passes.logits_SV)
    used = peak(lambda: token_logprobs(passes.logits_SV, [5] * count, [20] * count))
    assert used <= LOGIT_BYTES


def test_sampling_a_slice_needs_one_more_of_it_at_most(passes):
    """The raw logits are kept beside those that edits and masks change."""
    count = len(passes.logits_SV)

    class Rows:
        version = 0
        temperature_R = np.ones(count, np.float32)
        top_k_R = np.zeros(count, np.int32)
        top_p_R = np.full(count, 0.9, np.float32)
        min_p_R = np.zeros(count, np.float32)
        seed_R = np.arange(count, dtype=np.uint64)
        choice_R = np.zeros(count, np.int32)

    sampler = Sampler(Rows(), VOCAB)
    requests = [request(logprobs=20, logit_bias={3: 1.0}) for _ in range(count)]
    for row, asked in enumerate(requests):
        asked.row = row
        sampler.admit(asked)
    logits_SV = passes.logits_SV.copy()
    used = peak(lambda: sampler.sample(requests, logits_SV))
    assert used <= 2 * LOGIT_BYTES
