"""What a model writes, through the parser of every output format: no fault, and all ways of cutting agree.

The first byte picks the format, the second how the text is cut.
"""

from __future__ import annotations

import itertools
import json

from tenon.parse import formats
from tenon.parse.events import Parsed, fold
from tenon.parse.format import CLOCK, WEATHER
from tenon.parse.machine import Parser

EXPECTED: tuple[type[Exception], ...] = ()
_NAMES = formats.names()
_TABLES = [formats.load(name) for name in _NAMES]
DICTIONARY = sorted({marker.encode() for table in _TABLES for marker in table.special()})
DICTIONARY += [
    b'{"name": "get_weather", "arguments": {"city": "x"}}',
    b"__import__('os').system('x')",
    b"\\u00e9",
]


def seeds() -> dict[str, bytes]:
    return {
        f"{name} {number}": bytes([index, number % 7]) + case.text.encode()
        for index, name in enumerate(_NAMES)
        for number, case in enumerate(formats.cases(name))
    }


def run(data: bytes) -> None:
    table = _TABLES[data[0] % len(_TABLES)] if data else _TABLES[0]
    size = data[1] % 7 + 1 if len(data) > 1 else 1
    text = data[2:].decode("utf-8", "replace")
    whole = _read(table, [text])
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert _read(table, parts) == whole, "cut in pieces it says something else"


def _read(table: formats.Format, parts: list[str]) -> Parsed:
    numbers = itertools.count()
    parser = Parser(table, [WEATHER, CLOCK], "", new_id=lambda: f"id{next(numbers)}")
    events = [event for part in parts for event in parser.push(part)]
    parsed = fold(events + parser.finish())
    json.dumps([call.arguments for call in parsed.tool_calls])
    return parsed
