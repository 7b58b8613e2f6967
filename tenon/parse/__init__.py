"""What a model writes, taken apart: reasoning, content and tool calls, as they stream.

`formats/<name>.py` describes one output format as a table; `machine.Parser` reads them all; `detect` picks
one from a chat template. Docs: docs/output-formats.md.
"""
