"""The engine's own time: what a step takes outside the passes (schedule, prepare, sample, hand out)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

import numpy as np

from tenon.bench.stats import median
from tenon.core.batch import Batch
from tenon.core.messages import Outputs, ToEngine
from tenon.engine.client import InProcessClient
from tenon.engine.passes import Passes


class Steps(Protocol):
    """An engine that is stepped by its user."""

    @property
    def has_work(self) -> bool: ...

    def send(self, messages: Sequence[ToEngine]) -> object: ...

    def step(self) -> Outputs: ...


class OwnTime:
    """`Steps` of a client, timed within the `with` block. `begin` forgets the steps before it."""

    def __init__(self, client: InProcessClient) -> None:
        self._client = client
        self._runner = client.engine.runner
        self._passes = self._runner.passes
        self._timed = _TimedPasses(self._passes)
        self._seconds: list[float] = []

    def __enter__(self) -> OwnTime:
        self._runner.passes = self._timed  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.passes = self._passes

    @property
    def has_work(self) -> bool:
        return self._client.has_work

    def send(self, messages: Sequence[ToEngine]) -> None:
        self._client.send(messages)

    def step(self) -> Outputs:
        within, start = self._timed.seconds, time.perf_counter()
        outputs = self._client.step()
        whole = time.perf_counter() - start
        self._seconds.append(whole - (self._timed.seconds - within))
        return outputs

    def begin(self) -> None:
        self._seconds.clear()

    @property
    def seconds(self) -> float | None:
        """Of the step in the middle; None if there was none."""
        return median(self._seconds) if self._seconds else None


class _TimedPasses:
    def __init__(self, passes: Passes) -> None:
        self.seconds = 0.0
        self._passes = passes

    def forward(self, batch: Batch) -> None:
        start = time.perf_counter()
        self._passes.forward(batch)
        self.seconds += time.perf_counter() - start

    def logits(self, rows_S: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        logits_SV = self._passes.logits(rows_S)
        self.seconds += time.perf_counter() - start
        return logits_SV
