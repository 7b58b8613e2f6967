import math

import numpy as np

from tenon.bench.stats import median, percentile, summary


def test_percentiles_are_those_of_numpy(seed):
    samples = np.random.default_rng(seed).exponential(size=37).tolist()
    for percent in (0, 1, 50, 90, 99, 100):
        assert math.isclose(percentile(samples, percent), float(np.percentile(samples, percent)))
    assert median([3.0]) == 3.0
    assert math.isnan(percentile([], 50))


def test_summary_names():
    assert summary("x_ms", [1.0, 3.0]) == {
        "x_ms": 2.0,
        "mean_x_ms": 2.0,
        "median_x_ms": 2.0,
        "p90_x_ms": 2.8,
        "p99_x_ms": 2.98,
    }
    assert set(summary("x", []).values()) == {None}
