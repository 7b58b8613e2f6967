"""LongCat-Flash: its own tags around JSON, or around keys and values."""

from tenon.parse.format import Calls, Case, Format, JsonCall, Reasoning, TagCall, Template

OPEN, CLOSE = "<longcat_tool_call>", "</longcat_tool_call>"

FORMAT = Format(
    reasoning=(Reasoning("<longcat_think>", "</longcat_think>"), Reasoning("<think>", "</think>")),
    calls=(
        Calls(
            body=(
                JsonCall(),
                TagCall(
                    "<longcat_arg_key>", "</longcat_arg_key>", "<longcat_arg_value>", "</longcat_arg_value>"
                ),
            ),
            opens=(OPEN,),
            close=CLOSE,
        ),
    ),
    stops=("</longcat_s>",),
    templates=(Template(has=("longcat_",), rank=6),),
)

CASES = [
    Case("thinking", "<longcat_think>\nHm.\n</longcat_think>\nHi.", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "<longcat_think>Hm", reasoning="Hm"),
    Case(
        "calls in parallel",
        f'Both.\n{OPEN}\n{{"name": "get_weather", "arguments": {{"city": "Paris"}}}}\n{CLOSE}\n'
        f"{OPEN}get_time{CLOSE}</longcat_s>",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "keys and values",
        f"{OPEN}get_weather\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>2</longcat_arg_value>\n{CLOSE}",
        calls=[("get_weather", {"days": 2})],
    ),
    Case("cut off", f'{OPEN}{{"name": "f", "arguments": {{"a": "b', calls=[("f", '{"a": "b')]),
    Case("empty", OPEN + CLOSE, content=OPEN + CLOSE),
]
