"""Llama 3.2 (and other models that were asked to): the whole answer is a list of Python calls.

    [get_weather(city="Paris"), get_time()]

Only known tools count: an answer may be a list of its own.
"""

from tenon.parse.format import Calls, Case, Format, Pythonic, Template

FORMAT = Format(
    calls=(Calls(body=(Pythonic(),), opens=("<|python_tag|>",), bare=("[",)),),
    stops=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    templates=(Template(has=("<|start_header_id|>", "[func_name1("), rank=2),),
)

# Also the cases of llama4_pythonic.
SHARED_CASES = [
    Case("one call", '[get_weather(city="Paris")]', calls=[("get_weather", {"city": "Paris"})]),
    Case(
        "calls in parallel",
        "[get_weather(city='Paris', days=2), get_time()]",
        calls=[("get_weather", {"city": "Paris", "days": 2}), ("get_time", {})],
    ),
    Case("text after calls", "[get_time()]\nDone.", content="Done.", calls=[("get_time", {})]),
    Case("a list", "[1, 2]", content="[1, 2]"),
    Case("an unknown function", "[f(x=1)]", content="[f(x=1)]"),
    Case("positional arguments", "[get_weather('Paris')]", content="[get_weather('Paris')]"),
    Case("cut off", '[get_weather(city="Par', calls=[("get_weather", '{"city": "Par')]),
    Case(
        "broken",
        "[get_weather(city='Paris', days=%), get_time()]",
        content="%), get_time()]",
        calls=[("get_weather", '{"city": "Paris", "days": ')],
    ),
]

CASES = [
    *SHARED_CASES,
    Case(
        "every literal",
        "[get_weather(a=[1, -2.5, True, False, None, (3,), []], b={'k': {}, \"l\": 'm'}, c='''x\n'y''')]",
        calls=[
            (
                "get_weather",
                {"a": [1, -2.5, True, False, None, [3], []], "b": {"k": {}, "l": "m"}, "c": "x\n'y"},
            )
        ],
    ),
    Case(
        "escapes",
        r"""[get_time(a='it\'s \n \x41 \u00e9 \U0001F600 \d', b="\"")]""",
        calls=[("get_time", {"a": "it's \n A é 😀 \\d", "b": '"'})],
    ),
    Case("after the tag", "<|python_tag|>[f(a=1,)]<|eom_id|>", calls=[("f", {"a": 1})]),
    Case("spaces", "[ get_weather ( city = 'x' ) ]", content="[ get_weather ( city = 'x' ) ]"),
    Case("broken second call", "[get_time(), f(", content=", f(", calls=[("get_time", {})]),
]
