"""QwQ: like qwen3, but the prompt always opens the thinking."""

from msgspec.structs import replace

from tenon.parse.format import Template
from tenon.parse.formats.qwen3 import FIRST_CASES, THINK_CASES
from tenon.parse.formats.qwen3 import FORMAT as QWEN3

FORMAT = replace(
    QWEN3,
    thinks_first=True,
    templates=(
        Template(
            has=("<tool_call>", "</tool_call>", "arguments", "</think>", "assistant\\n<think>\\n"),
            lacks=("enable_thinking",),
            rank=2,
        ),
    ),
)

CASES = [*FIRST_CASES, *THINK_CASES]
