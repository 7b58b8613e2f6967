"""GPT-OSS: harmony, messages with channels.

<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>
"""

from tenon.parse.format import Case, Channels, Format, Template

FORMAT = Format(
    channels=Channels(
        start="<|start|>",
        channel="<|channel|>",
        message="<|message|>",
        ends=("<|end|>", "<|call|>", "<|return|>"),
        constrain="<|constrain|>",
        reasoning=("analysis",),
        content=("final", "commentary"),
        role="assistant",
        recipient="to=functions.",
        kinds=("json", "code", "text"),
    ),
    trim=False,
    templates=(Template(has=("<|channel|>", "<|message|>", "<|start|>"), rank=5),),
)

_THINK = "<|channel|>analysis<|message|>Hm. <|end|>"
_FINAL = "<|start|>assistant<|channel|>final<|message|>"
_PARIS = (
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>'
)
_TIME = "<|start|>assistant to=functions.get_time<|channel|>commentary json<|message|>{}<|call|>"

CASES = [
    Case("thinking", f"{_THINK}{_FINAL}Hi.\n<|return|>", reasoning="Hm. ", content="Hi.\n"),
    Case("final only", "<|channel|>final<|message|>Hi", content="Hi"),
    Case("cut off in thinking", "<|channel|>analysis<|message|>Hm", reasoning="Hm"),
    Case(
        "one call",
        f"{_THINK}<|start|>assistant{_PARIS}",
        reasoning="Hm. ",
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case(
        "calls in parallel",
        f"<|channel|>commentary<|message|>Both.<|end|><|start|>assistant{_PARIS}{_TIME}",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case("recipient first", _TIME.removeprefix("<|start|>assistant"), calls=[("get_time", {})]),
    Case("empty arguments", _TIME.replace("{}", " "), calls=[("get_time", {})]),
    Case(
        "ended by a token without text",
        _PARIS.removesuffix("<|call|>"),
        calls=[("get_weather", {"city": "Paris"})],
    ),
    Case("empty and ended so", "to=functions.get_time<|message|>", calls=[("get_time", {})]),
    Case("cut off in a call", _PARIS.partition("ris")[0], calls=[("get_weather", '{"city": "Pa')]),
    Case("no markers", "Hello <b>!", content="Hello <b>!"),
    Case("messages of one kind", f"{_THINK}<|start|>assistant{_THINK}", reasoning="Hm. \nHm. "),
    Case(
        "arguments that are not JSON",
        "to=functions.f<|channel|>commentary<|message|>oops<|call|>!",
        content="to=functions.f<|channel|>commentary<|message|>oops\n!",
    ),
    Case("unknown channel", "<|channel|>x<|message|>y<|end|>", content="<|channel|>x<|message|>y<|end|>"),
    Case("no channel", "<|message|>Hi<|end|>", content="Hi"),
    Case("cut off in a header", "<|channel|>fin", content="<|channel|>fin"),
    Case("text after a call", f"{_PARIS}Hi", content="Hi", calls=[("get_weather", {"city": "Paris"})]),
    Case(
        "broken in arguments",
        '<|channel|>commentary to=functions.f<|message|>{"a": 1 b}<|call|>',
        content="b}",
        calls=[("f", '{"a": 1 ')],
    ),
    Case(
        "no tools",
        _PARIS,
        content=_PARIS,
        tools=None,
    ),
]
