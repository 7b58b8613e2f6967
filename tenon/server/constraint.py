"""What an output is made to match: structured output, the choice of a tool, a budget for thinking.

The one place where such wishes of a request become a constraint of its tokens (tenon.core.structured). What
cannot be enforced is refused, here or by the engine: an answer that may break the promise is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from tenon.core.structured import StructuredOutputs, check_schema
from tenon.engine.jobs.work import Allowance
from tenon.errors import InvalidRequest
from tenon.grammar.answer import in_format
from tenon.grammar.calls import Tool, Wanted
from tenon.grammar.values import Inexpressible
from tenon.server.dialect import Dialect
from tenon.server.engine import Engine
from tenon.server.errors import ApiError, bad_request
from tenon.server.limits import Limits
from tenon.server.schema.chat import JsonSchema
from tenon.server.schema.decode import convert
from tenon.server.turn import Turn


class Constraint(msgspec.Struct, frozen=True):
    """Fields of SamplingParams, the field of the request that the grammar among them was made of, and the
    schemas that went into it, by where they stand in the request."""

    params: dict[str, Any]
    made_of: str
    schemas: Mapping[str, dict[str, Any]]

    async def blamed(self, error: InvalidRequest, engine: Engine, allowance: Allowance) -> InvalidRequest:
        """An error of the engine. What it says of a grammar made of tools is said of the schema at fault, and
        without the grammar, which the client has never seen."""
        if error.code != "invalid_grammar" or self.made_of != "tools":
            return error
        if (
            "JSON schema" in str(error)
            and (found := await _faulty(self.schemas, engine, allowance)) is not None
        ):
            return found
        return InvalidRequest(str(error).partition("\n")[0], error.param, error.code)


async def constrain(
    turn: Turn,
    dialect: Dialect,
    engine: Engine,
    limits: Limits,
    tools: list[dict[str, Any]] | None,
    tail: str,
    prefill: str,
) -> Constraint:
    """`tools` are those that the model may call, None if it may call none; `tail` is how the prompt ends,
    `prefill` what of the answer it holds. Raises ApiError or InvalidRequest."""
    table = dialect.table
    outputs = text_constraint(turn.response_format, turn.structured_outputs, limits)
    made_of = "structured_outputs" if turn.response_format is None else "response_format"
    calls = _wanted(turn, dialect, tools, outputs, limits)
    schemas = {}
    if calls is not None:
        made_of = "tools"
        schemas = _schemas(turn, calls)
    try:
        outputs, thinking = in_format(
            table,
            outputs,
            calls,
            encode=lambda text: engine.tokenizer.encode(text, False),
            special=dialect.special,
            tail=tail,
            prefill=prefill,
        )
    except Inexpressible as error:
        if (found := await _faulty(schemas, engine, limits.allowance)) is not None:
            raise found from None
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
    return Constraint(params, made_of, schemas)


async def _faulty(
    schemas: Mapping[str, dict[str, Any]], engine: Engine, allowance: Allowance
) -> InvalidRequest | None:
    """The first schema that cannot be enforced in any format. Looking takes time, so only after a failure."""
    for where, schema in schemas.items():
        try:
            await engine.try_grammar(StructuredOutputs(json=schema), allowance)
        except InvalidRequest as error:
            return InvalidRequest(f"{where}: {error}", where, "invalid_grammar")
    return None


def _schemas(turn: Turn, calls: Wanted) -> dict[str, dict[str, Any]]:
    """The schemas of a grammar of calls, by where they stand in the request."""
    wanted = {tool.name: tool.parameters for tool in calls.tools}
    schemas = {
        f"tools[{index}].function.parameters": dict(parameters)
        for index, tool in enumerate(turn.tools)
        if (parameters := wanted.get(tool["function"]["name"]))
    }
    if calls.content is not None and isinstance(calls.content.json, dict):
        schemas["structured_outputs" if turn.response_format is None else "response_format"] = (
            calls.content.json
        )
    return schemas


def _wanted(
    turn: Turn,
    dialect: Dialect,
    tools: list[dict[str, Any]] | None,
    outputs: StructuredOutputs | None,
    limits: Limits,
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
    names = {function["name"] for function in functions}
    size = 0  # of the schemas together, which all go into one grammar
    for index, tool in enumerate(tools or ()):
        if tool["function"]["name"] in names:
            where = f"tools[{index}].function.parameters"
            _check_parameters(parameters := tool["function"].get("parameters"), where, limits)
            size += len(json.dumps(parameters))
            limits.hold("grammar_chars", size, "tools")
    return Wanted(
        tools=[Tool(function["name"], function.get("parameters")) for function in functions],
        forced=forced,
        parallel=turn.parallel_tool_calls,
        content=None if forced else outputs,
        templates=dialect.templates,
    )


def _check_parameters(parameters: dict[str, Any] | None, where: str, limits: Limits) -> None:
    check_schema(parameters, where, limits.schema_bytes, limits.schema_depth)
    if parameters and (kind := parameters.get("type", "object")) != "object":
        raise InvalidRequest(f"{where} must be a schema of type 'object', not {kind!r}", where)


def text_constraint(
    response_format: Any, structured_outputs: Any, limits: Limits
) -> StructuredOutputs | None:
    """OpenAI's and vLLM's objects; None if they ask for nothing. Raises ApiError or InvalidRequest."""
    outputs = _asked(response_format, structured_outputs)
    if outputs is not None:
        field = "structured_outputs" if structured_outputs is not None else "response_format"
        _hold(outputs, limits, field)
    return outputs


def _hold(outputs: StructuredOutputs, limits: Limits, field: str) -> None:
    """Raises ApiError or InvalidRequest for a constraint that is beyond a limit."""
    match outputs.kind:
        case "json" | "structural_tag":
            schema = outputs.json or outputs.structural_tag
            check_schema(schema, field, limits.schema_bytes, limits.schema_depth)
        case "regex":
            limits.hold("regex_chars", len(outputs.source()), field)
        case "grammar":
            limits.hold("grammar_chars", len(outputs.source()), field)
        case "choice":
            limits.hold("choices", len(outputs.choice or ()), field)


def _asked(response_format: Any, structured_outputs: Any) -> StructuredOutputs | None:
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
        case {"type": "json_schema"}:
            where = "response_format.json_schema"
            schema = convert(asked.get("json_schema", {}), JsonSchema, where=where).schema
            check_schema(schema, f"{where}.schema")
            return StructuredOutputs(json=schema)
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
