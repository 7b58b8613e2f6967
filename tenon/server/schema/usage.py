"""Token counts of a request."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class CompletionTokensDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET

    @classmethod
    def of(cls, prompt: int, completion: int, cached: int, reasoning: int | None = None) -> Usage:
        """`reasoning` None: the output is not read for thinking."""
        details = UNSET if reasoning is None else CompletionTokensDetails(reasoning)
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached),
            completion_tokens_details=details,
        )
