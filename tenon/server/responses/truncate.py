"""`"truncation": "auto"`: a conversation that has outgrown the context loses its beginning."""

from __future__ import annotations

import msgspec

from tenon.server.call import Call
from tenon.server.conversation import fits
from tenon.server.turn import Turn


async def truncated(call: Call, turn: Turn) -> Turn:
    """The turn with the longest end of its conversation that fits, or the shortest one if none does.

    What the system says at the beginning stays, and what follows it begins with a user's message, so that no
    call is cut from its result.
    """
    if await fits(call, turn):
        return turn
    messages = turn.messages
    told = next((i for i, m in enumerate(messages) if m["role"] not in ("system", "developer")), 0)
    starts = [i for i, m in enumerate(messages) if m["role"] == "user" and i > told]

    def without(start: int) -> Turn:
        return msgspec.structs.replace(turn, messages=messages[:told] + messages[start:])

    if not starts:
        return turn
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await fits(call, without(starts[middle])):
            high = middle
        else:
            low = middle + 1
    return without(starts[low])
