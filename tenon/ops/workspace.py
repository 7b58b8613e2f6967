"""Where ops put their outputs: memory that is reused within a step and kept between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, Protocol

import numpy as np

from tenon.ops.select import op


class Arena(Protocol):
    """Hands out bytes that return to it when the last array that views them dies."""

    def bytes(self, size: int) -> np.ndarray:
        """Uninitialised uint8 [size], aligned to 64 bytes."""
        ...


class HeapArena:
    """The reference: numpy's own allocations."""

    def bytes(self, size: int) -> np.ndarray:
        return np.empty(size, np.uint8)


@op(kernel=False)
def arena() -> Arena:
    """A new, empty arena."""
    return HeapArena()


class Workspace:
    """While one is entered (`with workspace:`), `empty` allocates from its arena.

    `reserve` maps a number of rows to the larger number that memory is set aside for: a plan recorded with
    few rows is replayed with many (`tenon.ops.plan`).
    """

    def __init__(self) -> None:
        self._arena = arena()
        self._entered: list[Token[Workspace | None]] = []
        self.reserve: Mapping[int, int] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> np.ndarray:
        dtype = np.dtype(dtype)
        size = dtype.itemsize * math.prod(shape)
        if not shape or not size:
            return np.empty(shape, dtype)
        rows = self.reserve.get(shape[0], shape[0])
        block = self._arena.bytes(size // shape[0] * rows)
        return block[:size].view(dtype).reshape(shape)

    def __enter__(self) -> Workspace:
        self._entered.append(_current.set(self))
        return self

    def __exit__(self, *exc: object) -> None:
        _current.reset(self._entered.pop())


_current: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> np.ndarray:
    """An uninitialised array for an op's output, from the workspace in force or else from numpy."""
    workspace = _current.get()
    return np.empty(shape, dtype) if workspace is None else workspace.empty(shape, dtype)
