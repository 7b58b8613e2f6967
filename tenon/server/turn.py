"""What chat protocols ask for, in terms of none of them: each translates its requests into a `Turn`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from tenon.errors import InvalidRequest
from tenon.server.errors import ApiError


class Turn(msgspec.Struct, kw_only=True):
    """A conversation, and how its next message is to be written.

    `messages` and `tools` are OpenAI's objects, which chat templates read. `tool_choice` is "auto", "none",
    "required", or a function's name in a tuple. `sampling` are SamplingParams fields that the request gave.
    `names` maps names of fields here (parts of their paths, in order) to those of the protocol, for errors.
    """

    model: str | None = None
    messages: list[dict[str, Any]]
    add_generation_prompt: bool = True
    continues: bool = False  # go on with the last message instead of answering it
    add_special_tokens: bool = False
    tools: list[dict[str, Any]] = []
    tool_choice: str | tuple[str] = "auto"
    parallel_tool_calls: bool = True
    thinking: bool | None = None  # None: as the model does by itself
    reasoning_effort: str | None = None
    template_variables: dict[str, Any] = {}
    response_format: Any = None  # OpenAI's object
    structured_outputs: Any = None  # vLLM's object
    thinking_budget: int | None = None  # most tokens of thinking
    sampling: dict[str, Any] = {}
    max_tokens: int | None = None  # None: all that fits
    max_tokens_may_exceed: bool = False  # the context, which then ends the answer; else that is an error
    logprobs: int | None = None
    priority: int = 0
    cache_salt: str | None = None
    names: Mapping[str, str] = {}

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.sampling.get("n") or 1

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors about fields of a turn leave in the words of the protocol."""
        try:
            yield
        except (ApiError, InvalidRequest) as error:
            ours = param = error.param or ""
            for here, there in self.names.items():
                param = param.replace(here, there)
            if param == ours:
                raise
            message = str(error).replace(ours, param, 1)
            if isinstance(error, InvalidRequest):
                raise InvalidRequest(message, param, error.code) from None
            raise ApiError(error.status, message, kind=error.kind, param=param, code=error.code) from None
