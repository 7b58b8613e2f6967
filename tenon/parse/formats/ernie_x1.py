"""ERNIE X1 and ERNIE 4.5 Thinking: begins inside thinking; the answer has tags of its own.

...</think>

<response>
...
</response>
"""

from tenon.parse.format import Case, Format, Template
from tenon.parse.formats.ernie45 import ANSWER, STOPS
from tenon.parse.formats.hermes import CALLS, PARIS, TIME
from tenon.parse.formats.qwen3 import THINK

FORMAT = Format(
    reasoning=(THINK,),
    thinks_first=True,
    answer=ANSWER,
    calls=(CALLS,),
    stops=(*STOPS, "<|im_end|>"),
    templates=(Template(has=("<response>", "</response>", "</think>", "<tool_call>"), rank=5),),
)

CASES = [
    Case("answer", "Hm.\n</think>\n\n<response>\nHi.\n</response>\n", reasoning="Hm.", content="Hi."),
    Case("answer without tags", "Hm.\n</think>\n\nHi <response>.", reasoning="Hm.", content="Hi <response>."),
    Case("answer not closed", "</think><response>\nHi.\n", content="Hi.\n"),
    Case("closed but not opened", "</think>Hi.</response>", content="Hi.</response>"),
    Case("cut off in thinking", "Hm", reasoning="Hm"),
    Case(
        "calls in parallel",
        f"Hm.\n</think>\n\n\n{PARIS}\n{TIME}\n</s>",
        reasoning="Hm.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "answer and a call",
        f"Hm.\n</think>\n\n<response>\nLet me look.\n</response>\n{PARIS}",
        reasoning="Hm.",
        content="Let me look.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case("cut off in a call", '</think><tool_call>{"name": "f", "arguments": {"a"', calls=[("f", '{"a"')]),
    Case("not JSON", "</think><tool_call>x", content="<tool_call>x"),
]
