"""Every op on every backend and instruction set, over the cases that the ops bring for timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenon.errors import ConfigError


def measure(
    only: tuple[str, ...], reference: bool, seconds: float, progress: Callable[[str], None] = lambda op: None
) -> dict[str, Any]:
    """`timings`: one per op, case and target. `only` names ops; `reference` also times their definitions.

    Raises ConfigError for an unknown op.
    """
    from tenon.ops import harness, select

    names = sorted(select.OPS)
    for name in only:
        if name not in names:
            raise ConfigError(f"there is no op {name!r}; there are {', '.join(names)}")
    timings = []
    for name in only or names:
        targets = harness.targets(name)
        if reference or not targets:
            targets = [*targets, harness.Target(select.REFERENCE)]
        progress(name)
        for case in harness.cases(name, seed=0, bench=True):
            timings += [harness.time_case(name, case, target, seconds)._asdict() for target in targets]
    return {"timings": timings}
