"""How likely a model finds a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenon import ops
from tests.models.driver import Driver

CHUNK = 500


def mean_nll(model: Any, ids: list[int], seed: int) -> float:
    """Mean negative log-likelihood of the tokens after the first, in nats."""
    driver = Driver(model, np.random.default_rng(seed), num_sequences=1, max_len=2048)
    total = 0.0
    for start in range(0, len(ids) - 1, CHUNK):
        chunk, targets = ids[start : start + CHUNK], np.array(ids[start + 1 : start + CHUNK + 1], np.int32)
        (logits_SV,) = driver.step([(0, chunk)])
        logprob_S, *_ = ops.logprobs(logits_SV[: len(targets)], targets, 1)
        total -= float(np.sum(logprob_S, dtype=np.float64))
    return total / (len(ids) - 1)
