import math

import pytest

from tenon.bench import latency, roof
from tenon.bench.latency import Run, Shape
from tenon.config import EngineArgs
from tenon.engine.client import InProcessClient
from tenon.errors import ConfigError


def config(**changes):
    return EngineArgs(load_format="oracle", enable_prefix_caching=False, **changes).resolve()


def test_an_engine_is_measured():
    steps = []
    result = latency.measure(config(), Shape(40, 8, 3), 2, lambda: steps.append(1))
    assert len(steps) == 3
    assert result["prefill_tokens_per_s"] > 0
    assert result["decode_tokens_per_s"] > 0
    assert result["ttft_ms"] > 0
    assert math.isclose(result["decode_tokens_per_s"], 3 / (result["tpot_ms"] / 1e3))
    assert set(result["roof"]) >= {
        "bandwidth_gb_per_s",
        "peak_tflop_per_s",
        "decode_fraction",
        "prefill_fraction",
    }


def test_prompts_in_the_cache_are_measured_apart(monkeypatch):
    cached = []
    step = InProcessClient.step

    def watched(client):
        outputs = step(client)
        cached.extend(output.num_cached_tokens for output in outputs.outputs)
        return outputs

    monkeypatch.setattr(InProcessClient, "step", watched)
    config = EngineArgs(load_format="oracle").resolve()
    result = latency.measure(config, Shape(100, 1, 1), 2, cached=True)
    assert math.isclose(result["cached_speedup"], result["ttft_ms"] / result["cached_ttft_ms"])
    assert cached == [0, 96] * 3  # whole blocks of 32, each prompt cold and once more


def test_one_token_has_no_decode():
    result = latency.measure(config(), Shape(8, 1, 1), 1)
    assert result["tpot_ms"] is None
    assert result["decode_tokens_per_s"] is None
    assert result["roof"]["decode_fraction"] is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="max_model_len"):
        latency.measure(config(max_model_len=64), Shape(60, 8, 1), 1)


def test_figures():
    """Two requests of 100 + 11 tokens: prefill takes 0.5 s, ten decode steps 0.2 s."""
    weights = roof.Weights(1_000_000, 500_000, 0, 500_000, 100.0, 1000, state_bytes=3000)
    runs = [Run([0.25, 0.5], 0.7, 20)]
    result = latency.figures(Shape(100, 11, 2), runs, roof.Roofs(1e9, 5e8, 1e9, 4e9), weights)
    assert math.isclose(result["prefill_tokens_per_s"], 400)
    assert math.isclose(result["decode_tokens_per_s"], 100)
    assert math.isclose(result["ttft_ms"], 375)
    assert math.isclose(result["tpot_ms"], 20)
    assert math.isclose(
        result["roof"]["decode_fraction"], (1_000_000 + 2 * (105.5 * 100 + 3000)) / 0.02 / 1e9
    )
    assert math.isclose(result["roof"]["prefill_fraction"], 2 * 500_000 * 200 / 0.5 / 1e9)
