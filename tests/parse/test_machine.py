"""What the engine promises besides its formats' cases: what is held back, ids, misuse, depth."""

from __future__ import annotations

import ast
import json

import pytest

from tenon.errors import ConfigError
from tenon.parse import formats
from tenon.parse.calls import MAX_DEPTH
from tenon.parse.events import CallDelta, CallStart, ContentDelta, End, ReasoningDelta
from tenon.parse.format import CLOCK, WEATHER, Calls, Format, Pythonic
from tenon.parse.machine import RESCAN, Parser, parse, thinks

TOOLS = [WEATHER, CLOCK]


def pushes(name: str, *pieces: str, **options) -> list[list]:
    parser = Parser(formats.load(name), TOOLS, **options)
    return [*(parser.push(piece) for piece in pieces), parser.finish()]


def test_text_goes_out_at_once():
    assert pushes("qwen3", "Hello", " wor", "ld <", "b> \n", "x") == [
        [ContentDelta("Hello")],
        [ContentDelta(" wor")],
        [ContentDelta("ld")],
        [ContentDelta(" <b>")],
        [ContentDelta(" \nx")],
        [End()],
    ]


def test_arguments_go_out_as_they_come():
    first, *rest = pushes(
        "hermes", '<tool_call>{"name": "f", "arguments": {', '"a": "x', 'y"', "}}</tool_call>"
    )
    assert isinstance(first[0], CallStart)
    assert first[0].name == "f"
    assert rest == [[CallDelta(0, '"a": "x')], [CallDelta(0, 'y"')], [CallDelta(0, "}")], [End()]]


def test_strings_between_tags_go_out_as_they_come():
    pieces = ("<tool_call><function=get_weather><parameter=city>\nPar", "is\n", "\n", "</parameter>")
    start, *rest = pushes("qwen3_coder", *pieces)
    assert start[1] == CallDelta(0, '{"city": "Par')
    assert rest[:3] == [[CallDelta(0, "is")], [CallDelta(0, "\\n")], [CallDelta(0, '"')]]


def test_one_piece_may_hold_everything():
    text = 'a<tool_call>{"name": "f"}</tool_call>b'
    events = pushes("qwen3", f"<think>r</think>{text}")[0]
    assert [type(event) for event in events] == [
        ReasoningDelta,
        ContentDelta,
        CallStart,
        CallDelta,
        ContentDelta,
    ]


def test_thinking_is_known_while_it_streams():
    parser = Parser(formats.load("qwen3"))
    states = []
    for piece in ("<think>", "a", "</think>", "b"):
        parser.push(piece)
        states.append(parser.thinking)
    assert states == [True, True, False, False]
    assert Parser(formats.load("qwq")).thinking


def test_ids():
    def ids(name: str, text: str) -> list[str]:
        return [call.id for call in parse(formats.load(name), text, TOOLS).tool_calls]

    call = '<tool_call>{"name": "f"}</tool_call>'
    one, two = ids("hermes", call * 2)
    assert one != two
    assert one.startswith("call_")
    assert ids("hermes", '<tool_call>{"id": "x-1", "name": "f"}</tool_call>') == ["x-1"]
    text = "<|tool_call_begin|>functions.a.b:3<|tool_call_argument_begin|>{}<|tool_call_end|>"
    assert ids("kimi_k2", text) == ["functions.a.b:3"]
    (generated,) = ids("mistral", '[TOOL_CALLS]f{"a": 1}')
    assert len(generated) == 9
    assert generated.isalnum()
    assert ids("mistral", "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{}") == ["abc"]


def test_thinks():
    table = formats.load("seed_oss")
    assert thinks(table, "x<seed:think>\n")
    assert thinks(table, "<seed:think><seed:cot_budget_reflect>")
    assert thinks(table, "<seed:think></seed:think>") is None
    assert thinks(table, "") is None
    assert thinks(table, "", prefill="<seed:think>a")
    assert thinks(table, "<seed:think>", prefill="<seed:think>a</seed:think>b") is None
    assert thinks(formats.load("qwq"), "assistant\n")


