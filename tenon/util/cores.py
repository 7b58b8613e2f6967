"""Which cores a thread may run on."""

import contextlib
import os

_ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # before anything is pinned


def roam() -> None:
    """Have the calling thread run wherever this process may, though the one that started it is pinned."""
    if _ALLOWED:
        with contextlib.suppress(OSError):  # the cores have changed meanwhile: then it stays where it is
            os.sched_setaffinity(0, _ALLOWED)
