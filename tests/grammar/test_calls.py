"""Whatever a model writes under the grammar of a call, the parser reads as calls that satisfy the schemas."""

import json
import random

import jsonschema
import numpy as np
import pytest

from tenon.core.structured import StructuredOutputs
from tenon.grammar import llguidance
from tenon.grammar.calls import Tool, Wanted, answer_grammar, call_grammar
from tenon.grammar.schema import closed
from tenon.grammar.values import Inexpressible
from tenon.parse import formats
from tenon.parse.machine import parse

from .schemas import random_schema
from .vocabularies import EOS, ids_of, make, text_of

FORMATS = [name for name in formats.names() if formats.load(name).calls or formats.load(name).channels]
# Formats whose calls such outputs seldom hold.
RARE = {"llama3_pythonic", "phi4_mini", "llama3_json", "llama4_pythonic", "mistral"}
SCALARS = [
    {"type": "string"},
    {"type": "string", "enum": ["a", "b c", "é"]},
    {"type": "string", "minLength": 1, "maxLength": 4},
    {"type": "string", "pattern": "^[a-c]+[0-9]$"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": -5, "maximum": 99},
    {"type": "number"},
    {"type": "boolean"},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 2},
    {
        "type": "object",
        "properties": {"u": {"type": "string", "maxLength": 3}, "v": {"type": "boolean"}},
        "required": ["u"],
    },
]


def random_tools(rng: random.Random, json_only: bool = False) -> list[dict]:
    tools = []
    for name in ("get_weather", "f2")[: rng.randint(1, 2)]:
        keys = rng.sample(["city", "days", "opt_1", "z"], rng.randint(0, 4))
        pick = (lambda: random_schema(rng, 2)) if json_only else (lambda: rng.choice(SCALARS))
        schema = {"type": "object", "properties": {key: pick() for key in keys}}
        schema["required"] = [key for key in keys if rng.random() < 0.6]
        tools.append({"type": "function", "function": {"name": name, "parameters": schema}})
    return tools


def tools_of(tools: list[dict]) -> list[Tool]:
    return [Tool(tool["function"]["name"], tool["function"].get("parameters")) for tool in tools]


def setting(name: str, tokens: bool):
    """A format, a vocabulary where its markers are special tokens or plain text, and these tokens' ids."""
    table = formats.load(name)
    markers = (
        sorted(m for m in table.special() if len(m) > 4 and m[0] in "<[" and m[-1] in ">]") if tokens else []
    )
    vocabulary = make(['{"', '": ', '", "', "</", "\n\n"], special=tuple(markers))
    return table, vocabulary, {text: vocabulary.size - len(markers) + i for i, text in enumerate(markers)}


def write(grammar: str, vocabulary, rng: random.Random, most=700) -> tuple[str, bool]:
    """(an output, whether it is finished). What ends things is taken more often."""
    matcher = llguidance.compile(StructuredOutputs(grammar=grammar), vocabulary).matcher()
    mask_W, out = np.zeros(vocabulary.words, np.int32), []
    for _ in range(most):
        matcher.fill_mask(mask_W)
        ids = ids_of(mask_W, vocabulary)
        assert ids, "nothing is allowed"
        likes = [i for i in ids if i == EOS or i > EOS + 5 or vocabulary.tokens[i][:1] in b'"}])],:<']
        token = rng.choice(likes if likes and rng.random() < 0.5 else ids)
        if token == EOS:
            return text_of(out, vocabulary), True
        assert matcher.accept(token)
        out.append(token)
    return b"".join(vocabulary.tokens[t] for t in out).decode(errors="replace"), False


def prompt_of(table) -> str:
    """A prompt after which the model does not think."""
    return table.reasoning[0].open + table.reasoning[0].close if table.reasoning else ""


