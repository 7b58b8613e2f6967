"""Seed-OSS: like qwen3_coder, in tags of its own; reflections on its budget are part of the thinking."""

from tenon.parse.format import Calls, Case, Format, Reasoning, Template
from tenon.parse.formats.qwen3_coder import BODY

SECTION = ("<seed:tool_call>", "</seed:tool_call>")

FORMAT = Format(
    reasoning=(Reasoning("<seed:think>", "</seed:think>", opened_by=("<seed:cot_budget_reflect>",)),),
    calls=(Calls(body=(BODY,), inner=(BODY.open,), section=SECTION),),
    stops=("<seed:eos>",),
    templates=(Template(has=(SECTION[0],), rank=6), Template(has=("<seed:think>",), rank=5)),
)

PARIS = "<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>"
TIME = "<function=get_time>\n</function>"

CASES = [
    Case("thinking", "<seed:think>\nHm.</seed:think>\nHi.<seed:eos>", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "<seed:think>Hm", reasoning="Hm"),
    Case(
        "budget used up by the prompt",
        "No.</seed:cot_budget_reflect>\n</seed:think>Hi.",
        reasoning="No.</seed:cot_budget_reflect>",
        content="Hi.",
        prompt="<seed:bos>assistant\n<seed:think><seed:cot_budget_reflect>",
    ),
    Case(
        "calls in parallel",
        f"<seed:think>Hm.</seed:think>\nBoth.\n{SECTION[0]}\n{PARIS}\n{SECTION[1]}\n{SECTION[0]}\n{TIME}\n{SECTION[1]}",
        reasoning="Hm.",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case("cut off", f"{SECTION[0]}{PARIS.partition('ris')[0]}", calls=[("get_weather", '{"city": "Pa')]),
    Case("not a call", f"{SECTION[0]}x", content=f"{SECTION[0]}x"),
]
