"""ERNIE 4.5: thinks when the prompt says so, calls as hermes does."""

from tenon.parse.format import Answer, Case, Format, Template
from tenon.parse.formats.hermes import CALLS, SHARED_CASES
from tenon.parse.formats.qwen3 import THINK

ANSWER = Answer("<response>", "</response>")
STOPS = ("</s>", "<|end_of_sentence|>")

FORMAT = Format(
    reasoning=(THINK,),
    answer=ANSWER,
    calls=(CALLS,),
    stops=STOPS,
    templates=(
        Template(has=("<|begin_of_sentence|>", "<tool_call>", "</think>"), lacks=("<response>",), rank=2),
        Template(has=("<|begin_of_sentence|>", "</think>"), lacks=("<response>",), rank=1),
    ),
)

CASES = [
    *SHARED_CASES,
    Case(
        "thinking",
        "Hm.\n</think>\n\n\nHi.</s>",
        reasoning="Hm.",
        content="Hi.",
        prompt="Assistant: <think>\n",
    ),
    Case("not thinking", "Hi.", content="Hi.", prompt="Assistant: <think>\n\n</think>\n\n"),
    Case("cut off in thinking", "Hm.", reasoning="Hm.", prompt="<think>"),
]
