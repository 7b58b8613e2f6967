"""The masks of one step, filled in a thread of their own while the forward pass runs.

Backends release the interpreter's lock where they compute, as the forward pass does.
Shape letters: M masked rows, W words of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tenon.core.request import Request
from tenon.util.cores import roam
from tenon.util.failpoint import failpoint


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of a step's requests: row `rows_M[m]` of its logits may become what `mask_MW[m]` has bits for."""

    rows_M: np.ndarray
    mask_MW: np.ndarray

    def slice(self, begin: int, end: int) -> Masks:
        """The masks of rows begin .. end - 1, which count from 0."""
        first, last = np.searchsorted(self.rows_M, (begin, end))
        return Masks(self.rows_M[first:last] - np.int32(begin), self.mask_MW[first:last])


class Masker:
    """Owns the buffer and the thread."""

    def __init__(self, vocab_size: int) -> None:
        self._words = -(-vocab_size // 32)
        self._mask_MW = np.zeros((0, self._words), np.int32)
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, requests: Sequence[Request]) -> Future[Masks] | None:
        """Start on the masks of these requests; None if none of them is guided."""
        guided = [(i, request) for i, request in enumerate(requests) if request.guide is not None]
        if not guided:
            return None
        if len(guided) > len(self._mask_MW):
            self._mask_MW = np.zeros((2 * len(guided), self._words), np.int32)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="tenon-masks", initializer=roam)
        return self._thread.submit(self._fill, guided)

    def _fill(self, guided: list[tuple[int, Request]]) -> Masks:
        rows: list[int] = []
        for i, request in guided:
            failpoint("mask", request)
            request.guide.follow(request.tokens)
            if request.guide.fill(self._mask_MW[len(rows)]):
                rows.append(i)
        return Masks(np.array(rows, np.int32), self._mask_MW[: len(rows)])
