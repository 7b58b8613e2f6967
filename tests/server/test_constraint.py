"""What requests ask of their output reaches the engine as a constraint, and what it says of it comes back."""

from __future__ import annotations

import pytest

from tenon.core.structured import StructuredOutputs
from tenon.errors import InvalidRequest
from tenon.server.limits import Limits
from tests.server.test_output_format import CALL, HARMONY, HI, TEMPLATE, TOOL, body, client_of, scripted

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


async def sent(engine, path=CHAT, **fields):
    """The parameters that a request reaches the engine with."""
    response = await client_of(engine).post(path, fields)
    assert response.status_code == 200, response.text
    return engine.requests[-1].params


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, StructuredOutputs(json_object=True)),
        ({"response_format": FORMAT}, StructuredOutputs(json=SCHEMA)),
        ({"structured_outputs": {"json": SCHEMA, "regex": None}}, StructuredOutputs(json=SCHEMA)),
        ({"structured_outputs": {"regex": "a+"}}, StructuredOutputs(regex="a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, StructuredOutputs(choice=["a", "b"])),
        ({"structured_outputs": {"grammar": "start: /a/"}}, StructuredOutputs(grammar="start: /a/")),
        (
            {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
            StructuredOutputs(json_object=True, disable_any_whitespace=True),
        ),
    ],
)
async def test_what_reaches_the_engine(fields, expected):
    engine = scripted("Hi.")
    for path, start in ((CHAT, {"messages": HI}), (TEXT, {"prompt": "a"})):
        params = await sent(engine, path, **start, **fields)
        assert params.structured_outputs == expected
        if expected is not None and expected.json:
            assert list(params.structured_outputs.json["properties"]) == ["b", "a"]


async def test_both_kinds_exclude_each_other():
    fields = body(response_format={"type": "json_object"}, structured_outputs={"regex": "a"})
    status, error = await client_of(scripted("Hi.")).error(CHAT, fields)
    assert (status, error["param"]) == (400, "response_format")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": FORMAT}, "response_format"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ],
)
async def test_a_grammar_that_the_engine_refuses_is_a_400(fields, param, stream):
    engine = scripted("Hi.")
    engine.refuse = InvalidRequest("llguidance: not supported: x", "structured_outputs", "invalid_grammar")
    for path, start in ((CHAT, {"messages": HI}), (TEXT, {"prompt": "a"})):
        status, error = await client_of(engine).error(path, {**start, **fields, "stream": stream})
        assert (status, error["param"], error["code"]) == (400, param, "invalid_grammar")
        assert error["message"].startswith(param)
        assert "not supported: x" in error["message"]


async def test_thinking_reaches_the_engine():
    engine = scripted("Hi.")
    free = (await sent(engine, messages=HI)).thinking
    assert (free.pairs, free.inside, free.may_open) == ([("<think>", "</think>")], -1, True)
    assert bytes(free.closing[0]) == b"\n</think>"
    inside = (await sent(engine, messages=HI, **THINK)).thinking
    assert inside.inside == 0
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert (await sent(engine, messages=HI, **off)).thinking.may_open
    params = await sent(engine, messages=HI, response_format=FORMAT, **off)
    assert not params.thinking.may_open
    assert (await sent(engine, TEXT, prompt="a")).thinking is None
    harmony = (await sent(scripted("Hi.", TEMPLATE + HARMONY), messages=HI)).thinking
    assert harmony.pairs == [("<|channel|>analysis<|message|>", "<|end|>")]
    assert harmony.anywhere


async def test_the_budget_reaches_the_engine():
    engine = scripted("Hm.</think>Hi.")
    for name in ("thinking_token_budget", "thinking_budget"):
        params = await sent(engine, messages=HI, **THINK, **{name: 7})
        assert params.thinking_token_budget == 7
    fields = body(thinking_token_budget=7, thinking_budget=8)
    status, error = await client_of(engine).error(CHAT, fields)
    assert (status, error["param"]) == (400, "thinking_budget")


