"""From a request's text to token ids. Long inputs are rendered and tokenised off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from tenon.core.prompt import check_length
from tenon.errors import InvalidRequest
from tenon.server.engine import Engine
from tenon.server.errors import bad_request
from tenon.server.schema.completion import CompletionRequest
from tenon.server.turn import Turn
from tenon.util.failpoint import failpoint

T = TypeVar("T")

INLINE_CHARS = 4096  # about a millisecond of tokenising

# Tokenizing is native and leaves the GIL; two at a time leave the event loop and the engine their cores.
_threads = ThreadPoolExecutor(2, thread_name_prefix="tenon-text")


async def offload(size: int, work: Callable[[], T]) -> T:
    """Run `work` here if its input is small (`size` characters), else in a thread."""
    if size <= INLINE_CHARS:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


PROMPT_TAIL = 256  # characters that tell how a prompt ends


async def chat_prompt(
    turn: Turn,
    engine: Engine,
    size: int,
    tools: list[dict[str, Any]] | None = None,
    variables: dict[str, Any] | None = None,
) -> tuple[list[int], str]:
    """Token ids of a conversation, through the chat template, and how its text ends. Any length.

    `size`: bytes of the request's body. `variables` are the template's. Raises InvalidRequest or ApiError.
    """
    from tenon.text.chat import render  # Jinja: not needed before the first chat

    messages = turn.messages
    if not messages:
        raise bad_request("messages must not be empty", "messages")

    def work() -> tuple[list[int], str]:
        failpoint("template", messages)
        text = render(
            messages,
            None,  # the tokenizer's own
            engine.tokenizer,  # type: ignore[arg-type]
            add_generation_prompt=turn.add_generation_prompt and not turn.continues,
            tools=tools,
            **(variables or {}),
        )
        if turn.continues:
            text = up_to_final_message(text, messages[-1]["content"])
        # The template writes BOS itself.
        return encode(engine, text, turn.add_special_tokens, "messages"), text[-PROMPT_TAIL:]

    return await offload(size, work)


def up_to_final_message(rendered: str, content: Any) -> str:
    """`rendered` up to the end of the last message's text, so that the model goes on with it."""
    content = content.strip() if isinstance(content, str) else ""
    at = rendered.rfind(content)
    if not content or at < 0:
        raise bad_request(
            "continue_final_message needs a last message with text, shown as it is by the chat template",
            "continue_final_message",
        )
    return rendered[: at + len(content)]


async def completion_prompts(
    request: CompletionRequest, prompts: list[str | list[int]], engine: Engine
) -> list[tuple[str | None, list[int]]]:
    """(text if it was given, token ids) of each prompt. Raises InvalidRequest or ApiError."""
    special = request.add_special_tokens is not False
    out: list[tuple[str | None, list[int]]] = []
    for prompt in prompts:
        if isinstance(prompt, str):
            ids = await offload(len(prompt), partial(encode, engine, prompt, special, "prompt"))
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


def encode(engine: Engine, text: str, add_special_tokens: bool, field: str) -> list[int]:
    """Token ids. Raises InvalidRequest naming the API's field."""
    failpoint("tokenise", text)
    try:
        return engine.tokenizer.encode(text, add_special_tokens)
    except InvalidRequest as error:
        raise InvalidRequest(f"{field}: {error}", field, error.code) from None
