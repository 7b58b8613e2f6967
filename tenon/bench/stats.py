"""Summaries of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear interpolation between the closest ranks, as numpy's default; nan for no samples."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(samples: Sequence[float]) -> float:
    return percentile(samples, 50)


def summary(name: str, samples: Sequence[float]) -> dict[str, float | None]:
    """`name` (the median), `mean_name`, `median_name`, `p90_name` and `p99_name`; None for no samples.

    The prefixed names are those of vLLM's benchmark, so that scripts can read both.
    """
    if not samples:
        values: list[float | None] = [None] * 4
    else:
        values = [sum(samples) / len(samples), *(percentile(samples, p) for p in (50, 90, 99))]
    mean, middle, p90, p99 = values
    return {
        name: middle,
        f"mean_{name}": mean,
        f"median_{name}": middle,
        f"p90_{name}": p90,
        f"p99_{name}": p99,
    }
