"""One harness for every op on every backend: judge it against the reference, or time it.

Used by the tests and by `tenon bench ops`. A backend may have variants (the instruction sets of the CPU): its
package then has `variants()`, a list of names, and `variant(name)`, a context manager that forces one.
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tenon.ops import select
from tenon.ops.cases import Arrays, Case, Tolerance


class Target(NamedTuple):
    """A backend, and one of its variants if it has any."""

    backend: str
    variant: str | None = None

    def __str__(self) -> str:
        return self.backend if self.variant is None else f"{self.backend}-{self.variant}"


class Timing(NamedTuple):
    """One case on one target: the median of the calls, and what it amounts to."""

    op: str
    case: str
    target: str
    seconds: float
    gigabytes_per_s: float | None
    gigaflops_per_s: float | None  # None where the case does not say what it computes


def targets(name: str) -> list[Target]:
    """The backends, but for the reference, that can run op `name` on this machine, with their variants."""
    found = []
    for backend in select.backends():
        if backend == select.REFERENCE or select.support(select.OPS[name], backend):
            continue
        package = importlib.import_module(f"tenon.kernels.{backend}")
        variants = package.variants() if hasattr(package, "variants") else [None]
        found += [Target(backend, variant) for variant in variants]
    return found


def cases(name: str, seed: int, *, bench: bool = False) -> list[Case]:
    """The cases of op `name`: those to judge by, or those to time."""
    generator = select.OPS[name].cases
    if generator is None:
        return []
    return [case for case in generator(np.random.default_rng(seed)) if case.bench == bench]


@contextlib.contextmanager
def on(target: Target) -> Iterator[None]:
    """Run every op on `target` within the block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(select.forced(target.backend))
        if target.variant is not None:
            package = importlib.import_module(f"tenon.kernels.{target.backend}")
            stack.enter_context(package.variant(target.variant))
        yield


def observe(name: str, case: Case, target: Target) -> Arrays:
    """What the case gives on `target`."""
    with on(target):
        args = case.build()
        return case.observe(select.OPS[name](**args), args)


def expected(name: str, case: Case) -> Arrays:
    """What the case gives by definition."""
    return observe(name, case, Target(select.REFERENCE))


def judge(case: Case, expected: Arrays, got: Arrays) -> str | None:
    """What is wrong with `got`; None if nothing is."""
    for name, array in expected.items():
        if got[name].shape != array.shape or got[name].dtype != array.dtype:
            return f"{name} is {got[name].dtype}{got[name].shape}, not {array.dtype}{array.shape}"
    if case.check is not None:
        return case.check(case.build(), expected, got)
    for name, array in expected.items():
        if wrong := _far(array.astype(np.float64), got[name].astype(np.float64), case.tolerance):
            return f"{name}: {wrong}"
    return None


def time_case(name: str, case: Case, target: Target, seconds: float = 0.05) -> Timing:
    """Time the case on `target` until its calls have taken `seconds`. The first call, which warms up, counts
    only if it took that long by itself."""
    with on(target):
        args = case.build()
        run = select.OPS[name]
        times = [_timed(run, args)]
        if times[0] < seconds:
            times = [_timed(run, args)]
        while sum(times) < seconds:
            times.append(_timed(run, args))
    median = statistics.median(times)
    giga = 1e-9 / median
    return Timing(
        name, case.label, str(target), median, case.num_bytes * giga or None, case.flops * giga or None
    )


def _timed(run: Any, args: dict[str, Any]) -> float:
    start = time.perf_counter()
    run(**args)
    return time.perf_counter() - start


def _far(expected: np.ndarray, got: np.ndarray, tolerance: Tolerance) -> str | None:
    with np.errstate(invalid="ignore"):
        error = np.abs(got - expected)
    error[(got == expected) | (np.isnan(got) & np.isnan(expected))] = 0  # also infinities
    allowed = tolerance.atol + tolerance.rtol * np.abs(expected)
    bad = ~(error <= allowed) & (error != 0)  # also where one of the two is NaN
    if not bad.any():
        return None
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{bad.sum()} of {bad.size} differ; at {where} got {got[where]}, expected {expected[where]}"
