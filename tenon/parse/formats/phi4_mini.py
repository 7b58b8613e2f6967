"""Phi-4-mini: a list of JSON calls after a word, or JSON between markers.

functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]
<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|/tool_call|>
"""

from tenon.parse.format import Calls, Case, Format, JsonCall, JsonList, Template

FORMAT = Format(
    calls=(
        Calls(body=(JsonList(), JsonCall()), opens=("<|tool_call|>",), close="<|/tool_call|>"),
        Calls(body=(JsonList(),), opens=("functools",)),
    ),
    stops=("<|end|>", "<|endoftext|>"),
    templates=(Template(has=("<|tool|>", "<|/tool|>"), rank=5), Template(has=("functools[",), rank=5)),
)

LIST = '[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time", "arguments": {}}]'

CASES = [
    Case(
        "one call",
        '<|tool_call|>{"name": "f", "arguments": {"a": 1}}<|/tool_call|><|end|>',
        calls=[("f", {"a": 1})],
    ),
    Case(
        "calls in parallel",
        f"Both.\n<|tool_call|>{LIST}<|/tool_call|>",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case("after the word", f"functools{LIST}", calls=[("get_weather", {"city": "Paris"}), ("get_time", {})]),
    Case("the word in a sentence", "Use functools [sic].", content="Use functools [sic]."),
    Case("cut off", f"functools{LIST.partition('ris')[0]}", calls=[("get_weather", '{"city": "Pa')]),
    Case("broken list", 'functools[{"name": "f", "arguments": {}} x', content="x", calls=[("f", {})]),
]
