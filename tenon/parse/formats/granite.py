"""Granite: a list of JSON calls after a marker (3), or JSON calls between tags (4); three ways to think.

<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]
"""

from tenon.parse.format import Answer, Calls, Case, Format, JsonCall, JsonList, Reasoning, Template
from tenon.parse.formats.hermes import CALLS, PARIS
from tenon.parse.formats.qwen3 import THINK

FORMAT = Format(
    reasoning=(THINK, Reasoning("Here is my thought process:", "Here is my response:")),
    answer=Answer("<response>", "</response>"),
    calls=(Calls(body=(JsonList(), JsonCall()), opens=("<|tool_call|>", "<function_call>")), CALLS),
    stops=("<|end_of_text|>", "<|end_of_role|>"),
    templates=(Template(has=("<|start_of_role|>",), rank=5),),
)

CASES = [
    Case("thinking", "<think>Hm.</think><response>Hi.</response>", reasoning="Hm.", content="Hi."),
    Case(
        "thinking in words",
        "Here is my thought process:\nHm.\nHere is my response:\nHi.",
        reasoning="Hm.",
        content="Hi.",
    ),
    Case("cut off in thinking", "Here is my thought process: Hm", reasoning="Hm"),
    Case(
        "calls in parallel",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, '
        '{"name": "get_time", "arguments": {}}]\nOk.',
        content="Ok.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case("tags", PARIS, calls=[("get_weather", {"city": "Paris"})]),
    Case("older marker", '<function_call> {"name": "f", "arguments": {"a": 1}}', calls=[("f", {"a": 1})]),
    Case("cut off", '<|tool_call|>[{"name": "f", "arguments": {"a": 1.', calls=[("f", '{"a": 1.')]),
    Case("not JSON", "<|tool_call|>x", content="<|tool_call|>x"),
]
