"""How outputs think, in tokens: from the format, the end of the prompt, and what the answer begins with."""

from __future__ import annotations

import msgspec
import pytest

from tenon.core.structured import Thinking
from tenon.parse import formats
from tenon.parse.thinking import switched_off, thinking_of

PAIR = ("<think>", "</think>")


def thinking(name: str, prompt_tail: str = "", prefill: str = "", **changes) -> Thinking | None:
    table = msgspec.structs.replace(formats.load(name), **changes)
    return thinking_of(table, lambda text: [ord(char) for char in text], prompt_tail, prefill)


def ids(text: str) -> list[int]:
    return [ord(char) for char in text]


def test_a_format_that_knows_none():
    assert thinking("hermes", "<think>\n") is None
    assert not switched_off(formats.load("hermes"), "<think>\n\n</think>\n\n")


def test_a_pair_of_markers():
    assert thinking("qwen3") == Thinking(pairs=[PAIR], closing=[ids("\n</think>")])
    assert thinking("qwen3", trim=False) == Thinking(pairs=[PAIR], closing=[ids("</think>")])


def test_where_the_prompt_ends():
    assert thinking("qwen3", "<think>\n").inside == 0
    assert thinking("qwen3", "<think>\n\n</think>\n\n").inside == -1
    assert thinking("deepseek_r1").inside == 0  # it thinks first, whatever the prompt ends with
    pair = formats.load("qwen3").reasoning[0]
    second = msgspec.structs.replace(pair, open="<plan>", close="</plan>", anywhere=True)
    both = thinking("qwen3", "<plan>", reasoning=(pair, second))
    assert (both.inside, both.anywhere) == (1, True)
    assert both.pairs == [PAIR, ("<plan>", "</plan>")]
    assert both.closing == [ids("\n</think>"), ids("\n</plan>")]


def test_what_the_answer_begins_with():
    assert thinking("qwen3", "", "<think> so").inside == 0
    assert thinking("qwen3", "<think>", "<think> so </think>").inside == -1
    assert thinking("qwen3", "", " \n").may_open
    assert not thinking("qwen3", "", "Well").may_open


def test_calls_that_end_it():
    markers = ["<|tool_call_begin|>", "<|tool_calls_section_begin|>"]
    assert thinking("kimi_k2").ended_by == markers
    pair = formats.load("kimi_k2").reasoning[0]
    kept = msgspec.structs.replace(pair, ended_by_calls=False)
    assert thinking("kimi_k2", reasoning=(kept,)).ended_by == []


def test_channels():
    start, end = "<|channel|>analysis<|message|>", "<|end|>"
    answer = "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert thinking("gpt_oss") == Thinking(pairs=[(start, end)], closing=[ids(answer)], anywhere=True)
    channels = msgspec.structs.replace(formats.load("gpt_oss").channels, reasoning=("analysis", "plan"))
    two = thinking("gpt_oss", channels=channels)
    assert two.pairs[1] == ("<|channel|>plan<|message|>", end)
    assert two.closing == [ids(answer)] * 2


@pytest.mark.parametrize(
    ("tail", "off"),
    [
        ("<think>\n\n</think>\n\n", True),
        ("<think>\n", False),
        ("</think>x", False),
        ("", False),
        ("</think>" + " " * 248, True),
        ("</think>" + " " * 249, False),  # no template ends like that
    ],
)
def test_switched_off(tail, off):
    assert switched_off(formats.load("qwen3"), tail) is off