def check_calls(calls, tools: list[dict]) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("name", FORMATS)
def test_forced_calls_are_read_as_calls(name, tokens, seed):
    rng = random.Random(seed)
    table, vocabulary, special = setting(name, tokens)
    finished = 0
    for _ in range(7):
        tools, parallel = random_tools(rng), rng.random() < 0.5
        templates = rng.choice(["", "\n".join(table.special())])
        wanted = Wanted(tools_of(tools), forced=True, parallel=parallel, templates=templates)
        text, complete = write(call_grammar(table, wanted, special), vocabulary, rng)
        if not complete:
            continue
        finished += 1
        parsed = parse(table, text, tools, prompt_of(table))
        assert parsed.content == "", text
        assert parsed.tool_calls, text
        assert parallel or len(parsed.tool_calls) == 1
        check_calls(parsed.tool_calls, tools)
    assert finished


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("name", FORMATS)
def test_free_text_and_calls_that_follow_their_schema(name, tokens, seed):
    """Every call that the parser finds is of a known tool and valid; markers are not shy in these outputs."""
    rng = random.Random(seed)
    table, vocabulary, special = setting(name, tokens)
    found = 0
    for done in range(60):
        if found and done >= 10:
            break
        tools, parallel = random_tools(rng), rng.random() < 0.5
        wanted = Wanted(tools_of(tools), forced=False, parallel=parallel)
        text, complete = write(call_grammar(table, wanted, special), vocabulary, rng, 400)
        parsed = parse(table, text, tools, prompt_of(table))
        if complete:
            found += len(parsed.tool_calls)
            assert parallel or len(parsed.tool_calls) <= 1, text
            check_calls(parsed.tool_calls, tools)
    assert found or not tokens or name in RARE


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", ["hermes", "qwen3_coder", "llama3_json", "mistral", "gpt_oss"])
def test_an_answer_is_a_call_or_what_was_asked_for(name, seed):
    rng = random.Random(seed)
    table, vocabulary, special = setting(name, True)
    calls = answers = 0
    for _ in range(40):
        tools = random_tools(rng)
        content = StructuredOutputs(json=SCHEMA)
        wanted = Wanted(tools_of(tools), forced=False, content=content)
        text, complete = write(call_grammar(table, wanted, special), vocabulary, rng)
        if complete:
            parsed = parse(table, text, tools, prompt_of(table))
            check_calls(parsed.tool_calls, tools)
            calls += bool(parsed.tool_calls)
            if not parsed.tool_calls:
                jsonschema.validate(json.loads(parsed.content), SCHEMA)
                answers += 1
    assert calls
    assert answers


@pytest.mark.parametrize("content", [{"json": SCHEMA}, {"choice": ["yes", "no"]}, {"json_object": True}])
def test_harmony_answers(content, seed):
    rng = random.Random(seed)
    table, vocabulary, special = setting("gpt_oss", True)
    grammar = answer_grammar(table.channels, StructuredOutputs(**content), special)
    thought = finished = 0
    for _ in range(30):
        text, complete = write(grammar, vocabulary, rng, 300)
        if complete:
            parsed = parse(table, text)
            thought += bool(parsed.reasoning)
            finished += 1
            assert (
                parsed.content in ("yes", "no")
                if "choice" in content
                else isinstance(json.loads(parsed.content), dict)
            )
    assert finished
    with pytest.raises(Inexpressible, match="regex"):
        answer_grammar(table.channels, StructuredOutputs(regex="a"), special)


@pytest.mark.parametrize("name", ["hermes", "kimi_k2", "gpt_oss", "llama3_json", "mistral", "deepseek_v3"])
def test_formats_with_json_take_any_schema(name, seed):
    """References, unions and whatever else llguidance enforces."""
    rng = random.Random(seed)
    table, vocabulary, special = setting(name, True)
    shared = {"$defs": {"d": {"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k"]}}}
    for _ in range(8):
        tools = random_tools(rng, json_only=True)
        schema = tools[0]["function"]["parameters"]
        schema["properties"]["ref"] = {"$ref": "#/$defs/d"}
        tools[0]["function"]["parameters"] = schema | shared
        wanted = Wanted(tools_of(tools), forced=True, parallel=False)
        text, complete = write(call_grammar(table, wanted, special), vocabulary, rng)
        if complete:
            parsed = parse(table, text, tools, prompt_of(table))
            assert len(parsed.tool_calls) == 1
            check_calls(parsed.tool_calls, tools)


