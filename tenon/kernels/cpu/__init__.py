"""The native CPU backend: C++ kernels that take pointers and sizes; numpy arrays own the memory."""

from __future__ import annotations

import importlib.util


def support() -> str | None:
    """Why this backend cannot run at all; None if it can."""
    if importlib.util.find_spec("tenon.kernels.cpu._native") is None:
        return "the native module is not built"
    return None
