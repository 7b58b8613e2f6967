"""What users get back. Attribute names are those that vLLM's users know."""

from __future__ import annotations

from collections.abc import Sequence

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
    seed: int | None = None  # the seed in force, drawn at admission when the request gave none
