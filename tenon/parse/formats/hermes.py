"""Qwen2.5 and the Hermes models: JSON calls between tags.

<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
"""

from tenon.parse.format import Calls, Case, Format, JsonCall, JsonList, Template

CALLS = Calls(body=(JsonCall(), JsonList()), opens=("<tool_call>",), close="</tool_call>")

FORMAT = Format(
    calls=(CALLS,),
    stops=("<|im_end|>", "<|endoftext|>", "<|eot_id|>"),
    templates=(Template(has=("<tool_call>", "</tool_call>", "arguments")),),
)

PARIS = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'

# Also cases of other formats that write calls this way.
SHARED_CASES = [
    Case("one call", PARIS, calls=[("get_weather", {"city": "Paris"})]),
    Case(
        "calls in parallel",
        f"{PARIS}\n{TIME}",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "text around calls",
        f"Let me look.\n\n{PARIS}\nDone.",
        content="Let me look.\nDone.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "cut off in arguments",
        '<tool_call>\n{"name": "f", "arguments": {"a": "xy',
        calls=[("f", '{"a": "xy')],
    ),
    Case("not JSON", "<tool_call>oops</tool_call> x", content="<tool_call>oops</tool_call> x"),
    Case("no tools", PARIS, content=PARIS, tools=None),
]

CASES = [
    *SHARED_CASES,
    Case("stop token", f"{PARIS}<|im_end|>", calls=[("get_weather", {"city": "Paris"})]),
    Case("stop token after text", "Hello.<|im_end|>\n", content="Hello."),
    Case("stop token in text", "Say <|im_end|> twice.", content="Say <|im_end|> twice."),
    Case(
        "arguments first",
        '<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>',
        calls=[("get_weather", {"city": "Oslo"})],
    ),
    Case(
        "arguments as a string",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        calls=[("get_weather", {"city": "Oslo"})],
    ),
    Case(
        "as OpenAI nests it",
        '<tool_call>{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}</tool_call>',
        calls=[("f", {"a": 1})],
    ),
    Case("name as function", '<tool_call>{"function": "f", "arguments": {}}</tool_call>', calls=[("f", {})]),
    Case(
        "nested too deep",
        '<tool_call>{"function": {"function": {"name": "f"}}}</tool_call>',
        content='<tool_call>{"function": {"function": {"name": "f"}}}</tool_call>',
    ),
    Case("no arguments", '<tool_call>{"name": "get_time"}</tool_call>', calls=[("get_time", {})]),
    Case(
        "type and id",
        '<tool_call>{"type": "function", "id": "c1", "name": "get_time", "arguments": null}</tool_call>',
        calls=[("get_time", {})],
    ),
    Case(
        "nested arguments, quotes and markers in strings",
        '<tool_call>{"name": "f", "arguments": {"a": [1, -2.5e3, null, true, '
        '{"b": "\\"</tool_call>\\u00e9"}]}}'
        "</tool_call>",
        calls=[("f", {"a": [1, -2500.0, None, True, {"b": '"</tool_call>é'}]})],
    ),
    Case(
        "line break and wrong escape in a string",
        '<tool_call>{"name": "f", "arguments": {"code": "a\n\\d"}}</tool_call>',
        calls=[("f", {"code": "a\n\\d"})],
    ),
    Case("cut off before arguments", '<tool_call>\n{"name": "f"', content='<tool_call>\n{"name": "f"'),
    Case("cut off in a marker", "Hello <tool_c", content="Hello <tool_c"),
    Case("missing close at the end", '<tool_call>{"name": "f", "arguments": {}}', calls=[("f", {})]),
    Case(
        "a second marker saves the call",
        f"<tool_call><tool_call>\n{PARIS}",
        content="<tool_call><tool_call>",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "one brace too many",
        '<tool_call>{"name": "f", "arguments": {"a": 1}}}</tool_call>Hi',
        content="}\nHi",
        calls=[("f", {"a": 1})],
    ),
    Case(
        "broken in arguments",
        '<tool_call>{"name": "f", "arguments": {"a": 1 oops}}</tool_call>',
        content="oops}}",
        calls=[("f", '{"a": 1 ')],
    ),
    Case(
        "an unknown member, before the call has begun",
        '<tool_call>{"x": 1, "name": "f"}</tool_call>',
        content='<tool_call>{"x": 1, "name": "f"}</tool_call>',
    ),
    Case(
        "an unknown member, after the arguments",
        '<tool_call>{"name": "f", "arguments": {}, "x": 1}</tool_call>',
        content=', "x": 1}',
        calls=[("f", {})],
    ),
    Case("a closing marker alone", "a</tool_call>b", content="a</tool_call>b"),
    Case(
        "two objects in one tag",
        '<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]</tool_call>',
        calls=[("f", {"a": 1}), ("g", {})],
    ),
]
