"""What an output is made to match: structured output, and the choice of a tool.

The one place where such wishes of a request become a constraint of its tokens. Nothing can be enforced yet,
so whatever would have to be is refused: an answer that may break the promise is worse than none.
"""

from __future__ import annotations

from typing import Any

from tenon.server.errors import not_supported
from tenon.server.turn import Turn


def constrain(turn: Turn, tools: list[dict[str, Any]] | None) -> None:
    """`tools` are those that the model may call, None if it may call none. Raises ApiError."""
    if turn.tool_choice not in ("auto", "none"):
        raise not_supported("tool_choice")
    if tools and not turn.parallel_tool_calls:
        raise not_supported("parallel_tool_calls")
    for index, tool in enumerate(turn.tools):
        if tool["function"].get("strict"):
            raise not_supported(f"tools[{index}].function.strict")
    constrain_text(turn.response_format, turn.structured_outputs)


def constrain_text(response_format: Any, structured_outputs: Any) -> None:
    """OpenAI's and vLLM's objects. Raises ApiError."""
    if response_format not in (None, {"type": "text"}):
        raise not_supported("response_format")
    if structured_outputs is not None:
        raise not_supported("structured_outputs")
