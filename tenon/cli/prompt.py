"""From a conversation to the ids of a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenon.errors import ConfigError

if TYPE_CHECKING:
    from tenon.engine.async_engine import AsyncEngine


def chat_ids(engine: AsyncEngine, messages: list[dict[str, str]]) -> list[int]:
    """The ids of `chat_text`."""
    assert engine.tokenizer is not None, "not started"
    return engine.tokenizer.encode(chat_text(engine, messages), add_special_tokens=False)


def chat_text(engine: AsyncEngine, messages: list[dict[str, str]]) -> str:
    """The conversation through the model's chat template. Raises ConfigError when it has none."""
    from tenon.text.chat import render

    tokenizer = engine.tokenizer
    assert tokenizer is not None, "not started"
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{engine.model_name} has no chat template; use `tenon generate --raw`, or --chat-template"
        )
    return render(messages, tokenizer.chat_template, tokenizer)