def test_deep_values_end_the_call_and_nothing_else():
    deep = "[" * 100_000
    for name, text in (
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ' + deep),
        ("llama3_pythonic", "[get_time(a=" + deep),
        ("llama3_pythonic", "[get_time(a=" + "{'a':" * 5000),
        ("gemma4", "<|tool_call>call:f{a:" + deep),
        ("gemma4", "<|tool_call>call:f{a:" + "{a:" * 5000),
        ("qwen3_coder", "<function=f><parameter=a>" + deep + "</parameter></function>"),
    ):
        parsed = parse(formats.load(name), text, TOOLS)
        assert len(parsed.tool_calls) == 1
        assert len(parsed.content) + len(parsed.tool_calls[0].arguments) > len(text) / 2


@pytest.mark.parametrize(
    "text",
    [
        r'<tool_call>{"name": "f\ud800", "arguments": {}}</tool_call>',
        r'<tool_call>{"name": "f", "arguments": "{\"a\": \"\ud800\"}"}</tool_call>',
    ],
)
def test_half_a_surrogate_pair_is_no_text(text):
    """Whatever becomes of it can be sent."""
    parsed = parse(formats.load("hermes"), text, TOOLS)
    for said in (
        parsed.content,
        *(value for call in parsed.tool_calls for value in (call.name, call.arguments)),
    ):
        said.encode()


def test_a_long_failed_attempt_is_content_without_another_look():
    call = '<tool_call>{"name": "f"}</tool_call>'
    for spaces in (10, RESCAN):
        text = "<tool_call>" + " " * spaces + "{" + call
        parsed = parse(formats.load("hermes"), text, TOOLS)
        assert len(parsed.tool_calls) == 1
        assert parsed.content.startswith("<tool_call>")
    late = '<tool_call>{"arguments": {"x": "' + "y" * RESCAN + '"},' + call
    assert parse(formats.load("hermes"), late, TOOLS).content + call == late


def test_misuse():
    parser = Parser(formats.load("plain"))
    assert parser.push("") == []
    parser.finish()
    with pytest.raises(AssertionError):
        parser.push("x")
    with pytest.raises(AssertionError):
        parser.finish()
    with pytest.raises(ConfigError, match="qwen3_coder"):
        formats.load("machine")


def test_lists_of_calls_are_valid_json():
    text = "[TOOL_CALLS]" + json.dumps([{"name": "f", "arguments": {"i": i}} for i in range(300)])
    calls = parse(formats.load("mistral"), text, TOOLS).tool_calls
    assert [json.loads(call.arguments)["i"] for call in calls] == list(range(300))


