"""From a request of the Responses API to a turn."""

from __future__ import annotations

from typing import Any

from tenon.server.errors import ApiError, bad_request, not_supported
from tenon.server.metadata import check_metadata
from tenon.server.responses.items import messages_of
from tenon.server.schema.responses import (
    LOGPROBS,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponsesRequest,
    Tool,
)
from tenon.server.turn import Turn

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "stop")
_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "template_variables": "chat_template_kwargs",
    ".function.": ".",
}


def turn_of(request: ResponsesRequest, items: list[dict[str, Any]]) -> Turn:
    """`items`: the conversation so far, the request's input included. Raises ApiError."""
    _check(request)
    tools, choice = _tools(request)
    messages = messages_of(items)
    if request.instructions:
        messages.insert(0, {"role": "system", "content": request.instructions})
    return Turn(
        model=request.model,
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        template_variables=request.chat_template_kwargs or {},
        response_format=_response_format(request),
        sampling={name: value for name in _SAMPLING if (value := getattr(request, name)) is not None},
        max_tokens=request.max_output_tokens,
        logprobs=top_logprobs(request),
        priority=request.priority or 0,
        cache_salt=request.cache_salt,
        names=_NAMES,
    )


def top_logprobs(request: ResponsesRequest) -> int | None:
    """None if no logprobs were asked for."""
    asked = LOGPROBS in (request.include or ()) or request.top_logprobs
    return (request.top_logprobs or 0) if asked else None


def _check(request: ResponsesRequest) -> None:
    """Raises ApiError for what has no place in a turn."""
    if request.background and request.store is False:
        raise bad_request("background needs store: the answer is fetched later", "background")
    if (request.top_logprobs or 0) < 0:
        raise bad_request(f"top_logprobs must be at least 0, not {request.top_logprobs}", "top_logprobs")
    reasoning = request.reasoning
    for name in ("summary", "generate_summary"):
        # "auto" leaves it to the server, which shows the reasoning itself instead.
        if reasoning and getattr(reasoning, name) not in (None, "auto"):
            raise not_supported(f"reasoning.{name}")
    check_metadata(request.metadata)


def _tools(request: ResponsesRequest) -> tuple[list[dict[str, Any]], str | tuple[str]]:
    """The tools in OpenAI's other shape, and a turn's choice among them."""
    tools = [_tool(tool) for tool in request.tools or []]
    match request.tool_choice:
        case None:
            return tools, "auto"
        case "auto" | "none" | "required":
            return tools, request.tool_choice
        case {"type": "function", "name": str(name)}:
            return tools, (name,)
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            names = {tool.get("name") for tool in allowed if isinstance(tool, dict)}
            return [tool for tool in tools if tool["function"]["name"] in names], mode
    raise ApiError(
        400,
        'tool_choice must be "auto", "none", "required", a function or allowed_tools',
        param="tool_choice",
        code="invalid_value",
    )


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    for name in ("description", "parameters", "strict"):
        if (value := getattr(tool, name)) is not None:
            function[name] = value
    return {"type": "function", "function": function}


def _response_format(request: ResponsesRequest) -> dict[str, Any] | None:
    """Chat completions' object."""
    match request.text and request.text.format:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat(name=name, schema=schema, description=description, strict=strict):
            rest = {"description": description, "strict": strict}
            given = {key: value for key, value in rest.items() if value is not None}
            return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, **given}}
    return None
