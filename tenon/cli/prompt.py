"""From a conversation to the ids of a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenon.errors import ConfigError

if TYPE_CHECKING:
    from tenon.engine.async_engine import AsyncEngine
    from tenon.text.chat import Rendered


def chat_ids(engine: AsyncEngine, messages: list[dict[str, str]]) -> list[int]:
    """The conversation through the model's chat template. Raises ConfigError when it has none."""
    assert engine.tokenizer is not None, "not started"
    return _rendered(engine, messages).encode(engine.tokenizer)


def chat_text(engine: AsyncEngine, messages: list[dict[str, str]]) -> str:
    """The text of `chat_ids`."""
    return _rendered(engine, messages).text


def _rendered(engine: AsyncEngine, messages: list[dict[str, str]]) -> Rendered:
    from tenon.text.chat import render
    from tenon.text.conversation import Conversation

    tokenizer = engine.tokenizer
    assert tokenizer is not None, "not started"
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{engine.model_name} has no chat template; use `tenon generate --raw`, or --chat-template"
        )
    return render(Conversation(messages=messages), tokenizer)
