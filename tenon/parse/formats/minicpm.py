"""MiniCPM: Python calls in a fenced block (3 and 4), parameters between tags (5).

<|tool_call_start|>
```python
get_weather(city="Paris")
```
<|tool_call_end|>

<function name="get_weather"><param name="city">Paris</param></function>
"""

from tenon.parse.format import Calls, Case, Format, Pythonic, Reasoning, Template, XmlCall
from tenon.parse.formats.qwen3 import THINK

BODY = XmlCall(
    open='<function name="',
    named='">',
    close="</function>",
    parameter_open='<param name="',
    parameter_named={'">': ""},
    parameter_close="</param>",
)
START, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"

FORMAT = Format(
    reasoning=(Reasoning("<|thought_start|>", "<|thought_end|>"), THINK),
    calls=(
        Calls(body=(Pythonic(brackets=False, open="```python", close="```"),), opens=(START,), close=CLOSE),
        Calls(body=(BODY,), starts=(BODY.open,)),
    ),
    stops=("<|im_end|>", "</s>"),
    templates=(Template(has=(START,), rank=5), Template(has=("<function name=", "<param name="), rank=4)),
)

CASES = [
    Case("thinking", "<|thought_start|>\nHm.\n<|thought_end|>\nHi.", reasoning="Hm.", content="Hi."),
    Case("thinking with the other tags", "<think>\nHm.\n</think>\nHi.", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "<|thought_start|>Hm.", reasoning="Hm."),
    Case(
        "calls in parallel",
        f'<|thought_start|>\nHm.\n<|thought_end|>\n{START}\n```python\nget_weather(city="Paris",days=1)\nget_time()\n```\n{CLOSE}\nOk.',
        reasoning="Hm.",
        content="Ok.",
        calls=[("get_weather", {"city": "Paris", "days": 1}), ("get_time", {})],
    ),
    Case(
        "tags",
        'Ok <function name="get_weather"><param name="city">Paris</param>\n'
        '<param name="days">2</param></function>',
        content="Ok",
        calls=[("get_weather", {"city": "Paris", "days": 2})],
    ),
    Case("cut off", f'{START}\n```python\nget_weather(city="Pa', calls=[("get_weather", '{"city": "Pa')]),
    Case("no block", f"{START}x{CLOSE}", content=f"{START}x{CLOSE}"),
    Case("block not closed", f"{START}```python\nf()\n", calls=[("f", {})]),
]
