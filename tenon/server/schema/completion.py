"""Bodies of /v1/completions."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tenon.server.schema.sampling import SamplingFields
from tenon.server.schema.usage import Usage


class CompletionRequest(SamplingFields, kw_only=True):
    """`prompt` is text, token ids, or a list of either."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None
    response_format: Any = None

    # Known, and refused until it works.
    suffix: Any = None


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Parallel lists, one entry per token. `text_offset[i]` is where token i starts in the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, kw_only=True):
    """A whole choice, or a part of it in a stream: the shapes are the same in OpenAI's API."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[Any] | UnsetType = UNSET


class Completion(msgspec.Struct, kw_only=True):
    """A whole answer, or one chunk of a stream."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
