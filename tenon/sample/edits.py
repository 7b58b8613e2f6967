"""What requests change in their own logits before sampling: bias, minimum length, penalties.

Only the tokens concerned are touched: a row costs as much as the request has seen different tokens, not as
the vocabulary has. Order, as vLLM has it: logit bias, bans, then penalties.
Shape letters: V vocabulary, K different tokens seen, N entries of a bias or ban.
"""

from __future__ import annotations

import numpy as np

from tenon.core.request import Request
from tenon.core.sampling import SamplingParams


class LogitEdits:
    """The edits of one request. Follows its tokens by itself."""

    def __init__(self, request: Request, vocab_size: int) -> None:
        params = request.params
        bias = params.logit_bias or {}
        self._bias_ids_N = np.fromiter(bias.keys(), np.int64, len(bias))
        self._bias_N = np.fromiter(bias.values(), np.float32, len(bias))
        ends = request.eos_ids | request.stop_ids
        self._banned_N = np.array(sorted(t for t in ends if 0 <= t < vocab_size), np.int64)
        self._seen = SeenTokens(request.num_prompt) if has_penalties(params) else None

    def apply(self, request: Request, logits_V: np.ndarray) -> None:
        """Change one row in place."""
        params = request.params
        if len(self._bias_N):
            logits_V[self._bias_ids_N] += self._bias_N
        must_end = request.guide is not None and request.guide.must_end  # a grammar outranks a wish
        if request.num_output < params.min_tokens and not must_end:
            logits_V[self._banned_N] = -np.inf
        if self._seen is not None:
            self._seen.follow(request.tokens)
            self._seen.penalize(params, logits_V)


class SeenTokens:
    """The different tokens of a request, with how often each was emitted."""

    def __init__(self, num_prompt: int) -> None:
        self._num_prompt = num_prompt
        self._followed = 0  # of the request's tokens
        self._index: dict[int, int] = {}
        self._ids_K = np.zeros(64, np.int64)
        self._emitted_K = np.zeros(64, np.float32)

    def follow(self, tokens: list[int]) -> None:
        """Count the tokens that are new since the last call."""
        for position in range(self._followed, len(tokens)):
            token = tokens[position]
            index = self._index.setdefault(token, len(self._index))
            if index == len(self._ids_K):
                self._ids_K = np.concatenate([self._ids_K, np.zeros_like(self._ids_K)])
                self._emitted_K = np.concatenate([self._emitted_K, np.zeros_like(self._emitted_K)])
            self._ids_K[index] = token
            if position >= self._num_prompt:
                self._emitted_K[index] += 1
        self._followed = len(tokens)

    def penalize(self, params: SamplingParams, logits_V: np.ndarray) -> None:
        """Repetition (Keskar et al. 2019) divides positive logits of seen tokens, multiplies negative ones.
        Frequency and presence (OpenAI) subtract: per emission, and once if emitted at all."""
        ids_K = self._ids_K[: len(self._index)]
        emitted_K = self._emitted_K[: len(self._index)]
        values_K = logits_V[ids_K]
        if (penalty := np.float32(params.repetition_penalty)) != 1:
            values_K = np.where(values_K > 0, values_K / penalty, values_K * penalty)
        values_K -= np.float32(params.frequency_penalty) * emitted_K
        values_K -= np.float32(params.presence_penalty) * (emitted_K > 0)
        logits_V[ids_K] = values_K


def has_penalties(params: SamplingParams) -> bool:
    return bool(params.repetition_penalty != 1 or params.frequency_penalty or params.presence_penalty)


def needs_edits(params: SamplingParams) -> bool:
    return bool(params.logit_bias or params.min_tokens or has_penalties(params))
