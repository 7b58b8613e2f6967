"""DeepSeek R1 and its distillates: begins inside thinking; calls as in deepseek_v3."""

from tenon.parse.format import Case, Format, Template
from tenon.parse.formats.deepseek_v3 import CALLS, PARIS, SECTION, SEPARATOR, STOP, TIME
from tenon.parse.formats.qwen3 import THINK

FORMAT = Format(
    reasoning=(THINK,),
    thinks_first=True,
    calls=(CALLS,),
    stops=(STOP,),
    templates=(
        Template(has=(*SECTION, SEPARATOR, "```json", "</think>"), rank=2),
        Template(has=("<｜Assistant｜>", "</think>"), lacks=("｜DSML｜", "thinking"), rank=1),
    ),
)

CASES = [
    Case("thinking", "Hm.\n</think>\n\nHi.", reasoning="Hm.", content="Hi."),
    Case("thinking opened by the model", "<think>\nHm.\n</think>\n\nHi.", reasoning="Hm.", content="Hi."),
    Case("no thinking", "Hi.", content="Hi.", prompt="<｜Assistant｜><think>\n\n</think>"),
    Case("cut off in thinking", "Hm", reasoning="Hm", prompt="<｜Assistant｜><think>\n"),
    Case(
        "calls in parallel",
        f"Hm.</think>Both.{SECTION[0]}{PARIS}{TIME}{SECTION[1]}{STOP}",
        reasoning="Hm.",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "cut off in a call",
        f"Hm.</think>{SECTION[0]}{PARIS.partition('ris')[0]}",
        reasoning="Hm.",
        calls=[("get_weather", '{"city": "Pa')],
    ),
]
