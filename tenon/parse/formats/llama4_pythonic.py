"""Llama 4: calls as in llama3_pythonic, with markers around them or without; or JSON, as in llama3_json.

<|python_start|>[get_weather(city="Paris")]<|python_end|>
"""

from tenon.parse.format import Calls, Case, Format, JsonCall, Pythonic, Template
from tenon.parse.formats.llama3_pythonic import SHARED_CASES

FORMAT = Format(
    calls=(
        Calls(
            body=(JsonCall(arguments=("parameters", "arguments")), Pythonic()),
            opens=("<|python_start|>",),
            bare=("[", "{"),
            close="<|python_end|>",
            separator=";",
        ),
    ),
    stops=("<|eot|>", "<|eom|>", "<|end_of_text|>"),
    templates=(Template(has=("<|header_start|>",), rank=2),),
)

CASES = [
    *SHARED_CASES,
    Case(
        "markers",
        'Look.<|python_start|>[get_weather(city="Paris")]<|python_end|><|eom|>',
        content="Look.",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "JSON",
        '{"name": "get_weather", "parameters": {"city": "Paris"}}<|eot|>',
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "code between markers",
        "<|python_start|>print(1)<|python_end|>",
        content="<|python_start|>print(1)<|python_end|>",
    ),
]