def test_names_and_values_with_anything_in_them(seed):
    rng = random.Random(seed)
    schema = {
        "type": "object",
        "properties": {'k"\\é': {"enum": ['"\n', "</tool_call>"]}},
        "required": ['k"\\é'],
    }
    tools = [{"type": "function", "function": {"name": 'say-"hi"', "parameters": schema}}]
    table, vocabulary, special = setting("hermes", False)
    for _ in range(10):
        wanted = Wanted(tools_of(tools), forced=True, parallel=False)
        text, complete = write(call_grammar(table, wanted, special), vocabulary, rng)
        if complete:
            check_calls(parse(table, text, tools).tool_calls, tools)


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("qwen3_coder", {"type": "array"}, "no object"),
        ("qwen3_coder", {"properties": {"a": {"$ref": "#/properties/b"}}}, "refer"),
        ("qwen3_coder", {"properties": {"a>": {"type": "string"}}}, "name of a parameter"),
        ("qwen3_coder", {"properties": {"a": {"type": "string", "format": "idn-email"}}}, "format"),
        ("qwen3_coder", {"properties": {"a": {"type": "string", "pattern": "^a|b$"}}}, "anchors"),
        ("qwen3_coder", {"properties": {"a": {"type": "string", "contentEncoding": "x"}}}, "contentEncoding"),
        ("qwen3_coder", {"anyOf": [{"required": ["a"]}]}, "anyOf"),
        ("qwen3_coder", {"properties": {"a": {"type": "string", "enum": ["</parameter>"]}}}, "no value"),
        ("glm45", {"patternProperties": {"a": {}}}, "patternProperties"),
        ("llama3_pythonic", {"properties": {"a-b": {"type": "string"}}}, "argument"),
        ("gemma4", {"properties": {"a": {}}}, "no type"),
        ("gemma4", {"properties": {"a": True}}, "anything"),
        ("gemma4", {"properties": {"a b": {"type": "string"}}}, "key"),
        ("gemma4", {"properties": {"a": {"$ref": "#/$defs/x"}}}, "reference"),
        ("gemma4", {"properties": {"a": {"const": [1]}}}, "written"),
        ("gemma4", {"properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
    ],
)
def test_what_a_format_cannot_promise(name, parameters, reason):
    table, _, special = setting(name, True)
    wanted = Wanted([Tool("f", parameters)], forced=True)
    with pytest.raises(Inexpressible, match=reason):
        call_grammar(table, wanted, special)


@pytest.mark.parametrize("name", FORMATS)
def test_a_tool_without_parameters_gets_none(name, seed):
    rng = random.Random(seed)
    table, vocabulary, special = setting(name, True)
    wanted = Wanted([Tool("f", None)], forced=True, parallel=False)
    grammar = call_grammar(table, wanted, special)
    tools = [{"type": "function", "function": {"name": "f"}}]
    finished = 0
    for _ in range(8):
        text, complete = write(grammar, vocabulary, rng)
        if complete:
            (call,) = parse(table, text, tools, prompt_of(table)).tool_calls
            assert json.loads(call.arguments) == {}
        finished += complete
    assert finished


def test_a_tool_s_name_that_cannot_be_read_back():
    table, _, special = setting("glm45", True)
    with pytest.raises(Inexpressible, match="name of a tool"):
        call_grammar(table, Wanted([Tool("a<b", {})], forced=True), special)


def test_braces_within_braces(seed):
    """Gemma's notation has no JSON inside: nested objects, unions and arrays are written its own way."""
    rng = random.Random(seed)
    inner = {"type": "object", "properties": {"u": {"type": "string"}, "v": {"type": ["integer", "null"]}}}
    schema = {
        "type": "object",
        "properties": {
            "o": inner,
            "l": {"type": "array", "items": inner | {"required": ["u"]}, "minItems": 1, "maxItems": 2},
            "e": {"enum": ["a", 1, None, True]},
            "w": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "number"}]},
            "n": {"type": "array", "maxItems": 0},
        },
        "required": ["l"],
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    table, vocabulary, special = setting("gemma4", True)
    finished = 0
    for _ in range(25):
        wanted = Wanted(tools_of(tools), forced=True, parallel=False)
        text, complete = write(call_grammar(table, wanted, special), vocabulary, rng)
        finished += complete
        if complete:
            check_calls(parse(table, text, tools).tool_calls, tools)
    assert finished > 3


def test_closed():
    inner = {"properties": {"a": {}}}
    shut = {"properties": {"a": {}}, "additionalProperties": False}
    assert closed(inner) == shut
    assert closed({"properties": {"x": inner}, "additionalProperties": True})["properties"]["x"] == shut
    assert closed({"type": "array", "items": inner})["items"] == shut
    assert closed({"anyOf": [inner, {"type": "null"}]}) == {"anyOf": [shut, {"type": "null"}]}
    assert closed({"$defs": {"d": inner}, "$ref": "#/$defs/d"})["$defs"]["d"] == shut
    for combined in ({"allOf": [inner]}, {**inner, "anyOf": [inner]}, {**inner, "$ref": "#/x"}, True):
        assert closed(combined) == combined
