"""Arenas in native memory, with huge pages."""

from __future__ import annotations

from tenon.kernels.cpu import _native
from tenon.ops.workspace import Arena


def arena() -> Arena:
    return _native.Arena()
