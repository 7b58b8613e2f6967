"""Time per kind of op, phase by phase, against the roofs of the machine."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, NamedTuple

from tenon.bench.roof import Roofs
from tenon.engine.passes import Passes

OUTSIDE = "outside recorded ops"  # scheduling, preparing, sampling, and handing out tokens


class Phase(NamedTuple):
    """A stretch of steps: its seconds on the clock, and `Plan.profile` rows of its ops."""

    name: str
    seconds: float
    ops: list[dict[str, Any]]


class Profiler:
    """Within its `with` block, passes are timed op by op; `end_phase` closes a phase and starts the next."""

    def __init__(self, passes: Passes) -> None:
        self.phases: list[Phase] = []
        self._passes = passes
        self._start = 0.0

    def __enter__(self) -> Profiler:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passes.set_profiling(False)

    def end_phase(self, name: str) -> None:
        self.phases.append(Phase(name, time.perf_counter() - self._start, self._passes.profile()))
        self._begin()

    def _begin(self) -> None:
        self._passes.set_profiling(True)
        self._start = time.perf_counter()


def rows(phase: Phase, roofs: Roofs) -> list[dict[str, Any]]:
    """One row per kind of op that ran, the slowest first, and one for the rest of the phase's time.

    `gigabytes_per_s` and `gigaflops_per_s` count what an op had to move and compute at least; fractions
    are of `roofs.bandwidth` (which a cache may serve faster) and of the peak that applies to the op.
    """
    ran = sorted((op for op in phase.ops if op["calls"]), key=lambda op: -op["seconds"])
    table = [_row(op, phase.seconds, roofs) for op in ran]
    rest = phase.seconds - sum(op["seconds"] for op in ran)
    table.append(
        dict.fromkeys(table[0] if table else ("op", "ms", "share"))
        | {"op": OUTSIDE, "ms": 1e3 * rest, "share": rest / phase.seconds}
    )
    return table


def _row(op: dict[str, Any], phase_seconds: float, roofs: Roofs) -> dict[str, Any]:
    bandwidth, rate = op["bytes"] / op["seconds"], op["flops"] / op["seconds"]
    return {
        "op": op["op"],
        "calls": op["calls"],
        "ms": 1e3 * op["seconds"],
        "share": op["seconds"] / phase_seconds,
        "gigabytes_per_s": bandwidth / 1e9,
        "bandwidth_fraction": bandwidth / roofs.bandwidth,
        "gigaflops_per_s": rate / 1e9 if rate else None,
        "peak_fraction": rate / roofs.peak_of(op["op"]) if rate else None,
    }
