"""MiniMax M2: parameters between tags; the prompt opens the thinking.

<minimax:tool_call>
<invoke name="get_weather">
<parameter name="city">Paris</parameter>
</invoke>
</minimax:tool_call>
"""

from tenon.parse.format import Calls, Case, Format, Template, XmlCall
from tenon.parse.formats.qwen3 import THINK

SECTION = ("<minimax:tool_call>", "</minimax:tool_call>")

BODY = XmlCall(
    open='<invoke name="',
    named='">',
    close="</invoke>",
    parameter_open='<parameter name="',
    parameter_named={'">': ""},
    parameter_close="</parameter>",
)

FORMAT = Format(
    reasoning=(THINK,),
    thinks_first=True,
    calls=(Calls(body=(BODY,), inner=(BODY.open,), section=SECTION),),
    stops=("[e~[",),
    templates=(Template(has=(SECTION[0],), rank=6),),
)

PARIS = '<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke>'
TIME = '<invoke name="get_time">\n</invoke>'
OFF = "<think>\n\n</think>"

CASES = [
    Case("thinking", "Hm.\n</think>\n\nHi.[e~[", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "Hm.", reasoning="Hm.", prompt="]~b]ai\n<think>\n"),
    Case(
        "calls in parallel",
        f"Hm.\n</think>\n\nBoth.\n{SECTION[0]}\n{PARIS}\n{TIME}\n{SECTION[1]}[e~[",
        reasoning="Hm.",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "types",
        f'{SECTION[0]}<invoke name="get_weather"><parameter name="days">3</parameter>'
        f'<parameter name="tags">["a"]</parameter></invoke>{SECTION[1]}',
        calls=[("get_weather", {"days": 3, "tags": ["a"]})],
        prompt=OFF,
    ),
    Case(
        "cut off",
        f"{SECTION[0]}{PARIS.partition('ris')[0]}",
        calls=[("get_weather", '{"city": "Pa')],
        prompt=OFF,
    ),
    Case("call without a section", PARIS, content=PARIS, prompt=OFF),
    Case("not a call", f"{SECTION[0]}x{SECTION[1]}", content=f"{SECTION[0]}x{SECTION[1]}", prompt=OFF),
]
