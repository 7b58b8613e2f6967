"""DeepSeek V3: a section of calls, each a name and a fenced block of JSON.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
```json
{"city": "Paris"}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

from tenon.parse.format import Calls, Case, Format, NamedJson, Template

SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
OPEN, SEPARATOR, CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
STOP = "<｜end▁of▁sentence｜>"

CALLS = Calls(
    body=(NamedJson(head="function" + SEPARATOR, separators=("```json",), tail="```"),),
    opens=(OPEN,),
    close=CLOSE,
    section=SECTION,
)

FORMAT = Format(
    calls=(CALLS,),
    stops=(STOP,),
    templates=(Template(has=(*SECTION, SEPARATOR, "```json"), lacks=("</think>",), rank=1),),
)

PARIS = f'{OPEN}function{SEPARATOR}get_weather\n```json\n{{"city": "Paris"}}\n```{CLOSE}'
TIME = f"{OPEN}function{SEPARATOR}get_time\n```json\n{{}}\n```{CLOSE}"

CASES = [
    Case("one call", SECTION[0] + PARIS + SECTION[1] + STOP, calls=[("get_weather", {"city": "Paris"})]),
    Case(
        "calls in parallel",
        f"Both.\n{SECTION[0]}{PARIS}\n{TIME}{SECTION[1]}",
        content="Both.",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
    Case("no section", f"{PARIS} Hi", content="Hi", calls=[("get_weather", {"city": "Paris"})]),
    Case("section not closed", SECTION[0] + PARIS, calls=[("get_weather", {"city": "Paris"})]),
    Case("cut off", SECTION[0] + PARIS.partition("ris")[0], calls=[("get_weather", '{"city": "Pa')]),
    Case(
        "no JSON",
        f"{SECTION[0]}{OPEN}f{CLOSE}{SECTION[1]}",
        content=f"{SECTION[0]}{OPEN}f{CLOSE}{SECTION[1]}",
    ),
    Case("empty section", "".join(SECTION), content="".join(SECTION)),
    Case(
        "text in the section",
        f"{SECTION[0]}{PARIS}and{TIME}{SECTION[1]}!",
        content="and\n!",
        calls=[("get_weather", {"city": "Paris"}), ("get_time", {})],
    ),
]
