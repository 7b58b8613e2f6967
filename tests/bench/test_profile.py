import math

import pytest

from tenon.bench import latency, profile, roof
from tenon.bench.latency import Shape
from tenon.config import EngineArgs
from tenon.errors import ConfigError

ROOFS = roof.Roofs(1e9, 5e8, 1e10, 4e10)


def config(**changes):
    return EngineArgs(enable_prefix_caching=False, **changes).resolve()


class FakePasses:
    """One op of a millisecond per phase."""

    def __init__(self):
        self.switched = []

    def set_profiling(self, on):
        self.switched.append(on)

    def profile(self):
        return [{"op": "linear", "calls": 3, "seconds": 1e-3, "bytes": 5e5, "flops": 2e6}]


def test_phases_follow_each_other():
    passes = FakePasses()
    with profile.Profiler(passes) as profiler:
        profiler.end_phase("prefill")
        profiler.end_phase("decode")
    assert [phase.name for phase in profiler.phases] == ["prefill", "decode"]
    assert passes.switched == [True, True, True, False]


def test_profiling_ends_after_an_error():
    passes = FakePasses()
    with pytest.raises(KeyError), profile.Profiler(passes):
        raise KeyError
    assert passes.switched[-1] is False


def test_rows_hold_rates_against_the_roofs():
    moved = {"op": "rope", "calls": 1, "seconds": 3e-3, "bytes": 3e6, "flops": 0}
    idle = {"op": "attention", "calls": 0, "seconds": 0.0, "bytes": 0, "flops": 0}
    phase = profile.Phase("decode", 8e-3, [*FakePasses().profile(), idle, moved])
    first, second, rest = profile.rows(phase, ROOFS)
    assert (first["op"], second["op"], rest["op"]) == ("rope", "linear", profile.OUTSIDE)
    assert first["gigaflops_per_s"] is None
    assert math.isclose(second["share"], 1 / 8)
    assert math.isclose(second["gigabytes_per_s"], 0.5)
    assert math.isclose(second["bandwidth_fraction"], 0.5)
    assert math.isclose(second["gigaflops_per_s"], 2)
    assert math.isclose(second["peak_fraction"], 0.2)
    assert math.isclose(rest["ms"], 4)
    assert set(rest) == set(first)


def test_what_is_not_recorded_cannot_be_profiled():
    with pytest.raises(ConfigError, match="op by op"):
        latency.measure(config(load_format="oracle"), Shape(40, 8, 2), 1, profiled=True)


@pytest.mark.parametrize(
    ("activations", "linear"), [("bfloat16", "linear"), ("int8", "linear int8"), ("int16", "linear int16")]
)
def test_an_engine_is_profiled(activations, linear, smollm2_gguf):
    small = config(model=str(smollm2_gguf), max_model_len=64, activations=activations)
    result = latency.measure(small, Shape(20, 4, 2), 1, profiled=True)
    for phase in ("prefill", "decode"):
        table = result["profile"][phase]
        assert {linear, f"{linear} (head)", "attention"} <= {row["op"] for row in table}
        assert table[-1]["op"] == profile.OUTSIDE
        assert math.isclose(sum(row["share"] for row in table), 1)
