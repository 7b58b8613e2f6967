"""A process that does not outlive the one that started it."""

from __future__ import annotations

import ctypes
import sys
from signal import Signals

_PR_SET_PDEATHSIG = 1


def tie_to_parent(number: Signals) -> None:
    """Have the kernel send this signal when the parent ends (Linux). SIGKILL ends a stopped process too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
