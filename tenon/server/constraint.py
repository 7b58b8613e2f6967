"""What an output is made to match: structured output, the choice of a tool, a budget for thinking.

The one place where such wishes of a request become a constraint of its tokens (tenon.core.structured). What
cannot be enforced is refused, here or by the engine: an answer that may break the promise is worse than none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tenon.core.structured import StructuredOutputs, check_schema
from tenon.errors import InvalidRequest
from tenon.grammar.answer import in_format
from tenon.grammar.calls import Tool, Wanted
from tenon.grammar.values import Inexpressible
from tenon.server.dialect import Dialect
from tenon.server.engine import Tokenizer
from tenon.server.errors import ApiError, bad_request
from tenon.server.turn import Turn


class Constraint(msgspec.Struct, frozen=True):
    """Fields of SamplingParams, and the field of the request that the grammar among them was made of."""

    params: dict[str, Any]
    made_of: str


def constrain(
    turn: Turn,
    dialect: Dialect,
    tokenizer: Tokenizer,
    tools: list[dict[str, Any]] | None,
    tail: str,
    prefill: str,
) -> Constraint:
    """`tools` are those that the model may call, None if it may call none; `tail` is how the prompt ends,
    `prefill` what of the answer it holds. Raises ApiError or InvalidRequest."""
    table = dialect.table
    outputs = text_constraint(turn.response_format, turn.structured_outputs)
    made_of = "structured_outputs" if turn.response_format is None else "response_format"
    calls = _wanted(turn, dialect, tools, outputs)
    if calls is not None:
        made_of = "tools"
    try:
        outputs, thinking = in_format(
            table,
            outputs,
            calls,
            encode=lambda text: tokenizer.encode(text, False),
            special=dialect.special,
            tail=tail,
            prefill=prefill,
        )
    except Inexpressible as error:
        raise ApiError(
            400,
            f"{made_of} cannot be enforced in this model's output format, {dialect.name}: {error}",
            param=made_of,
            code="not_supported",
        ) from None
    if thinking is None and turn.thinking_budget is not None:
        raise ApiError(
            400,
            f"thinking_budget is not supported: this model's output format, {dialect.name}, has no thinking",
            param="thinking_budget",
            code="not_supported",
        )
    params = {
        "structured_outputs": outputs,
        "thinking": thinking,
        "thinking_token_budget": turn.thinking_budget,
    }
    return Constraint(params, made_of)


def _wanted(
    turn: Turn, dialect: Dialect, tools: list[dict[str, Any]] | None, outputs: StructuredOutputs | None
) -> Wanted | None:
    """What the answer's calls are held to; None if they are not."""
    choice = turn.tool_choice
    functions = [tool["function"] for tool in tools or ()]
    forced = choice == "required" or isinstance(choice, tuple)
    if forced and not functions:
        raise bad_request("tool_choice asks for a call, and there are no tools", "tool_choice")
    if isinstance(choice, tuple):
        functions = [function for function in functions if function["name"] == choice[0]]
        if not functions:
            raise bad_request(f"tool_choice names {choice[0]!r}, which is none of the tools", "tool_choice")
    strict = any(function.get("strict") for function in functions)
    if not functions or not (forced or strict or outputs or not turn.parallel_tool_calls):
        return None
    for index, function in enumerate(functions):
        check_schema(function.get("parameters"), f"tools[{index}].function.parameters")
    return Wanted(
        tools=[Tool(function["name"], function.get("parameters")) for function in functions],
        forced=forced,
        parallel=turn.parallel_tool_calls,
        content=None if forced else outputs,
        templates=dialect.templates,
    )


def text_constraint(response_format: Any, structured_outputs: Any) -> StructuredOutputs | None:
    """OpenAI's and vLLM's objects; None if they ask for nothing. Raises ApiError or InvalidRequest."""
    asked = None if response_format in (None, {"type": "text"}) else response_format
    if asked is not None and structured_outputs is not None:
        raise bad_request("response_format and structured_outputs exclude each other", "response_format")
    if structured_outputs is not None:
        return _of_vllm(structured_outputs)
    return None if asked is None else _of_openai(asked)


def _of_openai(asked: Any) -> StructuredOutputs:
    match asked:
        case {"type": "json_object"}:
            return StructuredOutputs(json_object=True)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            check_schema(schema, "response_format.json_schema.schema")
            return StructuredOutputs(json=schema)
        case {"type": "json_schema"}:
            raise bad_request(
                'response_format of type json_schema needs {"json_schema": {"name": ..., "schema": {...}}}',
                "response_format.json_schema.schema",
            )
        case {"type": "structural_tag"}:
            return StructuredOutputs(structural_tag=asked)
    raise bad_request(
        "response_format.type must be text, json_object, json_schema or structural_tag",
        "response_format.type",
    )


def _of_vllm(asked: Any) -> StructuredOutputs:
    known = StructuredOutputs.__struct_fields__
    if not isinstance(asked, dict):
        raise bad_request("structured_outputs must be an object", "structured_outputs")
    for name in asked:
        if name not in known:
            raise bad_request(
                f"structured_outputs.{name} is not known, but {', '.join(known)} are",
                f"structured_outputs.{name}",
                "unknown_field",
            )
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return msgspec.convert(given, StructuredOutputs)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"structured_outputs: {error}", "structured_outputs") from None
