"""From a request of the Messages API to a turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tenon.server.errors import bad_request
from tenon.server.schema.anthropic import (
    ChoiceAny,
    ChoiceNone,
    ChoiceTool,
    CountRequest,
    Message,
    MessagesRequest,
    Text,
    Thinking,
    ThinkingDisabled,
    ThinkingEnabled,
    Tool,
    ToolResult,
    ToolUse,
)
from tenon.server.turn import Turn

_NAMES = {
    "continue_final_message": "messages",
    "stop_token_ids": "stop_sequences",
    "stop": "stop_sequences",
    "reasoning_effort": "output_config.effort",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
    "thinking_token_budget": "thinking.budget_tokens",
    "thinking_budget": "thinking.budget_tokens",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    ".function.parameters": ".input_schema",
    ".function.": ".",
}


def answer_turn(request: MessagesRequest) -> Turn:
    """Raises ApiError."""
    given = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
    sampling: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if request.stop_sequences:
        sampling["stop"] = request.stop_sequences
    if isinstance(request.thinking, ThinkingEnabled) and request.thinking.budget_tokens >= request.max_tokens:
        raise bad_request("thinking.budget_tokens must be below max_tokens", "thinking.budget_tokens")
    return msgspec.structs.replace(
        prompt_turn(request),
        sampling=sampling,
        thinking_budget=_thinking_budget(request),
        max_tokens=request.max_tokens,
        max_tokens_may_exceed=True,
    )


def prompt_turn(request: CountRequest) -> Turn:
    """What of a turn makes its prompt. Raises ApiError."""
    messages = []
    if request.system:
        messages.append({"role": "system", "content": _text(request.system)})
    for index, message in enumerate(request.messages):
        messages += _messages(message, f"messages[{index}]")
    choice = request.tool_choice
    config = request.output_config
    return Turn(
        model=request.model,
        messages=messages if request.messages else [],
        continues=bool(request.messages) and request.messages[-1].role == "assistant",
        tools=[_tool(tool) for tool in request.tools or []],
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        thinking=_thinking(request),
        reasoning_effort=config.effort if config else None,
        response_format=_response_format(request),
        names=_NAMES,
    )


def _messages(message: Message, where: str) -> list[dict[str, Any]]:
    """A message as chat templates have it; results of tools are messages of their own before the rest."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_assistant(message.content, where)]
    results = []
    texts = []
    for block in _only(message.content, (Text, ToolResult), where, message.role):
        if isinstance(block, Text):
            texts.append(block)
        else:
            results.append(
                {"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content or "")}
            )
    if texts or not results:
        results.append({"role": message.role, "content": _text(texts)})
    return results


def _assistant(blocks: list[Any], where: str) -> dict[str, Any]:
    calls = []
    texts, thoughts = [], []
    for block in _only(blocks, (Text, Thinking, ToolUse), where, "assistant"):
        if isinstance(block, Text):
            texts.append(block.text)
        elif isinstance(block, Thinking):
            thoughts.append(block.thinking)
        else:
            function = {"name": block.name, "arguments": block.input}
            calls.append({"id": block.id, "type": "function", "function": function})
    return {
        "role": "assistant",
        "content": "\n".join(texts),
        "reasoning_content": "\n".join(thoughts) or None,
        "tool_calls": calls or None,
    }


def _only(blocks: Iterable[Any], kinds: tuple[type, ...], where: str, role: str) -> Iterator[Any]:
    """The blocks, which must be of these kinds. Raises ApiError."""
    for index, block in enumerate(blocks):
        if not isinstance(block, kinds):
            name = f"{where}.content[{index}].type"
            kind = block.__struct_config__.tag
            raise bad_request(f"{name}: a message of role {role!r} has no {kind} blocks", name)
        yield block


def _text(content: str | list[Text]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _tool(tool: Tool) -> dict[str, Any]:
    """OpenAI's object."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> str | tuple[str]:
    match choice:
        case ChoiceAny():
            return "required"
        case ChoiceNone():
            return "none"
        case ChoiceTool():
            return (choice.name,)
    return "auto"


def _thinking_budget(request: CountRequest) -> int | None:
    return request.thinking.budget_tokens if isinstance(request.thinking, ThinkingEnabled) else None


def _thinking(request: CountRequest) -> bool | None:
    match request.thinking:
        case ThinkingEnabled(budget_tokens):
            if budget_tokens < 1:
                raise bad_request("thinking.budget_tokens must be at least 1", "thinking.budget_tokens")
            return True
        case ThinkingDisabled():
            return False
    return None


def _response_format(request: CountRequest) -> dict[str, Any] | None:
    """OpenAI's object."""
    if request.output_config is None or request.output_config.format is None:
        return None
    schema = {"name": "output", "schema": request.output_config.format.schema, "strict": True}
    return {"type": "json_schema", "json_schema": schema}
