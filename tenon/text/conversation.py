"""What the prompt of a chat is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Conversation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a prompt is made of. `template` None is the tokenizer's own; `variables` are passed on to it
    (`enable_thinking` and the like). With `continues` the model goes on with the last message. `plain`: text
    of control tokens is text, wherever it stands but in the template."""

    messages: Sequence[Mapping[str, Any]]
    template: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    variables: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continues: bool = False
    plain: bool = True
