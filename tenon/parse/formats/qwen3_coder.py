"""Qwen3-Coder (and Qwen3.5, which also thinks): parameters between tags, on lines of their own.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

The models sometimes forget the outer tags.
"""

from tenon.parse.format import Calls, Case, Format, Template, XmlCall
from tenon.parse.formats.qwen3 import THINK

SECTION = ("<tool_call>", "</tool_call>")

BODY = XmlCall(
    open="<function=",
    named=">",
    close="</function>",
    parameter_open="<parameter=",
    parameter_named={">": ""},
    parameter_close="</parameter>",
    lines=True,
)

FORMAT = Format(
    reasoning=(THINK,),
    calls=(Calls(body=(BODY,), starts=(BODY.open,), section=SECTION),),
    stops=("<|im_end|>", "<|endoftext|>"),
    templates=(
        Template(has=("<tool_call>", "<function=", "<parameter="), lacks=("<seed:tool_call>",), rank=4),
    ),
)

PARIS = "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>"
TIME = "<function=get_time>\n</function>"

CASES = [
    Case(
        "one call",
        f"Let me look.\n\n<tool_call>\n{PARIS}\n</tool_call><|im_end|>",
        content="Let me look.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "calls in parallel",
        f"<tool_call>\n{PARIS}\n</tool_call>\n<tool_call>\n{TIME}\n</tool_call>\nSo.",
        content="So.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "two calls in one tag",
        f"<tool_call>{PARIS}{TIME}</tool_call>",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "outer tag forgotten",
        f"Ok\n{PARIS}\n</tool_call>",
        content="Ok",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "types from the schema",
        "<function=get_weather><parameter=city>\n12\n</parameter><parameter=days>\n 3 \n</parameter>"
        '<parameter=hourly>True</parameter><parameter=limits>{"a": 1}</parameter>'
        '<parameter=tags>[1,"x"]</parameter>'
        "<parameter=note>null</parameter></function>",
        calls=[
            (
                "get_weather",
                {"city": "12", "days": 3, "hourly": True, "limits": {"a": 1}, "tags": [1, "x"], "note": None},
            )
        ],
    ),
    Case(
        "values that miss their type",
        "<function=get_weather><parameter=days>three</parameter><parameter=limits>{'a'}</parameter></function>",
        calls=[("get_weather", {"days": "three", "limits": "{'a'}"})],
    ),
    Case(
        "types unknown",
        "<function=f><parameter=a>1</parameter><parameter=b>one</parameter><parameter=c>{}</parameter></function>",
        calls=[("f", {"a": 1, "b": "one", "c": {}})],
    ),
    Case(
        "lines, quotes and tags in a value",
        "<function=get_weather>\n"
        '<parameter=city>\n\n if "a" < b:\n\t</function>\n\n</parameter>\n</function>',
        calls=[("get_weather", {"city": '\n if "a" < b:\n\t</function>\n'})],
    ),
    Case("cut off in a string", f"<tool_call>\n{PARIS[:46]}", calls=[("get_weather", '{"city": "Paris')]),
    Case(
        "cut off in another value",
        "<function=get_weather><parameter=days>1",
        calls=[("get_weather", '{"days": 1')],
    ),
    Case("not a call", "<tool_call>\noops\n</tool_call>", content="<tool_call>\noops\n</tool_call>"),
    Case("a sentence about it", "Write <function=name> first.", content="Write <function=name> first."),
    Case(
        "broken after a parameter",
        f"<tool_call>{PARIS[:-11]}oops</tool_call>",
        content="oops",
        calls=[("get_weather", '{"city": "Paris"')],
    ),
    Case("thinking", "<think>\nHm.\n</think>\n\nHi.", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "Hm.", reasoning="Hm.", prompt="<|im_start|>assistant\n<think>\n"),
]
