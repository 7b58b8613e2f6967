"""Gemma 4: thinking in a channel, calls in a notation of its own, with bare keys and marked strings.

<|channel>thought
...<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>
"""

from tenon.parse.format import BraceCall, Calls, Case, Format, Reasoning, Template

FORMAT = Format(
    reasoning=(
        Reasoning("<|channel>thought\n", "<channel|>", anywhere=True),
        Reasoning("<|channel>", "<channel|>", anywhere=True),
    ),
    calls=(Calls(body=(BraceCall("call:", '<|"|>'),), opens=("<|tool_call>",), close="<tool_call|>"),),
    stops=("<turn|>", "<|tool_response>", "<eos>"),
    templates=(
        Template(has=("<|turn>", "<|tool_call>"), rank=5),
        Template(has=("<|turn>", "<|channel>"), rank=4),
    ),
)

PARIS = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>'
TIME = "<|tool_call>call:get_time{}<tool_call|>"

CASES = [
    Case("thinking", "<|channel>thought\nHm.\n<channel|>Hi.<turn|>", reasoning="Hm.", content="Hi."),
    Case("empty thinking", "<|channel>thought\n<channel|>Hi.", content="Hi."),
    Case(
        "switched off by the prompt",
        "Hi.",
        content="Hi.",
        prompt="<|turn>model\n<|channel>thought\n<channel|>",
    ),
    Case(
        "thinking again",
        "<|channel>thought\na<channel|>b<|channel>thought\nc<channel|>d",
        reasoning="a\nc",
        content="b\nd",
    ),
    Case("cut off in thinking", "<|channel>thought\nHm", reasoning="Hm"),
    Case("cut off in the marker", "<|channel>tho", reasoning="tho"),
    Case(
        "calls in parallel",
        f"Both.{PARIS}{TIME}<|tool_response>",
        content="Both.",
        calls=[("get_weather", {"city": "Paris", "days": 3}), ("get_time", {})],
    ),
    Case(
        "nested",
        '<|tool_call>call:f{a:[1,{b:true,<|"|>c<|"|>:null}],d:{},e:<|"|>"}\n<|"|>,g:-1.5}<tool_call|>',
        calls=[("f", {"a": [1, {"b": True, "c": None}], "d": {}, "e": '"}\n', "g": -1.5})],
    ),
    Case("cut off", PARIS.partition("ris")[0], calls=[("get_weather", '{"city": "Pa')]),
    Case("no name", "<|tool_call>call:{}<tool_call|>", content="<|tool_call>call:{}<tool_call|>"),
    Case(
        "broken",
        "<|tool_call>call:f{a:1,b=2}<tool_call|>.",
        content="b=2}\n.",
        calls=[("f", '{"a": 1')],
    ),
]
