"""Kimi K2: calls whose header is their id, `functions.<name>:<number>`.

    <|tool_calls_section_begin|>
    <|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>
    <|tool_calls_section_end|>

The thinking editions may call while they think; the section ends the thinking.
"""

from tenon.parse.format import Calls, Case, Format, NamedJson, Reasoning, Template

SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
OPEN, SEPARATOR, CLOSE = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


def split(header: str) -> tuple[str, str | None]:
    """`functions.f:0` -> f and the whole as its id; a header without a number is a name."""
    name, colon, number = header.removeprefix("functions.").rpartition(":")
    return (name, header) if colon and number.isdecimal() else (header.removeprefix("functions."), None)


FORMAT = Format(
    reasoning=(Reasoning("<think>", "</think>", ended_by_calls=True),),
    calls=(
        Calls(
            body=(NamedJson(separators=(SEPARATOR,), split=split, header="functions.{name}:{number}"),),
            opens=(OPEN,),
            close=CLOSE,
            section=SECTION,
        ),
    ),
    stops=("<|im_end|>", "[EOS]"),
    templates=(Template(has=(SECTION[0],), rank=5), Template(has=("<|im_middle|>",), rank=2)),
)

PARIS = f'{OPEN}functions.get_weather:0{SEPARATOR}{{"city": "Paris"}}{CLOSE}'
TIME = f"{OPEN}functions.get_time:1{SEPARATOR}{{}}{CLOSE}"

CASES = [
    Case("thinking", "<think>Hm.</think>Hi.", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "<think>Hm", reasoning="Hm"),
    Case(
        "calls in parallel",
        f"Both.{SECTION[0]}{PARIS}{TIME}{SECTION[1]}<|im_end|>",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "calls end thinking",
        f"<think>Hm. {SECTION[0]}{PARIS}{SECTION[1]}",
        reasoning="Hm.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case("no number", f"{OPEN}get_time{SEPARATOR}{{}}{CLOSE}", calls=[("get_time", {})]),
    Case("cut off", f"{SECTION[0]}{PARIS.partition('ris')[0]}", calls=[("get_weather", '{"city": "Pa')]),
    Case("no separator", f"{SECTION[0]}{OPEN}f {{}}", content=f"{SECTION[0]}{OPEN}f {{}}"),
]
