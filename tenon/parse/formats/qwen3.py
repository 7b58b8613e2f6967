"""Qwen3: thinking between tags, calls as in hermes. Thinking off: the prompt holds an empty pair of tags."""

from msgspec.structs import replace

from tenon.parse.format import Case, Format, Reasoning, Template
from tenon.parse.formats.hermes import CALLS, PARIS, SHARED_CASES

THINK = Reasoning("<think>", "</think>")

FORMAT = Format(
    reasoning=(THINK,),
    calls=(CALLS,),
    stops=("<|im_end|>", "<|endoftext|>"),
    templates=(Template(has=("<tool_call>", "</tool_call>", "arguments", "</think>"), rank=1),),
)

# Also the cases of other formats that think between these tags and call as hermes does.
THINK_CASES = [
    Case("thinking", "<think>\nHm.\n</think>\n\nHi.", reasoning="Hm.", content="Hi."),
    Case(
        "thinking and a call",
        f"<think>\nWeather.\n</think>\n\n{PARIS}",
        reasoning="Weather.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case("empty thinking", "<think>\n\n</think>\n\nHi.", content="Hi."),
    Case(
        "opened by the prompt",
        "Hm.\n</think>\n\nHi.",
        reasoning="Hm.",
        content="Hi.",
        prompt="assistant\n<think>\n",
    ),
    Case(
        "opened twice",
        "<think>Hm.</think>Hi.",
        reasoning="Hm.",
        content="Hi.",
        prompt="<|im_start|>assistant\n<think>\n",
    ),
    Case("switched off by the prompt", "Hi.", content="Hi.", prompt="<think>\n\n</think>\n\n"),
    Case("cut off in thinking", "<think>\nHm", reasoning="Hm"),
    Case("cut off in the closing marker", "<think>Hm</thi", reasoning="Hm</thi"),
    Case("call while thinking", f"<think>{PARIS}</think>Hi", reasoning=PARIS, content="Hi"),
    Case(
        "tags in the answer",
        "<think>x</think>A <think> tag </think>.",
        reasoning="x",
        content="A <think> tag </think>.",
    ),
    Case("spaces around", "\n<think> a  b \n</think> \n c ", reasoning="a  b", content="c "),
    Case("stop token after thinking", "<think>a</think>b<|im_end|>", reasoning="a", content="b"),
]

# Formats that begin inside thinking unless the prompt has switched it off.
OFF = "<think>\n\n</think>\n\n"
FIRST_CASES = [
    *(replace(case, prompt=case.prompt or OFF) for case in SHARED_CASES),
    Case("begins in thinking", "Hm.\n</think>\n\nHi.", reasoning="Hm.", content="Hi."),
    Case("begins in thinking, cut off", "Hm.", reasoning="Hm."),
    Case(
        "call after thinking",
        f"Hm.</think>{PARIS}",
        reasoning="Hm.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
]

CASES = [*SHARED_CASES, *THINK_CASES]
