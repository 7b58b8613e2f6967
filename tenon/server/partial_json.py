"""JSON text that may have been cut off, as the value that its complete parts are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_CLOSERS = {"{": "}", "[": "]"}


def complete(text: str) -> dict[str, Any]:
    """The object that `text` spells; of one that was cut off, the members that are complete, at every depth.

    A number is taken for complete where it ends, as clients take it that follow a stream. {} if there is no
    object. Halves of surrogate pairs, which no text has, become U+FFFD.
    """
    for candidate in _candidates(text):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        except RecursionError:  # deeper than anybody reads
            return {}
        return _whole(value) if isinstance(value, dict) else {}
    return {}


def _whole(value: dict[str, Any]) -> dict[str, Any]:
    """With U+FFFD for each half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    out: dict[str, Any] = json.loads(text.decode("utf-16", "replace"))
    return out


def _candidates(text: str) -> Iterator[str]:
    """`text`; closed where it ends; closed at the last place where that surely completes it."""
    yield text
    brackets: list[str] = []  # that close what is open
    end, closers = 0, ""
    in_string = escaped = False
    is_value = False  # the string or number being read is no key
    for position, char in enumerate(text):
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
            if in_string or not is_value:
                continue
            end = position + 1
        elif char == '"':
            in_string = True
            continue
        elif char == ":":
            is_value = True
            continue
        elif char in _CLOSERS:
            brackets.append(_CLOSERS[char])
            is_value = char == "["
            end = position + 1
        elif char in "}]" and brackets:
            brackets.pop()
            end = position + 1
        elif char == "," and brackets:
            is_value = brackets[-1] == "]"
            end = position
        else:
            continue
        closers = "".join(reversed(brackets))
    yield text + "".join(reversed(brackets))
    yield text[:end] + closers
