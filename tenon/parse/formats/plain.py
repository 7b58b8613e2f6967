"""No format: everything is content."""

from tenon.parse.format import Case, Format

FORMAT = Format(trim=False)

CASES = [
    Case("text", "Hello\n<think>world</think> \n", content="Hello\n<think>world</think> \n"),
    Case("call", '<tool_call>{"name": "f"}</tool_call>', content='<tool_call>{"name": "f"}</tool_call>'),
    Case("nothing", ""),
]
