"""From a request's text to token ids.

Chat templates are programs and long texts take long, so they are for workers (`tenon.engine.jobs`); a short
text is tokenised here and now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from tenon.core.prompt import check_length
from tenon.engine.jobs.work import Chat, Text
from tenon.errors import InvalidRequest
from tenon.server.engine import Engine
from tenon.server.errors import bad_request
from tenon.server.schema.completion import CompletionRequest
from tenon.server.settings import ServerSettings
from tenon.server.turn import Turn
from tenon.text.conversation import Conversation
from tenon.util.failpoint import failpoint

T = TypeVar("T")

INLINE_CHARS = 4096  # about a millisecond of tokenising


async def in_thread(size: int, work: Callable[[], T]) -> T:
    """Run Python code that goes over `size` tokens; in a thread if they are many: others get turns."""
    return work() if size <= INLINE_CHARS else await asyncio.to_thread(work)


async def chat_prompt(
    turn: Turn,
    engine: Engine,
    settings: ServerSettings,
    tools: list[dict[str, Any]] | None = None,
    variables: dict[str, Any] | None = None,
) -> tuple[list[int], str]:
    """Token ids of a conversation, through the chat template, and how its text ends. Any length.

    `variables` are the template's. Raises InvalidRequest or ApiError.
    """
    if not turn.messages:
        raise bad_request("messages must not be empty", "messages")
    conversation = Conversation(
        messages=turn.messages,
        tools=tools,
        variables=variables or {},
        add_generation_prompt=turn.add_generation_prompt,
        continues=turn.continues,
        plain=settings.special_tokens != "all",
    )
    done = await engine.jobs.run(Chat(conversation, turn.add_special_tokens), settings.limits.allowance)
    return done.ids, done.tail


async def text_prompt(
    text: str, engine: Engine, settings: ServerSettings, add_special_tokens: bool, field: str
) -> list[int]:
    """Token ids of a text that stands for itself. Raises InvalidRequest naming the API's field."""
    plain = settings.special_tokens == "none"
    try:
        if len(text) <= INLINE_CHARS:
            failpoint("tokenise", text)
            return engine.tokenizer.encode(text, add_special_tokens, not plain)
        job = Text(text, add_special_tokens, plain)
        return (await engine.jobs.run(job, settings.limits.allowance)).ids
    except InvalidRequest as error:
        message = str(error).removeprefix("prompt: ")
        raise InvalidRequest(f"{field}: {message}", field, error.code) from None


async def completion_prompts(
    request: CompletionRequest, prompts: list[str | list[int]], engine: Engine, settings: ServerSettings
) -> list[tuple[str | None, list[int]]]:
    """(text if it was given, token ids) of each prompt. Raises InvalidRequest or ApiError."""
    special = request.add_special_tokens is not False
    out: list[tuple[str | None, list[int]]] = []
    for prompt in prompts:
        if isinstance(prompt, str):
            ids = await text_prompt(prompt, engine, settings, special, "prompt")
            out.append((prompt, ids))
        else:
            ids = prompt
            out.append((None, ids))
        check_length(len(ids), engine.max_model_len)
        check_token_ids(ids, engine.tokenizer.vocab_size)
    return out


def split_prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    """The four shapes of `prompt` as a list of prompts. Raises ApiError."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise bad_request("prompt must not be empty", "prompt")
    kinds = {type(item) for item in prompt}
    if len(kinds) > 1:
        raise bad_request("prompt must not mix text and token ids", "prompt")
    if kinds == {int}:
        return [prompt]
    return prompt


def check_token_ids(ids: list[int], vocab_size: int, field: str = "prompt") -> None:
    if not ids or (min(ids) >= 0 and max(ids) < vocab_size):
        return
    for token in ids:
        if not 0 <= token < vocab_size:
            raise bad_request(
                f"{field}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})", field
            )


def room(ids: list[int], engine: Engine, wanted: int | None, field: str) -> int:
    """Tokens to generate: `wanted`, or all that fits. Raises InvalidRequest if `wanted` does not fit."""
    left = engine.max_model_len - len(ids)
    if wanted is None:
        return left
    if wanted > left:
        raise InvalidRequest(
            f"{field} is {wanted}, but after the prompt's {len(ids)} tokens the model's context of "
            f"{engine.max_model_len} has room for {left}",
            field,
            "context_length_exceeded",
        )
    return wanted
