"""How much the long tests do: TENON_LONG times as much as is meant for an hour on two cores."""

import os

SHARE = float(os.environ.get("TENON_LONG", "1"))


def many(count: int) -> int:
    return max(1, int(count * SHARE))
