"""Llama 3.1 to 3.3: the whole answer is a JSON call, or several with semicolons between.

    {"name": "get_weather", "parameters": {"city": "Paris"}}

Without the marker `<|python_tag|>` only known tools count: an answer may be JSON of its own.
"""

from tenon.parse.format import Calls, Case, Format, JsonCall, JsonList, Template

FORMAT = Format(
    calls=(
        Calls(
            body=(JsonCall(arguments=("parameters", "arguments")), JsonList()),
            opens=("<|python_tag|>",),
            bare=("{",),
            separator=";",
        ),
    ),
    stops=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    templates=(
        Template(has=("<|start_header_id|>", '"parameters"'), lacks=("<tool_call>",), rank=1),
        Template(has=("<|python_tag|>",), lacks=("<tool_call>",), rank=1),
    ),
)

PARIS = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
TIME = '{"type": "function", "name": "get_time", "parameters": {}}'

CASES = [
    Case("one call", PARIS + "<|eom_id|>", calls=[("get_weather", {"city": "Paris"})]),
    Case("after the tag", f"<|python_tag|>{PARIS}", calls=[("get_weather", {"city": "Paris"})]),
    Case(
        "calls in parallel", f"{PARIS}; {TIME}", calls=[("get_weather", {"city": "Paris"}), ("get_time", {})]
    ),
    Case("calls on lines", f"{PARIS}\n{TIME}", calls=[("get_weather", {"city": "Paris"}), ("get_time", {})]),
    Case(
        "text after a call",
        f"{PARIS}\nDone; {{}}",
        content="Done; {}",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case("semicolon after a call", f"{PARIS};", content=";", calls=[("get_weather", {"city": "Paris"})]),
    Case("JSON answer", '{"name": "Ann", "parameters": {}}', content='{"name": "Ann", "parameters": {}}'),
    Case("JSON in text", f"See {PARIS}", content=f"See {PARIS}"),
    Case("code after the tag", "<|python_tag|>print(1)", content="<|python_tag|>print(1)"),
    Case("cut off", PARIS[:-4], calls=[("get_weather", '{"city": "Pari')]),
    Case("cut off before the name", '{"name": "get_w', content='{"name": "get_w'),
    Case("no tools", PARIS, content=PARIS, tools=None),
]
