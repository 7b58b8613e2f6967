"""What an output is made to match: structured output, the choice of a tool, a budget for thinking.

The one place where such wishes of a request become a constraint of its tokens (tenon.core.structured). What
cannot be enforced is refused, here or by the engine: an answer that may break the promise is worse than none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tenon.core.structured import StructuredOutputs, check_schema
from tenon.errors import InvalidRequest
from tenon.parse.thinking import switched_off, thinking_of
from tenon.server.dialect import Dialect
from tenon.server.engine import Tokenizer
from tenon.server.errors import ApiError, bad_request, not_supported
from tenon.server.turn import Turn


def constrain(
    turn: Turn,
    dialect: Dialect,
    tokenizer: Tokenizer,
    tools: list[dict[str, Any]] | None,
    tail: str,
    prefill: str,
) -> dict[str, Any]:
    """Fields of SamplingParams. `tools` are those that the model may call, None if it may call none; `tail`
    is how the prompt ends, `prefill` what of the answer it holds. Raises ApiError or InvalidRequest."""
    if turn.tool_choice not in ("auto", "none"):
        raise not_supported("tool_choice")
    if tools and not turn.parallel_tool_calls:
        raise not_supported("parallel_tool_calls")
    for index, tool in enumerate(turn.tools):
        if tool["function"].get("strict"):
            raise not_supported(f"tools[{index}].function.strict")
    outputs = text_constraint(turn.response_format, turn.structured_outputs)
    table = dialect.table
    thinking = thinking_of(table, lambda text: tokenizer.encode(text, False), tail, prefill)
    if thinking is not None and outputs is not None and switched_off(table, tail):
        thinking.may_open = False
    if thinking is None and turn.thinking_budget is not None:
        raise ApiError(
            400,
            f"thinking_budget is not supported: this model's output format, {dialect.name}, has no thinking",
            param="thinking_budget",
            code="not_supported",
        )
    return {
        "structured_outputs": outputs,
        "thinking": thinking,
        "thinking_token_budget": turn.thinking_budget,
    }


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
