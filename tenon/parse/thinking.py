"""An output format's thinking in terms of tokens, for what happens while the output is made."""

from __future__ import annotations

from collections.abc import Callable

from tenon.core.structured import Thinking
from tenon.parse.format import Channels, Format
from tenon.parse.machine import thinks

_TAIL = 256


def thinking_of(
    table: Format, encode: Callable[[str], list[int]], prompt_tail: str, prefill: str = ""
) -> Thinking | None:
    """How an output of this format thinks that follows this prompt; None if the format knows no thinking.

    `encode` makes token ids of text, markers included.
    """
    if table.channels is not None:
        return _channels(table.channels, encode)
    if not table.reasoning:
        return None
    begun = thinks(table, prompt_tail, prefill)
    enders = {marker for calls in table.calls for marker in calls.markers()}
    line = "\n" if table.trim else ""
    return Thinking(
        pairs=[(pair.open, pair.close) for pair in table.reasoning],
        closing=[encode(line + pair.close) for pair in table.reasoning],
        inside=table.reasoning.index(begun) if begun else -1,
        may_open=not prefill.strip(),
        anywhere=any(pair.anywhere for pair in table.reasoning),
        ended_by=sorted(enders) if any(pair.ended_by_calls for pair in table.reasoning) else [],
    )


def switched_off(table: Format, prompt_tail: str) -> bool:
    """Whether the prompt has closed the thinking before it began."""
    tail = prompt_tail[-_TAIL:].rstrip()
    return any(tail.endswith(pair.close) for pair in table.reasoning)


def _channels(table: Channels, encode: Callable[[str], list[int]]) -> Thinking:
    """Thinking is messages of their own; used up, they are followed by the content's."""
    end, answer = table.ends[0], f"{table.start}{table.role}{table.channel}{table.content[0]}{table.message}"
    pairs = [(f"{table.channel}{name}{table.message}", end) for name in table.reasoning]
    return Thinking(pairs=pairs, closing=[encode(end + answer)] * len(pairs), anywhere=True)