def arguments(name: str, text: str) -> object:
    """What the first call of an output says; None where there is no call in it."""
    calls = parse(formats.load(name), text, TOOLS).tool_calls
    return json.loads(calls[0].arguments) if calls else None


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": {"c": [1, 2, {"d": None, "e": "x"}], "f": []}, "g": {}},
        {"a": 'x\n"\u00e9', "b": [[], [[]], True, False, -1.5e3]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_arguments_as_json(value, indent):
    text = json.dumps(value, indent=indent)
    assert arguments("hermes", f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>') == value
    quoted = json.dumps(text)
    assert arguments("hermes", f'<tool_call>{{"name": "f", "arguments": {quoted}}}</tool_call>') == value


@pytest.mark.parametrize(
    "text", ['"[1]"', '"3"', '"{"', '"x"', '"\\ud800"', json.dumps('{"a":' * 3000), "[1]", "3"]
)
def test_arguments_that_are_no_object(text):
    assert arguments("hermes", f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>') is None


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('{"a" ', "1}"),
        ('{"a": 1 ', '"b": 2}'),
        ('{"a": [1 ', "2]}"),
        ('{"a": [1', "}}"),
        ('{"a": ', "}"),
        ("{", "a: 1}"),
        ('{"a": 1,', "}"),
        ('{"a": "x"', '"y"}'),
        ('{"a": ', "nul}"),
    ],
)
def test_arguments_that_are_no_json(good, bad):
    """The call has been given out when that shows; what follows is text."""
    text = f'<tool_call>{{"name": "f", "arguments": {good}{bad}}}</tool_call>'
    parsed = parse(formats.load("hermes"), text, TOOLS)
    assert (parsed.tool_calls[0].arguments, parsed.content) == (good, bad.strip() + "}")


NOTATIONS = {
    "llama3_pythonic": ("[get_weather(%s)]", ")]"),
    "gemma4": ("<|tool_call>call:get_weather{%s}<tool_call|>", "}"),
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("llama3_pythonic", "", {}),
        ("llama3_pythonic", "a=1_000, b=-2.5e3, c=None, d=True, e=False", [1000, -2500.0, None, True, False]),
        ("llama3_pythonic", "a='x', b=\"y'\", c='''x'y''', d='', e='\\n'", ["x", "y'", "x'y", "", "\n"]),
        (
            "llama3_pythonic",
            "a=[1, 'x', [], {}], b={'c': (1, 2)}, c={}",
            [[1, "x", [], {}], {"c": [1, 2]}, {}],
        ),
        ("gemma4", "", {}),
        ("gemma4", 'a:3,b:true,c:null,d:<|"|>x"y<|"|>', [3, True, None, 'x"y']),
        ("gemma4", 'a:[1,<|"|>x<|"|>,[],{}],b:{k:null},c:"a\\"b"', [[1, "x", [], {}], {"k": None}, 'a"b']),
    ],
)
def test_arguments_in_other_notations(name, text, value):
    if isinstance(value, list):
        value = dict(zip("abcde", value, strict=False))
    assert arguments(name, NOTATIONS[name][0] % text) == value


@pytest.mark.parametrize(
    ("name", "good", "bad", "given"),
    [
        ("llama3_pythonic", "a=", "x", '{"a": '),
        ("llama3_pythonic", "a=1 ", "2", '{"a": 1'),
        ("llama3_pythonic", "a={", "3: 4}", '{"a": {'),
        ("llama3_pythonic", "a=", ",", '{"a": '),
        ("gemma4", "a:", "", '{"a": '),
        ("gemma4", "a:", "x", '{"a": '),
        ("gemma4", "", '"a":3', "{"),
        ("gemma4", "", "a 3", "{"),
    ],
)
def test_what_is_no_argument_in_other_notations(name, good, bad, given):
    form, end = NOTATIONS[name]
    parsed = parse(formats.load(name), form % (good + bad), TOOLS)
    assert (parsed.tool_calls[0].arguments, parsed.content) == (given, bad + end)


def test_a_call_without_a_name_of_a_tool():
    assert parse(formats.load("llama3_pythonic"), "[get_weather(1)]", TOOLS).content == "[get_weather(1)]"


@pytest.mark.parametrize(("opening", "closing"), [("{'k': ", "}"), ("[", "]")])
def test_values_inside_values_have_a_limit(opening, closing):
    for depth, whole in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
        value = opening * depth + "1" + closing * depth
        got = parse(formats.load("llama3_pythonic"), f"[get_weather(a={value})]", TOOLS)
        assert (got.content == "") is whole
        if whole:
            assert json.loads(got.tool_calls[0].arguments) == {"a": ast.literal_eval(value)}


def test_a_recipient_without_a_name_is_no_call():
    text = "<|channel|>commentary to=functions.<|message|>{}<|call|>"
    assert not parse(formats.load("gpt_oss"), text, TOOLS).tool_calls
    named = parse(formats.load("gpt_oss"), text.replace("functions.", "functions.get_time"), TOOLS)
    assert [call.name for call in named.tool_calls] == ["get_time"]


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_a_list_of_calls_between_markers_of_its_own(space):
    body = Pythonic(open="<py>", close="</py>")
    table = Format(calls=(Calls(body=(body,), opens=("<call>",), close="</call>"),))
    got = parse(table, f"<call><py>[get_time()]{space}</py></call>", TOOLS)
    assert ([call.name for call in got.tool_calls], got.content) == (["get_time"], "")
