"""DeepSeek V3.1: the prompt says whether it thinks; calls are a name, a separator and JSON.

<｜tool▁calls▁begin｜>
<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>
<｜tool▁calls▁end｜>
"""

from tenon.parse.format import Calls, Case, Format, NamedJson, Template
from tenon.parse.formats.deepseek_v3 import CLOSE, OPEN, SECTION, SEPARATOR, STOP
from tenon.parse.formats.qwen3 import THINK

CALLS = Calls(body=(NamedJson(separators=(SEPARATOR,)),), opens=(OPEN,), close=CLOSE, section=SECTION)

FORMAT = Format(
    reasoning=(THINK,),
    calls=(CALLS,),
    stops=(STOP,),
    templates=(Template(has=(*SECTION, SEPARATOR, "</think>", "thinking"), lacks=("```json",), rank=3),),
)

PARIS = f'{OPEN}get_weather{SEPARATOR}{{"city": "Paris"}}{CLOSE}'
TIME = f"{OPEN}get_time{SEPARATOR}{{}}{CLOSE}"

CASES = [
    Case("thinking", "Hm.</think>Hi.", reasoning="Hm.", content="Hi.", prompt="<｜Assistant｜><think>"),
    Case("not thinking", "Hi.", content="Hi.", prompt="<｜Assistant｜></think>"),
    Case("cut off in thinking", "Hm.", reasoning="Hm.", prompt="<｜Assistant｜><think>"),
    Case(
        "calls in parallel",
        f"Both.{SECTION[0]}{PARIS}{TIME}{SECTION[1]}{STOP}",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "thinking and a call",
        f"Hm.</think>{SECTION[0]}{PARIS}{SECTION[1]}",
        reasoning="Hm.",
        calls=[("get_weather", {"city": "Paris"})],
        prompt="<think>",
    ),
    Case("cut off", f'{SECTION[0]}{OPEN}f{SEPARATOR}{{"a": [1', calls=[("f", '{"a": [1')]),
    Case("no name", f"{SECTION[0]}{OPEN}{SEPARATOR}{{}}", content=f"{SECTION[0]}{OPEN}{SEPARATOR}{{}}"),
]