@pytest.mark.parametrize(
    ("text", "fields", "count"),
    # The last one ends while it thinks, with a token that counts.
    [("<think>Hm.</think>Hi.", {}, 3), ("Hm. Hm.</think>Hi", THINK, 7), ("Hi.", {}, 0), ("<think>Hm", {}, 3)],
)
async def test_tokens_of_reasoning_are_counted(text, fields, count):
    client = client_of(scripted(text))
    fields = body(n=2, **fields)
    usage = (await client.post(CHAT, fields)).json()["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2 * count}
    events = await client.events(CHAT, fields | {"stream_options": {"include_usage": True}})
    assert events[-1]["usage"] == usage


async def test_formats_without_thinking_count_none():
    usage = (await client_of(scripted("Hi."), output_format="plain").post(CHAT, body())).json()["usage"]
    assert "completion_tokens_details" not in usage


NAMED = {"type": "function", "function": {"name": "get_weather"}}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
STRICT = {"type": "function", "function": {**TOOL["function"], "strict": True}}


@pytest.mark.parametrize(
    ("fields", "has", "lacks"),
    [
        ({"tool_choice": "required"}, ["get_weather", "get_time", ")*"], ["T0"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["get_weather", "get_time"], [")*"]),
        ({"tool_choice": NAMED}, ["get_weather"], ["get_time"]),
        ({"parallel_tool_calls": False}, ["get_weather", "[lazy]"], [")*"]),
        ({"tools": [STRICT, CLOCK]}, ["get_weather", "[lazy]", ")*"], []),
        ({"response_format": FORMAT}, ["get_weather", '"b": {"type": "string"}'], ["[lazy]"]),
    ],
)
async def test_calls_become_a_grammar(fields, has, lacks):
    engine = scripted(CALL)
    params = await sent(engine, messages=HI, **{"tools": [TOOL, CLOCK], **fields})
    grammar = params.structured_outputs.grammar
    for text in has:
        assert text in grammar, grammar
    for text in lacks:
        assert text not in grammar, grammar


async def test_tools_without_conditions_are_not_constrained():
    assert (await sent(scripted(CALL), messages=HI, tools=[TOOL])).structured_outputs is None
    none = await sent(scripted(CALL), messages=HI, tools=[STRICT], tool_choice="none")
    assert none.structured_outputs is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
    ],
)
async def test_choices_that_cannot_be_met(fields, param):
    status, error = await client_of(scripted(CALL)).error(CHAT, body(**fields))
    assert (status, error["param"]) == (400, param)


async def test_what_a_format_cannot_promise_is_a_400():
    bad = {"type": "function", "function": {"name": "f", "parameters": {"patternProperties": {"a": {}}}}}
    client = client_of(scripted(CALL), output_format="glm45")
    status, error = await client.error(CHAT, body(tools=[bad], tool_choice="required"))
    assert (status, error["param"], error["code"]) == (400, "tools", "not_supported")
    assert "glm45" in error["message"]
    deep: dict = {}
    for _ in range(70):
        deep = {"properties": {"a": deep}}
    deep_tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    client = client_of(scripted(CALL), limits=Limits(json_depth=1000))
    status, error = await client.error(CHAT, body(tools=[deep_tool], tool_choice="required"))
    assert (status, error["param"]) == (400, "tools[0].function.parameters")


def tool(name="f", **parameters):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_that_cannot_be_enforced_is_named_and_the_grammar_is_not_shown(stream):
    """The engine knows the grammar of all tools only."""
    bad = tool(type="object", properties={"a": {"type": "array", "uniqueItems": True}})
    engine = scripted(CALL)
    text = 'llguidance: at 2(5): failed to compile JSON schema: Unimplemented\n   1 | start: "<tool_call>"'
    engine.refuse = InvalidRequest(text, "structured_outputs", "invalid_grammar")
    fields = body(tools=[CLOCK, bad], tool_choice={"type": "function", "function": {"name": "f"}})
    status, error = await client_of(engine).error(CHAT, fields | {"stream": stream})
    where = "tools[1].function.parameters"
    assert (status, error["param"], error["code"]) == (400, where, "invalid_grammar")
    assert error["message"] == f'{where}: llguidance: Unimplemented keys: ["uniqueItems"]'
    # Where no schema is at fault, the grammar is not shown either.
    status, error = await client_of(engine).error(CHAT, body(tools=[CLOCK], tool_choice="required"))
    assert (status, error["param"], error["code"]) == (400, "tools", "invalid_grammar")
    assert "start:" not in error["message"]


@pytest.mark.parametrize("output_format", ["hermes", "glm45"])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (tool(type="objekt"), "'objekt'"),
        (tool(type="array"), "'array'"),
        (tool(properties={"a": {"type": "array", "items": {"type": "strnig"}}}), "strnig"),
    ],
)
async def test_a_schema_that_is_wrong_is_not_blamed_on_the_format(output_format, bad, words):
    engine = scripted(CALL)
    text = "llguidance: failed to compile JSON schema: Invalid type"
    engine.refuse = InvalidRequest(text, "structured_outputs", "invalid_grammar")
    client = client_of(engine, output_format=output_format)
    status, error = await client.error(CHAT, body(tools=[CLOCK, bad], tool_choice="required"))
    assert (status, error["param"]) == (400, "tools[1].function.parameters")
    assert words in error["message"]
    assert output_format not in error["message"]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
async def test_two_tools_of_one_name(choice):
    fields = body(tools=[tool("a"), tool("b"), tool("a")], tool_choice=choice)
    status, error = await client_of(scripted(CALL)).error(CHAT, fields)
    assert (status, error["param"], error["code"]) == (400, "tools[2].function.name", "invalid_value")
    assert "tools[0]" in error["message"]


async def test_harmony_is_constrained_from_its_first_token():
    engine = scripted("Hi.", TEMPLATE + HARMONY)
    params = await sent(engine, messages=HI, response_format=FORMAT)
    assert "analysis" in params.structured_outputs.grammar
    assert params.thinking.in_grammar
    assert bytes(params.thinking.closing[0]) == b"<|end|>"
    status, error = await client_of(engine).error(CHAT, body(structured_outputs={"regex": "a"}))
    assert (status, error["param"], error["code"]) == (400, "structured_outputs", "not_supported")
