"""Qwen3-Next and Qwen3-VL, thinking editions: they begin thinking, as the prompt says, and call as hermes.

The table is qwq's; the templates are told apart by what only these hold.
"""

from msgspec.structs import replace

from tenon.parse.format import Template
from tenon.parse.formats.qwen3 import FIRST_CASES, THINK_CASES
from tenon.parse.formats.qwen3 import FORMAT as QWEN3

_COMMON = ("<tool_call>", "</tool_call>", "arguments", "</think>", "assistant\\n<think>\\n")

FORMAT = replace(
    QWEN3,
    thinks_first=True,
    templates=(
        Template(has=(*_COMMON, "last_query_index"), lacks=("enable_thinking", "<function="), rank=3),
        Template(has=(*_COMMON, "<|vision_start|>"), lacks=("enable_thinking", "<function="), rank=3),
    ),
)

CASES = [*FIRST_CASES, *THINK_CASES]
