"""DeepSeek V3.2: calls in its own markup language, which says of each value whether it is a string.

<｜DSML｜function_calls>
<｜DSML｜invoke name="get_weather">
<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>
<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜function_calls>
"""

from tenon.parse.format import Calls, Case, Format, Template, XmlCall
from tenon.parse.formats.deepseek_v3 import STOP
from tenon.parse.formats.qwen3 import THINK

SECTION = ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>")

BODY = XmlCall(
    open='<｜DSML｜invoke name="',
    named='">',
    close="</｜DSML｜invoke>",
    parameter_open='<｜DSML｜parameter name="',
    parameter_named={'" string="true">': "text", '" string="false">': "json", '">': ""},
    parameter_close="</｜DSML｜parameter>",
)

FORMAT = Format(
    reasoning=(THINK,),
    calls=(Calls(body=(BODY,), starts=(BODY.open,), section=SECTION),),
    stops=(STOP,),
    templates=(Template(has=("｜DSML｜", "function_calls"), rank=4),),
)


def _call(name: str, *parameters: tuple[str, str, str]) -> str:
    lines = [
        f'{BODY.parameter_open}{key}" string="{text}">{value}{BODY.parameter_close}'
        for key, text, value in parameters
    ]
    return "\n".join([f'{BODY.open}{name}">', *lines, BODY.close])


PARIS = _call("get_weather", ("city", "true", "Paris"), ("days", "false", "3"))
TIME = _call("get_time")

CASES = [
    Case("thinking", "Hm.</think>Hi.", reasoning="Hm.", content="Hi.", prompt="<｜Assistant｜><think>"),
    Case("not thinking", "Hi.", content="Hi.", prompt="<｜Assistant｜></think>"),
    Case("cut off in thinking", "Hm.", reasoning="Hm.", prompt="<｜Assistant｜><think>"),
    Case(
        "calls in parallel",
        f"Both.\n\n{SECTION[0]}\n{PARIS}\n{TIME}\n{SECTION[1]}{STOP}",
        content="Both.",
        calls=[("get_weather", {"city": "Paris", "days": 3}), ("get_time", {})],
    ),
    Case(
        "a string that looks like a number",
        SECTION[0] + _call("f", ("a", "true", "12"), ("b", "false", '{"c": [1]}')) + SECTION[1],
        calls=[("f", {"a": "12", "b": {"c": [1]}})],
    ),
    Case("cut off in a string", f"{SECTION[0]}\n{PARIS[:80]}", calls=[("get_weather", '{"city": "Par')]),
    Case("no section", PARIS, calls=[("get_weather", {"city": "Paris", "days": 3})]),
    Case("broken", f"{SECTION[0]}<x>{SECTION[1]}", content=f"{SECTION[0]}<x>{SECTION[1]}"),
]
