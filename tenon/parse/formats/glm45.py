"""GLM 4.5 to 4.7: a name, then tags with keys and values.

<tool_call>get_weather
<arg_key>city</arg_key>
<arg_value>Paris</arg_value>
</tool_call>
"""

from tenon.parse.format import Calls, Case, Format, TagCall, Template
from tenon.parse.formats.qwen3 import THINK

FORMAT = Format(
    reasoning=(THINK,),
    calls=(
        Calls(
            body=(TagCall("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),),
            opens=("<tool_call>",),
            close="</tool_call>",
        ),
    ),
    stops=("<|user|>", "<|observation|>", "<|endoftext|>"),
    templates=(Template(has=("<tool_call>", "<arg_key>", "<arg_value>"), lacks=("longcat",), rank=5),),
)

PARIS = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>"
TIME = "<tool_call>get_time</tool_call>"

CASES = [
    Case("thinking", "\n<think>Hm.</think>\nHi.", reasoning="Hm.", content="Hi."),
    Case("not thinking", "\nHi.", content="\nHi.", prompt="<|assistant|>\n<think></think>"),
    Case("cut off in thinking", "<think>Hm", reasoning="Hm"),
    Case(
        "calls in parallel",
        f"<think>Hm.</think>\nBoth.\n{PARIS}\n{TIME}<|observation|>",
        reasoning="Hm.",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "types",
        "<tool_call>get_weather<arg_key>days</arg_key><arg_value>3</arg_value>"
        "<arg_key>x y</arg_key><arg_value>[1]</arg_value><arg_key>z</arg_key>"
        "<arg_value>a\n<b></arg_value></tool_call>",
        calls=[("get_weather", {"days": 3, "x y": [1], "z": "a\n<b>"})],
    ),
    Case("cut off", PARIS.partition("ris")[0], calls=[("get_weather", '{"city": "Pa')]),
    Case("cut off in a name", "<tool_call>get_w", content="<tool_call>get_w"),
    Case("no name", "<tool_call></tool_call>", content="<tool_call></tool_call>"),
    Case(
        "broken",
        "<tool_call>f\n<arg_key>a</arg_key>\noops</tool_call>.",
        content="<arg_key>a</arg_key>\noops\n.",
        calls=[("f", "")],
    ),
]
