"""Items of a conversation: checked and completed as they come in, and as the messages that templates read.

In between they are plain objects in the shape that the API lists them in; a kept response holds them as such.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tenon.server.answer import new_id
from tenon.server.errors import bad_request
from tenon.server.schema.decode import convert
from tenon.server.schema.responses import (
    INPUT_ITEMS,
    Asked,
    CallOutput,
    InputCall,
    InputMessage,
    InputReasoning,
    OutputText,
)

_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


def read_input(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of a request. Raises ApiError naming what is wrong."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_item(item, f"input[{index}]") for index, item in enumerate(given)]


def _item(given: dict[str, Any], where: str) -> dict[str, Any]:
    kind = given.get("type", "message")
    schema = INPUT_ITEMS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise bad_request(
            f"{where}.type must be one of {', '.join(INPUT_ITEMS)}, not {kind!r}", f"{where}.type"
        )
    item = convert(given, schema, where=where)
    if isinstance(item, InputCall):
        _check_arguments(item.arguments, f"{where}.arguments")
    return {
        "id": item.id or new_id(_PREFIXES[kind]),
        "type": kind,
        "status": item.status or "completed",
        **_own(item),
    }


def _own(item: Asked) -> dict[str, Any]:
    """What items of one kind have apart from the others."""
    match item:
        case InputMessage():
            content = item.content
            if isinstance(content, str):
                kind = "output_text" if item.role == "assistant" else "input_text"
                return {"role": item.role, "content": [{"type": kind, "text": content}]}
            return {"role": item.role, "content": [msgspec.to_builtins(_plain(part)) for part in content]}
        case InputCall():
            return {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        case CallOutput():
            return {"call_id": item.call_id, "output": msgspec.to_builtins(item.output)}
        case InputReasoning():
            return {
                "summary": msgspec.to_builtins(item.summary),
                "content": msgspec.to_builtins(item.content or []),
            }
    raise AssertionError(item)


def _plain(part: Any) -> Any:
    """A part of a former answer, without what was said about its tokens."""
    return OutputText(text=part.text) if isinstance(part, OutputText) else part


def _check_arguments(arguments: str, where: str) -> None:
    try:
        json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise bad_request(f"{where} is not JSON: {error}", where) from None


def messages_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as messages. What the assistant thought, said and called in a row is one message."""
    messages: list[dict[str, Any]] = []
    last = ""  # kind of the item before, if it is part of the assistant's last message
    for item in items:
        kind = item["type"]
        if kind == "function_call_output":
            messages.append(
                {"role": "tool", "tool_call_id": item["call_id"], "content": _text(item["output"])}
            )
            last = ""
        elif kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _text(item["content"])})
            last = ""
        else:
            if not last or (kind == last == "message"):
                messages.append({"role": "assistant", "content": ""})
            _extend(messages[-1], item)
            last = kind
    return messages


def _extend(message: dict[str, Any], item: dict[str, Any]) -> None:
    """Add an item of the assistant to its message."""
    match item["type"]:
        case "message":
            message["content"] = "\n".join(filter(None, (message["content"], _text(item["content"]))))
        case "reasoning":
            thought = _text(item["content"] or item["summary"])
            before = message.get("reasoning_content", "")
            message["reasoning_content"] = "\n".join(filter(None, (before, thought)))
        case "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            message.setdefault("tool_calls", []).append(call)


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or part.get("refusal") or "" for part in content)
