"""Mistral: a list of JSON calls (to tokenizer v7), or a name and JSON for each call (from v11).

[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]
[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}
"""

import secrets
import string

from tenon.parse.format import Calls, Case, Format, JsonCall, JsonList, NamedJson, Reasoning, Template


def nine_characters() -> str:
    """An id in the form that Mistral's templates insist on."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


FORMAT = Format(
    reasoning=(Reasoning("[THINK]", "[/THINK]"), Reasoning("<think>", "</think>")),
    calls=(
        Calls(
            body=(JsonList(), JsonCall(), NamedJson(separators=("[ARGS]", ""), id_open="[CALL_ID]")),
            opens=("[TOOL_CALLS]",),
        ),
    ),
    stops=("</s>",),
    new_id=nine_characters,
    templates=(Template(has=("[TOOL_CALLS]",), rank=1), Template(has=("[INST]", "[THINK]"), rank=1)),
)

PARIS = '{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}'
TIME = '{"name": "get_time", "arguments": {}}'

CASES = [
    Case("one call", f"[TOOL_CALLS] [{PARIS}]</s>", calls=[("get_weather", {"city": "Paris"})]),
    Case(
        "calls in parallel",
        f"Both. [TOOL_CALLS][{PARIS}, {TIME}] Ok",
        content="Both.\nOk",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "names and JSON",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_time[CALL_ID]123456789[ARGS]{}</s>',
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case(
        "no separator", '[TOOL_CALLS]get_weather{"city": "Paris"}', calls=[("get_weather", {"city": "Paris"})]
    ),
    Case("thinking", "[THINK]Hm.[/THINK]Hi.", reasoning="Hm.", content="Hi."),
    Case("cut off in thinking", "[THINK]Hm", reasoning="Hm"),
    Case("cut off", f"[TOOL_CALLS][{PARIS.partition('ris')[0]}", calls=[("get_weather", '{"city": "Pa')]),
    Case("empty list", "[TOOL_CALLS][]", content="[TOOL_CALLS][]"),
    Case(
        "broken second call",
        f"[TOOL_CALLS][{TIME}, 1]",
        content=", 1]",
        calls=[("get_time", {})],
    ),
]
