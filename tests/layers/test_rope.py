"""Rotary tables against transformers' frequencies and against plain cos and sin."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tenon.layers.rope import Rope, RopeConfig, Temperature, attention_factor, frequencies

SCALED = [
    RopeConfig(64, 10000.0, "linear", factor=3.0, original_max_position=100),
    RopeConfig(128, 500000.0, "llama3", factor=8.0, original_max_position=8192),
    RopeConfig(
        64, 1e5, "llama3", factor=32.0, original_max_position=64, low_freq_factor=2, high_freq_factor=9
    ),
    RopeConfig(128, 1e6, "yarn", factor=4.0, original_max_position=32768),
    RopeConfig(64, 1e4, "yarn", factor=40.0, original_max_position=4096, mscale=1.0, mscale_all_dim=0.8),
    RopeConfig(64, 1e4, "yarn", factor=2.0, original_max_position=64, attention_factor=1.5, truncate=False),
    RopeConfig(96, 1e4, "yarn", factor=0.5, original_max_position=7, beta_fast=64, beta_slow=3),
]


@pytest.mark.parametrize("config", SCALED, ids=lambda c: f"{c.scaling}-{c.factor:g}")
def test_frequencies_match_transformers(config):
    parameters = {
        "rope_type": config.scaling,
        "rope_theta": config.theta,
        "factor": config.factor,
        "original_max_position_embeddings": config.original_max_position,
        "low_freq_factor": config.low_freq_factor,
        "high_freq_factor": config.high_freq_factor,
        "beta_fast": config.beta_fast,
        "beta_slow": config.beta_slow,
        "truncate": config.truncate,
        "attention_factor": config.attention_factor,
        "mscale": config.mscale,
        "mscale_all_dim": config.mscale_all_dim,
    }
    hf = LlamaConfig(head_dim=config.rot_dim, max_position_embeddings=4096, rope_parameters=parameters)
    expected, scale = ROPE_INIT_FUNCTIONS[config.scaling](hf, "cpu")
    np.testing.assert_allclose(frequencies(config, 4096), expected.numpy(), rtol=2e-6)
    assert attention_factor(config) == pytest.approx(scale)


def test_the_table_holds_cos_then_sin_of_every_position():
    config = RopeConfig(32, 10000.0)
    table = Rope(config, 70_001).cos_sin_PE
    assert table.dtype == np.float32
    assert table.shape == (70_001, 32)
    for position in (0, 1, 255, 256, 257, 4095, 70_000):
        for pair in (0, 1, 7, 15):
            angle = position * 10000.0 ** (-2 * pair / 32)
            assert table[position, pair] == np.float32(math.cos(angle))
            assert table[position, 16 + pair] == np.float32(math.sin(angle))


def test_the_attention_factor_is_in_the_table():
    config = RopeConfig(16, 10000.0, "yarn", factor=4.0, original_max_position=64)
    assert Rope(config, 5).cos_sin_PE[0, 0] == np.float32(0.1 * math.log(4) + 1)


def test_divisors_divide():
    divisors = np.linspace(1, 8, 8)
    plain = frequencies(RopeConfig(16, 500.0), 9)
    assert np.allclose(frequencies(RopeConfig(16, 500.0, divisors_h=divisors), 9), plain / divisors)


def test_dynamic_changes_nothing_up_to_the_original_context():
    config = RopeConfig(16, 500.0, "dynamic", factor=4.0, original_max_position=100)
    assert np.array_equal(frequencies(config, 100), frequencies(RopeConfig(16, 500.0), 100))
    assert (frequencies(config, 101)[1:] < frequencies(config, 100)[1:]).all()


@pytest.mark.parametrize("attention_factor_given", [None, 1.3])
def test_longrope_takes_the_factors_of_the_longest_sequence(attention_factor_given):
    """transformers takes those of the sequence at hand; both agree where that is the longest one."""
    short, long = np.linspace(1, 3, 8), np.linspace(1.5, 40, 8)
    config = RopeConfig(
        16,
        1e4,
        "longrope",
        factor=8.0,
        original_max_position=100,
        attention_factor=attention_factor_given,
        divisors_h=short,
        long_divisors_h=long,
    )
    parameters = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 100,
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "attention_factor": attention_factor_given,
    }
    hf = LlamaConfig(head_dim=16, max_position_embeddings=800, rope_parameters=parameters)
    for length in (1, 100, 101, 800):
        expected, scale = ROPE_INIT_FUNCTIONS["longrope"](hf, "cpu", seq_len=length)
        np.testing.assert_allclose(frequencies(config, length), expected.numpy(), rtol=2e-6)
        assert attention_factor(config) == pytest.approx(scale)


def test_the_table_is_made_when_it_is_needed():
    rope = Rope(RopeConfig(16, 500.0), 10**12)  # far more than memory: making it would fail
    assert rope.num_positions == 10**12


def test_a_table_that_was_shortened_turns_as_the_whole_one():
    """Though dynamic scaling goes by how many positions there are."""
    config = RopeConfig(16, 500.0, "dynamic", factor=2.0, original_max_position=100)
    config = replace(config, temperature=Temperature(0.1, 64))
    whole, short = Rope(config, 1000), Rope(config, 1000)
    short.shorten(300)
    short.shorten(400)
    np.testing.assert_array_equal(short.cos_sin_PE, whole.cos_sin_PE[:300])
    np.testing.assert_array_equal(short.q_scale_P, whole.q_scale_P[:300])
