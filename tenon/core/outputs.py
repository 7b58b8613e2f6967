"""What users get back. Attribute names are those that vLLM's users know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Logprob(msgspec.Struct):
    """Log-probability (nats, from the raw model distribution) and 1-based rank of one token."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


# For one position: token id -> Logprob; holds the chosen token and the most likely ones.
TokenLogprobs = dict[int, Logprob]


class CompletionOutput(msgspec.Struct, kw_only=True):
    """One of the `n` choices of a request. Cumulative, never a delta."""

    index: int
    text: str = ""
    token_ids: Sequence[int] = []  # a list once finished; before, a view that nobody may change
    cumulative_logprob: float | None = None
    logprobs: Sequence[TokenLogprobs] | None = None
    finish_reason: str | None = None  # "stop", "length", "abort", "error"
    stop_reason: int | str | None = None  # the stop token id or stop string that ended it; None for EOS

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None


class RequestOutput(msgspec.Struct, kw_only=True):
    """State of a whole request: its prompt and all of its choices."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[TokenLogprobs | None] | None = None  # first entry None: nothing predicts it
    outputs: list[CompletionOutput] = []
    finished: bool = False
    num_cached_tokens: int = 0
    queued_seconds: float = 0.0  # from arrival until the engine took it up
    num_started: int = 0  # choices that the engine has taken up
    seed: int | None = None  # the seed in force, drawn at admission when the request gave none


class PoolingOutput(msgspec.Struct, kw_only=True):
    """`data` is a float32 array: one vector, or with the task token_embed one for each token.

    `embedding`, `probs` and `score` are names for it, as vLLM's users know them.
    """

    data: Any

    @property
    def embedding(self) -> Any:
        return self.data

    @property
    def probs(self) -> Any:
        """A classifier's number for each label."""
        return self.data

    @property
    def score(self) -> float:
        """Of a model with one label."""
        return float(self.data[0])


class PoolingRequestOutput(msgspec.Struct, kw_only=True):
    """What a model that gives vectors made of one input."""

    request_id: str
    prompt_token_ids: list[int]
    outputs: PoolingOutput
    num_cached_tokens: int = 0
    finished: bool = True


class ScoringOutput(msgspec.Struct, kw_only=True):
    score: float


class ScoringRequestOutput(msgspec.Struct, kw_only=True):
    """How well two texts go together. `prompt_token_ids` are those of both."""

    request_id: str
    prompt_token_ids: list[int]
    outputs: ScoringOutput
    finished: bool = True
